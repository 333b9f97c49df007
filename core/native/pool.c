/* One pool of pthreads of the library's own.
 *
 * Not OpenMP: a fork after OpenMP has run deadlocks, and data loaders fork. The child of a fork
 * starts with an empty pool instead. Threads start at the first parallel call. Blocks are handed
 * out dynamically, because a BLAS that spins on the other core may delay a worker for long; a
 * caller therefore never waits for a worker that has not begun. A caller that finds the pool
 * busy (another Python thread is in a kernel) does its work alone.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include "native.h"

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#else
#define PAUSE() ((void)0)
#endif

enum { SPINS = 1000, MAX_THREADS = 256, STACK = 1 << 20 };

static pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER; /* held by the caller of a job */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards sleeping and waking */
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static atomic_int wanted = 1, started, sleepers;
static atomic_int active, open_; /* workers inside the job; whether they may still enter */
static atomic_uint generation;   /* counts jobs */
static atomic_llong next_block;
static Kernel job_kernel;
static const Args *job_args;
static int64_t job_total;

static void work(void) {
    int64_t grain = job_args->grain, begin;
    while ((begin = atomic_fetch_add(&next_block, 1) * grain) < job_total) {
        int64_t end = begin + grain < job_total ? begin + grain : job_total;
        job_kernel(job_args, begin, end);
    }
}

static void *worker(void *number) {
    unsigned seen = 0;
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load(&generation) == seen; i++) PAUSE();
        if (atomic_load(&generation) == seen) {
            pthread_mutex_lock(&lock);
            atomic_fetch_add(&sleepers, 1);
            while (atomic_load(&generation) == seen) pthread_cond_wait(&wake, &lock);
            atomic_fetch_sub(&sleepers, 1);
            pthread_mutex_unlock(&lock);
        }
        seen = atomic_load(&generation);
        /* Enter first, then look whether the job is open: its caller closes it, then looks
           whether anybody is inside. One of the two always sees the other. */
        atomic_fetch_add(&active, 1);
        if (atomic_load(&open_) && (intptr_t)number < atomic_load(&wanted) - 1) work();
        atomic_fetch_sub(&active, 1);
    }
    return 0;
}

static void start_workers(int count) {
    sigset_t all, before;
    pthread_attr_t attributes;
    sigfillset(&all); /* signals belong to Python's main thread */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    while (atomic_load(&started) < count) {
        pthread_t thread;
        intptr_t number = atomic_load(&started);
        if (pthread_create(&thread, &attributes, worker, (void *)number)) break;
        atomic_fetch_add(&started, 1);
    }
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, 0);
}

void pool_run(Kernel kernel, const Args *args, int64_t total) {
    int64_t grain = args->grain;
    int threads = atomic_load(&wanted);
    if (total <= grain || threads < 2 || pthread_mutex_trylock(&busy)) {
        for (int64_t begin = 0; begin < total; begin += grain)
            kernel(args, begin, begin + grain < total ? begin + grain : total);
        return;
    }
    if (atomic_load(&started) < threads - 1) start_workers(threads - 1);
    job_kernel = kernel, job_args = args, job_total = total;
    atomic_store(&next_block, 0);
    atomic_store(&open_, 1);
    atomic_fetch_add(&generation, 1);
    if (atomic_load(&sleepers)) {
        pthread_mutex_lock(&lock);
        pthread_cond_broadcast(&wake);
        pthread_mutex_unlock(&lock);
    }
    work();
    atomic_store(&open_, 0);
    for (int i = 0; atomic_load(&active); i++)
        if (i < SPINS) PAUSE();
        else sched_yield();
    pthread_mutex_unlock(&busy);
}

static void after_fork(void) {
    pthread_mutex_init(&busy, 0);
    pthread_mutex_init(&lock, 0);
    pthread_cond_init(&wake, 0);
    atomic_store(&started, 0), atomic_store(&sleepers, 0);
    atomic_store(&active, 0), atomic_store(&open_, 0);
}

void pool_init(int threads) {
    pool_set_threads(threads);
    pthread_atfork(0, 0, after_fork);
}

void pool_set_threads(int threads) {
    atomic_store(&wanted, threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads);
}

int pool_get_threads(void) { return atomic_load(&wanted); }

int pool_started(void) { return atomic_load(&started); }

/* Compiles the kernels for each instruction set and lists what this processor can run. */
#include <math.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include "native.h"

#define SIMD _Pragma("omp simd")
#define SIMD_SUM(...) _Pragma_(omp simd reduction(+ : __VA_ARGS__))
#define _Pragma_(text) _Pragma(#text)

/* Where `conv` gathers its input: one for each thread, whose stack may be small (musl). */
enum { PIXELS = 96, SLICE = 256, LINE = SLICE + 16 /* a power of 2 would crowd few cache sets */ };
static _Thread_local float columns[PIXELS * LINE] __attribute__((aligned(64)));

/* `winograd`: channels of a tile that lie side by side, and where values and products of a block
 * of tiles lie. Pages that no block reaches are never touched. */
enum { PIECE = 16, WINOGRAD = 1 << 20 };
static _Thread_local float winograd_space[WINOGRAD] __attribute__((aligned(64)));

/* `attention`: keys of a block, width of the widest head; queries, scores and sums of a panel of
 * 32 at most, and values. */
enum { KEYS = 256, HEAD = 512 };
static _Thread_local float attention_space[(2 * HEAD + KEYS) * 32 + KEYS * HEAD]
    __attribute__((aligned(64)));

/* From the first to the second, the calling thread takes numbers below the smallest normal one as
 * zero. The second puts back what the first returned. */
static inline unsigned int subnormals_are_zero(void) {
#if defined(__x86_64__)
    unsigned int mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040); /* results to zero, operands as zero */
    return mode;
#else
    return 0;
#endif
}

static inline void subnormals_as(unsigned int mode) {
#if defined(__x86_64__)
    _mm_setcsr(mode);
#else
    (void)mode;
#endif
}

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#define WIDTH_ATTRIBUTE __attribute__((min_vector_width(512)))
#define WIDTH_FLAG
#else
#define UNROLL _Pragma("GCC unroll 16")
#define WIDTH_ATTRIBUTE
#define WIDTH_FLAG ",prefer-vector-width=512"
#endif

#if defined(__x86_64__)
#define ISA avx512
#define LANES 16
#define REGISTERS 32
#define TARGET WIDTH_ATTRIBUTE \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl" WIDTH_FLAG)))
#include "body.h"
#undef ISA
#undef LANES
#undef REGISTERS
#undef TARGET

#define ISA avx2
#define LANES 8
#define REGISTERS 16
#define TARGET __attribute__((target("avx2,fma,f16c")))
#include "body.h"
#undef ISA
#undef LANES
#undef REGISTERS
#undef TARGET

static int avx2_usable(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
        && __builtin_cpu_supports("f16c");
}

static int avx512_usable(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
        && avx2_usable();
}

#endif

#define ISA generic
#define LANES 4
#if defined(__aarch64__)
#define REGISTERS 32
#else
#define REGISTERS 16
#endif
#define TARGET
#include "body.h"

static int always(void) { return 1; }

const Isa ISAS[] = {
#if defined(__x86_64__)
    {"avx512", 16, 32, avx512_usable, ENTRIES_avx512},
    {"avx2", 8, 16, avx2_usable, ENTRIES_avx2},
#endif
    {"generic", 4, 8, always, ENTRIES_generic},
    {0, 0, 0, 0, 0},
};

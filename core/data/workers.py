"""Worker threads that read batches ahead, in order and bounded."""

from __future__ import annotations

import atexit
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from .reading import Cancelled, Reader, Task


class CannotStart(Exception):
    """A worker could not begin to work; its cause says why."""


# Runs a task where it belongs: here, or in a process that the thread looks after.
Runner = Callable[[Task, Callable[[], bool]], Any]

_POLL = 1.0  # seconds; waits wake up this often so that Ctrl-C gets through on every system


class Outcome(NamedTuple):
    """What became of a task."""

    task: Task | None
    value: Any
    error: BaseException | None


class Pool:
    """Threads that take tasks from one iterator, one after the other, and do them side by side.

    At most `depth` batches are being read or waiting to be fetched at any time. The threads
    refer to the pool and never to who uses it, so that a forgotten iterator is collected, and
    closes its pool.
    """

    def __init__(
        self,
        tasks: Iterator[Task],
        runners: list[Runner],
        depth: int,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._tasks = tasks
        self._drawing = threading.Lock()
        self._drawn = 0
        self._end: int | None = None  # how many tasks there are, once known
        self._ready = threading.Condition()
        self._done: dict[int, Outcome] = {}
        self._broken: BaseException | None = None
        self._permits = threading.Semaphore(depth)
        self._stop = threading.Event()
        self._on_close = on_close
        self._threads = [
            threading.Thread(
                target=_serve, args=(self, runner), name=f"bestiary-data-{number}", daemon=True
            )
            for number, runner in enumerate(runners)
        ]
        _open_pools.add(self)
        for thread in self._threads:
            thread.start()

    def get(self, number: int) -> Outcome | None:
        """The outcome of a task; waits for it. None if there are not that many.

        Raises:
            BaseException: what kept the workers from starting.
        """
        with self._ready:
            while number not in self._done:
                if self._broken is not None:
                    raise self._broken
                if self._end is not None and number >= self._end:
                    return None
                self._ready.wait(_POLL)
            outcome = self._done.pop(number)
        self._permits.release()
        return outcome

    def close(self, patience: float = 60.0) -> None:
        """Stop the threads and wait for them: each finishes the sample that it is reading."""
        if not self._stop.is_set():
            self._stop.set()
            self._permits.release(len(self._threads))
        if self._on_close is not None:
            self._on_close()
        if not sys.is_finalizing():
            deadline = time.monotonic() + patience
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join(max(0.0, deadline - time.monotonic()))
        self._done.clear()
        _open_pools.discard(self)

    # -- for the threads ----------------------------------------------------------------------

    def _draw(self) -> tuple[int, Task] | None:
        """The next task and its number here; None when there is no more, or nobody wants it."""
        self._permits.acquire()
        with self._drawing:
            if self._stop.is_set() or self._end is not None:
                return None
            try:
                task = next(self._tasks)
            except StopIteration:
                self._finish(self._drawn)
                return None
            except BaseException as error:  # of the sampler or the stream
                self._put(self._drawn, Outcome(None, None, error))
                self._finish(self._drawn + 1)
                return None
            self._drawn += 1
            return self._drawn - 1, task

    def _finish(self, end: int) -> None:
        with self._ready:
            self._end = end
            self._ready.notify_all()
        self._permits.release(len(self._threads))

    def _put(self, number: int, outcome: Outcome) -> None:
        with self._ready:
            self._done[number] = outcome
            self._ready.notify_all()

    def _break(self, error: BaseException) -> None:
        with self._ready:
            self._broken = error
            self._ready.notify_all()


def _serve(pool: Pool, runner: Runner) -> None:
    while (drawn := pool._draw()) is not None:
        number, task = drawn
        try:
            outcome = Outcome(task, runner(task, pool._stop.is_set), None)
        except Cancelled:
            return
        except CannotStart as error:
            pool._break(error.__cause__ or error)
            return
        except BaseException as error:
            outcome = Outcome(task, None, error)
        pool._put(number, outcome)
        del outcome, task, drawn  # an idle thread must not keep a batch alive


# Pools of iterators that live until the program ends are closed while threads still run.
_open_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for pool in list(_open_pools):
        pool.close(patience=2.0)


def thread_runners(
    reader: Reader, count: int, worker_init: Callable[[int], None] | None
) -> list[Runner]:
    """One runner for each of `count` threads."""
    return [_ThreadRunner(reader, number, count, worker_init) for number in range(count)]


class _ThreadRunner:
    def __init__(
        self,
        reader: Reader,
        number: int,
        count: int,
        worker_init: Callable[[int], None] | None,
    ) -> None:
        self._reader = replace(reader, where=f"worker thread {number + 1} of {count}")
        self._number = number
        self._init = worker_init

    def __call__(self, task: Task, stop: Callable[[], bool]) -> Any:
        if self._init is not None:
            init, self._init = self._init, None
            try:
                init(self._number)
            except Exception as error:
                raise CannotStart("worker_init failed") from error
        return self._reader(task, stop)

"""DataLoader: batches of a data set, read ahead by workers; the same ones with any number."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..callers import drop_our_frames
from ..devices import as_device
from ..errors import ConfigError
from ..spelling import spelled
from .arguments import check_arguments
from .collate import Mover, to_tensors
from .collate import collate as default_collate
from .dataset import is_stream
from .epochs import Position, sampler_tasks, stream_tasks
from .reading import Reader, Task, stream_of
from .samplers import (
    BatchSampler,
    FixedSampler,
    RandomSampler,
    SequentialSampler,
)
from .seeding import fresh_seed
from .workers import Pool, Runner, thread_runners

if TYPE_CHECKING:
    from .processes import ProcessRunner

_STATE_VERSION = 1
_Batches = Generator[tuple[Task, Any], None, None]


class DataLoader:
    """Batches of a data set, as tensors.

    Every `for batch in loader` is one epoch. Batches do not depend on the number of workers: the
    order follows from the seed and the epoch, and what transforms draw from
    `bt.data.sample_rng()` from the seed, the epoch and the place of the sample in it.

    Args:
        dataset: a data set, a stream (`IterableDataset`), or any object with `__len__` and
            `__getitem__`, such as a list.
        batch_size: samples in a batch; None gives single samples, unbatched.
        shuffle: a new random order in every epoch.
        sampler: the order of samples; a `Sampler`, a list of numbers, or any iterable of them.
        batch_sampler: lists of numbers, one for each batch.
        workers: how many read ahead; with 0 the loop itself reads.
        processes: workers are processes instead of threads. Threads are right where NumPy and
            Pillow do the work; processes where Python code does.
        prefetch: batches that each worker may be ahead.
        collate: makes a batch of a list of samples; `bt.data.collate` unless given.
        drop_last: leave out a last batch that is not full.
        device: where batches are put; the CPU unless given.
        seed: what order and randomness follow from; None takes one from the generator that
            `bt.manual_seed` seeds.
        worker_init: called in each worker with its number before it reads.
        persistent: keep worker processes from epoch to epoch (`close()` ends them). They then
            see the data set as it was when they started.
    Raises:
        ConfigError: arguments that contradict each other.

    Attributes:
        wait_seconds: how long loops have waited for batches so far.
    """

    @spelled
    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        *,
        shuffle: bool = False,
        sampler: Any = None,
        batch_sampler: Any = None,
        workers: int = 0,
        processes: bool = False,
        prefetch: int = 2,
        collate: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        device: Any = None,
        seed: int | None = None,
        worker_init: Callable[[int], None] | None = None,
        persistent: bool = False,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.workers = workers
        self.processes = processes
        self.prefetch = prefetch
        self.drop_last = drop_last
        self.device = None if device is None else as_device(device)
        self.worker_init = worker_init
        self.persistent = persistent
        self.wait_seconds = 0.0
        self._stream = is_stream(dataset)
        check_arguments(self, shuffle, sampler, batch_sampler, collate, seed)
        self.collate = collate if collate is not None else default_collate
        self._seed = seed
        self.sampler: Any = None
        self.batch_sampler: Any = None
        if not self._stream:
            self.sampler, self.batch_sampler = self._samplers(shuffle, sampler, batch_sampler)
        self._epoch = 0  # of the next iteration
        self._skip = 0  # batches that the next iteration leaves out: they were delivered before
        self._skip_samples = 0
        self._resume: dict[str, Any] | None = None  # sampler or stream, for the next iteration
        self._running: Position | None = None
        self._kept: list[ProcessRunner] | None = None  # persistent processes, while not in use
        self._finalizer: Any = None

    def _samplers(self, shuffle: bool, sampler: Any, batch_sampler: Any) -> tuple[Any, Any]:
        if batch_sampler is not None:
            return None, batch_sampler
        if sampler is None:
            chosen: Any = (
                RandomSampler(self.dataset, seed=self._seed)
                if shuffle
                else SequentialSampler(self.dataset)
            )
        elif isinstance(sampler, Sequence | np.ndarray):
            chosen = FixedSampler(sampler)
        else:
            chosen = sampler
        return chosen, BatchSampler(chosen, self.batch_size or 1, self.drop_last)

    # -- sizes --------------------------------------------------------------------------------

    def __len__(self) -> int:
        """The number of batches in an epoch; a stream without a length has none."""
        if not self._stream:
            return len(self.batch_sampler)
        count = len(stream_of(self.dataset)[0])
        size = self.batch_size or 1
        return count // size if self.drop_last else -(-count // size)

    @property
    def last_batch_size(self) -> int | None:
        """How many samples the last batch of an epoch has; None if that is not known before."""
        size = self.batch_size or 1
        if self._stream or not isinstance(self.batch_sampler, BatchSampler):
            return None
        try:
            count = len(self.batch_sampler.sampler)
        except TypeError:
            return None
        return size if self.drop_last or count % size == 0 else count % size

    @property
    def seed(self) -> int:
        """What order and randomness follow from."""
        if self._seed is None:
            self._seed = fresh_seed()
        return self._seed

    @property
    def epoch(self) -> int:
        """The epoch that is running, or the next one."""
        return self._epoch if self._running is None else self._running.epoch

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration run this epoch, from its beginning."""
        self._epoch, self._skip, self._skip_samples = epoch, 0, 0
        self._resume = self._running = None

    # -- iteration ----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        position = self._begin()
        if self._stream:
            source, size = stream_of(self.dataset)[0], self.batch_size or 1
            tasks = stream_tasks(source, size, self.drop_last, self.seed, position, self._resume)
        else:
            tasks = sampler_tasks(self.batch_sampler, position)
        self._skip = self._skip_samples = 0
        self._resume = None
        self._running = position
        self._epoch = position.epoch + 1
        reader = Reader.of(
            self.dataset, self.collate if self.batch_size is not None else None, self.seed
        )
        return self._deliver(position, tasks, reader)

    def _begin(self) -> Position:
        """Where the iteration starts; puts the samplers there."""
        position = Position(self._epoch, self._skip, self._skip_samples)
        if self._stream:
            source = stream_of(self.dataset)[0]
            if hasattr(source, "set_epoch"):
                source.set_epoch(position.epoch)
            position.state = self._resume
            return position
        if self._resume is not None:
            self.batch_sampler.load_state_dict(self._resume)
        if not position.batches and hasattr(self.batch_sampler, "set_epoch"):
            self.batch_sampler.set_epoch(position.epoch)
        # Taken before the first number is drawn: workers draw ahead of what is delivered. It also
        # fixes a seed that was left open, here and not in whichever thread comes first.
        position.state = _state_of(self.batch_sampler)
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(position.epoch)
        return position

    def _deliver(self, position: Position, tasks: Iterator[Task], reader: Reader) -> Iterator[Any]:
        finish = to_tensors if self.device is None else Mover(self.device)
        read = self._read_here if self.workers == 0 else self._read_ahead
        batches = read(tasks, reader)
        try:
            while True:
                start = time.perf_counter()
                try:
                    task, batch = next(batches)
                except StopIteration:
                    break
                batch = finish(batch)
                position.batches += 1
                position.samples += len(task.items)
                if self._stream:
                    position.state = task.state
                self.wait_seconds += time.perf_counter() - start
                yield batch
                del batch
        except Exception as error:
            drop_our_frames(error)
            raise
        finally:
            batches.close()
        if self._running is position:
            self._running = None

    def _read_here(self, tasks: Iterator[Task], reader: Reader) -> _Batches:
        for task in tasks:
            yield task, reader(task, _never)

    def _read_ahead(self, tasks: Iterator[Task], reader: Reader) -> _Batches:
        runners: list[Runner]
        children: list[ProcessRunner] = []
        on_close: Callable[[], None] | None = None
        if self.processes:
            children = self._take_processes(reader)
            runners = list(children)
            on_close = partial(self._stop_reading, children)
        else:
            runners = thread_runners(reader, self.workers, self.worker_init)
        pool = Pool(tasks, runners, self.workers * self.prefetch, on_close)
        try:
            number = 0
            while (outcome := pool.get(number)) is not None:
                if outcome.error is not None:
                    raise outcome.error
                assert outcome.task is not None
                yield outcome.task, outcome.value
                del outcome
                number += 1
        finally:
            pool.close()
            if children:
                self._put_back(children)

    def _take_processes(self, reader: Reader) -> list[ProcessRunner]:
        """Worker processes: kept ones if there are any, otherwise new ones."""
        from .processes import start_processes

        if self._kept is not None:
            children, self._kept = self._kept, None
            self._finalizer.detach()
            return children
        return start_processes(reader, self.workers, self.worker_init)

    def _stop_reading(self, children: list[ProcessRunner]) -> None:
        from .processes import end_processes

        if self._keeps():
            for child in children:
                child.cancel()
        else:
            end_processes(children)

    def _put_back(self, children: list[ProcessRunner]) -> None:
        from .processes import stop_processes

        if self._keeps() and all(child.alive for child in children):
            self._kept = children
            self._finalizer = weakref.finalize(self, stop_processes, children)
        else:
            stop_processes(children)

    def _keeps(self) -> bool:
        # A second loop inside the first has processes of its own; those that end first are kept.
        return self.persistent and self._kept is None

    def close(self) -> None:
        """End persistent worker processes; the loader can be used again afterwards."""
        if self._kept is not None:
            self._finalizer()
        self._kept = None

    def __enter__(self) -> DataLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- resume -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: loaded into a new one, it gives the same remaining batches.

        Taken inside a loop it counts the batches that the loop has been given, not those that
        workers have read ahead. Plain numbers and texts: it can be written as JSON.

        Raises:
            ConfigError: inside an epoch, with a sampler that has no state.
        """
        position = self._running
        if position is None:
            position = Position(self._epoch, self._skip, self._skip_samples)
            position.state = self._resume
            if position.state is None and not self._stream:
                position.state = _state_of(self.batch_sampler)
        if not self._stream and position.batches and position.state is None:
            sampler = self.batch_sampler if self.sampler is None else self.sampler
            raise ConfigError(
                f"the position in {type(sampler).__name__} cannot be saved: it has no state_dict "
                "and load_state_dict.\nDerive the sampler from bt.data.Sampler."
            )
        return {
            "version": _STATE_VERSION,
            "seed": self.seed,
            "epoch": position.epoch,
            "batches": position.batches,
            "samples": position.samples,
            "batch_size": self.batch_size,
            "length": None if self._stream else _length(self.dataset),
            "stream" if self._stream else "sampler": position.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration go on from there.

        Raises:
            ConfigError: inside an epoch, the data set or the batch size is another.
        """
        if state.get("version") != _STATE_VERSION:
            raise ConfigError(f"not the state of a DataLoader: {str(state)[:80]}")
        if state["batches"]:
            for what, now in (
                ("batch_size", self.batch_size),
                ("length", None if self._stream else _length(self.dataset)),
            ):
                if state[what] != now:
                    name = "the data set" if what == "length" else "the batch size"
                    raise ConfigError(
                        f"cannot go on inside an epoch: {name} was {state[what]} and is {now} "
                        "now.\nStart with the next epoch: "
                        f"loader.set_epoch({state['epoch'] + 1})",
                        expected=state[what],
                        got=now,
                    )
        self._seed = state["seed"]
        self._epoch = state["epoch"]
        self._skip, self._skip_samples = state["batches"], state["samples"]
        self._resume = state.get("stream" if self._stream else "sampler")
        self._running = None

    def __repr__(self) -> str:
        workers = f"{self.workers} {'processes' if self.processes else 'threads'}"
        return (
            f"DataLoader({type(self.dataset).__name__}, batch_size={self.batch_size}, "
            f"workers={workers if self.workers else 0})"
        )


def _never() -> bool:
    return False


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except TypeError:
        return None


def _state_of(sampler: Any) -> dict[str, Any] | None:
    if not (hasattr(sampler, "state_dict") and hasattr(sampler, "load_state_dict")):
        return None
    try:
        state: dict[str, Any] = sampler.state_dict()
        return state
    except ConfigError:  # a BatchSampler around a sampler without state
        return None

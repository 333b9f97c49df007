"""The batches of one epoch as tasks, from its beginning or from where an earlier run stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..errors import ConfigError, DataError
from .reading import Task
from .samplers import batched
from .seeding import STREAM, set_key


class Position:
    """How far an epoch has come: what the loop was given, not what workers read ahead."""

    def __init__(self, epoch: int, batches: int, samples: int) -> None:
        self.epoch = epoch
        self.batches = batches
        self.samples = samples
        # Of the sampler at the beginning of the epoch; of a stream after the last batch.
        self.state: dict[str, Any] | None = None


def sampler_tasks(batch_sampler: Any, start: Position) -> Iterator[Task]:
    """What the sampler says, without the batches that were delivered before."""
    batches = iter(batch_sampler)
    first = 0
    for number in range(start.batches):
        try:
            first += len(next(batches))
        except StopIteration:
            raise _shorter(start.batches, number) from None
    return _sampled(batches, start.epoch, start.batches, first)


def _sampled(batches: Iterator[Any], epoch: int, number: int, first: int) -> Iterator[Task]:
    for items in batches:
        yield Task(number, epoch, first, list(items))
        number, first = number + 1, first + len(items)


def stream_tasks(
    source: Any,
    size: int,
    drop_last: bool,
    seed: int,
    start: Position,
    resume: dict[str, Any] | None,
) -> Iterator[Task]:
    """The samples of a stream in batches.

    Args:
        resume: the stream's own state; without one it is read from its beginning, and what was
            delivered before is dropped.
    """
    skip = start.samples
    if resume is not None:
        source.load_state_dict(resume)
        skip = 0
    return _streamed(source, size, drop_last, seed, skip, start.epoch, start.batches, start.samples)


def _streamed(
    source: Any,
    size: int,
    drop_last: bool,
    seed: int,
    skip: int,
    epoch: int,
    number: int,
    first: int,
) -> Iterator[Task]:
    has_state = hasattr(source, "state_dict") and hasattr(source, "load_state_dict")
    items = _items(source, seed, epoch, first - skip)
    for dropped in range(skip):
        if next(items, items) is items:
            raise _shorter(skip, dropped)
    for batch in batched(items, size, drop_last):
        yield Task(number, epoch, first, batch, source.state_dict() if has_state else None)
        number, first = number + 1, first + len(batch)


def _items(source: Any, seed: int, epoch: int, place: int) -> Iterator[Any]:
    """The samples, each read with random numbers of its own."""
    iterator = iter(source)
    while True:
        before = set_key((STREAM, seed, epoch, place))
        try:
            item = next(iterator)
        except StopIteration:
            return
        finally:
            set_key(before)
        place += 1
        yield item


def _shorter(wanted: int, found: int) -> DataError:
    return DataError(
        f"cannot resume: {wanted} were read of this epoch before, and now there are only {found}.\n"
        "The data set or its order has changed; start with the next epoch: loader.set_epoch()",
        expected=wanted,
        got=found,
    )


_PLACE = ("_epoch", "_skip", "_skip_samples", "_resume", "_running", "_seed")


def bookmark(loader: Any) -> Callable[[], None]:
    """A function that puts a DataLoader back, so that the next iteration is as it would be now.

    Unlike its `state_dict`, from which an iteration goes on inside its epoch.
    """
    kept = {name: getattr(loader, name) for name in _PLACE}
    sampler = loader.batch_sampler
    try:
        state = sampler.state_dict() if hasattr(sampler, "load_state_dict") else None
    except ConfigError:  # around a sampler without state
        state = None

    def back() -> None:
        vars(loader).update(kept)
        if state is not None:
            sampler.load_state_dict(state)

    return back

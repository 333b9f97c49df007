"""Samplers: in which order samples are read.

Every `iter(sampler)` is a new epoch, with an order that depends on the seed and the number of
the epoch alone. `state_dict()` in the middle of an epoch, loaded into a new sampler, makes its
next iteration go on where the first one stood.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from ..errors import ConfigError
from .seeding import ORDER, fresh_seed, generator

T = TypeVar("T")

Order = Sequence[int] | np.ndarray[Any, np.dtype[np.int64]]


class Sampler:
    """Base of the samplers: subclasses define `order(epoch)` and `__len__`.

    Args:
        data: a data set, or the number of samples.
    """

    def __init__(self, data: Any) -> None:
        self.data = data
        self._epoch = 0  # of the next iteration
        self._start = 0  # where the next iteration begins
        self._running: tuple[int, int] | None = None  # epoch and samples handed out

    @property
    def count(self) -> int:
        """The number of samples of the data set."""
        return self.data if isinstance(self.data, int) else len(self.data)

    def order(self, epoch: int) -> Order:
        """The numbers of the samples in the order of an epoch."""
        raise TypeError(f"{type(self).__name__} has no order: define order(self, epoch)")

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        epoch, start = self._epoch, self._start
        self._epoch, self._start = epoch + 1, 0
        self._running = (epoch, start)
        return self._walk(epoch, start)

    def _walk(self, epoch: int, start: int) -> Iterator[int]:
        order = self.order(epoch)[start:]
        numbers = order.tolist() if isinstance(order, np.ndarray) else order
        for position, index in enumerate(numbers, start + 1):
            self._running = (epoch, position)
            yield index
        self._running = None

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration run this epoch from its beginning."""
        self._epoch, self._start, self._running = epoch, 0, None

    def state_dict(self) -> dict[str, Any]:
        """The epoch, and how many samples of it have been handed out."""
        epoch, position = self._running or (self._epoch, self._start)
        return {"epoch": epoch, "position": position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration go on from there."""
        self._epoch, self._start, self._running = int(state["epoch"]), int(state["position"]), None


class SequentialSampler(Sampler):
    """0, 1, 2, ..."""

    def order(self, epoch: int) -> Order:
        """0, 1, 2, ..."""
        return range(self.count)


class FixedSampler(Sampler):
    """The numbers of a list, in its order: `FixedSampler([4, 2, 2])`."""

    def __init__(self, indices: Iterable[int]) -> None:
        self.indices = [int(index) for index in indices]
        super().__init__(len(self.indices))

    def order(self, epoch: int) -> Order:
        """The list."""
        return self.indices


class _SeededSampler(Sampler):
    """A sampler with a seed; None draws one, when it is first needed, after `bt.manual_seed`."""

    def __init__(self, data: Any, seed: int | None) -> None:
        super().__init__(data)
        if seed is not None and seed < 0:
            raise ConfigError(f"a seed is a number from 0 up, got {seed}")
        self._seed = seed

    @property
    def seed(self) -> int:
        """What the orders of all epochs follow from."""
        if self._seed is None:
            self._seed = fresh_seed()
        return self._seed

    def rng(self, epoch: int) -> np.random.Generator:
        """The generator of an epoch."""
        return generator((ORDER, self.seed, epoch))

    def state_dict(self) -> dict[str, Any]:
        """The seed, the epoch, and how many samples of it have been handed out."""
        return {"seed": self.seed, **super().state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration go on from there."""
        super().load_state_dict(state)
        self._seed = int(state["seed"])


class RandomSampler(_SeededSampler):
    """A new random order in every epoch.

    Args:
        data: a data set, or the number of samples.
        replacement: draw each sample anew, so that one may come twice and another not at all.
        num_samples: how many an epoch has; all of them unless given.
        seed: None takes one from the generator that `bt.manual_seed` seeds.
    """

    def __init__(
        self,
        data: Any,
        *,
        replacement: bool = False,
        num_samples: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(data, seed)
        if num_samples is not None and num_samples < 1:
            raise ConfigError(f"num_samples must be at least 1, got {num_samples}")
        self.replacement = replacement
        self.num_samples = num_samples

    def __len__(self) -> int:
        if self.count == 0:
            return 0
        return self.count if self.num_samples is None else self.num_samples

    def order(self, epoch: int) -> Order:
        """A random order; several one after the other if more samples are asked for."""
        rng, wanted = self.rng(epoch), len(self)
        if self.replacement:
            return rng.integers(0, max(self.count, 1), wanted)
        rounds = [rng.permutation(self.count) for _ in range(-(-wanted // max(self.count, 1)))]
        return np.concatenate([np.empty(0, np.int64), *rounds])[:wanted]


class WeightedRandomSampler(_SeededSampler):
    """Samples drawn with chances in proportion to `weights`.

    Args:
        weights: one for each sample, not negative; they need not add up to 1.
        num_samples: how many an epoch has; as many as there are weights unless given.
        replacement: whether a sample may come more than once.
        seed: None takes one from the generator that `bt.manual_seed` seeds.
    """

    def __init__(
        self,
        weights: Any,
        num_samples: int | None = None,
        *,
        replacement: bool = True,
        seed: int | None = None,
    ) -> None:
        array = np.asarray(weights, dtype=np.float64)
        if array.ndim != 1:
            raise ConfigError(f"weights must be a list of numbers, got shape {array.shape}")
        if not np.all(np.isfinite(array)) or np.any(array < 0):
            bad = int(np.flatnonzero(~np.isfinite(array) | (array < 0))[0])
            raise ConfigError(
                f"weights must be finite and not negative; weight {bad} is {array[bad]}", index=bad
            )
        if array.sum() <= 0:
            raise ConfigError("all weights are 0: there is nothing to draw")
        super().__init__(len(array), seed)
        self.num_samples = len(array) if num_samples is None else num_samples
        if self.num_samples < 1:
            raise ConfigError(f"num_samples must be at least 1, got {num_samples}")
        usable = int(np.count_nonzero(array))
        if not replacement and self.num_samples > usable:
            raise ConfigError(
                f"{self.num_samples} samples without replacement were asked for, and only "
                f"{usable} weights are above 0.\nUse replacement=True or num_samples={usable}."
            )
        self.replacement = replacement
        self.weights = array / array.sum()

    @classmethod
    def balanced(cls, labels: Iterable[Any], **options: Any) -> WeightedRandomSampler:
        """Draw every class equally often, however many samples each has."""
        _, inverse, counts = np.unique(
            np.asarray(list(labels)), return_inverse=True, return_counts=True
        )
        return cls(1.0 / counts[inverse], **options)

    def __len__(self) -> int:
        return self.num_samples

    def order(self, epoch: int) -> Order:
        """The numbers drawn for an epoch."""
        rng = self.rng(epoch)
        drawn = rng.choice(self.count, len(self), replace=self.replacement, p=self.weights)
        return drawn.astype(np.int64)


class DistributedSampler(_SeededSampler):
    """The share of one of several processes that train together.

    All of them need the same seed, hence it is a number and never drawn. In each epoch the
    shares are equal in size: the order is filled up with its own beginning, or cut.

    Args:
        rank: which process this is, from 0.
        world_size: how many there are.
        drop_last: cut what does not divide instead of repeating samples.
    """

    def __init__(
        self,
        data: Any,
        rank: int,
        world_size: int,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(
                f"rank {rank} does not exist in a world of {world_size}: ranks count from 0 to "
                f"{world_size - 1}",
                rank=rank,
                world_size=world_size,
            )
        super().__init__(data, seed)
        self.rank = rank
        self.world_size = world_size
        self.shuffle = shuffle
        self.drop_last = drop_last

    def __len__(self) -> int:
        if self.drop_last:
            return self.count // self.world_size
        return -(-self.count // self.world_size)

    def order(self, epoch: int) -> Order:
        """Every `world_size`-th number of the common order, beginning with number `rank`."""
        count = self.count
        order = self.rng(epoch).permutation(count) if self.shuffle else np.arange(count)
        # np.resize repeats from the beginning, as often as it takes, or cuts.
        return np.resize(order, len(self) * self.world_size)[self.rank :: self.world_size]


class BatchSampler:
    """The numbers of a sampler in lists of `batch_size`.

    Its state is that of the sampler, taken between batches.
    """

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool = False) -> None:
        check_batch_size(batch_size)
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __len__(self) -> int:
        count = len(self.sampler)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        return batched(iter(self.sampler), self.batch_size, self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration run this epoch from its beginning."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The state of the sampler."""
        _need_state(self.sampler)
        return {"sampler": self.sampler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration go on from there."""
        _need_state(self.sampler)
        self.sampler.load_state_dict(state["sampler"])


def batched(items: Iterator[T], size: int, drop_last: bool) -> Iterator[list[T]]:
    """Lists of `size` items; a shorter last one unless it is dropped."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch and not drop_last:
        yield batch


def check_batch_size(value: Any) -> None:
    """Refuse a batch size that is not a whole number from 1 up."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ConfigError(f"batch_size must be a whole number from 1 up, got {value!r}", got=value)


def _need_state(sampler: Any) -> None:
    if not (hasattr(sampler, "state_dict") and hasattr(sampler, "load_state_dict")):
        raise ConfigError(
            f"the position in {type(sampler).__name__} cannot be saved: it has no state_dict and "
            "load_state_dict.\nDerive it from bt.data.Sampler and define order(self, epoch); the "
            "rest comes from there."
        )

"""Datasets: what a sample is, and how data sets are cut, joined and transformed."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ..errors import ConfigError, DataError, IndexRangeError, ShapeError
from .seeding import SPLIT, generator

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")
S = TypeVar("S")


class Dataset(Generic[T_co]):
    """Samples by number. Subclasses define `__len__` and `__getitem__`.

    Two more methods are optional:

    * `file_of(index)` names the file that a sample comes from, for messages about it;
    * `gather(indices)` returns a whole batch at once, as arrays, where that is faster.
    """

    def __getitem__(self, index: int) -> T_co:
        raise TypeError(
            f"{type(self).__name__} has no samples: define\n"
            "    def __getitem__(self, index): ...\n    def __len__(self): ...\n"
            "or derive from IterableDataset and define __iter__."
        )

    def __len__(self) -> int:
        raise TypeError(f"{type(self).__name__} has no length: define __len__(self)")

    def __iter__(self) -> Iterator[T_co]:
        for index in range(len(self)):
            yield self[index]

    def file_of(self, index: int) -> str | None:
        """The file that a sample comes from; None where it comes from none."""
        return None


class IterableDataset(Generic[T_co]):
    """Samples in the order in which they come: a stream, a log, a generator.

    Subclasses define `__iter__`; each call starts again. It is read by one thread, in order.
    Expensive work belongs in a transform, `MapDataset(stream, work)`, which the loader's workers
    run side by side. For a fast resume define `state_dict` and `load_state_dict`; without them
    the loader reads again what it has read before and drops it.
    """

    def __iter__(self) -> Iterator[T_co]:
        raise TypeError(f"{type(self).__name__} has no samples: define __iter__(self)")


def check_index(index: int, length: int, what: str) -> int:
    """The index, counted from the front; negative ones count from the end.

    Raises:
        IndexRangeError: there is no such sample.
    """
    try:
        position = index.__index__()
    except AttributeError:
        raise TypeError(f"{what} is indexed by whole numbers, got {index!r}") from None
    if position < 0:
        position += length
    if not 0 <= position < length:
        raise IndexRangeError(
            f"sample {index} is outside {what}, which has {length} samples (0 to {length - 1})",
            index=index,
            length=length,
        )
    return position


def file_of(dataset: Any, index: int) -> str | None:
    """The file of a sample of any data set, if it says so; never raises."""
    ask = getattr(dataset, "file_of", None)
    if ask is None:
        return None
    try:
        found = ask(index)
    except Exception:  # an aid to messages must not hide the error that they are about
        return None
    return None if found is None else str(found)


class ArrayDataset(Dataset[tuple[Any, ...]]):
    """Samples cut from arrays or tensors along their first axis: `ArrayDataset(images, labels)`.

    A sample is a tuple with one entry for each array. Whole batches are taken at once.

    Raises:
        ShapeError: the arrays have different lengths.
    """

    def __init__(self, *arrays: Any) -> None:
        if not arrays:
            raise ConfigError("ArrayDataset needs at least one array")
        self.arrays = tuple(_plain(array) for array in arrays)
        for number, array in enumerate(self.arrays):
            if array.ndim == 0:
                raise ShapeError(
                    f"array {number} of ArrayDataset is a single number, without an axis of "
                    "samples.\nGive it one: array[None]",
                    got=(),
                )
        lengths = [len(array) for array in self.arrays]
        if len(set(lengths)) > 1:
            raise ShapeError(
                f"the arrays of ArrayDataset have different numbers of samples: {lengths}\n"
                f"(shapes {', '.join(str(a.shape) for a in self.arrays)}; the first axis counts "
                "samples).",
                got=tuple(lengths),
            )

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        position = check_index(index, len(self), "the ArrayDataset")
        return tuple(array[position] for array in self.arrays)

    def gather(self, indices: Sequence[int]) -> tuple[Any, ...]:
        """A batch: each array's rows, in the order of `indices`."""
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and (rows.min() < -len(self) or rows.max() >= len(self)):
            for index in indices:
                check_index(index, len(self), "the ArrayDataset")
        return tuple(array[rows] for array in self.arrays)


TensorDataset = ArrayDataset


def _plain(value: Any) -> Any:
    """The array of a tensor; anything else as an array."""
    from ..tensor import Tensor

    if isinstance(value, Tensor):
        return value.array
    from ..devices import backend_of

    if backend_of(value) is not None:
        return value
    array = np.asarray(value)
    if array.dtype == object:
        raise DataError(
            f"{type(value).__name__} does not make an array of numbers (rows of different lengths?)"
        )
    return array


class Subset(Dataset[T_co]):
    """Some samples of another data set, by their numbers there."""

    def __init__(self, dataset: Dataset[T_co], indices: Iterable[int]) -> None:
        self.dataset = dataset
        length = len(dataset)
        self.indices = [check_index(index, length, "the data set") for index in indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> T_co:
        return self.dataset[self.indices[check_index(index, len(self), "the Subset")]]

    def file_of(self, index: int) -> str | None:
        """The file that a sample comes from."""
        return file_of(self.dataset, self.indices[index])

    @property
    def gather(self) -> Callable[[Sequence[int]], Any] | None:
        """Takes whole batches at once, if the data set below does."""
        below = getattr(self.dataset, "gather", None)
        if below is None:
            return None
        indices = self.indices
        return lambda chosen: below([indices[index] for index in chosen])


class ConcatDataset(Dataset[T_co]):
    """Data sets one after the other."""

    def __init__(self, datasets: Iterable[Dataset[T_co]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ConfigError("ConcatDataset needs at least one data set")
        for part in self.datasets:
            if is_stream(part):
                raise ConfigError(
                    f"{type(part).__name__} has no length, so it cannot be joined by number.\n"
                    "Join streams with itertools.chain in an IterableDataset of your own."
                )
        self._ends = np.cumsum([len(part) for part in self.datasets]).tolist()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _locate(self, index: int) -> tuple[Dataset[T_co], int]:
        position = check_index(index, len(self), "the ConcatDataset")
        part = bisect.bisect_right(self._ends, position)
        return self.datasets[part], position - (self._ends[part - 1] if part else 0)

    def __getitem__(self, index: int) -> T_co:
        dataset, position = self._locate(index)
        return dataset[position]

    def file_of(self, index: int) -> str | None:
        """The file that a sample comes from."""
        dataset, position = self._locate(index)
        return file_of(dataset, position)


class MapDataset(Dataset[T], Generic[T]):
    """A data set with a function applied to each sample: `MapDataset(data, transform)`.

    Over an `IterableDataset` it is a stream too (iterate over it); the loader reads the stream
    in order and lets its workers apply the function.
    """

    def __init__(
        self, dataset: Dataset[S] | IterableDataset[S], transform: Callable[[S], T]
    ) -> None:
        if not callable(transform):
            raise ConfigError(f"transform must be a function, got {type(transform).__name__}")
        self.dataset = dataset
        self.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> T:
        return self.transform(self.dataset[index])  # type: ignore[index]

    def __iter__(self) -> Iterator[T]:
        if not is_stream(self):
            yield from super().__iter__()
        else:
            for item in self.dataset:
                yield self.transform(item)

    def file_of(self, index: int) -> str | None:
        """The file that a sample comes from."""
        return file_of(self.dataset, index)


def is_stream(dataset: Any) -> bool:
    """Whether samples come in order (`__iter__` alone) and not by number."""
    if isinstance(dataset, MapDataset):
        return is_stream(dataset.dataset)
    if isinstance(dataset, IterableDataset):
        return True
    return not hasattr(dataset, "__getitem__")


def random_split(
    dataset: Dataset[T_co],
    lengths: Sequence[float],
    *,
    seed: int = 0,
    labels: Iterable[Any] | None = None,
) -> list[Subset[T_co]]:
    """Cut a data set into random parts without overlap.

    The same seed gives the same parts, in every run: what was held out stays held out.

    Args:
        lengths: counts that add up to `len(dataset)`, or fractions that add up to 1.
        labels: one for each sample; the parts then get each label in equal shares.
    Raises:
        ConfigError: the lengths do not add up.
    """
    total = len(dataset)
    fractions = _fractions(lengths, total)
    rng = generator((SPLIT, seed))
    if labels is None:
        order = rng.permutation(total).tolist()
        parts, start = [], 0
        for count in _counts(lengths, fractions, total):
            parts.append(Subset(dataset, order[start : start + count]))
            start += count
        return parts
    if fractions is None:
        fractions = [length / total if total else 0.0 for length in lengths]
    names = list(labels)
    if len(names) != total:
        raise ConfigError(f"there are {total} samples and {len(names)} labels")
    chosen: list[list[int]] = [[] for _ in fractions]
    for rows in _rows_by_label(names):
        shuffled = rng.permutation(rows).tolist()
        # Where shares are not whole the remainders go to the parts that are furthest behind.
        for part, count in enumerate(_shares(fractions, len(rows), [len(c) for c in chosen])):
            chosen[part] += shuffled[:count]
            shuffled = shuffled[count:]
    return [Subset(dataset, rng.permutation(rows).tolist() if rows else []) for rows in chosen]


def _rows_by_label(labels: Sequence[Any]) -> list[list[int]]:
    groups: dict[Any, list[int]] = {}
    for row, label in enumerate(labels):
        groups.setdefault(label.item() if isinstance(label, np.generic) else label, []).append(row)
    return list(groups.values())


def _fractions(lengths: Sequence[float], total: int) -> list[float] | None:
    """The fractions, or None if `lengths` are counts."""
    if not lengths:
        raise ConfigError("random_split needs at least one length")
    if any(length < 0 or not math.isfinite(length) for length in lengths):
        raise ConfigError(f"lengths must not be negative, got {list(lengths)}")
    if all(float(length).is_integer() for length in lengths) and sum(lengths) == total:
        return None
    if abs(sum(lengths) - 1) < 1e-6:
        return [float(length) for length in lengths]
    raise ConfigError(
        f"the lengths {list(lengths)} add up to {sum(lengths):g}; the data set has {total} "
        f"samples.\nGive counts that add up to {total} or fractions that add up to 1, such as "
        "[0.8, 0.2].",
        expected=total,
        got=sum(lengths),
    )


def _counts(lengths: Sequence[float], fractions: list[float] | None, total: int) -> list[int]:
    if fractions is None:
        return [int(length) for length in lengths]
    return _shares(fractions, total, [0] * len(fractions))


def _shares(fractions: list[float], total: int, filled: list[int]) -> list[int]:
    """Whole shares of `total`; what is left over goes to the parts furthest below their due."""
    # The tiny addition keeps 0.29 * 100 from becoming 28.
    counts = [math.floor(fraction * total + 1e-9) for fraction in fractions]
    everything = sum(filled) + total
    for _ in range(total - sum(counts)):
        lack = [
            fraction * everything - have - count if fraction > 0 else -math.inf
            for fraction, have, count in zip(fractions, filled, counts, strict=True)
        ]
        counts[lack.index(max(lack))] += 1
    return counts

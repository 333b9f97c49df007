"""Making a batch of samples, and moving it to a device.

Workers collate to arrays; the loader's thread wraps them as tensors and moves them, because
devices and modes belong to a thread.
"""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..devices import Device, backend_for, backend_of, move
from ..dtypes import default_float, default_int
from ..errors import DataError, ShapeError
from ..tensor import Tensor

_KEPT = (str, bytes, os.PathLike)  # stay a list, one entry for each sample


def collate(samples: Sequence[Any]) -> Any:
    """A batch of samples, of the same structure as one of them.

    Arrays and tensors are stacked along a new first axis (dtype kept), numbers become an array
    (Python's floats float32, whole numbers int64), texts, bytes and paths stay lists, tuples,
    named tuples, lists, dicts and dataclasses are collated entry by entry.

    Raises:
        ShapeError: arrays of different shapes; says of which samples.
        DataError: something that has no batch, such as a Pillow image.
    """
    if not samples:
        raise DataError("a batch needs at least one sample")
    return _collate(list(samples), "")


def _collate(items: list[Any], where: str) -> Any:
    first = items[0]
    kind = type(first)
    if isinstance(first, Tensor) or backend_of(first) is not None:
        return _stack(items, where)
    if isinstance(first, bool | int | float | complex | np.generic):
        return _numbers(items, where)
    if isinstance(first, _KEPT):
        _same_kind(items, where, _KEPT)
        return items
    if isinstance(first, Mapping):
        return _collate_mapping(items, where)
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        _same_kind(items, where, (kind,))
        names = [field.name for field in dataclasses.fields(first)]
        return kind(
            **{n: _collate([getattr(item, n) for item in items], f"{where}.{n}") for n in names}
        )
    if isinstance(first, tuple | list):
        return _collate_sequence(items, where)
    raise _no_batch(first, where, len(items))


def _collate_mapping(items: list[Any], where: str) -> dict[Any, Any]:
    _same_kind(items, where, (Mapping,))
    keys = list(items[0])
    for number, item in enumerate(items):
        if item.keys() != items[0].keys():
            odd = sorted(map(str, set(item) ^ set(keys)))
            raise DataError(
                f"samples with different keys cannot form a batch{_at(where)}.\n"
                f"Only one of sample 0 and sample {number} of the batch has: {', '.join(odd)}",
                samples=(0, number),
                keys=odd,
            )
    return {key: _collate([item[key] for item in items], f"{where}[{key!r}]") for key in keys}


def _collate_sequence(items: list[Any], where: str) -> Any:
    first = items[0]
    _same_kind(items, where, (tuple, list))
    for number, item in enumerate(items):
        if len(item) != len(first):
            raise ShapeError(
                f"samples of unequal length cannot form a batch{_at(where)}: a "
                f"{type(first).__name__} with {len(first)} entries and one with {len(item)}",
                samples=(0, number),
                shapes=(len(first), len(item)),
                where=where,
            )
    columns = [_collate([item[i] for item in items], f"{where}[{i}]") for i in range(len(first))]
    if hasattr(first, "_fields"):  # a named tuple
        return type(first)(*columns)
    return columns if isinstance(first, list) else tuple(columns)


def _stack(items: list[Any], where: str) -> Any:
    arrays = [_array(item, where) for item in items]
    backend = backend_of(arrays[0])
    for number, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise ShapeError(
                f"arrays of unequal shape cannot form a batch{_at(where)}: "
                f"{arrays[0].shape} and {array.shape}",
                samples=(0, number),
                shapes=(arrays[0].shape, array.shape),
                where=where,
            )
    if arrays[0].dtype == object:
        raise DataError(f"an array of Python objects has no batch{_at(where)}")
    assert backend is not None
    return backend.xp.stack(arrays)


def _array(item: Any, where: str) -> Any:
    if isinstance(item, Tensor):
        return item.array
    if backend_of(item) is not None:
        return item
    if isinstance(item, bool | int | float | complex | np.generic):
        return np.asarray(item)
    raise DataError(
        f"a batch cannot hold both arrays and {type(item).__name__}{_at(where)}; every sample "
        "needs the same structure"
    )


def _numbers(items: list[Any], where: str) -> Any:
    for item in items:
        if not isinstance(item, bool | int | float | complex | np.generic):
            if isinstance(item, Tensor) or backend_of(item) is not None:
                return _stack([_array(item, where) for item in items], where)
            raise DataError(
                f"a batch cannot hold both numbers and {type(item).__name__}{_at(where)}; every "
                "sample needs the same structure"
            )
    if any(isinstance(item, np.generic) for item in items):
        return np.stack([np.asarray(item) for item in items])
    array = np.asarray(items)
    if array.dtype.kind == "f":
        return array.astype(default_float)
    if array.dtype.kind in "iu":
        return array.astype(default_int)
    if array.dtype == object:
        raise DataError(f"a whole number is too large for 64 bits{_at(where)}")
    return array


def _same_kind(items: list[Any], where: str, kinds: tuple[type, ...]) -> None:
    for number, item in enumerate(items):
        if not isinstance(item, kinds):
            raise DataError(
                f"a batch cannot hold both {type(items[0]).__name__} and "
                f"{type(item).__name__}{_at(where)} (samples 0 and {number} of the batch); every "
                "sample needs the same structure",
                samples=(0, number),
            )


def _no_batch(item: Any, where: str, count: int) -> DataError:
    name = f"{type(item).__module__.split('.')[0]}.{type(item).__name__}"
    if type(item).__module__.startswith("PIL."):
        return DataError(
            f"Pillow images have no batch{_at(where)}: their sizes differ and they are no "
            "arrays.\nGive the data set a transform that resizes and makes an array, such as\n"
            "    lambda image: np.asarray(image.resize((224, 224))).transpose(2, 0, 1)\n"
            "or batch them as they are: DataLoader(..., collate=list)",
            got=name,
        )
    if item is None:
        return DataError(
            f"None has no batch{_at(where)}: does __getitem__ (or the transform) of the data "
            "set return its result?",
            got=None,
        )
    return DataError(
        f"{name} has no batch{_at(where)}.\nReturn arrays, numbers, texts, tuples or dicts from "
        "the data set, or give DataLoader(..., collate=) a function that takes the list of "
        f"{count} samples.",
        got=name,
    )


def _at(where: str) -> str:
    return f" (sample{where})" if where else ""


def map_arrays(function: Callable[[Any], Any], batch: Any) -> Any:
    """The batch with a function applied to every array and tensor in it."""
    if isinstance(batch, Tensor) or backend_of(batch) is not None:
        return function(batch)
    if isinstance(batch, Mapping):
        return {key: map_arrays(function, value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_arrays(function, value) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map_arrays(function, value) for value in batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        fields = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
        return type(batch)(**{k: map_arrays(function, v) for k, v in fields.items()})
    return batch


def to_tensors(batch: Any) -> Any:
    """The batch with its arrays wrapped as tensors."""
    return map_arrays(lambda value: value if isinstance(value, Tensor) else Tensor(value), batch)


class Mover:
    """Puts batches on a device.

    To a GPU they go through page-locked memory, from which the copy runs beside the program;
    a buffer is kept until its copy is finished, and then used again.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._pending: deque[tuple[Any, Any]] = deque()  # (event after the copy, buffer)

    def __call__(self, batch: Any) -> Any:
        """The batch with its arrays on the device, as tensors."""
        if self.device.type == "cpu":
            return map_arrays(lambda value: Tensor(move(_bare(value), self.device)), batch)
        return map_arrays(lambda value: Tensor(self._to_gpu(_bare(value))), batch)

    def _to_gpu(self, array: Any) -> Any:
        if not isinstance(array, np.ndarray) or array.nbytes == 0:
            return move(array, self.device)
        xp = backend_for(self.device).xp
        with xp.cuda.Device(self.device.index):
            while self._pending and self._pending[0][0].done:
                self._pending.popleft()
            memory = xp.cuda.alloc_pinned_memory(array.nbytes)
            pinned = np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)
            pinned[...] = array
            result = xp.empty(array.shape, array.dtype)
            result.set(pinned, stream=xp.cuda.get_current_stream())
            event = xp.cuda.Event()
            event.record()
            self._pending.append((event, memory))
        return result


def _bare(value: Any) -> Any:
    return value.array if isinstance(value, Tensor) else value

"""Torch checkpoints (`.pt`, `.pth`, `.bin`), read without running anything that is in them.

The program in the file is interpreted by `pickle_reader`, which neither imports nor calls;
what weights do not need is refused by name. Tensors are read when they are asked for.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..dtypes import DType, bool_, uint8
from ..errors import WeightsError
from .source import Array, FilePath, LazyWeights, Source, TensorInfo, quoted
from .torch_layouts import Layout, invalid, read_legacy, read_tar, read_zip
from .torch_values import NumpyType, Storage, TensorRef
from .values import wrong_bool

_MAX_DEPTH = 100
_ALIGNMENT = 8  # the largest of any dtype
_PLAIN = (type(None), bool, int, float, str, bytes, set, frozenset)
# What training scripts call the model among the things they save beside it.
_MODEL_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "params")


class TorchCheckpoint(LazyWeights):
    """A torch checkpoint as a mapping from the names of a state dict to arrays.

    Tensors that share a storage share memory for as long as one of them lives, as they did when
    they were saved. Strided tensors come back as strided views.

    Args:
        path: the file.
        mapped: give arrays that share the mapped file (copy on write) instead of reading them.
            Only for files that nobody truncates or rewrites in place.
        key: which of several state dicts in the file, such as "model_ema".

    Raises:
        WeightsError: the file is damaged, asks for an import, or holds no (or no single) state
            dict; `read_checkpoint` gives all that is in it.
        OSError: it does not exist or cannot be read.
    """

    def __init__(self, path: FilePath, mapped: bool = False, *, key: str | None = None) -> None:
        self._reader = _Reader(path, mapped)
        self.path = self._reader.source.path
        self.metadata = {}
        try:
            self._tensors = _state_dict(self._reader.layout.value, key, self.path)
        except BaseException:
            self._reader.source.close()
            raise

    def __getitem__(self, name: str) -> Array:
        return self._reader.array(self._tensors[name])

    def info(self, name: str) -> TensorInfo:
        """The dtype and shape of a tensor; reads no values."""
        found = self._tensors[name]
        return TensorInfo(found.dtype, found.shape)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def close(self) -> None:
        """Close the file. Arrays that were read, or mapped, stay valid."""
        self._reader.source.close()


def read_checkpoint(path: FilePath, *, mapped: bool = False) -> Any:
    """Everything in a torch checkpoint: dictionaries, lists, numbers and text, with arrays.

    For what is more than a state dict, such as the state of an optimizer. Ordered dictionaries
    become dictionaries, `torch.Size` a tuple, a torch dtype a NumPy dtype.

    Raises:
        WeightsError: the file is damaged, or asks for an import.
        OSError: it does not exist or cannot be read.
    """
    reader = _Reader(path, mapped)
    try:
        return _materialise(reader.layout.value, reader, {}, 0)
    finally:
        reader.source.close()


class _Reader:
    """An opened checkpoint, and the storages of it that are in use."""

    def __init__(self, path: FilePath, mapped: bool) -> None:
        self.source = source = Source(path)
        self._mapped = mapped
        self._blocks: weakref.WeakValueDictionary[tuple[str, DType], Array]
        self._blocks = weakref.WeakValueDictionary()
        try:
            self.layout = _read_layout(source)
        except BaseException:
            source.close()
            raise

    def array(self, found: TensorRef) -> Array:
        dtype, itemsize = found.dtype, found.dtype.itemsize
        block = self._block(found.storage, dtype)
        # The bounds were checked when the reference was made; NumPy checks them once more.
        array: Array = np.ndarray(
            found.shape,
            dtype,
            block if found.storage.nbytes else np.empty(0, np.uint8),
            found.offset * itemsize if 0 not in found.shape else 0,
            [stride * itemsize for stride in found.strides],
        )
        if dtype == bool_ and (wrong := wrong_bool(array)) is not None:
            raise invalid(
                self.source, f"A boolean tensor holds a byte of value {wrong}, not 0 or 1."
            )
        if not array.flags.aligned:
            array = array.copy()
        if found.conjugate:
            array = np.conjugate(array)
        return np.negative(array) if found.negative else array

    def _block(self, storage: Storage, dtype: DType) -> Array:
        """The bytes of a storage, in native order."""
        swap = (storage.type.dtype or dtype) if self.layout.swapped else uint8
        key = storage.key, swap
        block = self._blocks.get(key)
        if block is None:
            # Storages of the older layouts lie anywhere; their tensors would be misaligned.
            mapped = self._mapped and storage.position % _ALIGNMENT == 0
            take = self.source.mapped if mapped else self.source.array
            block = take(storage.position, (storage.nbytes,), uint8)
            if self.layout.swapped:
                block = block.copy()  # in memory of its own, which lives as long as its arrays
                size = swap.itemsize // 2 if swap.kind == "c" else swap.itemsize
                block.view(f"u{size}").byteswap(inplace=True)
            self._blocks[key] = block
        return block


def _read_layout(source: Source) -> Layout:
    start = source.read(0, 512)
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return read_zip(source)
    if start[257:262] == b"ustar":
        return read_tar(source)
    return read_legacy(source)


def _is_state_dict(value: Any) -> bool:
    """Text to tensors; anything else in it is named when it is the one that is loaded."""
    return (
        type(value) is dict
        and any(type(item) is TensorRef for item in value.values())
        and all(type(name) is str for name in value)
    )


def _state_dict(value: Any, key: str | None, where: str) -> dict[str, TensorRef]:
    if key is not None:
        if type(value) is not dict or not _is_state_dict(value.get(key)):
            raise _no_state_dict(value, where, f"it has no state dict under key={key!r}")
        return _tensors_only(value[key], where)
    if _is_state_dict(value):
        return _tensors_only(value, where)
    found = [name for name, item in value.items() if _is_state_dict(item)] if _keyed(value) else []
    if not found:
        raise _no_state_dict(value, where, "it holds no state dict (text to tensors)")
    known = [name for name in _MODEL_KEYS if name in found]
    others = [name for name in found if name not in known]
    if len(found) > 1 and (len(known) != 1 or any("ema" in name.lower() for name in others)):
        raise _no_state_dict(value, where, f"it holds {len(found)} state dicts; say which")
    return _tensors_only(value[known[0] if known else found[0]], where)


def _keyed(value: Any) -> bool:
    return type(value) is dict and all(type(name) is str for name in value)


def _no_state_dict(value: Any, where: str, problem: str) -> WeightsError:
    keys = [str(name) for name in value] if type(value) is dict else []
    choices = [name for name in keys if _is_state_dict(value.get(name))]
    listed = ", ".join(quoted(name, 40) for name in keys[:10]) + (", ..." if keys[10:] else "")
    fix = (
        f"    load(path, key={quoted(choices[0])})    # or {', '.join(map(quoted, choices[1:6]))}"
        if choices
        else "    read_checkpoint(path)    # everything that is in the file"
    )
    return WeightsError(
        f"{where}: no weights can be chosen from this torch checkpoint: {problem}.\n"
        f"It is a {type(value).__name__}{f' with the keys {listed}' if keys else ''}.\n{fix}",
        path=where,
        keys=keys,
        choices=choices,
    )


def _tensors_only(found: Mapping[str, Any], where: str) -> dict[str, TensorRef]:
    strange = [name for name, item in found.items() if type(item) is not TensorRef]
    if strange:
        kinds = ", ".join(
            f"{quoted(name, 40)} ({type(found[name]).__name__})" for name in strange[:6]
        )
        raise WeightsError(
            f"{where}: {len(strange)} entries of its state dict are not tensors: {kinds}"
            f"{', ...' if strange[6:] else ''}.\n"
            "A state dict that is loaded strictly holds tensors only. Take what you need from\n"
            "    read_checkpoint(path)    # everything that is in the file",
            path=where,
            names=strange,
        )
    return dict(found)


def _materialise(value: Any, reader: _Reader, done: dict[int, Any], depth: int) -> Any:
    """The value with arrays in place of references; shared and cyclic parts stay so."""
    if depth > _MAX_DEPTH:
        raise invalid(reader.source, f"Its value is nested more than {_MAX_DEPTH} deep.")
    if id(value) in done:
        return done[id(value)]
    kind = type(value)
    result: Any
    if kind in _PLAIN or isinstance(value, np.dtype):
        return value
    if kind is NumpyType:
        return value.dtype
    if kind is Storage:
        dtype = value.type.dtype or uint8
        result = reader.array(TensorRef(value, dtype, 0, (value.count,), (1,)))
    elif kind is TensorRef:
        result = reader.array(value)
    elif kind is tuple:
        result = tuple(_materialise(item, reader, done, depth + 1) for item in value)
    elif kind is list:
        done[id(value)] = result = []
        result.extend(_materialise(item, reader, done, depth + 1) for item in value)
    elif kind is dict:
        done[id(value)] = result = {}
        for name, item in value.items():
            result[name] = _materialise(item, reader, done, depth + 1)
    else:
        raise invalid(reader.source, f"A {kind.__name__} stands where a value is expected.")
    done[id(value)] = result
    return result

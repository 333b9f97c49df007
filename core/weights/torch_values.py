"""What the programs of torch checkpoints may name, as inert values: storages, tensors, dtypes.

A tensor is kept as a reference (storage, offset, shape, strides), checked against its storage;
its values are read when they are asked for.

Source: the reduce functions of torch.Tensor and torch.storage (torch/_tensor.py,
torch/_utils.py, torch/serialization.py), read as a description of the format.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..dtypes import (
    DType,
    bfloat16,
    bool_,
    complex64,
    complex128,
    float8_e4m3fn,
    float8_e5m2,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from .header import MAX_DIMENSIONS
from .pickle_reader import Call, Malformed, key
from .source import quoted

# An expanded tensor repeats few stored values; beyond these a small file would make huge arrays.
_MAX_EXPANSION = 64
_FREE_EXPANSION_BYTES = 64 << 20

_STORAGES: dict[str, DType] = {
    "BFloat16Storage": bfloat16,
    "BoolStorage": bool_,
    "ByteStorage": uint8,
    "CharStorage": int8,
    "ComplexDoubleStorage": complex128,
    "ComplexFloatStorage": complex64,
    "DoubleStorage": float64,
    "FloatStorage": float32,
    "HalfStorage": float16,
    "IntStorage": int32,
    "LongStorage": int64,
    "ShortStorage": int16,
}

_DTYPES: dict[str, DType] = {
    "bfloat16": bfloat16,
    "bool": bool_,
    "complex128": complex128,
    "complex64": complex64,
    "float16": float16,
    "float32": float32,
    "float64": float64,
    "float8_e4m3fn": float8_e4m3fn,
    "float8_e5m2": float8_e5m2,
    "int16": int16,
    "int32": int32,
    "int64": int64,
    "int8": int8,
    "uint16": uint16,
    "uint32": uint32,
    "uint64": uint64,
    "uint8": uint8,
}


@dataclass(frozen=True)
class StorageType:
    """The class of a storage; one without a dtype holds bytes."""

    dtype: DType | None

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize if self.dtype is not None else 1


@dataclass(eq=False)
class Storage:
    """A block of memory that tensors look into; `position` is its place in the file.

    A part of a storage has that storage as its `root`, and begins at its element `start`.
    """

    key: str
    type: StorageType
    count: int
    position: int = -1
    root: Storage | None = None
    start: int = 0

    @property
    def nbytes(self) -> int:
        return self.count * self.type.itemsize

    def part(self, start: Any, count: Any) -> Storage:
        """The storage that a view names, within this one."""
        start, count = _whole(start, "view"), _whole(count, "view")
        if start + count > self.count:
            raise Malformed(
                f"A view of elements {start:,} to {start + count:,} of the storage "
                f"{quoted(self.key)}, which has {self.count:,}."
            )
        return Storage(self.key, self.type, count, root=self.root or self, start=self.start + start)


@dataclass(frozen=True, eq=False)
class TensorRef:
    """A tensor whose values are still in the file. Offset and strides count elements."""

    storage: Storage
    dtype: DType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conjugate: bool = False
    negative: bool = False


@dataclass
class NumpyType:
    """A NumPy dtype of plain numbers."""

    dtype: DType
    state: Any = field(default=None, repr=False)

    def receive_state(self, state: Any) -> None:
        # (version, byte order, subarray, names, fields, itemsize, alignment, flags)
        if type(state) is not tuple or len(state) < 5 or state[2:5] != (None, None, None):
            raise Malformed("A NumPy dtype with fields.")
        if state[1] not in ("<", "|", "="):
            raise Malformed(f"A NumPy dtype of byte order {quoted(state[1])}.")


def _whole(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise Malformed(f"The {what} of a tensor is not a whole number of at least 0.")
    return value


def _sizes(values: Any, what: str) -> tuple[int, ...]:
    if type(values) not in (tuple, list):
        raise Malformed(f"The {what} of a tensor is not a tuple.")
    if len(values) > MAX_DIMENSIONS:
        raise Malformed(f"A tensor of {len(values)} dimensions; {MAX_DIMENSIONS} is the limit.")
    return tuple(_whole(value, what) for value in values)


def tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, dtype: DType | None = None
) -> TensorRef:
    """A reference to a tensor, once its elements are known to lie within the storage.

    Raises:
        Malformed: they do not, or an argument is of the wrong kind.
    """
    if type(storage) is not Storage:
        raise Malformed("A tensor is made from something that is not a storage.")
    dtype = dtype or storage.type.dtype
    if dtype is None:
        raise Malformed("A tensor is made from untyped bytes without a dtype.")
    offset, shape, strides = (
        _whole(offset, "offset"),
        _sizes(shape, "shape"),
        _sizes(strides, "stride"),
    )
    if len(shape) != len(strides):
        raise Malformed(f"A tensor of {len(shape)} dimensions with {len(strides)} strides.")
    if math.prod(size for size in shape if size) * dtype.itemsize >= 2**63:
        raise Malformed("A tensor of a shape that no array can have.")
    available = storage.nbytes // dtype.itemsize
    elements = math.prod(shape)
    if elements:
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if last >= available:
            raise Malformed(
                f"A tensor of shape {shape}, strides {strides} and offset {offset:,} reaches "
                f"element {last:,} of the storage {quoted(storage.key)}, which has {available:,}."
            )
        if elements * dtype.itemsize > max(_MAX_EXPANSION * storage.nbytes, _FREE_EXPANSION_BYTES):
            raise Malformed(
                f"A tensor of shape {shape} repeats the {available:,} elements of its storage "
                f"more than {_MAX_EXPANSION} times."
            )
    if storage.root is not None:
        storage, offset = storage.root, storage.start + offset
    return TensorRef(storage, dtype, offset, shape, strides)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> TensorRef:
    return tensor(storage, offset, shape, strides)


def _rebuild_tensor_v2(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    requires_grad: Any,
    backward_hooks: Any,
    metadata: Any = None,
) -> TensorRef:
    return _with_metadata(tensor(storage, offset, shape, strides), metadata)


def _rebuild_tensor_v3(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    requires_grad: Any,
    backward_hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> TensorRef:
    if not isinstance(dtype, np.dtype):
        raise Malformed("A tensor with something else in place of its dtype.")
    return _with_metadata(tensor(storage, offset, shape, strides, dtype), metadata)


def _with_metadata(found: TensorRef, metadata: Any) -> TensorRef:
    """Torch saves x.conj() and -x.imag as the unchanged memory with a mark."""
    if not metadata:
        return found
    if type(metadata) is not dict or not {"conj", "neg"}.issuperset(metadata):
        raise Malformed("A tensor with unknown metadata.")
    return TensorRef(
        found.storage,
        found.dtype,
        found.offset,
        found.shape,
        found.strides,
        bool(metadata.get("conj")),
        bool(metadata.get("neg")),
    )


def _rebuild_parameter(data: Any, requires_grad: Any, backward_hooks: Any) -> TensorRef:
    if type(data) is not TensorRef:
        raise Malformed("A parameter is made from something that is not a tensor.")
    return data


def _rebuild_parameter_with_state(
    data: Any, requires_grad: Any, backward_hooks: Any, state: Any
) -> TensorRef:
    return _rebuild_parameter(data, requires_grad, backward_hooks)


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    if type(pairs) not in (tuple, list) or not all(
        type(pair) in (tuple, list) and len(pair) == 2 and type(pair[0]) is str for pair in pairs
    ):
        raise Malformed("An OrderedDict is made from something that is not a list of pairs.")
    return dict(pairs)


def _size(values: Any = ()) -> tuple[int, ...]:
    return _sizes(values, "size")


def _set(values: Any = ()) -> set[Any]:
    if type(values) not in (tuple, list):
        raise Malformed("A set is made from something that is not a list.")
    return {key(value) for value in values}


def _encode(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise Malformed("A text is encoded in a way that no checkpoint needs.")
    return text.encode("latin-1")


def _numpy_dtype(code: Any, align: Any = False, copy: Any = True) -> NumpyType:
    known = ("b1", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
    if code not in known:
        raise Malformed(f"The NumPy dtype {quoted(code)} is not one of plain numbers.")
    return NumpyType(np.dtype(code))


def _numpy_scalar(kind: Any, data: Any) -> float | int | bool:
    if type(kind) is not NumpyType or type(data) is not bytes:
        raise Malformed("A NumPy number is made from something else than its bytes.")
    if len(data) != kind.dtype.itemsize:
        raise Malformed("A NumPy number of another size than its dtype has.")
    value: float | int | bool = np.frombuffer(data, kind.dtype)[0].item()
    return value


def _table() -> dict[tuple[str, str], Any]:
    calls: dict[tuple[str, str], Callable[..., Any]] = {
        ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
        ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter_with_state,
        ("collections", "OrderedDict"): _ordered_dict,
        ("torch", "Size"): _size,
        # How protocol 2, torch's default, writes sets and bytes.
        ("__builtin__", "set"): _set,
        ("builtins", "set"): _set,
        ("_codecs", "encode"): _encode,
        ("numpy", "dtype"): _numpy_dtype,
        ("numpy.core.multiarray", "scalar"): _numpy_scalar,
        ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    }
    table: dict[tuple[str, str], Any] = {
        place: Call(".".join(place), rule) for place, rule in calls.items()
    }
    for name, dtype in _STORAGES.items():
        for module in ("torch", "torch.storage", "torch.cuda"):
            table[module, name] = StorageType(dtype)
            # Torch 0.1 wrote the class of a tensor beside it.
            table[module, name.replace("Storage", "Tensor")] = dtype
    for module in ("torch", "torch.storage"):
        table[module, "UntypedStorage"] = StorageType(None)
    for name, dtype in _DTYPES.items():
        table["torch", name] = dtype
    return table


TABLE = _table()

"""Tensors made from data and numbers: the array API standard's creation functions."""

from __future__ import annotations

import os
from operator import index
from typing import Any

import numpy as np

from . import dtypes
from .devices import Device, as_device, backend_for, backend_of, device_of, move
from .errors import DtypeError, ShapeError
from .foreign import cure, described
from .spelling import spelled
from .tensor import Tensor


def asarray(
    data: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None
) -> Tensor:
    """A tensor of an array, a tensor, numbers or nested lists of them.

    Arrays keep their dtype and share memory unless `copy`; Python floats become the default
    float32, ints int64.

    Raises:
        DtypeError: strings, objects, or lists of unequal lengths.
    """
    wanted = None if dtype is None else dtypes.as_dtype(dtype)
    source = data
    if isinstance(data, Tensor):
        source = data.array
    elif backend_of(data) is None and hasattr(data, "__dlpack__"):
        source = np.from_dlpack(data)
    if backend_of(source) is None:
        source = _from_python(source, wanted)
        copied = True
    else:
        copied = False
    target = as_device(device) if device is not None else None
    if target is None:
        target = device_of(source) if not copied else as_device(None)
    array = source
    if wanted is not None and array.dtype != wanted:
        if copy is False:
            raise ValueError(f"asarray: a copy is needed for {array.dtype} to {wanted}")
        array = array.astype(wanted)
        copied = True
    if device_of(array) != target:
        array = move(array, target)
        copied = True
    if copy and not copied:
        array = array.copy()
    if isinstance(data, Tensor) and array is data.array:
        return data
    return Tensor(array if type(array) is not np.memmap else array.view(np.ndarray))


def _from_python(data: Any, wanted: dtypes.DType | None) -> Any:
    if isinstance(data, (list, tuple)) and _holds_tensors(data):
        data = _plain(data)
    try:
        array = np.asarray(data)
    except ValueError:
        raise _ragged(data) from None
    if array.dtype.kind not in "biufc" and array.dtype != dtypes.bfloat16:
        raise _no_numbers(data, array.dtype)
    if wanted is None and not isinstance(data, np.generic):
        if array.dtype == np.float64 and not _holds_numpy_float64(data):
            array = array.astype(dtypes.default_float)
        elif array.dtype == np.complex128 and not _holds_numpy_float64(data):
            array = array.astype(dtypes.default_complex)
    return array


def _ragged(data: Any) -> DtypeError:
    """Nested lists, or arrays in a list, of unequal sizes."""
    sizes = [getattr(x, "shape", None) or (len(x) if hasattr(x, "__len__") else 1) for x in data]
    where = ""
    for i, size in enumerate(sizes):
        if size != sizes[0]:
            where = f": [0] has {sizes[0]}, [{i}] has {size}"
            break
    return DtypeError(
        f"asarray: the nested lists have unequal lengths{where}.\n"
        "A tensor has the same number of values in every row: pad the short ones, such as\n"
        "    rows = [row + [0] * (longest - len(row)) for row in rows]",
        sizes=sizes,
    )


def _no_numbers(data: Any, dtype: Any) -> DtypeError:
    """Texts, None and other objects."""
    fact = f"asarray: {type(data).__name__} holds no numbers (NumPy sees {dtype})."
    if isinstance(data, (str, os.PathLike, dict)) or data is None:
        fact = f"asarray: {described(data)} holds no numbers."
        hint = cure(data)
    elif dtype.kind in "US":
        hint = (
            "Numbers written as text? [float(v) for v in values]\n"
            "Names of classes? Count them: ids = {name: i for i, name in enumerate(names)}\n"
            "Words for a model? A task takes texts as they are: bt.load(name)(text)"
        )
    else:
        hint = "Look for None or other objects among the values."
    return DtypeError(f"{fact}\n{hint}", got=str(dtype))


def _holds_tensors(data: Any) -> bool:
    return any(
        isinstance(x, Tensor) or (isinstance(x, (list, tuple)) and _holds_tensors(x)) for x in data
    )


def _plain(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data.cpu().numpy()
    return [_plain(x) for x in data] if isinstance(data, (list, tuple)) else data


def _holds_numpy_float64(data: Any) -> bool:
    """Whether a list is made of NumPy values, which keep their type."""
    while isinstance(data, (list, tuple)) and data:
        data = data[0]
    return isinstance(data, (np.generic, np.ndarray))


def tensor(
    data: Any, dtype: Any = None, device: Any = None, *, requires_grad: bool = False
) -> Tensor:
    """A new tensor with a copy of the data; see `asarray` for what data may be."""
    out = asarray(data, dtype=dtype, device=device, copy=True)
    if isinstance(data, Tensor):
        out = out.detach()
    return out.requires_grad_() if requires_grad else out


def _make(function: str, device: Any, *arguments: Any, **options: Any) -> Tensor:
    target: Device = as_device(device)
    xp = backend_for(target).xp
    try:
        if target.type == "cpu":
            return Tensor(np.asarray(getattr(xp, function)(*arguments, **options)))
        with xp.cuda.Device(target.index):
            return Tensor(getattr(xp, function)(*arguments, **options))
    except ValueError:
        if arguments and isinstance(arguments[0], tuple) and min(arguments[0], default=0) < 0:
            raise _no_shape(arguments[0]) from None
        raise


def _shape(shape: Any) -> tuple[int, ...]:
    if hasattr(shape, "__index__"):
        return (int(shape),)
    try:
        return tuple(map(index, shape))
    except TypeError:
        raise _no_shape(shape) from None


def _no_shape(shape: Any) -> ShapeError:
    """A shape of other things than whole numbers from 0 up."""
    hint = ""
    if isinstance(shape, (tuple, list)):
        if any(isinstance(n, float) for n in shape):
            hint = "\nA division that should give a whole number: size // 2"
        elif any(isinstance(n, int) and n < 0 for n in shape):
            hint = "\nOnly reshape takes -1, for the size that is left over."
    return ShapeError(f"a shape is whole numbers from 0 up, got {shape!r}.{hint}", got=shape)


@spelled
def zeros(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros."""
    return _make("zeros", device, _shape(shape), dtype=_float(dtype))


@spelled
def ones(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones."""
    return _make("ones", device, _shape(shape), dtype=_float(dtype))


@spelled
def empty(shape: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Whatever the memory holds."""
    return _make("empty", device, _shape(shape), dtype=_float(dtype))


def _float(dtype: Any) -> dtypes.DType:
    return dtypes.default_float if dtype is None else dtypes.as_dtype(dtype)


@spelled
def full(shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """One value everywhere; its type gives the dtype unless `dtype` does."""
    if isinstance(fill_value, Tensor):
        fill_value = fill_value.item()
    if dtype is None:
        by_type = {bool: dtypes.bool_, int: dtypes.default_int, complex: dtypes.default_complex}
        dtype = by_type.get(type(fill_value), dtypes.default_float)
    return _make("full", device, _shape(shape), fill_value, dtype=dtypes.as_dtype(dtype))


def _like(x: Tensor, dtype: Any, device: Any) -> tuple[dtypes.DType, Device]:
    return (
        x.dtype if dtype is None else dtypes.as_dtype(dtype),
        x.device if device is None else as_device(device),
    )


@spelled
def zeros_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Zeros of another tensor's shape, dtype and device."""
    kind, place = _like(x, dtype, device)
    return zeros(x.shape, dtype=kind, device=place)


@spelled
def ones_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Ones of another tensor's shape, dtype and device."""
    kind, place = _like(x, dtype, device)
    return ones(x.shape, dtype=kind, device=place)


@spelled
def empty_like(x: Tensor, /, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Uninitialised memory of another tensor's shape, dtype and device."""
    kind, place = _like(x, dtype, device)
    return empty(x.shape, dtype=kind, device=place)


@spelled
def full_like(x: Tensor, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """One value in another tensor's shape, dtype and device."""
    kind, place = _like(x, dtype, device)
    return full(x.shape, fill_value, dtype=kind, device=place)


@spelled
def arange(
    start: Any,
    /,
    stop: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
) -> Tensor:
    """Numbers from `start` up to but not including `stop`; one argument counts from 0."""
    if stop is None:
        start, stop = 0, start
    if dtype is None:
        whole = all(hasattr(v, "__index__") for v in (start, stop, step))
        dtype = dtypes.default_int if whole else dtypes.default_float
    kind = dtypes.as_dtype(dtype)
    out = _make("arange", device, start, stop, step, dtype=dtypes.widened(kind))
    return out if out.dtype == kind else out.astype(kind)


@spelled
def linspace(
    start: Any,
    stop: Any,
    /,
    num: int,
    *,
    dtype: Any = None,
    device: Any = None,
    endpoint: bool = True,
) -> Tensor:
    """`num` numbers at equal distances from `start` to `stop`.

    Args:
        endpoint: whether the last number is `stop` itself.
    """
    if dtype is None:
        mixed = isinstance(start, complex) or isinstance(stop, complex)
        dtype = dtypes.default_complex if mixed else dtypes.default_float
    kind = dtypes.as_dtype(dtype)
    out = _make("linspace", device, start, stop, num, endpoint=endpoint, dtype=dtypes.widened(kind))
    return out if out.dtype == kind else out.astype(kind)


@spelled
def eye(
    n_rows: int,
    n_cols: int | None = None,
    /,
    *,
    k: int = 0,
    dtype: Any = None,
    device: Any = None,
) -> Tensor:
    """A matrix with ones on diagonal `k` (0 the main one, positive above it), zeros elsewhere."""
    return _make("eye", device, n_rows, n_cols, k, dtype=_float(dtype))


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """The array of another library, through DLPack; shares its memory unless `copy`."""
    if isinstance(x, Tensor):
        x = x.detach().array
    if backend_of(x) is None:
        kind, index = x.__dlpack_device__()
        place = Device("cuda", index) if int(kind) == _DLPACK_CUDA else Device("cpu")
        x = backend_for(place).xp.from_dlpack(x)
    return asarray(x, device=device, copy=copy)


_DLPACK_CUDA = 2

"""What the array API standard's namespace holds besides operations: dtypes, constants, inquiry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from . import dtypes
from .devices import CPU, Device, as_device, cuda_problem
from .errors import ConfigError, DtypeError
from .operands import SCALARS
from .ops import shape
from .spelling import spelled
from .tensor import Tensor

if TYPE_CHECKING:
    from builtins import bool as truth

__array_api_version__ = "2024.12"

pi = math.pi
e = math.e
inf = math.inf
nan = math.nan
newaxis = None


@dataclass(frozen=True)
class FInfo:
    """Limits of a floating dtype (of a complex one: of its parts)."""

    dtype: dtypes.DType
    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float


@dataclass(frozen=True)
class IInfo:
    """Limits of an integer dtype."""

    dtype: dtypes.DType
    bits: int
    max: int
    min: int


def _dtype_of(x: Any) -> dtypes.DType:
    return x.dtype if isinstance(x, Tensor) else dtypes.as_dtype(x)


def finfo(type: Any, /) -> FInfo:
    """Limits of a floating dtype, or of a tensor's.

    Raises:
        DtypeError: the dtype is not floating.
    """
    dtype = dtypes.real_of(_dtype_of(type))
    if dtype not in dtypes.FLOATS:
        raise DtypeError(f"finfo: {dtype} is no floating dtype; use bt.iinfo", got=str(dtype))
    limits: Any = ml_dtypes.finfo
    found: Any = limits(dtype) if dtype == dtypes.bfloat16 else np.finfo(dtype)
    return FInfo(
        dtype,
        int(found.bits),
        float(found.eps),
        float(found.max),
        float(found.min),
        float(found.smallest_normal),
    )


def iinfo(type: Any, /) -> IInfo:
    """Limits of an integer dtype, or of a tensor's.

    Raises:
        DtypeError: the dtype is not an integer.
    """
    dtype = _dtype_of(type)
    if dtype not in dtypes.INTS:
        raise DtypeError(f"iinfo: {dtype} is no integer dtype; use bt.finfo", got=str(dtype))
    found = np.iinfo(dtype)
    return IInfo(dtype, int(found.bits), int(found.max), int(found.min))


_KINDS: dict[str, frozenset[dtypes.DType]] = {
    "bool": frozenset({dtypes.bool_}),
    "signed integer": dtypes.SIGNED,
    "unsigned integer": dtypes.UNSIGNED,
    "integral": dtypes.INTS,
    "real floating": dtypes.FLOATS,
    "complex floating": dtypes.COMPLEX,
    "numeric": dtypes.INTS | dtypes.INEXACT,
}


def isdtype(dtype: Any, kind: Any) -> truth:
    """Whether a dtype is of a kind.

    Args:
        kind: a dtype, a kind's name ("bool", "signed integer", "unsigned integer", "integral",
            "real floating", "complex floating", "numeric"), or a tuple of these.
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, str) and (kind in _KINDS or kind not in dtypes.BY_NAME):
        if kind not in _KINDS:
            raise ConfigError(f"isdtype: kinds are {', '.join(_KINDS)}; got {kind!r}", got=kind)
        return dtypes.as_dtype(dtype) in _KINDS[kind]
    return dtypes.as_dtype(dtype) == dtypes.as_dtype(kind)


def result_type(*arrays_and_dtypes: Any) -> dtypes.DType:
    """The dtype of an operation on these tensors, dtypes and (weak) Python scalars."""
    if not arrays_and_dtypes:
        raise ConfigError("result_type: needs at least one tensor or dtype")
    scalars: list[type] = []
    found: list[dtypes.DType] = []
    for x in arrays_and_dtypes:
        if type(x) in SCALARS:
            scalars.append(type(x))
        else:
            found.append(_dtype_of(x))
    result = dtypes.promote_all(found) if found else dtypes.bool_
    for scalar in scalars:
        result = dtypes.with_scalar(result, scalar)
    return result


def can_cast(from_: Any, to: Any, /) -> truth:
    """Whether promotion takes the first dtype (or tensor's) to the second."""
    source, target = _dtype_of(from_), dtypes.as_dtype(to)
    try:
        return dtypes.promote(source, target) == target
    except DtypeError:
        return False


@spelled
def astype(x: Tensor, dtype: Any, /, *, copy: truth = True, device: Any = None) -> Tensor:
    """The values in another dtype.

    Args:
        copy: False returns x itself where nothing changes.

    Raises:
        DtypeError: complex to real, which loses a part: take `bt.real` or `bt.abs`.
    """
    wanted = dtypes.as_dtype(dtype)
    if x.dtype.kind == "c" and wanted.kind not in "cb":
        raise DtypeError(
            f"astype: {x.dtype} to {wanted} would drop the imaginary part.\n"
            "Say which part is meant: bt.real(x), bt.imag(x) or bt.abs(x)",
            got=str(x.dtype),
        )
    moved = x if device is None else x.to(as_device(device))
    if moved.dtype != wanted:
        return shape.astype(moved, dtype=wanted)
    return moved.clone() if copy and moved is x else moved


class Info:
    """What the namespace can do, as the standard asks for it."""

    def capabilities(self) -> dict[str, Any]:
        """Optional behaviour that is there."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> Device:
        """Where tensors are made."""
        return as_device(None)

    def devices(self) -> list[Device]:
        """Devices that can be used now."""
        return [CPU] if cuda_problem() else [CPU, as_device("cuda")]

    def default_dtypes(self, *, device: Any = None) -> dict[str, dtypes.DType]:
        """The dtypes of tensors made from Python numbers."""
        return {
            "real floating": dtypes.default_float,
            "complex floating": dtypes.default_complex,
            "integral": dtypes.default_int,
            "indexing": dtypes.default_int,
        }

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, dtypes.DType]:
        """The dtypes that the standard has, all or of a kind."""
        every = {name: d for name, d in dtypes.BY_NAME.items() if d in _STANDARD}
        return {name: d for name, d in every.items() if kind is None or isdtype(d, kind)}


_STANDARD = {dtypes.bool_} | dtypes.INTS | {dtypes.float32, dtypes.float64} | dtypes.COMPLEX


def __array_namespace_info__() -> Info:
    """What the namespace can do."""
    return Info()

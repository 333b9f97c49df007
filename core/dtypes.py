"""Data types and how they combine.

A dtype is a plain `numpy.dtype` object, on every device; `bfloat16` and the float8 types come
from `ml_dtypes`. Promotion follows the array API standard, with one addition: an integer
tensor together with a floating one takes the floating dtype, so that float64 never appears by
accident.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np

from .errors import DtypeError

DType = np.dtype[Any]

bool_: DType = np.dtype(np.bool_)
int8: DType = np.dtype(np.int8)
int16: DType = np.dtype(np.int16)
int32: DType = np.dtype(np.int32)
int64: DType = np.dtype(np.int64)
uint8: DType = np.dtype(np.uint8)
uint16: DType = np.dtype(np.uint16)
uint32: DType = np.dtype(np.uint32)
uint64: DType = np.dtype(np.uint64)
float16: DType = np.dtype(np.float16)
bfloat16: DType = np.dtype(ml_dtypes.bfloat16)
float32: DType = np.dtype(np.float32)
float64: DType = np.dtype(np.float64)
complex64: DType = np.dtype(np.complex64)
complex128: DType = np.dtype(np.complex128)
float8_e4m3fn: DType = np.dtype(ml_dtypes.float8_e4m3fn)
float8_e5m2: DType = np.dtype(ml_dtypes.float8_e5m2)

default_float = float32
default_int = int64
default_complex = complex64

HALVES = frozenset((float16, bfloat16))
FLOATS = frozenset((float16, bfloat16, float32, float64))
COMPLEX = frozenset((complex64, complex128))
SIGNED = frozenset((int8, int16, int32, int64))
UNSIGNED = frozenset((uint8, uint16, uint32, uint64))
INTS = SIGNED | UNSIGNED
INEXACT = FLOATS | COMPLEX

BY_NAME: dict[str, DType] = {
    "bool": bool_,
    **{d.name: d for d in sorted(INTS | FLOATS | COMPLEX, key=str)},
    "float8_e4m3fn": float8_e4m3fn,
    "float8_e5m2": float8_e5m2,
}


_KNOWN = frozenset(BY_NAME.values())


def __getattr__(name: str) -> DType:
    """`dtypes.bool` is `bool_`; the module itself keeps Python's `bool`."""
    if name == "bool":
        return bool_
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# Python's names mean Python's types, whose default is not what NumPy takes them for.
_AS_TYPES = {"float": default_float, "int": default_int, "complex": default_complex}

_OTHER_NAMES = {
    "bf16": "bfloat16",
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "fp16": "float16",
    "fp32": "float32",
    "fp64": "float64",
    "long": "int64",
}


def _no_dtype(value: Any) -> DtypeError:
    """For a name or an object that is no dtype; a name of PyTorch's, or one misspelt, is seen."""
    import difflib

    name = str(value).rpartition(".")[2].lower()
    near = [name] if name in BY_NAME else difflib.get_close_matches(name, BY_NAME, n=1)
    meant = _OTHER_NAMES.get(name) or (near[0] if near else None)
    hint = f"\nDid you mean bt.{meant}?" if meant else ""
    return DtypeError(
        f"{value!r} is not a dtype of this library.{hint}\nThere are: {', '.join(BY_NAME)}.",
        got=value,
        meant=meant,
    )


def as_dtype(value: Any) -> DType:
    """The dtype that `value` names: a dtype, a NumPy or Python type, or a name.

    Raises:
        DtypeError: it names none that the library has.
    """
    if isinstance(value, np.dtype) and value in _KNOWN:
        return value
    if isinstance(value, str) and value in BY_NAME:
        return BY_NAME[value]
    if value is float:
        return default_float
    if value is int:
        return default_int
    if value is complex:
        return default_complex
    if isinstance(value, str) and value in _AS_TYPES:
        return _AS_TYPES[value]
    try:
        found: DType | None = np.dtype(value)
    except TypeError:
        found = None
    if found is None or found.kind not in "biufcV" or found.name not in BY_NAME:
        raise _no_dtype(value)
    return found


def kind_of(dtype: DType) -> str:
    """`bool`, `int`, `float` or `complex`."""
    if dtype in FLOATS:
        return "float"
    if dtype in INTS:
        return "int"
    if dtype in COMPLEX:
        return "complex"
    if dtype == bool_:
        return "bool"
    raise DtypeError(f"{dtype} has no arithmetic; convert it first: x.astype(bt.float32)")


_RANK = {"bool": 0, "int": 1, "float": 2, "complex": 3}


@lru_cache(maxsize=4096)
def promote(first: DType, second: DType) -> DType:
    """The dtype of an operation on tensors of these two dtypes.

    Raises:
        DtypeError: uint64 with a signed integer, which no integer type holds.
    Source: array API standard, type promotion rules; mixed kinds take the larger kind.
    """
    if first == second:
        return first
    if {first, second} == HALVES:
        return float32
    a, b = kind_of(first), kind_of(second)
    if a == b or {a, b} == {"float", "complex"}:
        result: DType = np.promote_types(first, second)
        if {a, b} == {"int"} and result.kind == "f":
            raise DtypeError(
                f"{first} and {second} have no common integer dtype.\n"
                f"Convert one of them: x.astype(bt.int64)",
                first=first,
                second=second,
            )
        return result
    return first if _RANK[a] > _RANK[b] else second


def promote_all(dtypes: list[DType]) -> DType:
    """The common dtype of several tensors."""
    result = dtypes[0]
    for other in dtypes[1:]:
        result = promote(result, other)
    return result


@lru_cache(maxsize=1024)
def with_scalar(dtype: DType, scalar_type: type) -> DType:
    """The dtype of an operation of a tensor with a Python scalar, which is weak.

    A scalar of a larger kind, as a float beside integers, gives that kind's default dtype.
    """
    kind = kind_of(dtype)
    wanted = {bool: "bool", int: "int", float: "float", complex: "complex"}[scalar_type]
    if _RANK[wanted] <= _RANK[kind]:
        return dtype
    if wanted == "complex":
        return complex128 if dtype == float64 else complex64
    return default_float if wanted == "float" else default_int


def widened(dtype: DType) -> DType:
    """The dtype in which the CPU computes: float32 for the half types."""
    return float32 if dtype in HALVES else dtype


def real_of(dtype: DType) -> DType:
    """The dtype of the real part."""
    if dtype == complex64:
        return float32
    return float64 if dtype == complex128 else dtype

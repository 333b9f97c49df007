"""Arithmetic, comparisons and activations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...dtypes import bool_, float32, int64
from ...graph.record import Call, Ref
from ..builder import Builder
from ..sizes import Size
from . import EMITTERS, emits


def one(b: Builder, call: Call, place: int = 0) -> str:
    """An operand in the dtype of the result."""
    x = call.operands[place]
    dtype = result_dtype(b, call)
    return b.cast(b.name(x, dtype), b.dtype(x) or dtype, dtype)


def result_dtype(b: Builder, call: Call) -> Any:
    """Of the first result."""
    assert call.results[0] is not None
    return b.dtype(call.results[0])


def common(b: Builder, operands: Any) -> Any:
    """The dtype in which several operands meet: Python's numbers give way."""
    dtypes = [b.dtype(x) for x in operands if isinstance(x, Ref)]
    floats = [d for d in dtypes if d.kind == "f"]
    if floats:
        return np.result_type(*floats)
    if any(isinstance(x, float) for x in operands):
        return float32
    found = np.result_type(*dtypes)
    whole = any(isinstance(x, int | Size) and not isinstance(x, bool) for x in operands)
    return int64 if found == bool_ and whole else found


def _same_name(table: dict[str, str]) -> None:
    for name, kind in table.items():
        EMITTERS[name] = lambda b, call, kind=kind: b.add(kind, one(b, call))  # type: ignore[misc]


_same_name({
    "abs": "Abs", "negative": "Neg", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh",
    "reciprocal": "Reciprocal", "sign": "Sign", "sin": "Sin", "cos": "Cos", "tan": "Tan",
    "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh",
    "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "erf": "Erf", "floor": "Floor",
    "ceil": "Ceil", "round": "Round", "relu": "Relu", "sigmoid": "Sigmoid",
    "softplus": "Softplus", "hardswish": "HardSwish", "identity": "Identity",
    "positive": "Identity", "positive_copy": "Identity", "to_device": "Identity",
    "logical_not": "Not",
})  # fmt: skip

_BINARY = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "maximum": "Max",
    "minimum": "Min",
}  # fmt: skip
_COMPARED = {
    "equal": "Equal", "greater": "Greater", "greater_equal": "GreaterOrEqual", "less": "Less",
    "less_equal": "LessOrEqual",
}  # fmt: skip
_LOGICAL = {"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor"}


@emits(*_BINARY)
def _binary(b: Builder, call: Call) -> str:
    return b.add(_BINARY[call.op.name], one(b, call, 0), one(b, call, 1))  # type: ignore[no-any-return]


def _met(b: Builder, operands: Any, dtype: Any) -> list[str]:
    return [b.cast(b.name(x, dtype), b.dtype(x) or dtype, dtype) for x in operands]


@emits(*_COMPARED)
def _compared(b: Builder, call: Call) -> str:
    return b.add(_COMPARED[call.op.name], *_met(b, call.operands, common(b, call.operands)))  # type: ignore[no-any-return]


@emits("not_equal")
def _not_equal(b: Builder, call: Call) -> str:
    same = b.add("Equal", *_met(b, call.operands, common(b, call.operands)))
    return b.add("Not", same)  # type: ignore[no-any-return]


@emits(*_LOGICAL)
def _logical(b: Builder, call: Call) -> str:
    return b.add(_LOGICAL[call.op.name], *_met(b, call.operands, bool_))  # type: ignore[no-any-return]


@emits("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_invert")
def _bitwise(b: Builder, call: Call) -> str:
    if result_dtype(b, call) != bool_:
        raise b.refused(f"{call.op.name} of whole numbers")
    kind = {"and": "And", "or": "Or", "xor": "Xor", "invert": "Not"}[call.op.name[8:]]
    return b.add(kind, *_met(b, call.operands, bool_))  # type: ignore[no-any-return]


@emits("pow")
def _pow(b: Builder, call: Call) -> str:
    return b.add("Pow", one(b, call, 0), one(b, call, 1))  # type: ignore[no-any-return]


@emits("square")
def _square(b: Builder, call: Call) -> str:
    x = one(b, call)
    return b.add("Mul", x, x)  # type: ignore[no-any-return]


@emits("where")
def _where(b: Builder, call: Call) -> str:
    test = call.operands[0]
    name = b.cast(b.name(test, bool_), b.dtype(test) or bool_, bool_)
    return b.add("Where", name, one(b, call, 1), one(b, call, 2))  # type: ignore[no-any-return]


@emits("clip")
def _clip(b: Builder, call: Call) -> str:
    _, low, high = call.operands
    name = one(b, call)
    if isinstance(low, Ref) or isinstance(high, Ref):
        name = name if low is None else b.add("Max", name, one(b, call, 1))
        return name if high is None else b.add("Min", name, one(b, call, 2))
    dtype = result_dtype(b, call)
    return b.add("Clip", name, b.name(low, dtype), b.name(high, dtype))  # type: ignore[no-any-return]


@emits("hardtanh")
def _hardtanh(b: Builder, call: Call) -> str:
    dtype = result_dtype(b, call)
    low, high = (b.const(np.asarray(call.constants[key], dtype)) for key in ("low", "high"))
    return b.add("Clip", one(b, call), low, high)  # type: ignore[no-any-return]


@emits("leaky_relu")
def _leaky_relu(b: Builder, call: Call) -> str:
    return b.add("LeakyRelu", one(b, call), alpha=float(call.constants["slope"]))  # type: ignore[no-any-return]


@emits("elu")
def _elu(b: Builder, call: Call) -> str:
    return b.add("Elu", one(b, call), alpha=float(call.constants["alpha"]))  # type: ignore[no-any-return]


@emits("silu")
def _silu(b: Builder, call: Call) -> str:
    x = one(b, call)
    return b.add("Mul", x, b.add("Sigmoid", x))  # type: ignore[no-any-return]


@emits("gelu")
def _gelu(b: Builder, call: Call) -> str:
    x, dtype = one(b, call), result_dtype(b, call)

    def number(value: float) -> str:
        return b.const(np.asarray(value, dtype))

    if call.constants["approximate"] == "none":
        inner = b.add("Erf", b.add("Mul", x, number(math.sqrt(0.5))))
    else:
        cube = b.add("Mul", b.add("Mul", x, x), x)
        bent = b.add("Add", x, b.add("Mul", cube, number(0.044715)))
        inner = b.add("Tanh", b.add("Mul", bent, number(math.sqrt(2 / math.pi))))
    half = b.add("Mul", x, number(0.5))
    return b.add("Mul", half, b.add("Add", inner, number(1.0)))  # type: ignore[no-any-return]


@emits("log1p", "expm1")
def _near_one(b: Builder, call: Call) -> str:
    x, unit = one(b, call), b.const(np.asarray(1, result_dtype(b, call)))
    if call.op.name == "log1p":
        return b.add("Log", b.add("Add", x, unit))  # type: ignore[no-any-return]
    return b.add("Sub", b.add("Exp", x), unit)  # type: ignore[no-any-return]


@emits("log2", "log10")
def _logarithm(b: Builder, call: Call) -> str:
    scale = 1 / math.log(2 if call.op.name == "log2" else 10)
    factor = b.const(np.asarray(scale, result_dtype(b, call)))
    return b.add("Mul", b.add("Log", one(b, call)), factor)  # type: ignore[no-any-return]


@emits("isnan", "isinf")
def _kind_of_number(b: Builder, call: Call) -> str:
    kind = "IsNaN" if call.op.name == "isnan" else "IsInf"
    return b.add(kind, b.name(call.operands[0]))  # type: ignore[no-any-return]


@emits("floor_divide", "remainder")
def _divided(b: Builder, call: Call) -> Any:
    x, y, dtype = one(b, call, 0), one(b, call, 1), result_dtype(b, call)
    if dtype.kind == "f":
        down = b.add("Floor", b.add("Div", x, y))
        return down if call.op.name == "floor_divide" else b.add("Sub", x, b.add("Mul", down, y))
    rest = b.add("Mod", x, y)
    return rest if call.op.name == "remainder" else b.add("Div", b.add("Sub", x, rest), y)

"""Arithmetic, comparisons, activations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...tensor import Tensor
from . import OPERATORS, operator
from . import api as A


def _plain(table: dict[str, Any]) -> None:
    for name, function in table.items():
        OPERATORS[name] = lambda c, *xs, f=function: f(*xs)


_plain({
    "Abs": A.abs, "Neg": A.negative, "Exp": A.exp, "Log": A.log, "Sqrt": A.sqrt, "Tanh": A.tanh,
    "Reciprocal": A.reciprocal, "Sign": A.sign, "Sin": A.sin, "Cos": A.cos, "Tan": A.tan,
    "Asin": A.asin, "Acos": A.acos, "Atan": A.atan, "Sinh": A.sinh, "Cosh": A.cosh,
    "Asinh": A.asinh, "Acosh": A.acosh, "Atanh": A.atanh, "Erf": A.erf, "Floor": A.floor,
    "Ceil": A.ceil, "Round": A.round, "Relu": A.F.relu, "Sigmoid": A.F.sigmoid,
    "Softplus": A.F.softplus, "HardSwish": A.F.hardswish, "Mish": A.F.mish,
    "Softsign": A.F.softsign, "Not": A.logical_not, "IsNaN": A.isnan, "Add": A.add,
    "Sub": A.subtract, "Mul": A.multiply, "Equal": A.equal, "Greater": A.greater,
    "GreaterOrEqual": A.greater_equal, "Less": A.less, "LessOrEqual": A.less_equal,
    "And": A.logical_and, "Or": A.logical_or, "Xor": A.logical_xor,
    "BitwiseAnd": A.bitwise_and, "BitwiseOr": A.bitwise_or, "BitwiseXor": A.bitwise_xor,
    "BitwiseNot": A.bitwise_invert, "Where": A.where, "MatMul": A.matmul,
})  # fmt: skip


@operator("Div")
def _div(c: Any, x: Tensor, y: Tensor) -> Any:
    if x.dtype.kind == "f":
        return A.divide(x, y)
    up = A.divide(A.astype(x, dtype=np.dtype(float)), A.astype(y, dtype=np.dtype(float)))
    return A.astype(A.trunc(up), dtype=x.dtype)


@operator("Pow")
def _pow(c: Any, x: Tensor, y: Tensor) -> Any:
    if x.dtype.kind == "f":
        return A.pow(x, A.astype(y, dtype=x.dtype))
    out = A.pow(A.astype(x, dtype=np.dtype(float)), A.astype(y, dtype=np.dtype(float)))
    return A.astype(out, dtype=x.dtype)


@operator("Mod")
def _mod(c: Any, x: Tensor, y: Tensor) -> Any:
    if not c.get("fmod", 0):
        return A.remainder(x, y)
    if x.dtype.kind != "f":
        rest = A.remainder(A.abs(x), A.abs(y))
        return A.where(A.less(x, 0), A.negative(rest), rest)
    return A.subtract(x, A.multiply(A.trunc(A.divide(x, y)), y))


@operator("Max", "Min", "Sum", "Mean")
def _several(c: Any, *xs: Tensor) -> Any:
    out = xs[0]
    f = {"Max": A.maximum, "Min": A.minimum}.get(c.kind, A.add)
    for x in xs[1:]:
        out = f(out, x)
    return A.divide(out, float(len(xs))) if c.kind == "Mean" else out


@operator("BitShift")
def _shift(c: Any, x: Tensor, y: Tensor) -> Any:
    f = A.bitwise_left_shift if c.get("direction") == "LEFT" else A.bitwise_right_shift
    return f(x, y)


@operator("IsInf")
def _is_inf(c: Any, x: Tensor) -> Any:
    found = A.isinf(x)
    if not c.get("detect_positive", 1):
        found = A.logical_and(found, A.less(x, 0))
    if not c.get("detect_negative", 1):
        found = A.logical_and(found, A.greater(x, 0))
    return found


@operator("Clip")
def _clip(c: Any, x: Tensor, low: Any = None, high: Any = None) -> Any:
    low, high = c.get("min", low), c.get("max", high)
    x = x if low is None else A.maximum(x, low)
    return x if high is None else A.minimum(x, high)


@operator("LeakyRelu")
def _leaky(c: Any, x: Tensor) -> Any:
    return A.F.leaky_relu(x, c.get("alpha", 0.01))


@operator("Elu")
def _elu(c: Any, x: Tensor) -> Any:
    return A.F.elu(x, c.get("alpha", 1.0))


@operator("Celu")
def _celu(c: Any, x: Tensor) -> Any:
    return A.F.celu(x, c.get("alpha", 1.0))


@operator("Selu")
def _selu(c: Any, x: Tensor) -> Any:
    alpha, gamma = c.get("alpha", 1.67326319), c.get("gamma", 1.05070102)
    return A.multiply(A.F.elu(x, alpha), gamma)


@operator("ThresholdedRelu")
def _thresholded(c: Any, x: Tensor) -> Any:
    return A.where(A.greater(x, c.get("alpha", 1.0)), x, 0.0)


@operator("HardSigmoid")
def _hard_sigmoid(c: Any, x: Tensor) -> Any:
    return A.clip(A.add(A.multiply(x, c.get("alpha", 0.2)), c.get("beta", 0.5)), 0.0, 1.0)


@operator("PRelu")
def _prelu(c: Any, x: Tensor, slope: Tensor) -> Any:
    return A.where(A.less(x, 0), A.multiply(x, slope), x)


@operator("Shrink")
def _shrink(c: Any, x: Tensor) -> Any:
    bias, limit = c.get("bias", 0.0), c.get("lambd", 0.5)
    inner = A.where(A.greater(x, limit), A.subtract(x, bias), A.multiply(x, 0))
    out = A.where(A.less(x, -limit), A.add(x, bias), inner)
    return A.astype(out, dtype=x.dtype)


@operator("Gelu")
def _gelu(c: Any, x: Tensor) -> Any:
    return A.F.gelu(x, c.get("approximate", "none"))


@operator("Swish")
def _swish(c: Any, x: Tensor) -> Any:
    return A.multiply(x, A.F.sigmoid(A.multiply(x, c.get("alpha", 1.0))))


@operator("Softmax", "LogSoftmax", "Hardmax")
def _softmax(c: Any, x: Tensor) -> Any:
    axis = c.get("axis", -1 if c.opset >= 13 else 1)
    shape = x.shape
    if c.opset < 13:
        axis %= max(x.ndim, 1)
        x, axis = A.reshape(x, (math.prod(shape[:axis]), math.prod(shape[axis:]))), -1
    if c.kind == "Hardmax":
        best = A.argmax(x, axis=axis, keepdims=True)
        sides = [1] * x.ndim
        sides[axis] = -1
        places = A.reshape(A.arange(x.shape[axis]), tuple(sides))
        out = A.astype(A.equal(places, best), dtype=x.dtype)
    else:
        out = (A.F.softmax if c.kind == "Softmax" else A.F.log_softmax)(x, axis=axis)
    return A.reshape(out, shape)


@operator("Cast")
def _cast(c: Any, x: Tensor) -> Any:
    return c.cast(x, c.get("to"))


@operator("CastLike")
def _cast_like(c: Any, x: Tensor, like: Tensor) -> Any:
    return A.astype(x, dtype=like.dtype)


@operator("CumSum", "CumProd")
def _cumulative(c: Any, x: Tensor, axis: Tensor) -> Any:
    at, back = int(axis.array.item()) % x.ndim, bool(c.get("reverse", 0))
    function = A.cumulative_sum if c.kind == "CumSum" else A.cumulative_prod
    y = A.flip(x, axis=at) if back else x
    out = function(y, axis=at, dtype=x.dtype)
    if c.get("exclusive", 0):
        unit = [slice(None)] * x.ndim
        unit[at] = slice(0, 1)
        first = A.multiply(y[tuple(unit)], 0)
        first = first if c.kind == "CumSum" else A.add(first, 1)
        unit[at] = slice(0, -1)
        out = A.concat([first, out[tuple(unit)]], axis=at)
    return A.astype(A.flip(out, axis=at) if back else out, dtype=x.dtype)


@operator("Einsum")
def _einsum(c: Any, *xs: Tensor) -> Any:
    return A.einsum(c.get("equation").replace(" ", ""), *xs)


@operator("Gemm")
def _gemm(c: Any, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Any:
    a = A.permute_dims(a, (1, 0)) if c.get("transA", 0) else a
    b = A.permute_dims(b, (1, 0)) if c.get("transB", 0) else b
    out = A.matmul(a, b)
    alpha, beta = c.get("alpha", 1.0), c.get("beta", 1.0)
    out = out if alpha == 1 else A.multiply(out, alpha)
    if bias is None:
        return out
    return A.add(out, bias if beta == 1 else A.multiply(bias, beta))

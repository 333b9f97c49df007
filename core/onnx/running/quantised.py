"""Whole numbers with a scale and a zero point: plain arithmetic on what they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...tensor import Tensor
from . import api as A
from . import operator
from .layers import convolved

_REAL = np.dtype(np.float64)  # holds sums of products of bytes exactly


def _spread(c: Any, v: Tensor, x: Tensor) -> Tensor:
    """Scales or zero points, one for all, for each place of an axis or for each block of it."""
    if v.size == 1:
        return A.reshape(v, ())
    axis, block = c.get("axis", 1) % x.ndim, c.get("block_size", 0)
    if v.ndim == 1:
        sides = [1] * x.ndim
        sides[axis] = -1
        return A.reshape(v, tuple(sides))
    size = block or -(-x.shape[axis] // v.shape[axis])
    part: list[Any] = [slice(None)] * x.ndim
    part[axis] = slice(0, x.shape[axis])
    return A.repeat(v, size, axis=axis)[tuple(part)]


def _stored(x: Any, dtype: Any) -> Tensor:
    """Rounded to even, and kept within what the dtype holds."""
    limit = np.iinfo(dtype)
    return Tensor(np.clip(np.rint(x), limit.min, limit.max).astype(dtype))


@operator("QuantizeLinear")
def _quantize(c: Any, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    code = c.get("output_dtype", 0)
    dtype = zero.dtype if zero is not None else c.dtype_of(code) if code else np.dtype(np.uint8)
    if dtype.kind not in "iu":
        raise c.refused(f"quantising to {dtype}")
    shift = 0 if zero is None else _spread(c, zero, x).array.astype(_REAL)
    kind = c.get("precision", 0)
    wide = c.dtype_of(kind) if kind else scale.dtype
    ratio = x.array.astype(wide) / _spread(c, scale, x).array.astype(wide)
    return _stored(np.rint(ratio).astype(_REAL) + shift, dtype)


@operator("DequantizeLinear")
def _dequantize(c: Any, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    code = c.get("output_dtype", 0)
    dtype = c.dtype_of(code) if code else scale.dtype
    away = A.astype(x, dtype=_REAL)
    if zero is not None:
        away = A.subtract(away, A.astype(_spread(c, zero, x), dtype=_REAL))
    out = A.multiply(away, A.astype(_spread(c, scale, x), dtype=_REAL))
    return A.astype(out, dtype=dtype)


@operator("DynamicQuantizeLinear")
def _dynamic(c: Any, x: Tensor) -> Any:
    low, high = min(0.0, x.array.min(initial=0)), max(0.0, x.array.max(initial=0))
    scale = np.float32((np.float32(high) - np.float32(low)) / np.float32(255))
    scale = scale if scale else np.float32(1)
    zero = _stored(np.float32(0) - np.float32(low) / scale, np.uint8)
    out = _stored(np.rint(x.array / scale) + int(zero.array), np.uint8)
    return out, Tensor(np.asarray(scale)), zero


def _away(x: Tensor, zero: Tensor | None, sides: tuple[int, ...] = ()) -> Tensor:
    """The distance from the zero point, which may be one for each row."""
    out = A.astype(x, dtype=_REAL)
    if zero is None:
        return out
    zero = A.astype(zero, dtype=_REAL)
    if zero.size == 1:
        zero = A.reshape(zero, ())
    elif zero.ndim == 1 and sides:
        zero = A.reshape(zero, sides)
    return A.subtract(out, zero)


@operator("MatMulInteger")
def _matmul(c: Any, a: Tensor, b: Tensor, za: Any = None, zb: Any = None) -> Tensor:
    out = A.matmul(_away(a, za, (-1, 1)), _away(b, zb, (1, -1)))
    return A.astype(out, dtype=np.dtype(np.int32))


@operator("ConvInteger")
def _conv_integer(c: Any, x: Tensor, w: Tensor, zx: Any = None, zw: Any = None) -> Tensor:
    out = convolved(c, _away(x, zx), _away(w, zw, (-1,) + (1,) * (w.ndim - 1)))
    return A.astype(out, dtype=np.dtype(np.int32))


def _real(x: Tensor, sides: tuple[int, ...]) -> Any:
    found = x.array.astype(_REAL)
    return found.reshape(()) if found.size == 1 else found.reshape(sides) if sides else found


@operator("QLinearMatMul")
def _qlinear_matmul(
    c: Any, a: Tensor, sa: Tensor, za: Tensor, b: Tensor, sb: Tensor, zb: Tensor, sy: Tensor,
    zy: Tensor,
) -> Tensor:  # fmt: skip
    out = A.matmul(_away(a, za, (-1, 1)), _away(b, zb, (1, -1))).array
    rows = (-1, 1) if sa.ndim == 1 else ()
    columns = (1, -1) if sb.ndim == 1 else ()
    out = out * (_real(sa, rows) * _real(sb, columns)) / _real(sy, rows)
    return _stored(np.rint(out) + _real(zy, rows), zy.dtype)


@operator("QLinearConv")
def _qlinear_conv(
    c: Any, x: Tensor, sx: Tensor, zx: Tensor, w: Tensor, sw: Tensor, zw: Tensor, sy: Tensor,
    zy: Tensor, bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    sides = (-1,) + (1,) * (w.ndim - 1)
    given = None if bias is None else A.astype(bias, dtype=_REAL)
    out = convolved(c, _away(x, zx), _away(w, zw, sides), given).array
    out = out * (_real(sx, ()) * _real(sw, sides[: w.ndim - 1])) / _real(sy, ())
    return _stored(np.rint(out) + _real(zy, ()), zy.dtype)

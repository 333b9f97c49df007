"""The softmax family.

A row in which everything is -inf has no distribution: its softmax is 0, its log-softmax and its
logsumexp are -inf, and its gradients are 0, never NaN.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..op import op
from ..spelling import spelled
from .axes import kept_shape
from .elementwise import exp, where
from .reduction import sum as sum_over
from .shape import reshape

if TYPE_CHECKING:
    from ..tensor import Tensor

_BLOCK = 65536  # elements of the rows that are worked on at once


def _shift(xp: Any, x: Any, axis: int) -> Any:
    """The largest value of each row, 0 where it is infinite."""
    top = x.max(axis, keepdims=True)
    return xp.where(xp.isfinite(top), top, xp.zeros_like(top))


def _row_blocks(xp: Any, x: Any, axis: int) -> Any:
    """Blocks of rows to work on one after the other, as views of a 2-D array; None if useless."""
    if xp is not np or x.size <= 2 * _BLOCK or axis not in (-1, x.ndim - 1):
        return None
    if not x.flags.c_contiguous:
        return None
    step = max(_BLOCK // x.shape[-1], 1)
    return [slice(i, i + step) for i in range(0, x.size // x.shape[-1], step)]


def _softmax_into(xp: Any, x: Any, out: Any, axis: int) -> None:
    xp.subtract(x, _shift(xp, x, axis), out=out)
    xp.exp(out, out=out)
    total = out.sum(axis, keepdims=True)
    out /= xp.where(total == 0, xp.ones_like(total), total)


@op(name="softmax", to_float=True, wide=True)
def _softmax(xp: Any, x: Tensor, *, axis: int) -> Tensor:
    out = xp.empty_like(x)
    if x.size == 0:
        return out
    blocks = _row_blocks(xp, x, axis)
    if blocks is None:
        _softmax_into(xp, x, out, axis)
        return out
    rows, results = x.reshape(-1, x.shape[-1]), out.reshape(-1, x.shape[-1])
    for block in blocks:
        _softmax_into(xp, rows[block], results[block], 1)
    return out


@_softmax.backward
def _(g, out, axis):
    return softmax_backward(g, out, axis=axis)


@op(wide=True)
def softmax_backward(xp: Any, grad: Tensor, y: Tensor, *, axis: int) -> Tensor:
    """y (grad - sum(grad y)): the gradient of softmax, given its result."""
    out = grad * y
    out -= y * out.sum(axis, keepdims=True)
    return out


@softmax_backward.backward
def _(g, grad, y, axis, needs):
    second = None
    if needs[1]:
        second = g * (grad - _row_sum(grad * y, axis)) - grad * _row_sum(g * y, axis)
    return softmax_backward(g, y, axis=axis), second


def _row_sum(x: Any, axis: int) -> Any:
    return sum_over(x, axis=axis, keepdims=True)


@spelled
def softmax(x: Tensor, axis: int = -1, *, dtype: Any = None) -> Tensor:
    """exp(x) over its sum along an axis, without overflow.

    Args:
        dtype: convert to this dtype first.
    """
    return _softmax(x if dtype is None else x.astype(dtype), axis=axis)


@spelled
def softmin(x: Tensor, axis: int = -1) -> Tensor:
    """softmax(-x)."""
    return _softmax(-x, axis=axis)


@op(name="log_softmax", to_float=True, wide=True)
def _log_softmax(xp: Any, x: Tensor, *, axis: int) -> Tensor:
    if x.size == 0:
        return xp.empty_like(x)
    out = x - _shift(xp, x, axis)
    total = xp.exp(out).sum(axis, keepdims=True)
    out -= xp.log(xp.where(total == 0, xp.ones_like(total), total))
    return out


@_log_softmax.backward
def _(g, out, axis):
    return log_softmax_backward(g, out, axis=axis)


@op(wide=True)
def log_softmax_backward(xp: Any, grad: Tensor, y: Tensor, *, axis: int) -> Tensor:
    """grad - exp(y) sum(grad): the gradient of log-softmax, given its result."""
    out = xp.exp(y)
    out *= -grad.sum(axis, keepdims=True)
    out += grad
    return out


@log_softmax_backward.backward
def _(g, grad, y, axis, needs):
    p = exp(y)
    second = -(g * p) * _row_sum(grad, axis) if needs[1] else None
    return g - _row_sum(g * p, axis), second


@spelled
def log_softmax(x: Tensor, axis: int = -1, *, dtype: Any = None) -> Tensor:
    """The logarithm of softmax, without underflow."""
    return _log_softmax(x if dtype is None else x.astype(dtype), axis=axis)


@op(name="logsumexp", to_float=True, wide=True)
def _logsumexp(xp: Any, x: Tensor, *, axis: Any, keepdims: bool) -> Tensor:
    if x.size == 0:
        return xp.full_like(x.sum(axis, keepdims=keepdims), -math.inf)
    top = _shift(xp, x, axis)
    total = xp.exp(x - top).sum(axis, keepdims=True)
    empty = total == 0
    out = xp.log(xp.where(empty, xp.ones_like(total), total)) + top
    out = xp.where(empty, xp.full_like(out, -math.inf), out)
    return out if keepdims else out.reshape(x.sum(axis).shape)


@_logsumexp.backward
def _(g, x, out, axis):
    kept = kept_shape(x.shape, axis)
    top = reshape(out, kept)
    top = where(top == -math.inf, 0.0, top)
    return reshape(g, kept) * exp(x - top)


@spelled
def logsumexp(
    x: Tensor, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Tensor:
    """log(sum(exp(x))) over axes, without overflow; -inf where everything is -inf."""
    return _logsumexp(x, axis=axis, keepdims=keepdims)

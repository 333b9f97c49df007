"""Reductions over axes: sums, means, products, extremes, variance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import dtypes
from ..op import op
from ..spelling import spelled
from .axes import Axis, kept_shape, normalized_axes
from .cumulative import exclusive_products
from .elementwise import conj, real, sqrt, square, where
from .logic import not_equal
from .shape import astype, broadcast_to, permute_dims, reshape, rounded_once

if TYPE_CHECKING:
    from ..tensor import Tensor

_FAST = (dtypes.float32, dtypes.float64)
_BLOCK = 256  # rows that are added up in one product: short enough to stay accurate
_SMALL = 2048  # elements below which NumPy's own sum is as fast


def _count(shape: tuple[int, ...], axis: Axis) -> int:
    return math.prod(shape[a] for a in normalized_axes(axis, len(shape)))


def _spread(g: Any, shape: tuple[int, ...], axis: Axis) -> Any:
    """A reduced value given back to every element of `shape`."""
    return broadcast_to(reshape(g, kept_shape(shape, axis)), shape)


# -- sums --------------------------------------------------------------------------------------


def total(xp: Any, x: Any, axis: Axis, keepdims: bool) -> Any:
    """The sum of an array over axes, fast and accurate whatever its memory order.

    NumPy adds pairwise along the last axis in memory only. Over an outer one (bias gradients,
    channels-last statistics) it adds row after row, at up to 20 times the time of a product
    with ones and with an error that grows with the number of rows.
    """
    if axis is not None and x.size > _SMALL and xp is np and x.dtype in _FAST:
        blocks = _outer_blocks(x, normalized_axes(axis, x.ndim))
        if blocks is not None:
            view, kept = blocks
            out = _sum_middle(view).reshape([x.shape[i] for i in kept])
            # The kept axes lie in memory order; as the caller numbers them:
            out = out.transpose([kept.index(i) for i in sorted(kept)])
            return out.reshape(kept_shape(x.shape, axis)) if keepdims else out
    return x.sum(axis, x.dtype, None, keepdims)


def _outer_blocks(x: Any, axes: tuple[int, ...]) -> tuple[Any, list[int]] | None:
    """A view (outer, reduced, inner) of memory that is one block, and the kept axes in its order.

    None where the reduced axes are not next to each other, lie innermost, or hold few rows.
    """
    if x.flags.c_contiguous:
        order = list(range(x.ndim))
    else:
        order = sorted(range(x.ndim), key=lambda i: x.strides[i], reverse=True)
    places = sorted(order.index(a) for a in axes)
    first, last = places[0], places[-1] + 1
    if last - first != len(places):
        return None
    sizes = [x.shape[i] for i in order]
    inner, rows = math.prod(sizes[last:]), math.prod(sizes[first:last])
    if inner == 1 or rows < 8 or (first > 0 and inner * rows < _SMALL):
        return None
    moved = x if x.flags.c_contiguous else x.transpose(order)
    if not moved.flags.c_contiguous:
        return None
    return moved.reshape(-1, rows, inner), order[:first] + order[last:]


def _sum_middle(x: Any) -> Any:
    """Sum over axis 1 of three: blocks of rows by products with ones, then the blocks."""
    outer, rows, inner = x.shape
    if rows <= _BLOCK:
        return np.matmul(np.ones((1, rows), x.dtype), x)[:, 0]
    full = rows // _BLOCK
    blocks = x[:, : full * _BLOCK].reshape(outer, full, _BLOCK, inner)
    parts = np.matmul(np.ones((1, _BLOCK), x.dtype), blocks)[:, :, 0]
    result = np.sum(parts, axis=1, dtype=np.float64)
    if full * _BLOCK < rows:
        rest = x[:, full * _BLOCK :]
        result += np.matmul(np.ones((1, rest.shape[1]), x.dtype), rest)[:, 0]
    return result.astype(x.dtype, copy=False)


@op(name="sum")
def _sum(xp: Any, x: Tensor, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    return total(xp, x, axis, keepdims)


@_sum.backward
def _(g, shapes, axis):
    return _spread(g, shapes[0], axis)


def sum_to(x: Any, shape: tuple[int, ...]) -> Any:
    """Sum over the axes that broadcasting added to `shape`; arrays and tensors alike."""
    extra = x.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        i + extra for i, n in enumerate(shape) if n == 1 and x.shape[i + extra] != 1
    )
    if axes:
        x = _sum(x, axis=axes)
    return x if x.shape == shape else reshape(x, shape)


def _accumulator(x: Tensor, dtype: Any) -> Tensor:
    """In the dtype to sum in: small integers in the largest of their kind, as the standard says."""
    if dtype is not None:
        wanted = dtypes.as_dtype(dtype)
    elif x.dtype.kind in "biu" and x.dtype.itemsize < 8:
        wanted = dtypes.uint64 if x.dtype.kind == "u" else dtypes.int64
    else:
        return x
    return x if x.dtype == wanted else astype(x, dtype=wanted)


@spelled
def sum(x: Tensor, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """Sum over axes; integers smaller than the default are summed in the default integer."""
    return _sum(_accumulator(x, dtype), axis=axis, keepdims=keepdims)


@op(to_float=True)
def mean(xp: Any, x: Tensor, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Arithmetic mean over axes; of integers in the default float."""
    return total(xp, x, axis, keepdims) / (_count(x.shape, axis) or math.nan)


@mean.backward
def _(g, shapes, axis):
    return _spread(g / (_count(shapes[0], axis) or math.nan), shapes[0], axis)


@spelled
@rounded_once
def var(
    x: Tensor, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False
) -> Tensor:
    """Variance over axes: the sum of squared distances from the mean, over `n - correction`.

    `correction=1` estimates the variance of what x is a sample of. NaN where
    `n - correction` is not positive.
    """
    distance = x - mean(x, axis=axis, keepdims=True)
    squared = real(distance * conj(distance)) if x.dtype.kind == "c" else square(distance)
    count = _count(x.shape, axis) - correction
    return _sum(squared, axis=axis, keepdims=keepdims) / (count if count > 0 else math.nan)


@spelled
@rounded_once
def std(
    x: Tensor, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False
) -> Tensor:
    """Standard deviation over axes; see `var`. Of equal values its gradient is 0."""
    variance = var(x, axis=axis, correction=correction, keepdims=keepdims)
    flat = variance == 0
    return where(flat, 0.0, sqrt(where(flat, 1.0, variance)))


@spelled
def count_nonzero(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """How many elements over the axes are not 0."""
    return sum(not_equal(x, 0), axis=axis, keepdims=keepdims)


# -- products ----------------------------------------------------------------------------------


@op(name="prod")
def _prod(xp: Any, x: Tensor, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    return xp.prod(x, axis=axis, keepdims=keepdims, dtype=x.dtype)


@_prod.backward
def _(g, x, axis):
    # The product of all the others, without dividing by what may be 0.
    axes = normalized_axes(axis, x.ndim)
    kept = tuple(i for i in range(x.ndim) if i not in axes)
    order = kept + axes
    moved = permute_dims(x, order)
    rows = reshape(moved, (*moved.shape[: len(kept)], _count(x.shape, axis)))
    others = reshape(exclusive_products(rows), moved.shape)
    back = permute_dims(others, tuple(order.index(i) for i in range(x.ndim)))
    return _spread(g, x.shape, axis) * conj(back)


@spelled
def prod(x: Tensor, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """Product over axes; integers smaller than the default in the default integer."""
    return _prod(_accumulator(x, dtype), axis=axis, keepdims=keepdims)


# -- extremes ----------------------------------------------------------------------------------


@op
def max(xp: Any, x: Any, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest value over axes (values only; `argmax` tells where); NaN if there is one.

    Equal extremes share the gradient evenly.
    """
    return x.max(axis, None, keepdims)


@op
def min(xp: Any, x: Any, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest value over axes; see `max`."""
    return x.min(axis, None, keepdims)


def _extreme_gradient(g: Any, x: Any, out: Any, axis: Axis) -> Any:
    hit = astype(x == _spread(out, x.shape, axis), dtype=g.dtype)
    shares = _sum(hit, axis=axis)
    shares = where(shares == 0, 1.0, shares)  # a NaN equals nothing
    return _spread(reshape(g, shares.shape) / shares, x.shape, axis) * hit


@max.backward
def _(g, x, out, axis):
    return _extreme_gradient(g, x, out, axis)


@min.backward
def _(g, x, out, axis):
    return _extreme_gradient(g, x, out, axis)

"""Reductions over axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .. import dtypes
from ..op import op
from .shape import astype, broadcast_to, reshape

if TYPE_CHECKING:
    from ..tensor import Tensor

Axis = int | tuple[int, ...] | None


def normalized_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes as non-negative numbers, in order; all of them for None."""
    if axis is None:
        return tuple(range(ndim))
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    for a in axes:
        if not -ndim <= a < ndim:
            raise ValueError(f"axis {a} is out of range for {ndim} dimensions")
    return tuple(sorted(a % ndim for a in axes))


def kept_shape(shape: tuple[int, ...], axis: Axis) -> tuple[int, ...]:
    """The shape with the reduced axes as 1."""
    reduced = normalized_axes(axis, len(shape))
    return tuple(1 if i in reduced else n for i, n in enumerate(shape))


def _spread(g: Any, shape: tuple[int, ...], axis: Axis) -> Any:
    """A reduced value given back to every element of `shape`."""
    return broadcast_to(reshape(g, kept_shape(shape, axis)), shape)


@op(name="sum")
def _sum(xp: Any, x: Tensor, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    return xp.sum(x, axis=axis, keepdims=keepdims, dtype=x.dtype)


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


def sum(x: Tensor, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """Sum over axes.

    Integers smaller than the default are summed in the default integer, as the standard says.
    """
    if dtype is not None:
        x = astype(x, dtype=dtypes.as_dtype(dtype))
    elif x.dtype.kind in "biu" and x.dtype.itemsize < 8:
        x = astype(x, dtype=dtypes.uint64 if x.dtype.kind == "u" else dtypes.int64)
    return _sum(x, axis=axis, keepdims=keepdims)


def mean(x: Tensor, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Arithmetic mean over axes; of integers in the default float."""
    if x.dtype.kind in "biu":
        x = astype(x, dtype=dtypes.default_float)
    count = math.prod(x.shape[a] for a in normalized_axes(axis, x.ndim))
    return _sum(x, axis=axis, keepdims=keepdims) / (count if count else math.nan)


@op(name="max")
def _max(xp: Any, x: Tensor, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    return xp.max(x, axis=axis, keepdims=keepdims)


@op(name="min")
def _min(xp: Any, x: Tensor, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    return xp.min(x, axis=axis, keepdims=keepdims)


def _extreme_gradient(g: Any, x: Any, out: Any, axis: Axis) -> Any:
    """Equal extremes share the gradient evenly, as in PyTorch's amax."""
    hit = x == _spread(out, x.shape, axis)
    weight = astype(hit, dtype=g.dtype)
    shares = _spread(_sum(weight, axis=axis), x.shape, axis)
    return _spread(g, x.shape, axis) * weight / shares


@_max.backward
def _(g, x, out, axis):
    return _extreme_gradient(g, x, out, axis)


@_min.backward
def _(g, x, out, axis):
    return _extreme_gradient(g, x, out, axis)


def max(x: Tensor, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest value over axes (values only; see `argmax` for where it is)."""
    return _max(x, axis=axis, keepdims=keepdims)


def min(x: Tensor, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest value over axes."""
    return _min(x, axis=axis, keepdims=keepdims)

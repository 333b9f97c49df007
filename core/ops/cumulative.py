"""Running sums, products and recurrences along an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import dtypes
from ..errors import ShapeError
from ..op import op
from ..spelling import spelled
from .elementwise import conj, subtract, zeros_of
from .logic import not_equal
from .shape import astype, broadcast_to, concat, rounded_once

if TYPE_CHECKING:
    from ..tensor import Tensor


def _part(x: Any, axis: int, start: int | None, stop: int | None) -> Any:
    return x[(slice(None),) * axis + (slice(start, stop),)]


def _running(xp: Any, function: Any, x: Any, axis: int, reverse: bool) -> Any:
    out = xp.empty_like(x)
    if reverse:
        function(xp.flip(x, axis=axis), axis=axis, dtype=x.dtype, out=xp.flip(out, axis=axis))
    else:
        function(x, axis=axis, dtype=x.dtype, out=out)
    return out


@op(name="cumulative_sum")
def _cumulative_sum(xp: Any, x: Tensor, *, axis: int, reverse: bool = False) -> Tensor:
    return _running(xp, xp.cumsum, x, axis, reverse)


@_cumulative_sum.backward
def _(g, axis, reverse):
    return _cumulative_sum(g, axis=axis, reverse=not reverse)


@op(name="cumulative_prod")
def _cumulative_prod(xp: Any, x: Tensor, *, axis: int, reverse: bool = False) -> Tensor:
    return _running(xp, xp.cumprod, x, axis, reverse)


@_cumulative_prod.backward
def _(g, x, axis, reverse):
    # d out[i] / d x[k] is the product up to i without x[k]: what comes before k, times a sum
    # that is itself a recurrence from the end. Nothing is divided, so zeros are no trouble.
    if x.shape[axis] == 0:
        return g
    factors = conj(_next(x, axis, reverse))
    tail = linear_recurrence(factors, g, axis=axis, reverse=not reverse)
    return tail * conj(_products_before(x, axis, reverse))


def _next(x: Any, axis: int, reverse: bool = False) -> Any:
    """Each element's successor, and 0 at the end."""
    if reverse:
        return concat([zeros_of(_part(x, axis, 0, 1)), _part(x, axis, 0, -1)], axis=axis)
    return concat([_part(x, axis, 1, None), zeros_of(_part(x, axis, -1, None))], axis=axis)


def _products_before(x: Any, axis: int, reverse: bool = False) -> Any:
    """The product of the elements before each one (after it, if `reverse`)."""
    one = zeros_of(_part(x, axis, 0, 1)) + 1
    if reverse:
        products = _cumulative_prod(_part(x, axis, 1, None), axis=axis, reverse=True)
        return concat([products, one], axis=axis)
    products = _cumulative_prod(_part(x, axis, 0, -1), axis=axis)
    return concat([one, products], axis=axis)


def exclusive_products(x: Any) -> Any:
    """For each element of the last axis, the product of all the others."""
    axis = x.ndim - 1
    if x.shape[axis] == 0:
        return x
    return _products_before(x, axis) * _products_before(x, axis, reverse=True)


@op(name="linear_recurrence", promote=True)
def linear_recurrence(
    xp: Any, a: Tensor, b: Tensor, *, axis: int = -1, reverse: bool = False
) -> Tensor:
    """y with `y[i] = a[i] * y[i - 1] + b[i]` along an axis, from the end if `reverse`.

    Discounted returns, exponential averages and linear state spaces are of this form.
    Shape: a and b alike.
    """
    out = xp.empty_like(b)
    factors, terms, y = (xp.moveaxis(v, axis, 0) for v in (a, b, out))
    if reverse:
        factors, terms, y = factors[::-1], terms[::-1], y[::-1]
    y[:1] = terms[:1]
    for i in range(1, len(y)):
        xp.multiply(factors[i : i + 1], y[i - 1 : i], out=y[i : i + 1])
        y[i : i + 1] += terms[i : i + 1]
    return out


@linear_recurrence.backward
def _(g, a, out, axis, reverse):
    place = axis % out.ndim
    if out.shape[place] == 0:
        return g, g
    tail = linear_recurrence(conj(_next(a, place, reverse)), g, axis=place, reverse=not reverse)
    return tail * conj(_next(out, place, not reverse)), tail


# -- public ------------------------------------------------------------------------------------


def _axis_of(x: Tensor, axis: int | None, name: str) -> int:
    """The axis to run along, which may be left out where there is one."""
    if axis is None and x.ndim == 1:
        return 0
    if axis is None or not -x.ndim <= axis < x.ndim:
        raise ShapeError(
            f"{name}: axis={axis} names no axis of a tensor of shape {tuple(x.shape)}.",
            axis=axis,
            shape=tuple(x.shape),
        )
    return axis % x.ndim


def _accumulated(x: Tensor, dtype: Any) -> Tensor:
    if dtype is not None:
        return astype(x, dtype=dtypes.as_dtype(dtype))
    if x.dtype.kind in "biu" and x.dtype.itemsize < 8:
        return astype(x, dtype=dtypes.uint64 if x.dtype.kind == "u" else dtypes.int64)
    return x


def _with_initial(out: Tensor, x: Tensor, axis: int, value: int) -> Tensor:
    shape = tuple(1 if i == axis else n for i, n in enumerate(x.shape))
    first: Tensor = zeros_of(out, shape=shape) + value
    return concat([first, out], axis=axis)


@spelled
def cumulative_sum(
    x: Tensor,
    /,
    *,
    axis: int | None = None,
    dtype: Any = None,
    include_initial: bool = False,
) -> Tensor:
    """Running sum along an axis, which may be left out for tensors of one axis.

    Args:
        include_initial: begin with the sum of nothing, 0.
    """
    place = _axis_of(x, axis, "cumulative_sum")
    out: Tensor = _cumulative_sum(_accumulated(x, dtype), axis=place)
    return _with_initial(out, x, place, 0) if include_initial else out


@spelled
def cumulative_prod(
    x: Tensor,
    /,
    *,
    axis: int | None = None,
    dtype: Any = None,
    include_initial: bool = False,
) -> Tensor:
    """Running product along an axis; see `cumulative_sum`. `include_initial` begins with 1."""
    place = _axis_of(x, axis, "cumulative_prod")
    out: Tensor = _cumulative_prod(_accumulated(x, dtype), axis=place)
    return _with_initial(out, x, place, 1) if include_initial else out


@spelled
@rounded_once
def diff(
    x: Tensor,
    /,
    *,
    axis: int = -1,
    n: int = 1,
    prepend: Tensor | None = None,
    append: Tensor | None = None,
) -> Tensor:
    """Differences of neighbours along an axis, taken `n` times.

    Args:
        prepend, append: put before and after x first; a single value is repeated as needed.
    """
    place = _axis_of(x, axis, "diff")
    parts = []
    for part in (prepend, x, append):
        if part is None:
            continue
        if part.ndim == 0:
            part = broadcast_to(part, tuple(1 if i == place else m for i, m in enumerate(x.shape)))
        parts.append(part)
    out = concat(parts, axis=place) if len(parts) > 1 else x
    minus = not_equal if out.dtype.kind == "b" else subtract
    for _ in range(n):
        out = minus(_part(out, place, 1, None), _part(out, place, 0, -1))
    return out

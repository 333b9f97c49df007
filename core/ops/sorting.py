"""Sorting. Gradients go back to where the values came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ShapeError
from ..op import op
from ..spelling import spelled
from .axes import one_axis
from .indexing import scatter_along_axis, take_along_axis

if TYPE_CHECKING:
    from ..tensor import Tensor


@op(name="argsort", differentiable=False)
def _argsort(xp: Any, x: Tensor, *, axis: int, descending: bool, stable: bool) -> Tensor:
    kind = "stable" if stable else None
    if not descending:
        return xp.argsort(x, axis=axis, kind=kind)
    # Reversed twice, so that equal elements keep their order.
    order = xp.argsort(xp.flip(x, axis=axis), axis=axis, kind=kind)
    return x.shape[axis] - 1 - xp.flip(order, axis=axis)


@op(name="sort")
def _sort(xp: Any, x: Tensor, *, axis: int, descending: bool) -> Tensor:
    out = xp.sort(x, axis=axis)
    return xp.flip(out, axis=axis) if descending else out


@_sort.backward
def _(g, x, axis, descending):
    order = _argsort(x, axis=axis, descending=descending, stable=True)
    return scatter_along_axis(g, order, axis=axis, length=x.shape[axis])


@spelled
def sort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The values in order along an axis (`argsort` gives the order). NaN counts as the largest."""
    return _sort(x, axis=one_axis("sort", axis, x.shape), descending=descending)


@spelled
def argsort(
    x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True
) -> Tensor:
    """The indices that sort an axis.

    Args:
        stable: equal elements keep their order; without it sorting is faster.
    """
    place = one_axis("argsort", axis, x.shape)
    return _argsort(x, axis=place, descending=descending, stable=stable)


class TopK(NamedTuple):
    """The k largest (or smallest) values along an axis and their places."""

    values: Tensor
    indices: Tensor


@op(name="topk", differentiable=False)
def _topk(xp: Any, x: Tensor, *, k: int, axis: int, largest: bool) -> Tensor:
    n = x.shape[axis]
    if k == 0:
        return xp.zeros(tuple(0 if i == axis else m for i, m in enumerate(x.shape)), "int64")
    every = (slice(None),) * axis
    if largest:
        chosen = xp.argpartition(x, n - k, axis=axis)[(*every, slice(n - k, None))]
    else:
        chosen = xp.argpartition(x, k - 1, axis=axis)[(*every, slice(k))]
    chosen = xp.sort(chosen, axis=axis)  # so that equal values come in their order
    values = xp.take_along_axis(x, chosen, axis=axis)
    if largest:
        order = k - 1 - xp.flip(xp.argsort(xp.flip(values, axis), axis, kind="stable"), axis)
    else:
        order = xp.argsort(values, axis, kind="stable")
    return xp.take_along_axis(chosen, order, axis=axis)


@spelled
def topk(x: Tensor, k: int, /, *, axis: int = -1, largest: bool = True) -> TopK:
    """The k largest values along an axis, in falling order, and their places.

    Args:
        largest: False for the smallest, in rising order.

    Raises:
        ShapeError: the axis has fewer than k elements.
    """
    place = one_axis("topk", axis, x.shape)
    if not 0 <= k <= x.shape[place]:
        raise ShapeError(
            f"topk: k={k}, and axis {axis} has {x.shape[place]} elements.",
            k=k,
            length=x.shape[place],
        )
    indices: Tensor = _topk(x, k=k, axis=place, largest=largest)
    return TopK(take_along_axis(x, indices, axis=place), indices)

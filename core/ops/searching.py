"""Where values are. Places carry no gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ShapeError
from ..op import op
from ..spelling import spelled

if TYPE_CHECKING:
    from ..tensor import Tensor


@op(differentiable=False)
def argmax(xp: Any, x: Tensor, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The place of the largest value along an axis; of several, the first."""
    return xp.argmax(x, axis=axis, keepdims=keepdims)


@op(differentiable=False)
def argmin(xp: Any, x: Tensor, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The place of the smallest value along an axis; of several, the first."""
    return xp.argmin(x, axis=axis, keepdims=keepdims)


@op(name="nonzero", outputs=2, differentiable=False)
def _nonzero(xp: Any, x: Tensor) -> tuple[Tensor, ...]:
    return xp.nonzero(x)


def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """The places of elements that are not 0: one tensor of indices for each axis."""
    if x.ndim == 0:
        raise ShapeError("nonzero: a tensor without axes has no places; compare it: x != 0")
    return _nonzero(x)


@op(name="searchsorted", promote=(0, 1), differentiable=False)
def _searchsorted(
    xp: Any, x1: Tensor, x2: Tensor, sorter: Tensor | None = None, *, side: str = "left"
) -> Tensor:
    return xp.searchsorted(x1, x2, side=side, sorter=sorter)


@spelled
def searchsorted(
    x1: Tensor, x2: Tensor, /, *, side: str = "left", sorter: Tensor | None = None
) -> Tensor:
    """Where each element of x2 would have to be inserted to keep x1 sorted.

    Args:
        side: before ("left") or after ("right") equal elements.
        sorter: the order that sorts x1, where it is not sorted itself.
    """
    if side not in ("left", "right"):
        raise ConfigError(f"searchsorted: side is 'left' or 'right', got {side!r}", got=side)
    if x1.ndim != 1:
        raise ShapeError(f"searchsorted: x1 must have one axis, got shape {tuple(x1.shape)}")
    return _searchsorted(x1, x2, sorter, side=side)

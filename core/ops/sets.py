"""The distinct values of a tensor. They carry no gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..op import op
from .shape import reshape

if TYPE_CHECKING:
    from ..tensor import Tensor


class UniqueAll(NamedTuple):
    """Distinct values, where each first occurs, which one each element is, how often it occurs."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """Distinct values and how often each occurs."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """Distinct values and which of them each element is."""

    values: Tensor
    inverse_indices: Tensor


@op(name="unique", outputs=4, differentiable=False)
def _unique(xp: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return xp.unique(x, return_index=True, return_inverse=True, return_counts=True, equal_nan=False)


@op(differentiable=False)
def unique_values(xp: Any, x: Tensor) -> Tensor:
    """The distinct values, sorted. Every NaN is distinct."""
    return xp.unique(x, equal_nan=False)


def unique_all(x: Tensor, /) -> UniqueAll:
    """The distinct values with first places, inverse and counts. Every NaN is distinct."""
    values, indices, inverse, counts = _unique(x)
    return UniqueAll(values, indices, reshape(inverse, x.shape), counts)


def unique_counts(x: Tensor, /) -> UniqueCounts:
    """The distinct values and how often each occurs."""
    values, _, _, counts = _unique(x)
    return UniqueCounts(values, counts)


def unique_inverse(x: Tensor, /) -> UniqueInverse:
    """The distinct values and which of them each element is: `values[inverse]` is x."""
    values, _, inverse, _ = _unique(x)
    return UniqueInverse(values, reshape(inverse, x.shape))

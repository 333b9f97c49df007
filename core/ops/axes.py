"""Reading the `axis=` of operations: checked, and counted from the first axis."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ShapeError

Shape = tuple[int, ...]
Axis = int | Shape | None


def one_axis(name: str, axis: int, shape: Shape) -> int:
    """An axis of `shape`; `name` is the operation's, for the error.

    Raises:
        ShapeError: there is no such axis.
    """
    if not -len(shape) <= axis < len(shape):
        raise ShapeError(f"{name}: axis {axis} is out of range for shape {tuple(shape)}")
    return axis % len(shape)


def distinct_axes(name: str, axis: int | Sequence[int], ndim: int) -> Shape:
    """Axes as non-negative numbers, in the order given."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    found = tuple(a % ndim if -ndim <= a < ndim else -1 for a in axes)
    if -1 in found or len(set(found)) != len(found):
        raise ShapeError(
            f"{name}: axis={axis} does not name distinct axes of {ndim}.", axis=axis, ndim=ndim
        )
    return found


def normalized_axes(axis: Axis, ndim: int) -> Shape:
    """The axes as non-negative numbers, in order; all of them for None."""
    if axis is None:
        return tuple(range(ndim))
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    for a in axes:
        if not -ndim <= a < ndim:
            raise ValueError(f"axis {a} is out of range for {ndim} dimensions")
    return tuple(sorted(a % ndim for a in axes))


def kept_shape(shape: Shape, axis: Axis) -> Shape:
    """The shape with the reduced axes as 1."""
    reduced = normalized_axes(axis, len(shape))
    return tuple(1 if i in reduced else n for i, n in enumerate(shape))

"""Operations that rearrange, repeat and extend tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, ShapeError
from ..op import op
from ..spelling import spelled
from .axes import Axis, distinct_axes
from .elementwise import zeros_of
from .reduction import sum as sum_over
from .shape import (
    broadcast_to,
    concat,
    inverse_order,
    memory_order,
    permute_dims,
    reshape,
    stack,
)

if TYPE_CHECKING:
    from ..tensor import Tensor

Shape = tuple[int, ...]


# -- order -------------------------------------------------------------------------------------


@op(name="flip", view=True)
def _flip(xp: Any, x: Tensor, *, axes: Shape) -> Tensor:
    return xp.flip(x, axis=axes) if axes else x[...]


@_flip.backward
def _(g, axes):
    return _flip(g, axes=axes)


@spelled
def flip(x: Tensor, /, *, axis: Axis = None) -> Tensor:
    """The elements in reverse order along axes (all of them for None)."""
    axes = tuple(range(x.ndim)) if axis is None else distinct_axes("flip", axis, x.ndim)
    return _flip(x, axes=axes)


@op(name="roll", raw=True)
def _roll(xp: Any, x: Tensor, *, shift: int | Shape, axis: Axis) -> Tensor:
    return xp.roll(x, shift, axis=axis)


@_roll.backward
def _(g, shift, axis):
    back = -shift if isinstance(shift, int) else tuple(-s for s in shift)
    return _roll(g, shift=back, axis=axis)


@spelled
def roll(x: Tensor, /, shift: int | Shape, *, axis: Axis = None) -> Tensor:
    """The elements moved along axes; what leaves at the end comes in at the start.

    Without an axis the tensor is rolled as if it were flat.
    """
    shifts = shift if isinstance(shift, int) else tuple(shift)
    return _roll(x, shift=shifts, axis=axis)


def moveaxis(x: Tensor, source: int | Shape, destination: int | Shape, /) -> Tensor:
    """Axis put at other places; the others keep their order."""
    sources = distinct_axes("moveaxis", source, x.ndim)
    places = distinct_axes("moveaxis", destination, x.ndim)
    if len(sources) != len(places):
        raise ShapeError(f"moveaxis: {len(sources)} axes for {len(places)} places")
    order = [i for i in range(x.ndim) if i not in sources]
    for place, axis in sorted(zip(places, sources, strict=True)):
        order.insert(place, axis)
    return permute_dims(x, tuple(order))


@op(name="tril", raw=True)
def _tril(xp: Any, x: Tensor, *, k: int) -> Tensor:
    return xp.tril(x, k)


@_tril.backward
def _(g, k):
    return _tril(g, k=k)


@op(name="triu", raw=True)
def _triu(xp: Any, x: Tensor, *, k: int) -> Tensor:
    return xp.triu(x, k)


@_triu.backward
def _(g, k):
    return _triu(g, k=k)


def _check_matrix(name: str, x: Tensor) -> None:
    if x.ndim < 2:
        raise ShapeError(
            f"{name}: needs two axes or more, got shape {tuple(x.shape)}.", got=tuple(x.shape)
        )


def tril(x: Tensor, /, *, k: int = 0) -> Tensor:
    """Matrices with zeros above diagonal `k` (0 the main one, positive above it)."""
    _check_matrix("tril", x)
    return _tril(x, k=k)


def triu(x: Tensor, /, *, k: int = 0) -> Tensor:
    """Matrices with zeros below diagonal `k`."""
    _check_matrix("triu", x)
    return _triu(x, k=k)


# -- parts -------------------------------------------------------------------------------------


@op(name="unstack", outputs=2, view=True)
def _unstack(xp: Any, x: Tensor, *, axis: int) -> tuple[Tensor, ...]:
    return tuple(x[(slice(None),) * axis + (i, ...)] for i in range(x.shape[axis]))


@_unstack.backward
def _(g, axis):
    some = next(part for part in g if part is not None)
    return stack([zeros_of(some) if part is None else part for part in g], axis=axis)


@spelled
def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices along an axis, without it: the inverse of `stack`."""
    (place,) = distinct_axes("unstack", axis, x.ndim)
    return _unstack(x, axis=place)


@op(name="split", outputs=2, view=True)
def _split(xp: Any, x: Tensor, *, sizes: Shape, axis: int) -> tuple[Tensor, ...]:
    stops = np.cumsum(sizes).tolist()
    return tuple(
        x[(slice(None),) * axis + (slice(stop - size, stop),)]
        for size, stop in zip(sizes, stops, strict=True)
    )


@_split.backward
def _(g, shapes, sizes, axis):
    parts = []
    some = next(part for part in g if part is not None)
    for size, part in zip(sizes, g, strict=True):
        if part is None:
            shape = tuple(size if i == axis else n for i, n in enumerate(shapes[0]))
            part = zeros_of(some, shape=shape)
        parts.append(part)
    return concat(parts, axis=axis)


@spelled
def split(x: Tensor, /, sections: int | Sequence[int], *, axis: int = 0) -> tuple[Tensor, ...]:
    """The tensor cut into parts along an axis.

    Args:
        sections: how many parts of one size, or the size of each part.

    Raises:
        ShapeError: the sizes do not add up to the axis.
    """
    (place,) = distinct_axes("split", axis, x.ndim)
    length = x.shape[place]
    if isinstance(sections, int):
        if sections < 1 or length % sections:
            raise ShapeError(
                f"split: {length} elements of axis {axis} do not make {sections} equal parts.\n"
                f"Give the sizes: bt.split(x, [{-(-length // max(sections, 1))}, ...], "
                f"axis={axis})",
                length=length,
                sections=sections,
            )
        sizes = (length // sections,) * sections
    else:
        sizes = tuple(sections)
    if sum(sizes) != length or any(n < 0 for n in sizes):
        raise ShapeError(
            f"split: the sizes {sizes} add up to {sum(sizes)}, axis {axis} has {length}.",
            expected=length,
            got=sizes,
        )
    return _split(x, sizes=sizes, axis=place)


# -- repetition --------------------------------------------------------------------------------


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The shape that tensors of these shapes broadcast to.

    Raises:
        ShapeError: two sizes of an axis differ and neither is 1.
    """
    ndim = max((len(s) for s in shapes), default=0)
    result = []
    for i in range(-ndim, 0):
        sizes = {s[i] for s in shapes if len(s) >= -i} - {1}
        if len(sizes) > 1:
            raise ShapeError(
                f"shapes {', '.join(str(tuple(s)) for s in shapes)} do not broadcast: axis {i} "
                f"has sizes {sorted(sizes)}.",
                shapes=shapes,
            )
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def broadcast_arrays(*arrays: Tensor) -> list[Tensor]:
    """The tensors, each broadcast to the shape of all (do not write to them)."""
    shape = broadcast_shapes(*(x.shape for x in arrays))
    return [x if x.shape == shape else broadcast_to(x, shape) for x in arrays]


def meshgrid(*arrays: Tensor, indexing: str = "xy") -> list[Tensor]:
    """Coordinates of a grid from the coordinates of its axes.

    Args:
        indexing: "xy" (the first array runs along the second axis, as in pictures) or "ij".
    """
    if indexing not in ("xy", "ij"):
        raise ConfigError(f"meshgrid: indexing is 'xy' or 'ij', got {indexing!r}", got=indexing)
    for x in arrays:
        if x.ndim != 1:
            raise ShapeError(f"meshgrid: takes tensors of one axis, got shape {tuple(x.shape)}")
    places = list(range(len(arrays)))
    if indexing == "xy" and len(arrays) > 1:
        places[:2] = [1, 0]
    shape = [0] * len(arrays)
    for x, place in zip(arrays, places, strict=True):
        shape[place] = x.shape[0]
    return [
        broadcast_to(
            reshape(x, tuple(-1 if i == place else 1 for i in range(len(arrays)))), tuple(shape)
        )
        for x, place in zip(arrays, places, strict=True)
    ]


@op(name="repeat", raw=True)
def _repeat(xp: Any, x: Tensor, *, count: int, axis: int) -> Tensor:
    order = memory_order(x)  # as a copy would drop it
    wide = xp.repeat(xp.transpose(x, order), count, axis=order.index(axis))
    return xp.transpose(wide, inverse_order(order))


@_repeat.backward
def _(g, shapes, count, axis):
    shape = shapes[0]
    copies = reshape(g, (*shape[: axis + 1], count, *shape[axis + 1 :]))
    return sum_over(copies, axis=axis + 1)


@op(raw=True, differentiable=False)
def repeat_places(xp: Any, repeats: Tensor) -> Tensor:
    """Each index as often as `repeats` says."""
    return xp.repeat(xp.arange(repeats.shape[0]), repeats.tolist())


@spelled
def repeat(x: Tensor, repeats: int | Tensor, /, *, axis: int | None = None) -> Tensor:
    """Each element repeated (whole tensors: `tile`); flattened first without an axis.

    Args:
        repeats: how often, for all elements or for each one along the axis.
    """
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    (place,) = distinct_axes("repeat", axis, x.ndim)
    if not isinstance(repeats, int) and repeats.size == 1:
        repeats = int(repeats.item())
    if not isinstance(repeats, int):
        if repeats.shape != (x.shape[place],):
            raise ShapeError(
                f"repeat: {repeats.shape} repetitions for {x.shape[place]} elements of axis {axis}",
                expected=(x.shape[place],),
                got=tuple(repeats.shape),
            )
        return x[(slice(None),) * place + (repeat_places(repeats),)]
    return _repeat(x, count=repeats, axis=place)


@op(name="tile", raw=True)
def _tile(xp: Any, x: Tensor, *, counts: Shape) -> Tensor:
    order = memory_order(x)
    wide = xp.tile(xp.transpose(x, order), tuple(counts[a] for a in order))
    return xp.transpose(wide, inverse_order(order))


@_tile.backward
def _(g, shapes, counts):
    split = (n for pair in zip(counts, shapes[0], strict=True) for n in pair)
    return sum_over(reshape(g, tuple(split)), axis=tuple(range(0, 2 * len(counts), 2)))


def tile(x: Tensor, repetitions: int | Shape, /) -> Tensor:
    """The whole tensor repeated along each axis."""
    counts = (repetitions,) if isinstance(repetitions, int) else tuple(repetitions)
    ndim = max(len(counts), x.ndim)
    counts = (1,) * (ndim - len(counts)) + counts
    if x.ndim < ndim:
        x = reshape(x, (1,) * (ndim - x.ndim) + tuple(x.shape))
    return _tile(x, counts=counts)

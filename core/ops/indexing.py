"""Reading and writing parts of tensors.

An index is split into its layout (slices, numbers, new axes: constants) and its index tensors
(operands), so that a recorded graph sees the tensors that it depends on.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, DtypeError, IndexRangeError, ShapeError
from ..op import op
from ..spelling import spelled
from .elementwise import add, zeros_of
from .manipulation import broadcast_shapes
from .shape import astype, broadcast_to, inverse_order, memory_order

if TYPE_CHECKING:
    from ..tensor import Tensor

# In a layout, stands where the next index tensor goes.
TENSOR = "tensor"
_EVERY = slice(None)

Layout = tuple[Any, ...]


def split_index(index: Any, is_tensor: Any) -> tuple[Layout, list[Any]]:
    """The layout of an index and the tensors or arrays in it."""
    items = index if isinstance(index, tuple) else (index,)
    layout: list[Any] = []
    operands: list[Any] = []
    for item in items:
        if isinstance(item, list):
            item = np.asarray(item) if item else np.zeros(0, np.int64)
        if is_tensor(item) or (hasattr(item, "dtype") and hasattr(item, "shape")):
            if item.dtype.kind not in "biu":
                raise DtypeError(
                    f"an index must be integer or boolean, got {item.dtype}.\n"
                    "Convert it: x[i.astype(bt.int64)]",
                    got=str(item.dtype),
                )
            layout.append(TENSOR)
            operands.append(item)
        elif item is None or item is Ellipsis or isinstance(item, (slice, int, bool)):
            layout.append(item)
        elif hasattr(item, "__index__"):
            layout.append(item.__index__())
        else:
            raise DtypeError(f"cannot index with {type(item).__name__}", got=type(item).__name__)
    return tuple(layout), operands


def _join(layout: Layout, operands: Any) -> Any:
    if len(layout) == 1 and layout[0] is not TENSOR:
        return layout[0]
    rest = iter(operands)
    return tuple(next(rest) if item is TENSOR else item for item in layout)


def _index_error(error: Exception, operands: Any, constants: Any) -> Exception | None:
    if isinstance(error, IndexError):
        return IndexRangeError(f"indexing a tensor of shape {tuple(operands[0].shape)}: {error}")
    return None


@op(view=True)
def getitem(xp: Any, x: Tensor, *indices: Tensor, layout: Layout) -> Tensor:
    """`x[index]`; a view where the index is made of numbers and slices."""
    if not indices:
        part: Any = x[layout[0] if len(layout) == 1 else layout]
        if part.ndim == 0 and Ellipsis not in layout:
            return x[(*layout, ...)]  # a view without axes instead of a scalar
        return part
    axis = _axis_of_rows(layout, indices)
    if axis is not None:
        # Three times faster than an index; in memory order, which it would drop.
        order = memory_order(x)
        moved = xp.transpose(x, order)
        if moved.flags.c_contiguous:
            if order == tuple(range(x.ndim)):
                return xp.take(x, indices[0], axis=axis)
            if indices[0].ndim == 1:
                taken = xp.take(moved, indices[0], axis=order.index(axis))
                return xp.transpose(taken, inverse_order(order))
    return x[_join(layout, indices)]


@getitem.backward
def _(g, shapes, indices, layout):
    return scatter_add(g, *indices, layout=layout, shape=shapes[0]), *(None for _ in indices)


getitem.explains(_index_error)


@op
def scatter_add(xp: Any, values: Tensor, *indices: Tensor, layout: Layout, shape: Any) -> Tensor:
    """Zeros of `shape` with `values` added at an index; repeated places add up."""
    if values.ndim == len(shape):
        result = xp.zeros_like(values, shape=shape)  # in the memory order of the values
    else:
        result = xp.zeros(shape, values.dtype)
    index = _join(layout, indices)
    if all(i.dtype.kind == "b" for i in indices):
        result[index] = values  # slices, numbers and masks name each place once
    else:
        xp.add.at(result, index, values)
    return result


@scatter_add.kernel("cpu")
def _(values, *indices, layout, shape):
    # add.at takes 2 to 20 times as long, and adds in float32 one after the other.
    if values.dtype.kind not in "fc" or all(i.dtype.kind == "b" for i in indices):
        return NotImplemented
    axis = _axis_of_rows(layout, indices)
    if axis is not None:
        order = memory_order(values) if indices[0].ndim == 1 else tuple(range(len(shape)))
        lengths = tuple(shape[a] for a in order)
        moved = values if values.ndim != len(order) else values.transpose(order)
        out = _add_along(moved, indices[0], order.index(axis), lengths)
        return out.transpose(inverse_order(order))
    places = np.arange(math.prod(shape)).reshape(shape)[_join(layout, indices)]
    return _add_flat(places, values, math.prod(shape)).reshape(shape)


def _axis_of_rows(layout: Layout, indices: Any) -> int | None:
    """The axis that one tensor of integers picks from, where nothing else is indexed."""
    if len(indices) != 1 or indices[0].dtype.kind == "b":
        return None
    count = len(layout)
    while count and layout[count - 1] == _EVERY:
        count -= 1
    if count == 0 or layout[count - 1] is not TENSOR:
        return None
    return count - 1 if all(item == _EVERY for item in layout[: count - 1]) else None


def _add_flat(places: Any, values: Any, size: int) -> Any:
    """`values` added up by place, in float64."""
    places, weights = places.reshape(-1), values.reshape(-1)
    if values.dtype.kind == "c":
        out = np.empty(size, values.dtype)
        out.real = np.bincount(places, weights.real, size)
        out.imag = np.bincount(places, weights.imag, size)
        return out
    return np.bincount(places, weights, size).astype(values.dtype)


def _add_along(values: Any, index: Any, axis: int, shape: tuple[int, ...]) -> Any:
    """Rows of `values` added to where `index` points along an axis."""
    outer, inner = shape[:axis], shape[axis + 1 :]
    count, width = index.size, math.prod(outer) * math.prod(inner)
    rows = values.reshape(math.prod(outer), count, math.prod(inner))
    rows = rows.transpose(1, 0, 2).reshape(count, width)
    flat = index.reshape(-1)
    flat = np.where(flat < 0, flat + shape[axis], flat)
    if count and not 0 <= flat.min() <= flat.max() < shape[axis]:
        raise IndexError(f"index out of bounds for axis {axis} with size {shape[axis]}")
    out = _add_rows(shape[axis], flat, rows)
    out = out.reshape(shape[axis], math.prod(outer), math.prod(inner))
    return np.ascontiguousarray(out.transpose(1, 0, 2)).reshape(shape)


_NARROW, _WIDE = 16, 128  # row lengths, from measurements


def _add_rows(length: int, index: Any, rows: Any) -> Any:
    count, width = rows.shape
    if width <= _NARROW:
        places = index[:, None] * width + np.arange(width)
        return _add_flat(places, rows, length * width).reshape(length, width)
    out = np.zeros((length, width), rows.dtype)
    if count == 0:
        return out
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    if width < _WIDE:
        out[ordered[starts]] = np.add.reduceat(rows[order], starts, axis=0)
        return out
    stops = np.append(starts[1:], count)
    single = stops - starts == 1
    out[ordered[starts[single]]] = rows[order[starts[single]]]
    for start, stop in zip(starts[~single].tolist(), stops[~single].tolist(), strict=True):
        out[ordered[start]] = rows[order[start:stop]].sum(axis=0)
    return out


@scatter_add.backward
def _(g, indices, layout):
    return getitem(g, *indices, layout=layout), *(None for _ in indices)


@op(raw=True, writes=("x",))
def write_item(xp: Any, x: Tensor, value: Tensor, *indices: Tensor, layout: Layout) -> Tensor:
    """`x[index] = value` in x's own memory; the result is that memory."""
    x[_join(layout, indices)] = value
    return x


@write_item.backward
def _(g, indices, layout, needs):
    first = second = None
    if needs[0]:
        first = erase_item(g, *indices, layout=layout)
    if needs[1]:
        second = getitem(g, *indices, layout=layout)
    return first, second, *(None for _ in indices)


write_item.explains(_index_error)


@op(raw=True)
def erase_item(xp: Any, x: Tensor, *indices: Tensor, layout: Layout) -> Tensor:
    """A copy with zeros at an index."""
    result = x.copy()
    result[_join(layout, indices)] = 0
    return result


@erase_item.backward
def _(g, indices, layout):
    return erase_item(g, *indices, layout=layout), *(None for _ in indices)


# -- along an axis -----------------------------------------------------------------------------


def _axis(name: str, axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise IndexRangeError(f"{name}: axis {axis} is out of range for {ndim} axes", axis=axis)
    return axis % ndim


def _grid(xp: Any, indices: Any, axis: int) -> tuple[Any, ...]:
    """An index that takes `indices` along an axis and every place along the others."""
    ndim = indices.ndim
    return tuple(
        indices
        if i == axis
        else xp.arange(n).reshape(tuple(-1 if i == j else 1 for j in range(ndim)))
        for i, n in enumerate(indices.shape)
    )


@spelled
def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
    """Elements or slices at `indices` along an axis, which may be left out where there is one.

    Raises:
        IndexRangeError: an index is outside the axis (on the CPU).
    """
    if axis is None:
        if x.ndim != 1:
            raise ShapeError(f"take: name the axis of a tensor of shape {tuple(x.shape)}: axis=0")
        axis = 0
    return x[(_EVERY,) * _axis("take", axis, x.ndim) + (indices,)]


@op(name="take_along_axis", raw=True)
def _take_along_axis(xp: Any, x: Tensor, indices: Tensor, *, axis: int) -> Tensor:
    order = memory_order(x)
    moved = xp.transpose(x, order)
    places = xp.ascontiguousarray(xp.transpose(indices, order))
    return xp.transpose(moved[_grid(xp, places, order.index(axis))], inverse_order(order))


@_take_along_axis.backward
def _(g, shapes, indices, axis):
    return scatter_along_axis(g, indices, axis=axis, length=shapes[0][axis]), None


_take_along_axis.explains(_index_error)


@op
def scatter_along_axis(
    xp: Any, values: Tensor, indices: Tensor, *, axis: int, length: int
) -> Tensor:
    """Zeros with `values` added at `indices` along an axis of this length."""
    shape = tuple(length if i == axis else n for i, n in enumerate(values.shape))
    result = xp.zeros_like(values, shape=shape)
    xp.add.at(result, _grid(xp, indices, axis), values)
    return result


@scatter_along_axis.kernel("cpu")
def _(values, indices, *, axis, length):
    if values.dtype.kind not in "fc":
        return NotImplemented
    order = memory_order(values)
    values, indices, axis = values.transpose(order), indices.transpose(order), order.index(axis)
    shape = tuple(length if i == axis else n for i, n in enumerate(values.shape))
    positive = np.where(indices < 0, indices + length, indices)
    # The places of the grid, as numbers in the flat result.
    places: Any = 0
    for n, part in zip(shape, _grid(np, positive, axis), strict=True):
        places = places * n + part
    out = _add_flat(places, values, math.prod(shape)).reshape(shape)
    return out.transpose(inverse_order(order))


@scatter_along_axis.backward
def _(g, indices, axis):
    return _take_along_axis(g, indices, axis=axis), None


@op(name="put_along_axis", raw=True)
def _put_along_axis(xp: Any, x: Tensor, indices: Tensor, values: Tensor, *, axis: int) -> Tensor:
    out = x.copy(order="K")
    out[_grid(xp, indices, axis)] = values
    return out


@_put_along_axis.backward
def _(g, indices, axis, needs):
    return (
        _put_along_axis(g, indices, 0, axis=axis) if needs[0] else None,
        None,
        _take_along_axis(g, indices, axis=axis) if needs[2] else None,
    )


_put_along_axis.explains(_index_error)


def _aligned(name: str, x: Tensor, indices: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """x and indices with one shape except along the axis."""
    if indices.ndim != x.ndim:
        raise ShapeError(
            f"{name}: x has {x.ndim} axes and indices {indices.ndim}; they must have as many.\n"
            f"Slices at a list of places: bt.take(x, indices, axis={axis})",
            x=tuple(x.shape),
            indices=tuple(indices.shape),
        )
    if indices.dtype.kind not in "iu":
        raise DtypeError(
            f"{name}: indices must be integers, got {indices.dtype}", got=str(indices.dtype)
        )
    rest = broadcast_shapes(
        *(tuple(1 if i == axis else n for i, n in enumerate(v.shape)) for v in (x, indices))
    )
    both = []
    for v in (x, indices):
        shape = tuple(v.shape[axis] if i == axis else n for i, n in enumerate(rest))
        both.append(v if v.shape == shape else broadcast_to(v, shape))
    return both[0], both[1]


@spelled
def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """`x[..., indices[..., k], ...]` for each place of the other axes.

    Shape: indices has as many axes as x; axes other than `axis` broadcast.
    """
    place = _axis("take_along_axis", axis, x.ndim)
    return _take_along_axis(*_aligned("take_along_axis", x, indices, place), axis=place)


@spelled
def put_along_axis(
    x: Tensor, indices: Tensor, values: Any, /, *, axis: int = -1, mode: str = "set"
) -> Tensor:
    """A copy of x with `values` at `indices` along an axis: the converse of `take_along_axis`.

    Args:
        values: a number, or a tensor that broadcasts to the shape of indices.
        mode: "set", where one of several values for a place wins, or "add", where they add up.
    """
    place = _axis("put_along_axis", axis, x.ndim)
    x, indices = _aligned("put_along_axis", x, indices, place)
    if hasattr(values, "dtype"):
        if values.dtype != x.dtype:
            values = astype(values, dtype=x.dtype)
        values = broadcast_to(values, indices.shape)
    if mode == "set":
        return _put_along_axis(x, indices, values, axis=place)
    if mode != "add":
        raise ConfigError(f"put_along_axis: mode is 'set' or 'add', got {mode!r}", got=mode)
    if not hasattr(values, "dtype"):
        values = zeros_of(x, shape=tuple(indices.shape)) + values
    return add(x, scatter_along_axis(values, indices, axis=place, length=x.shape[place]))

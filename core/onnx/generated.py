"""Arrays that a network makes anew for every length: counted places and their
differences, triangles, parts of tables.

Only arrays that are understood are written, since the file must make them for lengths that were
not recorded. One that depends on the values of the inputs is no such array, and is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph.record import Ref
from .builder import Builder


def emit_made(b: Builder, ref: Ref) -> str:
    """Nodes that make an array for any lengths; returns its name."""
    arrays = b.trace.made[ref.index]
    shape = b.shape(ref)
    for attempt in (_filled, _table, _counted, _triangle, _sloped):
        found = attempt(b, arrays, shape)
        if found is not None:
            return found
    raise b.refused(
        f"an array of shape {arrays[0].shape} that is computed outside of the recorded operations "
        "and depends on the values or lengths of the inputs"
    )


def _filled(b: Builder, arrays: list[Any], shape: Any) -> str | None:
    """One number everywhere."""
    if any(a.size == 0 for a in arrays):
        return None
    value = arrays[0].flat[0]
    if any((a != value).any() for a in arrays):
        return None
    return b.add("Expand", b.const(np.asarray(value)), b.ints(shape))  # type: ignore[no-any-return]


def _table(b: Builder, arrays: list[Any], shape: Any) -> str | None:
    """The first rows of a table that is there whole."""
    base = arrays[0].base
    if type(base) is not np.ndarray or arrays[0].ndim == 0:
        return None
    for a in arrays:
        if (
            a.base is not base
            or base.ndim != a.ndim
            or base.shape[1:] != a.shape[1:]
            or base.strides != a.strides
            or base.__array_interface__["data"] != a.__array_interface__["data"]
        ):
            return None
    ends = b.ints([shape[0]])
    return b.add("Slice", b.const(base), b.const(np.array([0])), ends, b.const(np.array([0])))  # type: ignore[no-any-return]


def _counted(b: Builder, arrays: list[Any], shape: Any) -> str | None:
    """start, start + 1, ... along one axis, the same along the others."""
    if arrays[0].dtype.kind not in "iuf":
        return None
    for axis, n in enumerate(shape):
        lines = [np.moveaxis(a, axis, -1).reshape(-1, a.shape[axis]) for a in arrays]
        if any(line.shape[1] < 2 for line in lines):
            continue
        start, step = lines[0][0, 0], lines[0][0, 1] - lines[0][0, 0]
        if all((x == start + step * np.arange(x.shape[1])).all() for x in lines):
            count = b.add("Range", b.number(0), b.number(n), b.number(1))
            row = b.cast(count, np.int64, arrays[0].dtype)
            if step != 1:
                row = b.add("Mul", row, b.const(np.asarray(step, arrays[0].dtype)))
            if start != 0:
                row = b.add("Add", row, b.const(np.asarray(start, arrays[0].dtype)))
            if len(shape) == 1:
                return row
            sides = [1] * len(shape)
            sides[axis] = -1
            row = b.add("Reshape", row, b.ints(sides))
            return b.add("Expand", row, b.ints(shape))  # type: ignore[no-any-return]
    return None


def _triangle(b: Builder, arrays: list[Any], shape: Any) -> str | None:
    """True or 1 where column - row is at most some number, in the last two axes."""
    if len(shape) < 2 or arrays[0].dtype.kind not in "biuf":
        return None
    dtype = arrays[0].dtype
    k = int(np.count_nonzero(arrays[0][(0,) * (len(shape) - 2)][0])) - 1
    for a in arrays:
        if (a != np.tri(a.shape[-2], a.shape[-1], k, dtype=dtype)).any():
            return None
    rows = b.add("Range", b.number(0), b.number(shape[-2]), b.number(1))
    columns = b.add("Range", b.number(0), b.number(shape[-1]), b.number(1))
    rows = b.add("Unsqueeze", rows, b.const(np.array([1])))
    if k:
        rows = b.add("Add", rows, b.const(np.asarray(k)))
    seen = b.cast(b.add("LessOrEqual", columns, rows), np.bool_, dtype)
    return seen if len(shape) == 2 else b.add("Expand", seen, b.ints(shape))


def _sloped(b: Builder, arrays: list[Any], shape: Any) -> str | None:
    """start + i * row + j * column in the last two axes, such as distances between places."""
    if len(shape) < 2 or arrays[0].dtype.kind not in "iu":
        return None
    if any(min(a.shape[-2:]) < 2 or 0 in a.shape for a in arrays):
        return None
    corner = arrays[0][(0,) * (len(shape) - 2)]
    start = int(corner[0, 0])
    down, right = int(corner[1, 0]) - start, int(corner[0, 1]) - start
    for a in arrays:
        rows, columns = (np.arange(n) for n in a.shape[-2:])
        if (a != start + down * rows[:, None] + right * columns).any():
            return None
    sides = []
    for n, step in ((shape[-2], down), (shape[-1], right)):
        places = b.add("Range", b.number(0), b.number(n), b.number(1))
        sides.append(b.add("Mul", places, b.const(np.asarray(step))))
    rows = b.add("Unsqueeze", sides[0], b.const(np.array([1])))
    found = b.add("Add", b.add("Add", rows, sides[1]), b.const(np.asarray(start)))
    found = b.cast(found, np.int64, arrays[0].dtype)
    return found if len(shape) == 2 else b.add("Expand", found, b.ints(shape))

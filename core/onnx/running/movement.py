"""Operators that move elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...tensor import Tensor
from . import api as A
from . import operator


def numbers(x: Any) -> list[int]:
    """The elements of a tensor of whole numbers."""
    return [int(n) for n in x.array.reshape(-1)]


@operator("Reshape")
def _reshape(c: Any, x: Tensor, shape: Tensor | None = None) -> Any:
    wanted = list(c.get("shape")) if shape is None else numbers(shape)
    if not c.get("allowzero", 0):
        wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    return A.reshape(x, tuple(wanted))


@operator("Flatten")
def _flatten(c: Any, x: Tensor) -> Any:
    axis = c.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return A.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@operator("Transpose")
def _transpose(c: Any, x: Tensor) -> Any:
    return A.permute_dims(x, tuple(c.get("perm", range(x.ndim)[::-1])))


@operator("Squeeze")
def _squeeze(c: Any, x: Tensor, axes: Tensor | None = None) -> Any:
    given = c.get("axes") if axes is None else numbers(axes)
    if given is None:
        given = [i for i, n in enumerate(x.shape) if n == 1]
    return A.squeeze(x, tuple(a % x.ndim for a in given))


@operator("Unsqueeze")
def _unsqueeze(c: Any, x: Tensor, axes: Tensor | None = None) -> Any:
    given = c.get("axes") if axes is None else numbers(axes)
    ndim = x.ndim + len(given)
    shape, rest = [], iter(x.shape)
    places = {a % ndim for a in given}
    for i in range(ndim):
        shape.append(1 if i in places else next(rest))
    return A.reshape(x, tuple(shape))


@operator("Concat")
def _concat(c: Any, *xs: Tensor) -> Any:
    return A.concat(list(xs), axis=c.get("axis", 1))


@operator("Split")
def _split(c: Any, x: Tensor, sizes: Tensor | None = None) -> Any:
    axis = c.get("axis", 0) % x.ndim
    given = c.get("split") if sizes is None else numbers(sizes)
    if given is None:
        count = c.get("num_outputs", c.outputs)
        step = -(-x.shape[axis] // count)
        given = [min(step, max(x.shape[axis] - i * step, 0)) for i in range(count)]
    out, start = [], 0
    for n in given:
        part: list[Any] = [slice(None)] * x.ndim
        part[axis] = slice(start, start + n)
        out.append(x[tuple(part)])
        start += n
    return tuple(out)


@operator("Expand")
def _expand(c: Any, x: Tensor, shape: Tensor) -> Any:
    return A.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(numbers(shape))))


@operator("Tile")
def _tile(c: Any, x: Tensor, counts: Tensor) -> Any:
    return A.tile(x, tuple(numbers(counts)))


@operator("Slice")
def _slice(
    c: Any, x: Tensor, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None
) -> Any:
    first = c.get("starts") if starts is None else numbers(starts)
    last = c.get("ends") if ends is None else numbers(ends)
    where = c.get("axes") if axes is None else numbers(axes)
    step = [1] * len(first) if steps is None else numbers(steps)
    part: list[Any] = [slice(None)] * x.ndim
    for i, a in enumerate(range(len(first)) if where is None else where):
        n, s, e = x.shape[a], first[i], last[i]
        s, e = (s + n if s < 0 else s), (e + n if e < 0 else e)
        if step[i] > 0:
            part[a] = slice(min(max(s, 0), n), min(max(e, 0), n), step[i])
        else:
            s, e = min(max(s, 0), n - 1), min(max(e, -1), n - 1)
            part[a] = slice(s, None if e < 0 else e, step[i])
    return x[tuple(part)]


@operator("Gather")
def _gather(c: Any, x: Tensor, indices: Tensor) -> Any:
    axis = c.get("axis", 0) % x.ndim
    return x[(*[slice(None)] * axis, _from_end(indices, x.shape[axis]))]


def _from_end(indices: Tensor, n: int) -> Tensor:
    i = A.astype(indices, dtype=np.dtype(np.int64))
    return A.where(A.less(i, 0), A.add(i, n), i)


@operator("GatherElements")
def _gather_elements(c: Any, x: Tensor, indices: Tensor) -> Any:
    axis = c.get("axis", 0) % x.ndim
    i = _from_end(indices, x.shape[axis])
    part = tuple(slice(0, n) if a != axis else slice(None) for a, n in enumerate(i.shape))
    return A.take_along_axis(x[part], i, axis=axis)


@operator("GatherND")
def _gather_nd(c: Any, x: Tensor, indices: Tensor) -> Any:
    batch, i = c.get("batch_dims", 0), A.astype(indices, dtype=np.dtype(np.int64))
    lead = []
    for a in range(batch):
        shape = [1] * (i.ndim - 1)
        shape[a] = -1
        lead.append(A.reshape(A.arange(x.shape[a]), tuple(shape)))
    parts = [_from_end(i[..., k], x.shape[batch + k]) for k in range(i.shape[-1])]
    return x[(*lead, *parts)]


@operator("Pad")
def _pad(c: Any, x: Tensor, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    given = c.get("pads") if pads is None else numbers(pads)
    where = list(range(x.ndim)) if axes is None else [a % x.ndim for a in numbers(axes)]
    widths = [(0, 0)] * x.ndim
    for i, a in enumerate(where):
        widths[a] = (given[i], given[i + len(where)])
    mode = c.get("mode", "constant")
    number = c.get("value", 0.0) if value is None else value.array.item()
    options: Any = {"constant_values": x.dtype.type(number)} if mode == "constant" else {}
    if any(n < 0 for pair in widths for n in pair):
        cut = tuple(
            slice(max(-lo, 0), n - max(-hi, 0)) for n, (lo, hi) in zip(x.shape, widths, strict=True)
        )
        x, widths = x[cut], [(max(lo, 0), max(hi, 0)) for lo, hi in widths]
    return Tensor(np.pad(x.array, widths, mode=mode, **options))


@operator("ConstantOfShape")
def _constant_of_shape(c: Any, shape: Tensor) -> Any:
    value = c.get("value")
    fill = np.zeros(1, np.float32) if value is None else value.reshape(-1)
    c.check_size(numbers(shape), fill.dtype)
    return Tensor(np.full(tuple(numbers(shape)), fill[0], fill.dtype))


@operator("Range")
def _range(c: Any, start: Tensor, limit: Tensor, delta: Tensor) -> Any:
    a, b, d = (x.array.item() for x in (start, limit, delta))
    count = max(math.ceil((b - a) / d), 0)
    c.check_size([count], start.dtype)
    return Tensor((a + np.arange(count) * d).astype(start.dtype))


@operator("Trilu")
def _trilu(c: Any, x: Tensor, k: Tensor | None = None) -> Any:
    at = 0 if k is None else int(k.array.item())
    return (A.triu if c.get("upper", 1) else A.tril)(x, k=at)


@operator("DepthToSpace")
def _depth_to_space(c: Any, x: Tensor) -> Any:
    b, ch, h, w = x.shape
    n = c.get("blocksize")
    if c.get("mode", "DCR") == "DCR":
        y = A.permute_dims(A.reshape(x, (b, n, n, ch // n**2, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        y = A.permute_dims(A.reshape(x, (b, ch // n**2, n, n, h, w)), (0, 1, 4, 2, 5, 3))
    return A.reshape(y, (b, ch // n**2, h * n, w * n))


@operator("SpaceToDepth")
def _space_to_depth(c: Any, x: Tensor) -> Any:
    b, ch, h, w = x.shape
    n = c.get("blocksize")
    order = (0, 3, 5, 1, 2, 4) if c.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    y = A.permute_dims(A.reshape(x, (b, ch, h // n, n, w // n, n)), order)
    return A.reshape(y, (b, ch * n * n, h // n, w // n))


@operator("NonZero")
def _nonzero(c: Any, x: Tensor) -> Any:
    return A.stack([A.astype(i, dtype=np.dtype(np.int64)) for i in A.nonzero(x)])


@operator("EyeLike")
def _eye(c: Any, x: Tensor) -> Any:
    dtype = x.dtype if c.get("dtype") is None else c.dtype_of(c.get("dtype"))
    return Tensor(np.eye(x.shape[0], x.shape[1], k=c.get("k", 0), dtype=dtype))


@operator("Compress")
def _compress(c: Any, x: Tensor, condition: Tensor) -> Any:
    axis, test = c.get("axis"), condition.array.astype(bool)
    if axis is None:
        x, axis = A.reshape(x, (-1,)), 0
    return A.take(x, Tensor(np.flatnonzero(test)), axis=axis % x.ndim)


@operator("OneHot")
def _one_hot(c: Any, ids: Tensor, depth: Tensor, values: Tensor) -> Any:
    n, axis = int(depth.array.reshape(-1)[0]), c.get("axis", -1)
    at = axis % (ids.ndim + 1)
    i = np.expand_dims(ids.array.astype(np.int64), at)
    shape = [1] * (ids.ndim + 1)
    shape[at] = n
    c.check_size([*ids.shape, n], values.dtype)
    same = np.where(i < 0, i + n, i) == np.arange(n).reshape(shape)
    return A.where(Tensor(same), values[1], values[0])


@operator("ScatterElements", "Scatter")
def _scatter_elements(c: Any, x: Tensor, indices: Tensor, updates: Tensor) -> Any:
    axis, how = c.get("axis", 0) % x.ndim, c.get("reduction", "none")
    out = x.array.copy()
    i = _from_end(indices, x.shape[axis]).array
    grid = list(np.indices(i.shape))
    grid[axis] = i
    _write(out, tuple(grid), updates.array, how)
    return Tensor(out)


_HOW = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _write(out: Any, where: Any, values: Any, how: str) -> None:
    if how == "none":
        out[where] = values
    else:
        _HOW[how].at(out, where, values)


@operator("ScatterND")
def _scatter_nd(c: Any, x: Tensor, indices: Tensor, updates: Tensor) -> Any:
    out, i = x.array.copy(), indices.array
    where = tuple(_from_end(Tensor(i[..., k]), x.shape[k]).array for k in range(i.shape[-1]))
    _write(out, where, updates.array, c.get("reduction", "none"))
    return Tensor(out)


@operator("ReverseSequence")
def _reverse_sequence(c: Any, x: Tensor, lengths: Tensor) -> Any:
    time, batch = c.get("time_axis", 0), c.get("batch_axis", 1)
    n = lengths.array.reshape(-1, 1)
    places = np.arange(x.shape[time])[None]
    order = np.where(places < n, n - 1 - places, places)  # (B, T)
    shape = [1] * x.ndim
    shape[batch], shape[time] = order.shape
    order = (order if batch < time else order.T).reshape(shape)
    return A.take_along_axis(x, Tensor(np.broadcast_to(order, x.shape).copy()), axis=time)


@operator("GridSample")
def _grid_sample(c: Any, x: Tensor, grid: Tensor) -> Any:
    mode = {"bilinear": "linear"}.get(c.get("mode", "linear"), c.get("mode", "linear"))
    if mode not in ("linear", "nearest") or x.ndim != 4:
        raise c.refused(f"the mode {mode!r} over {x.ndim - 2} axes")
    return A.F.grid_sample(
        x,
        grid,
        "bilinear" if mode == "linear" else mode,
        c.get("padding_mode", "zeros"),
        bool(c.get("align_corners", 0)),
    )

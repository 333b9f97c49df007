"""Pooling over (B, C, H, W) and its gradients, in either memory layout; see pooling.py.

Windows are walked element by element of the kernel, each a strided view of the whole image, so
that nothing is gathered; positions outside the image are left out, not filled in.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..op import op
from .conv import Pair, kernel_reach
from .normalization import channel_rows

if TYPE_CHECKING:
    from ..tensor import Tensor


def _window(
    shape: Any, out: Any, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> list[tuple[Any, Any]]:
    """For each element of the kernel, the index of the outputs and that of the inputs."""
    every = slice(None)
    places = []
    for i in range(kernel[0]):
        to_rows, rows = kernel_reach(shape[2], out[0], i * dilation[0] - padding[0], stride[0])
        for j in range(kernel[1]):
            to, place = kernel_reach(shape[3], out[1], j * dilation[1] - padding[1], stride[1])
            places.append(((every, every, to_rows, to), (every, every, rows, place)))
    return places


def _like(xp: Any, x: Any, size: Pair, fill: Any) -> Any:
    """A new array of x's channels and memory layout."""
    b, c = x.shape[:2]
    if channel_rows(x) is not None:
        return xp.full((b, *size, c), fill, x.dtype).transpose(0, 3, 1, 2)
    return xp.full((b, c, *size), fill, x.dtype)


# -- maximum -----------------------------------------------------------------------------------


@op(name="max_pool2d")
def _max_pool2d(
    xp: Any, x: Tensor, *, size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    lowest = -math.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    out = _like(xp, x, size, lowest)
    for to, place in _window(x.shape, size, kernel, stride, padding, dilation):
        xp.maximum(out[to], x[place], out=out[to])
    return out


@_max_pool2d.backward
def _(g, x, out, kernel, stride, padding, dilation):
    return max_unpool(g, x, out, kernel=kernel, stride=stride, padding=padding, dilation=dilation)


def _first_hits(xp: Any, x: Any, largest: Any, places: Any) -> Any:
    """For each element of the kernel, where it is the first that equals the maximum."""
    open_ = xp.ones_like(largest, dtype=bool)
    for to, place in places:
        hit = x[place] == largest[to]
        hit &= open_[to]
        open_[to] ^= hit
        yield to, place, hit


@op
def max_unpool(
    xp: Any,
    values: Tensor,
    x: Tensor,
    largest: Tensor,
    *,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Tensor:
    """Values given to the place in each window that held the maximum; the first of equal ones."""
    out = xp.zeros_like(x, dtype=values.dtype)
    places = _window(x.shape, largest.shape[2:], kernel, stride, padding, dilation)
    for to, place, hit in _first_hits(xp, x, largest, places):
        out[place] += values[to] * hit
    return out


@max_unpool.backward
def _(g, x, largest, kernel, stride, padding, dilation):
    options = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    return max_pick(g, x, largest, **options), None, None


@op
def max_pick(
    xp: Any,
    values: Tensor,
    x: Tensor,
    largest: Tensor,
    *,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Tensor:
    """The values at the place in each window that holds the maximum of x."""
    out = xp.zeros_like(largest, dtype=values.dtype)
    places = _window(x.shape, largest.shape[2:], kernel, stride, padding, dilation)
    for to, place, hit in _first_hits(xp, x, largest, places):
        out[to] += values[place] * hit
    return out


@max_pick.backward
def _(g, x, largest, kernel, stride, padding, dilation):
    options = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    return max_unpool(g, x, largest, **options), None, None


# -- average -----------------------------------------------------------------------------------


def _counts(
    n: int, length: int, kernel: int, stride: int, padding: int, include_pad: bool
) -> list[int]:
    """How many positions each window counts along one axis."""
    counts = []
    for i in range(length):
        start = i * stride - padding
        stop = min(start + kernel, n + padding)
        counts.append(stop - start if include_pad else min(stop, n) - max(start, 0))
    return counts


def _divisor(
    xp: Any,
    dtype: Any,
    shape: Any,
    size: Pair,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    include_pad: bool,
) -> Any:
    rows, columns = (
        _counts(shape[2 + i], size[i], kernel[i], stride[i], padding[i], include_pad)
        for i in (0, 1)
    )
    if len(set(rows)) == len(set(columns)) == 1:
        return 1.0 / (rows[0] * columns[0])
    counts = xp.asarray(rows, dtype)[:, None] * xp.asarray(columns, dtype)
    return 1 / counts


@op(name="avg_pool2d", to_float=True, wide=True)
def _avg_pool2d(
    xp: Any, x: Tensor, *, size: Pair, kernel: Pair, stride: Pair, padding: Pair, include_pad: bool
) -> Tensor:
    out = _like(xp, x, size, 0)
    for to, place in _window(x.shape, size, kernel, stride, padding, (1, 1)):
        out[to] += x[place]
    out *= _divisor(xp, x.dtype, x.shape, size, kernel, stride, padding, include_pad)
    return out


@_avg_pool2d.backward
def _(g, shapes, kernel, stride, padding, include_pad):
    return avg_unpool(
        g,
        shape=shapes[0],
        kernel=kernel,
        stride=stride,
        padding=padding,
        include_pad=include_pad,
    )


@op(wide=True)
def avg_unpool(
    xp: Any,
    values: Tensor,
    *,
    shape: tuple[int, ...],
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    include_pad: bool,
) -> Tensor:
    """Values divided by the size of their window and given to every place in it."""
    size = values.shape[2], values.shape[3]
    share = values * _divisor(xp, values.dtype, shape, size, kernel, stride, padding, include_pad)
    out = _like(xp, values, (shape[2], shape[3]), 0)
    for to, place in _window(shape, size, kernel, stride, padding, (1, 1)):
        out[place] += share[to]
    return out


@avg_unpool.backward
def _(g, shapes, kernel, stride, padding, include_pad):
    return _avg_pool2d(
        g,
        size=shapes[0][2:],
        kernel=kernel,
        stride=stride,
        padding=padding,
        include_pad=include_pad,
    )


@op(to_float=True, wide=True)
def global_avg_pool(xp: Any, x: Tensor) -> Tensor:
    """The mean over space of each channel: (B, C, ...) gives (B, C)."""
    b, c = x.shape[:2]
    rows = channel_rows(x)
    count = x.size // (b * c) if x.size else 1
    if xp is np and rows is not None and count > 1:
        # Channels last: a product with ones is several times faster than a sum over outer axes.
        ones = np.full((1, count), 1.0 / count, x.dtype)
        return (ones @ rows.reshape(b, count, c))[:, 0]
    return x.mean(tuple(range(2, x.ndim)))


@global_avg_pool.backward
def _(g, shapes):
    return global_avg_unpool(g, size=tuple(shapes[0][2:]))


@op(wide=True)
def global_avg_unpool(xp: Any, values: Tensor, *, size: tuple[int, ...]) -> Tensor:
    """Values (B, C) divided by the number of pixels and given to each of them."""
    b, c = values.shape
    out = xp.empty((b, *size, c), values.dtype)
    share: Any = values * (1 / max(math.prod(size), 1))
    out[...] = share.reshape(b, *(1 for _ in size), c)
    return out.transpose(0, len(size) + 1, *range(1, len(size) + 1))


@global_avg_unpool.backward
def _(g):
    return global_avg_pool(g)

"""Resampling along axes: interpolation and averaging; pixels made of channels and back.

What is linear and separable is one primitive: each output is a weighted sum of a few inputs
along one axis, `taps`. Its transpose is the same primitive with the transposed taps, which
makes it differentiable to any order.
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ShapeError
from ..op import op
from .shape import inverse_order, memory_order, permute_dims, reshape

if TYPE_CHECKING:
    from ..tensor import Tensor


class Taps:
    """A sparse linear map along an axis: output `o` is the sum of `weight[t, o] * x[index[t, o]]`.

    Args:
        size: the length of the input.
        index: positions in the input (T, outputs).
        weight: their weights (T, outputs), in float64.
    """

    def __init__(self, size: int, index: NDArray[np.int64], weight: NDArray[np.float64]) -> None:
        self.size = size
        self.index = index
        self.weight = weight
        self.plain = bool((weight == 1).all())

    def __repr__(self) -> str:
        return f"Taps({self.size} to {self.index.shape[1]}, {len(self.index)} each)"

    @cached_property
    def transposed(self) -> Taps:
        """The transposed map."""
        taps, outputs = self.index.shape
        used = self.weight.reshape(-1) != 0
        inputs = self.index.reshape(-1)[used]
        order = np.argsort(inputs, kind="stable")
        counts = np.bincount(inputs, minlength=self.size)
        most = int(counts.max(initial=1))
        index = np.zeros((self.size, most), np.int64)
        weight = np.zeros((self.size, most))
        # The how-manieth use of its input each one is.
        rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        places = inputs[order], rank
        index[places] = np.tile(np.arange(outputs), taps)[used][order]
        weight[places] = self.weight.reshape(-1)[used][order]
        back = Taps(outputs, np.ascontiguousarray(index.T), np.ascontiguousarray(weight.T))
        back.__dict__["transposed"] = self
        return back


@op(name="resample", to_float=True)
def _resample(xp: Any, x: Tensor, *, taps: Taps, axis: int, order: tuple[int, ...]) -> Tensor:
    source: Any = x.transpose(order)
    place = order.index(axis)
    shape = [1] * x.ndim
    shape[place] = -1
    out: Any = None
    for index, weight in zip(taps.index, taps.weight, strict=True):
        part = xp.take(source, xp.asarray(index), axis=place)
        if not taps.plain:
            part *= xp.asarray(weight.astype(x.dtype)).reshape(shape)
        if out is None:
            out = part
        else:
            out += part
    return out.transpose(inverse_order(order))


@_resample.backward
def _(g, taps, axis, order):
    return _resample(g, taps=taps.transposed, axis=axis, order=order)


def resample(x: Tensor, *, taps: Taps, axis: int) -> Tensor:
    """Apply taps along an axis; the memory layout is kept."""
    array = x.array
    order = memory_order(array)
    return _resample(x, taps=taps, axis=axis, order=order)


# -- tables ------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def averaging_taps(n: int, out: int) -> Taps:
    """Means of `out` windows that divide `n` values; neighbours overlap where it must be."""
    starts = [i * n // out for i in range(out)]
    stops = [-(-(i + 1) * n // out) for i in range(out)]
    most = max(b - a for a, b in zip(starts, stops, strict=True))
    index = np.zeros((most, out), np.int64)
    weight = np.zeros((most, out))
    for i, (a, b) in enumerate(zip(starts, stops, strict=True)):
        index[: b - a, i] = range(a, b)
        weight[: b - a, i] = 1 / (b - a)
    return Taps(n, index, weight)


@lru_cache(maxsize=256)
def _interpolation_taps(n: int, out: int, mode: str, align: bool, ratio: float) -> Taps:
    """Taps of one axis; `ratio` is the step in the input for one in the output."""
    o = np.arange(out)
    if mode in ("nearest", "nearest-exact"):
        # In float32, as PyTorch computes it, so that the same pixel is chosen.
        shift = 0.5 if mode == "nearest-exact" else 0.0
        place = (o + np.float32(shift)).astype(np.float32) * np.float32(ratio)
        index = np.minimum(place.astype(np.int64), n - 1)
        return Taps(n, index[None], np.ones((1, out)))
    if align:
        place = o * ((n - 1) / (out - 1) if out > 1 else 0.0)
    else:
        place = (o + 0.5) * ratio - 0.5
    if mode == "linear":
        place = np.maximum(place, 0)
        first = np.minimum(place.astype(np.int64), n - 1)
        part = place - first
        index = np.stack([first, np.minimum(first + 1, n - 1)])
        return Taps(n, index, np.stack([1 - part, part]))
    first = np.floor(place).astype(np.int64)
    part = place - first
    index = np.clip(np.stack([first + k for k in (-1, 0, 1, 2)]), 0, n - 1)
    weights = [_cubic(d) for d in (part + 1, part, 1 - part, 2 - part)]
    return Taps(n, index, np.stack(weights))


def _cubic(d: Any) -> Any:
    """The cubic convolution kernel with a = -0.75. Source: Keys 1981."""
    a = -0.75
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, far)


_MODES = {
    "nearest": ("nearest", (3, 4)),
    "nearest-exact": ("nearest-exact", (3, 4)),
    "linear": ("linear", (3,)),
    "bilinear": ("linear", (4,)),
    "bicubic": ("cubic", (4,)),
    "area": ("area", (3, 4)),
}


def interpolate(
    x: Tensor,
    size: int | tuple[int, ...] | None = None,
    scale_factor: float | tuple[float, ...] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool = False,
) -> Tensor:
    """Resize images or sequences.

    Args:
        size: the new size of the space axes; or
        scale_factor: by how much they grow.
        mode: "nearest", "nearest-exact", "linear" (sequences), "bilinear", "bicubic", "area".
        align_corners: the outermost values keep their places (the linear and cubic modes).
        recompute_scale_factor: compute positions from the sizes, not from `scale_factor`.

    Shape: x (B, C, H, W) or (B, C, L).
    Raises:
        ConfigError: an unknown mode, or both of size and scale_factor, or neither.
    """
    space = x.ndim - 2
    if mode not in _MODES or x.ndim not in _MODES[mode][1]:
        raise ConfigError(
            f"interpolate: there is no mode {mode!r} for shape {tuple(x.shape)}.\n"
            f"Modes: {', '.join(m for m, (_, n) in _MODES.items() if x.ndim in n) or 'none'}."
        )
    kind = _MODES[mode][0]
    if align_corners is not None and kind not in ("linear", "cubic"):
        raise ConfigError(f"interpolate: align_corners means nothing for mode {mode!r}")
    if (size is None) == (scale_factor is None):
        raise ConfigError("interpolate: give either size or scale_factor")
    ratios: list[float | None] = [None] * space
    if size is not None:
        sizes = (size,) * space if isinstance(size, int) else tuple(size)
    else:
        factors = (
            (scale_factor,) * space
            if isinstance(scale_factor, (int, float))
            else tuple(scale_factor or ())
        )
        sizes = tuple(math.floor(n * f) for n, f in zip(x.shape[2:], factors, strict=True))
        if not recompute_scale_factor:
            ratios = [1 / f for f in factors]
    if len(sizes) != space or min(sizes) < 1:
        raise ShapeError(
            f"interpolate: {tuple(x.shape)} cannot be resized to {sizes}.", got=tuple(sizes)
        )
    for axis, (n, ratio) in enumerate(zip(sizes, ratios, strict=True), start=2):
        length = x.shape[axis]
        if kind == "area":
            if n != length:
                x = resample(x, taps=averaging_taps(length, n), axis=axis)
            continue
        step = length / n if ratio is None else ratio
        if n != length or step != 1:
            taps = _interpolation_taps(length, n, kind, bool(align_corners), step)
            x = resample(x, taps=taps, axis=axis)
    return x


def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """Channels become pixels: (B, C * r * r, H, W) gives (B, C, H * r, W * r)."""
    b, c, h, w = x.shape
    r = upscale_factor
    if c % (r * r):
        raise ShapeError(
            f"pixel_shuffle: {c} channels are not divisible by {r} * {r}.", expected=r * r, got=c
        )
    parts = permute_dims(reshape(x, (b, c // (r * r), r, r, h, w)), (0, 1, 4, 2, 5, 3))
    return reshape(parts, (b, c // (r * r), h * r, w * r))


def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    """Pixels become channels: the inverse of `pixel_shuffle`."""
    b, c, h, w = x.shape
    r = downscale_factor
    if h % r or w % r:
        raise ShapeError(
            f"pixel_unshuffle: {h} x {w} pixels are not divisible by {r}.", expected=r, got=(h, w)
        )
    parts = permute_dims(reshape(x, (b, c, h // r, r, w // r, r)), (0, 1, 3, 5, 2, 4))
    return reshape(parts, (b, c * r * r, h // r, w // r))

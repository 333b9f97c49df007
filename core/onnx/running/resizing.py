"""Resize, and transposed convolution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...ops.convolution import conv_transpose2d
from ...ops.resampling import Taps, resample
from ...tensor import Tensor
from . import api as A
from . import operator
from .movement import numbers


@operator("Resize")
def _resize(c: Any, x: Tensor, roi: Any = None, scales: Any = None, sizes: Any = None) -> Tensor:
    if c.opset < 11:  # scales are the second input, and there are no options
        return _resized(c, x, roi, None, None)
    return _resized(c, x, scales, sizes, roi)


@operator("Upsample")
def _upsample(c: Any, x: Tensor, scales: Tensor | None = None) -> Tensor:
    given = scales if scales is not None else Tensor(np.asarray(c.get("scales"), np.float32))
    return _resized(c, x, given, None, None)


def _resized(c: Any, x: Tensor, scales: Any, sizes: Any, roi: Any) -> Tensor:
    axes = [a % x.ndim for a in c.get("axes", range(x.ndim))]
    lengths = [x.shape[a] for a in axes]
    if sizes is not None and sizes.size:
        wanted = numbers(sizes)
        factors = [n / m for n, m in zip(wanted, lengths, strict=True)]
        policy = c.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            factor = (min if policy == "not_larger" else max)(factors)
            factors = [factor] * len(axes)
            wanted = [math.floor(factor * n + 0.5) for n in lengths]
    elif scales is not None and scales.size:
        factors = [float(s) for s in scales.array]
        if not all(0 < s < 1e9 for s in factors):
            raise c.refused(f"resizing by {tuple(factors)}")
        wanted = [math.floor(n * s) for n, s in zip(lengths, factors, strict=True)]
    else:
        raise c.refused("neither scales nor sizes")
    if len(wanted) != len(axes) or any(n < 1 for n in (*wanted, *lengths)):
        raise c.refused(f"resizing {tuple(x.shape)} to {tuple(wanted)} along {tuple(axes)}")
    whole = dict(zip(axes, wanted, strict=True))
    c.check_size([whole.get(a, n) for a, n in enumerate(x.shape)], x.dtype)
    shape = list(x.shape)
    for i, (a, n) in enumerate(zip(axes, wanted, strict=True)):
        shape[a] = n
        c.check_size(shape, x.dtype)  # on the way it may be larger than at the end
        part = (0.0, 1.0)
        if roi is not None and roi.size:
            part = (float(roi.array[i]), float(roi.array[len(axes) + i]))
        x = _along(c, x, a, n, factors[i], part)
    return x


def _along(c: Any, x: Tensor, axis: int, n: int, scale: float, roi: tuple[float, float]) -> Tensor:
    """One axis brought to `n` elements."""
    length = x.shape[axis]
    old = c.opset < 11
    how = "asymmetric" if old else c.get("coordinate_transformation_mode", "half_pixel")
    crop = how == "tf_crop_and_resize"
    if n == length and scale == 1 and not crop:
        return x
    place = _places(c, how, length, n, scale, roi)
    if c.get("mode", "nearest") == "nearest":
        rounding = "floor" if old else c.get("nearest_mode", "round_prefer_floor")
        kinds: dict[str, Any] = {
            "round_prefer_floor": lambda p: np.ceil(p - 0.5),
            "round_prefer_ceil": lambda p: np.floor(p + 0.5),
            "floor": np.floor,
            "ceil": np.ceil,
        }
        near = kinds[rounding](place)
        out = A.take(x, Tensor(np.clip(near, 0, length - 1).astype(np.int64)), axis=axis)
    else:
        out = A.astype(resample(x, taps=_taps(c, length, place, scale), axis=axis), dtype=x.dtype)
    outside = (place < 0) | (place > length - 1)
    if crop and outside.any():
        sides = [1] * x.ndim
        sides[axis] = -1
        value = c.get("extrapolation_value", 0.0)
        out = A.where(Tensor(outside.reshape(sides)), Tensor(x.dtype.type(value)), out)
    return out


def _places(c: Any, how: str, length: int, n: int, scale: float, roi: tuple[float, float]) -> Any:
    """Where each element of the result lies in the source."""
    o, width = np.arange(n, dtype=np.float64), scale * length
    if how == "half_pixel" or (how == "pytorch_half_pixel" and n > 1):
        return (o + 0.5) / scale - 0.5
    if how == "pytorch_half_pixel":
        return np.full(1, -0.5)
    if how == "half_pixel_symmetric":
        return length / 2 * (1 - n / width) + (o + 0.5) / scale - 0.5
    if how == "tf_half_pixel_for_nn":
        return (o + 0.5) / scale
    if how == "asymmetric":
        return o / scale
    if how == "align_corners":
        return o * ((length - 1) / (width - 1)) if n > 1 else np.zeros(1)
    if how == "tf_crop_and_resize":
        start, end = roi
        inner = o * ((end - start) / (width - 1)) if n > 1 else np.full(1, (end - start) / 2)
        return (start + inner) * (length - 1)
    raise c.refused(f"the coordinates {how!r}")


def _taps(c: Any, length: int, place: Any, scale: float) -> Taps:
    """Weights of the elements around each place; shrinking may widen what is seen of them."""
    cubic = c.get("mode") == "cubic"
    if not cubic and c.get("mode") != "linear":
        raise c.refused(f"the mode {c.get('mode')!r}")
    s = min(scale, 1.0) if c.get("antialias", 0) else 1.0
    first = math.floor(-(2 if cubic else 1) / s) + 1
    step = np.arange(first, 2 - first)[:, None]
    index = np.floor(place).astype(np.int64)[None] + step
    away = np.abs((index - place) * s)
    if cubic:
        a = c.get("cubic_coeff_a", -0.75)
        near = ((a + 2) * away - (a + 3)) * away * away + 1
        far = ((a * away - 5 * a) * away + 8 * a) * away - 4 * a
        weight = np.where(away <= 1, near, np.where(away < 2, far, 0.0))
    else:
        weight = np.maximum(1 - away, 0.0)
    if c.get("exclude_outside", 0):
        weight = np.where((index < 0) | (index >= length), 0.0, weight)
    weight = weight / weight.sum(0)
    return Taps(length, np.clip(index, 0, length - 1), weight)


@operator("ConvTranspose")
def _conv_transpose(c: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    n = x.ndim - 2
    if n > 2:
        raise c.refused("a transposed convolution of more than two axes")
    strides, spread = c.get("strides", [1] * n), c.get("dilations", [1] * n)
    extra = c.get("output_padding", [0] * n)
    full = [
        (size - 1) * s + d * (k - 1) + 1
        for size, s, d, k in zip(x.shape[2:], strides, spread, weight.shape[2:], strict=True)
    ]
    cuts = _cuts(c, x.shape[2:], [f + e for f, e in zip(full, extra, strict=True)], strides)
    sizes = [f + e - a - b for f, e, (a, b) in zip(full, extra, cuts, strict=True)]
    c.check_size([x.shape[0], weight.shape[1], *full], x.dtype)
    if any(size < 1 for size in sizes):
        raise c.refused(f"a result of {tuple(sizes)}")
    groups = c.get("group", 1)
    if n == 1:
        lifted = A.expand_dims(x, axis=2), A.expand_dims(weight, axis=2)
        out = conv_transpose2d(
            *lifted, None, (1, strides[0]), groups=groups, dilation=(1, spread[0])
        )
        out = A.squeeze(out, axis=2)
    else:
        out = conv_transpose2d(
            x, weight, None, tuple(strides), groups=groups, dilation=tuple(spread)
        )
    widths = [(0, 0), (0, 0)]
    for f, size, (before, _) in zip(full, sizes, cuts, strict=True):
        widths.append((max(-before, 0), max(before + size - f, 0)))
    if any(w != (0, 0) for w in widths):
        out = Tensor(np.pad(out.array, widths))
    part = [slice(max(a, 0), max(a, 0) + size) for (a, _), size in zip(cuts, sizes, strict=True)]
    out = out[(slice(None), slice(None), *part)]
    return out if bias is None else A.add(out, A.reshape(bias, (1, -1) + (1,) * n))


def _cuts(c: Any, sizes: Any, full: Any, strides: Any) -> list[tuple[int, int]]:
    """Elements cut off before and after each axis; where fewer than none, zeros are added."""
    how, wanted, n = c.get("auto_pad", "NOTSET"), c.get("output_shape"), len(sizes)
    if wanted is None and how in ("NOTSET", "VALID"):
        pads = c.get("pads", [0] * (2 * n)) if how == "NOTSET" else [0] * (2 * n)
        return list(zip(pads[:n], pads[n:], strict=True))
    if wanted is None:
        wanted = [size * s for size, s in zip(sizes, strides, strict=True)]
    found = []
    for f, size in zip(full, wanted[-n:], strict=True):
        half = (f - size) // 2
        found.append((half, f - size - half) if how == "SAME_UPPER" else (f - size - half, half))
    return found

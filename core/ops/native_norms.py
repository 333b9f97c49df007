"""The C kernels of normalisation, and which memory they take. See native_kernels.

Names and signatures are those of the operations; `NotImplemented` leaves a case to their bodies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import native
from . import groupnorm, normalization
from .native_conv import channels_last, flat, plain


def _as_input(rows: Any, ndim: int) -> Any:
    return rows if ndim == 2 else rows.transpose(0, ndim - 1, *range(1, ndim - 1))


def batch_norm_stats(x: Any) -> Any:
    rows = channels_last(x) if plain(x) else None
    if rows is None:
        return NotImplemented
    centre, var = native.batch_norm_stats(rows)
    return centre.astype(np.float64), var.astype(np.float64)


def batch_norm(
    x: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, *, eps: float
) -> Any:
    rows = channels_last(x) if plain(x, weight, bias) else None
    if rows is None:
        return NotImplemented
    scale = (var.astype(np.float64) + eps) ** -0.5
    if weight is not None:
        scale *= weight
    shift = np.zeros(len(scale), np.float32) if bias is None else np.ascontiguousarray(bias)
    centre = mean.astype(np.float32)
    out = native.batch_norm_apply(rows, centre, scale.astype(np.float32), shift)
    return _as_input(out, x.ndim)


def batch_norm_backward(
    grad: Any,
    x: Any,
    mean: Any,
    var: Any,
    weight: Any = None,
    *,
    eps: float,
    input_needed: bool,
) -> Any:
    if not plain(grad, x, weight):
        return NotImplemented
    rows, gs = channels_last(x), channels_last(grad)
    if rows is None:
        return NotImplemented
    if gs is None:
        gs = np.ascontiguousarray(grad.transpose(0, *range(2, x.ndim), 1))
    dx, dweight, dbias = native.batch_norm_backward(
        gs,
        rows,
        flat(weight),
        mean.astype(np.float32),
        var.astype(np.float32),
        eps=eps,
        needs_input=input_needed,
    )
    return None if dx is None else _as_input(dx, x.ndim), dweight, dbias


def channel_sum(x: Any, *, axis: int = 1) -> Any:
    if not plain(x) or x.size <= normalization.SMALL:
        return NotImplemented
    if axis in (-1, x.ndim - 1):
        rows = x if x.flags.c_contiguous else None
    else:
        rows = channels_last(x) if axis == 1 and x.ndim > 1 else None
    return NotImplemented if rows is None else native.channel_sum(rows)


def channel_sums(grad: Any, x: Any, mean: Any) -> Any:
    rows = channels_last(x) if plain(grad, x) else None
    gs = None if rows is None else channels_last(grad)
    if rows is None or gs is None or x.size <= normalization.SMALL:
        return NotImplemented
    first, second = native.channel_sums(gs, rows, mean.astype(np.float32))
    return first.astype(np.float32), second.astype(np.float32)


def scale_channels(x: Any, factor: Any) -> Any:
    rows = channels_last(x) if plain(x) else None
    if rows is None or x.size <= normalization.SMALL:
        return NotImplemented
    zeros, factor = np.zeros(x.shape[1], np.float32), factor.astype(np.float32)
    return _as_input(native.batch_norm_apply(rows, zeros, factor, zeros), x.ndim)


def _rows(x: Any, axes: int) -> Any:
    """(rows, D), where x is C-contiguous; None elsewhere."""
    return normalization.flat_rows(x, axes) if x.flags.c_contiguous else None


def layer_norm(x: Any, weight: Any = None, bias: Any = None, *, axes: int, eps: float) -> Any:
    rows = _rows(x, axes) if plain(x, weight, bias) else None
    if rows is None:
        return NotImplemented
    out, centre, rstd = native.layer_norm(rows, flat(weight), flat(bias), eps=eps)
    return (
        out.reshape(x.shape),
        centre[:, None].astype(np.float64),
        rstd[:, None].astype(np.float64),
    )


def layer_norm_backward(
    grad: Any,
    x: Any,
    centre: Any,
    rstd: Any,
    weight: Any = None,
    *,
    axes: int,
    needed: tuple[bool, bool],
) -> Any:
    if not plain(grad, x, weight):
        return NotImplemented
    rows, gs = _rows(x, axes), _rows(np.ascontiguousarray(grad), axes)
    if rows is None:
        return NotImplemented
    dx, dweight, dbias = native.layer_norm_backward(
        gs,
        rows,
        flat(weight),
        centre[:, 0].astype(np.float32),
        rstd[:, 0].astype(np.float32),
        needs=needed,
    )
    shape = x.shape[x.ndim - axes :]
    return (
        None if dx is None else dx.reshape(x.shape),
        None if dweight is None else dweight.reshape(shape),
        None if dbias is None else dbias.reshape(shape),
    )


def rms_norm(x: Any, weight: Any = None, *, axes: int, eps: float) -> Any:
    rows = _rows(x, axes) if plain(x, weight) else None
    if rows is None:
        return NotImplemented
    out, _, rstd = native.layer_norm(rows, flat(weight), None, eps=eps, centre=False)
    return out.reshape(x.shape), rstd[:, None].astype(np.float64)


def rms_norm_backward(
    grad: Any, x: Any, rstd: Any, weight: Any = None, *, axes: int, needed: tuple[bool, bool]
) -> Any:
    rows = _rows(x, axes) if plain(grad, x, weight) else None
    if rows is None:
        return NotImplemented
    dx, dweight, _ = native.layer_norm_backward(
        _rows(np.ascontiguousarray(grad), axes),
        rows,
        flat(weight),
        np.zeros(len(rows), np.float32),
        rstd[:, 0].astype(np.float32),
        centre=False,
        needs=needed,
    )
    return (
        None if dx is None else dx.reshape(x.shape),
        None if dweight is None else dweight.reshape(x.shape[x.ndim - axes :]),
    )


def group_norm(x: Any, weight: Any = None, bias: Any = None, *, groups: int, eps: float) -> Any:
    """Statistics of the channels of each sample, brought together for its groups."""
    return group_norm_then(x, weight, bias, groups=groups, eps=eps)


def group_norm_then(
    x: Any,
    weight: Any,
    bias: Any,
    *,
    groups: int,
    eps: float,
    activation: str | None = None,
    clamp: native.Clamp = native.NO_CLAMP,
) -> Any:
    """The same with an activation or a clamp, sample by sample, while they are in the cache."""
    pixels = channels_last(x) if plain(x, weight, bias) and x.ndim > 2 else None
    if pixels is None:
        return NotImplemented
    b, c = x.shape[:2]
    out = np.empty_like(pixels)
    means, var = native.sample_stats(pixels.reshape(b, -1, c))
    grouped = means.reshape(b, groups, -1)
    centre = grouped.mean(2, keepdims=True)
    spread = (var.reshape(grouped.shape) + (grouped - centre) ** 2).mean(2, keepdims=True)
    centres = np.broadcast_to(centre, grouped.shape).reshape(b, c)
    rstds = np.broadcast_to((spread + eps) ** -0.5, grouped.shape).reshape(b, c)
    near = centres.astype(np.float32)
    scales = (rstds if weight is None else rstds * weight).astype(np.float32)
    shift = np.zeros(c, np.float32) if bias is None else flat(bias)
    if pixels[0].size <= _SMALL_SAMPLE:
        each = (b, *[1] * (pixels.ndim - 2), c)
        np.subtract(pixels, near.reshape(each), out=out)
        out *= scales.reshape(each)
        out += shift
        if activation is not None or clamp != native.NO_CLAMP:
            native.finish(out, activation=activation, clamp=clamp)
    else:
        for i in range(b):
            own = out[i]
            native.batch_norm_apply(pixels[i], near[i], scales[i], shift, clamp=clamp, out=own)
            if activation is not None:
                native.finish(own, activation=activation)
    return _as_input(out, x.ndim), centres, rstds


_SMALL_SAMPLE = 1 << 14  # elements below which all samples at once are as fast as one by one


def group_norm_backward(
    grad: Any, x: Any, centre: Any, rstd: Any, weight: Any = None, *, groups: int
) -> Any:
    pixels = channels_last(x) if plain(grad, x, weight) and x.ndim > 2 else None
    gs = None if pixels is None else channels_last(grad)
    if pixels is None or gs is None or pixels[0].size <= _SMALL_SAMPLE:
        return NotImplemented
    b, c = x.shape[:2]
    size = pixels[0, ..., 0].size
    w = np.ones(c) if weight is None else weight.astype(np.float64)
    out = np.empty_like(pixels)
    dweight, dbias = np.zeros(c), np.zeros(c)
    for i in range(b):
        near = centre[i].astype(np.float32)
        sums = np.stack(native.channel_sums(gs[i], pixels[i], near))
        dbias += sums[0]
        dweight += sums[1] * rstd[i]
        constant, by_x = groupnorm.group_mean(sums * w, groups) / -size
        constant, by_x = (constant * rstd[i], by_x * rstd[i] ** 3)
        native.batch_norm_apply(
            pixels[i], near, by_x.astype(np.float32), constant.astype(np.float32), out=out[i]
        )
        out[i] += gs[i] * (rstd[i] * w).astype(np.float32)
    return _as_input(out, x.ndim), dweight.astype(np.float32), dbias.astype(np.float32)

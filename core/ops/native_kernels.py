"""The C kernels of `core/native`, registered as the CPU kernels of their operations.

Importing this module registers them, where the extension was built. Each takes the cases it is
made for, float32 and not empty, and leaves the others to the generic body with `NotImplemented`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import native
from . import (
    activation,
    attention,
    attention_blocks,
    conv,
    gelu,
    groupnorm,
    native_conv,
    normalization,
    pool,
    rownorm,
    softmax,
)
from .conv import Pair
from .native_conv import flat, nchw, nhwc, plain

# -- normalisation ---------------------------------------------------------------------------------


def _channels_last(x: Any) -> Any:
    """(B, C, ...) as C-contiguous (..., C); None where that would be a copy."""
    view = x if x.ndim == 2 else x.transpose(0, *range(2, x.ndim), 1)
    return view if view.flags.c_contiguous else None


def _as_input(rows: Any, ndim: int) -> Any:
    return rows if ndim == 2 else rows.transpose(0, ndim - 1, *range(1, ndim - 1))


def _batch_norm_stats(x: Any) -> Any:
    rows = _channels_last(x) if plain(x) else None
    if rows is None:
        return NotImplemented
    centre, var = native.batch_norm_stats(rows)
    return centre.astype(np.float64), var.astype(np.float64)


def _batch_norm(
    x: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, *, eps: float
) -> Any:
    rows = _channels_last(x) if plain(x, weight, bias) else None
    if rows is None:
        return NotImplemented
    scale = (var.astype(np.float64) + eps) ** -0.5
    if weight is not None:
        scale *= weight
    shift = np.zeros(len(scale), np.float32) if bias is None else np.ascontiguousarray(bias)
    centre = np.ascontiguousarray(mean, np.float32)
    out = native.batch_norm_apply(rows, centre, scale.astype(np.float32), shift)
    return _as_input(out, x.ndim)


def _batch_norm_backward(
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
    rows, gs = _channels_last(x), _channels_last(grad)
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


def _channel_sum(x: Any, *, axis: int = 1) -> Any:
    if not plain(x) or x.size <= normalization._SMALL:
        return NotImplemented
    if axis in (-1, x.ndim - 1):
        rows = x if x.flags.c_contiguous else None
    else:
        rows = _channels_last(x) if axis == 1 and x.ndim > 1 else None
    return NotImplemented if rows is None else native.channel_sum(rows)


def _channel_sums(grad: Any, x: Any, mean: Any) -> Any:
    rows = _channels_last(x) if plain(grad, x) else None
    gs = None if rows is None else _channels_last(grad)
    if rows is None or gs is None or x.size <= normalization._SMALL:
        return NotImplemented
    first, second = native.channel_sums(gs, rows, np.ascontiguousarray(mean, np.float32))
    return first.astype(np.float32), second.astype(np.float32)


def _scale_channels(x: Any, factor: Any) -> Any:
    rows = _channels_last(x) if plain(x) else None
    if rows is None or x.size <= normalization._SMALL:
        return NotImplemented
    zeros, factor = np.zeros(x.shape[1], np.float32), np.ascontiguousarray(factor, np.float32)
    return _as_input(native.batch_norm_apply(rows, zeros, factor, zeros), x.ndim)


def _rows(x: Any, axes: int) -> Any:
    """(rows, D), where x is C-contiguous; None elsewhere."""
    return normalization.flat_rows(x, axes) if x.flags.c_contiguous else None


def _layer_norm(x: Any, weight: Any = None, bias: Any = None, *, axes: int, eps: float) -> Any:
    rows = _rows(x, axes) if plain(x, weight, bias) else None
    if rows is None:
        return NotImplemented
    out, centre, rstd = native.layer_norm(rows, flat(weight), flat(bias), eps=eps)
    return (
        out.reshape(x.shape),
        centre[:, None].astype(np.float64),
        rstd[:, None].astype(np.float64),
    )


def _layer_norm_backward(
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


def _rms_norm(x: Any, weight: Any = None, *, axes: int, eps: float) -> Any:
    rows = _rows(x, axes) if plain(x, weight) else None
    if rows is None:
        return NotImplemented
    out, _, rstd = native.layer_norm(rows, flat(weight), None, eps=eps, centre=False)
    return out.reshape(x.shape), rstd[:, None].astype(np.float64)


def _rms_norm_backward(
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


def _group_norm(x: Any, weight: Any = None, bias: Any = None, *, groups: int, eps: float) -> Any:
    """Statistics of the channels of each sample, brought together for its groups."""
    pixels = _channels_last(x) if plain(x, weight, bias) and x.ndim > 2 else None
    if pixels is None:
        return NotImplemented
    b, c = x.shape[:2]
    out = np.empty_like(pixels)
    centres, rstds = np.empty((b, c)), np.empty((b, c))
    shift = np.zeros(c, np.float32) if bias is None else flat(bias)
    for i in range(b):
        own, var = native.batch_norm_stats(pixels[i])
        parts = own.astype(np.float64).reshape(groups, -1)
        centre = parts.mean(1, keepdims=True)
        spread = (var.reshape(groups, -1) + (parts - centre) ** 2).mean(1, keepdims=True)
        centres[i] = np.broadcast_to(centre, parts.shape).reshape(-1)
        rstds[i] = np.broadcast_to((spread + eps) ** -0.5, parts.shape).reshape(-1)
        scale = (rstds[i] if weight is None else rstds[i] * weight).astype(np.float32)
        native.batch_norm_apply(pixels[i], centres[i].astype(np.float32), scale, shift, out=out[i])
    return _as_input(out, x.ndim), centres, rstds


_SMALL_SAMPLE = 1 << 14  # elements below which all samples at once are as fast as one by one


def _group_norm_backward(
    grad: Any, x: Any, centre: Any, rstd: Any, weight: Any = None, *, groups: int
) -> Any:
    pixels = _channels_last(x) if plain(grad, x, weight) and x.ndim > 2 else None
    gs = None if pixels is None else _channels_last(grad)
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


# -- pooling -------------------------------------------------------------------------------------


def _max_pool2d(
    x: Any, *, size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Any:
    rows = _channels_last(x) if plain(x) else None
    if rows is None:
        return NotImplemented
    place: Any = {"stride": stride, "padding": padding, "dilation": dilation}
    return nchw(native.max_pool2d(rows, size, kernel, **place))


def _max_unpool(
    values: Any,
    x: Any,
    largest: Any,
    *,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Any:
    rows = _channels_last(x) if plain(values, x, largest) else None
    if rows is None:
        return NotImplemented
    place: Any = {"stride": stride, "padding": padding, "dilation": dilation}
    return nchw(native.max_pool2d_backward(nhwc(values), rows, nhwc(largest), kernel, **place))


# -- softmax and activations -----------------------------------------------------------------------


def _softmax(x: Any, *, axis: int) -> Any:
    if not plain(x) or axis not in (-1, x.ndim - 1) or not x.flags.c_contiguous:
        return NotImplemented
    return native.softmax(x)


def _log_softmax(x: Any, *, axis: int) -> Any:
    if not plain(x) or axis not in (-1, x.ndim - 1) or not x.flags.c_contiguous:
        return NotImplemented
    return native.log_softmax(x)


def _log_softmax_backward(grad: Any, y: Any, *, axis: int) -> Any:
    if not plain(grad, y) or axis not in (-1, y.ndim - 1) or not y.flags.c_contiguous:
        return NotImplemented
    return native.log_softmax_backward(np.ascontiguousarray(grad), y)


def _softmax_backward(grad: Any, y: Any, *, axis: int) -> Any:
    if not plain(grad, y) or axis not in (-1, y.ndim - 1) or not y.flags.c_contiguous:
        return NotImplemented
    return native.softmax_backward(np.ascontiguousarray(grad), y)


def _elementwise(function: Any) -> Any:
    def kernel(x: Any) -> Any:
        return function(x) if plain(x) else NotImplemented

    return kernel


def _elementwise_backward(function: Any) -> Any:
    def kernel(grad: Any, x: Any) -> Any:
        return function(grad, x) if plain(grad, x) and _alike(grad, x) else NotImplemented

    return kernel


def _alike(a: Any, b: Any) -> bool:
    return a.shape == b.shape and a.strides == b.strides


def _hardtanh(x: Any, *, low: float, high: float) -> Any:
    return native.hardtanh(x, low, high) if plain(x) else NotImplemented


def _hardtanh_backward(grad: Any, y: Any, *, low: float, high: float) -> Any:
    if not (plain(grad, y) and _alike(grad, y)):
        return NotImplemented
    return native.hardtanh_backward(grad, y, low, high)


def _gelu(x: Any, *, approximate: str) -> Any:
    if not plain(x):
        return NotImplemented
    return native.gelu_tanh(x) if approximate == "tanh" else native.gelu(x)


def _gelu_backward(grad: Any, x: Any, *, approximate: str) -> Any:
    if not (plain(grad, x) and _alike(grad, x)):
        return NotImplemented
    by = native.gelu_tanh_backward if approximate == "tanh" else native.gelu_backward
    return by(grad, x)


# -- attention -----------------------------------------------------------------------------------


def _normalise(xp: Any, scores: Any) -> Any:
    lse = np.empty(scores.shape[:-1], np.float32)
    native.softmax(scores, scores, lse)
    return lse


def _renormalise(xp: Any, scores: Any, lse: Any) -> None:
    native.softmax(scores, scores)


def _to_scores(xp: Any, p: Any, dp: Any, delta: Any) -> None:
    native.softmax_backward(dp, p, dp)


def _attention(q: Any, k: Any, v: Any, mask: Any, key: Any, **options: Any) -> Any:
    if not plain(q, k, v):
        return NotImplemented
    return attention_blocks.attend(np, q, k, v, mask, key, **options, normalise=_normalise)


def _attention_backward(grad: Any, q: Any, k: Any, v: Any, *rest: Any, **options: Any) -> Any:
    if not plain(grad, q, k, v):
        return NotImplemented
    options |= {"renormalise": _renormalise, "to_scores": _to_scores}
    return attention_blocks.attend_backward(np, grad, q, k, v, *rest, **options)


def register() -> None:
    """Register every kernel here; done once, when the module is imported."""
    for op, kernel in (
        (conv._conv2d, native_conv.conv2d),
        (conv.conv2d_input_grad, native_conv.conv2d_input_grad),
        (conv.conv2d_weight_grad, native_conv.conv2d_weight_grad),
        (normalization.batch_norm_stats, _batch_norm_stats),
        (normalization.batch_norm_train, _batch_norm),
        (normalization.batch_norm_inference, _batch_norm),
        (normalization.batch_norm_backward, _batch_norm_backward),
        (normalization.channel_sum, _channel_sum),
        (normalization.channel_sums, _channel_sums),
        (normalization.scale_channels, _scale_channels),
        (rownorm._layer_norm, _layer_norm),
        (rownorm.layer_norm_backward, _layer_norm_backward),
        (rownorm._rms_norm, _rms_norm),
        (rownorm.rms_norm_backward, _rms_norm_backward),
        (groupnorm._group_norm, _group_norm),
        (groupnorm.group_norm_backward, _group_norm_backward),
        (attention._attention, _attention),
        (attention.attention_backward, _attention_backward),
        (softmax._softmax, _softmax),
        (softmax.softmax_backward, _softmax_backward),
        (softmax._log_softmax, _log_softmax),
        (softmax.log_softmax_backward, _log_softmax_backward),
        (pool._max_pool2d, _max_pool2d),
        (pool.max_unpool, _max_unpool),
        (activation.relu, _elementwise(native.relu)),
        (activation.relu_backward, _elementwise_backward(native.relu_backward)),
        (activation._hardtanh, _hardtanh),
        (activation.hardtanh_backward, _hardtanh_backward),
        (activation.sigmoid, _elementwise(native.sigmoid)),
        (activation.hardswish, _elementwise(native.hardswish)),
        (activation.hardswish_backward, _elementwise_backward(native.hardswish_backward)),
        (gelu.erf, _elementwise(native.erf)),
        (gelu._gelu, _gelu),
        (gelu.gelu_backward, _gelu_backward),
        (activation.silu, _elementwise(native.silu)),
        (activation.silu_backward, _elementwise_backward(native.silu_backward)),
    ):
        op.kernel("cpu")(kernel)


if native.available():
    register()

"""The C kernels of `core/native`, registered as the CPU kernels of their operations.

Importing this module registers them, where the extension was built. Each takes the cases it is
made for, float32 and not empty, and leaves the others to the generic body with `NotImplemented`.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from .. import native
from ..state import state, watch
from . import activation, attention, conv, groupnorm, normalization, pooling, softmax
from .conv import Padding, Pair, output_length

_BLOCK = 1 << 20  # elements of the patches that are made at once: they stay in the cache
_MOST_PATCHES = 1 << 24  # elements of the patches of one sample that may be made at once
_F32 = np.dtype(np.float32)


def _plain(*arrays: Any) -> bool:
    """Whether all are float32 and not empty."""
    return all(
        a is None or (isinstance(a, np.ndarray) and a.dtype is _F32 and a.size) for a in arrays
    )


def _nhwc(x: Any) -> Any:
    """(B, C, H, W) as C-contiguous (B, H, W, C): a view where the memory is channels-last."""
    view = x.transpose(0, 2, 3, 1)
    return view if view.flags.c_contiguous else np.ascontiguousarray(view)


def _nchw(x: Any) -> Any:
    return x.transpose(0, 3, 1, 2)


def _flat(v: Any) -> Any:
    """A weight or a bias as contiguous numbers."""
    return None if v is None else np.ascontiguousarray(v).reshape(-1)


# -- convolution -----------------------------------------------------------------------------------

# Packed weights of inference: weight array -> (writes seen, packed). Any operation that writes
# memory on purpose makes them stale.
_packed: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_packings: dict[int, tuple[int, native.PackedWeight]] = {}


def _packed_now(weight: Any, groups: int) -> native.PackedWeight:
    if not (weight.flags.c_contiguous or weight.transpose(0, 2, 3, 1).flags.c_contiguous):
        weight = np.ascontiguousarray(weight)
    return native.pack_weight(weight, groups)


def _pack(weight: Any, groups: int) -> native.PackedWeight:
    if state.grad_enabled:
        return _packed_now(weight, groups)
    key = id(weight)
    if _packed.get(key) is weight:
        writes, packing = _packings[key]
        if writes == watch.writes and packing.groups == groups:
            return packing
    packing = _packed_now(weight, groups)
    if key not in _packed:
        weakref.finalize(weight, _packings.pop, key, None)
    _packed[key] = weight
    _packings[key] = (watch.writes, packing)
    return packing


def _taps(weight: Any) -> Any:
    """Depthwise weights (C, 1, KH, KW) as C-contiguous (KH, KW, C)."""
    return np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0))


def _is_depthwise(weight: Any, groups: int) -> bool:
    return groups > 1 and weight.shape[:2] == (groups, 1)


def _conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Any:
    if not _plain(x, weight, bias):
        return NotImplemented
    options: Any = {"stride": stride, "padding": padding, "dilation": dilation}
    if _is_depthwise(weight, groups):
        if max(weight.shape[2:]) > _MOST_TAPS:
            return NotImplemented
        return _nchw(native.depthwise_conv2d(_nhwc(x), _taps(weight), _flat(bias), **options))
    if weight.shape[2:] == (1, 1) and groups == 1 and state.grad_enabled:
        return NotImplemented  # a plain product, and packing would not pay for one call
    if state.grad_enabled and groups == 1:
        size = _output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
        if x.shape[0] * size[0] * size[1] < _FEW_PIXELS:
            return _by_columns(x, weight, bias, size, options)
    return _nchw(native.conv2d(_nhwc(x), _pack(weight, groups), _flat(bias), **options))


def _by_columns(x: Any, weight: Any, bias: Any, size: Pair, options: Any) -> Any:
    """Patches, and one plain product with them."""
    o = weight.shape[0]
    columns = native.im2col(_nhwc(x), (weight.shape[2], weight.shape[3]), **options)[0]
    rows = columns @ _nhwc(weight).reshape(o, -1).T
    if bias is not None:
        rows += bias
    return _nchw(rows.reshape(x.shape[0], *size, o))


_MOST_TAPS = 64  # of a depthwise kernel, along an axis
# Output pixels below which one use does not pay for packing weights, and for turning them too.
_FEW_PIXELS = 1024
_FEW_TURNED = 2048


def _output_size(
    image: Any, kernel: Any, stride: Pair, padding: Padding, dilation: Pair
) -> tuple[int, int]:
    return (
        output_length(image[0], kernel[0], stride[0], padding[0] + padding[1], dilation[0]),
        output_length(image[1], kernel[1], stride[1], padding[2] + padding[3], dilation[1]),
    )


def _conv2d_input_grad(
    y: Any,
    weight: Any,
    bias: Any = None,
    *,
    shape: tuple[int, int, int, int],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Any:
    if not _plain(y, weight, bias) or 0 in shape:
        return NotImplemented
    b, c, h, w = shape
    o, _, kh, kw = weight.shape
    if _output_size((h, w), (kh, kw), stride, padding, dilation) != tuple(y.shape[2:]):
        return NotImplemented  # output padding beyond the stride
    place: Any = {"padding": padding, "dilation": dilation}
    if _is_depthwise(weight, groups) and bias is None and max(kh, kw) <= _MOST_TAPS:
        out = native.depthwise_conv2d_input_grad(
            _nhwc(y), _taps(weight), (b, h, w, c), stride=stride, **place
        )
        return _nchw(out)
    if groups != 1 or (kh, kw) == (1, 1):
        return NotImplemented
    reach = (dilation[0] * (kh - 1), dilation[1] * (kw - 1))
    mirrored = (
        reach[0] - padding[0],
        reach[0] - padding[1],
        reach[1] - padding[2],
        reach[1] - padding[3],
    )
    if stride == (1, 1) and min(mirrored) >= 0 and b * h * w >= _FEW_TURNED:
        # The transpose of a convolution is one with the filters turned by half a circle.
        turned = np.ascontiguousarray(weight.transpose(1, 2, 3, 0)[:, ::-1, ::-1])
        packed = native.pack_weight(_nchw(turned))
        return _nchw(
            native.conv2d(_nhwc(y), packed, _flat(bias), padding=mirrored, dilation=dilation)
        )
    matrix = _nhwc(weight).reshape(o, -1)
    source = _nhwc(y)
    _, oh, ow, _ = source.shape
    if oh * ow * matrix.shape[1] > _MOST_PATCHES:
        return NotImplemented  # the generic body takes a sample apart
    out = np.empty((b, h, w, c), np.float32)
    step = max(1, _BLOCK // (oh * ow * matrix.shape[1]))
    for i in range(0, b, step):
        rows = source[i : i + step].reshape(-1, o)
        part = out[i : i + step]
        native.col2im((rows @ matrix)[None], part.shape, (kh, kw), stride=stride, out=part, **place)
    if bias is not None:
        out += bias
    return _nchw(out)


def _conv2d_weight_grad(
    x: Any,
    y: Any,
    *,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Any:
    if not _plain(x, y):
        return NotImplemented
    b, c, _, _ = x.shape
    o = y.shape[1]
    kernel = (kernel[0], kernel[1])
    if _output_size(x.shape[2:], kernel, stride, padding, dilation) != tuple(y.shape[2:]):
        return NotImplemented
    if groups > 1 and c == o == groups:
        if max(kernel) > _MOST_TAPS:
            return NotImplemented
        taps = native.depthwise_conv2d_weight_grad(
            _nhwc(y), _nhwc(x), kernel, stride=stride, padding=padding, dilation=dilation
        )
        return taps.transpose(2, 0, 1)[:, None]
    if groups != 1 or kernel == (1, 1):
        return NotImplemented
    source, grads = _nhwc(x), _nhwc(y)
    _, oh, ow, _ = grads.shape
    width = kernel[0] * kernel[1] * c
    out = np.zeros((o, width), np.float32)
    # Blocks of whole samples, or of some output rows of one.
    step = max(1, _BLOCK // (oh * ow * width))
    lines = min(oh, max(1, _BLOCK // (ow * width)))
    buffer = np.empty((1, min(step, b) * lines * ow, width), np.float32)
    for i in range(0, b, step):
        for first in range(0, oh, lines):
            last = min(first + lines, oh)
            part, edges = source[i : i + step], padding
            if lines < oh:
                # The rows that these outputs see, and how far they reach over the image.
                start = first * stride[0] - padding[0]
                stop = (last - 1) * stride[0] - padding[0] + dilation[0] * (kernel[0] - 1) + 1
                low, high = max(start, 0), min(stop, source.shape[1])
                if high <= low:
                    continue
                part, edges = part[:, low:high], (low - start, stop - high, *padding[2:])
            patches = buffer[:, : len(part) * (last - first) * ow]
            native.im2col(
                part, kernel, stride=stride, padding=edges, dilation=dilation, out=patches
            )
            out += grads[i : i + step, first:last].reshape(-1, o).T @ patches[0]
    return _nchw(out.reshape(o, *kernel, c))


# -- normalisation ---------------------------------------------------------------------------------


def _channels_last(x: Any) -> Any:
    """(B, C, ...) as C-contiguous (..., C); None where that would be a copy."""
    view = x if x.ndim == 2 else x.transpose(0, *range(2, x.ndim), 1)
    return view if view.flags.c_contiguous else None


def _as_input(rows: Any, ndim: int) -> Any:
    return rows if ndim == 2 else rows.transpose(0, ndim - 1, *range(1, ndim - 1))


def _batch_norm_stats(x: Any) -> Any:
    rows = _channels_last(x) if _plain(x) else None
    if rows is None:
        return NotImplemented
    centre, var = native.batch_norm_stats(rows)
    return centre.astype(np.float64), var.astype(np.float64)


def _batch_norm(
    x: Any, mean: Any, var: Any, weight: Any = None, bias: Any = None, *, eps: float
) -> Any:
    rows = _channels_last(x) if _plain(x, weight, bias) else None
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
    if not _plain(grad, x, weight):
        return NotImplemented
    rows, gs = _channels_last(x), _channels_last(grad)
    if rows is None:
        return NotImplemented
    if gs is None:
        gs = np.ascontiguousarray(grad.transpose(0, *range(2, x.ndim), 1))
    dx, dweight, dbias = native.batch_norm_backward(
        gs,
        rows,
        _flat(weight),
        mean.astype(np.float32),
        var.astype(np.float32),
        eps=eps,
        needs_input=input_needed,
    )
    return None if dx is None else _as_input(dx, x.ndim), dweight, dbias


def _channel_sum(x: Any, *, axis: int = 1) -> Any:
    if not _plain(x) or x.size <= normalization._SMALL:
        return NotImplemented
    if axis in (-1, x.ndim - 1):
        rows = x if x.flags.c_contiguous else None
    else:
        rows = _channels_last(x) if axis == 1 and x.ndim > 1 else None
    return NotImplemented if rows is None else native.channel_sum(rows)


def _rows(x: Any, axes: int) -> Any:
    """(rows, D), where x is C-contiguous; None elsewhere."""
    return normalization.flat_rows(x, axes) if x.flags.c_contiguous else None


def _layer_norm(x: Any, weight: Any = None, bias: Any = None, *, axes: int, eps: float) -> Any:
    rows = _rows(x, axes) if _plain(x, weight, bias) else None
    if rows is None:
        return NotImplemented
    out, centre, rstd = native.layer_norm(rows, _flat(weight), _flat(bias), eps=eps)
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
    if not _plain(grad, x, weight):
        return NotImplemented
    rows, gs = _rows(x, axes), _rows(np.ascontiguousarray(grad), axes)
    if rows is None:
        return NotImplemented
    dx, dweight, dbias = native.layer_norm_backward(
        gs,
        rows,
        _flat(weight),
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
    rows = _rows(x, axes) if _plain(x, weight) else None
    if rows is None:
        return NotImplemented
    out, _, rstd = native.layer_norm(rows, _flat(weight), None, eps=eps, centre=False)
    return out.reshape(x.shape), rstd[:, None].astype(np.float64)


def _rms_norm_backward(
    grad: Any, x: Any, rstd: Any, weight: Any = None, *, axes: int, needed: tuple[bool, bool]
) -> Any:
    rows = _rows(x, axes) if _plain(grad, x, weight) else None
    if rows is None:
        return NotImplemented
    dx, dweight, _ = native.layer_norm_backward(
        _rows(np.ascontiguousarray(grad), axes),
        rows,
        _flat(weight),
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
    pixels = _channels_last(x) if _plain(x, weight, bias) and x.ndim > 2 else None
    if pixels is None:
        return NotImplemented
    b, c = x.shape[:2]
    out = np.empty_like(pixels)
    centres, rstds = np.empty((b, c)), np.empty((b, c))
    shift = np.zeros(c, np.float32) if bias is None else _flat(bias)
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


# -- pooling -------------------------------------------------------------------------------------


def _max_pool2d(
    x: Any, *, size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Any:
    rows = _channels_last(x) if _plain(x) else None
    if rows is None:
        return NotImplemented
    place: Any = {"stride": stride, "padding": padding, "dilation": dilation}
    return _nchw(native.max_pool2d(rows, size, kernel, **place))


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
    rows = _channels_last(x) if _plain(values, x, largest) else None
    if rows is None:
        return NotImplemented
    place: Any = {"stride": stride, "padding": padding, "dilation": dilation}
    return _nchw(native.max_pool2d_backward(_nhwc(values), rows, _nhwc(largest), kernel, **place))


# -- softmax and activations -----------------------------------------------------------------------


def _softmax(x: Any, *, axis: int) -> Any:
    if not _plain(x) or axis not in (-1, x.ndim - 1) or not x.flags.c_contiguous:
        return NotImplemented
    return native.softmax(x)


def _log_softmax(x: Any, *, axis: int) -> Any:
    if not _plain(x) or axis not in (-1, x.ndim - 1) or not x.flags.c_contiguous:
        return NotImplemented
    return native.log_softmax(x)


def _log_softmax_backward(grad: Any, y: Any, *, axis: int) -> Any:
    if not _plain(grad, y) or axis not in (-1, y.ndim - 1) or not y.flags.c_contiguous:
        return NotImplemented
    return native.log_softmax_backward(np.ascontiguousarray(grad), y)


def _softmax_backward(grad: Any, y: Any, *, axis: int) -> Any:
    if not _plain(grad, y) or axis not in (-1, y.ndim - 1) or not y.flags.c_contiguous:
        return NotImplemented
    return native.softmax_backward(np.ascontiguousarray(grad), y)


def _elementwise(function: Any) -> Any:
    def kernel(x: Any) -> Any:
        return function(x) if _plain(x) else NotImplemented

    return kernel


def _elementwise_backward(function: Any) -> Any:
    def kernel(grad: Any, x: Any) -> Any:
        return function(grad, x) if _plain(grad, x) and _alike(grad, x) else NotImplemented

    return kernel


def _alike(a: Any, b: Any) -> bool:
    return a.shape == b.shape and a.strides == b.strides


def _gelu(x: Any, *, approximate: str) -> Any:
    if not _plain(x):
        return NotImplemented
    return native.gelu_tanh(x) if approximate == "tanh" else native.gelu(x)


def _gelu_backward(grad: Any, x: Any, *, approximate: str) -> Any:
    if not (_plain(grad, x) and _alike(grad, x)):
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
    if not _plain(q, k, v):
        return NotImplemented
    return attention.attend(np, q, k, v, mask, key, **options, normalise=_normalise)


def _attention_backward(grad: Any, q: Any, k: Any, v: Any, *rest: Any, **options: Any) -> Any:
    if not _plain(grad, q, k, v):
        return NotImplemented
    options |= {"renormalise": _renormalise, "to_scores": _to_scores}
    return attention.attend_backward(np, grad, q, k, v, *rest, **options)


def register() -> None:
    """Register every kernel here; done once, when the module is imported."""
    for op, kernel in (
        (conv._conv2d, _conv2d),
        (conv.conv2d_input_grad, _conv2d_input_grad),
        (conv.conv2d_weight_grad, _conv2d_weight_grad),
        (normalization.batch_norm_stats, _batch_norm_stats),
        (normalization.batch_norm_train, _batch_norm),
        (normalization.batch_norm_inference, _batch_norm),
        (normalization.batch_norm_backward, _batch_norm_backward),
        (normalization.channel_sum, _channel_sum),
        (normalization._layer_norm, _layer_norm),
        (normalization.layer_norm_backward, _layer_norm_backward),
        (normalization._rms_norm, _rms_norm),
        (normalization.rms_norm_backward, _rms_norm_backward),
        (groupnorm._group_norm, _group_norm),
        (attention._attention, _attention),
        (attention.attention_backward, _attention_backward),
        (softmax._softmax, _softmax),
        (softmax.softmax_backward, _softmax_backward),
        (softmax._log_softmax, _log_softmax),
        (softmax.log_softmax_backward, _log_softmax_backward),
        (pooling._max_pool2d, _max_pool2d),
        (pooling.max_unpool, _max_unpool),
        (activation.relu, _elementwise(native.relu)),
        (activation.relu_backward, _elementwise_backward(native.relu_backward)),
        (activation.sigmoid, _elementwise(native.sigmoid)),
        (activation.hardswish, _elementwise(native.hardswish)),
        (activation.hardswish_backward, _elementwise_backward(native.hardswish_backward)),
        (activation.erf, _elementwise(native.erf)),
        (activation._gelu, _gelu),
        (activation.gelu_backward, _gelu_backward),
        (activation.silu, _elementwise(native.silu)),
        (activation.silu_backward, _elementwise_backward(native.silu_backward)),
    ):
        op.kernel("cpu")(kernel)


if native.available():
    register()

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
    classification,
    conv,
    gelu,
    groupnorm,
    native_attention,
    native_conv,
    native_norms,
    normalization,
    pool,
    rownorm,
    softmax,
)
from .conv import Pair
from .native_conv import channels_last, nchw, nhwc, plain

# -- pooling -------------------------------------------------------------------------------------


def _max_pool2d(
    x: Any, *, size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Any:
    rows = channels_last(x) if plain(x) else None
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
    rows = channels_last(x) if plain(values, x, largest) else None
    if rows is None:
        return NotImplemented
    place: Any = {"stride": stride, "padding": padding, "dilation": dilation}
    return nchw(native.max_pool2d_backward(nhwc(values), rows, nhwc(largest), kernel, **place))


# -- cross-entropy ---------------------------------------------------------------------------------


def _rows_and_ids(x: Any, target: Any, weight: Any, smoothing: float) -> bool:
    """Whether it is the common case: (B, C) with an id for each row, and no weights."""
    return bool(
        plain(x)
        and x.ndim == 2
        and x.flags.c_contiguous
        and target.ndim == 1
        and target.dtype == np.int64
        and target.flags.c_contiguous
        and target.flags.aligned
        and weight is None
        and not smoothing
    )


def _highest(ids: Any) -> Any:
    """The largest id; one below 0 counts as very large."""
    return np.maximum.reduce(ids.view(np.uint64))


def _cross_entropy(
    x: Any, target: Any, weight: Any, *, reduction: str, ignore_index: int, smoothing: float
) -> Any:
    if not _rows_and_ids(x, target, weight, smoothing):
        return NotImplemented
    if ignore_index >= 0 or _highest(target) >= x.shape[1]:
        return NotImplemented  # ids that are left out, or wrong
    loss, lse = native.cross_entropy(x, target)
    if reduction == "none":
        return loss, lse
    total = np.add.reduce(loss)  # as `.sum()`, which costs more than all of a small loss
    return total / np.float32(len(loss)) if reduction == "mean" else total, lse


def _cross_entropy_backward(
    grad: Any,
    x: Any,
    target: Any,
    weight: Any,
    lse: Any,
    *,
    reduction: str,
    ignore_index: int,
    smoothing: float,
) -> Any:
    if reduction == "none" or not _rows_and_ids(x, target, weight, smoothing):
        return NotImplemented
    if ignore_index >= 0 or _highest(target) >= x.shape[1]:
        return NotImplemented
    scale = grad.item() / (len(target) if reduction == "mean" else 1)
    return native.cross_entropy_backward(x, target, lse, scale)


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
    if key is None:
        one_pass = {"scale": options["scale"], "causal": options["causal"]}
        done = native_attention.attention(q, k, v, mask, **one_pass)
        if done is not NotImplemented:
            return done
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
        (normalization.batch_norm_stats, native_norms.batch_norm_stats),
        (normalization.batch_norm_train, native_norms.batch_norm),
        (normalization.batch_norm_inference, native_norms.batch_norm),
        (normalization.batch_norm_backward, native_norms.batch_norm_backward),
        (normalization.channel_sum, native_norms.channel_sum),
        (normalization.channel_sums, native_norms.channel_sums),
        (normalization.scale_channels, native_norms.scale_channels),
        (rownorm._layer_norm, native_norms.layer_norm),
        (rownorm.layer_norm_backward, native_norms.layer_norm_backward),
        (rownorm._rms_norm, native_norms.rms_norm),
        (rownorm.rms_norm_backward, native_norms.rms_norm_backward),
        (groupnorm._group_norm, native_norms.group_norm),
        (groupnorm.group_norm_backward, native_norms.group_norm_backward),
        (attention._attention, _attention),
        (attention.attention_backward, _attention_backward),
        (classification._cross_entropy, _cross_entropy),
        (classification.cross_entropy_backward, _cross_entropy_backward),
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

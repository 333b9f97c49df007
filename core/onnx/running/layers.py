"""Convolution, pooling, normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...tensor import Tensor
from . import api as A
from . import operator


def pads_of(c: Any, sizes: Any, kernel: Any, strides: Any, dilations: Any) -> list[int]:
    """Elements added before each axis, then after each."""
    how, n = c.get("auto_pad", "NOTSET"), len(kernel)
    if how == "VALID":
        return [0] * (2 * n)
    if how == "NOTSET":
        return list(c.get("pads", [0] * (2 * n)))
    first, last = [], []
    for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        small, large = total // 2, total - total // 2
        first.append(small if how == "SAME_UPPER" else large)
        last.append(large if how == "SAME_UPPER" else small)
    return first + last


def _around(x: Tensor, pads: list[int], value: float = 0.0) -> Tensor:
    n = len(pads) // 2
    widths = [(0, 0), (0, 0), *zip(pads[:n], pads[n:], strict=True)]
    if not any(pads):
        return x
    fill = x.dtype.type(value)
    return Tensor(np.pad(x.array, widths, constant_values=fill))


@operator("Conv")
def convolved(c: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    """A convolution over one or two axes."""
    n = x.ndim - 2
    strides, dilations = c.get("strides", [1] * n), c.get("dilations", [1] * n)
    pads = pads_of(c, x.shape[2:], weight.shape[2:], strides, dilations)
    y, groups = _around(x, pads), c.get("group", 1)
    if n > 2:
        raise c.refused("a convolution of more than two axes")
    if n == 1:
        y, weight = A.expand_dims(y, axis=2), A.expand_dims(weight, axis=2)
        strides, dilations = [1, *strides], [1, *dilations]
    options: Any = {"stride": tuple(strides), "dilation": tuple(dilations), "groups": groups}
    out = A.F.conv2d(y, weight, bias, **options)
    return A.squeeze(out, axis=2) if n == 1 else out


@operator("MaxPool", "AveragePool")
def _pool(c: Any, x: Tensor) -> Any:
    kernel = c.get("kernel_shape")
    n = len(kernel)
    strides, dilations = c.get("strides", [1] * n), c.get("dilations", [1] * n)
    pads = pads_of(c, x.shape[2:], kernel, strides, dilations)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes, over = [], []
    for i, size in enumerate(x.shape[2:]):
        free = size + pads[i] + pads[n + i] - reach[i]
        count = free // strides[i] + 1
        if c.get("ceil_mode", 0):
            count = -(-free // strides[i]) + 1
            if (count - 1) * strides[i] >= size + pads[i]:
                count -= 1
        sizes.append(count)
        over.append(max((count - 1) * strides[i] + reach[i] - size - pads[i] - pads[n + i], 0))
    ends = [p + o for p, o in zip(pads[n:], over, strict=True)]
    largest = c.kind == "MaxPool"
    lowest = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
    y = _around(x, pads[:n] + ends, lowest if largest else 0)
    out = _windows(y.array, kernel, strides, dilations, sizes)
    axes = tuple(range(-n, 0))
    if largest and c.outputs > 1:
        places = _places(x.shape, bool(c.get("storage_order", 0)))
        places = _around(Tensor(places), pads[:n] + ends, 0).array
        places = _windows(places, kernel, strides, dilations, sizes)
        flat = (*out.shape[:-n], -1)
        best = np.argmax(out.reshape(flat), axis=-1, keepdims=True)
        found = np.take_along_axis(places.reshape(flat), best, axis=-1)[..., 0]
        return A.max(Tensor(out), axis=axes), Tensor(found)
    if largest:
        return A.max(Tensor(out), axis=axes)
    inside = np.ones(x.shape[2:], x.dtype)
    if c.get("count_include_pad", 0):
        inside = np.pad(inside, list(zip(pads[:n], pads[n:], strict=True)), constant_values=1)
        inside = np.pad(inside, [(0, o) for o in over])
    else:
        inside = np.pad(inside, list(zip(pads[:n], ends, strict=True)))
    counts = _windows(inside[None, None], kernel, strides, dilations, sizes).sum(axes)
    return A.divide(A.sum(Tensor(out), axis=axes), Tensor(counts.astype(x.dtype)))


def _places(shape: Any, columns: bool) -> Any:
    """The number of each element in the whole array; of pictures by columns, where asked."""
    places = np.arange(np.prod(shape), dtype=np.int64)
    if columns:
        return places.reshape(*shape[:2], *shape[:1:-1]).transpose(
            0, 1, *range(len(shape) - 1, 1, -1)
        )
    return places.reshape(shape)


def _windows(x: Any, kernel: Any, strides: Any, dilations: Any, sizes: Any) -> Any:
    """(B, C, *out, *kernel)."""
    n = len(kernel)
    steps = x.strides[2:]
    moves = [s * t for s, t in zip(steps, strides, strict=True)]
    inner = [s * d for s, d in zip(steps, dilations, strict=True)]
    shape = (*x.shape[:2], *sizes, *kernel)
    return np.lib.stride_tricks.as_strided(x, shape, (*x.strides[:2], *moves, *inner))[
        (slice(None),) * (2 + 2 * n)
    ].copy()


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global(c: Any, x: Tensor) -> Any:
    axes = tuple(range(2, x.ndim))
    return (A.mean if c.kind == "GlobalAveragePool" else A.max)(x, axis=axes, keepdims=True)


def _channels(v: Tensor, ndim: int) -> Tensor:
    return A.reshape(v, (-1,) + (1,) * (ndim - 2))


@operator("BatchNormalization")
def _batch_norm(c: Any, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Any:
    eps, training = c.get("epsilon", 1e-5), c.get("training_mode", 0)
    outs: tuple[Any, ...] = ()
    if training:
        axes, m = (0, *range(2, x.ndim)), c.get("momentum", 0.9)
        now = A.mean(x, axis=axes)
        spread = A.mean(A.square(A.subtract(x, _channels(now, x.ndim))), axis=axes)
        outs = tuple(
            A.add(A.multiply(old, m), A.multiply(new, 1 - m))
            for old, new in ((mean, now), (var, spread))
        )
        mean, var = now, spread
    factor = A.divide(scale, A.sqrt(A.add(var, eps)))
    shift = A.subtract(bias, A.multiply(mean, factor))
    y = A.add(A.multiply(x, _channels(factor, x.ndim)), _channels(shift, x.ndim))
    return (A.astype(y, dtype=x.dtype), *outs) if outs else A.astype(y, dtype=x.dtype)


def _normalised(x: Tensor, axes: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    centre = A.mean(x, axis=axes, keepdims=True)
    away = A.subtract(x, centre)
    rstd = A.reciprocal(A.sqrt(A.add(A.mean(A.square(away), axis=axes, keepdims=True), eps)))
    return A.multiply(away, rstd), centre, rstd


@operator("LayerNormalization")
def _layer_norm(c: Any, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Any:
    axes = tuple(range(c.get("axis", -1) % x.ndim, x.ndim))
    out, centre, rstd = _normalised(x, axes, c.get("epsilon", 1e-5))
    out = A.multiply(out, scale)
    return (out if bias is None else A.add(out, bias), centre, rstd)[: c.outputs]


@operator("RMSNormalization")
def _rms_norm(c: Any, x: Tensor, scale: Tensor) -> Any:
    axes = tuple(range(c.get("axis", -1) % x.ndim, x.ndim))
    mean = A.mean(A.square(x), axis=axes, keepdims=True)
    return A.multiply(A.divide(x, A.sqrt(A.add(mean, c.get("epsilon", 1e-5)))), scale)


@operator("InstanceNormalization")
def _instance_norm(c: Any, x: Tensor, scale: Tensor, bias: Tensor) -> Any:
    out, _, _ = _normalised(x, tuple(range(2, x.ndim)), c.get("epsilon", 1e-5))
    return A.add(A.multiply(out, _channels(scale, x.ndim)), _channels(bias, x.ndim))


@operator("GroupNormalization")
def _group_norm(c: Any, x: Tensor, scale: Tensor, bias: Tensor) -> Any:
    groups = c.get("num_groups")
    rows = A.reshape(x, (x.shape[0], groups, -1))
    out = A.reshape(_normalised(rows, (2,), c.get("epsilon", 1e-5))[0], x.shape)
    if scale.shape[0] != x.shape[1]:  # of opset 18: one number for each group
        scale, bias = (A.repeat(v, x.shape[1] // groups, axis=0) for v in (scale, bias))
    return A.add(A.multiply(out, _channels(scale, x.ndim)), _channels(bias, x.ndim))


@operator("MeanVarianceNormalization")
def _mean_variance(c: Any, x: Tensor) -> Any:
    return _normalised(x, tuple(c.get("axes", [0, 2, 3])), 1e-18)[0]


@operator("LpNormalization")
def _lp_norm(c: Any, x: Tensor) -> Any:
    axis, p = c.get("axis", -1), c.get("p", 2)
    size = A.abs(x) if p == 1 else A.square(x)
    total = A.sum(size, axis=axis, keepdims=True)
    total = total if p == 1 else A.sqrt(total)
    return A.where(A.equal(total, 0), 0.0, A.divide(x, A.where(A.equal(total, 0), 1.0, total)))


@operator("Dropout")
def _dropout(c: Any, x: Tensor, *_: Any) -> Any:
    return (x, Tensor(np.ones(x.shape, bool)))[: c.outputs]


@operator("LRN")
def _lrn(c: Any, x: Tensor) -> Any:
    size, alpha, beta = c.get("size"), c.get("alpha", 1e-4), c.get("beta", 0.75)
    squares, total = np.square(x.array), np.zeros_like(x.array)
    for i in range(x.shape[1]):
        low, high = max(i - (size - 1) // 2, 0), min(i + size // 2 + 1, x.shape[1])
        total[:, i] = squares[:, low:high].sum(1)
    return A.divide(
        x, A.pow(A.add(A.multiply(Tensor(total), alpha / size), c.get("bias", 1.0)), beta)
    )

"""Linear, convolution, normalisation, pooling, resampling, attention, embedding, dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
from rows import Array, Row, Sample, apart, distinct, sample, uniform

import bestiary as bt
import bestiary.core.nn.functional as F
from bestiary.core.errors import ConfigError, IndexRangeError, ShapeError
from bestiary.core.ops import dropout, normalization, resampling, rotary, sampling

# -- linear ------------------------------------------------------------------------------------


def _linear_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(uniform(rng, (2, 3)), uniform(rng, (4, 3)), uniform(rng, (4,))),
        sample(uniform(rng, (2, 2, 3)), uniform(rng, (4, 3)), None),
        sample(uniform(rng, (3,)), uniform(rng, (2, 3)), uniform(rng, (2,))),
        sample(uniform(rng, (0, 3)), uniform(rng, (4, 3)), uniform(rng, (4,))),
        sample(uniform(rng, (2, 0)), uniform(rng, (4, 0)), uniform(rng, (4,))),
    ]


def _linear(x: Array, w: Array, b: Any) -> Array:
    return np.asarray(x @ w.T + (0 if b is None else b))


def _rotary_samples(rng: np.random.Generator) -> list[Sample]:
    def turned(*shape: int, angles: tuple[int, ...], **constants: bool) -> Sample:
        turns = uniform(rng, angles)
        return sample(uniform(rng, shape), np.cos(turns), np.sin(turns), **constants)

    return [
        turned(2, 3, 5, 4, angles=(5, 2)),
        turned(2, 3, 5, 4, angles=(2, 1, 5, 2), back=True),
        turned(1, 6, angles=(1, 3)),
        turned(6, angles=(3,)),
        turned(0, 3, 4, angles=(3, 2)),
        turned(2, 0, angles=(2, 0)),
    ]


def _rotary(x: Array, cos: Array, sin: Array, *, back: bool = False) -> Array:
    half = x.shape[-1] // 2
    turned = (x[..., :half] + 1j * x[..., half:]) * (cos + (-1j if back else 1j) * sin)
    return np.concatenate([turned.real, turned.imag], axis=-1)


# -- convolution -------------------------------------------------------------------------------


def conv2d_by_definition(
    x: Array,
    w: Array,
    b: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Array:
    """From the definition: one product for each element of the kernel."""
    (sh, sw), (dh, dw) = np.broadcast_to(stride, 2), np.broadcast_to(dilation, 2)
    ends = (
        [tuple(np.broadcast_to(p, 2)) for p in np.broadcast_to(np.array(padding), (2,))]
        if (np.ndim(padding) < 2)
        else [tuple(p) for p in padding]
    )
    x = np.pad(x, ((0, 0), (0, 0), *ends))
    o, cg, kh, kw = w.shape
    oh = (x.shape[2] - dh * (kh - 1) - 1) // sh + 1
    ow = (x.shape[3] - dw * (kw - 1) - 1) // sw + 1
    out = np.zeros((x.shape[0], o, oh, ow))
    og = o // groups
    for k in range(groups):
        part, by = x[:, k * cg : (k + 1) * cg], w[k * og : (k + 1) * og]
        for i in range(kh):
            for j in range(kw):
                seen = part[:, :, i * dh :: sh, j * dw :: sw][:, :, :oh, :ow]
                out[:, k * og : (k + 1) * og] += np.einsum("bchw,oc->bohw", seen, by[:, :, i, j])
    return out if b is None else out + b.reshape(-1, 1, 1)


def _conv_samples(rng: np.random.Generator) -> list[Sample]:
    def image(*shape: int) -> Array:
        return uniform(rng, shape)

    return [
        sample(image(2, 3, 4, 5), image(4, 3, 3, 2), image(4), padding=1),
        sample(image(1, 2, 5, 4), image(3, 2, 3, 3), None, stride=2, padding=((1, 0), (2, 1))),
        sample(image(2, 4, 4, 4), image(6, 2, 3, 3), image(6), padding=2, dilation=2, groups=2),
        sample(image(2, 3, 4, 3), image(3, 1, 3, 3), image(3), padding=1, groups=3),
        sample(image(1, 2, 4, 3), image(4, 1, 2, 2), None, stride=(2, 1), groups=2),
        sample(image(2, 3, 3, 2), image(4, 3, 1, 1), image(4)),
        sample(image(2, 3, 3, 4), image(2, 3, 1, 1), None, stride=2),
        sample(image(0, 3, 4, 5), image(4, 3, 3, 3), image(4)),
        sample(image(1, 18, 3, 3), image(2, 18, 2, 2), None),
    ]


def _conv_large(rng: np.random.Generator) -> list[Sample]:
    def image(*shape: int) -> Array:
        return uniform(rng, shape, -1, 1)

    return [
        sample(image(3, 32, 30, 29), image(40, 32, 3, 3), image(40), padding=1),
        sample(image(2, 24, 31, 30), image(16, 24, 3, 3), None, stride=2, padding=1),
        sample(image(1, 3, 40, 41), image(20, 3, 7, 7), image(20), stride=2, padding=3),
        sample(image(2, 32, 20, 21), image(32, 1, 5, 5), image(32), padding=2, groups=32),
        sample(image(2, 32, 20, 21), image(48, 8, 3, 3), image(48), padding=1, groups=4),
        sample(image(2, 64, 17, 16), image(80, 64, 1, 1), image(80)),
    ]


def _conv1d(x: Array, w: Array, b: Any = None, stride: int = 1, padding: int = 0) -> Array:
    return conv2d_by_definition(x[:, :, None], w[:, :, None], b, (1, stride), (0, padding))[:, :, 0]


def _conv1d_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(uniform(rng, (2, 3, 6)), uniform(rng, (4, 3, 3)), uniform(rng, (4,)), padding=1),
        sample(uniform(rng, (2, 3, 7)), uniform(rng, (2, 3, 2)), None, stride=2),
    ]


def _transposed_samples(rng: np.random.Generator) -> list[Sample]:
    def image(*shape: int) -> Array:
        return uniform(rng, shape)

    return [
        sample(image(2, 3, 3, 2), image(3, 4, 3, 2), image(4), stride=2, padding=1),
        sample(image(1, 4, 2, 3), image(4, 1, 2, 2), image(2), groups=2, stride=(1, 2)),
        sample(image(1, 2, 3, 3), image(2, 3, 1, 1), None, stride=2, output_padding=1),
        sample(image(1, 2, 3, 3), image(2, 3, 3, 3), None, dilation=2, output_padding=1),
        sample(image(0, 2, 3, 3), image(2, 3, 3, 3), None),
    ]


def _transposed(
    x: Array,
    w: Array,
    b: Any = None,
    stride: Any = 1,
    padding: int = 0,
    output_padding: int = 0,
    groups: int = 1,
    dilation: int = 1,
) -> Array:
    """From the definition: each input pixel paints the kernel."""
    (sh, sw), (n, _, h, wd), (_, og, kh, kw) = np.broadcast_to(stride, 2), x.shape, w.shape
    cg = x.shape[1] // groups
    height = (h - 1) * sh + dilation * (kh - 1) + 1
    width = (wd - 1) * sw + dilation * (kw - 1) + 1
    out = np.zeros((n, og * groups, height + output_padding, width + output_padding))
    for k in range(groups):
        part, by = x[:, k * cg : (k + 1) * cg], w[k * cg : (k + 1) * cg]
        for i in range(h):
            for j in range(wd):
                spot = np.einsum("bc,cokl->bokl", part[:, :, i, j], by)
                rows = slice(i * sh, i * sh + dilation * (kh - 1) + 1, dilation)
                columns = slice(j * sw, j * sw + dilation * (kw - 1) + 1, dilation)
                out[:, k * og : (k + 1) * og, rows, columns] += spot
    out = out[:, :, padding : out.shape[2] - padding, padding : out.shape[3] - padding]
    return out if b is None else out + b.reshape(-1, 1, 1)


def _image(*shape: int) -> bt.Tensor:
    return bt.Tensor(np.zeros(shape, np.float32))


_CONV_ERRORS = (
    (lambda: F.conv2d(_image(3, 8, 8), _image(4, 3, 3, 3)), ShapeError, r"x\[None\]"),
    (
        lambda: F.conv2d(_image(2, 8, 8, 3), _image(4, 3, 3, 3)),
        ShapeError,
        r"permute_dims\(x, \(0, 3, 1, 2\)\)",
    ),
    (
        lambda: F.conv2d(_image(2, 1, 8, 8), _image(4, 3, 3, 3)),
        ShapeError,
        r"(?s)convert\('RGB'\).*in_channels=1",
    ),
    (lambda: F.conv2d(_image(2, 3, 2, 8), _image(4, 3, 3, 3)), ShapeError, "kernel covers 3 x 3"),
    (
        lambda: F.conv2d(_image(2, 3, 8, 8), _image(4, 3, 3, 3), None, 2, "same"),
        ConfigError,
        "stride of 1",
    ),
    (lambda: F.conv2d(_image(2, 3, 8, 8), _image(4, 3, 3, 3), _image(3)), ShapeError, "bias"),
)

# -- normalisation -----------------------------------------------------------------------------


def _normed(x: Array, axes: tuple[int, ...], eps: float = 1e-5) -> Array:
    centred = x - x.mean(axes, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axes, keepdims=True) + eps))


def _per_channel(v: Any, ndim: int, default: float) -> Any:
    return default if v is None else v.reshape((-1,) + (1,) * (ndim - 2))


def _affine(y: Array, w: Any, b: Any) -> Array:
    return np.asarray(y * _per_channel(w, y.ndim, 1) + _per_channel(b, y.ndim, 0))


def batch_norm(x: Any, w: Any, b: Any) -> Any:
    """Batch norm in training."""
    return F.batch_norm(x, None, None, w, b, True)


def _batch_norm(x: Array, w: Any, b: Any) -> Array:
    return _affine(_normed(x, (0, *range(2, x.ndim))), w, b)


def _channel_samples(rng: np.random.Generator) -> list[Sample]:
    w, b = uniform(rng, (4,)), uniform(rng, (4,))
    return [
        sample(uniform(rng, (5, 4)), w, b),
        sample(uniform(rng, (3, 4, 2)), w, None),
        sample(uniform(rng, (2, 4, 2, 3)), w, b),
        sample(uniform(rng, (2, 4, 2, 3)), None, None),
    ]


def _channel_large(rng: np.random.Generator) -> list[Sample]:
    w, b = uniform(rng, (40,)), uniform(rng, (40,))
    return [
        sample(uniform(rng, (3, 40, 30, 31)) + 3, w, b),
        sample(np.moveaxis(uniform(rng, (3, 30, 31, 40)) + 3, -1, 1), w, b),
        sample(uniform(rng, (700, 40)), w, None),
    ]


def _eval_large(rng: np.random.Generator) -> list[Sample]:
    rest = [uniform(rng, (40,)), uniform(rng, (40,), 0.5, 2)]
    affine = [uniform(rng, (40,)), uniform(rng, (40,))]
    return [
        sample(uniform(rng, (3, 40, 30, 31)), *rest, *affine),
        sample(np.moveaxis(uniform(rng, (3, 30, 31, 40)), -1, 1), *rest, *affine),
        sample(uniform(rng, (700, 40)), *rest, None, None),
    ]


def group_norm(x: Any, w: Any, b: Any) -> Any:
    return F.group_norm(x, 2, w, b)


def _group_norm(x: Array, w: Any, b: Any) -> Array:
    parts = _normed(x.reshape(x.shape[0], 2, -1), (2,))
    return _affine(parts.reshape(x.shape), w, b)


def _eval_samples(rng: np.random.Generator) -> list[Sample]:
    def small(low: float = -1, high: float = 1) -> Array:
        return uniform(rng, (3,), low, high)

    return [
        sample(uniform(rng, (2, 3, 2, 2)), small(), small(0.5, 2), small(), small()),
        sample(uniform(rng, (4, 3)), small(), small(0.5, 2), None, None),
        sample(uniform(rng, (0, 3, 2, 2)), small(), small(0.5, 2), small(), None),
    ]


def _batch_norm_eval(x: Array, m: Array, v: Array, w: Any, b: Any) -> Array:
    m, v = _per_channel(m, x.ndim, 0), _per_channel(v, x.ndim, 1)
    return _affine((x - m) / np.sqrt(v + 1e-5), w, b)


def _layer_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(uniform(rng, (2, 5)), uniform(rng, (5,)), uniform(rng, (5,)), shape=(5,)),
        sample(uniform(rng, (2, 3, 4)), uniform(rng, (3, 4)), None, shape=(3, 4)),
        sample(uniform(rng, (2, 3, 4)), None, None, shape=(4,)),
        sample(uniform(rng, (0, 4)), uniform(rng, (4,)), None, shape=(4,)),
    ]


def _layer_norm(x: Array, w: Any, b: Any, shape: Any) -> Array:
    y = _normed(x, tuple(range(-len(shape), 0))) if x.size else x
    return np.asarray(y * (1 if w is None else w) + (0 if b is None else b))


def layer_norm(x: Any, w: Any, b: Any, shape: Any) -> Any:
    return F.layer_norm(x, shape, w, b)


def rms_norm(x: Any, w: Any, b: Any, shape: Any) -> Any:
    return F.rms_norm(x, shape, w, 1e-5)


def _rms_norm(x: Array, w: Any, b: Any, shape: Any) -> Array:
    axes = tuple(range(-len(shape), 0))
    y = x / np.sqrt((x**2).mean(axes, keepdims=True) + 1e-5) if x.size else x
    return np.asarray(y * (1 if w is None else w))


def _layer_large(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(
            *(uniform(rng, (9, 40, 96)) + 2, uniform(rng, (96,)), uniform(rng, (96,))),
            shape=(96,),
        )
    ]


def running(mean: Any, var: Any, fresh_mean: Any, fresh_var: Any, *, momentum: float) -> Any:
    """The statistics after an update."""
    mean, var = mean.detach() * 1, var.detach() * 1
    normalization.update_running_stats(
        mean, var, fresh_mean, fresh_var, None, momentum=momentum, unbias=1.25
    )
    return mean, var


def _running(m: Array, v: Array, fm: Array, fv: Array, momentum: float) -> tuple[Array, Array]:
    return m + momentum * (fm - m), v + momentum * (1.25 * fv - v)


# -- pooling and resampling --------------------------------------------------------------------


def _windows(
    x: Array, size: Any, stride: Any, padding: Any, fill: float, dilation: int = 1
) -> list[list[Array]]:
    """The values of each window, outside ones `fill`, as (B, C, values)."""
    (kh, kw), (sh, sw), (ph, pw) = (np.broadcast_to(v, 2) for v in (size, stride, padding))
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=fill)
    reach = dilation * (kh - 1) + 1, dilation * (kw - 1) + 1
    return [
        [
            x[:, :, i : i + reach[0] : dilation, j : j + reach[1] : dilation].reshape(
                *x.shape[:2], kh * kw
            )
            for j in range(0, x.shape[3] - reach[1] + 1, sw)
        ]
        for i in range(0, x.shape[2] - reach[0] + 1, sh)
    ]


def _pooled(windows: list[list[Array]], reduce: Any) -> Array:
    return np.stack([np.stack([reduce(v) for v in row], -1) for row in windows], -2)


def _max_pool(
    x: Array, kernel_size: Any, stride: Any, padding: Any = 0, dilation: int = 1
) -> Array:
    windows = _windows(x, kernel_size, stride, padding, -np.inf, dilation)
    return _pooled(windows, lambda v: v.max(-1))


def _avg_pool(
    x: Array, kernel_size: Any, stride: Any, padding: Any = 0, count_include_pad: bool = True
) -> Array:
    fill = 0.0 if count_include_pad else np.nan
    return _pooled(_windows(x, kernel_size, stride, padding, fill), lambda v: np.nanmean(v, -1))


def _pool_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(distinct(rng, (2, 3, 4, 6)), kernel_size=2, stride=2),
        sample(distinct(rng, (1, 2, 5, 4)), kernel_size=(3, 2), stride=(2, 1), padding=(1, 0)),
        sample(distinct(rng, (1, 2, 5, 5)), kernel_size=3, stride=1, padding=1),
        sample(distinct(rng, (0, 2, 4, 4)), kernel_size=2, stride=2),
    ]


def _resample_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(uniform(rng, (2, 3, 4, 5)), size=(7, 3), mode="bilinear"),
        sample(uniform(rng, (2, 3, 4, 5)), size=(6, 10), mode="nearest"),
        sample(uniform(rng, (1, 2, 4, 3)), scale_factor=1.5, mode="bicubic"),
        sample(uniform(rng, (1, 2, 4, 3)), size=(2, 3), mode="area"),
        sample(uniform(rng, (1, 2, 5)), size=8, mode="linear", align_corners=True),
        sample(uniform(rng, (0, 2, 4, 3)), size=(2, 5), mode="bilinear"),
    ]


def _adaptive(x: Array, output_size: Any) -> Array:
    def parts(n: int, m: int) -> list[slice]:
        return [slice(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]

    rows, columns = parts(x.shape[2], output_size[0]), parts(x.shape[3], output_size[1])
    return np.stack([np.stack([x[:, :, r, c].mean((2, 3)) for c in columns], -1) for r in rows], -2)


def _adaptive_max(x: Array, output_size: Any) -> Array:
    def parts(n: int, m: int) -> list[slice]:
        return [slice(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]

    rows, columns = parts(x.shape[2], output_size[0]), parts(x.shape[3], output_size[1])
    return np.stack([np.stack([x[:, :, r, c].max((2, 3)) for c in columns], -1) for r in rows], -2)


def _adaptive_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(distinct(rng, (2, 3, 5, 4)), output_size=size)
        for size in ((1, 1), (2, 3), (5, 2), (1, 4))
    ]


def _flow(x: Array, kernel_size: tuple[int, int]) -> Array:
    kh, kw = kernel_size
    oh, ow = x.shape[2] - kh + 1, x.shape[3] - kw + 1
    parts = [
        x[:, :, i : i + oh, j : j + ow].reshape(*x.shape[:2], 1, -1)
        for i in range(kh)
        for j in range(kw)
    ]
    return np.concatenate(parts, 2).reshape(x.shape[0], -1, oh * ow)


def _grid_samples(rng: np.random.Generator) -> list[Sample]:
    made = []
    for outside in ("zeros", "border", "reflection"):
        x, grid = uniform(rng, (2, 2, 3, 4)), uniform(rng, (2, 2, 3, 2), -1.3, 1.3)
        made.append(sample(x, grid, padding_mode=outside))
    made.append(sample(uniform(rng, (2, 2, 3, 4)), uniform(rng, (2, 0, 3, 2))))
    return made


def _points(rng: np.random.Generator) -> list[Sample]:
    """Inside a picture of 3 x 4, outside it and at its border; none between two pixels' reach."""
    made = []
    for mode, corners in (("bilinear", range(-2, 6)), ("nearest", np.arange(-2.5, 6))):
        row, column = (apart(rng, (2, 2, 3), corners, -1.8, top) for top in (3.8, 4.8))
        made.append(sample(uniform(rng, (2, 2, 3, 4)), row, column, mode=mode))
    nowhere = uniform(rng, (2, 0, 3))
    return [*made, sample(uniform(rng, (2, 2, 3, 4)), nowhere, nowhere, mode="bilinear")]


def _many_points(rng: np.random.Generator) -> list[Sample]:
    row, column = (uniform(rng, (2, 50, 60), -1, top) for top in (30, 40))
    return [sample(uniform(rng, (2, 20, 30, 40)), row, column, mode="bilinear")]


def _sampled(x: Array, row: Array, column: Array, mode: str) -> Array:
    """Each pixel counts as much as the point is near it."""
    weights = []
    for n, place in zip(x.shape[2:], (row, column), strict=True):
        distance = np.abs(place[..., None] - np.arange(n))
        weights.append(np.maximum(1 - distance, 0) if mode == "bilinear" else distance < 0.5)
    return np.einsum("bcij,bxyi,bxyj->bcxy", x, *weights, optimize=True)


# -- attention, embedding, dropout -------------------------------------------------------------


def _attention(
    q: Array, k: Array, v: Array, mask: Any = None, is_causal: bool = False, **_: Any
) -> Array:
    group = q.shape[-3] // k.shape[-3]
    k, v = np.repeat(k, group, -3), np.repeat(v, group, -3)
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    if is_causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True, initial=-1e9))
    return np.asarray(p / np.maximum(p.sum(-1, keepdims=True), 1e-300) @ v)


def _attention_samples(rng: np.random.Generator) -> list[Sample]:
    def heads(*shape: int) -> Array:
        return uniform(rng, shape)

    q, k, v = heads(2, 2, 3, 4), heads(2, 2, 5, 4), heads(2, 2, 5, 3)
    mask = rng.uniform(0, 1, (2, 1, 3, 5)) < 0.7
    mask[0, 0, 1] = False  # a query that may attend to nothing
    return [
        sample(q, k, v),
        sample(q, k, v, mask),
        sample(q, k, v, heads(2, 3, 5)),
        sample(heads(1, 2, 4, 3), heads(1, 2, 4, 3), heads(1, 2, 4, 3), is_causal=True),
        sample(heads(2, 4, 3, 2), heads(2, 2, 4, 2), heads(2, 2, 4, 2), enable_gqa=True),
        sample(heads(2, 3, 2), heads(2, 4, 2), heads(2, 4, 2)),
        sample(heads(0, 2, 3, 2), heads(0, 2, 4, 2), heads(0, 2, 4, 2)),
    ]


def _attention_large(rng: np.random.Generator) -> list[Sample]:
    def heads(*shape: int) -> Array:
        return uniform(rng, shape)

    return [
        sample(heads(2, 4, 300, 16), heads(2, 4, 310, 16), heads(2, 4, 310, 16)),
        sample(*(heads(1, 4, 300, 16) for _ in range(3)), is_causal=True),
        sample(
            *(heads(1, 8, 200, 8), heads(1, 2, 400, 8), heads(1, 2, 400, 8)),
            *(heads(1, 1, 200, 400),),
            enable_gqa=True,
        ),
    ]


def dropped_attention(q: Any, k: Any, v: Any) -> Any:
    """Attention with dropout, the same every time."""
    return F.scaled_dot_product_attention(
        q, k, v, dropout_p=0.4, is_causal=True, generator=bt.core.random.Generator(3, q.device)
    )


def embedded(ids: Any, weight: Any, *, padding_idx: int | None = None) -> Any:
    return F.embedding(ids, weight, padding_idx)


def _ids(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(rng.integers(0, 5, (2, 3)), uniform(rng, (5, 4))),
        sample(np.array([1, 1, 1]), uniform(rng, (3, 2)), padding_idx=None),
        sample(np.zeros((0, 2), np.int64), uniform(rng, (3, 2))),
        sample(np.array(2), uniform(rng, (3, 2))),
    ]


def _small_taps() -> Any:
    return resampling.averaging_taps(5, 2)


ROWS = [
    Row(
        F.linear,
        _linear_samples,
        covers=("linear", "linear_input_grad", "linear_weight_grad"),
        reference=_linear,
        half_ulp=1,
        errors=(
            (
                lambda: F.linear(_image(2, 64, 6, 6).reshape(2, -1), _image(10, 256)),
                ShapeError,
                r"(?s)256 features.*2304 = 64x6x6.*Linear\(2304, 10\)",
            ),
        ),
    ),
    Row(rotary.rotate_halves, _rotary_samples, reference=_rotary, fixed=(1, 2)),
    Row(
        F.conv2d,
        _conv_samples,
        covers=("conv2d", "conv2d_input_grad", "conv2d_weight_grad"),
        reference=conv2d_by_definition,
        large=_conv_large,
        errors=_CONV_ERRORS,
    ),
    Row(F.conv1d, _conv1d_samples, reference=_conv1d),
    Row(F.conv_transpose2d, _transposed_samples, reference=_transposed),
    Row(
        batch_norm,
        _channel_samples,
        name="batch_norm_training",
        covers=("batch_norm", "batch_norm_stats", "batch_norm_backward", "channel_sum"),
        reference=_batch_norm,
        half_ulp=1,
        large=_channel_large,
        keeps_layout=True,
        errors=(
            (
                lambda: F.batch_norm(_image(1, 4), None, None, training=True),
                ShapeError,
                "(?s)1201.*drop_last=True",
            ),
            (
                lambda: F.batch_norm(_image(2, 4), _image(3), _image(3)),
                ShapeError,
                r"BatchNorm2d\(4\)",
            ),
        ),
    ),
    Row(
        F.batch_norm,
        _eval_samples,
        name="batch_norm_eval",
        covers=("batch_norm_inference", "channel_sums", "scale_channels"),
        reference=_batch_norm_eval,
        large=_eval_large,
        keeps_layout=True,
    ),
    Row(
        running,
        lambda rng: [sample(*(uniform(rng, (4,), 0.1, 2) for _ in range(4)), momentum=0.3)],
        covers=("update_running_stats",),
        reference=_running,
        order=0,
    ),
    Row(
        group_norm,
        _channel_samples,
        covers=("group_norm_backward",),
        reference=_group_norm,
        half_ulp=1,
        large=_channel_large,
        keeps_layout=True,
    ),
    Row(
        layer_norm,
        _layer_samples,
        covers=("layer_norm_backward",),
        reference=_layer_norm,
        large=_layer_large,
        errors=((lambda: F.layer_norm(_image(2, 3), 4), ShapeError, "last axes"),),
    ),
    Row(
        rms_norm,
        _layer_samples,
        covers=("rms_norm_backward",),
        reference=_rms_norm,
        large=_layer_large,
    ),
    Row(
        F.max_pool2d,
        _pool_samples,
        covers=("max_pool2d", "max_unpool", "max_pick"),
        reference=_max_pool,
        large=lambda rng: [
            sample(distinct(rng, (2, 20, 30, 31)), kernel_size=3, stride=2, padding=1)
        ],
        half_ulp=0,
        keeps_layout=True,
        errors=((lambda: F.max_pool2d(_image(3, 8, 8), 2), ShapeError, r"x\[None\]"),),
    ),
    Row(
        F.avg_pool2d,
        lambda rng: [
            *_pool_samples(rng),
            sample(
                uniform(rng, (1, 2, 5, 4)),
                kernel_size=3,
                stride=2,
                padding=1,
                count_include_pad=False,
            ),
        ],
        covers=("avg_pool2d", "avg_unpool"),
        reference=_avg_pool,
        keeps_layout=True,
    ),
    Row(
        F.adaptive_avg_pool2d,
        _adaptive_samples,
        covers=("global_avg_pool", "global_avg_unpool"),
        reference=_adaptive,
        half_ulp=None,
        keeps_layout=True,
    ),
    Row(F.adaptive_max_pool2d, _adaptive_samples, reference=_adaptive_max, half_ulp=0),
    Row(
        resampling.resample,
        lambda rng: [sample(uniform(rng, (2, 3, 2, 5)), taps=_small_taps(), axis=3)],
        reference=lambda x, taps, axis: np.stack([x[..., :3].mean(-1), x[..., 2:].mean(-1)], -1),
        covers=("resample",),
        keeps_layout=True,
    ),
    Row(F.interpolate, _resample_samples, half_ulp=None, keeps_layout=True),
    Row(
        F.unfold,
        lambda rng: [sample(uniform(rng, (2, 3, 4, 5)), kernel_size=(2, 3))],
        covers=("unfold", "fold"),
        reference=_flow,
        half_ulp=0,
    ),
    Row(
        F.grid_sample,
        _grid_samples,
        dtypes=("float32", "float64"),  # positions in halves are another pixel's
    ),
    Row(
        lambda x, row, column, mode: sampling._sample(x, row, column, mode=mode),
        _points,
        name="sample_at_points",
        covers=("grid_places", "grid_sample_backward"),
        reference=_sampled,
        large=_many_points,
        keeps_layout=True,
        dtypes=("float32", "float64"),
    ),
    Row(
        F.affine_grid,
        lambda rng: [sample(uniform(rng, (2, 2, 3)), size=(2, 1, 3, 4))],
        covers=("affine_points",),
        half_ulp=None,
    ),
    Row(
        F.scaled_dot_product_attention,
        _attention_samples,
        covers=("attention", "attention_backward", "causal_mask"),
        reference=_attention,
        large=_attention_large,
        errors=(
            (
                lambda: F.scaled_dot_product_attention(
                    _image(1, 4, 3, 2), _image(1, 2, 3, 2), _image(1, 2, 3, 2)
                ),
                ShapeError,
                "enable_gqa=True",
            ),
        ),
    ),
    Row(
        dropped_attention,
        lambda rng: [sample(*(uniform(rng, (1, 2, 3, 2)) for _ in range(3)))],
        covers=("attention_dropout",),
        half_ulp=None,
    ),
    Row(
        embedded,
        _ids,
        covers=("embedding", "embedding_grad"),
        reference=lambda ids, weight, padding_idx=None: weight[ids],
        half_ulp=0,
        errors=(
            (
                lambda: F.embedding(bt.asarray([[1, 9]]), _image(5, 2)),
                IndexRangeError,
                r"id 9 at index \(0, 1\).*5 entries",
            ),
        ),
    ),
    Row(
        dropout.keep,
        lambda rng: [sample(uniform(rng, (2, 3)), rng.uniform(0, 1, (2, 3)) < 0.5, scale=2.0)],
        reference=lambda x, kept, scale: x * kept * scale,
    ),
]

"""Softmax and normalisations. Arrays are float32 and C-contiguous.

Layer norm works along the last axis of (..., D). Batch norm works on (..., C), the channels last:
for a channels-last tensor of shape NCHW, that is `x.transpose(0, 2, 3, 1)`, which is no copy.
Sums over rows go through float64 in a fixed order: results do not depend on the threads.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError
from .runtime import Float32, check, grain_for, output, run

Clamp = tuple[float, float]

NO_CLAMP: Clamp = (-math.inf, math.inf)
RELU: Clamp = (0.0, math.inf)

_PARTIALS = 64  # at most this many partial results in a reduction over rows
_RUN = 32  # rows.h: rows that are summed in float32 before they go to float64


def softmax(x: Float32, out: Float32 | None = None, lse: Float32 | None = None) -> Float32:
    """Softmax along the last axis; `out` may be `x`. A row of -inf gives zeros.

    `lse` receives the logsumexp of each row, 0 for a row of -inf.

    Shape: (..., D) -> (..., D), lse (...).
    """
    rows, d = _rows("softmax", "x", x)
    out = output("softmax", out, x.shape)
    if lse is not None:
        check("softmax", "lse", lse, x.shape[:-1])
    run("softmax", (x, out, lse), (d,), (), rows, grain_for(d))
    return out


def log_softmax(x: Float32, out: Float32 | None = None) -> Float32:
    """Logarithm of softmax along the last axis; `out` may be `x`. A row of -inf stays.

    Shape: (..., D) -> (..., D).
    """
    rows, d = _rows("log_softmax", "x", x)
    out = output("log_softmax", out, x.shape)
    run("log_softmax", (x, out), (d,), (), rows, grain_for(d))
    return out


def log_softmax_backward(g: Float32, y: Float32, out: Float32 | None = None) -> Float32:
    """Gradient of the input of log-softmax, given its output: g - exp(y) sum(g).

    Shape: (..., D) all. `out` may be `g`.
    """
    rows, d = _rows("log_softmax_backward", "y", y)
    check("log_softmax_backward", "g", g, y.shape)
    out = output("log_softmax_backward", out, y.shape)
    run("log_softmax_backward", (g, y, out), (d,), (), rows, grain_for(d))
    return out


def softmax_backward(g: Float32, y: Float32, out: Float32 | None = None) -> Float32:
    """Gradient of the input of softmax, given its output: y (g - sum(g y)).

    Shape: (..., D) all. `out` may be `g`.
    """
    rows, d = _rows("softmax_backward", "y", y)
    check("softmax_backward", "g", g, y.shape)
    out = output("softmax_backward", out, y.shape)
    run("softmax_backward", (g, y, out), (d,), (), rows, grain_for(d))
    return out


def layer_norm(
    x: Float32,
    weight: Float32 | None = None,
    bias: Float32 | None = None,
    *,
    eps: float = 1e-5,
    centre: bool = True,
    out: Float32 | None = None,
) -> tuple[Float32, Float32, Float32]:
    """Layer norm along the last axis; RMS norm where `centre` is False (mean is then 0).

    Shape: x (..., D), weight and bias (D,) -> y (..., D), mean (...), rstd (...), the last two
    as `layer_norm_backward` wants them. `out` may be `x`.
    """
    rows, d = _rows("layer_norm", "x", x)
    weight, bias = _affine("layer_norm", weight, bias, d)
    out = output("layer_norm", out, x.shape)
    mean = np.empty(x.shape[:-1], np.float32)
    rstd = np.empty(x.shape[:-1], np.float32)
    arrays = (x, weight, bias, out, mean, rstd)
    run("layer_norm", arrays, (d, int(centre)), (eps,), rows, grain_for(d))
    return out, mean, rstd


def layer_norm_backward(
    g: Float32,
    x: Float32,
    weight: Float32 | None,
    mean: Float32,
    rstd: Float32,
    *,
    centre: bool = True,
    needs: tuple[bool, bool] = (True, True),
) -> tuple[Float32 | None, Float32 | None, Float32 | None]:
    """Gradients of layer norm (RMS norm where `centre` is False).

    `needs` says whether the input's, and whether the weight's and bias' are wanted.

    Shape: g, x (..., D), weight (D,), mean and rstd (...) -> dx (..., D), dweight, dbias (D,).
    """
    rows, d = _rows("layer_norm_backward", "x", x)
    check("layer_norm_backward", "g", g, x.shape)
    check("layer_norm_backward", "mean", mean, x.shape[:-1])
    check("layer_norm_backward", "rstd", rstd, x.shape[:-1])
    weight, _ = _affine("layer_norm_backward", weight, None, d)
    dx = None
    if needs[0]:
        dx = np.empty_like(x)
        arrays = (g, x, weight, mean, rstd, dx)
        run("layer_norm_backward", arrays, (d, int(centre)), (), rows, grain_for(d))
    if not needs[1]:
        return dx, None, None
    grain, partial = _partials(rows, d)
    run("layer_norm_sums", (g, x, mean, rstd, partial), (d,), (), rows, grain)
    dbias, dweight = partial.sum(0).astype(np.float32)
    return dx, dweight, dbias


def batch_norm_stats(x: Float32) -> tuple[Float32, Float32]:
    """Mean and biased variance of each channel, from accurate partial sums.

    Shape: (..., C) -> (C,), (C,). Raises: ShapeError when there is no row.
    """
    rows, c = _rows("batch_norm_stats", "x", x)
    if rows == 0:
        raise ShapeError(
            f"native.batch_norm_stats: needs at least one value per channel, got {x.shape}",
            got=x.shape,
        )
    grain, partial = _partials(rows, c)
    run("channel_stats", (x, partial), (c,), (), rows, grain)
    counts = np.full((len(partial), 1), float(grain))
    counts[-1] = rows - grain * (len(partial) - 1)
    means, squares = partial[:, 0], partial[:, 1]
    mean = (counts * means).sum(0) / rows
    squares = squares.sum(0) + (counts * (means - mean) ** 2).sum(0)
    return mean.astype(np.float32), (squares / rows).astype(np.float32)


def sample_stats(x: Float32) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and biased variance of each channel of each sample.

    Shape: (B, rows, C) -> (B, C), (B, C) in float64.
    """
    check("sample_stats", "x", x, (None, None, None))
    b, rows, c = x.shape
    most = min(-(-_PARTIALS // max(b, 1)), rows // _RUN)
    parts = next((n for n in range(most, 1, -1) if rows % n == 0), 1)  # no block of two samples
    grain = rows // parts
    partial = np.zeros((b, parts, 2, c))
    if x.size:
        run("channel_stats", (x, partial.reshape(-1, 2, c)), (c,), (), b * rows, grain)
    means, squares = partial[:, :, 0], partial[:, :, 1]
    if parts == 1:
        return means[:, 0], squares[:, 0] / rows
    mean = means.mean(1)
    spread = squares.sum(1) + grain * ((means - mean[:, None]) ** 2).sum(1)
    return mean, spread / rows


def batch_norm_apply(
    x: Float32,
    mean: Float32,
    scale: Float32,
    shift: Float32,
    *,
    clamp: Clamp = NO_CLAMP,
    out: Float32 | None = None,
) -> Float32:
    """(x - mean) scale + shift for each channel, clamped (`RELU`) in the same pass.

    Shape: x (..., C), the others (C,) -> (..., C). `out` may be `x`.
    """
    rows, c = _rows("batch_norm_apply", "x", x)
    for name, array in (("mean", mean), ("scale", scale), ("shift", shift)):
        check("batch_norm_apply", name, array, (c,))
    out = output("batch_norm_apply", out, x.shape)
    run("channel_affine", (x, mean, scale, shift, out), (c,), clamp, rows, grain_for(c))
    return out


def batch_norm_backward(
    g: Float32,
    x: Float32,
    weight: Float32 | None,
    mean: Float32,
    var: Float32,
    *,
    eps: float = 1e-5,
    needs_input: bool = True,
) -> tuple[Float32 | None, Float32, Float32]:
    """Gradients of batch norm in training, where mean and (biased) var came from x itself.

    Shape: g, x (..., C), the others (C,) -> dx (..., C), dweight (C,), dbias (C,).
    """
    rows, c = _rows("batch_norm_backward", "x", x)
    check("batch_norm_backward", "var", var, (c,))
    weight, _ = _affine("batch_norm_backward", weight, None, c)
    dbias, dot = channel_sums(g, x, mean)
    rstd = 1.0 / np.sqrt(var.astype(np.float64) + eps)
    dweight = (dot * rstd).astype(np.float32)
    if not needs_input:
        return None, dweight, dbias.astype(np.float32)
    by_g = weight * rstd
    by_x = -by_g * rstd * rstd * dot / max(rows, 1)
    constant = -by_g * dbias / max(rows, 1)
    factors = (v.astype(np.float32) for v in (by_g, by_x, constant))
    dx = np.empty_like(x)
    run("batch_norm_backward", (g, x, mean, *factors, dx), (c,), (), rows, grain_for(c))
    return dx, dweight, dbias.astype(np.float32)


def channel_sums(
    g: Float32, x: Float32, mean: Float32
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums over rows of g, and of g (x - mean), for each channel.

    Shape: g, x (..., C), mean (C,) -> (C,), (C,) in float64.
    """
    rows, c = _rows("channel_sums", "x", x)
    check("channel_sums", "g", g, x.shape)
    check("channel_sums", "mean", mean, (c,))
    grain, partial = _partials(rows, c)
    run("channel_sums", (g, x, mean, partial), (c,), (), rows, grain)
    first, second = partial.sum(0)
    return first, second


def channel_sum(x: Float32) -> Float32:
    """Sum over rows for each channel, for bias gradients. Shape: (..., C) -> (C,)."""
    rows, c = _rows("channel_sum", "x", x)
    grain, partial = _partials(rows, c)
    run("column_sum", (x, partial), (c,), (), rows, grain)
    total: Float32 = partial[:, 0].sum(0).astype(np.float32)
    return total


def _rows(where: str, name: str, x: Float32) -> tuple[int, int]:
    check(where, name, x)
    if x.ndim == 0:
        raise ShapeError(f"native.{where}: {name} needs at least one axis", got=x.shape)
    return math.prod(x.shape[:-1]), x.shape[-1]


def _affine(
    where: str, weight: Float32 | None, bias: Float32 | None, length: int
) -> tuple[Float32, Float32]:
    if weight is None:
        weight = np.ones(length, np.float32)
    if bias is None:
        bias = np.zeros(length, np.float32)
    check(where, "weight", weight, (length,))
    check(where, "bias", bias, (length,))
    return weight, bias


def _partials(rows: int, length: int) -> tuple[int, NDArray[np.float64]]:
    """Rows in a block, and an array (blocks, 2, length) for what the blocks give."""
    grain = max(-(-rows // _PARTIALS), grain_for(length, 32768), _RUN)
    return grain, np.zeros((-(-rows // grain), 2, length))

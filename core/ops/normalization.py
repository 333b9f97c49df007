"""Batch normalisation, sums over channels, and what all normalisations share.

Statistics are handed around in float64: they are few, and float64 results are not rounded when
the data is a half type. Results have the memory layout of their input, channels-last included.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import dtypes
from ..errors import ShapeError
from ..op import op
from ..operands import check_same_float
from ..state import state
from .elementwise import sqrt, square
from .reduction import mean, total
from .shape import broadcast_to, reshape

if TYPE_CHECKING:
    from ..tensor import Tensor

SMALL = 8192  # elements that are summed plainly
_ROWS = 256  # squared and summed at once; the sums are added in float64


def flat_rows(x: Any, axes: int = 1) -> Any:
    """All axes but the last ones joined, and the last ones: (rows, D)."""
    split = x.ndim - axes
    return x.reshape(math.prod(x.shape[:split]), math.prod(x.shape[split:]))


def channel_rows(x: Any) -> Any:
    """A view of (B, C, ...) as (rows, C); None where its memory is not channels-last."""
    last = x if x.ndim == 2 else x.transpose(0, *range(2, x.ndim), 1)
    return flat_rows(last) if last.flags.c_contiguous else None


def per_channel(v: Any, ndim: int) -> Any:
    """(C,) shaped so that it is broadcast along axis 1."""
    return v if ndim == 2 else v.reshape((-1,) + (1,) * (ndim - 2))


# -- sums over channels ------------------------------------------------------------------------


@op(wide=True)
def channel_sum(xp: Any, x: Tensor, *, axis: int = 1) -> Tensor:
    """The sum over all axes but one, with accurate partial sums in either memory layout."""
    kept = axis % x.ndim
    if x.ndim == 2 and x.size <= SMALL:
        return x.sum(1 - kept)
    return total(xp, x, tuple(i for i in range(x.ndim) if i != kept), keepdims=False)


@channel_sum.backward
def _(g, shapes, axis):
    shape = shapes[0]
    place = axis % len(shape)
    return broadcast_to(reshape(g, (-1,) + (1,) * (len(shape) - place - 1)), shape)


@op(outputs=2, wide=True)
def channel_sums(xp: Any, grad: Tensor, x: Tensor, mean_: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of grad and of grad (x - mean) over all axes but the channels'.

    Shape: grad, x (B, C, ...), mean (C,) -> (C,), (C,).
    """
    centred = x - per_channel(mean_.astype(x.dtype), x.ndim)
    return channel_sum(grad), channel_sum(grad * centred)


@channel_sums.backward
def _(g, grad, x, mean_, needs):
    first, second = g
    ndim = len(x.shape)
    grads: Any = [None, None, None]
    if needs[0] and first is not None:
        grads[0] = broadcast_to(per_channel(first, ndim), x.shape)
    if second is not None:
        by = per_channel(second, ndim)
        if needs[0]:
            own = by * (x - per_channel(mean_, ndim))
            grads[0] = own if grads[0] is None else grads[0] + own
        grads[1] = by * grad if needs[1] else None
        grads[2] = -second * channel_sum(grad) if needs[2] else None
    return tuple(grads)


@op(wide=True)
def scale_channels(xp: Any, x: Tensor, factor: Tensor) -> Tensor:
    """Every channel times its factor. Shape: x (B, C, ...), factor (C,) -> as x."""
    return x * per_channel(factor.astype(x.dtype), x.ndim)


@scale_channels.backward
def _(g, x, factor, needs):
    return (
        scale_channels(g, factor) if needs[0] else None,
        channel_sum(g * x) if needs[1] else None,
    )


def sum_rows(x: Any) -> Any:
    """The sum over all axes but the last; arrays and tensors alike."""
    return channel_sum(x, axis=-1)


# -- batch norm --------------------------------------------------------------------------------


@op(outputs=2, differentiable=False, wide=True)
def batch_norm_stats(xp: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, in float64."""
    count = x.size // x.shape[1]
    centre: Any = channel_sum(x).astype(np.float64) / count
    rows = channel_rows(x) if xp is np else None
    if rows is None or rows.shape[0] <= _ROWS:
        offset = x - per_channel(centre.astype(x.dtype), x.ndim)
        offset *= offset
        return centre, channel_sum(offset).astype(np.float64) / count
    squares: Any = np.zeros(x.shape[1])
    near = centre.astype(x.dtype)
    ones = np.ones(_ROWS, x.dtype)
    for start in range(0, rows.shape[0], _ROWS):
        offset = rows[start : start + _ROWS] - near
        offset *= offset
        squares += ones[: len(offset)] @ offset
    return centre, squares / count


def _batch_norm_of(
    x: Tensor,
    mean_: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    eps: float,
) -> Tensor:
    axes = (0, *range(2, x.ndim))
    centred = x - mean(x, axis=axes, keepdims=True)
    out = centred / sqrt(mean(square(centred), axis=axes, keepdims=True) + eps)
    return _affine(out, weight, bias, x.ndim)


def _affine(out: Any, weight: Any, bias: Any, ndim: int) -> Any:
    if weight is not None:
        out = out * per_channel(weight, ndim)
    return out if bias is None else out + per_channel(bias, ndim)


def _scale(var: Any, weight: Any, eps: float) -> Any:
    rstd = (var.astype(np.float64) + eps) ** -0.5
    return rstd if weight is None else rstd * weight


def _normalized(xp: Any, x: Any, centre: Any, scale: Any, bias: Any) -> Any:
    out = x - per_channel(centre.astype(x.dtype), x.ndim)
    out *= per_channel(scale.astype(x.dtype), x.ndim)
    if bias is not None:
        out += per_channel(bias, x.ndim)
    return out


@op(name="batch_norm", composite=_batch_norm_of, wide=True)
def batch_norm_train(
    xp: Any,
    x: Tensor,
    mean_: Tensor,
    var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float,
) -> Tensor:
    """Normalise with the batch's own statistics, which are functions of x in the gradient."""
    return _normalized(xp, x, mean_, _scale(var, weight, eps), bias)


@batch_norm_train.backward
def _(g, x, mean_, var, weight, bias, eps, needs):
    dx, dweight, dbias = batch_norm_backward(
        g, x, mean_, var, weight, eps=eps, input_needed=needs[0]
    )
    return dx, None, None, dweight, dbias


@op(outputs=3, wide=True)
def batch_norm_backward(
    xp: Any,
    grad: Tensor,
    x: Tensor,
    mean_: Tensor,
    var: Tensor,
    weight: Tensor | None = None,
    *,
    eps: float,
    input_needed: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of batch norm in training for its input, weight and bias."""
    count = x.size // x.shape[1]
    rstd = (var + eps) ** -0.5
    centred = x - per_channel(mean_.astype(x.dtype), x.ndim)
    dbias = channel_sum(grad)
    dot = channel_sum(grad * centred)
    dweight = (dot * rstd).astype(x.dtype)
    if not input_needed:
        return None, dweight, dbias
    by_g = rstd if weight is None else rstd * weight
    centred *= per_channel((-by_g * rstd * rstd * dot / count).astype(x.dtype), x.ndim)
    centred += per_channel((-by_g * dbias / count).astype(x.dtype), x.ndim)
    centred += grad * per_channel(by_g.astype(x.dtype), x.ndim)
    return centred, dweight, dbias


@op(name="batch_norm_inference", same_float=True, wide=True)
def batch_norm_inference(
    xp: Any,
    x: Tensor,
    mean_: Tensor,
    var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float,
) -> Tensor:
    """Normalise with statistics that are given."""
    return _normalized(xp, x, mean_, _scale(var, weight, eps), bias)


@batch_norm_inference.backward
def _(g, x, mean_, var, weight, eps, needs):
    rstd = (var + eps) ** -0.5
    scale = rstd if weight is None else rstd * weight
    grads = [scale_channels(g, scale) if needs[0] else None, None, None, None, None]
    if needs[2] or needs[3]:
        total_, dot = channel_sums(g, x, mean_)
        grads[2] = dot * scale * (rstd * rstd) * -0.5 if needs[2] else None
        grads[3] = dot * rstd if needs[3] else None
    elif needs[1] or needs[4]:
        total_ = channel_sum(g)
    grads[1] = -total_ * scale if needs[1] else None
    grads[4] = total_ if needs[4] else None
    return tuple(grads)


@op(writes=("running_mean", "running_var"), differentiable=False)
def update_running_stats(
    xp: Any,
    running_mean: Tensor,
    running_var: Tensor,
    mean_: Tensor,
    var: Tensor,
    steps: Tensor | None = None,
    *,
    momentum: float | None,
    unbias: float,
) -> None:
    """Move running statistics towards a batch's; to the plain average where momentum is None.

    Args:
        steps: the number of batches so far with this one, for the plain average.
        unbias: what makes the batch's variance unbiased, n / (n - 1).
    """
    share = momentum if momentum is not None else 1.0 / steps  # type: ignore[operator]
    for running, fresh, factor in ((running_mean, mean_, 1.0), (running_var, var, unbias)):
        wide = running.astype(np.float64)
        running[...] = (wide + (fresh * factor - wide) * share).astype(running.dtype)


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    num_batches: Tensor | None = None,
) -> Tensor:
    """Normalise each channel over the batch, or with the running statistics.

    Args:
        training: use the batch's statistics, and move the running ones towards them.
        momentum: how far they move; None makes them plain averages, and needs `num_batches`,
            the number of batches seen, this one included.

    Shape: x (B, C, ...), the others (C,).
    Raises:
        ShapeError: training on a single value in each channel, or C differs.
    Source: Ioffe and Szegedy 2015, "Batch normalization".
    """
    channels = x.shape[1] if x.ndim > 1 else -1
    for name, v in (("running_mean", running_mean), ("weight", weight), ("bias", bias)):
        if v is not None and v.shape != (channels,):
            raise ShapeError(
                f"batch_norm: {name} is for {v.size} channels, x has shape {tuple(x.shape)} "
                f"(its axis 1 holds the channels).\nMake the layer fit: BatchNorm2d({channels})",
                expected=v.size,
                got=tuple(x.shape),
            )
    if running_mean is not None and running_var is not None and not training:
        out: Tensor = batch_norm_inference(x, running_mean, running_var, weight, bias, eps=eps)
        return out if out.dtype == x.dtype else out.astype(x.dtype)  # under autocast
    count = math.prod(x.shape) // max(channels, 1)
    if count <= 1:
        raise ShapeError(
            f"batch_norm: x has shape {tuple(x.shape)}: one value in each channel, which has no "
            "variance to train with.\n"
            "Is it a last batch of 1 (1201 samples % 4 leave 1)? DataLoader(..., drop_last=True)\n"
            "Is this prediction? model.eval()",
            got=tuple(x.shape),
        )
    if state.cast is None or x.dtype not in dtypes.HALVES:
        check_same_float(
            batch_norm_inference,
            [getattr(v, "array", v) for v in (x, running_mean, running_var, weight, bias)],
        )
    batch_mean, batch_var = batch_norm_stats(x)
    if running_mean is not None and running_var is not None:
        update_running_stats(
            running_mean,
            running_var,
            batch_mean,
            batch_var,
            num_batches,
            momentum=momentum,
            unbias=count / (count - 1),
        )
    out = batch_norm_train(x, batch_mean, batch_var, weight, bias, eps=eps)
    return out if out.dtype == x.dtype else out.astype(x.dtype)  # the statistics are wider

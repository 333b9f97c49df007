"""Normalisation: batch, layer, group and root-mean-square, and sums over channels.

Statistics are handed around in float64: they are few, and float64 results are not rounded when
the data is a half type. Results have the memory layout of their input, channels-last included.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ShapeError
from ..op import op
from .elementwise import sqrt, square
from .reduction import mean, total
from .shape import broadcast_to, reshape

if TYPE_CHECKING:
    from ..tensor import Tensor

_SMALL = 8192  # elements that are summed plainly
_ROWS = 256  # squared and summed at once; the sums are added in float64


def flat_rows(x: Any, axes: int = 1) -> Any:
    """All axes but the last ones joined, and the last ones: (rows, D)."""
    split = x.ndim - axes
    return x.reshape(math.prod(x.shape[:split]), math.prod(x.shape[split:]))


def channel_rows(x: Any) -> Any:
    """A view of (B, C, ...) as (rows, C); None where its memory is not channels-last."""
    last = x if x.ndim == 2 else x.transpose(0, *range(2, x.ndim), 1)
    return flat_rows(last) if last.flags.c_contiguous else None


def like_channel_rows(rows: Any, shape: tuple[int, ...]) -> Any:
    """(rows, C) seen as `shape`, (B, C, ...): the inverse of `channel_rows`."""
    if len(shape) == 2:
        return rows.reshape(shape)
    last = rows.reshape(shape[0], *shape[2:], shape[1])
    return last.transpose(0, len(shape) - 1, *range(1, len(shape) - 1))


def per_channel(v: Any, ndim: int) -> Any:
    """(C,) shaped so that it is broadcast along axis 1."""
    return v if ndim == 2 else v.reshape((-1,) + (1,) * (ndim - 2))


# -- sums over channels ------------------------------------------------------------------------


@op
def channel_sum(xp: Any, x: Tensor, *, axis: int = 1) -> Tensor:
    """The sum over all axes but one, with accurate partial sums in either memory layout."""
    kept = axis % x.ndim
    if x.ndim == 2 and x.size <= _SMALL:
        return x.sum(1 - kept)
    return total(xp, x, tuple(i for i in range(x.ndim) if i != kept), keepdims=False)


@channel_sum.backward
def _(g, shapes, axis):
    shape = shapes[0]
    place = axis % len(shape)
    return broadcast_to(reshape(g, (-1,) + (1,) * (len(shape) - place - 1)), shape)


def sum_rows(x: Any) -> Any:
    """The sum over all axes but the last; arrays and tensors alike."""
    return channel_sum(x, axis=-1)


# -- batch norm --------------------------------------------------------------------------------


@op(outputs=2, differentiable=False)
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


@op(name="batch_norm", composite=_batch_norm_of)
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


@op(outputs=3)
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


@op(name="batch_norm_inference", same_float=True)
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
    ndim = len(x.shape)
    rstd = (var + eps) ** -0.5
    scale = rstd if weight is None else rstd * weight
    grads = [g * per_channel(scale, ndim) if needs[0] else None, None, None, None, None]
    if needs[1]:
        grads[1] = -channel_sum(g) * scale
    if needs[2] or needs[3]:
        dot = channel_sum(g * (x - per_channel(mean_, ndim)))
        grads[2] = dot * scale * (rstd * rstd) * -0.5 if needs[2] else None
        grads[3] = dot * rstd if needs[3] else None
    grads[4] = channel_sum(g) if needs[4] else None
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
        return batch_norm_inference(x, running_mean, running_var, weight, bias, eps=eps)
    count = math.prod(x.shape) // max(channels, 1)
    if count <= 1:
        raise ShapeError(
            f"batch_norm: x has shape {tuple(x.shape)}: one value in each channel, which has no "
            "variance to train with.\n"
            "Is it a last batch of 1 (1201 samples % 4 leave 1)? DataLoader(..., drop_last=True)\n"
            "Is this prediction? model.eval()",
            got=tuple(x.shape),
        )
    batch_norm_inference._check_same_float(
        [getattr(v, "array", v) for v in (x, running_mean, running_var, weight, bias)]
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


# -- along rows: layer norm and root mean square -----------------------------------------------


def _last_axes(x: Any, axes: int) -> tuple[int, ...]:
    return tuple(range(x.ndim - axes, x.ndim))


def _layer_norm_of(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, *, axes: int, eps: float
) -> tuple[Tensor, None, None]:
    places = _last_axes(x, axes)
    centred = x - mean(x, axis=places, keepdims=True)
    out = centred / sqrt(mean(square(centred), axis=places, keepdims=True) + eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias, None, None


@op(name="layer_norm", outputs=3, same_float=True, composite=_layer_norm_of)
def _layer_norm(
    xp: Any,
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    axes: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Layer norm over the last axes; also mean and reciprocal deviation of each row."""
    rows = flat_rows(x, axes)
    centre = rows.mean(1, keepdims=True)
    out = rows - centre
    rstd = (xp.square(out).mean(1, keepdims=True) + eps) ** -0.5
    out *= rstd
    if weight is not None:
        out *= weight.reshape(-1)
    if bias is not None:
        out += bias.reshape(-1)
    return out.reshape(x.shape), centre.astype(np.float64), rstd.astype(np.float64)


@_layer_norm.backward
def _(g, x, weight, bias, out, axes, needs):
    return layer_norm_backward(
        g[0], x, out[1], out[2], weight, axes=axes, needed=(needs[0], needs[1] or needs[2])
    )


@op(outputs=3)
def layer_norm_backward(
    xp: Any,
    grad: Tensor,
    x: Tensor,
    centre: Tensor,
    rstd: Tensor,
    weight: Tensor | None = None,
    *,
    axes: int,
    needed: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of layer norm for its input, weight and bias."""
    rows, gs = flat_rows(x, axes), flat_rows(grad, axes)
    width = rows.shape[1]
    hat = rows - centre.astype(x.dtype)
    hat *= rstd.astype(x.dtype)
    shape = x.shape[x.ndim - axes :]
    dweight = dbias = dx = None
    if needed[1]:
        dweight = total(xp, gs * hat, 0, False).reshape(shape)
        dbias = total(xp, gs, 0, False).reshape(shape)
    if needed[0]:
        dx = gs * weight.reshape(-1) if weight is not None else gs.copy()
        hat *= xp.einsum("ij,ij->i", dx, hat)[:, None] / width
        dx -= dx.mean(1, keepdims=True)
        dx -= hat
        dx *= rstd.astype(x.dtype)
        dx = dx.reshape(x.shape)
    return dx, dweight, dbias


def _row_axes(name: str, x: Any, normalized_shape: Any, *others: Any) -> int:
    wanted = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    axes = len(wanted)
    got = tuple(x.shape[max(x.ndim - axes, 0) :])
    if got != wanted or any(v is not None and v.shape != wanted for v in others):
        raise ShapeError(
            f"{name}: normalises over the last axes {wanted}, the input has shape "
            f"{tuple(x.shape)}"
            + "".join(f", a weight {tuple(v.shape)}" for v in others if v is not None)
            + ".\nFor channels on axis 1: group_norm(x, 1), or move them last with permute_dims.",
            expected=wanted,
            got=got,
        )
    return axes


def layer_norm(
    x: Tensor,
    normalized_shape: int | tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over the last axes, which have `normalized_shape`.

    Raises:
        ShapeError: the last axes have another shape.
    Source: Ba et al. 2016, "Layer normalization".
    """
    axes = _row_axes("layer_norm", x, normalized_shape, weight, bias)
    out: Tensor = _layer_norm(x, weight, bias, axes=axes, eps=eps)[0]
    return out


def _rms_norm_of(x: Tensor, weight: Tensor | None, *, axes: int, eps: float) -> tuple[Tensor, None]:
    out = x / sqrt(mean(square(x), axis=_last_axes(x, axes), keepdims=True) + eps)
    return out if weight is None else out * weight, None


@op(name="rms_norm", outputs=2, same_float=True, composite=_rms_norm_of)
def _rms_norm(
    xp: Any, x: Tensor, weight: Tensor | None = None, *, axes: int, eps: float
) -> tuple[Tensor, Tensor]:
    """Root-mean-square norm over the last axes; also the reciprocal root of each row."""
    rows = flat_rows(x, axes)
    rstd = ((xp.einsum("ij,ij->i", rows, rows) / rows.shape[1] + eps) ** -0.5)[:, None]
    out = rows * rstd
    if weight is not None:
        out *= weight.reshape(-1)
    return out.reshape(x.shape), rstd.astype(np.float64)


@_rms_norm.backward
def _(g, x, weight, out, axes, needs):
    return rms_norm_backward(g[0], x, out[1], weight, axes=axes, needed=needs)


@op(outputs=2)
def rms_norm_backward(
    xp: Any,
    grad: Tensor,
    x: Tensor,
    rstd: Tensor,
    weight: Tensor | None = None,
    *,
    axes: int,
    needed: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the root-mean-square norm for its input and weight."""
    rows, gs = flat_rows(x, axes), flat_rows(grad, axes)
    hat = rows * rstd.astype(x.dtype)
    dx = dweight = None
    if needed[1]:
        dweight = total(xp, gs * hat, 0, False).reshape(x.shape[x.ndim - axes :])
    if needed[0]:
        dx = gs * weight.reshape(-1) if weight is not None else gs.copy()
        hat *= xp.einsum("ij,ij->i", dx, hat)[:, None] / rows.shape[1]
        dx -= hat
        dx *= rstd.astype(x.dtype)
        dx = dx.reshape(x.shape)
    return dx, dweight


def rms_norm(
    x: Tensor,
    normalized_shape: int | tuple[int, ...],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Divide by the root mean square over the last axes; no mean is taken off.

    Args:
        eps: added to the mean square; None is the smallest step at 1 in the dtype.

    Source: Zhang and Sennrich 2019, "Root mean square layer normalization".
    """
    axes = _row_axes("rms_norm", x, normalized_shape, weight)
    small = _epsilon(x) if eps is None else eps
    out: Tensor = _rms_norm(x, weight, axes=axes, eps=small)[0]
    return out


def _epsilon(x: Any) -> float:
    if x.dtype.kind == "V":  # bfloat16 has 8 significant bits
        return 2.0**-7
    return float(np.finfo(x.dtype).eps)

"""Group and instance normalisation: statistics over groups of channels of one sample."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ShapeError
from ..op import op
from .elementwise import sqrt, square
from .normalization import batch_norm_inference, per_channel, update_running_stats
from .reduction import mean, total
from .shape import reshape

if TYPE_CHECKING:
    from ..tensor import Tensor


def _group_norm_of(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, *, groups: int, eps: float
) -> tuple[Tensor, None, None]:
    parts = reshape(x, (x.shape[0], groups, -1))
    centred = parts - mean(parts, axis=2, keepdims=True)
    out = centred / sqrt(mean(square(centred), axis=2, keepdims=True) + eps)
    out = reshape(out, x.shape)
    if weight is not None:
        out = out * per_channel(weight, x.ndim)
    return out if bias is None else out + per_channel(bias, x.ndim), None, None


def _spatial(x: Any) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


def group_mean(v: Any, groups: int) -> Any:
    """(B, C) averaged within groups, given to every channel of the group."""
    b, c = v.shape
    grouped = v.reshape(b, groups, c // groups).mean(2, keepdims=True)
    return grouped.repeat(c // groups, axis=2).reshape(b, c)


def _per_sample(v: Any, x: Any) -> Any:
    return v.astype(x.dtype).reshape(v.shape + (1,) * (x.ndim - 2))


def _spatial_mean(xp: Any, x: Any) -> Any:
    """(B, C) means over space in float64."""
    if x.ndim == 2:
        return x.astype(np.float64)
    return total(xp, x, _spatial(x), False).astype(np.float64) / max(math.prod(x.shape[2:]), 1)


@op(name="group_norm", outputs=3, same_float=True, composite=_group_norm_of, wide=True)
def _group_norm(
    xp: Any,
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Group norm; also mean and reciprocal deviation for each sample and channel (B, C)."""
    centre = group_mean(_spatial_mean(xp, x), groups)
    out = x - _per_sample(centre, x)
    rstd = (group_mean(_spatial_mean(xp, xp.square(out)), groups) + eps) ** -0.5
    out *= _per_sample(rstd if weight is None else rstd * weight, x)
    if bias is not None:
        out += per_channel(bias, x.ndim)
    return out, centre, rstd


@_group_norm.backward
def _(g, x, weight, bias, out, groups):
    return group_norm_backward(g[0], x, out[1], out[2], weight, groups=groups)


@op(outputs=3, wide=True)
def group_norm_backward(
    xp: Any,
    grad: Tensor,
    x: Tensor,
    centre: Tensor,
    rstd: Tensor,
    weight: Tensor | None = None,
    *,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of group norm for its input, weight and bias."""
    size = max(math.prod(x.shape[2:]), 1)
    centred = x - _per_sample(centre, x)
    sum_g = _spatial_mean(xp, grad)  # means over space; size makes them sums below
    sum_gx = _spatial_mean(xp, grad * centred)
    dbias = (sum_g.sum(0) * size).astype(x.dtype)
    dweight = ((sum_gx * rstd).sum(0) * size).astype(x.dtype)
    w = 1.0 if weight is None else weight.astype(np.float64)
    by_x = group_mean(sum_gx * w, groups) * rstd * rstd * rstd
    constant = group_mean(sum_g * w, groups) * rstd
    centred *= _per_sample(-by_x, x)
    centred -= _per_sample(constant, x)
    centred += grad * _per_sample(rstd * w, x)
    return centred, dweight, dbias


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise over groups of channels of each sample.

    Shape: x (B, C, ...), weight and bias (C,).
    Raises:
        ShapeError: the channels do not divide into the groups.
    Source: Wu and He 2018, "Group normalization".
    """
    channels = x.shape[1] if x.ndim > 1 else 0
    if channels == 0 or channels % num_groups:
        raise ShapeError(
            f"group_norm: the {channels} channels (axis 1) of {tuple(x.shape)} do not divide into "
            f"{num_groups} groups.",
            expected=num_groups,
            got=tuple(x.shape),
        )
    for name, v in (("weight", weight), ("bias", bias)):
        if v is not None and v.shape != (channels,):
            raise ShapeError(
                f"group_norm: {name} has shape {tuple(v.shape)}, x has {channels} channels.",
                expected=(channels,),
                got=tuple(v.shape),
            )
    out: Tensor = _group_norm(x, weight, bias, groups=num_groups, eps=eps)[0]
    return out


def instance_norm(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel of each sample over space.

    Running statistics, where given, follow the averages over the batch; they replace the
    sample's own where `use_input_stats` is False.

    Source: Ulyanov et al. 2016, "Instance normalization".
    """
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise ValueError("instance_norm: without the input's statistics it needs running ones")
        return batch_norm_inference(x, running_mean, running_var, weight, bias, eps=eps)
    size = x.size // max(x.shape[0] * x.shape[1], 1)
    if size <= 1:
        raise ShapeError(
            f"instance_norm: one value in each channel of {tuple(x.shape)} has no variance.",
            got=tuple(x.shape),
        )
    out, centre, rstd = _group_norm(x, weight, bias, groups=x.shape[1], eps=eps)
    if running_mean is not None and running_var is not None:
        update_running_stats(
            running_mean,
            running_var,
            mean(centre, axis=0),
            mean(rstd**-2 - eps, axis=0),
            momentum=momentum,
            unbias=size / (size - 1),
        )
    return out

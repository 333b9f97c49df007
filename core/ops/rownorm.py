"""Normalisation along rows: layer norm, and the root-mean-square norm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ShapeError
from ..op import op
from .elementwise import sqrt, square
from .normalization import flat_rows
from .reduction import mean, total

if TYPE_CHECKING:
    from ..tensor import Tensor


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


@op(name="layer_norm", outputs=3, same_float=True, composite=_layer_norm_of, wide=True)
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


@op(outputs=3, wide=True)
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


@op(name="rms_norm", outputs=2, same_float=True, composite=_rms_norm_of, wide=True)
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


@op(outputs=2, wide=True)
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

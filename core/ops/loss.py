"""Losses for values, and for yes-or-no answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..autocast import in_float32
from ..errors import ConfigError, ShapeError
from ..op import op
from .activation import sigmoid, softplus
from .classes import check_reduction, reduced
from .elementwise import abs as absolute
from .elementwise import exp, log, maximum, minimum, square, where

if TYPE_CHECKING:
    from ..tensor import Tensor


def _check_shapes(where_: str, x: Tensor, target: Tensor) -> None:
    if x.shape != target.shape:
        hint = ""
        if x.ndim == target.ndim + 1 and x.shape[-1] == 1:
            hint = "\nDrop the last axis of the prediction: x[..., 0]"
        elif target.ndim == x.ndim + 1 and target.shape[-1] == 1:
            hint = "\nDrop the last axis of the target: target[..., 0]"
        raise ShapeError(
            f"{where_}: prediction {tuple(x.shape)} and target {tuple(target.shape)} differ; "
            f"broadcasting them would compare everything with everything.{hint}",
            expected=tuple(x.shape),
            got=tuple(target.shape),
        )


# -- values ------------------------------------------------------------------------------------


@in_float32
def mse_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Squared error.

    Raises:
        ShapeError: the shapes differ (nothing is broadcast).
    """
    _check_shapes("mse_loss", x, target)
    return reduced(square(x - target), reduction)


@in_float32
def l1_loss(x: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """Absolute error."""
    _check_shapes("l1_loss", x, target)
    return reduced(absolute(x - target), reduction)


@in_float32
def huber_loss(x: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Half the squared error up to `delta`, from there on linear."""
    _check_shapes("huber_loss", x, target)
    if delta <= 0:
        raise ConfigError(f"huber_loss: delta must be positive, got {delta}", got=delta)
    error = absolute(x - target)
    near = minimum(error, float(delta))
    return reduced(near * (error - near * 0.5), reduction)


def smooth_l1_loss(x: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """The huber loss divided by its threshold `beta`; the absolute error for 0."""
    if beta == 0:
        return l1_loss(x, target, reduction)
    return huber_loss(x, target, reduction, beta) * (1 / beta)


@in_float32
def kl_div(x: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """Kullback-Leibler divergence of log-probabilities `x` from probabilities `target`.

    Args:
        reduction: also "batchmean", the sum divided by the first axis: the mathematical value.
        log_target: the target holds log-probabilities.
    """
    if log_target:
        loss = exp(target) * (target - x)
    else:
        loss = target * (log(where(target > 0, target, 1.0)) - x)
    if reduction == "batchmean":
        return loss.sum() / x.shape[0]
    return reduced(loss, reduction)


# -- yes or no ---------------------------------------------------------------------------------

_LOWEST = -100.0  # where logarithms of 0 are cut off, as in PyTorch
_TINY = 1e-44  # its logarithm is below that


@op(same_float=True, wide=True)
def bce(xp: Any, p: Tensor, target: Tensor) -> Tensor:
    """-(target log p + (1 - target) log(1 - p)), logarithms of 0 being -100."""
    yes = xp.maximum(xp.log(xp.maximum(p, _TINY)), _LOWEST)
    no = xp.maximum(xp.log(xp.maximum(1 - p, _TINY)), _LOWEST)
    return -(target * yes + (1 - target) * no)


@bce.backward
def _(g, p, target, needs):
    first = g * ((p - target) / maximum(p * (1 - p), 1e-12))
    second = None
    if needs[1]:
        yes = maximum(log(maximum(p, _TINY)), _LOWEST)
        no = maximum(log(maximum(1 - p, _TINY)), _LOWEST)
        second = g * (no - yes)
    return first, second


@in_float32
def binary_cross_entropy(
    x: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy of probabilities with targets from 0 to 1; finite at 0 and 1 too."""
    check_reduction(reduction)
    _check_shapes("binary_cross_entropy", x, target)
    loss = bce(x, _floating(target, x))
    return reduced(loss if weight is None else loss * weight, reduction)


def _floating(target: Tensor, x: Tensor) -> Tensor:
    return target.astype(x.dtype) if target.dtype.kind in "biu" else target


@op(same_float=True, wide=True)
def bce_with_logits(xp: Any, x: Tensor, target: Tensor, pos_weight: Tensor | None) -> Tensor:
    """pos_weight target softplus(-x) + (1 - target) softplus(x): accurate in both tails."""
    rest = xp.log1p(xp.exp(-xp.abs(x)))
    yes = (xp.maximum(-x, 0) + rest) * target
    if pos_weight is not None:
        yes = yes * pos_weight
    return yes + (xp.maximum(x, 0) + rest) * (1 - target)


@bce_with_logits.backward
def _(g, x, target, pos_weight, needs):
    first = second = third = None
    w = 1.0 if pos_weight is None else pos_weight
    if needs[0]:
        first = g * ((1 - target) * sigmoid(x) - (target * w) * sigmoid(-x))
    if needs[1]:
        second = g * (softplus(-x) * w - softplus(x))
    if needs[2]:
        third = g * (target * softplus(-x))
    return first, second, third


@in_float32
def binary_cross_entropy_with_logits(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of sigmoid(x) with targets from 0 to 1, computed from the logits.

    Args:
        weight: multiplies the loss; broadcast.
        pos_weight: multiplies the part of the positive answers; broadcast, one for each class.
    """
    check_reduction(reduction)
    _check_shapes("binary_cross_entropy_with_logits", x, target)
    loss: Tensor = bce_with_logits(x, _floating(target, x), pos_weight)
    return reduced(loss if weight is None else loss * weight, reduction)


@in_float32
def sigmoid_focal_loss(
    x: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "none"
) -> Tensor:
    """Binary cross-entropy that turns away from what is already right.

    Args:
        alpha: the weight of positive answers, 1 - alpha of negative ones; negative for none.
        gamma: how strongly easy answers are turned down.

    Source: Lin et al. 2017, "Focal loss for dense object detection".
    """
    check_reduction(reduction)
    target = _floating(target, x)
    _check_shapes("sigmoid_focal_loss", x, target)
    miss = sigmoid(x) * (1 - target) + sigmoid(-x) * target
    loss = bce_with_logits(x, target, None) * miss**gamma
    if alpha >= 0:
        loss = loss * (target * alpha + (1 - target) * (1 - alpha))
    return reduced(loss, reduction)

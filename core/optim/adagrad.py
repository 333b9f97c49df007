"""Adagrad."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from .blocks import (
    blocks,
    caster,
    compute_dtype,
    count,
    may_be_nonzero,
    numbers,
    update_op,
)
from .group import Bucket, ParamGroup
from .optimizer import Optimizer, Params


@update_op("flat", "total", "step")
def adagrad_update(
    xp: Any,
    flat: Tensor,
    total: Tensor,
    step: Tensor,
    scalars: Tensor,
    *grads: Tensor,
    maximize: bool,
) -> None:
    """One step of Adagrad on a flat buffer."""
    lr, lr_decay, decay, eps = numbers(xp, scalars)
    t = count(xp, step)
    dtype = compute_dtype(flat.dtype)
    weak = caster(xp, dtype)
    rate = lr / (1 + (t - 1) * lr_decay)
    rate, pull, eps = weak(-rate), weak(-decay if maximize else decay), weak(eps)
    decays = may_be_nonzero(decay)
    for where, p, g, (t1, t2) in blocks(xp, flat, grads, dtype, 2):
        v = total[where]
        if decays:
            xp.multiply(p, pull, out=t2)
            t2 += g
            g = t2
        if maximize:
            g = xp.negative(g, out=t2)
        xp.multiply(g, g, out=t1)
        v += t1
        xp.sqrt(v, out=t1)
        t1 += eps
        xp.divide(g, t1, out=t1)
        t1 *= rate
        p += t1


class Adagrad(Optimizer):
    """Steps divided by the root of the sum of all squared gradients so far.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        lr_decay: how fast it falls: lr / (1 + steps * lr_decay).
        weight_decay: added to the gradient, times the parameter.
        initial_accumulator_value: where the sums start.
        eps: added to the denominator.
        maximize: climb instead of descending.

    Source: Duchi et al. 2011, "Adaptive subgradient methods for online learning and stochastic
    optimization".
    """

    _numeric = {"lr": 1, "lr_decay": 1, "weight_decay": 1, "eps": 1}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "eps": eps,
                "maximize": maximize,
            },
        )

    def _prepare(self, group: ParamGroup, bucket: Bucket) -> None:
        bucket.add_state("sum", group["initial_accumulator_value"])

    def _update(self, group: ParamGroup, bucket: Bucket, grads: list[Tensor]) -> None:
        adagrad_update(
            self._skip,
            bucket.flat,
            bucket.state["sum"],
            bucket.step,
            group.scalars(bucket.device),
            *grads,
            maximize=group["maximize"],
        )

"""Lion."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from .blocks import blocks, caster, compute_dtype, count, numbers, update_op
from .group import Bucket, ParamGroup
from .optimizer import Optimizer, Params


@update_op("flat", "exp_avg", "step")
def lion_update(
    xp: Any,
    flat: Tensor,
    exp_avg: Tensor,
    step: Tensor,
    scalars: Tensor,
    *grads: Tensor,
    maximize: bool,
) -> None:
    """One step of Lion on a flat buffer."""
    lr, beta1, beta2, decay = numbers(xp, scalars)
    count(xp, step)
    dtype = compute_dtype(flat.dtype)
    weak = caster(xp, dtype)
    rate, shrink = weak(-lr), weak(1 - lr * decay)
    keep1, new1, keep2, new2 = weak(beta1), weak(1 - beta1), weak(beta2), weak(1 - beta2)
    for where, p, g, (t1, t2, t3) in blocks(xp, flat, grads, dtype, 3):
        m = exp_avg[where]
        if maximize:
            g = xp.negative(g, out=t2)
        xp.multiply(m, keep1, out=t1)
        t1 += xp.multiply(g, new1, out=t3)
        xp.sign(t1, out=t1)
        t1 *= rate
        p *= shrink
        p += t1
        m *= keep2
        m += xp.multiply(g, new2, out=t1)


class Lion(Optimizer):
    """Steps of one size: the sign of a momentum. Takes a lower rate than Adam (a third to a tenth).

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: how much momentum enters the sign, and how much of it is kept.
        weight_decay: shrinks the parameters by `lr * weight_decay`.
        maximize: climb instead of descending.

    Source: Chen et al. 2023, "Symbolic discovery of optimization algorithms".
    """

    _numeric = {"lr": 1, "betas": 2, "weight_decay": 1}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize},
        )

    def _prepare(self, group: ParamGroup, bucket: Bucket) -> None:
        bucket.add_state("exp_avg")

    def _update(self, group: ParamGroup, bucket: Bucket, grads: list[Tensor]) -> None:
        lion_update(
            self._skip,
            bucket.flat,
            bucket.state["exp_avg"],
            bucket.step,
            group.scalars(bucket.device),
            *grads,
            maximize=group["maximize"],
        )

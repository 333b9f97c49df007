"""RMSprop."""

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


@update_op("flat", "square_avg", "grad_avg", "momentum_buffer", "step")
def rmsprop_update(
    xp: Any,
    flat: Tensor,
    square_avg: Tensor,
    grad_avg: Tensor | None,
    momentum_buffer: Tensor | None,
    step: Tensor,
    scalars: Tensor,
    *grads: Tensor,
    maximize: bool,
) -> None:
    """One step of RMSprop on a flat buffer."""
    lr, alpha, eps, decay, momentum = numbers(xp, scalars)
    count(xp, step)
    dtype = compute_dtype(flat.dtype)
    weak = caster(xp, dtype)
    decays = may_be_nonzero(decay)
    pull = weak(-decay if maximize else decay)
    rate, alpha, fresh = weak(-lr), weak(alpha), weak(1 - alpha)
    eps, momentum = weak(eps), weak(momentum)
    for where, p, g, (t1, t2) in blocks(xp, flat, grads, dtype, 2):
        v = square_avg[where]
        if decays:
            xp.multiply(p, pull, out=t2)
            t2 += g
            g = t2
        if maximize:
            g = xp.negative(g, out=t2)
        xp.multiply(g, g, out=t1)
        t1 *= fresh
        v *= alpha
        v += t1
        if grad_avg is not None:
            centre = grad_avg[where]
            xp.subtract(g, centre, out=t1)
            t1 *= fresh
            centre += t1
            xp.multiply(centre, centre, out=t1)
            xp.subtract(v, t1, out=t1)
            xp.sqrt(t1, out=t1)
        else:
            xp.sqrt(v, out=t1)
        t1 += eps
        xp.divide(g, t1, out=t1)
        if momentum_buffer is not None:
            m = momentum_buffer[where]
            m *= momentum
            m += t1
            xp.multiply(m, rate, out=t1)
        else:
            t1 *= rate
        p += t1


class RMSprop(Optimizer):
    """Steps divided by a running average of the gradient's size.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        alpha: how much of the average is kept each step.
        eps: added to the denominator.
        weight_decay: added to the gradient, times the parameter.
        momentum: share of the last step that is kept.
        centered: divide by the standard deviation instead.
        maximize: climb instead of descending.

    Source: Tieleman and Hinton 2012, lecture 6.5; centered: Graves 2013, "Generating sequences
    with recurrent neural networks".
    """

    _numeric = {"lr": 1, "alpha": 1, "eps": 1, "weight_decay": 1, "momentum": 1}

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "alpha": alpha,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "centered": centered,
                "maximize": maximize,
            },
        )

    def _prepare(self, group: ParamGroup, bucket: Bucket) -> None:
        bucket.add_state("square_avg")
        if group["centered"]:
            bucket.add_state("grad_avg")
        if group["momentum"] != 0:
            bucket.add_state("momentum_buffer")

    def _update(self, group: ParamGroup, bucket: Bucket, grads: list[Tensor]) -> None:
        state = bucket.state
        if group["momentum"] != 0 and "momentum_buffer" not in state:
            self._prepare(group, bucket)  # momentum was switched on later
        rmsprop_update(
            self._skip,
            bucket.flat,
            state["square_avg"],
            state.get("grad_avg"),
            state.get("momentum_buffer"),
            bucket.step,
            group.scalars(bucket.device),
            *grads,
            maximize=group["maximize"],
        )

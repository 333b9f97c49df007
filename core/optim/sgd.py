"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
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


@update_op("flat", "momentum_buffer", "step")
def sgd_update(
    xp: Any,
    flat: Tensor,
    momentum_buffer: Tensor | None,
    step: Tensor,
    scalars: Tensor,
    *grads: Tensor,
    nesterov: bool,
    maximize: bool,
) -> None:
    """One step of gradient descent on a flat buffer."""
    lr, momentum, dampening, decay = numbers(xp, scalars)
    t = count(xp, step)
    dtype = compute_dtype(flat.dtype)
    weak = caster(xp, dtype)
    # The first momentum is the gradient itself, undampened.
    fresh = weak(1 - dampening + dampening * (t == 1))
    rate, momentum, decay = weak(lr if maximize else -lr), weak(momentum), weak(decay)
    if maximize:
        decay = -decay
    decays = may_be_nonzero(decay)
    for where, p, g, (u, t1) in blocks(xp, flat, grads, dtype, 2):
        if decays:
            xp.multiply(p, decay, out=u)
            u += g
            g = u
        if momentum_buffer is not None:
            m = momentum_buffer[where]
            m *= momentum
            m += xp.multiply(g, fresh, out=t1)
            if nesterov:
                xp.multiply(m, momentum, out=t1)
                t1 += g
                g = t1
            else:
                g = m
        p += xp.multiply(g, rate, out=t1)


class SGD(Optimizer):
    """Gradient descent, with momentum and weight decay.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        momentum: share of the last step that is kept.
        dampening: how much less of the gradient enters the momentum.
        weight_decay: added to the gradient, times the parameter.
        nesterov: look ahead along the momentum.
        maximize: climb instead of descending.

    Source: Sutskever et al. 2013, "On the importance of initialization and momentum in deep
    learning", in the form of torch.
    """

    _numeric = {"lr": 1, "momentum": 1, "dampening": 1, "weight_decay": 1}
    _counts_steps = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ConfigError("SGD: nesterov needs momentum above 0 and dampening of 0")
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def _prepare(self, group: ParamGroup, bucket: Bucket) -> None:
        if group["momentum"] != 0:
            bucket.add_state("momentum_buffer")

    def _update(self, group: ParamGroup, bucket: Bucket, grads: list[Tensor]) -> None:
        if group["momentum"] != 0 and "momentum_buffer" not in bucket.state:
            self._prepare(group, bucket)  # momentum was switched on later
        sgd_update(
            self._skip,
            bucket.flat,
            bucket.state.get("momentum_buffer"),
            bucket.step,
            group.scalars(bucket.device),
            *grads,
            nesterov=group["nesterov"],
            maximize=group["maximize"],
        )

"""Adam, and AdamW, which decays weights apart from the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import native
from ..dtypes import float32
from ..tensor import Tensor
from .blocks import (
    BLOCK,
    blocks,
    caster,
    compute_dtype,
    count,
    joined,
    may_be_nonzero,
    numbers,
    update_op,
)
from .group import Bucket, ParamGroup
from .optimizer import Optimizer, Params


@update_op("flat", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "step")
def adam_update(
    xp: Any,
    flat: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    max_exp_avg_sq: Tensor | None,
    step: Tensor,
    scalars: Tensor,
    *grads: Tensor,
    maximize: bool,
    decoupled: bool,
) -> None:
    """One step of Adam on a flat buffer."""
    lr, beta1, beta2, eps, decay = numbers(xp, scalars)
    t = count(xp, step)
    dtype = compute_dtype(flat.dtype)
    weak = caster(xp, dtype)
    # p -= lr * (m / b1) / (sqrt(v / b2) + eps), with both corrections moved out of the block.
    root = (1 - beta2**t) ** 0.5
    rate, shifted = weak(-lr / (1 - beta1**t) * root), weak(eps * root)
    keep1, keep2, new2 = weak(1 - beta1), weak(beta2), weak(1 - beta2)
    decays = may_be_nonzero(decay)
    shrink = weak(1 - lr * decay)
    pull = weak(-decay if maximize else decay)
    for where, p, g, (t1, t2) in blocks(xp, flat, grads, dtype, 2):
        m, v = exp_avg[where], exp_avg_sq[where]
        if decays and not decoupled:
            xp.multiply(p, pull, out=t2)
            t2 += g
            g = t2
        if maximize:
            g = xp.negative(g, out=t2)
        xp.subtract(g, m, out=t1)
        t1 *= keep1
        m += t1
        xp.multiply(g, g, out=t1)
        t1 *= new2
        v *= keep2
        v += t1
        if max_exp_avg_sq is not None:
            largest = max_exp_avg_sq[where]
            xp.maximum(largest, v, out=largest)
            v = largest
        xp.sqrt(v, out=t1)
        t1 += shifted
        xp.divide(m, t1, out=t1)
        t1 *= rate
        if decays and decoupled:
            p *= shrink
        p += t1


def _adam_kernel(
    skip: Any,
    flat: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    max_exp_avg_sq: Any,
    step: Any,
    scalars: Any,
    *grads: Any,
    maximize: bool,
    decoupled: bool,
) -> Any:
    if flat.dtype != float32 or not all(g.dtype == float32 and g.flags.aligned for g in grads):
        return NotImplemented
    if skip is not None and skip:
        return None
    lr, beta1, beta2, eps, decay = numbers(np, scalars)
    t = count(np, step)
    root = (1 - beta2**t) ** 0.5
    pull = 0.0 if decoupled else -decay if maximize else decay
    shrink = 1 - lr * decay if decoupled else 1.0
    rate, sign = -lr / (1 - beta1**t) * root, -1.0 if maximize else 1.0
    pull *= sign
    factors = (rate, eps * root, 1 - beta1, beta2, 1 - beta2, shrink, pull, sign)
    if flat.size <= BLOCK:  # all at once
        g = np.concatenate(grads, axis=None)
        native.adam(g, flat, exp_avg, exp_avg_sq, max_exp_avg_sq, factors)
        return None
    for where, g in joined(np, grads, float32):
        top = None if max_exp_avg_sq is None else max_exp_avg_sq[where]
        g = np.ascontiguousarray(g)  # a large one is handed on as it is, perhaps with gaps
        native.adam(g, flat[where], exp_avg[where], exp_avg_sq[where], top, factors)
    return None


if native.available():
    adam_update.kernel("cpu")(_adam_kernel)


class Adam(Optimizer):
    """Steps scaled by running averages of the gradient and of its square.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: how much of the two averages is kept each step.
        eps: added to the denominator.
        weight_decay: added to the gradient, times the parameter; see AdamW.
        amsgrad: divide by the largest average so far.
        maximize: climb instead of descending.

    Source: Kingma and Ba 2015, "Adam: a method for stochastic optimization"; amsgrad: Reddi et
    al. 2018, "On the convergence of Adam and beyond".
    """

    _numeric = {"lr": 1, "betas": 2, "eps": 1, "weight_decay": 1}
    _decoupled = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "maximize": maximize,
            },
        )

    def _prepare(self, group: ParamGroup, bucket: Bucket) -> None:
        bucket.add_state("exp_avg")
        bucket.add_state("exp_avg_sq")
        if group["amsgrad"]:
            bucket.add_state("max_exp_avg_sq")

    def _update(self, group: ParamGroup, bucket: Bucket, grads: list[Tensor]) -> None:
        state = bucket.state
        adam_update(
            self._skip,
            bucket.flat,
            state["exp_avg"],
            state["exp_avg_sq"],
            state.get("max_exp_avg_sq"),
            bucket.step,
            group.scalars(bucket.device),
            *grads,
            maximize=group["maximize"],
            decoupled=self._decoupled,
        )


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameters directly, by `lr * weight_decay`.

    Source: Loshchilov and Hutter 2019, "Decoupled weight decay regularization".
    """

    _decoupled = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)

"""Adafactor, which keeps rows and columns of the second moment instead of all of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..devices import backend_for
from ..dtypes import widened
from ..errors import ConfigError
from ..tensor import Tensor
from .blocks import caster, compute_dtype, count, may_be_nonzero, numbers, update_op
from .group import Bucket, ParamGroup
from .optimizer import Optimizer, Params


@update_op("flat", "row_var", "col_var", "variance", "step")
def adafactor_update(
    xp: Any,
    flat: Tensor,
    row_var: Tensor | None,
    col_var: Tensor | None,
    variance: Tensor | None,
    step: Tensor,
    scalars: Tensor,
    grad: Tensor,
    *,
    eps: tuple[float | None, float],
    maximize: bool,
) -> None:
    """One step of Adafactor on one parameter."""
    lr, beta2_decay, threshold, decay = numbers(xp, scalars)
    t = count(xp, step)
    dtype = compute_dtype(flat.dtype)
    weak = caster(xp, dtype)
    eps1 = float(np.finfo(dtype).eps) if eps[0] is None else eps[0]
    g = grad.astype(dtype) if grad.dtype != dtype else grad
    if maximize:
        g = -g
    target = flat.reshape(g.shape)
    p = target if target.dtype == dtype else target.astype(dtype)
    fresh = weak(t**beta2_decay)
    rho = weak(xp.minimum(lr, t**-0.5))
    alpha = xp.maximum(weak(eps[1]), xp.sqrt(xp.mean(p * p))) * rho
    if may_be_nonzero(decay):
        p *= weak(1 - lr * decay)
    squared = g * g
    if row_var is not None and col_var is not None:
        row_var += (squared.mean(axis=-1, keepdims=True) - row_var) * fresh
        col_var += (squared.mean(axis=-2, keepdims=True) - col_var) * fresh
        estimate = row_var * col_var
        estimate /= xp.maximum(row_var.mean(axis=-2, keepdims=True), eps1)
    else:
        assert variance is not None
        v = variance.reshape(g.shape)
        squared -= v
        squared *= fresh
        v += squared
        estimate = v.copy()
    xp.maximum(estimate, eps1 * eps1, out=estimate)
    xp.sqrt(estimate, out=estimate)
    xp.divide(g, estimate, out=estimate)
    norm = xp.sqrt(xp.mean(estimate * estimate)) / weak(threshold)
    estimate *= alpha / xp.maximum(norm, 1.0)
    p -= estimate
    if p is not target:
        target[...] = p


class Adafactor(Optimizer):
    """Adam's scaling at a fraction of its memory, with steps relative to the parameter's size.

    Args:
        params: parameters or groups of them.
        lr: upper bound of the relative step size, and the rate of weight decay.
        beta2_decay: exponent with which the averages forget.
        eps: least variance (None: the dtype's epsilon) and least size of a parameter.
        d: updates whose root mean square exceeds it are scaled down.
        weight_decay: shrinks the parameters by `lr * weight_decay`.
        maximize: climb instead of descending.

    Source: Shazeer and Stern 2018, "Adafactor: adaptive learning rates with sublinear memory
    cost", in the form of torch.
    """

    _numeric = {"lr": 1, "beta2_decay": 1, "d": 1, "weight_decay": 1}
    _elementwise = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        if beta2_decay > 0 or d < 1:
            raise ConfigError(
                f"Adafactor: beta2_decay is 0 or less and d 1 or more, got {beta2_decay} and {d}"
            )
        super().__init__(
            params,
            {
                "lr": lr,
                "beta2_decay": beta2_decay,
                "eps": eps,
                "d": d,
                "weight_decay": weight_decay,
                "maximize": maximize,
            },
        )

    def _prepare(self, group: ParamGroup, bucket: Bucket) -> None:
        (p,) = bucket.params
        if p.ndim < 2:
            bucket.add_state("variance")
        elif "row_var" not in bucket.state:
            xp, dtype = backend_for(bucket.device).xp, widened(p.dtype)
            bucket.state["row_var"] = Tensor(xp.zeros((*p.shape[:-1], 1), dtype))
            bucket.state["col_var"] = Tensor(xp.zeros((*p.shape[:-2], 1, p.shape[-1]), dtype))

    def _update(self, group: ParamGroup, bucket: Bucket, grads: list[Tensor]) -> None:
        adafactor_update(
            self._skip,
            bucket.flat,
            bucket.state.get("row_var"),
            bucket.state.get("col_var"),
            bucket.state.get("variance"),
            bucket.step,
            group.scalars(bucket.device),
            grads[0],
            eps=group["eps"],
            maximize=group["maximize"],
        )

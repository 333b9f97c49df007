"""Muon, which makes the steps of a matrix orthogonal."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ConfigError
from ..tensor import Tensor
from .blocks import caster, compute_dtype, count, numbers, update_op
from .group import Bucket, ParamGroup
from .optimizer import Optimizer, Params


@update_op("flat", "momentum_buffer", "step")
def muon_update(
    xp: Any,
    flat: Tensor,
    momentum_buffer: Tensor,
    step: Tensor,
    scalars: Tensor,
    grad: Tensor,
    *,
    nesterov: bool,
    coefficients: tuple[float, float, float],
    iterations: int,
    eps: float,
    scale: float,
) -> None:
    """One step of Muon on one matrix."""
    lr, decay, momentum = numbers(xp, scalars)
    count(xp, step)
    dtype = compute_dtype(flat.dtype)
    weak = caster(xp, dtype)
    g = grad if grad.dtype == dtype else grad.astype(dtype)
    m = momentum_buffer.reshape(g.shape)
    m += (g - m) * weak(1 - momentum)
    update = g + (m - g) * weak(momentum) if nesterov else m
    update = _orthogonal(xp, update, coefficients, iterations, eps)
    target = flat.reshape(g.shape)
    p = target if target.dtype == dtype else target.astype(dtype)
    p *= weak(1 - lr * decay)
    p += update * weak(-lr * scale)
    if p is not target:
        target[...] = p


def _orthogonal(
    xp: Any, matrix: Any, coefficients: tuple[float, float, float], iterations: int, eps: float
) -> Any:
    """A matrix with the same singular vectors and singular values near 1 (0.7 to 1.2).

    Newton and Schulz's iteration, of fifth order; torch runs it in bfloat16, we in float32.
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / xp.maximum(xp.sqrt(xp.sum(x * x)), eps)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.T if tall else x


class Muon(Optimizer):
    """Momentum whose steps are orthogonalised, for the matrices of hidden layers.

    Biases, norms, embeddings and convolutions go to another optimizer, such as AdamW.

    Args:
        params: matrices or groups of them.
        lr: learning rate.
        weight_decay: shrinks the parameters by `lr * weight_decay`.
        momentum: how much of the average is kept each step.
        nesterov: look ahead along the momentum.
        ns_coefficients: of the orthogonalising iteration.
        eps: least norm that it divides by.
        ns_steps: how often it runs.
        adjust_lr_fn: "original" scales by sqrt(max(1, rows / columns)); "match_rms_adamw" by
            0.2 * sqrt(max(rows, columns)), which takes AdamW's rates.

    Raises:
        ConfigError: a parameter that is no matrix.
    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et
    al. 2025, "Muon is scalable for LLM training".
    """

    _numeric = {"lr": 1, "weight_decay": 1, "momentum": 1}
    _elementwise = False
    _counts_steps = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ConfigError(
                f"Muon: adjust_lr_fn is 'original' or 'match_rms_adamw', got {adjust_lr_fn!r}"
            )
        super().__init__(
            params,
            {
                "lr": lr,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "nesterov": nesterov,
                "ns_coefficients": ns_coefficients,
                "eps": eps,
                "ns_steps": ns_steps,
                "adjust_lr_fn": adjust_lr_fn,
            },
        )

    def _seat(self, group: ParamGroup, params: list[Tensor]) -> None:
        for p in params:
            if p.ndim != 2:
                raise ConfigError(
                    f"Muon trains matrices, got a parameter of shape {p.shape}.\n"
                    "Give the others to AdamW: "
                    "optim.AdamW([p for p in model.parameters() if p.ndim != 2])",
                    got=p.shape,
                )
        super()._seat(group, params)

    def _prepare(self, group: ParamGroup, bucket: Bucket) -> None:
        bucket.add_state("momentum_buffer")

    def _update(self, group: ParamGroup, bucket: Bucket, grads: list[Tensor]) -> None:
        rows, columns = bucket.params[0].shape
        if group["adjust_lr_fn"] == "match_rms_adamw":
            scale = 0.2 * math.sqrt(max(rows, columns))
        else:
            scale = math.sqrt(max(1.0, rows / columns))
        muon_update(
            self._skip,
            bucket.flat,
            bucket.state["momentum_buffer"],
            bucket.step,
            group.scalars(bucket.device),
            grads[0],
            nesterov=group["nesterov"],
            coefficients=group["ns_coefficients"],
            iterations=group["ns_steps"],
            eps=group["eps"],
            scale=scale,
        )

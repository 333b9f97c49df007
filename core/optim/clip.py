"""Keeping gradients from being too large."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..dtypes import widened
from ..errors import ConfigError, GradError
from ..node import Leaf
from ..op import op
from ..state import touching, watch
from ..tensor import Tensor
from .blocks import BLOCK

_ROW = 512


@op(raw=True, differentiable=False)
def gradient_norm(xp: Any, *grads: Tensor, norm_type: float) -> Any:
    """The norm of all values of all gradients together."""
    if xp is np:
        return np.asarray(_norm(grads, norm_type), widened(grads[0].dtype))
    parts = [xp.abs(g.astype(np.float32).reshape(-1)) for g in grads]
    if math.isinf(norm_type):
        return xp.max(xp.stack([part.max() for part in parts]))
    powers = xp.stack([xp.sum(part**norm_type) for part in parts])
    return xp.sum(powers) ** (1.0 / norm_type)


def _norm(grads: tuple[Any, ...], norm_type: float) -> float:
    """Partial results are Python floats, so that millions of values lose no precision."""
    partial: list[float] = []
    for g in grads:
        flat = g.reshape(-1)
        for start in range(0, flat.size, BLOCK):
            part = flat[start : start + BLOCK]
            if part.dtype.itemsize < 4:
                part = part.astype(np.float32)
            if norm_type == 2:
                partial.append(_sum_of_squares(part))
            elif math.isinf(norm_type):
                partial.append(float(np.max(np.abs(part))))
            else:
                partial.append(float(np.sum(np.abs(part) ** norm_type)))
    if math.isinf(norm_type):
        return math.nan if any(map(math.isnan, partial)) else max(partial, default=0.0)
    return math.fsum(partial) ** (1.0 / norm_type) if _finite(partial) else sum(partial)


def _sum_of_squares(part: Any) -> float:
    """Of short rows, then of their sums in float64: long sums of float32 lose digits."""
    whole = part.size - part.size % _ROW
    total = float(np.dot(part[whole:], part[whole:]))
    if whole:
        rows = part[:whole].reshape(-1, _ROW)
        total += float(np.vecdot(rows, rows).sum(dtype=np.float64))
    return total


def _finite(values: list[float]) -> bool:
    return all(map(math.isfinite, values))


# Declared with two outputs for "several": there is one for each gradient.
@op(raw=True, differentiable=False, outputs=2)
def scale_to_norm(xp: Any, norm: Tensor, *grads: Tensor, max_norm: float) -> Any:
    """Every gradient, scaled so that their common norm is at most `max_norm`."""
    if xp is np:
        factor = max_norm / (norm.item() + 1e-6)
        if factor >= 1:
            return tuple(g.view() for g in grads)  # nobody writes to gradients
        with np.errstate(invalid="ignore"):  # an infinite norm: 0 times infinity
            return tuple(_wide(g, lambda x: x * factor) for g in grads)
    limited = xp.minimum(max_norm / (norm + 1e-6), 1.0)
    return tuple(_wide(g, lambda x: x * limited.astype(x.dtype)) for g in grads)


@op(raw=True, differentiable=False, outputs=2)
def clip_values(xp: Any, *grads: Tensor, limit: float) -> Any:
    """Every gradient, its values limited to [-limit, limit]."""
    return tuple(_wide(g, lambda x: xp.clip(x, -limit, limit)) for g in grads)


def _wide(g: Any, function: Callable[[Any], Any]) -> Any:
    """The function's result in the dtype of `g`, computed in float32 for halves."""
    wide = widened(g.dtype)
    return function(g) if wide == g.dtype else function(g.astype(wide)).astype(g.dtype)


def _with_gradients(parameters: Tensor | Iterable[Tensor]) -> tuple[list[Leaf], list[Tensor]]:
    items = [parameters] if isinstance(parameters, Tensor) else parameters
    if hasattr(items, "parameters"):
        raise ConfigError("clipping takes parameters, not a module: model.parameters()")
    leaves, grads = [], []
    for p in items:
        leaf = p._node
        if isinstance(leaf, Leaf) and leaf.grad is not None:
            if watch.count:
                touching(leaf)
            leaves.append(leaf)
            grads.append(leaf.grad)
    return leaves, grads


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients together so that their norm is at most `max_norm`.

    Each `.grad` is replaced by a new tensor, since gradients may share memory.

    Returns:
        The norm before, a tensor without axes.
    Raises:
        GradError: `error_if_nonfinite`, and the norm is infinite or not a number.
    """
    leaves, grads = _with_gradients(parameters)
    if not grads:
        return Tensor(np.zeros((), np.float32))
    norm: Tensor = gradient_norm(*grads, norm_type=float(norm_type))
    if error_if_nonfinite and not math.isfinite(norm.item()):
        raise GradError(
            f"clip_grad_norm_: the norm of the gradients is {norm.item()}.\n"
            "Find the operation that made it: with bt.detect_anomaly(): ...",
            norm=norm.item(),
        )
    scaled = scale_to_norm(norm, *grads, max_norm=float(max_norm))
    for leaf, grad in zip(leaves, scaled, strict=True):
        leaf.grad = grad
    return norm


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every value of every gradient to [-clip_value, clip_value]."""
    leaves, grads = _with_gradients(parameters)
    if grads:
        for leaf, grad in zip(leaves, clip_values(*grads, limit=float(clip_value)), strict=True):
            leaf.grad = grad

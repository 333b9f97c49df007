"""Scales and shifts of each channel are folded into the weights of the product before them.

`norm(conv(x))` with the statistics of training is a convolution with other weights; so is what
layer scales, frozen norms and the like do to the result of a convolution or a linear map.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...dtypes import float32
from ..record import Call, Graph, Ref
from .constants import written

_PRODUCTS = ("conv2d", "linear")


def fold_affine(graph: Graph) -> int:
    """Fold them; returns how many calls that were."""
    uses, changing = graph.uses(), written(graph)
    made: dict[int, int] = {}  # value -> place of the product that makes it
    calls: list[Call] = []
    folded = 0

    def constant(x: Any) -> Any:
        """The array of an operand that never changes; None for others."""
        if isinstance(x, Ref) and x.index in graph.external and x.index not in changing:
            return graph.external[x.index]
        return None

    for call in graph.calls:
        found = _scale_and_shift(graph, call, constant)
        if found is not None:
            source, scale, shift = found
            place = made.get(source.index)
            if place is not None and uses[source.index] == 1:
                changed = _folded(graph, calls[place], scale, shift, constant)
                if changed is not None:
                    result = call.results[0]
                    assert result is not None
                    calls[place] = replace(changed, results=call.results)
                    made[result.index] = place
                    folded += 1
                    continue
        if call.op.name in _PRODUCTS and call.results[0] is not None:
            made[call.results[0].index] = len(calls)
        calls.append(call)
    graph.calls[:] = calls
    return folded


def _scale_and_shift(graph: Graph, call: Call, constant: Any) -> tuple[Ref, Any, Any] | None:
    """What is scaled, and by how much for each channel, in float64; None for other calls."""
    if call.op.name == "batch_norm_inference":
        x, *statistics = call.operands
        mean, var, weight, bias = (constant(s) for s in statistics)
        missing = [
            s for s, v in zip(statistics, (mean, var, weight, bias), strict=True) if v is None
        ]
        if not isinstance(x, Ref) or any(s is not None for s in missing):
            return None
        scale = (var.astype(np.float64) + call.constants["eps"]) ** -0.5
        if weight is not None:
            scale = scale * weight
        return x, scale, -mean * scale + (0.0 if bias is None else bias)
    if call.op.name not in ("multiply", "add"):
        return None
    for x, other in (call.operands, call.operands[::-1]):
        if not isinstance(x, Ref) or x.index in graph.external:
            continue
        array = other if isinstance(other, int | float) else constant(other)
        if array is None or call.results[0] is None:
            continue
        shape = graph.kinds[x.index][0]
        if graph.kinds[call.results[0].index] != graph.kinds[x.index]:
            continue
        channels = _per_channel(np.asarray(array), shape)
        if channels is not None:
            if call.op.name == "multiply":
                return x, channels, np.zeros(1)
            return x, np.ones(1), channels
    return None


def _per_channel(array: Any, shape: tuple[int, ...]) -> Any:
    """(C,) or one number, where an array has no other axis than that of the channels."""
    if array.size == 1:
        return array.reshape(1).astype(np.float64)
    axis = 1 if len(shape) == 4 else len(shape) - 1
    at = axis - len(shape) + array.ndim
    if at < 0 or array.size != array.shape[at] or array.size != shape[axis]:
        return None
    return array.reshape(-1).astype(np.float64)


def _folded(graph: Graph, call: Call, scale: Any, shift: Any, constant: Any) -> Call | None:
    """The product with other weights; None where its weights are no constants of float32."""
    x, weight, bias = call.operands
    w, b = constant(weight), constant(bias)
    result = call.results[0]
    if w is None or (b is None and bias is not None) or w.dtype != float32 or result is None:
        return None
    if graph.kinds[result.index][1] != float32:
        return None
    outputs = w.shape[0]
    factors = np.broadcast_to(scale, (outputs,))
    shifted = factors * (0.0 if b is None else b) + shift
    new_weight = (w * factors.reshape(-1, *[1] * (w.ndim - 1))).astype(float32)
    new_bias = np.ascontiguousarray(np.broadcast_to(shifted, (outputs,)), float32)
    if not np.isfinite(new_weight).all():  # a variance of nothing: left as it is
        return None
    operands = (x, graph.constant(new_weight), graph.constant(new_bias))
    return Call(call.op, operands, call.constants, call.results)

"""Calls on constants are run once: resized tables of positions, masks, weights that are prepared.

Constants are the arrays that were there before, parameters among them: who runs the graph sees to
it that they are still what they were.
"""

from __future__ import annotations

from typing import Any

from ...errors import BestiaryError
from ...state import no_grad
from ...tensor import Tensor
from ..aliases import changing
from ..record import Graph, Ref

_LARGEST = 1 << 24  # elements of a result that is kept


def written(graph: Graph) -> set[int]:
    """External values that may change between runs or within one: these are no constants."""
    return set(graph.external) if graph.trains else changing(graph)


def fold_constants(graph: Graph) -> int:
    """Run them; returns how many calls that were."""
    changing = written(graph)
    kept = []
    for call in graph.calls:
        operands = [_value(graph, x) for x in call.operands]
        known = all(
            x.index in graph.external and x.index not in changing
            for x in call.operands
            if isinstance(x, Ref)
        )
        large = any(r is not None and _size(graph, r) > _LARGEST for r in call.results)
        if not known or large or call.op.writes:
            kept.append(call)
            continue
        try:
            with no_grad():
                out = call.op(*operands, **call.constants)
        except BestiaryError:  # as it will, and says so, when it is run
            kept.append(call)
            continue
        for result, x in zip(call.results, out if isinstance(out, tuple) else (out,), strict=True):
            if result is not None:
                graph.external[result.index] = x.array
    folded = len(graph.calls) - len(kept)
    graph.calls[:] = kept
    return folded


def _value(graph: Graph, operand: Any) -> Any:
    if isinstance(operand, Ref):
        array = graph.external.get(operand.index)
        return None if array is None else Tensor(array)
    return operand


def _size(graph: Graph, ref: Ref) -> int:
    size = 1
    for n in graph.kinds[ref.index][0]:
        size *= n
    return size

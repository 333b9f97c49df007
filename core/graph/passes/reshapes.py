"""Reshapes that change nothing, and those around linear maps, which take any leading axes.

Files of other libraries flatten tokens to a matrix before each product, and back after it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...op import REGISTRY
from ..record import Call, Graph, Ref
from .matching import Matcher, replaced


def drop_reshapes(graph: Graph) -> int:
    """Leave them out; returns how many that saved."""
    before = len(graph.calls)
    same: dict[int, Ref] = {}  # result of a reshape -> the equal value that it was made of
    kept = []
    for call in graph.calls:
        operands = tuple(same.get(x.index, x) if isinstance(x, Ref) else x for x in call.operands)
        source, result = operands[0] if operands else None, call.results[0]
        if (
            call.op.name == "reshape"
            and result is not None
            and isinstance(source, Ref)
            and graph.kinds[source.index] == graph.kinds[result.index]
        ):
            same[result.index] = source
        else:
            kept.append(replace(call, operands=operands))
    graph.calls[:] = kept
    graph.outputs[:] = [same.get(ref.index, ref) for ref in graph.outputs]
    match, new = Matcher(graph), {}
    for call in graph.calls:
        linear = _flattened(match, call)
        if linear is not None:
            new[id(call)] = [linear]
    replaced(graph, new)
    return before - len(graph.calls)


def _flattened(match: Matcher, call: Call) -> Call | None:
    """The linear map of a call that gives its result the axes back that were flattened."""
    if call.op.name != "reshape":
        return None
    product = match.made(call.operands[0], "linear")
    flat = None if product is None else match.made(product.operands[0], "reshape", uses=None)
    if product is None or flat is None:
        return None
    source: Any = flat.operands[0]
    inside, outside = match.shape(source), match.shape(call.results[0])
    width = match.shape(product.operands[1])
    if not inside or not outside or not width or outside != (*inside[:-1], width[0]):
        return None
    if inside[-1] != width[1]:
        return None
    return Call(REGISTRY["linear"], (source, *product.operands[1:]), {}, call.results)

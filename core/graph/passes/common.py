"""Calls that compute what another computed already are run once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..record import Call, Graph, Ref


def share_common(graph: Graph) -> int:
    """Use the result of the first; returns how many calls that saved."""
    known: dict[Any, Call] = {}
    same: dict[int, Ref] = {}  # value -> the equal one that is kept
    kept = []
    for call in graph.calls:
        operands = tuple(same.get(x.index, x) if isinstance(x, Ref) else x for x in call.operands)
        if call.op.writes:
            known.clear()  # what was read before may be other values now
            kept.append(replace(call, operands=operands))
            continue
        key = _key(call, operands)
        before = None if key is None else known.get(key)
        if before is None:
            call = replace(call, operands=operands)
            kept.append(call)
            if key is not None:
                known[key] = call
            continue
        for mine, first in zip(call.results, before.results, strict=True):
            if mine is not None and first is not None:
                same[mine.index] = first
    saved = len(graph.calls) - len(kept)
    graph.calls[:] = kept
    graph.outputs[:] = [same.get(ref.index, ref) for ref in graph.outputs]
    return saved


def _key(call: Call, operands: tuple[Any, ...]) -> Any:
    """Equal for calls that compute the same; None for those that cannot be told."""
    if any(result is None for result in call.results):
        return None  # it passed on an array that was there before
    constants = tuple(sorted((k, _typed(v)) for k, v in call.constants.items()))
    key = call.op.name, tuple(_typed(x) for x in operands), constants
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _typed(x: Any) -> Any:
    """1, 1.0 and True are equal and not the same; slices have no hash."""
    if isinstance(x, slice):
        return "slice", x.start, x.stop, x.step
    if isinstance(x, tuple):
        return tuple(_typed(v) for v in x)
    return (type(x).__name__, str(x) if isinstance(x, float) else x)

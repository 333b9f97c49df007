"""Calls whose results nobody uses are removed, unless they write."""

from __future__ import annotations

from ..record import Graph, Ref


def remove_dead(graph: Graph) -> int:
    """Remove them; returns how many."""
    wanted = {ref.index for ref in graph.outputs}
    kept = []
    for call in reversed(graph.calls):
        if call.op.writes or any(r is not None and r.index in wanted for r in call.results):
            kept.append(call)
            wanted.update(x.index for x in call.operands if isinstance(x, Ref))
    removed = len(graph.calls) - len(kept)
    graph.calls[:] = reversed(kept)
    return removed

"""A sum and an activation after a product, and an activation after a group norm, are joined to it,
to be done while its result is in the cache.
"""

from __future__ import annotations

from ...dtypes import float32
from ..fused import conv2d_fused, group_norm_fused, linear_fused
from ..record import Call, Graph, Ref

_FUSED = {"conv2d": conv2d_fused, "linear": linear_fused, "group_norm": group_norm_fused}
_ACTIVATIONS = ("gelu", "hardswish", "hardtanh", "relu", "sigmoid", "silu")


def fuse_epilogues(graph: Graph) -> int:
    """Join them; returns how many calls were joined to another."""
    uses = graph.uses()
    users: dict[int, int] = {}  # value -> place of the only call that uses it
    for place, call in enumerate(graph.calls):
        for x in call.operands:
            if isinstance(x, Ref) and uses[x.index] == 1:
                users[x.index] = place
    made = {
        r.index: place
        for place, call in enumerate(graph.calls)
        for r in call.results
        if r is not None
    }
    at: dict[int, Call] = {}  # place of the last call of a chain -> what replaces it
    gone: set[int] = set()
    for place, call in enumerate(graph.calls):
        if call.op.name not in _FUSED or not _is_float32(graph, call):
            continue
        last, add, activation = place, None, None
        result = call.results[0]
        assert result is not None
        joined = []
        after = _next(graph, users, result, gone)
        norm = call.op.name == "group_norm"
        if norm and any(r is not None and uses[r.index] for r in call.results[1:]):
            continue
        if not norm and after is not None and graph.calls[after].op.name == "add":
            other = _addend(graph, graph.calls[after], result)
            # A sum of two products is joined to the later one: the other is there by then.
            if other is not None and made.get(other.index, -1) < place:
                add, last = other, after
                joined.append(place)
                result = graph.calls[after].results[0]
                assert result is not None
                after = _next(graph, users, result, gone)
        if after is not None and graph.calls[after].op.name in _ACTIVATIONS:
            step = graph.calls[after]
            if _is_float32(graph, step):
                activation = (step.op.name, tuple(sorted(step.constants.items())))
                joined.append(last)
                last = after
        if last == place:
            continue
        constants = {**call.constants, "activation": activation}
        operands = call.operands if norm else (*call.operands, add)
        at[last] = Call(_FUSED[call.op.name], operands, constants, graph.calls[last].results)
        gone.update(joined)
    graph.calls[:] = [
        at.get(place, call) for place, call in enumerate(graph.calls) if place not in gone
    ]
    return len(gone)


def _next(graph: Graph, users: dict[int, int], result: Ref, gone: set[int]) -> int | None:
    """Place of the only call that uses a result; None where there are others, or it is taken."""
    place = users.get(result.index)
    return None if place is None or place in gone else place


def _addend(graph: Graph, call: Call, product: Ref) -> Ref | None:
    """What is added to the product, where it has the same shape."""
    left, right = call.operands
    other = right if left == product else left
    if not isinstance(other, Ref) or other == product:
        return None
    return other if graph.kinds[other.index] == graph.kinds[product.index] else None


def _is_float32(graph: Graph, call: Call) -> bool:
    result = call.results[0]
    return result is not None and graph.kinds[result.index][1] == float32

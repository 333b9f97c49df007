"""softmax(q k^T scale + mask) v, written out, is attention: one kernel that holds no scores."""

from __future__ import annotations

from ...op import REGISTRY
from ..record import Call, Graph, Ref
from .matching import Matcher, replaced


def find_attention(graph: Graph) -> int:
    """Make such products attention; returns how many there were."""
    match, new = Matcher(graph), {}
    for call in graph.calls:
        if call.op.name == "matmul":
            found = _attention(graph, match, call)
            if found is not None:
                new[id(call)] = found
    return replaced(graph, new)


def _attention(graph: Graph, match: Matcher, call: Call) -> list[Call] | None:
    p, v = call.operands
    soft, values = match.made(p, "softmax"), match.shape(v)
    if soft is None or values is None or len(values) < 3:
        return None
    (scores,) = soft.operands
    whole = match.shape(scores)
    if whole is None or soft.constants["axis"] not in (-1, len(whole) - 1):
        return None
    scores, factor = match.scaled(scores)
    mask, added = None, match.made(scores, "add")
    if added is not None and factor == 1:
        left, mask = added.operands
        scores, factor = match.scaled(left)
        if match.made(scores, "matmul") is None or match.shape(scores) != whole:
            scores, factor = match.scaled(mask)
            mask = left
        shape = match.shape(mask)
        if not shape or len(shape) > len(whole):
            return None
    product = match.made(scores, "matmul")
    if product is None or match.shape(scores) != whole:
        return None
    (q, by_q), (k, by_k) = (match.scaled(x) for x in product.operands)
    queries, keys = match.shape(q), match.shape(k)
    if queries is None or keys is None or not values[:-2] == queries[:-2] == keys[:-2]:
        return None
    calls: list[Call] = []
    k = _transposed(graph, match, calls, k, keys)
    if mask is not None:
        mask = _as_wide(graph, match, calls, mask, len(whole))
    constants = {"scale": factor * by_q * by_k, "causal": False, "dropout": 0.0}
    results = (call.results[0], None)
    return [*calls, Call(REGISTRY["attention"], (q, k, v, mask, None), constants, results)]


def _transposed(
    graph: Graph, match: Matcher, calls: list[Call], k: Ref, shape: tuple[int, ...]
) -> Ref:
    """The keys (..., T, D) of (..., D, T): what was transposed to make these, where that is so."""
    last = len(shape) - 1
    axes = [*range(last - 1), last, last - 1]
    before = match.made(k, "permute_dims")
    if before is not None:
        (source,) = before.operands
        axes = [before.constants["axes"][i] for i in axes]
        if axes == list(range(last + 1)) and isinstance(source, Ref):
            return source
        k = source
    out = graph.value((*shape[:-2], shape[-1], shape[-2]), graph.kinds[k.index][1])
    calls.append(Call(REGISTRY["permute_dims"], (k,), {"axes": tuple(axes)}, (out,)))
    return out


def _as_wide(graph: Graph, match: Matcher, calls: list[Call], mask: Ref, axes: int) -> Ref:
    """The mask with as many axes as the scores."""
    shape = match.shape(mask)
    assert shape is not None
    if len(shape) == axes:
        return mask
    shape = (1,) * (axes - len(shape)) + shape
    out = graph.value(shape, graph.kinds[mask.index][1])
    calls.append(Call(REGISTRY["reshape"], (mask,), {"shape": shape}, (out,)))
    return out

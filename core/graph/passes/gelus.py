"""x (1 + erf(x / sqrt 2)) / 2, written out, is GELU: one kernel, also joined to products."""

from __future__ import annotations

import math

from ...op import REGISTRY
from ..record import Call, Graph
from .matching import Matcher, replaced


def find_gelus(graph: Graph) -> int:
    """Make them GELU; returns how many there were."""
    match, new = Matcher(graph), {}
    for call in graph.calls:
        if call.op.name not in ("multiply", "divide"):
            continue
        whole, half = match.multiple(call)  # halved at last
        outer = match.made(whole, "multiply")
        product, half = (call, 1.0) if outer is None else (outer, half)
        for left, right in (product.operands, product.operands[::-1]):
            if product.op.name != "multiply":
                break
            x, by = match.scaled(left)
            added = match.made(right, "add")
            if added is None or not math.isclose(by * half, 0.5, rel_tol=1e-6):
                continue
            one, erf = added.operands
            if match.number(one) is None:
                one, erf = erf, one
            inner = match.made(erf, "erf")
            if match.number(one) != 1 or inner is None:
                continue
            argument, root = match.scaled(inner.operands[0])
            if argument == x and math.isclose(root, math.sqrt(0.5), rel_tol=1e-6):
                constants = {"approximate": "none"}
                new[id(call)] = [Call(REGISTRY["gelu"], (x,), constants, call.results)]
                break
    return replaced(graph, new)

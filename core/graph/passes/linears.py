"""Products by a constant matrix are linear maps, which are packed and take what follows them.

Networks that come from ONNX files are written so, and code that multiplies by a matrix itself.
"""

from __future__ import annotations

from ...op import REGISTRY
from ..record import Call, Graph, Ref
from .matching import Matcher, replaced


def find_linears(graph: Graph) -> int:
    """Make them linear maps; returns how many there were."""
    match, new = Matcher(graph), {}
    turned: dict[int, Ref] = {}  # matrix -> its transpose
    for call in graph.calls:
        if call.op.name != "matmul":
            continue
        x, w = call.operands
        matrix = match.constant(w)
        if matrix is None or matrix.ndim != 2 or not match.shape(x) or not match.shape(w):
            continue
        if match.constant(x) is not None:
            continue
        if w.index not in turned:
            turned[w.index] = graph.constant(matrix.T)
        operands = x, turned[w.index], None
        new[id(call)] = [Call(REGISTRY["linear"], operands, {}, call.results)]
    return replaced(graph, new)

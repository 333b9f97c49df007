"""The reference interpreter: runs a recorded graph call by call, the slow and certain way."""

from __future__ import annotations

from typing import Any

from ..autocast import casting
from ..errors import ShapeError
from ..state import no_grad
from ..tensor import Tensor
from .record import Graph, Ref


def replay(graph: Graph, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Run the graph on new inputs of the recorded shapes; returns its outputs.

    External arrays are read, and written where the recorded calls write, as they are now.
    """
    if len(inputs) != len(graph.inputs):
        raise ShapeError(f"the graph takes {len(graph.inputs)} inputs, got {len(inputs)}")
    values: list[Any] = [None] * graph.size
    for index, array in graph.external.items():
        values[index] = array
    for ref, x in zip(graph.inputs, inputs, strict=True):
        values[ref.index] = x.array
    with no_grad(), casting(None):  # conversions are among the calls
        for call in graph.calls:
            operands = [Tensor(values[x.index]) if isinstance(x, Ref) else x for x in call.operands]
            out = call.op(*operands, **call.constants)
            outs = out if isinstance(out, tuple) else (out,)
            for result, x in zip(call.results, outs, strict=True):
                if result is not None:
                    values[result.index] = x.array
    return tuple(Tensor(values[ref.index]) for ref in graph.outputs)

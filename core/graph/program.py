"""A graph made ready to run: a list of functions on arrays, with no tensors between them.

What each call becomes is in lowering.py. Arrays are let go as soon as nothing needs them, so
that the allocator has the same memory ready for the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .lowering import lowered
from .record import Graph, Ref


class Step(NamedTuple):
    """One function: the places of its arguments and of its results, and what is let go after it."""

    run: Callable[..., Any]
    takes: tuple[int, ...]
    gives: tuple[int | None, ...]
    frees: tuple[int, ...]


class Program:
    """Runs a graph on arrays: `program(arrays)` gives the arrays of its outputs."""

    def __init__(self, graph: Graph) -> None:
        self._values: list[Any] = [None] * graph.size
        self._inputs = [ref.index for ref in graph.inputs]
        self._outputs = [ref.index for ref in graph.outputs]
        plans = []
        for call in graph.calls:
            run, operands = lowered(graph, call)
            takes = tuple(self._place(x) for x in operands)
            plans.append((run, takes, tuple(None if r is None else r.index for r in call.results)))
        last = {place: i for i, (_, takes, _) in enumerate(plans) for place in takes}
        for index, array in graph.external.items():  # without weights that were packed or folded
            if index in last or index in self._outputs:
                self._values[index] = array
        kept = {*graph.external, *self._outputs, *range(graph.size, len(self._values))}
        frees: list[list[int]] = [[] for _ in plans]
        for place, i in last.items():
            if place not in kept:
                frees[i].append(place)
        self.steps = [Step(*plan, tuple(f)) for plan, f in zip(plans, frees, strict=True)]

    def _place(self, operand: Any) -> int:
        if isinstance(operand, Ref):
            return operand.index
        self._values.append(operand)
        return len(self._values) - 1

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        """The outputs for these inputs, of the shapes and dtypes of the recorded ones."""
        values = self._values.copy()
        for place, array in zip(self._inputs, inputs, strict=True):
            values[place] = array
        for run, takes, gives, frees in self.steps:
            out = run(*[values[i] for i in takes])
            if len(gives) == 1:
                if gives[0] is not None:
                    values[gives[0]] = out
            else:
                for index, array in zip(gives, out, strict=True):
                    if index is not None:
                        values[index] = array
            for index in frees:
                values[index] = None
        return [values[place] for place in self._outputs]

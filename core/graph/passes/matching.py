"""What passes that look for patterns ask of a graph."""

from __future__ import annotations

from typing import Any

from ...dtypes import float32
from ..record import Call, Graph, Ref
from .constants import written
from .dead import remove_dead


class Matcher:
    """Where values come from: `made(x)` is the call behind an operand, if nothing else uses it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._uses, self._changing = graph.uses(), written(graph)
        self._made = {r.index: call for call in graph.calls for r in call.results if r is not None}

    def shape(self, x: Any) -> tuple[int, ...] | None:
        """Of a float32 value; None for others."""
        if not isinstance(x, Ref):
            return None
        shape, dtype = self.graph.kinds[x.index]
        return shape if dtype == float32 else None

    def made(self, x: Any, *names: str, uses: int | None = 1) -> Call | None:
        """The call of one of these operations that made a value, used so often; None: any."""
        if not isinstance(x, Ref) or uses not in (None, self._uses[x.index]):
            return None
        call = self._made.get(x.index)
        return call if call is not None and call.op.name in names else None

    def constant(self, x: Any) -> Any:
        """The array of a value that never changes; None for others."""
        if isinstance(x, Ref) and x.index in self.graph.external and x.index not in self._changing:
            return self.graph.external[x.index]
        return None

    def number(self, x: Any) -> float | None:
        """A number, or a constant that is a single one."""
        if isinstance(x, int | float) and not isinstance(x, bool):
            return float(x)
        array = self.constant(x)
        return float(array.reshape(())) if array is not None and array.size == 1 else None

    def scaled(self, x: Any) -> tuple[Any, float]:
        """What is multiplied or divided by a number, and by what; else itself, and 1."""
        call = self.made(x, "multiply", "divide")
        source, by = (None, 1.0) if call is None else self.multiple(call)
        return (x, 1.0) if source is None else (source, by)

    def multiple(self, call: Call) -> tuple[Any, float]:
        """The same of a call that multiplies or divides; None and 1 for others."""
        left, right = call.operands
        shape = self.shape(call.results[0])
        if shape is None:
            return None, 1.0
        by = self.number(right)
        if by and self.shape(left) == shape:
            return left, by if call.op.name == "multiply" else 1 / by
        by = self.number(left)
        if by is not None and call.op.name == "multiply" and self.shape(right) == shape:
            return right, by
        return None, 1.0


def replaced(graph: Graph, new: dict[int, list[Call]]) -> int:
    """Put calls in the place of others, known by their identity; returns how many were replaced."""
    graph.calls[:] = [one for call in graph.calls for one in new.get(id(call), [call])]
    if new:
        remove_dead(graph)  # what led to them; else it would count as a use
    return len(new)

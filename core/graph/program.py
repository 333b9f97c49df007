"""A graph made ready to run: a Python function on arrays, with no tensors between them.

What each call becomes is in lowering.py. The function is written as source, one line for a call
with arrays as local variables, since nothing costs less between calls. Arrays are let go as soon
as nothing needs them, so that the allocator has the same memory ready for the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .lowering import Whole, lowered
from .record import Graph, Ref


class Step(NamedTuple):
    """One function: its arguments, the values of its results, and what is let go after it.

    Arguments are values of the graph, or constants.
    """

    run: Callable[..., Any]
    takes: tuple[Any, ...]
    gives: tuple[int | None, ...]
    frees: tuple[int, ...]


class Program:
    """Runs a graph on arrays: `program(arrays)` gives the arrays of its outputs.

    Attributes:
        steps: what is run, in order.
        source: the function, as Python.
    """

    def __init__(self, graph: Graph) -> None:
        plans, whole = [], Whole.of(graph)
        for call in graph.calls:
            run, operands = lowered(graph, call, whole)
            plans.append(
                (run, operands, tuple(None if r is None else r.index for r in call.results))
            )
        last = {
            x.index: i for i, (_, takes, _) in enumerate(plans) for x in takes if isinstance(x, Ref)
        }
        outputs = [ref.index for ref in graph.outputs]
        kept = {*graph.external, *outputs}
        frees: list[list[int]] = [[] for _ in plans]
        for index, i in last.items():
            if index not in kept:
                frees[i].append(index)
        self.steps = [Step(*plan, tuple(f)) for plan, f in zip(plans, frees, strict=True)]
        self._inputs, self._outputs = [ref.index for ref in graph.inputs], outputs
        # Weights that were packed or folded are in no call any more, and are let go.
        self._external = {
            i: array for i, array in graph.external.items() if i in last or i in outputs
        }
        self.write()

    def write(self) -> None:
        """Make the function of the steps, anew if these were changed."""
        names: dict[str, Any] = {f"v{index:d}": x for index, x in self._external.items()}
        self.source = _source(self._inputs, self._outputs, self.steps, names)
        exec(compile(self.source, "<compiled graph>", "exec"), names)
        self._run: Callable[[Sequence[Any]], list[Any]] = names.pop("program")

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        """The outputs for these inputs, of the shapes and dtypes of the recorded ones."""
        return self._run(inputs)


def _source(
    inputs: Sequence[int], outputs: Sequence[int], steps: Sequence[Step], names: dict[str, Any]
) -> str:
    """The function; what it uses goes into `names`.

    It is made of nothing but numbers of values and steps: graphs may come from files, whose texts
    must never become code.
    """
    lines = ["def program(inputs):"]
    lines.append(f"    [{', '.join(f'v{index:d}' for index in inputs)}] = inputs")
    for number, (run, takes, gives, frees) in enumerate(steps):
        names[f"f{number}"] = run
        arguments = []
        for place, x in enumerate(takes):
            if not isinstance(x, Ref):
                names[f"c{number}_{place}"] = x
            arguments.append(f"v{x.index:d}" if isinstance(x, Ref) else f"c{number}_{place}")
        results = ["_" if index is None else f"v{index:d}" for index in gives]
        left = results[0] if len(results) == 1 else f"[{', '.join(results)}]"
        lines.append(f"    {left} = f{number}({', '.join(arguments)})")
        if frees:
            lines.append(f"    del {', '.join(f'v{index:d}' for index in frees)}")
    lines.append(f"    return [{', '.join(f'v{index:d}' for index in outputs)}]")
    return "\n".join(lines) + "\n"

"""A network recorded at several lengths of its open axes, as one graph with sizes in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import BestiaryError, ConfigError
from ..graph.record import Call, Graph, Ref, record
from ..insight.progress import progress
from ..nn import Module
from ..op import Op
from ..state import inference_mode, observing, state
from ..tensor import Tensor
from .sizes import Corners, Differs, Size

_LARGEST = 1 << 24  # elements of a result that is computed when exporting


@dataclass
class Trace:
    """Calls whose constants may hold sizes.

    Attributes:
        graph: of the first recording.
        calls: with merged constants; without those whose result is always the same.
        shapes: of every value, with sizes.
        places: the module of each call, as its path.
        fixed: arrays that are the same in every recording.
        made: others that no call made: an array of each recording.
    """

    graph: Graph
    corners: Corners
    calls: list[Call]
    places: dict[int, str]
    shapes: list[tuple[int | Size, ...]]
    fixed: dict[int, Any] = field(default_factory=dict)
    made: dict[int, list[Any]] = field(default_factory=dict)

    def dtype(self, ref: Ref) -> Any:
        """Of a value."""
        return self.graph.kinds[ref.index][1]


def traced(
    module: Module | None,
    function: Callable[..., Any],
    samples: Callable[[tuple[int, ...], int], Sequence[Tensor]],
    corners: Corners,
) -> Trace:
    """Record a function at every corner.

    Args:
        module: whose parts name the places of calls.
        samples: inputs for given lengths, and the number of the recording; values differ.

    Raises:
        ConfigError: what it does depends on the values or lengths of its inputs.
    """
    graphs, places = [], {}
    points = progress(corners.points, what="recording", unit="runs")
    for number, lengths in enumerate(points):
        inputs = samples(lengths, number)
        seen = _Places(module) if number == 0 else None
        with inference_mode(), _any_length(bool(lengths)):
            if seen is None:
                graph, _ = record(function, *inputs)
            else:
                with observing(seen):
                    graph, _ = record(function, *inputs)
                places = dict(enumerate(seen.paths))
        if graph.reads:
            raise ConfigError(
                f"export: what the network does depends on the values of its inputs "
                f"({graph.reads}), and a file has one way for all of them."
            )
        graphs.append(graph)
    return _merged(graphs, corners, places)


@contextmanager
def _any_length(wanted: bool) -> Iterator[None]:
    """Let networks leave out no step that only longer inputs need."""
    before = state.any_length
    state.any_length = wanted
    try:
        yield
    finally:
        state.any_length = before


class _Places:
    """Observes in which module each operation runs."""

    def __init__(self, module: Module | None) -> None:
        named = [] if module is None else list(module.named_modules())
        self._names = {id(m): name for name, m in named}
        self.paths: list[str] = []

    def __call__(self, op: Op[..., Any], operands: Any, constants: Any, run: Any) -> Any:
        out = run()
        frame, path = sys._getframe(1), ""
        while frame is not None:
            owner = frame.f_locals.get("self")
            if isinstance(owner, Module) and id(owner) in self._names:
                path = self._names[id(owner)]
                break
            frame = frame.f_back  # type: ignore[assignment]
        self.paths.append(path)
        return out


def _merged(graphs: list[Graph], corners: Corners, places: dict[int, str]) -> Trace:
    first = graphs[0]
    alike = all(
        len(g.calls) == len(first.calls)
        and g.size == first.size
        and [r.index for r in g.outputs] == [r.index for r in first.outputs]
        and all(
            a.op is b.op and a.results == b.results
            for a, b in zip(g.calls, first.calls, strict=True)
        )
        for g in graphs
    )
    if not alike:
        differing = next(
            (
                places.get(i, "")
                for i, calls in enumerate(zip(*(g.calls for g in graphs), strict=False))
                if any(c.op is not calls[0].op for c in calls)
            ),
            "",
        )
        raise ConfigError(
            f"export: {_where(differing)}the network runs other operations for inputs of other "
            "lengths, which a file with open axes cannot.\nExport it with fixed lengths: "
            "dynamic=False"
        )
    shapes = [_sizes(graphs, i, corners) for i in range(first.size)]
    trace = Trace(first, corners, [], {}, shapes)
    _sort_arrays(trace, graphs)
    for i, calls in enumerate(zip(*(g.calls for g in graphs), strict=True)):
        _add(trace, calls, places.get(i, ""))
    _drop_dead(trace)
    return trace


def _where(path: str) -> str:
    return f"in {path}: " if path else ""


def _sizes(graphs: list[Graph], index: int, corners: Corners) -> tuple[int | Size, ...]:
    kinds = [g.kinds[index] for g in graphs]
    try:
        if any(dtype != kinds[0][1] for _, dtype in kinds):
            raise Differs
        return corners.merged([tuple(shape) for shape, _ in kinds])  # type: ignore[no-any-return]
    except Differs:
        raise ConfigError(
            f"export: a value has the shapes {', '.join(str(s) for s, _ in kinds)} for inputs of "
            "other lengths, which is no sum of products of them.\nExport it with fixed lengths: "
            "dynamic=False"
        ) from None


def _sort_arrays(trace: Trace, graphs: list[Graph]) -> None:
    """Tell arrays that are always the same from those that are made anew for every call."""
    for index, array in graphs[0].external.items():
        arrays: list[Any] = [g.external.get(index) for g in graphs]
        if any(a is None for a in arrays):
            raise ConfigError("export: the network uses other weights for inputs of other lengths")
        same = all(
            a is array or (a.shape == array.shape and np.array_equal(a, array)) for a in arrays
        )
        if same:
            trace.fixed[index] = array
        else:
            trace.made[index] = arrays


def _add(trace: Trace, calls: tuple[Call, ...], path: str) -> None:
    first = calls[0]
    try:
        operands = trace.corners.merged(
            [tuple(repr(x) if isinstance(x, Ref) else x for x in c.operands) for c in calls]
        )
        operands = tuple(
            x if isinstance(x, Ref) else y for x, y in zip(first.operands, operands, strict=True)
        )
        constants = {
            key: trace.corners.merged([c.constants[key] for c in calls]) for key in first.constants
        }
    except (Differs, KeyError):
        raise ConfigError(
            f"export: {_where(path)}{first.op.name} is called with constants that depend on the "
            "lengths or values of the inputs.\nExport it with fixed lengths: dynamic=False"
        ) from None
    call = Call(first.op, operands, constants, first.results)
    if not _computed(trace, call):
        trace.places[len(trace.calls)] = path
        trace.calls.append(call)


def _computed(trace: Trace, call: Call) -> bool:
    """Run a call on fixed arrays whose result has fixed sizes."""
    if call.op.writes or _has_size((call.operands, tuple(call.constants.values()))):
        return False
    refs = [x for x in call.operands if isinstance(x, Ref)]
    results = [r for r in call.results if r is not None]
    if any(r.index not in trace.fixed for r in refs) or any(
        _has_size(trace.shapes[r.index])
        or np.prod(trace.graph.kinds[r.index][0], dtype=float) > _LARGEST
        for r in results
    ):
        return False
    given = [Tensor(trace.fixed[x.index]) if isinstance(x, Ref) else x for x in call.operands]
    try:
        with inference_mode():
            out = call.op(*given, **call.constants)
    except BestiaryError:
        return False
    for ref, x in zip(call.results, out if isinstance(out, tuple) else (out,), strict=True):
        if ref is not None:
            trace.fixed[ref.index] = x.array
    return True


def _has_size(value: Any) -> bool:
    if isinstance(value, Size):
        return True
    if isinstance(value, slice):
        return _has_size((value.start, value.stop, value.step))
    return isinstance(value, list | tuple) and any(_has_size(v) for v in value)


def _drop_dead(trace: Trace) -> None:
    wanted = {ref.index for ref in trace.graph.outputs}
    kept = []
    for i in range(len(trace.calls) - 1, -1, -1):
        call = trace.calls[i]
        if any(r is not None and r.index in wanted for r in call.results):
            kept.append((call, trace.places[i]))
            wanted.update(x.index for x in call.operands if isinstance(x, Ref))
    kept.reverse()
    trace.calls = [call for call, _ in kept]
    trace.places = {i: path for i, (_, path) in enumerate(kept)}

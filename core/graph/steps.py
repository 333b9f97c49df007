"""Compiled training steps: forward, backward, clipping, optimizer and random draws in one program.

A step changes things: parameters, moments, running statistics, random streams, gradients. All of
this happens in operations, which are recorded. The second and the third call with inputs of one
shape are recorded while they run; if the two recordings are the same graph, its program is run
from the third call's beginning once more, on the state as it was then, and must come to the same
state and results. Later calls run the program. From time to time a call is recorded again, to
notice Python that came to do something else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..node import Leaf, Node
from ..notice import CompileWarning, warn_once
from ..state import state, watch
from ..tensor import Tensor, _wrap
from .aliases import changing
from .closeness import alike
from .explanation import Explanation
from .passes import STEP_PASSES
from .program import Program
from .record import Graph, Ref, record
from .sameness import difference
from .surroundings import Before, Outside, python_streams
from .trees import flattened, foreign, rebuilt, signature

PROGRAMS = 8  # kept for a function: one for each combination of shapes
_RECORDINGS = 4  # that may differ, before a function is left as it is
_LOOK_AGAIN = 16  # the first call of a program that is recorded again; then at 4 times as many


@dataclass
class _Recording:
    """A call as it was recorded, and what it did to the gradients of parameters."""

    graph: Graph
    result: Any
    tree: Any
    outputs: int
    ends: list[tuple[Leaf, Ref | None]]  # gradients that it left: a value, or none
    quiet: bool  # overflow is expected, as the loss was multiplied


@dataclass
class _Plan:
    program: Program
    tree: Any
    outputs: int
    given: list[Leaf]  # those whose gradient is read
    ends: list[tuple[Leaf, int | None]]  # place among the outputs
    tensors: list[tuple[Tensor, Any]]  # parameters and what else is read, and its array
    written: list[Tensor]
    structure: int
    quiet: bool
    recorded: Graph  # to compare later calls with: without gradients, which would be kept alive
    renewed: frozenset[int]  # its values that each call finds anew
    look: int  # the call that is recorded again
    calls: int = 0


@dataclass
class _Trial:
    """What is known of calls with inputs of one shape that find the same gradients."""

    last: _Recording | None = None
    plan: _Plan | None = None
    failed: int = 0


@dataclass
class _Shape:
    """What is known of calls with inputs of one shape."""

    calls: int = 0
    leaves: list[Leaf] | None = None  # the parameters, once a call was recorded
    why: str | None = None  # it is not compiled
    trials: dict[tuple[bool, ...], _Trial] = field(default_factory=dict)


class Steps:
    """The training steps of a function, compiled for each combination of shapes.

    Args:
        function: the step.
        tell: is given the explanation of each program.
        name: of the function, for warnings.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        tell: Callable[[Explanation], None],
        name: Callable[[], str],
    ) -> None:
        self.function, self._tell, self._name = function, tell, name
        self._shapes: OrderedDict[Any, _Shape] = OrderedDict()
        self._outside = Outside(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = signature(args, kwargs)
        if found is None:
            return self.function(*args, **kwargs)
        shapes, tensors = found
        # Whether gradients are recorded is a mode that the step may see.
        key = (shapes, self._outside.values(), state.grad_enabled)
        known = self._shapes.get(key)
        if known is None:
            known = self._shapes[key] = _Shape()
            while len(self._shapes) > PROGRAMS:
                self._shapes.popitem(last=False)
        known.calls += 1
        if known.why is not None or known.calls == 1:
            return self.function(*args, **kwargs)
        for x in tensors:
            if x._node is not None:  # its gradient is left to the step
                return self.function(*args, **kwargs)
        if known.leaves is None:
            return self._look(known, tensors, args, kwargs)
        trial = known.trials.setdefault(
            tuple([leaf.grad is not None for leaf in known.leaves]), _Trial()
        )
        plan = trial.plan
        if plan is None:
            return self._learn(known, trial, tensors, args, kwargs)
        for tensor, array in plan.tensors:
            if tensor.array is not array:  # parameters have other memory
                trial.plan = trial.last = None
                return self._learn(known, trial, tensors, args, kwargs)
        if plan.calls >= plan.look or plan.structure != watch.structure:
            return self._again(known, trial, plan, tensors, args, kwargs)
        plan.calls += 1
        return self._run(plan, tensors)

    @property
    def programs(self) -> int:
        """How many there are."""
        trials = (trial for known in self._shapes.values() for trial in known.trials.values())
        return sum(trial.plan is not None for trial in trials)

    # -- running -------------------------------------------------------------------------------

    def _run(self, plan: _Plan, tensors: Sequence[Tensor]) -> Any:
        inputs = [x.array for x in tensors]
        inputs += [leaf.grad.array for leaf in plan.given if leaf.grad is not None]
        if plan.quiet:
            with np.errstate(over="ignore", invalid="ignore"):
                found = plan.program(inputs)
        else:
            found = plan.program(inputs)
        for leaf, place in plan.ends:
            leaf.grad = None if place is None else _wrap(found[place])
        for tensor in plan.written:
            tensor._cell[0] += 1
        return rebuilt(plan.tree, [_wrap(x) for x in found[: plan.outputs]])

    # -- recording -----------------------------------------------------------------------------

    def _record(
        self, args: Any, kwargs: Any, tensors: Sequence[Tensor]
    ) -> tuple[_Recording, str | None]:
        """Run the step and write it down; with why it cannot be compiled, if it cannot."""
        graph, whole = Graph(), []
        kept: list[Leaf] = []

        def run(*_: Tensor) -> tuple[Tensor, ...]:
            whole.append(self.function(*args, **kwargs))
            outputs, _tree = flattened(whole[0])
            kept.extend(leaf for leaf in graph.leaves if leaf.grad is not None)
            return (*outputs, *(leaf.grad for leaf in kept if leaf.grad is not None))

        streams = python_streams()
        state.loss_scaled = False
        record(run, *tensors, graph=graph)
        outputs, tree = flattened(whole[0])
        refs = dict(zip(kept, graph.outputs[len(outputs) :], strict=True))
        ends = [(leaf, refs.get(leaf)) for leaf in graph.leaves]
        recording = _Recording(graph, whole[0], tree, len(outputs), ends, state.loss_scaled)
        return recording, _obstacle(graph, tree, streams)

    def _look(self, known: _Shape, tensors: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
        """Record a call to see which parameters it has."""
        recording, why = self._record(args, kwargs, tensors)
        outputs, _ = flattened(recording.result)
        if any(_live(x) for x in outputs):
            known.why = "its results are differentiated later"
        elif why is not None:
            self._leave(known, why)
        else:
            self._settle(known, list(recording.graph.leaves), recording)
        return recording.result

    def _learn(
        self, known: _Shape, trial: _Trial, tensors: Sequence[Tensor], args: Any, kwargs: Any
    ) -> Any:
        """Record a call; compile it if it did what the one before did."""
        last, structure = trial.last, watch.structure
        before = None if last is None else Before(last.graph)
        recording, why = self._record(args, kwargs, tensors)
        trial.last = recording
        if why is not None:
            self._leave(known, why)
        elif last is not None and before is not None:
            # Leaves that are made in the step are others each time.
            lasting = [leaf for leaf in last.graph.leaves if leaf in recording.graph.leaves]
            if lasting != known.leaves:
                self._settle(known, lasting, recording)
                return recording.result
            given = _found(recording, lasting)
            why = difference(last.graph, recording.graph, given.values())
            why = why or before.moved(recording.graph)
            if why is None:
                try:
                    plan, explanation = self._planned(recording, given, lasting, tensors, structure)
                    if before.copies is None or _agrees(plan, recording, before.copies, tensors):
                        trial.plan, trial.last = plan, None
                        self._tell(explanation)
                        return recording.result
                    why = "the program comes to another state"
                except MemoryError:
                    self._leave(known, "memory ran out while it was compiled")
                    return recording.result
            trial.failed += 1
            if trial.failed >= _RECORDINGS:
                self._leave(known, why)
        return recording.result

    def _settle(self, known: _Shape, leaves: list[Leaf], recording: _Recording) -> None:
        """Note which parameters the step has, and begin with what this call did to them."""
        known.leaves = leaves
        found = tuple([recording.graph.leaves[leaf] is not None for leaf in leaves])
        known.trials = {found: _Trial(recording)}

    def _leave(self, known: _Shape, why: str) -> None:
        known.why = why
        known.trials.clear()
        warn_once(
            f"compile step {id(self)} {why}",
            f"{self._name()}: {why}; it runs as it is, which is correct, and slower",
            CompileWarning,
        )

    def _again(
        self,
        known: _Shape,
        trial: _Trial,
        plan: _Plan,
        tensors: Sequence[Tensor],
        args: Any,
        kwargs: Any,
    ) -> Any:
        """Run the function itself, and see whether it is still what was compiled."""
        structure = watch.structure
        recording, why = self._record(args, kwargs, tensors)
        if why is None:
            why = difference(plan.recorded, recording.graph, plan.renewed)
        if why is None:
            plan.structure = structure
            if plan.calls >= plan.look:
                plan.look *= 4
            plan.calls += 1
        elif plan.structure != structure:  # layers or modes changed: learn it anew
            trial.plan = trial.last = None
        else:
            self._leave(known, why)
        return recording.result

    def _planned(
        self,
        recording: _Recording,
        given: dict[Leaf, int],
        leaves: Sequence[Leaf],
        tensors: Sequence[Tensor],
        structure: int,
    ) -> tuple[_Plan, Explanation]:
        from time import perf_counter

        begun = perf_counter()
        own = recording.graph
        fixed = {i: x for i, x in own.external.items() if i not in given.values()}
        graph = Graph(
            [*own.inputs, *(Ref(index) for index in given.values())],
            list(own.outputs),
            list(own.calls),
            dict(fixed),
            dict(own.tensors),
            list(own.kinds),
            trains=True,
        )
        places = {ref: place for place, ref in enumerate(own.outputs)}
        untouched = {
            leaf
            for leaf, ref in recording.ends
            if ref is not None and recording.graph.leaves[leaf] is leaf.grad
        }
        written = changing(graph)
        held = [(t, own.external[i]) for i, t in own.tensors.items() if i in graph.external]
        passes = tuple((what, apply(graph)) for what, apply in STEP_PASSES)
        plan = _Plan(
            Program(graph),
            recording.tree,
            recording.outputs,
            list(given),
            [
                (leaf, None if ref is None else places[ref])
                for leaf, ref in recording.ends
                if leaf in leaves and leaf not in untouched
            ],
            held,
            [t for i, t in own.tensors.items() if i in written],
            structure,
            recording.quiet,
            Graph(calls=own.calls, kinds=own.kinds, external=fixed),
            frozenset(given.values()),
            _LOOK_AGAIN,
        )
        shapes, seconds = tuple(x.shape for x in tensors), perf_counter() - begun
        counts = len(own.calls), len(graph.calls)
        return plan, Explanation(shapes, *counts, passes, seconds, repr(graph))


def _obstacle(graph: Graph, tree: Any, streams: tuple[Any, ...]) -> str | None:
    """Why a recorded step is not to be run again; None if it may be."""
    other = foreign(tree)
    if other is not None:
        return f"its result holds a {other}"
    if graph.reads is not None:
        return f"it reads the elements of a tensor ({graph.reads})"
    if any(type(array) is not np.ndarray for array in graph.external.values()):
        return "it is not on the CPU"
    if not all(array.flags.aligned for array in graph.external.values()):
        return "it reads an array whose memory is misaligned: give it a copy"
    if streams != python_streams():
        return "it draws random numbers of Python or NumPy (bt.random has operations for them)"
    if any(leaf.hooks for leaf in graph.leaves):
        return "its parameters have hooks"
    return None


def _found(recording: _Recording, leaves: Sequence[Leaf]) -> dict[Leaf, int]:
    """The values that were gradients before the step and are read by it."""
    numbers = {id(array): index for index, array in recording.graph.external.items()}
    read = {x.index for call in recording.graph.calls for x in call.operands if isinstance(x, Ref)}
    found = {}
    for leaf in leaves:
        grad = recording.graph.leaves[leaf]
        index = None if grad is None else numbers.get(id(grad.array))
        if index is not None and index in read:
            found[leaf] = index
    return found


def _live(x: Tensor) -> bool:
    """Whether a result can be differentiated: its graph was not used up by the step."""
    stack, seen = [x._node], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, Node):
            if node.saved is None:
                return False
            stack.extend(node.parents)
    return x._node is not None


def _agrees(
    plan: _Plan, recording: _Recording, before: dict[int, Any], tensors: Sequence[Tensor]
) -> bool:
    """Whether the program comes to where the step came, from where it began."""
    external = recording.graph.external
    after = {index: external[index].copy() for index in before}
    try:
        for index, array in before.items():
            external[index][...] = array
        inputs = [x.array for x in tensors]
        grads = [recording.graph.leaves[leaf] for leaf in plan.given]
        inputs += [g.array for g in grads if g is not None]
        with np.errstate(all="ignore"):
            found = plan.program(inputs)
        same = all(alike(external[index], array, whole=True) for index, array in after.items())
        wanted, _ = flattened(recording.result)
        pairs = zip(found, wanted, strict=False)
        same = same and all(alike(x, t.array, whole=True) for x, t in pairs)
        for leaf, place in plan.ends:
            if place is not None and leaf.grad is not None:
                same = same and alike(found[place], leaf.grad.array, whole=True)
    finally:  # also where memory runs out
        for index, array in after.items():
            external[index][...] = array
    return same

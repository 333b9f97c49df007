"""`bt.compile`: a function or module that is recorded once and then run without Python between.

A call records the function with its inputs, applies the passes, and checks the program against
the function on other inputs; later calls with inputs of the same shapes run the program. The
function itself runs whenever a program would not do the same: under observers or autocast, on
other devices, and for ever where what it does depends on the values of its inputs. What changes
things, as training steps do, is in steps.py.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import native
from ..errors import BestiaryError
from ..nn import Module
from ..notice import CompileWarning, warn_once
from ..state import state, watch
from ..tensor import Tensor
from .closeness import alike
from .explanation import Explanation
from .passes import PASSES
from .program import Program
from .record import Graph, record
from .steps import PROGRAMS, Steps
from .trees import flattened, foreign, rebuilt, signature


@dataclass
class _Plan:
    """A program, and what it rests on."""

    program: Program
    tree: Any  # how the outputs are put together
    tensors: list[tuple[Tensor, Any, int]]  # parameters: tensor, its array, its version
    writes: int
    structure: int
    parts: tuple[int, ...]  # the module tree it was recorded from
    isa: str


class Compiled:
    """A function that runs compiled where it can: made by `bt.compile`."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        module: Module | None = None,
        after: int = 0,
        quiet: bool = False,
        most: int = PROGRAMS,
    ) -> None:
        self.function = function
        self._number = next(_numbers)
        owner = function if isinstance(function, Module) else getattr(function, "__self__", None)
        self._module = (
            module if module is not None else owner if isinstance(owner, Module) else None
        )
        self._after, self._quiet, self._most = after, quiet, most
        self._may_train = not quiet and not isinstance(function, Module)
        self._steps: Steps | None = None
        self._plans: OrderedDict[Any, _Plan | None] = OrderedDict()
        self._seen: dict[Any, int] = {}
        self._explained: dict[Any, Explanation] = {}
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not _possible():
            if state.grad_enabled and self._may_train and not state.observers and not state.cast:
                return self._step()(*args, **kwargs)
            return self.function(*args, **kwargs)
        found = signature(args, kwargs)
        if found is None:
            return self.function(*args, **kwargs)
        key, tensors = found
        plan = self._plans.get(key, _UNSEEN)
        if plan is None:
            return self.function(*args, **kwargs)
        if plan is _STEP:
            return self._step()(*args, **kwargs)
        if isinstance(plan, _Plan) and self._holds(plan):
            try:
                outputs = plan.program([x.array for x in tensors])
                return rebuilt(plan.tree, [Tensor(x) for x in outputs])
            except MemoryError:  # what it held is let go before the function runs
                self._give_up(key, "memory ran out while its program ran")
            return self.function(*args, **kwargs)
        return self._first(key, tensors, args, kwargs)

    def _step(self) -> Steps:
        """What runs it where it changes things: with gradients, or without."""
        if self._steps is None:
            self._steps = Steps(self.function, self._tell, self.__repr__)
        return self._steps

    def _tell(self, explanation: Explanation) -> None:
        self._explained[len(self._explained), explanation.inputs] = explanation

    def explain(self) -> list[Explanation]:
        """What was done for each combination of shapes that is compiled; print them."""
        return list(self._explained.values())

    def clear(self) -> None:
        """Forget what was compiled: after changes to a module that are no assignments."""
        with self._lock:
            self._plans.clear()
            self._seen.clear()
            self._explained.clear()
            self._steps = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "function":
            raise AttributeError(name)
        return getattr(self.function, name)  # of a module: parameters(), state_dict(), ...

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        count = sum(isinstance(p, _Plan) for p in self._plans.values())
        count += 0 if self._steps is None else self._steps.programs
        return f"Compiled({name}, {count} programs)"

    # -- what a plan rests on ------------------------------------------------------------------

    def _holds(self, plan: _Plan) -> bool:
        """Whether parameters and layers are those that were compiled."""
        if plan.structure != watch.structure:
            if self._parts() != plan.parts:
                return False
            plan.structure = watch.structure
        if plan.isa != native.isa():
            return False
        for tensor, array, _ in plan.tensors:
            if tensor.array is not array:
                return False
        if plan.writes != watch.writes:
            if any(tensor._cell[0] != version for tensor, _, version in plan.tensors):
                return False
            plan.writes = watch.writes
        return True

    def _parts(self) -> tuple[int, ...]:
        """The layers and their modes; empty for a function, whose layers are not known."""
        if self._module is None:
            return (watch.structure,)
        found = []
        for m in self._module.modules():
            found += [id(m), 2 * m.training + _hooked(m)]
        every = (*self._module.named_parameters(), *self._module.named_buffers())
        return (*found, *(id(tensor) for _, tensor in every))

    # -- compiling -----------------------------------------------------------------------------

    def _first(self, key: Any, tensors: Sequence[Tensor], args: Any, kwargs: Any) -> Any:
        with self._lock:
            self._seen[key] = seen = self._seen.get(key, 0) + 1
            if seen <= self._after or (self._module is not None and self._lives()):
                return self.function(*args, **kwargs)
            result, plan = self._compiled(key, tensors, args, kwargs)
            self._plans[key] = plan
            self._plans.move_to_end(key)
            while len(self._plans) > self._most:
                old, _ = self._plans.popitem(last=False)
                self._explained.pop(old, None)
            return result

    def _lives(self) -> bool:
        """Whether layers train, and may draw random numbers, or have hooks, which do anything."""
        assert self._module is not None
        return any(m.training or _hooked(m) for m in self._module.modules())

    def _compiled(
        self, key: Any, tensors: Sequence[Tensor], args: Any, kwargs: Any
    ) -> tuple[Any, _Plan | None]:
        """The result of this call, and the plan for the next ones; None where there can be none."""
        from time import perf_counter

        begun = perf_counter()
        writes, structure = watch.writes, watch.structure
        whole: list[Any] = []

        def run(*_: Tensor) -> tuple[Tensor, ...]:
            whole.append(self.function(*args, **kwargs))
            leaves, _tree = flattened(whole[0])
            return tuple(leaves)

        graph, _ = record(run, *tensors)
        result = whole[0]
        _, tree = flattened(result)
        other = foreign(tree)
        reason = _obstacle(graph) if other is None else f"its result holds a {other}"
        if reason is None and self._may_train and _changes(graph):
            return result, _STEP
        if reason is None and _changes(graph):
            reason = "it writes in place, or draws random numbers"
        if reason is None:
            try:
                plan = self._planned(key, graph, tree, (writes, structure), tensors, begun)
                if self._agrees(plan, tensors, args, kwargs):
                    return result, plan
                reason = "what it does depends on the values of its inputs"
            except MemoryError:
                reason = "memory ran out while it was compiled"
        self._give_up(key, reason)
        return result, None

    def _planned(
        self,
        key: Any,
        graph: Graph,
        tree: Any,
        before: tuple[int, int],
        tensors: Sequence[Tensor],
        begun: float,
    ) -> _Plan:
        from time import perf_counter

        recorded = len(graph.calls)
        passes = tuple((what, apply(graph)) for what, apply in PASSES)
        plan = _Plan(
            Program(graph),
            tree,
            [(t, graph.external[i], t._cell[0]) for i, t in graph.tensors.items()],
            *before,
            self._parts(),
            native.isa(),
        )
        self._explained[key] = Explanation(
            tuple(x.shape for x in tensors),
            recorded,
            len(graph.calls),
            passes,
            perf_counter() - begun,
            repr(graph),
        )
        return plan

    def _give_up(self, key: Any, reason: str) -> None:
        """From now on the function runs as it is for inputs like these."""
        if not self._quiet:
            warn_once(
                f"compile {self._number}",
                f"{self!r}: {reason}; it runs as it is, which is correct, and slower",
                CompileWarning,
            )
        self._plans[key] = None
        self._explained.pop(key, None)

    def _agrees(self, plan: _Plan, tensors: Sequence[Tensor], args: Any, kwargs: Any) -> bool:
        """Whether program and function give the same for other values: these, turned around."""
        turned = [Tensor(np.array(np.flip(x.array), order="C")) for x in tensors]
        _, spare = signature(args, kwargs, replace=turned) or (None, None)
        if spare is None:
            return False
        other_args, other_kwargs = spare
        try:
            wanted, tree = flattened(self.function(*other_args, **other_kwargs))
        except BestiaryError:  # values that the function refuses: it is trusted on its own
            return True
        if foreign(tree) is not None or tree != plan.tree:
            return False
        found = plan.program([x.array for x in turned])
        return all(alike(a.array, b) for a, b in zip(wanted, found, strict=True))


_UNSEEN = object()
_STEP: Any = object()  # in the place of a plan: what changes things is compiled as a step is
_numbers = itertools.count()  # of these objects: an identity may be that of one that is gone


def _hooked(module: Module) -> bool:
    return bool(module._pre_hooks or module._post_hooks)


def _possible() -> bool:
    """Whether this thread may run a program in the place of operations."""
    if state.grad_enabled:
        return False
    return not watch.count or (state.cast is None and not state.observers)


def _obstacle(graph: Graph) -> str | None:
    """Why a recorded graph is not to be run again; None if it may be."""
    if graph.reads is not None:
        return f"it reads the elements of a tensor ({graph.reads})"
    if any(type(array) is not np.ndarray for array in graph.external.values()):
        return "it is not on the CPU"
    if not all(array.flags.aligned for array in graph.external.values()):
        return "it reads an array whose memory is misaligned: give it a copy"
    return None


def _changes(graph: Graph) -> bool:
    """Whether it writes in place; draws of random numbers do."""
    return any(call.op.writes for call in graph.calls)


def compile(
    function: Callable[..., Any], *, module: Module | None = None, after: int = 0
) -> Compiled:
    """Record a function or module, and run it without Python between its operations.

    On the CPU: a function or module under `bt.inference_mode()` or `bt.no_grad()`, and a function
    that is a whole training step, with its backward pass and optimizer. Everywhere else, and
    wherever compiling is not possible, the function itself runs.

    For inference, batch norms are folded into convolutions, activations and sums joined to
    products, constants computed once, weights packed. Parameters that change are seen, and so are
    layers that are assigned. A function whose Python code looks at the values of tensors is not
    compiled, and a warning says where it does.

    Args:
        function: takes tensors and other arguments, returns tensors, alone or in tuples, named
            tuples, lists and dicts.
        module: whose layers the function uses, where it is neither a module nor a method of one:
            changes to other modules then compile nothing anew.
        after: how many calls with inputs of the same shapes are run as they are first.
    """
    return Compiled(function, module=module, after=after)

"""Recording: the primitives that a function runs, in order, as a graph of values.

Everything that goes through the choke point is seen: the forward pass, the backward pass (whose
rules then run on tensors), optimizer updates and draws of random numbers. A value is an array;
arrays that no recorded call made (parameters, buffers, learning rates) are external and stay
bound by reference, so that what a call writes in place is seen by the next replay.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..callers import user_frame, user_line
from ..devices import backend_of
from ..dtypes import DType
from ..node import Leaf
from ..op import Op
from ..state import observing
from ..tensor import Tensor


@dataclass(frozen=True)
class Ref:
    """The number of a value in a graph."""

    index: int

    def __repr__(self) -> str:
        return f"%{self.index}"


@dataclass(frozen=True)
class Call:
    """One recorded call: operands are `Ref`s, numbers or None; results are values or None."""

    op: Op[..., Any]
    operands: tuple[Any, ...]
    constants: dict[str, Any]
    results: tuple[Ref | None, ...]

    def __repr__(self) -> str:
        left = ", ".join(str(r) for r in self.results) or "()"
        items = [str(x) for x in self.operands]
        items += [f"{name}={value}" for name, value in self.constants.items()]
        return f"{left} = {self.op.name}({', '.join(items)})"


@dataclass
class Graph:
    """A recorded computation.

    Attributes:
        inputs: values that each replay is given.
        outputs: values that it returns.
        calls: the primitives, in the order in which they ran.
        external: arrays that were there before, by value number; replays read and write them.
        tensors: the tensors that held these arrays, where tensors did: parameters and buffers.
        kinds: shape and dtype of every value.
        leaves: whose gradients were read or replaced, and what these were before.
        reads: where Python looked at the elements of a computed value, if it did: what it does with
            them may depend on the inputs, and a replay would do what it did when recorded.
        trains: it is a training step: what is external may have changed at the next run.
    """

    inputs: list[Ref] = field(default_factory=list)
    outputs: list[Ref] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    external: dict[int, Any] = field(default_factory=dict)
    tensors: dict[int, Tensor] = field(default_factory=dict)
    kinds: list[tuple[tuple[int, ...], DType]] = field(default_factory=list)
    leaves: dict[Leaf, Tensor | None] = field(default_factory=dict)
    reads: str | None = None
    trains: bool = False

    @property
    def size(self) -> int:
        """How many values there are."""
        return len(self.kinds)

    def value(self, shape: tuple[int, ...], dtype: DType) -> Ref:
        """A new value, for a pass that adds a call."""
        self.kinds.append((tuple(shape), dtype))
        return Ref(self.size - 1)

    def constant(self, array: Any) -> Ref:
        """A new value that is this array, for a pass that computed one."""
        ref = self.value(array.shape, array.dtype)
        self.external[ref.index] = array
        return ref

    def uses(self) -> Counter[int]:
        """How often each value is an operand, or an output."""
        return Counter(
            [x.index for call in self.calls for x in call.operands if isinstance(x, Ref)]
            + [x.index for x in self.outputs]
        )

    def __repr__(self) -> str:
        head = f"graph({', '.join(map(str, self.inputs))}) -> {', '.join(map(str, self.outputs))}"
        return "\n".join([head, *(f"  {call}" for call in self.calls)])


class _Recorder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        # Arrays are known by identity, until they are gone: nothing can ask for them then, and
        # others may get their identity.
        self._numbers: dict[int, int] = {}
        self._seen: dict[int, Any] = {}

    def number(self, array: Any) -> int | None:
        return self._numbers.get(id(array))

    def add(self, array: Any) -> Ref:
        known = self.number(array)
        if known is not None:
            return Ref(known)
        ref = self.graph.value(array.shape, array.dtype)
        identity = id(array)
        self._numbers[identity] = ref.index
        try:
            self._seen[identity] = weakref.ref(array, lambda _: self._forget(identity))
        except TypeError:  # of a library whose arrays have no weak references
            self._seen[identity] = array
        return ref

    def _forget(self, identity: int) -> None:
        self._numbers.pop(identity, None)
        self._seen.pop(identity, None)

    def operand(self, x: Any) -> Any:
        array = x.array if isinstance(x, Tensor) else x
        if backend_of(array) is None:
            return x
        known = self.number(array)
        if known is None:
            ref = self.add(array)
            self.graph.external[ref.index] = array
            if isinstance(x, Tensor):
                self.graph.tensors[ref.index] = x
            return ref
        return Ref(known)

    def __call__(
        self,
        op: Op[..., Any],
        operands: tuple[Any, ...],
        constants: dict[str, Any],
        run: Callable[[], Any],
    ) -> Any:
        refs = tuple(self.operand(x) for x in operands)
        out = run()
        outs = out if isinstance(out, tuple) else (out,)
        results = tuple(self._result(x) for x in outs)
        self.graph.calls.append(Call(op, refs, dict(constants), results))
        return out

    def _result(self, x: Any) -> Ref | None:
        """None too for an array that was there before: the operation only passed it on."""
        if not isinstance(x, Tensor) or self.number(x.array) is not None:
            return None
        return self.add(x.array)

    def touch(self, leaf: Leaf) -> None:
        """Called when the gradient of a leaf is read or replaced."""
        if leaf not in self.graph.leaves:
            self.graph.leaves[leaf] = leaf.grad

    def read(self, tensor: Tensor | None, how: str) -> None:
        """Called when Python looks at the elements of a tensor: what it then does is not seen."""
        number = -1 if tensor is None else self.number(tensor.array)
        if number is not None and number not in self.graph.external and not self.graph.reads:
            frame = user_frame(2)
            self.graph.reads = f"{how} at {user_line(frame.f_code, frame.f_lasti)}"


def record(
    function: Callable[..., Any], *inputs: Tensor, graph: Graph | None = None
) -> tuple[Graph, Any]:
    """Run `function(*inputs)` and write down every primitive it runs.

    Args:
        function: takes tensors, returns a tensor or a tuple of tensors.
        graph: an empty one to write in, for a function that looks at it.

    Returns:
        The graph, and what the function returned.
    """
    graph = Graph() if graph is None else graph
    recorder = _Recorder(graph)
    graph.inputs = [recorder.add(x.array) for x in inputs]
    with observing(recorder):
        out = function(*inputs)
    outs = out if isinstance(out, tuple) else (out,)
    graph.outputs = [recorder.operand(x) for x in outs]
    return graph, out

"""Trading time for memory: a part of the computation that is run again for its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .autocast import casting
from .errors import GradError
from .node import Leaf, Node, creation_number, new_node
from .op import Op
from .ops.shape import identity
from .spelling import spelled
from .state import set_grad_enabled, state
from .tensor import Tensor
from .walk import Edge, walk


@spelled
def checkpoint(function: Callable[..., Any], *inputs: Any) -> Any:
    """`function(*inputs)`, keeping only the inputs; the rest is computed again in the backward.

    Random operations repeat their draws, so dropout has the same mask both times. Tensors that
    the function uses without being given them (parameters) get their gradients too.

    Args:
        function: takes `inputs`, returns a tensor or a tuple of tensors.

    Source: Chen et al. 2016, "Training deep nets with sublinear memory cost".
    """
    if not state.grad_enabled:
        return function(*inputs)
    start = creation_number()
    fresh = [_restart(x) for x in inputs]
    with _logging_keys() as keys:
        out = function(*fresh)
    outs = out if isinstance(out, tuple) else (out,)
    for x in outs:
        if not isinstance(x, Tensor):
            raise GradError(f"checkpoint: the function returned {type(x).__name__}, not a tensor")
    own = {x._node for x in fresh if isinstance(x, Tensor) and x._node is not None}
    outside = _boundary(outs, start, own)
    detached = tuple(x.detach() for x in outs)
    given = [x for x in inputs if isinstance(x, Tensor) and x._node is not None]
    if not outside and not given:
        return detached if isinstance(out, tuple) else detached[0]

    edges: list[Edge] = [(x._node, x._slot) for x in given if x._node is not None] + outside
    segment = _Segment(function, inputs, keys, outside, len(outs))
    node = new_node(segment, edges, detached)
    tensors = [x for x in inputs if isinstance(x, Tensor)]
    node.saved = tuple(x.array for x in tensors)
    node.cells = tuple(x._cell for x in tensors)
    node.versions = tuple(x._cell[0] for x in tensors)
    return detached if isinstance(out, tuple) else detached[0]


class _Segment(Op[..., Any]):
    """The operation that a checkpoint records: its rule runs the function again."""

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: tuple[Any, ...],
        keys: list[Tensor],
        outside: list[Edge],
        outputs: int,
    ) -> None:
        # Not registered: each checkpoint has one of its own, which goes with the graph.
        self.name = "checkpoint"
        self.outputs = outputs
        self.composite = None
        self.defaults = {}
        self._save_out = False
        self.rule_spec = (("g", None), ("needs", None))
        self.rule = self._again
        self._function = function
        self._inputs = [_Kept(x) if isinstance(x, Tensor) else x for x in inputs]
        self._keys = keys
        self._outside = outside
        self._cast = state.cast

    def _again(self, g: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        gradients = [g] if self.outputs == 1 else list(g)
        bare = not any(isinstance(x, Tensor) for x in gradients)
        create_graph = state.grad_enabled
        inputs = [x.restored(create_graph) if isinstance(x, _Kept) else x for x in self._inputs]
        with set_grad_enabled(True), casting(self._cast), _replaying_keys(self._keys):
            out = self._function(*inputs)
        outs = out if isinstance(out, tuple) else (out,)
        watched: list[Edge] = [
            (x._node, x._slot) for x in inputs if isinstance(x, Tensor) and x._node is not None
        ] + self._outside
        roots: list[Edge] = []
        seeds = []
        for x, gradient in zip(outs, gradients, strict=True):
            if gradient is not None and x._node is not None:
                roots.append((x._node, x._slot))
                seeds.append(gradient if isinstance(gradient, Tensor) else Tensor(gradient))
        found = walk(roots, seeds, targets=watched, retain=create_graph, create_graph=create_graph)
        results = [found.get(edge) for edge in watched]
        return tuple(None if r is None else r.array if bare else r for r in results)


class _Kept:
    """An input as it was: its array and its place in the graph, not the tensor."""

    def __init__(self, x: Tensor) -> None:
        self.array, self.node, self.slot = x.array, x._node, x._slot

    def restored(self, create_graph: bool) -> Tensor:
        x = Tensor(self.array)
        if self.node is None:
            return x
        if not create_graph:
            return x.requires_grad_()
        x._node, x._slot = self.node, self.slot
        return identity(x)


def _restart(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return x
    return x.detach().requires_grad_() if x._node is not None else x.detach()


def _boundary(outs: tuple[Tensor, ...], start: int, own: set[Node | Leaf]) -> list[Edge]:
    """What the function used that was there before it ran and is no input: parameters mostly."""
    edges: dict[Edge, None] = {}
    seen: set[Node] = set()
    stack: list[Node] = []

    def visit(node: Node | Leaf | None, slot: int) -> None:
        if node is None or node in own:
            return
        if isinstance(node, Leaf) or node.order < start:
            edges[(node, slot)] = None
        elif node not in seen:
            seen.add(node)
            stack.append(node)

    for x in outs:
        visit(x._node, x._slot)
    while stack:
        node = stack.pop()
        for parent, slot in zip(node.parents, node.slots, strict=True):
            visit(parent, slot)
    return list(edges)


@contextmanager
def _logging_keys() -> Iterator[list[Tensor]]:
    before = state.key_log
    keys: list[Tensor] = []
    state.key_log = keys
    try:
        yield keys
    finally:
        state.key_log = before
        if before is not None:
            before.extend(keys)


@contextmanager
def _replaying_keys(keys: list[Tensor]) -> Iterator[None]:
    before = state.key_replay
    state.key_replay = iter(keys)
    try:
        yield
    finally:
        state.key_replay = before

"""The backward walk: gradients carried from the outputs of a graph down to its leaves.

Nodes are visited from the newest to the oldest, without recursion, so the length of a graph is
bounded by memory alone. Rules run on bare arrays where nothing looks; on tensors when the
result must itself be differentiable (`create_graph`), when somebody observes (a tracer, the
profiler), and for half types, whose gradients are carried in float32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import dtypes, mistakes
from .callers import user_line
from .errors import GradError
from .node import Leaf, Node
from .ops.elementwise import add, real
from .ops.reduction import sum_to
from .ops.shape import astype, identity
from .state import state, touching, walking, watch
from .tensor import Tensor

Edge = tuple[Node | Leaf, int]  # one output of a node
_ndarray = np.ndarray


def walk(
    edges: list[Edge],
    seeds: list[Tensor],
    *,
    targets: list[Edge] | None,
    retain: bool,
    create_graph: bool,
) -> dict[Edge, Tensor]:
    """Carry `seeds`, the gradients at `edges`, down the graph.

    Returns the gradients at `targets`; without targets they are added to the leaves' `.grad`.
    """
    observed = bool(watch.count and state.observers)
    step = _observed_step if observed else _step
    on_tensors = create_graph or observed
    state.noisy = None  # what ran without gradients was for training
    order, useful = _reachable(edges, targets)
    pending: dict[Edge, Any] = {}
    owned: set[Edge] = set()  # sums that the walk made itself and may add to in place
    for edge, seed in zip(edges, seeds, strict=True):
        value = seed if on_tensors else seed.array
        if edge in pending:
            _add(pending, owned, edge, value)
        else:
            pending[edge] = value
    wanted = set(targets) if targets is not None else None
    found: dict[Edge, Tensor] = {}
    with walking(create_graph):
        for node in order:
            slots = range(len(node.meta))
            received = [pending.pop((node, slot), None) for slot in slots]
            if all(g is None for g in received):
                continue
            if wanted is not None or isinstance(node, Leaf) or node.hooks or node.retained:
                for slot in slots:
                    g = received[slot]
                    if g is None:
                        continue
                    g = received[slot] = _deliver(
                        node, slot, g, wanted, found, (node, slot) in owned
                    )
            if not isinstance(node, Node) or (useful is not None and node not in useful.steps):
                continue
            step(node, received, pending, owned, useful, on_tensors)
            if not retain:
                node.saved = None
    return found


class _Useful(NamedTuple):
    """What a walk towards targets has to touch."""

    steps: set[Node | Leaf]  # nodes whose rule must run: something below them is wanted
    nodes: set[Node | Leaf]  # these and the targets: gradients for others are not computed


def _reachable(
    edges: list[Edge], targets: list[Edge] | None
) -> tuple[list[Node | Leaf], _Useful | None]:
    """Nodes below the roots, newest first; and those that lead to a target, if there are any."""
    seen: dict[Node | Leaf, None] = {}  # a set would give leaves another order at each walk
    stack = [node for node, _ in edges]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen[node] = None
        if isinstance(node, Node):
            stack.extend([p for p in node.parents if p is not None and p not in seen])
    order = sorted(seen, key=_creation, reverse=True)
    if targets is None:
        return order, None
    useful = _Useful(set(), {node for node, _ in targets})
    for node in reversed(order):
        if isinstance(node, Node) and any(p in useful.nodes for p in node.parents):
            useful.steps.add(node)
            useful.nodes.add(node)
    return order, useful


def _creation(node: Node | Leaf) -> int:
    return node.order


def _observed_step(node: Node, *rest: Any) -> None:
    """`_step`, telling observers which node it is about."""
    before, state.node = state.node, node
    try:
        _step(node, *rest)
    finally:
        state.node = before


def _step(
    node: Node,
    received: list[Any],
    pending: dict[Edge, Any],
    owned: set[Edge],
    useful: _Useful | None,
    on_tensors: bool,
) -> None:
    """Run the rule of one node and hand its results to the parents."""
    op = node.op
    parents = node.parents
    if useful is None:
        needs = tuple([p is not None for p in parents])
    else:
        needs = tuple([p in useful.nodes for p in parents])
    if node.saved is None or node.cells:
        _check_saved(node)
    alone = node.half and not on_tensors  # on tensors for its halves' sake, not for the graph's
    on_tensors = on_tensors or node.half
    if on_tensors:
        received = [g if g is None or isinstance(g, Tensor) else Tensor(g) for g in received]
        received = [None if g is None else _widen(g) for g in received]
    g = received[0] if op.outputs == 1 else tuple(received)
    if on_tensors and state.grad_enabled and op.composite is not None:
        results = _through_composite(node, received, needs)
    else:
        rule = op.rule
        if rule is None:
            raise mistakes.no_rule(op)
        try:
            results = rule(*_rule_arguments(node, g, needs, on_tensors))
        except Exception as error:
            where = user_line(node.code, node.lasti)
            error.add_note(f"in the backward pass of {op.name}, called at {where}")
            raise
        if not isinstance(results, tuple):
            results = (results,)
    if len(results) != len(parents):
        raise GradError(
            f"the backward rule of {op.name} returned {len(results)} gradients for "
            f"{len(parents)} operands"
        )
    saved = node.saved or ()
    for i, result in enumerate(results):
        parent = parents[i]
        if result is None or parent is None or not needs[i]:
            continue
        slot = node.slots[i]
        shape, dtype = parent.meta[slot]
        if type(result) is not _ndarray or result.shape != shape or result.dtype is not dtype:
            result = _fitted(result, shape, dtype, on_tensors)
        unwrapped = alone and isinstance(result, Tensor) and result.dtype not in dtypes.HALVES
        if unwrapped:
            result = result.array  # the next rule runs on bare arrays again
        edge = (parent, slot)
        if edge in pending:
            _add(pending, owned, edge, result)
            continue
        pending[edge] = result
        # Nobody else's memory: neither a view, nor handed through, nor kept by the node.
        if type(result) is _ndarray and result.base is None and not unwrapped:
            for other in (*received, *saved):
                if other is result:
                    break
            else:
                if len(results) == 1 or not _shared(result, results):
                    owned.add(edge)


def _shared(result: Any, results: Sequence[Any]) -> bool:
    """Whether a rule handed the same memory to two operands."""
    uses = 0
    for other in results:
        if other is result or getattr(other, "base", None) is result:
            uses += 1
    return uses > 1


def _fitted(result: Any, shape: tuple[int, ...], dtype: dtypes.DType, on_tensors: bool) -> Any:
    """A gradient in the shape and dtype of what it belongs to."""
    if not hasattr(result, "shape"):
        result = np.full(shape, result, dtype)
        result = Tensor(result) if on_tensors else result
    if result.shape != shape:
        result = sum_to(result, shape)
    if result.dtype is not dtype:
        array = result.array if isinstance(result, Tensor) else result
        if isinstance(array, (np.ndarray, np.generic)):
            dtype = dtypes.widened(dtype)  # a GPU computes in halves, the CPU does not
        if result.dtype != dtype:
            result = _cast(result, dtype)
    return np.asarray(result) if isinstance(result, np.generic) else result


def _add(pending: dict[Edge, Any], owned: set[Edge], edge: Edge, g: Any) -> None:
    """Accumulate; sums made here are owned, so that a third gradient is added in place."""
    before = pending[edge]
    if isinstance(before, Tensor) or isinstance(g, Tensor):
        first = before if isinstance(before, Tensor) else Tensor(before)
        second = g if isinstance(g, Tensor) else Tensor(g)
        pending[edge] = add(first, second)
        owned.discard(edge)
    elif edge in owned and before.dtype == g.dtype:
        before += g
        pending[edge] = before
    else:
        total = before + g
        pending[edge] = np.asarray(total) if isinstance(total, np.generic) else total
        owned.add(edge)


def _deliver(
    node: Node | Leaf,
    slot: int,
    g: Any,
    wanted: set[Edge] | None,
    found: dict[Edge, Tensor],
    is_owned: bool,
) -> Any:
    """Call hooks, and store the gradient where somebody asked for it."""
    dtype = node.meta[slot][1]
    if isinstance(node, Leaf):
        own_hooks = node.hooks
    else:
        own_hooks = node.hooks.get(slot) if node.hooks else None
    if own_hooks:
        tensor = _rounded(g, dtype)
        for hook in list(own_hooks.values()):
            replaced = hook(tensor)
            if replaced is not None:
                tensor = replaced
        g = tensor if isinstance(g, Tensor) else tensor.array
        is_owned = False
    edge = (node, slot)
    if wanted is not None:
        if edge in wanted:
            found[edge] = _rounded(g, dtype)
        return g
    if isinstance(node, Leaf):
        fresh = _rounded(g, dtype)
        if not is_owned and not isinstance(g, Tensor) and fresh.array is g:
            fresh = Tensor(g.copy())  # two leaves may have been handed the same memory
        if watch.count:
            touching(node)
        if node.grad is None:
            node.grad = fresh
        else:
            if node.grad._slot < 0:  # an optimizer has used it already
                mistakes.warn_of_forgotten_zero_grad(-node.grad._slot)
            node.grad = add(node.grad, fresh)
    elif node.retained is not None and slot in node.retained:
        before = node.retained[slot]
        fresh = _rounded(g, dtype)
        node.retained[slot] = fresh if before is None else add(before, fresh)
    return g


def _rounded(g: Any, dtype: dtypes.DType) -> Tensor:
    """A gradient as users see it: a tensor of the dtype of what it belongs to."""
    tensor = g if isinstance(g, Tensor) else Tensor(g)
    return tensor if tensor.dtype == dtype else astype(tensor, dtype=dtype)


def _cast(g: Any, target: dtypes.DType) -> Any:
    """A gradient in another dtype; one of a real value is real."""
    if g.dtype.kind == "c" and target.kind != "c":
        g = real(g)
    if g.dtype == target:
        return g
    return astype(g, dtype=target) if isinstance(g, Tensor) else g.astype(target)


def _widen(g: Tensor) -> Tensor:
    """Halves of the CPU in float32, in which rules compute."""
    if g.dtype in dtypes.HALVES and type(g.array) is np.ndarray:
        return astype(g, dtype=dtypes.float32)
    return g


# -- what a rule is given -----------------------------------------------------------------------


def _check_saved(node: Node) -> None:
    """Refuse what was freed, and what was written after it was saved."""
    if node.saved is None:
        raise mistakes.graph_freed(node)
    for cell, version in zip(node.cells, node.versions, strict=True):
        if cell is not None and cell[0] != version:
            raise mistakes.written_since(node, cell)


def _rule_arguments(node: Node, g: Any, needs: tuple[bool, ...], on_tensors: bool) -> list[Any]:
    """What the parameters of the rule name, in their order; `Op.backward` read the names."""
    arguments = []
    saved = iter(node.saved or ())
    out = None
    op = node.op
    if op._save_out:
        assert node.saved is not None
        out = node.saved[-1]
    for kind, value in op.rule_spec:
        if kind == "g":
            arguments.append(g)
        elif kind == "out":
            if on_tensors:
                arguments.append(_output(node, out))
            else:
                arguments.append(out)
        elif kind == "operand":
            a = next(saved)
            arguments.append(_tensor_of(node, value, a) if on_tensors else a)
        elif kind == "rest":
            group = next(saved)
            if on_tensors:
                group = tuple(_tensor_of(node, value + j, a) for j, a in enumerate(group))
            arguments.append(group)
        elif kind == "constant":
            constants = node.constants
            arguments.append(constants[value] if value in constants else op.defaults[value])
        elif kind == "shapes":
            arguments.append(node.shapes)
        else:
            arguments.append(needs)
    return arguments


def _tensor_of(node: Node, position: int, a: Any) -> Any:
    """A saved operand as a tensor again, joined to the graph that it came from."""
    if not hasattr(a, "shape"):
        return a
    tensor = Tensor(a)
    tensor._node = node.parents[position]
    tensor._slot = node.slots[position]
    return _widen(tensor)


def _output(node: Node, out: Any) -> Any:
    """A saved output, or the tuple of them, as tensors again in their place in the graph."""
    if type(out) is tuple:
        tensors: list[Tensor | None] = []
        for slot, a in enumerate(out):
            if a is None:
                tensors.append(None)
                continue
            tensor = Tensor(a)
            if a.dtype.kind in "fcV":
                tensor._node, tensor._slot = node, slot
            tensors.append(_widen(tensor))
        return tuple(tensors)
    tensor = Tensor(out)
    tensor._node = node
    return _widen(tensor)


def _through_composite(node: Node, received: list[Any], needs: tuple[bool, ...]) -> tuple[Any, ...]:
    """Differentiate the op's composite instead of its rule: it may be differentiated again."""
    op = node.op
    saved: dict[int, Any] = {}
    values = iter(node.saved or ())
    for kind, value in op.rule_spec:
        if kind == "operand":
            saved[value] = next(values)
        elif kind == "rest":
            saved.update({value + j: a for j, a in enumerate(next(values))})
    operands: list[Any] = []
    watched: dict[int, Edge] = {}  # for each operand that wants a gradient, where it will arrive
    for i in range(len(node.parents)):
        x = _tensor_of(node, i, saved.get(i))
        if isinstance(x, Tensor) and needs[i]:
            x = identity(x)  # a fresh edge at which the inner walk stops
            assert x._node is not None
            watched[i] = (x._node, x._slot)
        operands.append(x)
    assert op.composite is not None
    out = op.composite(*operands, **node.constants)
    outs = list(out) if isinstance(out, tuple) else [out]
    roots: list[Edge] = []
    seeds = []
    for o, g in zip(outs, received, strict=True):
        if g is not None and o._node is not None:
            roots.append((o._node, o._slot))
            seeds.append(g)
    found = walk(roots, seeds, targets=list(watched.values()), retain=True, create_graph=True)
    return tuple(found.get(watched[i]) if i in watched else None for i in range(len(node.parents)))

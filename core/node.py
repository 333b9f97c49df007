"""What a recorded graph is made of: a node for each call, and the leaves where it ends."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import dtypes
from .callers import user_frame

if TYPE_CHECKING:
    from .op import Op
    from .tensor import Tensor

creation_order = itertools.count()

Meta = tuple[tuple[tuple[int, ...], dtypes.DType], ...]


class Leaf:
    """The end of a graph: a tensor that the user asked a gradient for.

    It holds the gradient and the hooks, so that a graph never needs the tensor itself.
    """

    __slots__ = ("grad", "hooks", "meta", "name")
    order = -1

    def __init__(self, array: Any) -> None:
        self.meta: Meta = ((array.shape, array.dtype),)
        self.grad: Tensor | None = None
        self.hooks: dict[int, Callable[[Tensor], Tensor | None]] | None = None
        self.name: str | None = None


class Node:
    """One recorded call. It points only backwards: dropping the result frees the graph.

    It keeps arrays, never tensors, so that rebinding or writing a tensor later is noticed
    (through the version cells) and never silently changes a gradient.
    """

    __slots__ = (
        "cells",
        "code",
        "constants",
        "half",
        "hooks",
        "lasti",
        "meta",
        "op",
        "order",
        "parents",
        "retained",
        "saved",
        "shapes",
        "slots",
        "versions",
    )

    op: Op[..., Any]
    parents: tuple[Node | Leaf | None, ...]  # the node of each operand
    slots: tuple[int, ...]  # which output of the parent each operand was
    saved: tuple[Any, ...] | None  # operands and outputs that the rule names; None once freed
    cells: tuple[list[Any] | None, ...]  # version cells of what was saved
    versions: tuple[int, ...]
    constants: dict[str, Any]
    shapes: tuple[tuple[int, ...] | None, ...] | None
    meta: Meta  # shape and dtype of each output
    half: bool  # a half type is involved: its rule runs on widened tensors
    order: int  # creation order: parents come before children
    hooks: dict[int, dict[int, Callable[[Tensor], Tensor | None]]] | None
    retained: dict[int, Tensor | None] | None
    code: Any  # where it was called, as a code object and an instruction offset
    lasti: int


def creation_number() -> int:
    """A number that later nodes exceed: tells what was recorded after this call."""
    return next(creation_order)


def new_node(
    operation: Op[..., Any], edges: list[tuple[Node | Leaf, int]], outs: tuple[Tensor, ...]
) -> Node:
    """A node that joins `outs` to `edges` with nothing saved: for operations made by hand."""
    node = Node()
    node.op = operation
    node.parents = tuple(parent for parent, _ in edges)
    node.slots = tuple(slot for _, slot in edges)
    node.saved = node.cells = node.versions = ()
    node.constants = {}
    node.shapes = node.hooks = node.retained = None
    node.meta = tuple((x.array.shape, x.array.dtype) for x in outs)
    node.half = any(dtype in dtypes.HALVES for _, dtype in node.meta)
    node.order = next(creation_order)
    frame = user_frame(2)
    node.code, node.lasti = frame.f_code, frame.f_lasti
    for slot, x in enumerate(outs):
        x._node, x._slot = node, slot
    return node

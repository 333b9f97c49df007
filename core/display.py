"""How tensors are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import dtypes
from .node import Node

if TYPE_CHECKING:
    from .tensor import Tensor


def tensor_repr(x: Tensor) -> str:
    """Values, shape, dtype, device, whether it takes part in a gradient, and what made it."""
    array = x.array if type(x.array) is np.ndarray else x.array.get()
    if array.dtype in dtypes.HALVES or array.dtype.kind == "V":
        array = array.astype(np.float32)
    values = np.array2string(
        array, separator=", ", precision=4, threshold=200, edgeitems=3, prefix="tensor("
    )
    facts = [f"shape={x.shape}", f"dtype={x.dtype.name}", f"device={str(x.device)!r}"]
    node = x._node
    if isinstance(node, Node):
        facts.append(f"made_by={node.op.name}")
    elif node is not None:
        facts.append("requires_grad=True")
        if node.grad is not None:
            facts.append(f"grad={_brief(node.grad)}")
    return f"tensor({values}, {', '.join(facts)})"


def _brief(g: Tensor) -> str:
    if g.size == 1:
        return f"{float(g.array.item()):.4g}"
    return f"<{'x'.join(str(n) for n in g.shape)}>"

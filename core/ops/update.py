"""Primitives that write memory in place, on purpose and in the open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..op import op

if TYPE_CHECKING:
    from ..tensor import Tensor


@op(raw=True, writes=("x",), differentiable=False)
def assign(xp: Any, x: Tensor, value: Tensor) -> None:
    """Overwrite the values of `x` (a parameter, a buffer, a running statistic) with `value`.

    No gradient flows through it; `value` is broadcast and converted to x's dtype.
    """
    x[...] = value

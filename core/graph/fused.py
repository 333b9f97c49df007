"""Products with what follows them, as one operation each; made by passes, not by users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..op import REGISTRY, op
from ..ops.conv import Padding, Pair

if TYPE_CHECKING:
    from ..tensor import Tensor

#: An operation and its constants: `("hardtanh", (("low", 0.0), ("high", 6.0)))`.
Activation = tuple[str, tuple[tuple[str, Any], ...]]


def _finished(xp: Any, out: Any, add: Any, activation: Activation | None) -> Any:
    if add is not None:
        out = out + add
    if activation is not None:
        name, constants = activation
        out = REGISTRY[name].body(xp, out, **dict(constants))
    return out


@op(differentiable=False)
def conv2d_fused(
    xp: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    add: Tensor | None,
    *,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
    activation: Activation | None,
) -> Tensor:
    """activation(conv2d(x, weight, bias) + add)."""
    out = REGISTRY["conv2d"].body(
        xp, x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    return _finished(xp, out, add, activation)  # type: ignore[no-any-return]


@op(differentiable=False)
def group_norm_fused(
    xp: Any,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    groups: int,
    eps: float,
    activation: Activation,
) -> Tensor:
    """activation(group_norm(x, weight, bias))."""
    out = REGISTRY["group_norm"].body(xp, x, weight, bias, groups=groups, eps=eps)[0]
    return _finished(xp, out, None, activation)  # type: ignore[no-any-return]


@op(differentiable=False)
def linear_fused(
    xp: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    add: Tensor | None,
    *,
    activation: Activation | None,
) -> Tensor:
    """activation(linear(x, weight, bias) + add)."""
    out = REGISTRY["linear"].body(xp, x, weight, bias)
    return _finished(xp, out, add, activation)  # type: ignore[no-any-return]


@op(outputs=2, differentiable=False)  # "several": one for each wanted step
def chain(
    xp: Any,
    *xs: Tensor,
    steps: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...],
    wanted: tuple[int, ...],
    shape: tuple[int, ...],
) -> tuple[Tensor, ...]:
    """Elementwise operations one after another, as core/native/chain.py describes them."""
    values: list[Any] = []
    for name, operands in steps:
        arrays = [
            value if kind == "number" else (xs if kind == "input" else values)[value]
            for kind, value in operands
        ]
        constants = {}
        if name.startswith("gelu"):
            constants["approximate"] = "tanh" if "tanh" in name else "none"
        values.append(REGISTRY[name.replace("_tanh", "")].body(xp, *arrays, **constants))
    return tuple(xp.broadcast_to(values[k], shape) for k in wanted)

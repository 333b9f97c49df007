"""Gradients as users ask for them: `backward`, `grad`, `vjp`, `jvp`. The work is in walk.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from . import mistakes
from .errors import GradError, ShapeError
from .ops.shape import identity
from .state import set_grad_enabled
from .tensor import Tensor
from .walk import Edge, walk


def backward(
    outputs: Tensor | Sequence[Tensor],
    gradients: Tensor | Sequence[Tensor | None] | None = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> None:
    """Add the gradient of `outputs` to `.grad` of every leaf that asked for one.

    Args:
        outputs: the tensors to differentiate; each a scalar unless its gradient is given.
        gradients: gradient of each output, of its shape; None means 1.
        retain_graph: keep the graph for another backward; defaults to `create_graph`.
        create_graph: make the gradients differentiable.

    Raises:
        GradError: an output has no graph, is no scalar, or its graph was freed.
    """
    edges, seeds = _roots(outputs, gradients)
    retain = create_graph if retain_graph is None else retain_graph
    walk(edges, seeds, targets=None, retain=retain, create_graph=create_graph)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> Any:
    """The gradients of `outputs` with respect to `inputs`; leaves `.grad` alone.

    Returns a tensor when `inputs` is one tensor, else a tuple; None for an input that the
    outputs do not depend on, if `allow_unused`.

    Raises:
        GradError: as for `backward`, or an input is not part of the graph.
    """
    single = isinstance(inputs, Tensor)
    wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    targets: list[Edge] = []
    for position, x in enumerate(wanted):
        if x._node is None:
            raise GradError(
                f"grad: input {position} of shape {x.shape} needs no gradient.\n"
                "Mark it before the computation: x.requires_grad_()",
                position=position,
            )
        targets.append((x._node, x._slot))
    edges, seeds = _roots(outputs, grad_outputs)
    retain = create_graph if retain_graph is None else retain_graph
    found = walk(edges, seeds, targets=targets, retain=retain, create_graph=create_graph)
    results: list[Tensor | None] = []
    for position, (edge, x) in enumerate(zip(targets, wanted, strict=True)):
        g = found.get(edge)
        if g is None and not allow_unused:
            raise GradError(
                f"grad: the outputs do not depend on input {position} (shape {x.shape}).\n"
                "Was it replaced or detached on the way? Pass allow_unused=True to get None.",
                position=position,
            )
        results.append(g)
    return results[0] if single else tuple(results)


def vjp(
    function: Callable[..., Any], *primals: Tensor, create_graph: bool = False
) -> tuple[Any, Callable[..., tuple[Tensor, ...]]]:
    """`function(*primals)`, and the function that maps a gradient of it to gradients of them."""
    with set_grad_enabled(True):
        inputs = [identity(x) if x._node is not None else x.detach() for x in primals]
        for x in inputs:
            if x._node is None:
                x.requires_grad_()
        out = function(*inputs)

    def pull(*gradients: Tensor) -> tuple[Tensor, ...]:
        outputs = [out] if isinstance(out, Tensor) else list(out)
        found = grad(
            outputs,
            inputs,
            list(gradients),
            retain_graph=True,
            create_graph=create_graph,
            allow_unused=True,
        )
        return tuple(
            Tensor(_zeros_like(x.array)) if g is None else g
            for g, x in zip(found, inputs, strict=True)
        )

    return out, pull


def jvp(
    function: Callable[..., Tensor], primals: Sequence[Tensor], tangents: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """`function(*primals)` and its directional derivative along `tangents`.

    Computed as the derivative of the backward pass with respect to the gradient given to it, so
    it costs about two backward passes.
    """
    out, pull = vjp(function, *primals, create_graph=True)
    with set_grad_enabled(True):
        dummy = Tensor(_zeros_like(out.array)).requires_grad_()
        pulled = pull(dummy)
        dot = None
        for g, tangent in zip(pulled, tangents, strict=True):
            term = (g * tangent).sum()
            dot = term if dot is None else dot + term
    if dot is None or dot._node is None:
        return out.detach(), Tensor(_zeros_like(out.array))
    tangent_out = grad(dot, dummy, allow_unused=True)
    if tangent_out is None:
        tangent_out = Tensor(_zeros_like(out.array))
    return out.detach(), tangent_out


def _roots(outputs: Any, gradients: Any) -> tuple[list[Edge], list[Any]]:
    """Where a walk starts, and the gradient there: checked, and 1 where it was left out."""
    outs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    if gradients is None:
        gradients = [None] * len(outs)
    elif isinstance(gradients, Tensor) or not isinstance(gradients, (list, tuple)):
        gradients = [gradients]
    if len(gradients) != len(outs):
        raise GradError(f"{len(outs)} outputs and {len(gradients)} gradients for them")
    edges: list[Edge] = []
    seeds = []
    for out, g in zip(outs, gradients, strict=True):
        if out._node is None:
            raise mistakes.no_graph(out)
        if g is None:
            if out.size != 1:
                raise mistakes.no_single_value(out)
            g = Tensor(_ones_like(out.array))
        elif not isinstance(g, Tensor):
            g = Tensor(_ones_like(out.array)) * g
        if g.shape != out.shape:
            raise ShapeError(
                f"backward: the gradient has shape {g.shape}, the result {out.shape}.",
                expected=out.shape,
                got=g.shape,
            )
        edges.append((out._node, out._slot))
        seeds.append(g)
    return edges, seeds


def _zeros_like(array: Any) -> Any:
    return _filled(array, 0)


def _ones_like(array: Any) -> Any:
    return _filled(array, 1)


def _filled(array: Any, value: int) -> Any:
    result = array.copy()
    result[...] = value
    return result

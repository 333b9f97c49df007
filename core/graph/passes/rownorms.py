"""Layer norms and root-mean-square norms that are written out are one kernel each."""

from __future__ import annotations

from typing import Any

from ...op import REGISTRY
from ..record import Call, Graph, Ref
from .matching import Matcher, replaced


def find_row_norms(graph: Graph) -> int:
    """Make them norms; returns how many there were."""
    match, new = Matcher(graph), {}
    users = {x.index: call for call in graph.calls for x in call.operands if isinstance(x, Ref)}
    for call in graph.calls:
        found = _normalised(match, call)
        if found is None:
            continue
        x, name, eps = found
        call, weight = _then(match, users, call, "multiply")
        bias = None
        if name == "layer_norm" and weight is not None:
            call, bias = _then(match, users, call, "add")
        params = (weight, bias) if name == "layer_norm" else (weight,)
        results = (call.results[0], *(None,) * len(params))
        constants = {"axes": 1, "eps": eps}
        new[id(call)] = [Call(REGISTRY[name], (x, *params), constants, results)]
    return replaced(graph, new)


def _normalised(match: Matcher, call: Call) -> tuple[Any, str, float] | None:
    """x of a call that is x / sqrt(mean(x^2) + eps), centred or not; which norm, and eps."""
    if call.op.name == "divide":
        top, root = call.operands
        inner = match.made(root, "sqrt")
        squares = inner.operands[0] if inner is not None else _halved(match, root, 0.5)
    elif call.op.name == "multiply":
        top, root = call.operands
        inverse = match.made(root, "reciprocal", "divide", "pow")
        if inverse is None:
            root, top = call.operands
            inverse = match.made(root, "reciprocal", "divide", "pow")
        squares = _inverse_root(match, root, inverse)
    else:
        return None
    added = match.made(squares, "add")
    if added is None or match.shape(top) is None:
        return None
    mean, eps = added.operands
    if match.number(eps) is None:
        mean, eps = eps, mean
    number = match.number(eps)
    power = _mean(match, mean)
    if number is None or power is None:
        return None
    square = match.made(power, "multiply", "square", "pow")
    if square is None or not _is_square(match, square, top):
        return None
    for uses in (2, 3):  # of the centred values: in x / s, and once or twice in the square
        centred = match.made(top, "subtract", uses=uses)
        if centred is not None:
            x, middle = centred.operands
            if _mean(match, middle) == x and match.shape(x) == match.shape(top):
                return x, "layer_norm", number
    return top, "rms_norm", number


def _inverse_root(match: Matcher, root: Any, inverse: Call | None) -> Any:
    """s of 1 / sqrt(s), however it is written; None for others."""
    if inverse is None:
        return None
    if inverse.op.name == "pow":
        return _halved(match, root, -0.5)
    if inverse.op.name == "divide" and match.number(inverse.operands[0]) != 1:
        return None
    inner = match.made(inverse.operands[-1], "sqrt")
    return None if inner is None else inner.operands[0]


def _halved(match: Matcher, x: Any, exponent: float) -> Any:
    """s of s ** exponent; None for others."""
    power = match.made(x, "pow")
    fits = power is not None and match.number(power.operands[1]) == exponent
    return power.operands[0] if power is not None and fits else None


def _mean(match: Matcher, x: Any) -> Any:
    """What the mean along the last axis was taken of; None for others."""
    call = match.made(x, "mean")
    if call is None or not call.constants.get("keepdims"):
        return None
    (source,) = call.operands
    shape = match.shape(source)
    axis = call.constants["axis"]
    axis = axis[0] if isinstance(axis, tuple) and len(axis) == 1 else axis
    return source if shape and axis in (-1, len(shape) - 1) else None


def _is_square(match: Matcher, call: Call, x: Any) -> bool:
    if call.op.name == "multiply":
        return bool(call.operands[0] == x == call.operands[1])
    if call.op.name == "square":
        return bool(call.operands[0] == x)
    return bool(call.operands[0] == x and match.number(call.operands[1]) == 2)


def _then(match: Matcher, users: dict[int, Call], call: Call, name: str) -> tuple[Call, Any]:
    """The call after this one, if it takes one constant for each column; and the constant."""
    result = call.results[0]
    after = None if result is None else users.get(result.index)
    if result is None or after is None or after.op.name != name:
        return call, None
    if match.made(result, call.op.name) is not call:
        return call, None
    left, right = after.operands
    other = right if left == result else left
    width = (match.shape(result) or (0,))[-1:]
    fits = match.constant(other) is not None and match.shape(other) == width
    return (after, other) if fits else (call, None)

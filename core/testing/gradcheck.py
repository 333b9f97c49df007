"""Gradients against central differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import dtypes
from ..autograd import grad
from ..errors import ConfigError
from ..state import enable_grad, no_grad
from ..tensor import Tensor

_PRECISE = (dtypes.float64, dtypes.complex128)


def gradcheck(
    function: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    order: int = 2,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    elements: int = 64,
    seed: int = 0,
) -> None:
    """Compare the gradients of a function with central differences; raise where they differ.

        bestiary.testing.gradcheck(my_op, [bt.tensor(numpy_array_of_float64)])

    Outputs are reduced to one number with random weights, so that a wrong sign cannot cancel.

    Args:
        function: takes the inputs, returns a tensor or a tuple of tensors, the same every time.
        inputs: tensors of float64 or complex128, of which those that require a gradient are
            checked, or all if none does; anything else is passed through.
        order: 1 checks gradients; 2 also their gradients.
        eps: half the distance of the two points of a difference.
        atol, rtol: a gradient is right within `atol + rtol * difference`.
        elements: at most so many of each input are perturbed, drawn at random.
        seed: of the weights and of that draw.

    Raises:
        AssertionError: names the order, the input and the element, and both values.
        ConfigError: an input is not precise enough, or nothing is to be checked.
    """
    given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    places = _checked(given)
    rng = np.random.default_rng(seed)
    values = {i: np.array(given[i].detach().cpu().numpy()) for i in places}

    def run(changed: dict[int, np.ndarray[Any, Any]]) -> tuple[list[Tensor], list[Tensor]]:
        arguments = list(given)
        leaves = []
        for i in places:
            leaf = Tensor(np.array(changed[i])).to(given[i].device).requires_grad_()
            leaves.append(leaf)
            arguments[i] = leaf
        out = function(*arguments)
        outs = list(out) if isinstance(out, (tuple, list)) else [out]
        return [y for y in outs if isinstance(y, Tensor) and y.dtype in dtypes.INEXACT], leaves

    with no_grad():
        first, again = run(values)[0], run(values)[0]
    if any(
        not np.array_equal(_numpy(a), _numpy(b), equal_nan=True)
        for a, b in zip(first, again, strict=True)
    ):
        raise AssertionError(
            "gradcheck: the function gave two results for the same inputs.\n"
            "Does it draw random numbers or keep state? Seed it inside the function."
        )
    weights = [_random(rng, y.shape, y.dtype) for y in first]
    directions = {i: _random(rng, values[i].shape, values[i].dtype) for i in places}

    def loss(changed: dict[int, np.ndarray[Any, Any]]) -> float:
        with no_grad():
            outs, _ = run(changed)
        return _dot([_numpy(y) for y in outs], weights)

    def gradients(changed: dict[int, np.ndarray[Any, Any]], differentiable: bool) -> Any:
        with enable_grad():
            outs, leaves = run(changed)
            pairs = [
                (y, Tensor(w).to(y.device))
                for y, w in zip(outs, weights, strict=True)
                if y.requires_grad
            ]
            if not pairs:
                return [None] * len(leaves), leaves
            found = grad(
                [y for y, _ in pairs],
                leaves,
                [w for _, w in pairs],
                create_graph=differentiable,
                allow_unused=True,
            )
        return list(found), leaves

    found, _ = gradients(values, differentiable=False)
    _compare(
        1, values, places, _filled(found, values, places), loss, rng, elements, eps, atol, rtol
    )
    if order < 2:
        return

    def slope(changed: dict[int, np.ndarray[Any, Any]]) -> float:
        g, _ = gradients(changed, differentiable=False)
        return _dot(_filled(g, changed, places), [directions[i] for i in places])

    g, leaves = gradients(values, differentiable=True)
    _same_twice(_filled(g, values, places), _filled(found, values, places), atol, rtol)
    seconds: list[Any] = [None] * len(places)
    pairs = [
        (x, Tensor(directions[i]).to(x.device))
        for x, i in zip(g, places, strict=True)
        if x is not None and x.requires_grad
    ]
    if pairs:
        seconds = list(
            grad([x for x, _ in pairs], leaves, [d for _, d in pairs], allow_unused=True)
        )
    second = _filled(seconds, values, places)
    _compare(2, values, places, second, slope, rng, elements, eps, atol, rtol)


def _checked(given: list[Any]) -> list[int]:
    """Places of the inputs to check."""
    places = [i for i, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]
    if not places:
        places = [
            i for i, x in enumerate(given) if isinstance(x, Tensor) and x.dtype in dtypes.INEXACT
        ]
    if not places:
        raise ConfigError("gradcheck: none of the inputs is a floating tensor")
    for i in places:
        if given[i].dtype not in _PRECISE:
            raise ConfigError(
                f"gradcheck: input {i} is {given[i].dtype}, too coarse for differences.\n"
                "Convert it: x.astype(bt.float64)",
                got=str(given[i].dtype),
            )
    return places


def _numpy(x: Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = x.detach().cpu().numpy()
    return array


def _random(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: dtypes.DType
) -> np.ndarray[Any, Any]:
    """Weights from 0.5 to 1.5 of either sign: none so small that an error could hide."""

    def draw() -> np.ndarray[Any, Any]:
        return np.asarray(rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape))

    values = draw() + 1j * draw() if dtype.kind == "c" else draw()
    result: np.ndarray[Any, Any] = np.asarray(values, dtype)
    return result


def _dot(values: list[np.ndarray[Any, Any]], weights: list[np.ndarray[Any, Any]]) -> float:
    """The real inner product, in which gradients of complex tensors are defined."""
    return sum(float(np.sum(np.conj(w) * v).real) for v, w in zip(values, weights, strict=True))


def _filled(
    found: list[Any], values: dict[int, np.ndarray[Any, Any]], places: list[int]
) -> list[np.ndarray[Any, Any]]:
    """Gradients as arrays; none is zero."""
    return [
        np.zeros_like(values[i]) if g is None else _numpy(g)
        for g, i in zip(found, places, strict=True)
    ]


def _same_twice(
    recorded: list[np.ndarray[Any, Any]],
    plain: list[np.ndarray[Any, Any]],
    atol: float,
    rtol: float,
) -> None:
    """The gradient that can be differentiated may come from another formula."""
    for position, (a, b) in enumerate(zip(recorded, plain, strict=True)):
        if not np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True):
            raise AssertionError(
                f"gradcheck: the gradient of checked input {position} differs with "
                f"create_graph=True by up to {np.abs(a - b).max():.3g}: the rule and the "
                "composite disagree."
            )


def _compare(
    order: int,
    values: dict[int, np.ndarray[Any, Any]],
    places: list[int],
    analytic: list[np.ndarray[Any, Any]],
    function: Callable[[dict[int, np.ndarray[Any, Any]]], float],
    rng: np.random.Generator,
    elements: int,
    eps: float,
    atol: float,
    rtol: float,
) -> None:
    for position, i in enumerate(places):
        x = values[i]
        count = min(elements, x.size)
        chosen = sorted(rng.choice(x.size, count, replace=False)) if x.size else []
        wrong: list[tuple[tuple[int, ...], complex, complex]] = []
        for flat in chosen:
            at = tuple(int(k) for k in np.unravel_index(flat, x.shape))
            numeric = _difference(function, values, i, at, eps)
            computed = analytic[position][at]
            if not abs(computed - numeric) <= atol + rtol * abs(numeric):
                wrong.append((at, computed, numeric))
        if wrong:
            wrong.sort(key=lambda item: -abs(item[1] - item[2]))
            shown = [
                f"  at {at}: {computed:.8g}, by differences {numeric:.8g}"
                for at, computed, numeric in wrong[:3]
            ]
            what = "gradient" if order == 1 else "second gradient"
            raise AssertionError(
                f"gradcheck: the {what} of input {i}, shape {x.shape}, is wrong at {len(wrong)} "
                f"of {count} elements (eps={eps:g}, atol={atol:g}, rtol={rtol:g}):\n"
                + "\n".join(shown)
                + "\nAt a corner of the function (abs at 0, equal maxima) differences mean "
                "nothing: move the input."
            )


def _difference(
    function: Callable[[dict[int, np.ndarray[Any, Any]]], float],
    values: dict[int, np.ndarray[Any, Any]],
    i: int,
    at: tuple[int, ...],
    eps: float,
) -> complex:
    """The derivative along one element; of a complex one, along both of its parts."""

    def along(step: complex) -> float:
        results = []
        for sign in (1, -1):
            moved = dict(values)
            moved[i] = values[i].copy()
            moved[i][at] += sign * step
            results.append(function(moved))
        return (results[0] - results[1]) / (2 * eps)

    if values[i].dtype.kind == "c":
        return complex(along(eps), along(1j * eps))
    return along(eps)

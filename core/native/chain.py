"""Chains of elementwise operations on float32 arrays, in one pass over memory (chain.h)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError, ShapeError
from .elementwise import _flat, _unflat
from .runtime import GRAIN, KERNELS, Float32, check, run_prepared

#: The operations and their numbers in chain.h; those from 32 on take two operands.
OPERATIONS = {
    "negative": 0,
    "abs": 1,
    "exp": 2,
    "log": 3,
    "sqrt": 4,
    "square": 5,
    "reciprocal": 6,
    "tanh": 7,
    "erf": 8,
    "sigmoid": 9,
    "relu": 10,
    "silu": 11,
    "gelu": 12,
    "gelu_tanh": 13,
    "hardswish": 14,
    "add": 32,
    "subtract": 33,
    "multiply": 34,
    "divide": 35,
    "maximum": 36,
    "minimum": 37,
    "relu_backward": 38,
    "silu_backward": 39,
    "gelu_backward": 40,
    "gelu_tanh_backward": 41,
    "hardswish_backward": 42,
}
MOST_INPUTS, MOST_OUTPUTS, MOST_NUMBERS = 8, 4, 12
_BUFFERS = 16
_FIRST_INPUT, _FIRST_OUTPUT = _BUFFERS, _BUFFERS + MOST_INPUTS
_FIRST_NUMBER = _FIRST_OUTPUT + MOST_OUTPUTS

# An operation and its operands: ("input", k), ("step", k) or ("number", value).
Operand = tuple[str, Any]
Instruction = tuple[str, tuple[Operand, ...]]


class Chain:
    """A chain, ready to run: `chain(*arrays)` gives its results.

    Args:
        steps: the operations, in order.
        results: the numbers of the steps whose values are wanted.
        shape: of every step's value; inputs are broadcast to it.

    Raises:
        ConfigError: more inputs, results, numbers or intermediate values than fit.
    """

    def __init__(
        self, steps: Sequence[Instruction], results: Sequence[int], shape: tuple[int, ...]
    ) -> None:
        self.shape, self._count = shape, len(results)
        numbers: list[float] = []
        self.inputs = 1 + max(
            (k for _, operands in steps for kind, k in operands if kind == "input"), default=-1
        )
        last = {k: s for s, (_, xs) in enumerate(steps) for kind, k in xs if kind == "step"}
        free, place, code = list(range(_BUFFERS))[::-1], dict[int, int](), []
        for s, (name, operands) in enumerate(steps):
            slots = []
            for kind, value in operands:
                if kind == "number":
                    if value not in numbers:
                        numbers.append(value)
                    slots.append(_FIRST_NUMBER + numbers.index(value))
                else:
                    slots.append(_FIRST_INPUT + value if kind == "input" else place[value])
            for k in {v for kind, v in operands if kind == "step"}:
                if last[k] == s and place[k] < _BUFFERS:
                    free.append(place[k])
            if s in results:
                place[s] = _FIRST_OUTPUT + list(results).index(s)
            elif free:
                place[s] = free.pop()
            else:
                raise ConfigError("a chain needs more than 16 values at once")
            code += [OPERATIONS[name], place[s], slots[0], slots[-1]]
        if self.inputs > MOST_INPUTS or self._count > MOST_OUTPUTS or len(numbers) > MOST_NUMBERS:
            raise ConfigError(
                f"a chain takes {MOST_INPUTS} inputs, {MOST_OUTPUTS} results and {MOST_NUMBERS} "
                f"numbers at most, got {self.inputs}, {self._count} and {len(numbers)}"
            )
        self._code, self._numbers = np.array(code, np.uint32), np.array(numbers, np.float32)
        self._ints = (len(steps), len(numbers), self.inputs, self._count)
        self._broadcast: dict[Any, tuple[tuple[int, int] | None, ...]] = {}

    def __call__(self, *inputs: Float32) -> Any:
        """One array for one result, else a tuple; in the memory order of the first whole input."""
        axes = None
        for x in inputs:
            if not x.flags.c_contiguous:
                if x.shape == self.shape:
                    _, axes = _flat(x)
                    break
            elif x.shape == self.shape:
                break
        key = axes, tuple([x.shape for x in inputs])
        places = self._broadcast.get(key)
        if places is None:
            for position, x in enumerate(inputs):
                check("chain", f"input {position}", np.ascontiguousarray(x))
            places = tuple(self._place(x.shape, axes) for x in inputs)
            self._broadcast[key] = places
        arrays: list[Any] = []
        ints: tuple[int, ...] = self._ints
        for x, place in zip(inputs, places, strict=True):
            if place is None:
                x, place = np.broadcast_to(x, self.shape), (1, 0)
            if axes is not None:
                if x.ndim < len(axes):
                    x = x.reshape((1,) * (len(axes) - x.ndim) + x.shape)
                x = x.transpose(axes)
            arrays.append(x if x.flags.c_contiguous else np.ascontiguousarray(x))
            ints += place
        size = math.prod(self.shape)
        outs = [np.empty(size, np.float32) for _ in range(self._count)]
        padding = (None,) * (MOST_INPUTS - len(arrays))
        after = (None,) * (MOST_OUTPUTS - len(outs))
        if size:
            run_prepared(
                (
                    KERNELS["chain"],
                    (self._code, self._numbers, *arrays, *padding, *outs, *after),
                    ints,
                    (),
                    size,
                    GRAIN,
                )
            )
        found = [_unflat(out, self.shape, axes) for out in outs]
        return found[0] if len(found) == 1 else tuple(found)

    def _place(self, shape: tuple[int, ...], axes: Any) -> tuple[int, int] | None:
        """How often each number of an input is repeated, and how many it has (0: all of them).

        None for one that has to be copied, since it lies across the memory of the results.
        """
        whole = self.shape
        if shape == whole:
            return 1, 0
        if len(shape) > len(whole):
            raise ShapeError(f"a chain of shape {whole} takes no input of shape {shape}")
        own = (1,) * (len(whole) - len(shape)) + shape
        if any(n not in (1, m) for n, m in zip(own, whole, strict=True)):
            raise ShapeError(f"a chain of shape {whole} takes no input of shape {shape}")
        if axes is not None:
            own, whole = tuple(own[k] for k in axes), tuple(whole[k] for k in axes)
        used = [k for k, (n, m) in enumerate(zip(own, whole, strict=True)) if n == m != 1]
        if not used:
            return max(math.prod(whole), 1), 1
        first, after = used[0], used[-1] + 1
        if any(whole[k] != 1 and k not in used for k in range(first, after)):
            return None
        return math.prod(whole[after:]), math.prod(whole[first:after])

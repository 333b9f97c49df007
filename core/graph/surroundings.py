"""What a training step rests on besides its arguments: Python around it, and what it changes."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from zlib import crc32

import numpy as np

from ..random import numpy_rng
from .aliases import changing
from .record import Graph

_CHECKED = 1 << 30  # bytes of state up to which copies are made
_PLAIN = (bool, int, float, str)


class Outside:
    """The numbers, strings and truth values around a function: its own variables, and globals.

    A step that was compiled with others is not the same step.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        plain = getattr(function, "__func__", function)
        code = getattr(plain, "__code__", None)
        self._cells = getattr(plain, "__closure__", None) or ()
        self._globals = getattr(plain, "__globals__", {})
        self._names = () if code is None else tuple(n for n in code.co_names if n in self._globals)

    def values(self) -> tuple[Any, ...]:
        """Those that are plain now."""
        found = []
        for cell in self._cells:
            try:
                value = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            if type(value) in _PLAIN:
                found.append(value)
        for name in self._names:
            value = self._globals.get(name)
            if type(value) in _PLAIN:
                found.append(value)
        return tuple(found)


def python_streams() -> tuple[Any, ...]:
    """Where the random numbers stand that are no operations."""
    state_ = numpy_rng().bit_generator.state
    return repr(state_), random.getstate(), repr(np.random.get_state(legacy=False))


class Before:
    """What a step finds: copies of what it writes, and sums of what it only reads."""

    def __init__(self, graph: Graph) -> None:
        written = changing(graph)
        arrays = {i: x for i, x in graph.external.items() if type(x) is np.ndarray}
        size = sum(array.nbytes for i, array in arrays.items() if i in written)
        self.copies: dict[int, Any] | None = None  # None where that is too much
        if size <= _CHECKED:
            with suppress(MemoryError):
                self.copies = {i: arrays[i].copy() for i in written}
        self._sums = {i: (x, _sum(x)) for i, x in arrays.items() if i not in written}

    def moved(self, graph: Graph) -> str | None:
        """Whether something that is only read was changed, which no operation did."""
        for index, (array, before) in self._sums.items():
            if graph.external.get(index) is array and _sum(array) != before:
                return (
                    f"it changes an array of shape {array.shape} by other means than operations "
                    "(a schedule that is stepped within? step it outside)"
                )
        return None


def _sum(array: Any) -> int:
    return crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

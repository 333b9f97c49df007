"""Sizes and memory drawn by hypothesis, for the tests of the kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

Draw = Callable[[Any], Any]

#: Around the vectors of 4, 8 and 16 numbers, and their panels of two.
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 65)
LAYOUTS = ("C", "channels-last", "gaps", "backwards", "misaligned")


def drawn(check: Callable[[Any], None], examples: int, done: Callable[[], bool]) -> None:
    """Run a check on drawn data, and on more until the kernels that it is for have run."""
    options = settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    for round_ in range(20):
        seed(round_)(options(given(st.data())(check)))()
        if done():
            return
    raise AssertionError("no call reached the kernels that the case is for")


def size(draw: Draw, most: int = 65, zero: bool = True) -> int:
    choice: int = draw(st.sampled_from([n for n in ((0, *SIZES) if zero else SIZES) if n <= most]))
    return choice


def maybe(draw: Draw, x: Any) -> Any:
    return x if draw(st.booleans()) else None


def in_layout(x: Any, layout: str) -> Any:
    """The same numbers in other memory."""
    if layout == "channels-last" and x.ndim > 2:
        last = x.transpose(0, *range(2, x.ndim), 1).copy()
        return last.transpose(0, x.ndim - 1, *range(1, x.ndim - 1))
    if layout == "gaps" and x.ndim:
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    if layout == "backwards" and x.ndim:
        return x[::-1].copy()[::-1]
    if layout == "misaligned":
        raw = np.zeros(x.nbytes + 1, np.uint8)[1:]
        raw[:] = np.frombuffer(x.tobytes(), np.uint8)
        return raw.view(x.dtype).reshape(x.shape)
    return x.copy()


def laid(draw: Draw, x: Any) -> Any:
    # Half of them plain: kernels that want this of all their operands must be reached.
    plain = ("C",) if x.ndim < 3 else ("C", "channels-last")
    return in_layout(x, draw(st.one_of(st.sampled_from(plain), st.sampled_from(LAYOUTS))))


def numbers(draw: Draw, *shape: int, scale: float = 1.0) -> Any:
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    return laid(draw, np.asarray(rng.standard_normal(shape) * scale, np.float32))


def like(draw: Draw, x: Any) -> Any:
    """Other numbers of its shape, often in its memory order."""
    g = numbers(draw, *x.shape)
    if draw(st.booleans()):
        out = np.empty_like(x)
        out[...] = g
        return out
    return g


def wide(x: Any) -> Any:
    """Its numbers in float64, for definitions."""
    return np.array(x, np.float64)

"""Whether a program came to what the function came to."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import FLOATS

_TOLERANCE = 1e-3
_BLOCK = 1 << 16  # numbers at a time, which stay in cache


def alike(a: Any, b: Any, whole: bool = False) -> bool:
    """Equal, or for floats close: each number beside the largest one, or at least 1.

    Args:
        whole: judge the length of the difference instead. In the state of an optimizer single
            small numbers may come from rounding alone.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype not in FLOATS:
        return bool(np.array_equal(a, b))
    largest = furthest = 0.0
    squares = np.zeros(2)  # of b, and of the difference
    a, b = a.reshape(-1), b.reshape(-1)
    for start in range(0, a.size, _BLOCK):
        x, y = (v[start : start + _BLOCK].astype(np.float64) for v in (a, b))
        both = np.isfinite(x) & np.isfinite(y)
        if not both.all():
            if not np.array_equal(x[~both], y[~both], equal_nan=True):
                return False
            x, y = x[both], y[both]
        largest = max(largest, float(np.abs(x).max(initial=0.0)))
        x -= y
        furthest = max(furthest, float(np.abs(x).max(initial=0.0)))
        squares += np.vdot(y, y), np.vdot(x, x)
    if whole:
        length, apart = np.sqrt(squares)
        return bool(apart <= _TOLERANCE * length + 1e-6 * a.size**0.5)
    return furthest <= _TOLERANCE * max(largest, 1.0)

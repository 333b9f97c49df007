"""Whether a program came to what the function came to."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import FLOATS

_TOLERANCE = 1e-3


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
    a, b = a.astype(np.float64).reshape(-1), b.astype(np.float64).reshape(-1)
    both = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~both], b[~both], equal_nan=True):
        return False
    a, b = a[both], b[both]
    if whole:
        length = _TOLERANCE * np.linalg.norm(b) + 1e-6 * a.size**0.5
        return bool(np.linalg.norm(a - b) <= length)
    size = max(float(np.abs(a).max(initial=0.0)), 1.0)
    return bool(np.abs(a - b).max(initial=0.0) <= _TOLERANCE * size)

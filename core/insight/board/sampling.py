"""Long series as few points: what a chart of some pixels can show of them, and no more."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_FORGOTTEN = 1e-12  # weight of a value from which on it counts as forgotten


def smoothed(values: Any, weight: float) -> Any:
    """An average that forgets, as `Series.smoothed`, of finite values at the speed of NumPy.

    Shape: (N,) -> (N,)
    """
    if weight <= 0 or len(values) < 2:
        return values
    length = min(len(values), math.ceil(math.log(_FORGOTTEN) / math.log(weight)))
    kernel = weight ** np.arange(length)
    size = 1 << (len(values) + length - 2).bit_length()
    scale = np.cumsum(np.pad(kernel, (0, len(values) - length)))
    # A step of a million beside small values would leave its rounding errors over all of them.
    if length <= 64 or np.abs(values).max() > 1e4 * max(np.median(np.abs(values)), 1e-300):
        return np.convolve(values, kernel)[: len(values)] / scale
    product = np.fft.rfft(values, size) * np.fft.rfft(kernel, size)
    return np.fft.irfft(product, size)[: len(values)] / scale


def thinned(x: Any, y: Any, width: int, *, log: bool = False) -> Any:
    """Which points to draw: the least and the greatest of each pixel, and the two ends.

    Args:
        x: ascending, (N,); y: finite, (N,).
        width: of the chart in pixels.
        log: whether the axis of x is logarithmic.
    """
    count = len(x)
    if count <= 2 * width:
        return np.arange(count)
    place = np.log(np.maximum(x, 1e-9)) if log else x
    low, high = float(place[0]), float(place[-1])
    if not high > low:
        pixel = np.zeros(count, np.int64)
    else:
        pixel = np.minimum(((place - low) / (high - low) * width).astype(np.int64), width - 1)
    first = np.flatnonzero(np.append(True, pixel[1:] != pixel[:-1]))
    row = np.cumsum(np.append(False, pixel[1:] != pixel[:-1]))
    found = [np.array([0, count - 1])]
    for extreme in (np.minimum, np.maximum):
        hits = np.flatnonzero(y == extreme.reduceat(y, first)[row])
        _, which = np.unique(row[hits], return_index=True)  # the first of equal ones
        found.append(hits[which])
    return np.unique(np.concatenate(found))


def rebinned(edges: Any, counts: Any, grid: Any) -> Any:
    """A histogram's counts on other edges, as if each bin were filled evenly.

    Shape: (N + 1,), (N,), (M + 1,) -> (M,)
    """
    total = np.append(0.0, np.cumsum(counts))
    return np.diff(np.interp(grid, edges, total))

"""A tree of sums: entries drawn in proportion to their priorities, many at a time."""

from __future__ import annotations

import numpy as np

from ..core.errors import DataError
from .environments.base import count

_FAN = 32  # children of a node: few levels, each one step in NumPy for the whole batch


class SumTree:
    """Priorities of `size` entries, and the sums over them on each level of a tree.

    Args:
        size: how many entries; all priorities are 0 at first.
    """

    def __init__(self, size: int) -> None:
        self.size = count("SumTree: size", size)
        widths = [-(-self.size // _FAN) * _FAN]
        while widths[0] > _FAN:
            widths.insert(0, -(-(widths[0] // _FAN) // _FAN) * _FAN)
        self.levels = [np.zeros(width) for width in widths]

    @property
    def total(self) -> float:
        """The sum of all priorities."""
        return float(self.levels[0].sum())

    @property
    def priorities(self) -> np.ndarray:
        """The priority of every entry, (size,) float64; a view, not to be written."""
        return self.levels[-1][: self.size]

    def update(self, index: np.ndarray, priority: np.ndarray | float) -> None:
        """Set priorities; of an index that is there twice, the last one counts.

        Raises:
            DataError: a priority is negative, infinite or NaN.
        """
        values = np.asarray(priority, np.float64)
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise DataError(
                "replay: a priority is a finite number of at least 0, got "
                f"{values[~(np.isfinite(values) & (values >= 0))].ravel()[0]}.\n"
                "It comes from the error of a prediction: has the network diverged?"
            )
        node = np.asarray(index)
        self.levels[-1][node] = values
        for above, below in zip(self.levels[-2::-1], self.levels[:0:-1], strict=True):
            node = node // _FAN
            # Summed anew, so that no rounding error builds up.
            above[node] = below.reshape(-1, _FAN)[node].sum(axis=1)

    def find(self, position: np.ndarray) -> np.ndarray:
        """The entries that lie at positions of the line on which priorities are lengths.

        Shape: (B,), each from 0 up to `total` -> (B,) int64
        """
        left = np.array(position, np.float64)
        node = np.zeros(len(left), np.int64)
        every = np.arange(len(left))
        for level in self.levels:
            ends = level.reshape(-1, _FAN)[node].cumsum(axis=1)
            # Rounding may put a position at the very end, behind the last entry of any length.
            left = np.minimum(left, np.nextafter(ends[:, -1], 0))
            child = (ends <= left[:, None]).sum(axis=1)
            left -= np.where(child > 0, ends[every, child - 1], 0)
            node = node * _FAN + child
        return node

"""Whole numbers that depend on the lengths of open axes: found by recording at several lengths.

A number that is seen at every corner of a box of lengths is a sum of products of some of them,
each once: `12 batch`, `batch tokens`, `tokens + 1`. Whether it is one is told by a further
recording, at other lengths and with other values.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

Lengths = tuple[int, ...]  # of the open axes, in their order


@dataclass(frozen=True)
class Size:
    """A sum of products: `terms` is ((places of axes, factor), ...)."""

    terms: tuple[tuple[tuple[int, ...], int], ...]

    def at(self, lengths: Lengths) -> int:
        """Its value for these lengths."""
        return sum(f * math.prod(lengths[i] for i in axes) for axes, f in self.terms)


class Differs(Exception):
    """Recordings differ in something that is no function of the lengths."""


class Corners:
    """The lengths at which a network is recorded: corners of a box, and one outside of it."""

    def __init__(self, low: Lengths, high: Lengths, check: Lengths) -> None:
        self.low, self.high = low, high
        self.subsets = [
            axes for n in range(len(low) + 1) for axes in itertools.combinations(range(len(low)), n)
        ]
        self.points = [
            tuple(h if i in axes else lo for i, (lo, h) in enumerate(zip(low, high, strict=True)))
            for axes in self.subsets
        ]
        self.points.append(check)
        rows = [[math.prod(p[i] for i in axes) for axes in self.subsets] for p in self.points]
        self._inverse = _inverted(rows[:-1])

    def merged(self, values: list[Any]) -> Any:
        """What these values of one constant are: itself where all are the same, or with sizes.

        Raises:
            Differs: they are no function of the lengths.
        """
        first = values[0]
        kind = type(first)
        if any(type(v) is not kind for v in values):
            if all(isinstance(v, int | np.integer) for v in values):
                return self._size([int(v) for v in values])
            raise Differs
        if kind is slice:
            parts = zip(*((v.start, v.stop, v.step) for v in values), strict=True)
            return slice(*(self.merged(list(p)) for p in parts))
        if isinstance(first, list | tuple):
            if any(len(v) != len(first) for v in values):
                raise Differs
            found = [self.merged(list(p)) for p in zip(*values, strict=True)]
            return found if kind is list else tuple(found)
        if isinstance(first, int | np.integer) and kind is not bool:
            return self._size([int(v) for v in values])
        if hasattr(first, "index") and hasattr(first, "weight"):  # taps of a resampling
            if any(
                not (
                    np.array_equal(v.index, first.index) and np.array_equal(v.weight, first.weight)
                )
                for v in values
            ):
                raise Differs
            return first
        if any(v is not first and v != first for v in values):
            raise Differs
        return first

    def _size(self, values: list[int]) -> int | Size:
        if all(v == values[0] for v in values):
            return values[0]
        terms = []
        for axes, row in zip(self.subsets, self._inverse, strict=True):
            factor = sum((f * v for f, v in zip(row, values, strict=False)), Fraction(0))
            if factor.denominator != 1:
                raise Differs
            if factor:
                terms.append((axes, int(factor)))
        size = Size(tuple(terms))
        if size.at(self.points[-1]) != values[-1]:
            raise Differs
        return size


def _inverted(rows: list[list[int]]) -> list[list[Fraction]]:
    """The inverse of a small matrix, exactly."""
    n = len(rows)
    work = [
        [*map(Fraction, row), *(Fraction(i == j) for j in range(n))] for i, row in enumerate(rows)
    ]
    for i in range(n):
        swap = next(j for j in range(i, n) if work[j][i])
        work[i], work[swap] = work[swap], work[i]
        work[i] = [x / work[i][i] for x in work[i]]
        for j in range(n):
            if j != i and work[j][i]:
                work[j] = [a - work[j][i] * b for a, b in zip(work[j], work[i], strict=True)]
    return [row[n:] for row in work]

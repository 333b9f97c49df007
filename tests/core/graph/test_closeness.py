"""When answers of a program count as those of its function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bestiary.core.graph import closeness
from bestiary.core.graph.closeness import alike

RNG = np.random.default_rng(0)


def changed(a: Any, place: int, value: float) -> Any:
    b = a.copy()
    b.reshape(-1)[place] = value
    return b


@pytest.mark.parametrize("size", [0, 1, 7, closeness._BLOCK, 2 * closeness._BLOCK + 3])
@pytest.mark.parametrize("whole", [False, True])
def test_the_same_and_nearly_the_same(size: int, whole: bool) -> None:
    a = RNG.standard_normal(size, np.float32)
    assert alike(a, a.copy(), whole)
    assert alike(a, a + np.float32(1e-7), whole)
    assert alike(a * 100, a * 100 + np.float32(1e-4), whole)


@pytest.mark.parametrize("place", [0, 5, closeness._BLOCK, -1])
def test_one_number_in_any_block_counts(place: int) -> None:
    a = RNG.standard_normal((closeness._BLOCK + 9, 2), np.float32)
    assert not alike(a, changed(a, place, 9.0))
    for value in (np.nan, np.inf, -np.inf):
        other = changed(a, place, value)
        assert not alike(a, other) and not alike(other, a)
        assert alike(other, other.copy())
    assert not alike(changed(a, place, np.nan), changed(a, place, np.inf))
    # A number of great size allows for more beside it, in its block and in others.
    large = changed(a, place, 1e4)
    assert alike(large, changed(large, 3, a.reshape(-1)[3] + 5))
    assert not alike(large, changed(large, 3, a.reshape(-1)[3] + 50))


def test_the_length_of_the_difference() -> None:
    a = RNG.standard_normal(3 * closeness._BLOCK, np.float32)
    assert alike(a, changed(a, -1, a[-1] + 0.1), whole=True)
    assert not alike(a, a * np.float32(1.01), whole=True)


def test_what_is_no_float_or_of_another_kind() -> None:
    a = np.arange(6)
    assert alike(a, a.copy()) and not alike(a, a[::-1])
    assert not alike(a, a.reshape(2, 3)) and not alike(a, a.astype(np.float32))

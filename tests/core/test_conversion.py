"""Conversion between dtypes: with and without the C kernels the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from bestiary.core import dtypes, native
from bestiary.core.conversion import converted


@pytest.mark.parametrize("half", sorted(dtypes.HALVES, key=str), ids=str)
@pytest.mark.parametrize("size", [0, 5, 4096, 70_001])
@pytest.mark.parametrize("kernels", [True, False])
def test_half_types_widen_exactly_and_round_to_nearest_even(half, size, kernels, monkeypatch):
    if not kernels:
        monkeypatch.setattr(native, "available", lambda: False)
    rng = np.random.default_rng(0)
    wide = (rng.normal(size=size) * 10.0 ** rng.integers(-9, 6, size)).astype(np.float32)
    with np.errstate(over="ignore"):
        narrow = converted(wide, half)
        expected = wide.astype(half)
    assert narrow.dtype == half
    np.testing.assert_array_equal(narrow.view(np.uint16), expected.view(np.uint16))
    np.testing.assert_array_equal(converted(narrow, dtypes.float32), expected.astype(np.float32))


def test_memory_layout_is_kept():
    x = np.zeros((8, 32, 32, 16), np.float32).transpose(0, 3, 1, 2)  # channels-last
    assert converted(x, dtypes.bfloat16).transpose(0, 2, 3, 1).flags.c_contiguous
    strided = np.arange(20_000, dtype=np.float32)[::2]
    np.testing.assert_array_equal(converted(strided, dtypes.float16), strided.astype(np.float16))


def test_the_same_dtype_is_no_copy():
    x = np.zeros(10_000, np.float32)
    assert converted(x, dtypes.float32) is x

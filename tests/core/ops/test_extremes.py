"""Values at which formulas overflow, divide by zero or lose digits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.ops.reduction import total


def gradient(function: Any, values: Any) -> Any:
    x = bt.tensor(values, dtype=bt.float64, requires_grad=True)
    function(x).sum().backward()
    assert x.grad is not None
    return x.grad.tolist()


ZERO = bt.asarray(0.0, dtype=bt.float64)


@pytest.mark.parametrize(
    "function, values, expected",
    [
        (lambda x: bt.hypot(x, ZERO), [0.0, 2.0], [0.0, 1.0]),
        (lambda x: bt.atan2(x, ZERO), [0.0], [0.0]),
        (lambda x: bt.logaddexp(x, ZERO - bt.inf), [-math.inf, 3.0], [0.0, 1.0]),
        (lambda x: bt.std(x), [4.0, 4.0, 4.0], [0.0, 0.0, 0.0]),
        (lambda x: bt.linalg.vector_norm(x), [0.0, 0.0], [0.0, 0.0]),
        (lambda x: bt.linalg.vector_norm(x, ord=3), [0.0, 0.0], [0.0, 0.0]),
        (lambda x: bt.prod(x), [0.0, 2.0, 3.0], [6.0, 0.0, 0.0]),
        (lambda x: bt.prod(x), [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]),
        (lambda x: bt.cumulative_prod(x), [2.0, 0.0, 3.0], [1.0, 8.0, 0.0]),
        (lambda x: x**0, [0.0, 2.0], [0.0, 0.0]),
        (lambda x: x**1, [0.0], [1.0]),
        (lambda x: x ** bt.asarray([0.0, 0.0], dtype=bt.float64), [0.0, 2.0], [0.0, 0.0]),
        (lambda x: bt.pow(x, x * 0 + 2), [0.0, 3.0], [0.0, 6.0]),
        (lambda x: bt.abs(x), [0.0, -0.0, -2.0], [0.0, 0.0, -1.0]),
        (lambda x: bt.max(x), [1.0, 3.0, 3.0], [0.0, 0.5, 0.5]),
        (lambda x: bt.max(x), [1.0, math.nan], [0.0, 0.0]),
        (lambda x: bt.maximum(x, ZERO), [0.0, 1.0], [0.5, 1.0]),
        (lambda x: bt.clip(x, -1.0, 1.0), [-1.0, 1.0, 2.0], [1.0, 1.0, 0.0]),
        (lambda x: bt.floor(x) * math.inf, [1.5], [0.0]),
    ],
)
def test_gradients_at_corners(function: Any, values: Any, expected: Any) -> None:
    with np.errstate(invalid="ignore"):
        assert gradient(function, values) == expected


@pytest.mark.parametrize("dtype", [bt.float16, bt.bfloat16])
def test_halves_accumulate_in_float32(dtype: Any) -> None:
    ones = bt.ones(4096, dtype=dtype)
    assert bt.sum(ones).item() == 4096.0  # 256 in bfloat16 arithmetic
    assert bt.mean(ones * 30).item() == pytest.approx(30)
    assert bt.cumulative_sum(ones)[-1].item() == 4096.0
    assert (ones[None] @ ones[:, None]).item() == 4096.0
    assert bt.var(ones * 100).item() == 0.0
    large = bt.full((2,), 300.0, dtype=bt.float16)
    assert bt.linalg.vector_norm(large).item() == pytest.approx(424.3, rel=1e-3)  # 300² overflows


@pytest.mark.parametrize("rows", [1000, 100_000])
def test_sums_over_outer_axes_are_accurate(rows: int) -> None:
    """Row after row in float32, as NumPy adds, the error grows with the number of rows."""
    x = np.random.default_rng(0).uniform(2, 4, (rows, 16)).astype(np.float32)
    exact = x.astype(np.float64).sum(axis=0)
    assert np.abs(total(np, x, 0, False) / exact - 1).max() < 3e-7
    images = np.moveaxis(x.reshape(10, -1, 20, 16), -1, 1)
    assert np.abs(total(np, images, (0, 2, 3), False) / exact - 1).max() < 3e-7
    assert bt.mean(bt.Tensor(x), axis=0).dtype == bt.float32


def test_integers_are_summed_in_the_largest_of_their_kind() -> None:
    assert bt.sum(bt.full((1000,), 100, dtype=bt.int8)).item() == 100_000
    assert bt.sum(bt.ones(300, dtype=bt.uint8)).dtype == bt.uint64
    assert bt.prod(bt.full((9,), 10, dtype=bt.int32)).item() == 10**9
    assert bt.mean(bt.asarray([1, 2])).dtype == bt.float32
    assert bt.sum(bt.ones(3), dtype=bt.float64).dtype == bt.float64
    assert bt.sum(bt.full((4096,), 1, dtype=bt.bfloat16), dtype=bt.float32).item() == 4096


def test_clip_takes_limits_beyond_the_dtype() -> None:
    x = bt.asarray([-128, 0, 127], dtype=bt.int8)
    assert bt.clip(x, -1000, 1000).tolist() == [-128, 0, 127]
    assert bt.clip(x, 5, 1000).tolist() == [5, 5, 127]
    assert bt.clip(x, 1000).tolist() == [127] * 3
    assert bt.clip(x, 5).dtype == bt.int8

"""Clipping never writes into gradients that somebody else may hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import GradError

clip_norm, clip_value = bt.optim.clip_grad_norm_, bt.optim.clip_grad_value_


def with_grads(*values: Any, dtype: Any = np.float32) -> list[Any]:
    items = []
    for value in values:
        array = np.asarray(value, dtype)
        p = bt.nn.Parameter(np.zeros_like(array))
        p.grad = bt.asarray(array)
        items.append(p)
    return items


def test_the_norm_is_taken_over_all():
    items = with_grads([3.0, 0.0], [[4.0]], [0.0])
    held = [p.grad for p in items]
    arrays = [g.array.copy() for g in held]
    norm = clip_norm(items, 1.0)
    assert norm.shape == ()
    assert norm.item() == 5.0
    np.testing.assert_allclose(items[0].grad.array, [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(items[1].grad.array, [[0.8]], rtol=1e-6)
    for grad, array in zip(held, arrays, strict=True):
        np.testing.assert_array_equal(grad.array, array)


def test_shared_gradients_are_scaled_once():
    items = with_grads([3.0], [3.0])
    items[1].grad = items[0].grad
    clip_norm(items, math.sqrt(18) / 2)
    for p in items:
        np.testing.assert_allclose(p.grad.array, [1.5], rtol=1e-5)


def test_small_gradients_stay():
    items = with_grads([0.3, 0.4])
    assert clip_norm(items, 1.0).item() == pytest.approx(0.5)
    np.testing.assert_array_equal(items[0].grad.array, np.float32([0.3, 0.4]))


@pytest.mark.parametrize("order, expected", [(1.0, 7.0), (math.inf, 4.0), (3.0, 91 ** (1 / 3))])
def test_other_norms(order, expected):
    (p,) = with_grads([3.0, -4.0])
    assert clip_norm(p, 1.0, order).item() == pytest.approx(expected, rel=1e-6)


def test_large_gradients_are_summed_accurately():
    values = np.full(3_000_001, 1e-3, np.float32)
    (p,) = with_grads(values)
    want = math.sqrt(values.size) * float(np.float32(1e-3))
    assert clip_norm(p, 1e9).item() == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, bt.float16, bt.bfloat16])
def test_dtypes_are_kept(dtype):
    items = with_grads([3.0, 4.0], dtype=dtype)
    norm = clip_norm(items, 1.0)
    assert norm.dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert items[0].grad.dtype == dtype
    np.testing.assert_allclose(items[0].grad.array.astype(float), [0.6, 0.8], rtol=5e-3)
    clip_value(items, 0.7)
    assert items[0].grad.dtype == dtype
    np.testing.assert_allclose(items[0].grad.array.astype(float), [0.6, 0.7], rtol=5e-3)


def test_values():
    items = with_grads([-3.0, 0.5, 4.0])
    held = items[0].grad.array.copy()
    grad = items[0].grad
    clip_value(items, 1.0)
    np.testing.assert_array_equal(items[0].grad.array, [-1.0, 0.5, 1.0])
    np.testing.assert_array_equal(grad.array, held)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_gradients(bad):
    items = with_grads([1.0, bad])
    with pytest.raises(GradError, match="detect_anomaly"):
        clip_norm(items, 1.0, error_if_nonfinite=True)
    np.testing.assert_array_equal(items[0].grad.array, [1.0, bad])
    assert not math.isfinite(clip_norm(items, 1.0).item())
    for order in (1.0, math.inf):
        assert not math.isfinite(clip_norm(with_grads([1.0, bad]), 1.0, order).item())


def test_without_gradients():
    p = bt.nn.Parameter(np.zeros(3, np.float32))
    frozen = bt.nn.Parameter(np.zeros(3, np.float32), requires_grad=False)
    assert clip_norm([p, frozen], 1.0).item() == 0.0
    clip_value([p, frozen], 1.0)
    assert p.grad is None

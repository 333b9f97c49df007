"""Recomputation: the same values and gradients, less memory, the same random draws."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import GradError
from bestiary.core.ops.trigonometry import tanh


def test_gradients_of_inputs_and_of_what_the_function_closes_over():
    w = bt.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    x = bt.tensor([[0.1, 0.2]], requires_grad=True)

    def layer(h: bt.Tensor) -> bt.Tensor:
        return tanh(h @ w)

    layer(layer(x * 2)).sum().backward()
    expected = w.grad.numpy().copy(), x.grad.numpy().copy()
    w.grad = x.grad = None
    bt.checkpoint(layer, bt.checkpoint(layer, x * 2)).sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), expected[1], rtol=1e-6)


def test_grad_sees_through_it():
    w = bt.tensor([2.0], requires_grad=True)
    y = bt.checkpoint(lambda h: h * w, bt.tensor([3.0]))
    assert bt.grad(y.sum(), w).item() == 3.0
    assert w.grad is None


def test_second_order():
    x = bt.tensor([2.0], dtype=bt.float64, requires_grad=True)
    y = bt.checkpoint(lambda h: h * h * h, x)
    first = bt.grad(y.sum(), x, create_graph=True)
    assert bt.grad(first.sum(), x).item() == pytest.approx(12.0)


def test_intermediate_values_are_not_kept():
    x = bt.tensor(np.ones(10, np.float32), requires_grad=True)
    seen = []

    def f(h: bt.Tensor) -> bt.Tensor:
        middle = tanh(h)
        seen.append(weakref.ref(middle.array))
        return middle * middle

    y = bt.checkpoint(f, x)
    assert seen[0]() is None
    y.sum().backward()
    assert len(seen) == 2 and x.grad is not None


def test_random_draws_are_repeated():
    x = bt.ones((1000,)).requires_grad_()
    masks = []

    def dropped(h: bt.Tensor) -> bt.Tensor:
        mask = bt.random.bernoulli(0.5, h.shape).astype(bt.float32)
        masks.append(mask.numpy())
        return h * mask

    bt.manual_seed(1)
    y = bt.checkpoint(dropped, x)
    after = bt.random.uniform((1,)).item()
    y.sum().backward()
    assert np.array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(x.grad.numpy(), masks[0])
    bt.manual_seed(1)
    dropped(x)
    assert bt.random.uniform((1,)).item() == after  # the recomputation moved no generator


def test_several_outputs_and_other_arguments():
    x = bt.tensor([1.0, 2.0], requires_grad=True)
    a, b = bt.checkpoint(lambda h, k: (h * k, h + k), x, 3.0)
    (a * b).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 3 * (2 * x.array + 3))


def test_without_anything_to_differentiate_it_just_runs():
    x = bt.tensor([1.0])
    assert not bt.checkpoint(lambda h: h * 2, x).requires_grad
    with bt.no_grad():
        assert bt.checkpoint(lambda h: h * 2, x.requires_grad_()).item() == 2.0


def test_mistakes():
    x = bt.tensor([1.0], requires_grad=True)
    with pytest.raises(GradError, match="returned float"):
        bt.checkpoint(lambda h: 1.0, x)
    y = bt.checkpoint(lambda h: h * h, x).sum()
    y.backward()
    with pytest.raises(GradError, match="freed"):
        y.backward()

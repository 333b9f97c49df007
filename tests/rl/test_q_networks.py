"""Gradients through the layers of small networks, beside those of a recorded graph."""

from __future__ import annotations

import numpy as np
import pytest

from bestiary.core.autograd import grad
from bestiary.core.state import inference_mode
from bestiary.core.tensor import Tensor
from bestiary.rl import Box
from bestiary.rl.actor_critic import Critics
from bestiary.rl.q_networks import GraphTrace, LayerTrace, Perceptron, QNetwork

SIZES = [(5, 3), (4, 16, 2), (3, 8, 8, 8, 1)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("squash", [False, True])
def test_traces_are_graphs(sizes: tuple[int, ...], squash: bool) -> None:
    rng = np.random.default_rng(0)
    network = Perceptron(sizes, squash=squash)
    x = rng.standard_normal((7, sizes[0]), np.float32)
    g = rng.standard_normal((7, sizes[-1]), np.float32)
    given = Tensor(x).requires_grad_()
    out = network(given)
    wanted = grad(out, [given, *network.parameters()], Tensor(g))
    trace = network.traced(x)
    kept = g.copy()
    np.testing.assert_allclose(trace.out, out.array, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(trace.out, network.bare(x))
    np.testing.assert_allclose(trace.slope(g), wanted[0].array, rtol=1e-5, atol=1e-6)
    assert all(p.grad is None for p in network.parameters())
    for _ in range(2):  # set anew, not added
        trace.backward(g)
        for p, right in zip(network.parameters(), wanted[1:], strict=True):
            assert p.grad is not None
            np.testing.assert_allclose(p.grad.array, right.array, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(g, kept)


def test_every_q_network_is_traced() -> None:
    rng = np.random.default_rng(1)
    flat = Box(-np.ones(4, np.float32), np.ones(4, np.float32))
    pixels = Box(0, 255, (1, 12, 12), np.uint8)
    for space, options, kind in (
        (flat, {}, LayerTrace),
        (flat, {"duelling": True}, GraphTrace),
        (pixels, {}, GraphTrace),
    ):
        network = QNetwork(space, 3, (8, 8), width=2, **options)  # type: ignore[arg-type]
        shape = (4,) if space is flat else space.shape
        x = rng.random((5, *shape), np.float32)
        trace = network.traced(x)
        assert type(trace) is kind
        with inference_mode():
            np.testing.assert_allclose(trace.out, network(Tensor(x)).array, rtol=1e-5, atol=1e-6)
        g = rng.standard_normal((5, 6), np.float32)
        wanted = grad(network(Tensor(x)), list(network.parameters()), Tensor(g))
        trace.backward(g)
        for p, right in zip(network.parameters(), wanted, strict=True):
            assert p.grad is not None
            np.testing.assert_allclose(p.grad.array, right.array, rtol=1e-5, atol=1e-6)


def test_slopes_of_critics_are_those_of_the_lesser() -> None:
    rng = np.random.default_rng(2)
    critics = Critics(2, 5, (16, 16))
    seen, action = rng.standard_normal((9, 3), np.float32), rng.standard_normal((9, 2), np.float32)
    for least, used in ((True, critics.networks), (False, critics.networks[:1])):
        q, slope = critics.slope(seen, action, least=least)
        x = Tensor(np.concatenate([seen, action], axis=1)).requires_grad_()
        outs = np.stack([network(x).array[:, 0] for network in used])
        np.testing.assert_allclose(q, outs.min(axis=0), rtol=1e-6, atol=1e-6)
        for row in range(9):
            one = used[int(outs[:, row].argmin())](x)[row : row + 1]
            wanted = grad(one, x, Tensor(np.ones((1, 1), np.float32))).array[row, 3:]
            np.testing.assert_allclose(slope[row], wanted, rtol=1e-5, atol=1e-6)

"""Computed parameters: weight norm, spectral norm, and one's own."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, ShapeError, WeightsError
from bestiary.core.graph import record, replay

nn = bt.nn
P = nn.parametrize


def data(*shape: int, seed: int = 0) -> bt.Tensor:
    return bt.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("axis", [0, 1, None])
def test_weight_norm_keeps_the_layer(axis):
    layer = nn.Linear(3, 4)
    x = data(2, 3)
    before, kind = layer(x).array, type(layer)
    assert nn.weight_norm(layer, axis=axis) is layer
    np.testing.assert_allclose(layer(x).array, before, rtol=1e-5, atol=1e-6)
    assert isinstance(layer, kind)
    assert P.is_parametrized(layer, "weight")
    names = ["bias", "parametrizations.weight.original0", "parametrizations.weight.original1"]
    assert [n for n, _ in layer.named_parameters()] == names
    P.remove_parametrizations(layer)
    assert type(layer) is kind
    np.testing.assert_allclose(layer(x).array, before, rtol=1e-5, atol=1e-6)
    assert [n for n, _ in layer.named_parameters()] == ["bias", "weight"]
    assert not P.is_parametrized(layer)


def test_weight_norm_trains_norm_and_direction():
    bt.manual_seed(0)
    layer = nn.weight_norm(nn.Linear(3, 4))
    optimizer = bt.optim.SGD(layer.parameters(), lr=0.1)
    target = data(2, 4, seed=1)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = ((layer(data(2, 3)) - target) ** 2).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_the_older_names_of_weight_norm_load():
    g, v = data(4, 1, seed=2), data(4, 3, seed=3)
    bias = data(4)
    model = nn.Sequential(nn.weight_norm(nn.Linear(3, 4)))
    model.load_state_dict({"0.bias": bias, "0.weight_g": g, "0.weight_v": v})
    want = v.array * g.array / np.linalg.norm(v.array, axis=1, keepdims=True)
    np.testing.assert_allclose(model[0].weight.array, want, rtol=1e-5)
    with pytest.raises(WeightsError, match="weight_x"):
        model.load_state_dict({"0.bias": bias, "0.weight_g": g, "0.weight_x": v})


def test_the_older_names_of_spectral_norm_load():
    layer = nn.spectral_norm(nn.Linear(3, 4)).eval()
    weight = data(4, 3)
    u, _, v = np.linalg.svd(weight.array)
    layer.load_state_dict(
        {"bias": data(4), "weight_orig": weight, "weight_u": u[:, 0], "weight_v": v[0]}
    )
    got = np.linalg.svd(layer.weight.array)[1]
    np.testing.assert_allclose(got[0], 1.0, rtol=1e-5)


def test_spectral_norm_approaches_one():
    bt.manual_seed(0)
    layer = nn.spectral_norm(nn.Conv2d(3, 8, 3), n_power_iterations=5)
    for _ in range(10):
        weight = layer.weight
    largest = np.linalg.svd(weight.array.reshape(8, -1))[1][0]
    np.testing.assert_allclose(largest, 1.0, rtol=1e-3)
    layer.eval()
    before = layer.parametrizations["weight"]
    u = getattr(before, "0")._u.array.copy()
    _ = layer.weight
    np.testing.assert_array_equal(getattr(before, "0")._u.array, u)


def test_two_forward_passes_share_a_backward():
    """loss = D(real) - D(fake): the second pass moves u and v that the first one saved."""
    layer = nn.spectral_norm(nn.Linear(3, 1))
    (layer(data(2, 3)) - layer(data(2, 3, seed=1))).sum().backward()
    assert layer.parametrizations["weight"].original.grad is not None


def test_spectral_norm_in_a_recorded_step():
    results = []
    for recorded in (False, True):
        bt.manual_seed(1)
        layer = nn.spectral_norm(nn.Linear(3, 2))
        optimizer = bt.optim.SGD(layer.parameters(), lr=0.1)

        def step(x: Any, layer: Any = layer, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = (layer(x) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss

        graph, losses = None, []
        for i in range(8):
            x = data(4, 3, seed=i)
            if not recorded:
                losses.append(step(x).item())
            elif graph is None:
                graph, loss = record(step, x)
                losses.append(loss.item())
            else:
                losses.append(replay(graph, x)[0].item())
        results.append(losses)
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5)


class Symmetric(nn.Module):
    def forward(self, x: Any) -> Any:
        return (x + x.mT) / 2

    def right_inverse(self, value: Any) -> Any:
        return value


class Doubled(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * 2

    def right_inverse(self, value: Any) -> Any:
        return value / 2


def test_ones_own_functions_stack_and_can_be_assigned():
    layer = nn.Linear(3, 3)
    P.register_parametrization(layer, "weight", Symmetric())
    P.register_parametrization(layer, "weight", Doubled())
    P.register_parametrization(layer, "bias", Doubled())
    assert type(layer).__name__ == "ParametrizedLinear"
    wanted = data(3, 3)
    layer.weight = (wanted + wanted.mT) / 2
    np.testing.assert_allclose(layer.weight.array, (wanted.array + wanted.array.T) / 2, rtol=1e-5)
    assert len(list(layer.parameters())) == 2
    P.remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert P.is_parametrized(layer, "bias")
    assert not P.is_parametrized(layer, "weight")
    P.remove_parametrizations(layer, "bias")
    assert type(layer) is nn.Linear


def test_copies_and_pickles():
    layer = nn.weight_norm(nn.Linear(3, 4))
    x = data(2, 3)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(copied(x).array, layer(x).array)
        assert type(copied) is type(layer)
        copied.bias.array[...] = 5
        assert not (layer.bias.array == 5).any()


def test_mistakes():
    layer = nn.Linear(3, 4)
    with pytest.raises(ConfigError, match="no parameter 'wait' of its own"):
        P.register_parametrization(layer, "wait", Doubled())
    with pytest.raises(ConfigError, match="no parameter 'wait'"):
        nn.spectral_norm(layer, "wait")
    with pytest.raises(ConfigError, match="is not parametrized"):
        P.remove_parametrizations(layer)
    with pytest.raises(ShapeError, match="two axes"):
        nn.spectral_norm(layer, "bias")
    nn.weight_norm(layer)
    with pytest.raises(ConfigError, match="several originals"):
        P.remove_parametrizations(layer, leave_parametrized=False)

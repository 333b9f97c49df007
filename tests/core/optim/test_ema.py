"""Running averages of weights."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, WeightsError
from bestiary.core.graph import record, replay

nn = bt.nn


def model() -> Any:
    bt.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def drift(net: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for p in net.parameters():
        bt.assign(p, bt.asarray(rng.standard_normal(p.shape).astype(np.float32)))
    net[1].running_mean.array[...] = seed
    net[1].num_batches_tracked.array[...] = seed


@pytest.mark.parametrize("warmup", [False, True])
@pytest.mark.parametrize("buffers", ["copy", "average"])
def test_the_average_is_the_formula(warmup, buffers):
    net = model()
    ema = bt.optim.EMA(net, 0.9, warmup=warmup, buffers=buffers)
    mean = {k: v.array.astype(np.float64) for k, v in net.state_dict().items()}
    for step in range(1, 8):
        drift(net, step)
        ema.update()
        decay = min(0.9, step / (step + 9)) if warmup else 0.9
        for name, value in net.state_dict().items():
            averaged = not name.startswith("1.running") or buffers == "average"
            averaged = averaged and value.dtype == np.float32
            share = decay if averaged else 0.0
            mean[name] = share * mean[name] + (1 - share) * value.array
    assert ema.steps == 7
    for name, value in ema.module.state_dict().items():
        np.testing.assert_allclose(value.array, mean[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert not ema.module.training
    assert not any(p.requires_grad for p in ema.module.parameters())
    assert net.training


def test_lending_and_giving_back():
    net = model()
    ema = bt.optim.EMA(net, 0.5)
    drift(net, 1)
    ema.update()
    own = {k: v.array.copy() for k, v in net.state_dict().items()}
    with ema.applied() as lent:
        assert lent is net
        for name, value in net.state_dict().items():
            np.testing.assert_array_equal(value.array, ema.module.state_dict()[name].array)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value.array, own[name])
    other = model()
    ema.copy_to(other)
    ema.copy_to()
    for name, value in ema.module.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name].array, value.array)
        np.testing.assert_array_equal(net.state_dict()[name].array, value.array)


def test_resuming_is_exact():
    net = model()
    ema = bt.optim.EMA(net, 0.9, warmup=True)
    for step in range(3):
        drift(net, step)
        ema.update()
    saved = copy.deepcopy(ema.state_dict())
    second = bt.optim.EMA(net, 0.5, warmup=True)
    second.load_state_dict(saved)
    for each in (ema, second):
        each.update()
    assert second.steps == ema.steps == 4
    for name, value in ema.module.state_dict().items():
        np.testing.assert_array_equal(second.module.state_dict()[name].array, value.array)
    with pytest.raises(WeightsError):
        second.load_state_dict({**saved, "module": nn.Linear(2, 2).state_dict()})


def test_a_recorded_update_replays():
    results = []
    for recorded in (False, True):
        net = model()
        optimizer = bt.optim.AdamW(net.parameters(), lr=0.01)
        ema = bt.optim.EMA(net, 0.9, warmup=True)

        def step(x: Any, net: Any = net, optimizer: Any = optimizer, ema: Any = ema) -> Any:
            optimizer.zero_grad()
            loss = (net(x) ** 2).sum()
            loss.backward()
            optimizer.step()
            ema.update()
            return loss

        graph = None
        for i in range(6):
            x = bt.asarray(np.random.default_rng(i).standard_normal((4, 3)).astype(np.float32))
            if not recorded:
                step(x)
            elif graph is None:
                graph, _ = record(step, x)
            else:
                replay(graph, x)
        results.append({k: v.array.copy() for k, v in ema.module.state_dict().items()})
    for name, value in results[0].items():
        np.testing.assert_allclose(results[1][name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert results[1]["1.num_batches_tracked"] == 6


def test_converted_copies_go_on():
    net = model()
    ema = bt.optim.EMA(net, 0.5)
    ema.module.to(bt.float64)
    drift(net, 1)
    ema.update()
    before = ema.module[0].weight.array.copy()
    drift(net, 2)
    ema.update()
    want = (before + net[0].weight.array) / 2
    assert ema.module[0].weight.dtype == np.float64
    np.testing.assert_allclose(ema.module[0].weight.array, want, rtol=1e-6)


def test_wrong_settings():
    with pytest.raises(ConfigError, match="between 0 and 1"):
        bt.optim.EMA(model(), 1.5)
    with pytest.raises(ConfigError, match="'copy' or 'average'"):
        bt.optim.EMA(model(), buffers="keep")

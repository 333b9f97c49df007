"""Optimizers on the stand-in for a GPU: no stray NumPy, nothing read back, the same numbers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt

OPS = Path(__file__).parents[1] / "ops" / "fake_device.py"
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{}, {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}],
    "Adam": [{}, {"amsgrad": True, "weight_decay": 0.1, "maximize": True}],
    "AdamW": [{}],
    "RMSprop": [{}, {"momentum": 0.9, "centered": True, "weight_decay": 0.1}],
    "Adagrad": [{"lr_decay": 0.1}],
    "Lion": [{"weight_decay": 0.1}],
    "Adafactor": [{"weight_decay": 0.1}],
    "Muon": [{}, {"nesterov": False}],
}
CASES = [(name, settings) for name, each in SETTINGS.items() for settings in each]


@pytest.fixture(scope="module")
def fake() -> Any:
    name = "fake_device_of_optim"
    spec = importlib.util.spec_from_file_location(name, OPS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


def bare(tensor: Any) -> Any:
    return tensor.array.get() if hasattr(tensor.array, "get") else tensor.array


def trained(name: str, settings: dict[str, Any], place: Any, dtype: Any) -> list[Any]:
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (5, 2)] if name == "Muon" else [(3, 4), (5,), (2, 2, 2)]
    items = [bt.nn.Parameter(place(rng.standard_normal(s).astype(dtype))) for s in shapes]
    holder = bt.nn.Module()
    holder.items = items
    ema = bt.optim.EMA(holder, 0.5)
    optimizer = getattr(bt.optim, name)(items, lr=0.05, **settings)
    schedule = bt.optim.ExponentialLR(optimizer, 0.9)
    for _ in range(4):
        for p in items:
            p.grad = bt.asarray(place(rng.standard_normal(p.shape).astype(dtype)))
        norm = bt.optim.clip_grad_norm_(items, 1.0)
        bt.optim.clip_grad_value_(items, 0.4)
        optimizer.step()
        ema.update()
        schedule.step()
    optimizer.load_state_dict(optimizer.state_dict())
    return [bare(x) for x in (*items, *ema.module.parameters(), norm)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name, settings", CASES)
def test_the_same_numbers_on_a_device(fake, name, settings, dtype):
    here = trained(name, settings, lambda x: x, dtype)
    with fake.fake_device():
        there = trained(name, settings, lambda x: fake.FakeArray(x.copy()), dtype)
    for x, y in zip(here, there, strict=True):
        assert x.dtype == y.dtype or x.ndim == 0
        np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-6)


def test_layers_on_a_device(fake):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    results = []
    for place in (lambda a: a, fake.FakeArray):
        with fake.fake_device():
            bt.manual_seed(0)
            net = bt.nn.Sequential(
                bt.nn.BatchNorm2d(3),
                bt.nn.ReLU(),
                bt.nn.Flatten(),
                bt.nn.spectral_norm(bt.nn.Linear(192, 6)),
                bt.nn.Unflatten(1, (3, 2)),
                bt.nn.LSTM(2, 3, batch_first=True),
            )
            for tensor in net.state_dict():
                target = net.get_parameter(tensor)
                target.array = place(target.array)
            out, _ = net(bt.asarray(place(x)))
            out.sum().backward()
            grads = [bare(p.grad) for p in net.parameters()]
            results.append([bare(out), *grads])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


def test_a_clash_of_devices_names_the_parameter(fake):
    with fake.fake_device() as device:
        net = bt.nn.Sequential({"fc1": bt.nn.Linear(3, 4)}).to(device)
        assert net.device == device
        with pytest.raises(bt.errors.DeviceError) as caught:
            net(bt.asarray(np.zeros((2, 3), np.float32)))
        for fact in ("x: cpu", "fc1.weight", "fake", "x.to(model.device)"):
            assert fact in str(caught.value)
        assert caught.value.module_path == "fc1"
        optimizer = bt.optim.Adam(net.parameters())
        net(bt.asarray(np.zeros((2, 3), np.float32)).to(device)).sum().backward()
        optimizer.step()
        net.to("cpu")
        assert net.fc1.weight.grad.device == "cpu"
        optimizer.step()  # the moments follow
        assert optimizer.state_dict()["state"][0]["exp_avg"].device == "cpu"

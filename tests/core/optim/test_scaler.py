"""Loss scaling: skips what overflows, recovers, resumes, and is part of recorded steps."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, GradError
from bestiary.core.graph import record, replay
from bestiary.core.state import state

OPS = Path(__file__).parents[1] / "ops" / "fake_device.py"
NAMES = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Lion", "Adafactor", "Muon")
SETTINGS: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}}


def values(x: Any) -> Any:
    """A copy of the values of a tensor on any device."""
    array = x.array if hasattr(x, "array") else x
    return array.get() if hasattr(array, "get") else np.array(array)


class Case:
    """Two parameters, a loss that is their product with an input, an optimizer and a scaler."""

    def __init__(self, name: str = "SGD", place: Any = lambda x: x, **settings: Any) -> None:
        rng = np.random.default_rng(0)
        shapes = (3, 4), (4, 2)
        self.items = [bt.nn.Parameter(place(rng.normal(size=s).astype("f4"))) for s in shapes]
        self.optimizer = getattr(bt.optim, name)(self.items, lr=0.1, **SETTINGS.get(name, {}))
        self.scaler = bt.optim.GradScaler(**{"init_scale": 8.0, "growth_interval": 3, **settings})
        self.place = place

    def input(self, step: int, overflows: bool = False) -> tuple[bt.Tensor, bt.Tensor]:
        x = np.random.default_rng(step).normal(size=(5, 3)).astype("f4")
        factor = np.array(1e5 if overflows else 0.0, "f4")
        return bt.Tensor(self.place(x)), bt.Tensor(self.place(factor))

    def loss(self, x: bt.Tensor, factor: bt.Tensor) -> bt.Tensor:
        out = (bt.tanh(x @ self.items[0]) @ self.items[1]).mean()
        with bt.autocast(bt.float16):  # the gradient of this product is the factor
            product = self.items[0] @ self.items[1]
        return out + product.sum() * factor

    def step(self, x: bt.Tensor, factor: bt.Tensor) -> bt.Tensor:
        loss = self.loss(x, factor)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def everything(self) -> list[Any]:
        kept = [values(p) for p in self.items]
        for entry in self.optimizer.state_dict()["state"].values():
            kept += [values(v) for v in entry.values()]
        return kept


def test_scaling_changes_nothing_but_the_range():
    scaled, plain = Case("Adam"), Case("Adam", enabled=False)
    for i in range(5):
        scaled.step(*scaled.input(i))
        plain.step(*plain.input(i))
    for a, b in zip(scaled.everything(), plain.everything(), strict=True):
        np.testing.assert_array_equal(a, b)  # a power of 2 loses no digits
    assert plain.scaler.get_scale() == 1
    assert plain.scaler.state_dict() == {}


@pytest.mark.parametrize("name", NAMES)
def test_an_overflow_changes_nothing_and_halves_the_scale(name):
    case = Case(name)
    case.step(*case.input(0))
    before = case.everything()
    case.step(*case.input(1, overflows=True))
    assert case.scaler.overflowed(case.optimizer)
    assert case.scaler.get_scale() == 4
    for a, b in zip(case.everything(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    case.step(*case.input(2))
    assert not case.scaler.overflowed(case.optimizer)
    assert not np.array_equal(case.everything()[0], before[0])


def test_the_scale_grows_after_good_steps_in_a_row():
    case, seen = Case(), []
    for i in range(8):
        case.step(*case.input(i, overflows=i == 2))
        seen.append(case.scaler.get_scale())
    assert seen == [8, 8, 4, 4, 4, 8, 8, 8]


def test_the_scale_neither_overflows_nor_vanishes():
    case = Case(init_scale=2.0**127, growth_interval=1)
    case.items[0].grad = bt.zeros((3, 4))
    case.scaler.step(case.optimizer)
    case.scaler.update()
    assert case.scaler.get_scale() == 2.0**127
    case = Case(init_scale=2.0**-149)
    case.items[0].grad = bt.full((3, 4), np.inf)
    with np.errstate(all="ignore"):
        case.scaler.step(case.optimizer)
    case.scaler.update()
    assert case.scaler.get_scale() == 2.0**-149


def test_float16_gradients_survive_that_would_vanish():
    w = bt.nn.Parameter(np.ones((1, 1), np.float32))
    found = []
    for scale in (1.0, 65536.0):
        scaler = bt.optim.GradScaler(init_scale=scale)
        optimizer = bt.optim.SGD([w], lr=0.0)
        with bt.autocast(bt.float16):
            loss = (bt.full((1, 1), 1e-3) @ w).sum() * 1e-6
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        found.append(w.grad.item())
        scaler.step(optimizer)
        scaler.update()
    assert found[0] == 0
    assert found[1] == pytest.approx(1e-9, rel=0.01)


def test_clipping_sees_unscaled_gradients():
    case = Case("SGD", init_scale=1024.0)
    case.scaler.scale(case.loss(*case.input(0))).backward()
    case.scaler.unscale_(case.optimizer)
    norm = bt.optim.clip_grad_norm_(case.items, 0.01).item()
    plain = Case("SGD", enabled=False)
    plain.loss(*plain.input(0)).backward()
    assert norm == bt.optim.clip_grad_norm_(plain.items, 0.01).item()
    for p, q in zip(case.items, plain.items, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())


def test_two_optimizers_share_a_scale():
    first, second = Case(), Case("Adam")
    scaler = first.scaler
    losses = scaler.scale([first.loss(*first.input(0)), second.loss(*second.input(0, True))])
    bt.backward(losses)
    before = values(first.items[0]), values(second.items[0])
    scaler.step(first.optimizer)
    scaler.step(second.optimizer)
    scaler.update()
    assert not np.array_equal(values(first.items[0]), before[0])
    np.testing.assert_array_equal(values(second.items[0]), before[1])
    assert scaler.get_scale() == 4


@pytest.mark.parametrize("at", [3, 4])
def test_resuming_is_exact(at):
    overflows = (2, 4)
    whole, first = Case("Adam"), Case("Adam")
    for i in range(9):
        whole.step(*whole.input(i, i in overflows))
    for i in range(at):
        first.step(*first.input(i, i in overflows))
    second = Case("Adam", init_scale=3.0, growth_interval=7)
    second.scaler.load_state_dict(first.scaler.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    for p, q in zip(second.items, first.items, strict=True):
        bt.assign(p, q.detach())
    for i in range(at, 9):
        second.step(*second.input(i, i in overflows))
    assert second.scaler.state_dict() == whole.scaler.state_dict()
    for a, b in zip(second.everything(), whole.everything(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_loading_into_a_scaler_that_is_in_use():
    case = Case()
    case.step(*case.input(0))
    case.scaler.load_state_dict({**case.scaler.state_dict(), "scale": 32.0, "_growth_tracker": 2})
    case.step(*case.input(1))
    assert case.scaler.get_scale() == 64
    case.scaler.load_state_dict({})  # of a run without scaling
    assert case.scaler.get_scale() == 64


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_step_skips_and_recovers(name):
    overflows = (4, 7)
    results = []
    for recorded in (False, True):
        case, graph, losses = Case(name), None, []
        for i in range(12):
            x = case.input(i, i in overflows)
            if graph is not None:
                loss = replay(graph, *x)[0]
            elif recorded and i == 1:
                graph, loss = record(case.step, *x)
            else:
                loss = case.step(*x)
            losses.append(loss.item())
        results.append((losses, case.everything(), case.scaler.state_dict()))
    (losses, kept, scale), (replayed, found, same) = results
    assert scale == same
    np.testing.assert_allclose(replayed, losses, rtol=1e-4)
    for a, b in zip(found, kept, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


# -- on a stand-in for a GPU -------------------------------------------------------------------


@pytest.fixture(scope="module")
def fake() -> Any:
    name = "fake_device_of_scaler"
    spec = importlib.util.spec_from_file_location(name, OPS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_on_a_device_with_nothing_read_back(fake, name, monkeypatch):
    overflows = (1, 3)

    def run(place: Any, forbid: bool) -> list[Any]:
        case = Case(name, place)
        if forbid:  # reading a value stops a GPU and cannot be captured
            for method in ("item", "tolist", "get", "__bool__", "__float__", "__int__"):
                monkeypatch.setattr(fake.FakeArray, method, refuse)
        for i in range(5):
            case.step(*case.input(i, i in overflows))
        monkeypatch.undo()
        return [*case.everything(), np.array(case.scaler.get_scale())]

    def refuse(self: Any) -> Any:
        raise AssertionError("a value of the device was read")

    expected = run(lambda x: x, forbid=False)
    with fake.fake_device(), np.errstate(all="ignore"):
        found = run(fake.FakeArray, forbid=True)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
def test_on_a_gpu():
    cupy = pytest.importorskip("cupy")
    here, there = Case("Adam"), Case("Adam", cupy.asarray)
    for case in (here, there):
        for i in range(6):
            case.step(*case.input(i, overflows=i == 2))
    for a, b in zip(there.everything(), here.everything(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    assert there.scaler.get_scale() == here.scaler.get_scale()


# -- anomaly mode and mistakes -----------------------------------------------------------------


def test_anomaly_mode_lets_the_scale_overflow():
    w = bt.nn.Parameter(np.ones((2, 2), np.float32))
    optimizer = bt.optim.SGD([w], lr=0.1)
    scaler = bt.optim.GradScaler(init_scale=2.0**20)
    with bt.detect_anomaly():
        with bt.autocast(bt.float16):
            loss = (bt.ones((2, 2)) @ w).sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 2.0**19
    assert not state.loss_scaled
    with bt.autocast(bt.float16):
        loss = (bt.ones((2, 2)) @ w).sum() * 2.0**20  # by hand: nobody would notice
    with pytest.raises(GradError, match="lowered made infinity"), bt.detect_anomaly():
        loss.backward()


def test_anomaly_mode_finds_what_is_no_overflow():
    w = bt.nn.Parameter(np.zeros((2, 2), np.float32))
    scaler = bt.optim.GradScaler()
    with bt.autocast(bt.float16):
        loss = bt.sqrt((bt.ones((2, 2)) @ w).astype(bt.float32)).sum()
    scaled = scaler.scale(loss)
    with np.errstate(all="ignore"), bt.detect_anomaly():
        with pytest.raises(GradError, match="divide made infinity"):
            scaled.backward()
    state.loss_scaled = False


@pytest.mark.parametrize(
    "settings",
    [
        {"init_scale": 0.0},
        {"init_scale": "cuda"},
        {"init_scale": float("inf")},
        {"growth_factor": 1.0},
        {"backoff_factor": 1.0},
        {"growth_interval": 0},
        {"growth_interval": True},
    ],
)
def test_senseless_settings(settings):
    (name,) = settings
    with pytest.raises(ConfigError, match=f"GradScaler: {name} is ") as caught:
        bt.optim.GradScaler(**settings)
    assert caught.value.setting == name


def test_calls_out_of_order():
    case = Case()
    with pytest.raises(GradError, match=r"update\(\) before any"):
        case.scaler.update()
    case.scaler.scale(case.loss(*case.input(0))).backward()
    case.scaler.unscale_(case.optimizer)
    with pytest.raises(GradError, match=r"unscale_\(\) after unscale_\(\)"):
        case.scaler.unscale_(case.optimizer)
    case.scaler.step(case.optimizer)
    with pytest.raises(GradError, match=r"step\(\) after step\(\)"):
        case.scaler.step(case.optimizer)
    case.scaler.update()


def test_half_parameters_are_refused():
    w = bt.nn.Parameter(bt.ones((2,), dtype=bt.float16))
    w.grad = bt.ones((2,), dtype=bt.float16)
    with pytest.raises(ConfigError, match=r"model\.to\(bt\.float32\)") as caught:
        bt.optim.GradScaler().step(bt.optim.SGD([w], lr=0.1))
    assert caught.value.dtype == "float16"

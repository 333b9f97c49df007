"""Fifty steps of each optimizer against torch's, and the schedules' tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

import bestiary as bt

FILE = Path(__file__).parents[2] / "references" / "data" / "optim" / "trajectories.safetensors"
with safe_open(FILE, "np") as opened:
    META = opened.metadata()
    ARRAYS = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
CASES = json.loads(META["cases"])
SCHEDULES = json.loads(META["schedules"])


def under(prefix: str) -> dict[str, np.ndarray]:
    start = prefix + "."
    return {k.removeprefix(start): v for k, v in ARRAYS.items() if k.startswith(start)}


def fields(settings: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


def walk(
    optimizer_name: str, settings: dict[str, Any], dtype: Any = np.float32
) -> dict[str, np.ndarray]:
    """Our trajectory, with the gradients of tests/references/optimizers.py."""
    label = "matrices" if optimizer_name == "Muon" else "shapes"
    params = {k: bt.nn.Parameter(v.astype(dtype)) for k, v in under(f"{label}.initial").items()}
    noise = under(f"{label}.noise")
    optimizer = getattr(bt.optim, optimizer_name)(params.values(), **fields(settings))
    kept = {}
    for step in range(1, 51):
        for name, p in params.items():
            p.grad = bt.asarray((noise[name][step - 1] + 0.5 * p.array).astype(dtype))
        optimizer.step()
        kept |= {f"{step}.{name}": p.array.copy() for name, p in params.items()}
    return kept


@pytest.mark.parametrize("name", CASES)
def test_fifty_steps_equal_torch(name):
    kind, settings = CASES[name]
    ours = walk(kind, settings)
    expected = under(name)
    assert len(expected) >= 8
    for key, value in expected.items():
        np.testing.assert_allclose(ours[key], value, rtol=1e-6, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", CASES)
def test_float64_stays_close_to_float32(name):
    kind, settings = CASES[name]
    ours = walk(kind, settings, np.float64)
    for key, value in under(name).items():
        assert ours[key].dtype == np.float64
        np.testing.assert_allclose(ours[key], value, rtol=1e-5, atol=2e-5, err_msg=key)


def lion_in_float64(settings: dict[str, Any]) -> dict[str, np.ndarray]:
    """Algorithm 2 of Chen et al. 2023, literally."""
    lr, decay = settings["lr"], settings["weight_decay"]
    beta1, beta2 = settings["betas"]
    params = {k: v.astype(np.float64) for k, v in under("shapes.initial").items()}
    momenta = {k: np.zeros_like(v) for k, v in params.items()}
    noise = under("shapes.noise")
    for step in range(50):
        for k, p in params.items():
            g = noise[k][step] + 0.5 * p
            update = np.sign(beta1 * momenta[k] + (1 - beta1) * g)
            params[k] = p - lr * (update + decay * p)
            momenta[k] = beta2 * momenta[k] + (1 - beta2) * g
    return params


def test_lion_equals_the_paper():
    settings = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1}
    ours = walk("Lion", settings)
    for key, value in lion_in_float64(settings).items():
        np.testing.assert_allclose(ours[f"50.{key}"], value, rtol=1e-5, atol=2e-6)


def table(schedule: Any, optimizer: Any) -> np.ndarray:
    rows = []
    for _ in range(60):
        rows.append([(g["lr"], g["momentum"]) for g in optimizer.param_groups])
        schedule.step()
    return np.array(rows)


def two_groups() -> Any:
    groups = [{"params": [bt.nn.Parameter(np.zeros(1))], "lr": lr} for lr in (0.1, 0.04)]
    return bt.optim.SGD(groups, momentum=0.9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_equal_torch(name):
    kind, settings = SCHEDULES[name]
    optimizer = two_groups()
    schedule = getattr(bt.optim, kind)(optimizer, **settings)
    ours = table(schedule, optimizer)
    np.testing.assert_allclose(ours, ARRAYS[f"schedule.{name}"], rtol=1e-9, atol=1e-15)


def test_sequential_equals_torch():
    optimizer = bt.optim.SGD([bt.nn.Parameter(np.zeros(1))], lr=0.1, momentum=0.9)
    parts = [
        bt.optim.LinearLR(optimizer, start_factor=0.01, total_iters=10),
        bt.optim.CosineAnnealingLR(optimizer, T_max=30),
        bt.optim.ExponentialLR(optimizer, gamma=0.9),
    ]
    ours = table(bt.optim.SequentialLR(optimizer, parts, milestones=[10, 40]), optimizer)
    np.testing.assert_allclose(ours, ARRAYS["schedule.sequential"], rtol=1e-9, atol=1e-12)


def test_plateau_equals_torch():
    optimizer = bt.optim.SGD([bt.nn.Parameter(np.zeros(1))], lr=0.1)
    schedule = bt.optim.ReduceLROnPlateau(
        optimizer, patience=2, cooldown=1, factor=0.4, min_lr=0.001
    )
    rates = []
    for value in ARRAYS["plateau.metrics"]:
        schedule.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(rates, ARRAYS["plateau.rates"], rtol=1e-12)
    assert len(set(rates)) > 3

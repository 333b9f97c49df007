"""What schedules do beside torch's tables: resume, groups, mistakes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError

optim = bt.optim


def sgd(**settings: Any) -> Any:
    return optim.SGD([bt.nn.Parameter(np.zeros(2, np.float32))], lr=1.0, **settings)


MAKERS: dict[str, Any] = {
    "StepLR": lambda o: optim.StepLR(o, 3),
    "CosineAnnealingLR": lambda o: optim.CosineAnnealingLR(o, 10),
    "OneCycleLR": lambda o: optim.OneCycleLR(o, 2.0, 12),
    "PolynomialLR": lambda o: optim.PolynomialLR(o, 9, 2.0),
    "LambdaLR": lambda o: optim.LambdaLR(o, lambda step: 1 / (1 + step)),
    "SequentialLR": lambda o: optim.SequentialLR(
        o,
        [optim.ConstantLR(o, 0.5, 2), optim.LinearLR(o, 0.1), optim.ExponentialLR(o, 0.5)],
        [3, 6],
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_resuming_gives_the_same_rates(name):
    first = sgd(momentum=0.9)
    schedule = MAKERS[name](first)
    for _ in range(4):
        schedule.step()
    saved_optimizer, saved = first.state_dict(), schedule.state_dict()
    second = sgd(momentum=0.9)
    resumed = MAKERS[name](second)
    second.load_state_dict(saved_optimizer)
    resumed.load_state_dict(saved)
    for _ in range(8):
        assert resumed.get_last_lr() == schedule.get_last_lr()
        assert second.param_groups[0]["momentum"] == first.param_groups[0]["momentum"]
        resumed.step()
        schedule.step()


def test_going_on_at_a_step():
    optimizer = sgd()
    schedule = optim.StepLR(optimizer, 2, 0.5)
    for _ in range(3):
        schedule.step()
    again = optim.StepLR(optimizer, 2, 0.5, last_epoch=schedule.last_epoch)
    assert again.get_last_lr() == [0.25]
    with pytest.raises(ConfigError, match="no initial rates"):
        optim.StepLR(sgd(), 2, last_epoch=3)


def test_lambda_for_each_group():
    groups = [{"params": [bt.nn.Parameter(np.zeros(1))], "lr": lr} for lr in (1.0, 2.0)]
    optimizer = optim.SGD(groups)
    schedule = optim.LambdaLR(optimizer, [lambda s: 0.5**s, lambda s: 1.0])
    schedule.step()
    assert schedule.get_last_lr() == [0.5, 2.0]
    with pytest.raises(ConfigError, match="1 functions for 2"):
        optim.LambdaLR(optimizer, [lambda s: 1.0])


def test_one_cycle_moves_the_first_beta_of_adam():
    optimizer = optim.Adam([bt.nn.Parameter(np.zeros(1))], lr=1.0, betas=(0.5, 0.7))
    schedule = optim.OneCycleLR(optimizer, 0.1, 10)
    assert optimizer.param_groups[0]["betas"] == (0.95, 0.7)
    for _ in range(9):
        schedule.step()
    assert optimizer.param_groups[0]["betas"] == (0.95, 0.7)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 25 / 1e4)
    schedule.step()
    with pytest.raises(ConfigError, match="step 11 of a cycle of 10"):
        schedule.step()


def test_plateau_follows_accuracies_too():
    optimizer = sgd()
    schedule = optim.ReduceLROnPlateau(
        optimizer, "max", 0.5, 1, threshold_mode="abs", threshold=0.1
    )
    for value in (0.5, 0.55, 0.59, 0.8, 0.8, 0.8):
        schedule.step(bt.tensor(value))
    assert optimizer.param_groups[0]["lr"] == 0.25
    saved = schedule.state_dict()
    again = optim.ReduceLROnPlateau(sgd(), "max", 0.5, 1)
    again.load_state_dict(saved)
    assert again.best == pytest.approx(0.8)
    with pytest.raises(ConfigError, match=r"scheduler\.step\(loss\)"):
        schedule.step()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: optim.StepLR("optimizer", 3), "takes an optimizer, got str"),
        (lambda: optim.LinearLR(sgd(), 0.0), "start_factor lies in"),
        (lambda: optim.OneCycleLR(sgd(), 0.1), "give total_steps"),
        (lambda: optim.OneCycleLR(sgd(), [0.1, 0.2], 10), "2 maximal rates for 1"),
        (lambda: optim.OneCycleLR(sgd(), 0.1, 10, anneal_strategy="log"), "'cos' or 'linear'"),
        (
            lambda: optim.OneCycleLR(
                optim.Adagrad([bt.nn.Parameter(np.zeros(1))]), 0.1, 10, cycle_momentum=True
            ),
            "cycle_momentum=False",
        ),
        (lambda: optim.ReduceLROnPlateau(sgd(), "least"), "'min' or 'max'"),
        (lambda: optim.ReduceLROnPlateau(sgd(), factor=1.0), "factor is below 1"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_sequential_mistakes():
    optimizer = sgd()
    parts = [optim.ConstantLR(optimizer), optim.ConstantLR(optimizer)]
    with pytest.raises(ConfigError, match="2 schedules need 1 rising"):
        optim.SequentialLR(optimizer, parts, [1, 2])
    with pytest.raises(ConfigError, match="different optimizers"):
        optim.SequentialLR(sgd(), parts, [1])
    plateau = optim.ReduceLROnPlateau(optimizer)
    with pytest.raises(ConfigError, match="follows a metric"):
        optim.SequentialLR(optimizer, [parts[0], plateau], [1])

"""What schedules do beside torch's tables: resume, groups, mistakes."""

from __future__ import annotations

import weakref
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


# -- several schedules of one optimizer ----------------------------------------------------------


def both(optimizer: Any) -> list[Any]:
    return [optim.LinearLR(optimizer, 0.25, total_iters=3), optim.ExponentialLR(optimizer, 0.5)]


def test_schedules_of_one_optimizer_multiply():
    optimizer = sgd()
    schedules = both(optimizer)
    expected = [0.25, 0.25, 0.1875, 0.125, 0.0625]  # (0.25, 0.5, 0.75, 1, 1) times 0.5 ** step
    for wanted in expected:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(wanted, rel=1e-12)
        for schedule in schedules:
            schedule.step()


def test_several_schedules_resume_in_any_order():
    first = sgd()
    schedules = both(first)
    for _ in range(2):
        for schedule in schedules:
            schedule.step()
    second = sgd()
    resumed = both(second)
    second.load_state_dict(first.state_dict())
    for schedule, other in zip(reversed(resumed), reversed(schedules), strict=True):
        schedule.load_state_dict(other.state_dict())
    for _ in range(3):
        assert second.param_groups[0]["lr"] == first.param_groups[0]["lr"]
        for schedule in (*schedules, *resumed):
            schedule.step()


def test_plateau_beside_another_schedule():
    optimizer = sgd()
    falling = optim.ExponentialLR(optimizer, 0.5)
    plateau = optim.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)
    for loss in (1.0, 2.0):
        falling.step()
        plateau.step(loss)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.025)
    falling.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0125)
    again = sgd()
    resumed = [optim.ExponentialLR(again, 0.5), optim.ReduceLROnPlateau(again, patience=0)]
    resumed[1].load_state_dict(plateau.state_dict())
    resumed[0].load_state_dict(falling.state_dict())
    assert again.param_groups[0]["lr"] == pytest.approx(0.0125)


def test_a_second_schedule_in_mid_training_is_refused():
    optimizer = sgd()
    first = optim.ExponentialLR(optimizer, 0.5)
    first.step()
    with pytest.raises(ConfigError, match="SequentialLR") as caught:
        optim.CosineAnnealingLR(optimizer, 10)
    assert caught.value.step == 1
    assert optimizer.param_groups[0]["lr"] == 0.5
    first.detach()
    optim.CosineAnnealingLR(optimizer, 10)
    assert optimizer.param_groups[0]["lr"] == 1.0


def test_a_dropped_schedule_counts_no_more():
    optimizer = sgd()
    first = optim.ExponentialLR(optimizer, 0.5)
    first.step()
    alive = weakref.ref(first)
    del first
    assert alive() is None  # nothing keeps it, so optimizer and schedule are freed at once
    second = optim.ConstantLR(optimizer, 0.1)
    assert second.get_last_lr() == [pytest.approx(0.1)]


# What torch 2.13 gives, rounded, for the three schedules below, stepped in this order.
TORCH = [0.25, 0.372691564, 0.487764129, 0.177281862, 0.203514412, 0.224057765, 0.238167788]
TORCH += [0.065429572, 0.058905765, 0.052039551, 0.045, 0.037960449]


def test_multiplied_rates_are_those_of_torch():
    optimizer = sgd()
    schedules = [
        optim.LinearLR(optimizer, 0.25, total_iters=6),
        optim.MultiStepLR(optimizer, [3, 7], 0.3),
        optim.CosineAnnealingLR(optimizer, 20),
    ]
    for wanted in TORCH:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(wanted, abs=1e-9)
        for schedule in schedules:
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

"""What is done now and then while an agent learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError
from bestiary.rl import (
    DQN,
    PPO,
    SAC,
    CheckpointEvery,
    EvaluateEvery,
    LogTo,
    StopAtReturn,
    evaluate,
    load_agent,
)
from bestiary.rl.environments.cartpole import CartPole

CASES: list[tuple[Any, str, dict[str, Any]]] = [
    (PPO, "CartPole-v1", {"num_envs": 2, "n_steps": 16, "anneal": True}),
    (DQN, "CartPole-v1", {"learning_starts": 20, "buffer_size": 500, "hidden": (8,)}),
    (SAC, "Pendulum-v1", {"learning_starts": 20, "buffer_size": 500, "hidden": (8,)}),
]


def quick(**more: Any) -> Any:
    return PPO("CartPole-v1", seed=0, num_envs=2, n_steps=16, batch_size=16, n_epochs=1, **more)


def test_evaluations_keep_the_best_agent(tmp_path: Path) -> None:
    watch = EvaluateEvery(64, tmp_path, episodes=4)
    agent = quick(learning_rate=3e-3).learn(400, [watch], progress=False)
    assert [steps for steps, _ in watch.results] == [64, 128, 192, 256, 320, 384]
    assert watch.best == max(mean for _, mean in watch.results)
    assert watch.last is not None and watch.last.mean == watch.results[-1][1]
    best = load_agent(tmp_path / "best")
    assert evaluate(best, episodes=4).mean == watch.best
    first = next(steps for steps, mean in watch.results if mean == watch.best)
    assert best.steps == first <= agent.steps


def test_evaluations_change_nothing() -> None:
    plain = quick().learn(200, progress=False)
    watched = quick().learn(200, EvaluateEvery(32, episodes=2), progress=False)
    assert plain.history == watched.history
    for name, value in plain.network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), watched.network.state_dict()[name].numpy())


def test_learning_ends_when_it_is_good_enough() -> None:
    watch = EvaluateEvery(64, episodes=2, stop_at=1)
    assert quick().learn(4000, watch, progress=False).steps == 64
    agent = quick().learn(40_000, [StopAtReturn(15, episodes=5)], progress=False)
    assert agent.steps < 10_000 and np.mean(agent.returns[-5:]) >= 15
    assert quick().learn(64, [StopAtReturn(10_000)], progress=False).steps == 64


@pytest.mark.parametrize(("algorithm", "env", "settings"), CASES)
def test_going_on_from_a_checkpoint_changes_nothing(
    algorithm: Any, env: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    def calls(folder: Path) -> list[Any]:
        # The checkpoint is called last, so that the evaluation of the same round is in it.
        return [CheckpointEvery(600, folder), EvaluateEvery(200, folder, episodes=1)]

    whole, whole_calls = algorithm(env, seed=3, **settings), calls(tmp_path / "whole")
    whole.learn(1600, whole_calls, progress=False)

    part = algorithm(env, seed=3, **settings)
    with pytest.raises(KeyboardInterrupt):
        part.learn(1600, [*calls(tmp_path / "part"), _interrupted], progress=False)
    again, again_calls = algorithm(env, seed=3, **settings), calls(tmp_path / "part")
    again.learn(1600, again_calls, progress=False, resume=tmp_path / "part")

    assert again.steps == whole.steps and again.history == whole.history != []
    assert again_calls[1].results == whole_calls[1].results
    assert again_calls[1].best == whole_calls[1].best
    for one, other in zip(whole.modules().values(), again.modules().values(), strict=True):
        for name, value in one.state_dict().items():
            np.testing.assert_array_equal(value.numpy(), other.state_dict()[name].numpy())
    best = [load_agent(tmp_path / name / "best").steps for name in ("whole", "part")]
    assert best[0] == best[1]


def _interrupted(agent: Any) -> None:
    if agent.steps > 1300:
        raise KeyboardInterrupt


def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    quick().learn(320, [CheckpointEvery(64, tmp_path, keep=3)], progress=False)
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == [f"step-{steps:08d}" for steps in (192, 256, 320)]


def test_a_run_has_the_figures(tmp_path: Path) -> None:
    with bt.Run(tmp_path) as run:
        agent = quick().learn(2100, EvaluateEvery(1000, episodes=2, run=run), False, run=run)
        agent.learn(1000, LogTo(run), progress=False)
    log = bt.read_run(tmp_path)
    for name in ("return", "length", "kl", "entropy", "policy_loss", "value_loss"):
        assert len(log.scalars[f"train/{name}"]) >= 2, name
    assert len(log.scalars["evaluation/return"]) == 2
    films = log.images["evaluation/episode"]
    assert len(films) == 2 and films[0].content[:6] in (b"GIF87a", b"GIF89a")


class Undrawn(CartPole):
    id = "Undrawn"

    def draw(self, state: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("no paper")


def test_what_cannot_be_drawn_is_told(tmp_path: Path) -> None:
    with bt.Run(tmp_path) as run:
        agent = PPO(Undrawn, n_steps=64, batch_size=64, n_epochs=1)
        agent.learn(128, EvaluateEvery(128, episodes=2, run=run), progress=False)
    log = bt.read_run(tmp_path)
    assert not log.images and "no paper" in log.texts["evaluation/episode"][0].content


def test_mistakes(tmp_path: Path) -> None:
    for make in (
        lambda: EvaluateEvery(0),
        lambda: EvaluateEvery(10, episodes=0),
        lambda: EvaluateEvery(10, stop_at=float("nan")),
        lambda: EvaluateEvery(10, seed=-1),
        lambda: CheckpointEvery(1.5, tmp_path),  # type: ignore[arg-type]
        lambda: CheckpointEvery(10, tmp_path, keep=0),
        lambda: StopAtReturn("much"),  # type: ignore[arg-type]
        lambda: StopAtReturn(1, episodes=101),
    ):
        with pytest.raises(ConfigError):
            make()
    with pytest.raises(ConfigError, match="cannot be called"):
        quick().learn(64, [3], progress=False)
    with pytest.raises(ConfigError, match="out='folder'"):
        quick().learn(64, progress=False, checkpoint_every=32)

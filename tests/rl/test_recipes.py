"""`bestiary train` for agents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bestiary.hub.cli import main
from bestiary.rl import load_agent

SHORT = ["--steps", "64", "--n-steps", "16", "--batch-size", "8", "--quiet"]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def test_an_agent_is_trained_and_goes_on(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    words = ["train", "ppo", "CartPole-v1", "--hidden", "8,8", *SHORT, "--out", str(out)]
    assert run(*words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    agent = load_agent(out / "agent")
    assert agent.name == "PPO" and agent.settings.hidden == (8, 8)
    assert told["steps"] == agent.steps == 64 and np.isfinite(told["mean"])
    assert run(*words, "--resume", "auto") == 0
    assert load_agent(out / "agent").steps == 64  # it was at its end


@pytest.mark.parametrize("recipe", ["a2c", "dqn", "sac", "td3", "reinforce"])
def test_settings_are_listed(recipe: str, capsys: Any) -> None:
    assert run("train", recipe) == 0
    shown = capsys.readouterr().out
    assert "--steps" in shown and "--learning-rate" in shown


def test_what_does_not_fit_is_named(tmp_path: Path, capsys: Any) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert run("train", "dqn", "Pendulum-v1", *out) != 0
    assert "for discrete actions" in capsys.readouterr().err
    assert run("train", "ppo", "CartPole-v1", "--device", "cuda", *out) != 0
    assert "on the CPU" in capsys.readouterr().err
    assert run("train", "ppo", "CartPole-v1", "--gamma", "2", *out) != 0
    assert "gamma lies between 0 and 1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_run_is_logged(tmp_path: Path) -> None:
    import bestiary as bt

    code = run("train", "ppo", "CartPole-v1", "--steps", "2048", "--n-steps", "128", "-o",
                     str(tmp_path / "run"), "--quiet")  # fmt: skip
    assert code == 0
    log = bt.read_run(tmp_path / "run")
    assert log.status == "finished" and log.about["hyperparameters"]["environment"] == "CartPole-v1"
    assert len(log.scalars["train/return"]) and len(log.scalars["evaluation/return"]) == 1

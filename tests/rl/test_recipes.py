"""`bestiary train` for agents."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.notice import TrainingWarning
from bestiary.hub.cli import main
from bestiary.rl import load_agent

SHORT = ["--steps", "64", "--n-steps", "16", "--batch-size", "8", "--quiet"]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def test_runs_are_found_without_naming_a_folder(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("train", "ppo", "CartPole-v1", "--hidden", "8", *SHORT, "--quiet") == 0
    assert load_agent("runs/CartPole-v1-ppo/agent").steps == 64
    capsys.readouterr()
    assert run("runs", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["status"]) == ("CartPole-v1-ppo", "finished")


def test_an_agent_is_trained_and_goes_on(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "run"
    words = ["train", "ppo", "CartPole-v1", "--hidden", "8,8", *SHORT, "--out", str(out)]
    assert run(*words, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    agent = load_agent(out / "agent")
    assert agent.name == "PPO" and agent.settings.hidden == (8, 8)
    assert told["steps"] == agent.steps == 64 and np.isfinite(told["mean"])
    log = bt.read_run(out)
    assert log.about["device"] == "cpu"
    tree = log.about["structure"]["children"]
    assert tree["network"]["parameters"] == sum(p.size for p in agent.network.parameters())
    (film,) = log.images["evaluation/episode"]
    assert film.image().is_animated and film.step == 64
    assert run(*words, "--resume", "auto") == 0
    assert load_agent(out / "agent").steps == 64  # it was at its end


def test_an_agent_with_a_memory(tmp_path: Path, capsys: Any) -> None:
    words = ["train", "recurrent-ppo", "CartPole-v1", "--memory", "8", "--hidden", "8", *SHORT]
    assert run(*words, "--out", str(tmp_path / "run")) == 0
    agent = load_agent(tmp_path / "run" / "agent")
    assert agent.name == "RecurrentPPO" and agent.settings.memory == 8
    assert run("play", str(tmp_path / "run" / "agent")) == 0
    capsys.readouterr()
    assert run("train", "recurrent-ppo", "Catch-v0", *SHORT, "--out", str(tmp_path / "c")) == 0
    assert load_agent(tmp_path / "c" / "agent").network.pixels is not None


@pytest.mark.parametrize("recipe", ["a2c", "dqn", "sac", "td3", "reinforce", "recurrent-ppo"])
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
    tree = log.about["structure"]["children"]["network"]
    assert log.about["device"] == "cpu" and set(tree["children"]) == {"actor", "critic"}
    for kind in ("parameters", "gradients"):
        assert log.histograms[f"{kind}/network/actor/layers/0/weight"]
    assert [film.step for film in log.images["evaluation/episode"]] == [2048]


def test_evaluations_checkpoints_and_an_early_end(tmp_path: Path, capsys: Any) -> None:
    import bestiary as bt

    out, log = tmp_path / "run", tmp_path / "log"
    words = ["train", "ppo", "CartPole-v1", *SHORT, "--out", str(out), "--run", str(log), "--json"]
    words[words.index("64")] = "256"
    every = ["--eval-every", "64", "--checkpoint-every", "32"]
    assert run(*words, *every, "--stop-at", "1") == 0  # the first evaluation is enough
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == 64 and told["best"]["mean"] >= 1
    assert load_agent(told["best"]["folder"]).steps == 64
    kept = sorted(p.name for p in (out / "checkpoints").iterdir())
    assert kept == ["step-00000032", "step-00000064"]
    found = bt.read_run(log)
    assert "evaluation/length" in found.scalars and not (out / "run.json").exists()
    assert run(*words, "--stop-at", "nonsense") == 2
    assert run(*words, "--eval-every", "0") == 1
    assert "steps is a whole number" in capsys.readouterr().err


def test_training_ends_at_a_return_of_the_training(tmp_path: Path, capsys: Any) -> None:
    words = ["train", "ppo", "CartPole-v1", "--n-steps", "32", "--batch-size", "32", "--quiet"]
    out = ["--out", str(tmp_path / "run"), "--json", "--steps", "40000", "--num-envs", "8"]
    assert run(*words, *out, "--stop-at", "15", "--n-epochs", "1") == 0
    assert json.loads(capsys.readouterr().out)["steps"] < 10_000


def test_words_are_settings_too(tmp_path: Path, capsys: Any) -> None:
    words = ["train", "sac", "Pendulum-v1", "--steps", "4", "--hidden", "8", "--quiet"]
    assert run(*words, "--ent-coef", "auto", "--out", str(tmp_path / "a")) == 0
    assert load_agent(tmp_path / "a" / "agent").settings.ent_coef is None
    assert run(*words, "--ent-coef", "0.25", "--out", str(tmp_path / "b")) == 0
    assert load_agent(tmp_path / "b" / "agent").settings.ent_coef == 0.25
    assert run(*words, "--ent-coef", "atuo", "--out", str(tmp_path / "c")) == 1
    assert "auto_0.1" in capsys.readouterr().err


OWN_MODULE = """
import gymnasium, numpy as np

class MyEnv(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._see(), {}

    def step(self, action):
        right, self.steps = float(action == (self.seen[0] > 0)), self.steps + 1
        return self._see(), right, False, self.steps == 10, {}

    def _see(self):
        self.seen = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.seen
"""


@pytest.mark.parametrize("recipe", ["ppo", "recurrent-ppo", "dqn"])
def test_an_environment_of_the_users(
    recipe: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """It offers no state: all but the environment goes on, and that begins anew."""
    pytest.importorskip("gymnasium")
    name = f"of_mine_{recipe.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN_MODULE)
    monkeypatch.chdir(tmp_path)
    words = ["train", recipe, f"{name}:MyEnv", "--hidden", "8", "--quiet", "--out", "run"]
    words += ["--buffer-size", "500"] if recipe == "dqn" else ["--n-steps", "16"]
    assert run(*words, "--steps", "96", "--checkpoint-every", "32") == 0
    assert load_agent("run/agent").steps == 96
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    shutil.rmtree(newest)
    with pytest.warns(TrainingWarning, match="does not offer its state"):
        assert run(*words, "--steps", "96", "--resume", "auto") == 0
    assert load_agent("run/agent").steps == 96
    assert run("evaluate", "run/agent", "--episodes", "2", "--env", f"{name}:MyEnv") == 0
    # What a file names is not imported.
    sys.modules.pop(name)
    assert run("play", "run/agent") == 1 and name not in sys.modules
    assert f"--env {name}:MyEnv" in capsys.readouterr().err

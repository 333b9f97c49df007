"""Agents that Stable-Baselines3 saved: see tests/references/stable_baselines3_agents.py."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bestiary.core.errors import ConfigError, WeightsError
from bestiary.core.weights.safetensors import load_file
from bestiary.rl import evaluate, load_agent, load_stable_baselines3

DATA = Path(__file__).parents[1] / "references" / "data" / "stable-baselines3"
ENVS = {
    "PPO": "CartPole-v1",
    "A2C": "Pendulum-v1",
    "DQN": "CartPole-v1",
    "SAC": "Pendulum-v1",
    "TD3": "Pendulum-v1",
}


def rewritten(target: Path, name: str, change: Any) -> Path:
    """A copy of the agent of PPO with one member changed; None leaves it out."""
    with zipfile.ZipFile(DATA / "ppo.zip") as old, zipfile.ZipFile(target, "w") as new:
        for member in old.namelist():
            content = old.read(member)
            content = change(content) if member == name else content
            if content is not None:
                new.writestr(member, content)
    return target


def changed_data(target: Path, **fields: Any) -> Path:
    def change(raw: bytes) -> str:
        return json.dumps({**json.loads(raw), **fields})

    return rewritten(target, "data", change)


@pytest.mark.parametrize("name", ENVS)
def test_actions_are_those_of_stable_baselines3(name: str, monkeypatch: Any) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    stored = load_file(DATA / "actions.safetensors")
    key = name.lower()
    agent = load_stable_baselines3(DATA / f"{key}.zip")
    assert agent.name == name and agent.settings.hidden == (12, 10)
    wanted = np.asarray(stored[f"{key}.actions"])
    found = agent.act(np.asarray(stored[f"{key}.observations"]))
    assert wanted.std() > 0.1 and len(wanted) == 1000
    if wanted.dtype.kind == "i":
        np.testing.assert_array_equal(found, wanted)
    else:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ENVS)
def test_such_an_agent_plays_learns_and_is_saved(name: str, tmp_path: Path) -> None:
    agent = load_agent(DATA / f"{name.lower()}.zip", ENVS[name])
    assert np.isfinite(evaluate(agent, episodes=1).mean)
    agent.learn(20, progress=False)
    again = load_agent(agent.save(tmp_path / "agent"))
    seen = agent.observation_space.sample(0, 5)
    np.testing.assert_array_equal(again.act(seen), agent.act(seen))


def test_settings_are_taken_over() -> None:
    settings = load_stable_baselines3(DATA / "ppo.zip").settings
    assert (settings.n_steps, settings.batch_size, settings.clip_range) == (2048, 64, 0.2)
    assert load_stable_baselines3(DATA / "sac.zip").settings.tau == 0.005


def test_without_an_environment_it_only_acts() -> None:
    agent = load_stable_baselines3(DATA / "ppo.zip")
    assert agent.act(np.zeros(4, np.float32)) in (0, 1)
    with pytest.raises(ConfigError, match="has no environment"):
        agent.learn(10, progress=False)
    with pytest.raises(ConfigError, match=r"Pendulum-v1 has"):
        load_stable_baselines3(DATA / "ppo.zip", "Pendulum-v1")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"no zip")
    with pytest.raises(WeightsError, match="no agent of Stable-Baselines3"):
        load_stable_baselines3(path)
    for member in ("data", "policy.pth"):
        with pytest.raises(WeightsError, match="no agent of Stable-Baselines3"):
            load_stable_baselines3(rewritten(path, member, lambda _: None))
        with pytest.raises(WeightsError):
            load_stable_baselines3(rewritten(path, member, lambda raw: raw[: len(raw) // 2]))
    with pytest.raises(FileNotFoundError):
        load_stable_baselines3(tmp_path / "none.zip")


def test_networks_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    relu = {"activation_fn": "<class 'torch.nn.modules.activation.ReLU'>"}
    with pytest.raises(WeightsError, match="ReLU"):
        load_stable_baselines3(changed_data(path, policy_kwargs=relu))
    with pytest.raises(WeightsError, match="use_sde"):
        load_stable_baselines3(changed_data(path, use_sde=True))
    for wrong in (None, {":type:": "<class 'gymnasium.spaces.dict.Dict'>"}):
        with pytest.raises(WeightsError, match="action_space cannot be read"):
            load_stable_baselines3(changed_data(path, action_space=wrong))
    box = {":type:": "Box'>", "_shape": [4], "low": "[1. 2.]", "high": "[2. 3.]"}
    with pytest.raises(WeightsError, match="4 bounds are wanted"):
        load_stable_baselines3(changed_data(path, observation_space=box))

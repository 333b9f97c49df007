"""Agents by name and by folder, in Python and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.errors import ConfigError, WeightsError
from bestiary.hub.cli import main
from bestiary.rl import A2C, PPO, evaluate, load_agent
from bestiary.rl.agents import ALGORITHMS, algorithm, facts, folder_of, shipped


def test_the_shipped_agents_are_good_and_small() -> None:
    assert "ppo-cartpole" in shipped()
    agent = bt.load("ppo-cartpole")
    assert isinstance(agent, PPO) and agent.play(episodes=20).mean == 500
    assert evaluate(agent, "CartPole-v1", 5).mean == 500
    for name in shipped():
        folder = folder_of(name)
        assert folder is not None
        assert sum(path.stat().st_size for path in folder.iterdir()) < 200_000


def test_names_are_forgiving_and_folders_win(tmp_path: Path) -> None:
    assert folder_of("PPO_CartPole") == folder_of("ppo-cartpole") is not None
    assert folder_of("resnet50") is None and folder_of(tmp_path) is None
    A2C("CartPole-v1", seed=0).save(tmp_path / "ppo-cartpole")
    assert isinstance(bt.load(tmp_path / "ppo-cartpole"), A2C)


def test_every_algorithm_is_in_its_file() -> None:
    for name in ALGORITHMS:
        assert algorithm(name).__name__ == name
    with pytest.raises(WeightsError, match="no algorithm 'TRPO'; there are: A2C"):
        algorithm("TRPO")


def test_damaged_agents_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds no agent"):
        load_agent(tmp_path)
    (tmp_path / "agent.json").write_text("[]")
    with pytest.raises(WeightsError, match="holds no agent"):
        bt.load(tmp_path)
    (tmp_path / "agent.json").write_text('{"algorithm": "TRPO"}')
    with pytest.raises(WeightsError, match="no algorithm"):
        bt.load(tmp_path)
    with pytest.raises(ConfigError, match="sees"):
        load_agent(folder_of("ppo-cartpole") or "", "Pendulum-v1")


def test_on_the_command_line(tmp_path: Path, capsys: Any) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    path = tmp_path / "run.gif"
    PPO("CartPole-v1", seed=0).save(tmp_path / "agent")  # untrained: short episodes
    code, said, err = run("play", str(tmp_path / "agent"), "--record", str(path))
    assert code == 0 and said.startswith("return ") and str(path) in said, err
    with Image.open(path) as image:
        assert image.n_frames > 3
    code, said, _ = run("play", "ppo-cartpole", "--episodes", "2", "--json")
    assert json.loads(said)["returns"] == [500.0, 500.0]
    code, said, _ = run("evaluate", "ppo-cartpole", "--episodes", "3")
    assert code == 0 and "over 3 episodes" in said
    code, said, _ = run("evaluate", "ppo-cartpole", "--json")
    assert json.loads(said)["episodes"] == 20
    code, _, err = run("play", "unet-shapes")
    assert code == 1 and "is no agent" in err
    code, _, err = run("evaluate", "unet-shapes")
    assert code == 2 and "on which DATA" in err


def test_agents_are_listed_and_described(tmp_path: Path, capsys: Any) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    listed = json.loads(run("list", "--json", "--task", "reinforcement-learning")[1])
    assert [one["name"] for one in listed] == shipped()
    assert "ppo-cartpole" in run("list", "*cartpole")[1] and "ppo" not in run("list", "vgg*")[1]
    assert not json.loads(run("list", "cartpole", "--non-commercial", "--json")[1])
    known = json.loads(run("info", "PPO_CartPole", "--json")[1])
    assert known == bt.info("ppo-cartpole") == facts("ppo-cartpole")
    assert known["algorithm"] == "PPO" and known["environment"] == "CartPole-v1"
    agent = bt.load("ppo-cartpole")
    assert known["parameters"] == sum(p.size for p in agent.network.parameters())
    assert facts("dqn-cartpole") is not None and facts("resnet50") is None
    shown = run("info", "sac-pendulum")[1]
    assert "Pendulum-v1" in shown and "learning_rate" in shown
    folder = A2C("CartPole-v1", seed=0).save(tmp_path / "mine")
    mine = json.loads(run("info", str(folder), "--json")[1])
    assert mine["license"] is None and not mine["bundled"] and mine["algorithm"] == "A2C"
    (folder / "agent.json").write_text("{}")
    code, _, err = run("info", str(folder))
    assert code == 1 and "holds no agent" in err


def test_zips_of_stable_baselines3(tmp_path: Path, capsys: Any) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    path = Path(__file__).parents[1] / "references" / "data" / "stable-baselines3" / "ppo.zip"
    agent = bt.load(path)
    assert isinstance(agent, PPO) and agent.play("CartPole-v1").lengths[0] > 1
    assert isinstance(bt.load(str(path)), PPO)
    with pytest.raises(ConfigError, match="has no environment"):
        agent.play()
    with pytest.raises(ConfigError, match=r"the agent sees .* Pendulum-v1 has"):
        agent.play("Pendulum-v1")
    known = json.loads(run("info", str(path), "--json")[1])
    assert known["algorithm"] == "PPO" and known["settings"]["hidden"] == [12, 10]
    code, said, err = run("play", str(path), "--env", "CartPole-v1", "--json")
    assert code == 0 and json.loads(said)["episodes"] == 1, err
    code, said, err = run("evaluate", str(path), "--env", "CartPole-v1", "--episodes", "3")
    assert code == 0 and "over 3 episodes" in said, err
    code, _, err = run("play", str(path))
    assert code == 1 and "--env CartPole-v1" in err
    (tmp_path / "other.zip").write_bytes(b"PK")
    code, _, err = run("play", str(tmp_path / "other.zip"))
    assert code == 1 and "no agent of Stable-Baselines3" in err
    code, _, err = run("evaluate", "unet-shapes", str(tmp_path), "--env", "CartPole-v1")
    assert code == 2 and "--env is for agents" in err

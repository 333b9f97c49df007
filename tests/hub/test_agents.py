"""Agents of Stable-Baselines3 by the id of their repository, from a hub on loopback."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, HubError, WeightsError
from bestiary.core.notice import HubWarning
from bestiary.core.weights.safetensors import load_file
from bestiary.hub.choice import agent_in
from bestiary.hub.cli import main

DATA = Path(__file__).parents[1] / "references" / "data" / "stable-baselines3"
NAME = "ppo-CartPole-v1"
REPO = f"sb3/{NAME}"


def repository(folder: Path, name: str = NAME, agent: str = "ppo") -> Path:
    """Laid out as sb3's repositories on the hub are."""
    (folder / name).mkdir(parents=True)
    shutil.copy(DATA / f"{agent}.zip", folder / f"{name}.zip")
    with zipfile.ZipFile(DATA / f"{agent}.zip") as archive:
        archive.extractall(folder / name)
    (folder / "README.md").write_text("---\nlibrary_name: stable-baselines3\n---\n# An agent")
    (folder / "config.yml").write_text("!!python/object/apply:collections.OrderedDict []")
    (folder / "replay.mp4").write_bytes(b"a film" * 100)
    with zipfile.ZipFile(folder / "train_eval_metrics.zip", "w") as archive:
        archive.writestr("evaluations.npz", b"")
    return folder


@pytest.fixture
def hub(serve: Callable[..., Any], tmp_path: Path, own_cache: Path) -> Any:
    served = serve({REPO: repository(tmp_path / "repository")})
    bt.configure(endpoint=served.url, timeout=2.0, deadline=2.0)
    return served


def test_by_the_id_of_a_repository(hub: Any, monkeypatch: Any) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    agent = bt.load(REPO)
    assert agent.name == "PPO" and agent.env.id == "CartPole-v1"
    stored = load_file(DATA / "actions.safetensors")
    found = agent.act(np.asarray(stored["ppo.observations"]))
    np.testing.assert_array_equal(found, np.asarray(stored["ppo.actions"]))
    assert agent.play(episodes=2).mean > 5
    fetched = {r.path.rpartition("/")[2] for r in hub.bodies()}
    assert f"{NAME}.zip" in fetched
    assert not fetched & {"replay.mp4", "train_eval_metrics.zip", "policy.pth", "config.yml"}


def test_without_a_connection_once_it_is_here(hub: Any) -> None:
    bt.load(REPO)
    hub.forget()
    bt.configure(offline=True)
    assert bt.load(REPO).env.id == "CartPole-v1" and not hub.requests


def test_on_the_command_line(hub: Any, tmp_path: Path, capsys: Any) -> None:
    def run(*words: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        return int(ended.value.code or 0)

    film = tmp_path / "run.gif"
    assert run("play", REPO, "--record", str(film)) == 0
    assert film.read_bytes()[:4] == b"GIF8" and "return" in capsys.readouterr().out
    assert run("evaluate", REPO, "--episodes", "2", "--json") == 0
    assert run("pull", REPO) == 0


def test_a_zip_alone_and_an_environment_that_is_not_here(
    serve: Any, tmp_path: Path, own_cache: Path
) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    shutil.copy(DATA / "sac.zip", folder / "sac-NoSuchThing-v3.zip")
    (folder / "README.md").write_text("# An agent")
    other = repository(tmp_path / "other", "dqn-Pendulum-v1", "dqn")  # which has other spaces
    (other / "config.json").write_text("{}")
    (other / "vec_normalize.pkl").write_bytes(b"\x80\x04N.")
    served = serve({"me/sac-NoSuchThing-v3": folder, "me/other": other})
    bt.configure(endpoint=served.url, timeout=2.0, deadline=2.0)
    agent = bt.load("me/sac-NoSuchThing-v3")
    assert agent.name == "SAC" and evaluate_in(agent, "Pendulum-v1") < 0
    with pytest.raises(ConfigError, match="does not say which"):
        agent.play()
    with pytest.warns(HubWarning, match="normalised observations"):
        assert bt.load("me/other").name == "DQN"


def evaluate_in(agent: Any, env: str) -> float:
    found: float = agent.play(env).mean
    return found


def test_what_is_no_agent(serve: Any, tmp_path: Path, own_cache: Path) -> None:
    broken, several = tmp_path / "broken", tmp_path / "several"
    broken.mkdir()
    several.mkdir()
    (broken / "ppo-CartPole-v1.zip").write_bytes(b"not a zip")
    for name in ("a.zip", "b.zip"):
        shutil.copy(DATA / "ppo.zip", several / name)
    served = serve({"me/broken": broken, "me/several": several})
    bt.configure(endpoint=served.url, timeout=2.0, deadline=2.0)
    with pytest.raises(WeightsError, match="is no agent of Stable-Baselines3"):
        bt.load("me/broken")
    with pytest.raises(HubError, match="holds no weights"):
        bt.load("me/several")


def test_which_file_it_is() -> None:
    assert agent_in([f"{NAME}.zip", f"{NAME}/policy.pth", "config.json"]) == f"{NAME}.zip"
    assert agent_in(["x.zip", "train_eval_metrics.zip"]) == "x.zip"
    for others in (["model.safetensors"], ["config.json"], ["weights.bin"], ["y.zip"]):
        assert agent_in(["x.zip", *others]) is None
    assert agent_in(["folder/x.zip"]) is None and agent_in(["train_eval_metrics.zip"]) is None

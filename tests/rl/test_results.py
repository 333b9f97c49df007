"""The results of docs/examples/rl_results, their page, and the recipes that make them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_scripts import FOLDER, script

from bestiary import rl


def speed_of(made: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made.RESULTS / "speed.json").read_text(encoding="utf-8"))
    return found


def test_the_page_is_what_the_files_say() -> None:
    made: Any = script("rl_results")
    own, peer = made.results(made.RESULTS), made.results(made.RESULTS / made.PEER)
    assert made.PAGE.read_text(encoding="utf-8") == made.page(own, peer, speed_of(made))
    assert len(own["ppo-cartpole"]) == 5
    for ones in [*own.values(), *peer.values()]:
        for one in ones:
            command = one["command"].split()
            assert (FOLDER.parents[1] / command[1]).is_file()
            assert command[-2:] == ["--seed", str(one["seed"])]
            assert one["seconds"]["wall"] > 0 and 0 <= one["seed"] < 5


def test_result_files_are_small_and_named_for_what_they_hold() -> None:
    files = sorted((FOLDER / "rl_results").rglob("*-[0-9].json"))
    assert len(files) > 40
    for path in files:
        found = json.loads(path.read_text(encoding="utf-8"))
        assert path.name == f"{found['run']}-{found['seed']}.json"
        assert path.stat().st_size < 20_000
        peer = path.parent.name == "stable-baselines3"
        assert peer == ("rl_peer.py" in found["command"])


def test_what_was_not_run_is_missing() -> None:
    made: Any = script("rl_results")
    page = made.page({}, {}, {})
    lines = len(made.WANTED) + 2 * len(made.BESIDE) + len(made.OFFLINE) + 1
    assert page.count("missing") == lines
    assert "0 of 5" in page and "nan" not in page


def test_sample_efficiency_is_compared_over_the_same_steps() -> None:
    made: Any = script("rl_results")
    one = {"curve": [[10, 0.0], [20, 10.0], [30, 20.0]]}
    late = {"curve": [[20, 10.0], [40, 30.0]]}
    assert made.while_learning([one], [late]) == ["15", "15"]
    assert made.while_learning([one], []) == ["10", ""]
    assert made.while_learning([], []) == ["", ""]


def test_curves_are_drawn() -> None:
    made: Any = script("rl_results")
    own, peer = made.results(made.RESULTS), made.results(made.RESULTS / made.PEER)
    picture = made.curves(own, peer)
    assert picture.size[0] > 300 and len(picture.getcolors(1 << 20)) > 5
    assert picture.tobytes() != made.curves(own, {}).tobytes()


@pytest.mark.parametrize("name", ["ppo-cartpole", "a2c-cartpole", "dqn-cartpole-small"])
def test_the_recipe(name: str, tmp_path: Path) -> None:
    recipe: Any = script("rl_train")
    args = recipe.Arguments(name, steps=2100, episodes=3, out=tmp_path, agent=tmp_path / "agent")
    result = recipe.main(args)
    assert json.loads((tmp_path / f"{name}-0.json").read_text()) == result
    assert result["library"] == "bestiary" and result["episodes"] == 3
    assert result["steps"] >= 2100 and result["seconds"]["cpu"] >= 0
    assert 2 <= len(result["curve"]) <= 60 and 8 <= result["return"]["mean"] <= 500
    assert (tmp_path / "agent" / "agent.json").is_file()


def test_every_run_can_be_begun() -> None:
    settings: Any = script("rl_settings")
    for name, run in settings.RUNS.items():
        kind = getattr(rl, run.algorithm)
        kind.Settings(**run.settings)
        assert run.num_envs >= 1, name
    made: Any = script("rl_results")
    assert set(made.WANTED) <= set(settings.RUNS)


def test_settings_in_the_words_of_stable_baselines3() -> None:
    peer: Any = script("rl_peer")
    found = peer.settings_of("dqn-cartpole")
    assert found["policy_kwargs"] == {"net_arch": [256, 256]} and "anneal" not in found
    assert found["learning_rate"](0.25) == pytest.approx(0.25e-3)
    assert peer.settings_of("sac-pendulum")["policy_kwargs"] == {"net_arch": [256, 256]}
    assert peer.settings_of("ppo-acrobot")["policy_kwargs"] == {"net_arch": [64, 64]}
    # What is not said has to be the same here.
    for name, kind in (("sac-pendulum", rl.SAC), ("td3-pendulum", rl.TD3), ("dqn-catch", rl.DQN)):
        algorithm = kind.__name__
        assert peer._HIDDEN.get(algorithm, (64, 64)) == kind.Settings().hidden, name
        assert peer._RATES.get(algorithm, 3e-4) == kind.Settings().learning_rate, name


def test_alphazero(tmp_path: Path) -> None:
    recipe: Any = script("rl_alphazero")
    result = recipe.main(recipe.Arguments(steps=30, games=2, out=tmp_path))
    assert json.loads((tmp_path / "alphazero-connect-four-0.json").read_text()) == result
    assert 0 <= result["random"]["won"] <= 1


def test_recorded_data(tmp_path: Path) -> None:
    recipe: Any = script("rl_offline")
    name = "decision-transformer-grid-world"
    result = recipe.main(recipe.Arguments(name, steps=10, episodes=4, out=tmp_path))
    assert json.loads((tmp_path / f"{name}-0.json").read_text()) == result
    assert result["recorded"]["episodes"] == [100] * 3
    assert result["recorded"]["return"][0] > 0.3 > -0.9 > result["recorded"]["return"][1]
    assert set(result["return"]) >= {"decision transformer", "behaviour cloning"}
    name = "decision-transformer-pendulum"
    result = recipe.main(recipe.Arguments(name, steps=30, episodes=4, out=tmp_path))
    assert len(result["recorded"]["players"]) == 5 and result["asked for"] < -500
    assert rl.evaluate(recipe.ShortestWay(), "GridWorld-v0", 3).mean == pytest.approx(0.87)


def test_the_decision_transformer_is_above_cloning() -> None:
    """As means over the seeds, and with most of them."""
    made: Any = script("rl_results")
    own = made.results(made.RESULTS)
    for run in made.OFFLINE:
        found = [{name: v["mean"] for name, v in one["return"].items()} for one in own[run]]
        ours = np.array([one.pop("decision transformer") for one in found])
        cloned = np.array([max(one.values()) for one in found])
        assert len(found) == made.SEEDS
        assert ours.mean() > cloned.mean() and (ours > cloned).mean() > 0.5

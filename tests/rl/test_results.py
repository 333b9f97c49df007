"""The results of docs/examples/rl_results, their page, and the recipe that makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from example_scripts import FOLDER, script


def test_the_page_is_what_the_files_say() -> None:
    made: Any = script("rl_results")
    own = made.results(FOLDER / "rl_results")
    peer = made.results(FOLDER / "rl_results" / made.PEER)
    assert made.PAGE.read_text(encoding="utf-8") == made.page(own, peer)
    assert len(own["ppo-cartpole"]) == 5
    for ones in [*own.values(), *peer.values()]:
        for one in ones:
            assert one["command"].endswith((f"--seed {one['seed']}", "--peer"))
            assert one["seconds"]["wall"] > 0 and 0 <= one["seed"] < 5


def test_what_was_not_run_is_missing() -> None:
    made: Any = script("rl_results")
    page = made.page({}, {})
    assert page.count("missing") == len(made.WANTED) + 2 * len(made.BESIDE)
    assert "0 of 5" in page and "nan" not in page


def test_curves_are_drawn() -> None:
    made: Any = script("rl_results")
    picture = made.curves(made.results(FOLDER / "rl_results"))
    assert picture.size[0] > 300 and len(picture.getcolors(1 << 20)) > 5


@pytest.mark.parametrize("name", ["ppo-cartpole", "a2c-cartpole"])
def test_the_recipe(name: str, tmp_path: Path) -> None:
    recipe: Any = script("rl_on_policy")
    args = recipe.Arguments(name, steps=2100, episodes=3, out=tmp_path)
    result = recipe.main(args)
    assert json.loads((tmp_path / f"{name}-0.json").read_text()) == result
    assert result["library"] == "bestiary" and result["episodes"] == 3
    assert result["steps"] >= 2100 and result["seconds"]["cpu"] >= 0 and len(result["curve"]) == 2


def test_both_recipes_train_alike() -> None:
    one: Any = script("rl_on_policy")
    other: Any = script("rl_off_policy")
    algorithm, env, steps, settings = other.RUNS["dqn-cartpole"]
    assert one.RUNS["dqn-cartpole"] == (algorithm.__name__, env, steps, 1, settings)

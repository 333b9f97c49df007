"""The recipe docs/examples/rl_off_policy.py, run small, and the results that it has written."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from example_scripts import FOLDER, script


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    return script("rl_off_policy")


def run(recipe: Any, folder: Path, name: str, **more: Any) -> dict[str, Any]:
    args = recipe.Arguments(run=name, out=folder, episodes=4, **more)
    result: dict[str, Any] = recipe.main(args)
    assert json.loads((folder / f"{name}-0.json").read_text()) == result
    return result


def test_writes_what_it_reached(recipe: ModuleType, tmp_path: Path) -> None:
    result = run(recipe, tmp_path, "dqn-cartpole-small", steps=1500, agent=tmp_path / "agent")
    assert 8 < result["return"]["mean"] <= 500
    assert result["steps"] >= 1500 and result["curve"][0][0] >= 1000
    assert (tmp_path / "agent" / "agent.json").is_file()


def test_offline(recipe: ModuleType, tmp_path: Path) -> None:
    result = run(recipe, tmp_path, recipe.OFFLINE, steps=10)
    assert result["recorded"]["episodes"] == [100] * 3
    assert result["recorded"]["return"][0] > 0.3 > -0.9 > result["recorded"]["return"][1]
    assert set(result["return"]) >= {"decision transformer", "behaviour cloning"}


def test_the_shortest_way(recipe: ModuleType) -> None:
    from bestiary.rl.evaluation import evaluate

    assert evaluate(recipe.ShortestWay(), "GridWorld-v0", 3).mean == pytest.approx(0.87)


def test_results_say_how_they_came_about(recipe: ModuleType) -> None:
    files = sorted((FOLDER / "rl_results").glob("*-[0-9].json"))
    mine = [p for p in files if p.stem[:-2] in {*recipe.RUNS, recipe.OFFLINE}]
    assert len(mine) >= 6
    for path in mine:
        found = json.loads(path.read_text())
        assert path.name == f"{found['run']}-{found['seed']}.json"
        assert found["command"].endswith(f"rl_off_policy.py {found['run']} --seed {found['seed']}")
        assert found["seconds"]["wall"] > 0

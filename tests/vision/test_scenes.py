"""Scenes whose depths are known, the estimator that learned them, and its recipe, run small."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError
from bestiary.vision import Depth, ball_scenes
from bestiary.vision.scenes import FAR

RECIPE = Path(__file__).parent.parent.parent / "docs" / "examples" / "depth.py"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("depth_recipe", RECIPE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_scenes_repeat_themselves_and_have_plausible_depths() -> None:
    pictures, metres = ball_scenes(6, size=64, seed=3)
    assert pictures.shape == (6, 64, 64, 3) and pictures.dtype == np.uint8
    assert metres.shape == (6, 64, 64) and metres.dtype == np.float32
    assert metres.min() > 1 and metres.max() <= FAR
    again, depths = ball_scenes(6, size=64, seed=3)
    np.testing.assert_array_equal(pictures, again)
    np.testing.assert_array_equal(metres, depths)
    assert not np.array_equal(pictures, ball_scenes(6, size=64, seed=4)[0])


def test_the_floor_comes_nearer_downwards_and_the_wall_is_flat() -> None:
    _, metres = ball_scenes(20, size=64)
    for depth in metres:
        wall = depth.max()
        assert (depth == wall).sum() > 64 * 5  # what is above the floor and behind the balls
        edges = depth[-1]
        assert np.median(edges) < wall / 2
        # Where no ball is, a row of the floor is equally far: the most frequent value of each.
        rows = [np.unique(row, return_counts=True) for row in depth]
        usual = [values[counts.argmax()] for values, counts in rows if counts.max() > 20]
        assert all(a >= b for a, b in itertools.pairwise(usual))


def test_a_ball_is_nearest_in_its_middle() -> None:
    from bestiary.vision import scenes

    rows, columns = np.mgrid[:101, :101] + 0.5
    across, down = (columns - 50.5) / 101, (rows - 50.5) / 101
    depth, pixels = np.full((101, 101), 9.0), np.zeros((101, 101, 3))
    ball = (np.array([0.0, 0.0, 4.0]), 1.0, np.array([200.0, 100.0, 50.0]))
    scenes._draw(ball, across, down, depth, pixels)
    assert depth[50, 50] == pytest.approx(3.0)
    assert depth[50, 50] == depth.min() and depth[0, 0] == 9
    assert pixels[40, 40].sum() > pixels[60, 60].sum() > 0  # lit from the upper left
    area = np.count_nonzero(depth < 9) / 101**2
    assert area == pytest.approx(np.pi / 15, rel=0.02)  # of a sphere: tan² of its half angle


@pytest.mark.parametrize("wrong", [{"count": 0}, {"size": 8}, {"most": 0}])
def test_scenes_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ball_scenes(**{"count": 1, **wrong})


def test_the_model_that_is_shipped() -> None:
    model = bt.load("depth-balls")
    assert sum(p.size for p in model.module.parameters()) == model.card.parameters
    pictures, metres = ball_scenes(20, seed=99)
    found = model(list(pictures))
    assert isinstance(found[0], Depth) and found[0].metric
    values = np.stack([depth.values for depth in found])
    relative = np.abs(values - metres) / metres
    constant = np.abs(np.median(metres) - metres) / metres
    assert relative.mean() < 0.12 < constant.mean() / 3


def test_the_recipe_learns(recipe: ModuleType, tmp_path: Path) -> None:
    arguments = {"batch_size": 4, "size": 56, "quiet": True}
    short = recipe.main(recipe.Args(out=str(tmp_path / "a"), steps=2, **arguments))
    longer = recipe.main(recipe.Args(out=str(tmp_path / "b"), steps=30, **arguments))
    scenes = ball_scenes(10, size=56, seed=5)
    assert recipe.relative_error(longer, *scenes) < recipe.relative_error(short, *scenes)
    again = bt.load(tmp_path / "b")
    assert again.card.training["steps"] == 30
    a, b = again(scenes[0][0]).values, longer(scenes[0][0]).values
    np.testing.assert_allclose(a, b, rtol=0.02)  # it was saved in float16

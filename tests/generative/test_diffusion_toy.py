"""The recipe docs/examples/diffusion_toy.py, run small."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

RECIPE = Path(__file__).parent.parent.parent / "docs" / "examples" / "diffusion_toy.py"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("diffusion_toy_recipe", RECIPE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_points_come_nearer(recipe: ModuleType, tmp_path: Path, prediction: str) -> None:
    out = tmp_path / "toy.png"
    args = recipe.Args(
        out=str(out),
        steps=700,
        batch_size=128,
        width=48,
        points=200,
        sampling_steps=20,
        prediction=prediction,
    )
    found = recipe.main(args)
    noise = np.random.default_rng(0).standard_normal((200, 2))
    data = recipe.spiral(200, np.random.default_rng(0))
    assert recipe.distance(data) < 0.05
    assert found["distance"] < 0.9 * recipe.distance(noise)
    with Image.open(out) as picture:
        assert picture.size == (5 * 188 - 8, 180)
        assert len(picture.getcolors() or ()) == 3


def test_it_is_repeatable(recipe: ModuleType) -> None:
    args = recipe.Args(out="", steps=10, batch_size=16, width=16, points=20, sampling_steps=4)
    assert recipe.main(args) == recipe.main(args)

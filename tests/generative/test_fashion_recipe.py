"""The recipe of the shipped models, run small on made-up pictures."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "docs" / "examples" / "fashion.py"


@pytest.fixture(scope="module")
def recipe():
    import sys

    spec = importlib.util.spec_from_file_location("fashion_recipe", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["fashion_recipe"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def idx(path, array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(head + array.astype("u1").tobytes())


def test_the_recipe_runs_small(recipe, tmp_path):
    rng = np.random.default_rng(0)
    for stem, count in (("train", 150), ("t10k", 60)):
        idx(tmp_path / f"{stem}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        idx(tmp_path / f"{stem}-labels-idx1-ubyte", np.arange(count) % 10)

    def run(what, **changes):
        given = {"out": str(tmp_path / "out"), "data": str(tmp_path), "quiet": True, "steps": 2}
        return recipe.main(recipe.Args(what=what, **(given | changes)))

    assert 0 <= run("classifier")["accuracy"] <= 1
    assert run("dcgan")["epochs"][-1]["step"] == 2
    run("vae")
    measured = run("measure", count=30)["measures"]
    assert set(measured) == {"real", "vae-fashion", "dcgan-fashion"}
    assert measured["dcgan-fashion"]["frechet"] > 0 and "accuracy" in measured["dcgan-fashion"]
    assert (tmp_path / "out" / "measure.json").is_file()

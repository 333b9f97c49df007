"""The recipe docs/examples/cifar10.py, run small."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bestiary as bt

RECIPE = Path(__file__).parent.parent.parent / "docs" / "examples" / "cifar10.py"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cifar10_recipe", RECIPE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def pictures(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures whose colour tells their class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    colours = np.random.default_rng(1).integers(0, 256, (3, 3))
    noise = rng.integers(-20, 21, (count, 32, 32, 3))
    images = (colours[labels][:, None, None] + noise).clip(0, 255)
    return images.astype(np.uint8), labels


def test_batches_hold_every_picture_once_and_depend_on_seed_and_epoch(recipe: ModuleType) -> None:
    images, labels = pictures(40)
    args = recipe.Args(batch_size=8)
    first, second = recipe.Batches(images, labels, args), recipe.Batches(images, labels, args)
    assert len(first) == 5
    epochs = [[(x.array, y.array) for x, y in first] for _ in range(2)]
    for (x, y), (again_x, again_y) in zip(epochs[0], second, strict=True):
        np.testing.assert_array_equal(x, again_x.array)
        np.testing.assert_array_equal(y, again_y.array)
        assert x.shape == (8, 3, 32, 32) and x.dtype == np.float32
    assert not np.array_equal(epochs[0][0][0], epochs[1][0][0])
    for epoch in epochs:
        np.testing.assert_array_equal(
            np.sort(np.concatenate([y for _, y in epoch])), np.sort(labels)
        )
    resumed = recipe.Batches(images, labels, args)
    resumed.load_state_dict({"epoch": 1})
    np.testing.assert_array_equal(next(iter(resumed))[0].array, epochs[1][0][0])
    assert resumed.state_dict() == {"epoch": 2}


def test_changes_of_pictures(recipe: ModuleType) -> None:
    images, labels = pictures(64)
    plain = recipe.normalized(images.transpose(0, 3, 1, 2))
    mean = (images[0, :, :, 1].mean() / 255 - recipe.MEAN[1]) / recipe.STD[1]
    assert plain[0, 1].mean() == pytest.approx(mean, abs=1e-4)
    rng = np.random.default_rng(0)
    everything = np.arange(64)

    mirror = recipe.Batches(images, labels, recipe.Args(shift=0, cutout=0))
    mirrored = mirror.changed(everything, rng)
    same = (mirrored == plain).all(axis=(1, 2, 3))
    other = (mirrored == plain[..., ::-1]).all(axis=(1, 2, 3))
    assert (same | other).all()
    assert 16 < same.sum() < 48

    cut = recipe.Batches(images, labels, recipe.Args(shift=0, cutout=8)).changed(everything, rng)
    np.testing.assert_array_equal((cut == 0).all(axis=1).sum(axis=(1, 2)), 64)

    shifted = recipe.Batches(images, labels, recipe.Args(cutout=0)).changed(everything, rng)
    assert shifted.shape == plain.shape
    assert not np.array_equal(shifted, mirrored)


def test_it_trains_saves_and_resumes(
    recipe: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load(name: str, split: str, folder: Any = None) -> SimpleNamespace:
        images, labels = pictures(80 if split == "train" else 40, seed=len(split))
        return SimpleNamespace(images=images, labels=labels)

    monkeypatch.setattr(bt.data, "load", load)
    args = recipe.Args(out=str(tmp_path), epochs=3, batch_size=8, lr=0.05, ema=0.5, quiet=True)
    result = recipe.main(args)
    assert result["accuracy"] > 0.6  # guessing gives a third
    assert result["accuracy of the saved model"] == pytest.approx(result["accuracy"], abs=0.03)
    log = json.loads((tmp_path / "log.json").read_text())
    assert [row["epoch"] for row in log["epochs"]] == [1, 2, 3]
    model = bt.load(tmp_path / "model")
    assert model.labels[0] == "airplane"
    assert "CIFAR-10 test set" in model.card.metric
    assert (tmp_path / "model" / "model.safetensors").stat().st_size <= 2_000_000
    again = recipe.main(args)  # nothing is left to do, and nothing is lost
    assert again == result
    assert json.loads((tmp_path / "log.json").read_text())["epochs"] == log["epochs"]


def test_command_line(recipe: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["cifar10.py", "--batch-size", "64", "--lr", "0.2", "--quiet"])
    args = recipe.parsed()
    assert (args.batch_size, args.lr, args.quiet, args.epochs) == (64, 0.2, True, 24)


def test_the_log_is_of_the_model_that_is_shipped(recipe: ModuleType) -> None:
    log = json.loads(RECIPE.with_suffix(".json").read_text())
    card = bt.load("resnet-cifar10").card
    assert log["result"]["accuracy of the saved model"] >= 0.92
    assert f"{100 * log['result']['accuracy']:.2f} %" in card.metric
    assert [row["epoch"] for row in log["epochs"]] == list(range(1, recipe.Args().epochs + 1))
    weights = (
        Path(bt.__file__).parent / "vision" / "assets" / "resnet-cifar10" / "model.safetensors"
    )
    assert weights.stat().st_size <= 2_000_000


@pytest.mark.slow
@pytest.mark.network
def test_accuracy_of_the_shipped_model_on_the_real_test_set(recipe: ModuleType) -> None:
    test = bt.data.load("cifar10", "test")
    found = recipe.accuracy(bt.load("resnet-cifar10").module, test.images, test.labels)
    assert len(test.labels) == 10_000
    assert found == pytest.approx(0.9258, abs=0.001)

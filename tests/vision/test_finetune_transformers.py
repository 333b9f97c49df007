"""Transformers with a head, with two, or without one become classifiers of other classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.vision.tasks import ImageClassifier

DATA = Path(__file__).parents[1] / "references" / "data"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bright and dark pictures, 8 of each."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for kind, level in (("bright", 200), ("dark", 40)):
        (root / kind).mkdir()
        for i in range(8):
            pixels = rng.normal(level, 15, (40, 44, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / kind / f"{i}.png")
    return root


@pytest.mark.parametrize(
    "folder",
    ["vit-transformers", "vit-timm-distilled", "dinov2-transformers", "swin-transformers"],
)
def test_fine_tuned_and_loaded_again(folder: str, photos: Path, tmp_path: Path) -> None:
    base = bt.load(DATA / folder, image_size=32)
    before = {name: tensor.numpy().copy() for name, tensor in base.module.state_dict().items()}
    settings = {"head_epochs": 30, "head_lr": 0.02, "lr": 1e-3, "batch_size": 8, "quiet": True}
    tuned = base.finetune(photos, out=tmp_path / "tuned", epochs=1, **settings)
    assert isinstance(tuned, ImageClassifier)
    assert tuned.labels == ["bright", "dark"]
    for name, tensor in base.module.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name])
    again = bt.load(tmp_path / "tuned")
    assert isinstance(again, ImageClassifier)
    assert again.card.task == "image-classification"
    pictures = [photos / kind / "3.png" for kind in ("bright", "dark")]
    assert [answer[0]["label"] for answer in again(pictures)] == ["bright", "dark"]
    np.testing.assert_array_equal(again.probabilities(pictures), tuned.probabilities(pictures))

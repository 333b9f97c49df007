"""FCOS: which place answers for what, the loss, and learning from nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError
from bestiary.hub.loading import load
from bestiary.hub.registry import get
from bestiary.vision.boxes import Boxes
from bestiary.vision.detector import Detector
from bestiary.vision.fcos import FCOS, Config, owner_of
from bestiary.vision.generated import SHAPES, write_shapes

TINY = Config(
    depths=(1, 1, 1), hidden_sizes=(6, 8, 12), embedding_size=6, levels=2, width=8, num_classes=2
)


@pytest.mark.parametrize("name", ["fcos-tiny", "fcos-shapes"])
def test_the_entry_says_what_is_built(name: str) -> None:
    architecture, entry = get(name)
    module = architecture.build(architecture.config(**(entry.config or {})))
    assert sum(p.size for p in module.parameters()) == entry.parameters


def test_places_answer_for_what_they_lie_in() -> None:
    places = np.array([[4, 4, 8], [12, 12, 8], [20, 20, 8], [8, 8, 16], [24, 24, 16.0]])
    small = Boxes([[8, 8, 16, 16]], [0])
    assert owner_of(places, small, TINY).tolist() == [-1, 0, -1, -1, -1]
    both = Boxes([[0, 0, 40, 40], [8, 8, 24, 24]], [0, 1])
    assert owner_of(places, both, TINY)[1] == 1  # the smaller of two
    assert owner_of(places, Boxes([], []), TINY).tolist() == [-1] * 5
    large = Boxes([[0, 0, 200, 200]], [0])
    far = np.array([[100, 100, 8], [104, 104, 16], [8, 8, 16.0]])
    assert owner_of(far, large, TINY).tolist() == [-1, 0, -1]


def test_training_moves_the_answer_to_the_truth() -> None:
    bt.manual_seed(0)
    module = FCOS(TINY).train()
    pixels = np.zeros((4, 3, 64, 64), np.float32)
    truth = []
    for i, (x, y) in enumerate([(8, 8), (30, 12), (10, 34), (36, 36)]):
        pixels[i, i % 2, y : y + 20, x : x + 16] = 3
        truth.append(Boxes([[x, y, x + 16, y + 20]], [i % 2]))
    x, sizes = bt.tensor(pixels), [(64, 64)] * 4
    optimizer = bt.optim.AdamW(module.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        loss, figures = module.loss(x, None, truth, sizes)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]
    assert set(figures) == {"class", "giou", "centre"}
    found = module.found(module(x), sizes)
    for boxes, wanted in zip(found, truth, strict=True):
        assert boxes.labels[0] == wanted.labels[0]
        assert np.abs(boxes.boxes[0] - wanted.boxes[0]).max() < 6


def test_pictures_without_objects_train_too() -> None:
    module = FCOS(TINY).train()
    loss, _ = module.loss(bt.zeros((2, 3, 32, 32)), None, [Boxes([], [])] * 2, [(32, 32)] * 2)
    loss.backward()
    assert np.isfinite(loss.item())


def test_saved_and_loaded(tmp_path: Path) -> None:
    task = load("fcos-tiny", weights=False, num_classes=2)
    again = load(task.save(tmp_path))
    x = bt.tensor(np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32))
    np.testing.assert_array_equal(again.module(x).logits.array, task.module(x).logits.array)
    with pytest.raises(ConfigError, match="levels"):
        Config(levels=5)


def test_the_bundled_model_finds_shapes_that_it_never_saw(tmp_path: Path) -> None:
    model = load("fcos-shapes")
    assert model.labels == list(SHAPES)
    report = model.evaluate(write_shapes(tmp_path, 40, seed=7))
    assert report.ap > 0.7
    assert report.ap50 > 0.9


# -- fine-tuning -----------------------------------------------------------------------------------


def tiny_task(classes: int = 5) -> Detector:
    bt.manual_seed(1)
    task = load("fcos-tiny", weights=False, num_classes=classes)
    task.config = Config(
        depths=(1, 1), hidden_sizes=(12, 24), embedding_size=8, levels=1, width=24,
        num_classes=classes,
    )  # fmt: skip
    task.module = FCOS(task.config).eval()
    task.preprocess = task.preprocess.with_size((64, 64))
    return task


def test_a_detector_learns_shapes_from_nothing(tmp_path: Path) -> None:
    """A small version of what docs/detection.md reports."""
    data = write_shapes(tmp_path / "data", 72, size=64, most=2)
    task = tiny_task()
    before = [p.array.copy() for p in task.module.parameters()]
    new = task.finetune(
        data, out=tmp_path / "out", epochs=20, batch_size=8, lr=1e-2, jitter=0.0,
        smallest_crop=1.0, quiet=True,
    )  # fmt: skip
    assert new.labels == list(SHAPES)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["ap50"] > 0.15
    assert report["history"][0]["loss"] > 1.2 * report["history"][-1]["loss"]
    assert "58 trained on, 14 held out" in new.card.training["pictures"]
    for old, parameter in zip(before, task.module.parameters(), strict=True):
        np.testing.assert_array_equal(old, parameter.array)  # the given task is as it was
    again = load(tmp_path / "out")
    picture = tmp_path / "data" / "00001.png"
    assert again(picture, threshold=0.05) == new(picture, threshold=0.05)
    for name in ("learning_curve.png", "examples.png", "README.md"):
        assert (tmp_path / "out" / name).is_file()


@pytest.mark.parametrize("folder", ["detr-timm", "yolos-transformers"])
def test_published_detectors_are_taught_other_classes(
    folder: str, references: Path, tmp_path: Path
) -> None:
    data = write_shapes(tmp_path, 6, size=48, most=2)
    task = load(references / folder)
    new = task.finetune(data, epochs=2, batch_size=3, lr=1e-3, quiet=True)
    assert new.labels == list(SHAPES)
    assert new.module.config.num_classes == 3
    assert len(task.labels) == 5
    state, trained = task.module.state_dict(), new.module.state_dict()
    frozen = [n for n in state if "running_" in n]
    assert all(np.array_equal(state[n].array, trained[n].array) for n in frozen)
    changed = [n for n in state if state[n].shape == trained[n].shape and n not in frozen]
    assert sum(not np.array_equal(state[n].array, trained[n].array) for n in changed) > 10
    load(new.save(tmp_path / "out"))


def test_data_is_checked_before_anything_is_trained(tmp_path: Path) -> None:
    data = write_shapes(tmp_path, 6, size=48)
    content = json.loads(data.read_text())
    content["annotations"][0]["bbox"][2] = 0
    data.write_text(json.dumps(content))
    with pytest.raises(DataError, match="no area"):
        tiny_task().finetune(data, epochs=1, quiet=True)
    (tmp_path / "00003.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"00003\.png"):
        tiny_task().finetune(data, epochs=1, quiet=True, bad_boxes="skip")
    content["images"] = content["images"][:1]
    content["annotations"] = [a for a in content["annotations"][1:] if a["image_id"] == 1]
    content["annotations"].append({**content["annotations"][-1], "id": 99}) if content[
        "annotations"
    ] else None
    data.write_text(json.dumps(content))
    with pytest.raises(DataError, match="single"):
        tiny_task().finetune(data, epochs=1, quiet=True)
    for settings in ({"epochs": 0}, {"held_out": 1.0}, {"lr": 0.0}):
        with pytest.raises(ConfigError):
            tiny_task().finetune(data, quiet=True, **settings)


def test_a_folder_that_cannot_be_written_is_told_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_shapes(tmp_path / "data", 6, size=48)
    monkeypatch.setattr("bestiary.vision.detection_finetune._with_head", None)  # not to be called
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match=r"nothing can be saved in .*file"):
        tiny_task().finetune(data, out=tmp_path / "file", quiet=True)


def test_classes_without_a_box_to_learn_from(tmp_path: Path) -> None:
    data = write_shapes(tmp_path, 8, size=48)
    content = json.loads(data.read_text())
    content["categories"].append({"id": 4, "name": "star"})
    data.write_text(json.dumps(content))
    with pytest.raises(DataError, match="nothing to train star on"):
        tiny_task().finetune(data, epochs=1, quiet=True)

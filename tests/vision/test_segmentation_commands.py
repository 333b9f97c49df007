"""Segmenters on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import bestiary as bt
from bestiary.hub.cli import cli
from bestiary.vision.generated import SHAPES, write_masks

MODEL = str(Path(__file__).parent.parent / "references" / "data" / "segformer-transformers")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_masks(tmp_path / "data", 4, size=48, seed=3)


def said(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_predict_writes_classes_and_pictures(data: Path, tmp_path: Path) -> None:
    masks, drawn = tmp_path / "masks", tmp_path / "drawn"
    first = data / "images" / "00001.png"
    again = write_masks(tmp_path / "other", 1, size=48) / "images"
    folders = (data / "images", again, first)  # the last is in the first
    text = said("predict", MODEL, *folders, "--masks", masks, "--draw", drawn)
    assert text.count(".png\n") == 5
    assert "%  kind " in text
    names = [f"0000{i}.png" for i in (1, 2, 3, 4)]
    assert {p.name for p in masks.iterdir()} == {*names, "00001-4.png"}
    assert {p.name for p in drawn.iterdir()} == {*names, "00001-4.png"}
    with Image.open(masks / "00001.png") as image:
        np.testing.assert_array_equal(np.asarray(image), bt.load(MODEL)(first).classes)


def test_predict_as_json(data: Path) -> None:
    first = data / "images" / "00001.png"
    found = json.loads(said("predict", MODEL, first, "--json"))
    assert sum(row["share"] for row in found[str(first)]) == pytest.approx(1)
    one = said("predict", MODEL, first, "--top", 1)
    assert len(one.splitlines()) == 2


@pytest.mark.parametrize("option", [("--labels", "a"), ("--threshold", "0.5"), ("--coco", "x")])
def test_options_of_other_tasks_are_refused(data: Path, option: tuple[str, str]) -> None:
    text = said("predict", MODEL, data / "images", *option, code=2)
    assert option[0] in text


def test_masks_are_for_segmenters(data: Path, tmp_path: Path) -> None:
    model = Path(MODEL).parent / "resnet-timm-basic"
    text = said("predict", model, data / "images", "--masks", tmp_path / "masks", code=2)
    assert "--masks" in text
    assert not (tmp_path / "masks").exists()


def test_finetune_and_evaluate(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = ("--epochs", 1, "--batch-size", 2, "--no-flip", "--json")
    found = json.loads(said("finetune", MODEL, data, "-o", out, *settings))
    assert found["labels"] == ["background", *SHAPES]
    assert "mean IoU on the held-out pictures" in found["training"]
    report = json.loads(said("evaluate", out, data, "--json"))
    assert report["pictures"] == 4
    assert set(report["classes"]) == {"background", *SHAPES}
    assert "mean IoU" in said("evaluate", out, data)
    said("finetune", MODEL, data, "--head-epochs", 3, code=2)

"""Detectors from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bestiary.hub.cli import _run
from bestiary.vision.detection_sets import detection_data
from bestiary.vision.generated import write_shapes

DATA = Path(__file__).parent.parent / "references" / "data"
MODEL = str(DATA / "yolos-transformers")
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command: exit code, and what it printed or, where it failed, complained."""

    def command(*arguments: object) -> tuple[int, str]:
        code = _run([str(a) for a in arguments])
        said = capfd.readouterr()
        return code, said.err if code else said.out

    return command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shapes(tmp_path / "data", 6, size=64)
    return tmp_path / "data"


def test_predict(run: Run, folder: Path, tmp_path: Path) -> None:
    code, text = run("predict", MODEL, folder / "00001.png", "--threshold", 0)
    assert code == 0
    assert text.startswith(str(folder / "00001.png"))
    assert "%  kind " in text
    found, drawn = tmp_path / "found.json", tmp_path / "drawn"
    code, text = run(
        "predict", MODEL, folder, "--threshold", 0, "--draw", drawn, "--coco", found, "--json"
    )
    assert code == 0
    answers = json.loads(text[text.index("{") :])
    assert len(answers) == 6
    assert set(answers[str(folder / "00001.png")][0]) == {"label", "score", "box"}
    assert len(list(drawn.glob("*.png"))) == 6
    with Image.open(drawn / "00001.png") as image:
        assert image.size == (64, 64)
    content = json.loads(found.read_text())
    assert len(content["annotations"]) == sum(map(len, answers.values()))
    assert detection_data(found, bad_boxes="skip").labels[0] == "kind 0"


def test_options_of_detectors_alone(run: Run, folder: Path) -> None:
    code, text = run("predict", DATA / "resnet-timm-basic", folder, "--draw", folder)
    assert code == 2
    assert "finds no boxes" in text
    code, text = run("finetune", MODEL, folder, "--head-epochs", 3)
    assert code == 2
    assert "no --head-epochs" in text


def test_finetune_and_evaluate(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, text = run("finetune", MODEL, folder, "-o", out, "--epochs", 1, "--json")
    assert code == 0
    result = json.loads(text[text.index("{") :])
    assert result["labels"] == ["circle", "square", "triangle"]
    code, text = run("evaluate", out, folder)
    assert code == 0
    assert text.splitlines()[-3].split()[0] == "circle"
    code, text = run("evaluate", out, folder, "--json")
    assert set(json.loads(text[text.index("{") :])["classes"]) == {"circle", "square", "triangle"}
    code, text = run("finetune", "fcos-tiny", folder, "-o", out, "--epochs", 1, "--untrained")
    assert code == 0
    assert text.strip().endswith(str(out))

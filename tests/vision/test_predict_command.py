"""`bestiary predict` on pictures: CSV, files that cannot be read, answers as they come."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.errors import ConfigError
from bestiary.hub.cli import _run
from bestiary.hub.commands import answers
from bestiary.vision.image_task import ImageTask

DATA = Path(__file__).parent.parent / "references" / "data"
CLASSIFIER = "resnet-timm-basic"
MODELS = {
    CLASSIFIER: "path label score",
    "clip-transformers": "path label score",
    "yolos-transformers": "path label score left upper right lower",
    "segformer-transformers": "path label share",
    "depth-anything-transformers": "path least most metres",
}
GOOD = [f"{i}.png" for i in range(5)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures, two damaged ones between them, and a HEIC photograph."""
    path = tmp_path / "photos"
    path.mkdir()
    for i, name in enumerate(GOOD):
        pixels = np.random.default_rng(i).integers(0, 256, (30 + i % 2, 40, 3), np.uint8)
        Image.fromarray(pixels).save(path / name)
    (path / "1-damaged.png").write_bytes((path / "1.png").read_bytes()[:200])
    (path / "2-none.jpg").write_bytes(b"no picture")
    (path / "3-phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    return path


def extra(model: str) -> list[str]:
    """What some models cannot do without."""
    return {"clip-transformers": ["--labels", "cat,large dog"]}.get(model, [])


@pytest.mark.parametrize("model", MODELS)
def test_bad_pictures_do_not_stop_the_others(
    model: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "new" / "found.csv"
    arguments = ["predict", str(DATA / model), str(folder), "--csv", str(table), *extra(model)]
    if model == "yolos-transformers":
        arguments += ["--threshold", "0", "--coco", str(tmp_path / "coco.json")]
    assert _run([*arguments, "--json"]) == 1
    said = capfd.readouterr()
    found = json.loads(said.out)
    assert list(found) == [str(folder / name) for name in GOOD]
    assert said.err.count("error: ") == 3
    for name in ("1-damaged.png", "2-none.jpg", "3-phone.heic"):
        assert name in said.err
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == MODELS[model].split()
    assert list(dict.fromkeys(row["path"] for row in rows)) == list(found)
    if model.startswith("depth"):
        assert float(rows[1]["most"]) == found[rows[1]["path"]]["most"]
        assert rows[0]["metres"] == "false"
    else:
        last = found[str(folder / "4.png")]
        own = [row for row in rows if row["path"].endswith("4.png")]
        assert [row["label"] for row in own] == [a["label"] for a in last]
        if "upper" in rows[0]:
            assert float(own[0]["upper"]) == last[0]["box"][1]
            assert len(json.loads((tmp_path / "coco.json").read_text())["images"]) == 5

    capfd.readouterr()
    assert _run(arguments) == 1
    lines = capfd.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == list(found)


def test_answers_are_those_of_each_picture_alone(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _run(["predict", str(DATA / CLASSIFIER), str(folder), "--json", "--top", "2"])
    found = json.loads(capfd.readouterr().out)
    model = bt.load(DATA / CLASSIFIER)
    for name in GOOD:
        one = model(folder / name, top=2)
        assert [a["label"] for a in found[str(folder / name)]] == [a["label"] for a in one]
        assert found[str(folder / name)][0]["score"] == pytest.approx(one[0]["score"], rel=1e-5)


def test_answers_come_before_all_pictures_are_read(folder: Path) -> None:
    taken: list[int] = []
    bad: list[Any] = []

    def pictures() -> Any:
        for i in range(40):
            taken.append(i)
            yield folder / ("2-none.jpg" if i == 3 else "0.png")

    model: ImageTask = bt.load(DATA / CLASSIFIER)
    stream = model.each(pictures(), unreadable=lambda p, error: bad.append((p, error)), top=1)
    first, _ = next(stream)
    assert first == folder / "0.png"
    assert len(taken) < 40
    assert len(list(stream)) == 38
    assert [(p.name, "2-none.jpg" in str(e)) for p, e in bad] == [("2-none.jpg", True)]
    assert list(model.each([folder / "2-none.jpg"] * 20, unreadable=lambda *_: None)) == []
    with pytest.raises(ConfigError):
        next(model.each([folder / "0.png"], unreadable=lambda *_: None, top=0))


def test_all_good_is_zero(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = [str(folder / "0.png"), str(folder / "1.png")]
    assert _run(["predict", str(DATA / CLASSIFIER), *files]) == 0
    assert capfd.readouterr().err == ""


def test_inputs_that_are_not_there(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, empty = str(DATA / CLASSIFIER), tmp_path / "empty"
    assert _run(["predict", model, str(folder), "none.png"]) == 2
    assert "there is no picture or folder 'none.png'" in capfd.readouterr().err
    empty.mkdir()
    assert _run(["predict", model, str(empty), str(folder / "0.png"), "--json"]) == 1
    said = capfd.readouterr()
    assert "holds no pictures" in said.err
    assert len(json.loads(said.out)) == 1
    assert _run(["predict", model]) == 2
    assert "INPUT" in capfd.readouterr().err


def test_what_predict_does_not_run(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for model, task in (
        ("dinov2-transformers", "image-feature-extraction"),
        ("gpt2-transformers", "text-generation"),
    ):
        assert _run(["predict", str(DATA / model), str(folder)]) == 1
        assert task in capfd.readouterr().err


def test_a_failure_leaves_no_part_of_a_table(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="other"),
        answers.Answers(True, tmp_path / "t.csv", ["path"]) as found,
    ):
        found.add("a", [], [], [{"path": "a", "other": 1}])
    assert list(tmp_path.iterdir()) == []


def test_lines_stand_above_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tqdm import tqdm

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with tqdm(total=2, file=sys.stderr, mininterval=0, ncols=40) as bar:
        answers.say("an answer")
        answers.complain("a fault")
        bar.update(1)
    said = capsys.readouterr()
    assert said.out == "an answer\n"
    assert "error: a fault\n" in said.err

"""`bestiary tour`: what it shows, with and without the starter weights."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from bestiary.hub.cli import _run
from bestiary.hub.commands import tour


@pytest.fixture(autouse=True)
def nothing_but_bundled(monkeypatch):
    monkeypatch.setattr(tour, "installed_file", lambda source: None)
    monkeypatch.setattr(tour, "cached_file", lambda source: None)


def test_the_bundled_model_answers_where_it_can(capfd):
    assert _run(["tour", "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    (row,) = said["models"]
    assert row["model"] == "resnet-cifar10"
    answers = {name: answer["label"] for name, answer in row["answers"].items()}
    assert answers == {"cat.jpg": "cat", "dog.jpg": "dog"}
    assert "bestiary[starter]" in said["left_out"][0]


def test_in_words_and_as_a_contact_sheet(capfd, tmp_path):
    sheet = tmp_path / "sheet.png"
    assert _run(["tour", "--out", str(sheet)]) == 0
    said = capfd.readouterr().out
    assert "left out: efficientnet-lite0" in said
    assert "it knows airplane, automobile" in said
    assert "▀" not in said  # no terminal, no pictures in it
    with Image.open(sheet) as image:
        assert image.width > 300


def test_models_without_a_head_are_left_alone(monkeypatch):
    monkeypatch.setattr(tour, "cached_file", lambda source: "here")
    names, _ = tour._models()
    assert "efficientnet-lite0" in names
    assert "mobilenetv2-trunk" not in names  # loads as an embedder, which has no labels

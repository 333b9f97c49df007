"""Licences are shown where they restrict, once, and can be asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import bestiary as bt
from bestiary.hub.card import Card
from bestiary.hub.licences import front_matter, notice, permits_commercial
from bestiary.hub.registry import entries

MODEL = Path(__file__).parents[1] / "references" / "data" / "resnet-transformers-bottleneck"


@pytest.mark.parametrize(
    "name, permitted",
    [
        ("apache-2.0", True),
        ("Apache-2.0", True),
        ("MIT", True),
        ("CC_BY_4.0", True),
        ("gpl-3.0", True),
        ("cc-by-nc-4.0", False),
        ("CC-BY-NC-SA-4.0", False),
        ("apple-amlr-research-only", False),
        ("some non-commercial terms", False),
        ("llama3.1", None),  # conditions of its own
        ("gemma", None),
        ("other", None),
        ("incense-1.0", None),  # "nc" within a word is none
        ("", None),
        (None, None),
    ],
)
def test_what_a_licence_permits(name, permitted):
    assert permits_commercial(name) is permitted


def test_front_matter(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(
        "---\r\nlicense: cc-by-nc-4.0\r\ntags:\r\n- vision\r\nname: 'quoted'\r\n"
        "extra_gated_fields:\r\n  Name: text\r\n---\r\n\r\nlicense: mit\r\n"
    )
    assert front_matter(readme) == {
        "license": "cc-by-nc-4.0",
        "tags": "",
        "name": "quoted",
        "extra_gated_fields": "",
    }
    readme.write_text("# No section\nlicense: mit\n---\n")
    assert front_matter(readme) == {}
    readme.write_bytes(b"---\nlicense: \xff\xfe\n---\n")
    assert set(front_matter(readme)) == {"license"}
    assert front_matter(tmp_path / "none.md") == {}


def test_what_is_said():
    def card(**facts) -> Card:
        return Card(name="m", architecture="resnet", task="image-classification", **facts)

    assert notice(card(license="mit", commercial=True)) is None
    assert notice(card()) is None
    text = notice(card(license="cc-by-nc-4.0", commercial=False, source="https://x/y"))
    assert text == "m: its licence, cc-by-nc-4.0, does not permit commercial use (https://x/y)"
    assert "agreement" in notice(card(license="llama3", gated=True))


@pytest.fixture
def repository(serve, own_cache, tmp_path):
    folder = tmp_path / "repository"
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("reference.safetensors"))

    def publish(readme: str) -> None:
        (folder / "README.md").write_text(readme)
        hub = serve({"zoo/small": folder})
        bt.configure(endpoint=hub.url)

    return publish


def test_shown_at_the_first_load_only(repository, capsys):
    repository("---\nlicense: cc-by-nc-4.0\n---\n")
    model = bt.load("zoo/small")
    said = capsys.readouterr().err
    assert "zoo/small: its licence, cc-by-nc-4.0, does not permit commercial use" in said
    assert (model.card.license, model.card.commercial) == ("cc-by-nc-4.0", False)
    bt.load("zoo/small")
    assert capsys.readouterr().err == ""


def test_repositories_of_curated_models_need_not_say_it(serve, own_cache, tmp_path, capsys):
    name = "nvidia/segformer-b0-finetuned-ade-512-512"
    folder = tmp_path / "repository"
    shutil.copytree(MODEL.parent / "segformer-transformers", folder)
    (folder / "reference.safetensors").unlink()
    (folder / "README.md").write_text("---\nlicense: other\n---\n")
    bt.configure(endpoint=serve({name: folder}).url)
    model = bt.load(name)
    assert model.card.commercial is False
    assert "does not permit commercial use" in capsys.readouterr().err


def test_gated_models_say_so(repository, capsys):
    repository("---\nlicense: llama3\nextra_gated_prompt: Agree\n---\n")
    assert bt.load("zoo/small").card.gated
    assert "agreement to its licence, llama3" in capsys.readouterr().err


def test_licences_of_their_own_are_named(repository, capsys):
    repository("---\nlicense: other\nlicense_name: acme-nc-1\n---\n")
    card = bt.load("zoo/small").card
    assert card.license == "acme-nc-1" and card.commercial is False
    assert "acme-nc-1" in capsys.readouterr().err


def test_free_models_say_nothing(repository, capsys):
    repository("---\nlicense: mit\n---\n")
    assert bt.load("zoo/small").card.commercial is True
    assert capsys.readouterr().err == ""


def test_a_home_that_cannot_be_written(repository, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BESTIARY_HOME", str(tmp_path / "file"))
    repository("---\nlicense: cc-by-nc-4.0\n---\n")
    for _ in range(2):
        bt.load("zoo/small")
        assert "does not permit" in capsys.readouterr().err


def test_the_licence_goes_with_what_was_made_of_it(repository, tmp_path):
    repository("---\nlicense: cc-by-nc-4.0\n---\n")
    folder = bt.load("zoo/small", num_classes=2).save(tmp_path / "mine")
    assert bt.load(folder).card.commercial is False
    assert front_matter(folder / "README.md")["license"] == "cc-by-nc-4.0"
    assert json.loads((folder / "config.json").read_text())["bestiary"]["card"]["gated"] is False


def test_asked_for_by_name():
    free, restricted = bt.list_models(commercial=True), bt.list_models(commercial=False)
    assert "resnet50" in free and not set(free) & set(restricted)
    for _, entry in entries():
        known = permits_commercial(entry.license)
        if entry.commercial is not None and known is not None:
            assert entry.commercial is known, entry.name

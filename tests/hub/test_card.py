"""Model cards: read by people, by the hub, and by us."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bestiary as bt
from bestiary.hub.card import Card, card_of
from bestiary.hub.licences import front_matter, hub_license
from bestiary.hub.registry import entries, get

MODEL = Path(__file__).parents[1] / "references" / "data" / "resnet-timm-basic"


def card(**facts) -> Card:
    return Card(name="widgets", architecture="resnet", task="image-classification", **facts)


def parsed(text: str):
    from huggingface_hub import ModelCard

    return ModelCard(text).data


def test_what_people_read():
    text = card(
        license="CC-BY-NC-4.0",
        commercial=False,
        parameters=1234567,
        source="https://huggingface.co/acme/base",
        data="2,000 photographs of widgets",
        results=[{"name": "accuracy", "value": 0.935, "dataset": "widgets", "split": "test"}],
        training={"epochs": 5},
    ).markdown()
    for fact in (
        "# widgets",
        "- Licence: CC-BY-NC-4.0 (does not permit commercial use)",
        "- Parameters: 1,234,567",
        "- Weights from: https://huggingface.co/acme/base",
        "| accuracy | 0.935 | widgets, test | measured here |",
        "## Data\n\n2,000 photographs of widgets",
        "- epochs: 5",
        "bt.load(",
    ):
        assert fact in text, fact


def test_what_the_hub_reads():
    data = parsed(
        card(
            license="Apache-2.0",
            source="https://huggingface.co/acme/base",
            results=[{"name": "% top-1", "value": 80.4, "dataset": "ImageNet-1k validation"}],
        ).markdown()
    )
    assert data.license == "apache-2.0" and data.library_name == "bestiary"
    assert data.pipeline_tag == "image-classification" and data.base_model == "acme/base"
    assert data.tags == ["bestiary", "resnet"]
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("% top-1", 80.4)
    assert result.dataset_name == "ImageNet-1k validation"


@pytest.mark.parametrize(
    "name",
    ["quotes \" and ' and: colons", "---\nlicense: mit\n---", "#", "- x", "über 模型", "a\tb"],
)
def test_names_that_try_to_be_something_else(name, tmp_path):
    text = Card(
        name=name,
        architecture=name,
        task="image-classification",
        license="gpl-3.0",
        results=[{"name": name, "value": 1.0, "dataset": name}],
    ).markdown()
    data = parsed(text)
    assert data.license == "gpl-3.0" and data.tags == ["bestiary", " ".join(name.split())]
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert front_matter(tmp_path / "README.md")["license"] == "gpl-3.0"


@pytest.mark.parametrize(
    "license, expected",
    [
        (None, ("unknown", None)),
        ("Apache-2.0", ("apache-2.0", None)),
        ("CC-BY-NC-SA-4.0", ("cc-by-nc-sa-4.0", None)),
        ("llama3.1", ("llama3.1", None)),
        ("Acme Research License", ("other", "Acme Research License")),
    ],
)
def test_licences_as_the_hub_writes_them(license, expected):
    assert hub_license(license) == expected


def test_cards_of_every_curated_model_are_read_by_the_hub():
    for architecture, entry in entries():
        made = card_of(architecture, entry, entry.name)
        data = parsed(made.markdown())
        assert data.pipeline_tag == (entry.task or architecture.task)
        if entry.metric is not None:
            assert data.eval_results[0].metric_value == entry.metric.value


def test_a_saved_card_comes_back(tmp_path):
    model = bt.load(MODEL)
    model.card.license, model.card.data = "MIT", "a few pictures"
    model.card.results = [{"name": "accuracy", "value": 0.5, "dataset": "a few pictures"}]
    folder = model.save(tmp_path)
    again = bt.load(folder).card
    assert (again.license, again.data, again.results) == (
        "MIT",
        "a few pictures",
        model.card.results,
    )
    assert again.parameters == sum(p.size for p in model.module.parameters())
    assert model.card.parameters is None  # the model's own card is left alone
    assert json.loads((folder / "config.json").read_text())["bestiary"]["card"]["license"] == "MIT"


def test_published_results_have_their_source():
    architecture, entry = get("resnet50")
    text = card_of(architecture, entry, entry.name).markdown()
    assert f"| % top-1 | {entry.metric.value:g} | ImageNet-1k validation, at 224 pixels |" in text
    assert entry.metric.source in text

"""Absurd configurations are refused before anything is allocated (TESTPLAN 17)."""

from __future__ import annotations

import json
import shutil
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError
from bestiary.core.weights import TensorInfo
from bestiary.hub import limits, registry
from bestiary.hub.card import Card
from bestiary.hub.saving import save_model

DATA = Path(__file__).parents[1] / "references" / "data"
TIMM = DATA / "resnet-timm-basic"


@dataclass(frozen=True)
class Config:
    """An architecture that checks nothing by itself."""

    hidden: int = 8
    layers: int = 2
    vocabulary: int = 20
    num_classes: int = 3


class Net(bt.nn.Module):
    def __init__(self, config: Config) -> None:
        self.embedding = bt.nn.Embedding(config.vocabulary, config.hidden)
        hidden = config.hidden
        self.layers = bt.nn.ModuleList(bt.nn.Linear(hidden, hidden) for _ in range(config.layers))
        self.head = bt.nn.Linear(hidden, config.num_classes)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A folder with such a model, whose configuration is then changed."""
    monkeypatch.setattr(registry, "_architectures", dict(registry._architectures))
    registry.register("careless", config=Config, task="image-classification", head=("head",))(Net)

    def save(**changes: int) -> Path:
        card = Card(name="careless", architecture="careless", task="image-classification")
        folder = save_model(
            tmp_path, Net(Config()), architecture="careless", config=Config(), card=card
        )
        config = json.loads((folder / "config.json").read_text())
        config["bestiary"]["config"].update(changes)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return save


CASES = [
    ({"hidden": 10**9}, "hidden=1000000000"),
    ({"vocabulary": 10**12}, "vocabulary=1000000000000"),
    ({"vocabulary": 6 * 10**7}, "numbers"),
    ({"layers": 10**6}, "tensors"),
    ({"num_classes": 5 * 10**7}, "numbers"),
]


@pytest.mark.parametrize("changes, fact", CASES, ids=str)
def test_absurd_sizes_are_refused_at_once(changes, fact, saved):
    start = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        bt.load(saved(**changes))
    assert time.perf_counter() - start < 5
    text = str(caught.value)
    assert fact in text and "its weights hold" in text and "331 numbers" in text
    assert "Nothing was allocated" in text and len(text.splitlines()) <= 12


@pytest.mark.parametrize("changes, fact", [*CASES[:2], ({"hidden": 6 * 10**7}, "memory")], ids=str)
def test_untrained_models_fit_into_the_machine(changes, fact, saved):
    with pytest.raises(ConfigError, match=fact):
        bt.load(saved(**changes), weights=False)


def test_memory_stays_small(saved):
    folder = saved(vocabulary=6 * 10**7)
    tracemalloc.start()
    with pytest.raises(ConfigError):
        bt.load(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2**20


def test_what_the_caller_asks_for_is_no_absurdity():
    assert len(bt.load(TIMM, num_classes=3000).labels) == 3000
    assert bt.load(TIMM, in_channels=40).report.replaced


def test_a_long_configuration_is_not_read(tmp_path, monkeypatch):
    shutil.copytree(TIMM, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(limits, "MAX_CONFIG_BYTES", 100)
    with pytest.raises(ConfigError, match="less than 100"):
        bt.load(tmp_path)


def test_budget_counts():
    infos = {"a": TensorInfo(bt.float32, (10, 20)), "b": TensorInfo(bt.float32, ())}
    budget = limits.budget_for("it", infos)
    assert budget.elements == 4 * 201 + limits._SPARE_ELEMENTS
    budget.take((budget.elements,))
    with pytest.raises(ConfigError, match="more than"):
        budget.take((1,))
    tensors = limits.Budget("it", 10, 2, "so")
    tensors.take(())
    tensors.take((2, 3))
    with pytest.raises(ConfigError, match="more than 2 tensors"):
        tensors.take((1,))


def test_every_place_that_makes_parameters_asks():
    """A layer that allocates by itself would be outside the budget."""

    class Refuses:
        def take(self, shape):
            raise MemoryError(shape)

    layers = (
        lambda: bt.nn.Linear(2, 3),
        lambda: bt.nn.Conv2d(2, 3, 1),
        lambda: bt.nn.Embedding(4, 2),
        lambda: bt.nn.LayerNorm(4),
        lambda: bt.nn.BatchNorm2d(4),
        lambda: bt.nn.GroupNorm(2, 4),
        lambda: bt.nn.MultiheadAttention(4, 2),
        lambda: bt.nn.LSTM(4, 2),
    )
    for make in layers:
        with pytest.raises(MemoryError), bt.nn.init.limited(Refuses()):
            make()
        make()  # and not when the block has ended

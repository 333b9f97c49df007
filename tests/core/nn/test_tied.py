"""Parameters under two names: files hold them once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bestiary as bt
from bestiary import nn
from bestiary.core.errors import WeightsError


class Tied(nn.Module):
    """A table of vectors that is the last layer too, as language models have it."""

    def __init__(self) -> None:
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize("name", ["embed.weight", "head.weight"])
@pytest.mark.parametrize("assign", [False, True])
def test_either_name_loads_both(name: str, assign: bool) -> None:
    module, table = Tied(), np.arange(15, dtype=np.float32).reshape(5, 3)
    module.load_state_dict({name: table}, assign=assign)
    assert np.array_equal(module.embed.weight.array, table)
    assert module.head.weight is module.embed.weight


def test_neither_name_is_an_error() -> None:
    with pytest.raises(WeightsError, match=r"embed\.weight"):
        Tied().load_state_dict({})


def test_both_names_are_in_the_state_and_one_parameter_is_trained() -> None:
    module = Tied()
    assert set(module.state_dict()) == {"embed.weight", "head.weight"}
    assert len(list(module.parameters())) == 1


def test_files_hold_it_once(tmp_path: Path) -> None:
    from dataclasses import dataclass

    from bestiary.hub.card import Card
    from bestiary.hub.saving import save_model

    @dataclass(frozen=True)
    class Config:
        """Nothing to configure."""

    module = Tied()
    card = Card(name="tied", architecture="tied-test", task="text-generation")
    save_model(tmp_path, module, architecture="tied-test", config=Config(), card=card)
    state = bt.weights.load(tmp_path / "model.safetensors")
    assert list(state) == ["embed.weight"]
    other = Tied()
    other.load_state_dict(state)
    assert np.array_equal(other.head.weight.array, module.embed.weight.array)

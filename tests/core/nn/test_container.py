"""Sequential, ModuleList, ModuleDict."""

from __future__ import annotations

from typing import Any

import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError

nn = bt.nn


class Add(nn.Module):
    def __init__(self, amount: float) -> None:
        self.amount = nn.Parameter([float(amount)])

    def forward(self, x: Any) -> Any:
        return x + self.amount


def amounts(container: Any) -> list[float]:
    return [module.amount.item() for module in container]


def test_sequential_runs_in_order():
    model = nn.Sequential(Add(1), Add(2))
    assert model(bt.tensor([0.0])).item() == 3.0
    assert list(model.state_dict()) == ["0.amount", "1.amount"]
    named = nn.Sequential({"conv": Add(1), "act": Add(2)})
    assert list(named.state_dict()) == ["conv.amount", "act.amount"]
    assert named.conv is named[0]
    assert len(named) == 2
    assert nn.Sequential()(5) == 5


def test_a_subclass_with_layers_of_its_own_is_torchs():
    class Block(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(Add(1))
            self.extra = Add(10)

    assert Block()(bt.tensor([0.0])).item() == 11.0
    assert list(Block().state_dict()) == ["0.amount", "extra.amount"]


def test_lists_change_like_lists():
    layers = nn.ModuleList([Add(0), Add(1)])
    layers.append(Add(2)).extend([Add(3), Add(4)])
    layers.insert(0, Add(-1))
    assert amounts(layers) == [-1, 0, 1, 2, 3, 4]
    assert list(layers.state_dict()) == [f"{i}.amount" for i in range(6)]
    layers[1] = Add(9)
    del layers[0]
    del layers[-1]
    assert amounts(layers) == [9, 1, 2, 3]
    assert list(layers.state_dict()) == [f"{i}.amount" for i in range(4)]
    assert amounts(layers[1:3]) == [1, 2]
    assert isinstance(layers[1:3], nn.ModuleList)
    assert layers[-1].amount.item() == 3
    more = layers + [Add(7)]  # noqa: RUF005
    assert amounts(more) == [9, 1, 2, 3, 7]
    with pytest.raises(IndexError):
        layers[4]
    assert not nn.ModuleList()


def test_sequential_slices_share_their_layers():
    model = nn.Sequential(Add(1), Add(2), Add(3))
    trunk = model[:-1]
    assert isinstance(trunk, nn.Sequential)
    assert trunk[1] is model[1]
    assert trunk(bt.tensor([0.0])).item() == 3.0


def test_dicts_change_like_dicts():
    table = nn.ModuleDict({"a": Add(1), "b": Add(2)})
    table["c"] = Add(3)
    table["a"] = Add(4)
    assert list(table) == list(table.keys()) == ["a", "b", "c"]
    assert amounts(table.values()) == [4, 2, 3]
    assert [k for k, _ in table.items()] == ["a", "b", "c"]
    assert "a" in table
    assert "z" not in table
    assert table.pop("b").amount.item() == 2
    del table["c"]
    assert len(table) == 1
    with pytest.raises(KeyError):
        table["c"]
    with pytest.raises(KeyError):
        del table["training"]


def test_mistakes_show_the_way():
    with pytest.raises(ConfigError, match=r"Make one of the class: Add\("):
        nn.Sequential(Add)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"nn\.ReLU\(\) for F\.relu"):
        nn.Sequential(lambda x: x)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Unpack it: Sequential\(\*modules\)"):
        nn.Sequential([Add(1)])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="got int"):
        nn.ModuleList([3])  # type: ignore[list-item]
    for name in ("", "_a", "a.b", "keys", "training"):
        with pytest.raises(ConfigError, match="cannot name a module"):
            nn.ModuleDict({name: Add(1)})

"""Low-rank adapters on layers of any kind of holder."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError
from bestiary.core.nn.lora import adapters
from bestiary.core.nn.quantized import QuantizedLinear


class Net(bt.nn.Module):
    def __init__(self) -> None:
        self.first = bt.nn.Linear(8, 16)
        self.blocks = bt.nn.ModuleList([bt.nn.Linear(16, 16), bt.nn.Linear(16, 16, bias=False)])
        self.plain = [bt.nn.Linear(16, 16)]
        self.named = {"out": bt.nn.Linear(16, 6)}
        self.head = bt.nn.Linear(6, 2)

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        x = self.first(x)
        for layer in (*self.blocks, *self.plain, self.named["out"]):
            x = layer(bt.nn.functional.relu(x))
        return self.head(x)


@pytest.fixture
def net() -> Net:
    bt.manual_seed(1)
    return Net()


def teach(net: bt.nn.Module, steps: int = 5) -> None:
    x, y = bt.random.normal((12, 8)), bt.random.normal((12, 2))
    optimizer = bt.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        loss = ((net(x) - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_nothing_changes_before_training_and_only_adapters_learn(net: Net) -> None:
    x = bt.random.normal((3, 8))
    before = net(x).detach().numpy()
    state = {n: p.detach().numpy().copy() for n, p in net.named_parameters()}
    paths = bt.nn.add_lora(net, bt.nn.LoRA(rank=2, heads=("head",)))
    assert paths == ["first", "blocks.0", "blocks.1", "plain.0", "named.out"]
    np.testing.assert_array_equal(net(x).detach().numpy(), before)
    trained = {n for n, p in net.named_parameters() if p.requires_grad}
    assert all(".lora_" in n or n.startswith("head.") for n in trained) and len(trained) == 12
    teach(net)
    for name, layer in adapters(net):
        kept = layer.base_layer.weight.detach().numpy()
        np.testing.assert_array_equal(kept, state[f"{name}.weight"])
        assert np.abs(layer.lora_B.weight.detach().numpy()).max() > 0
    assert np.abs(net(x).detach().numpy() - before).max() > 1e-3


def test_merging_keeps_the_outputs_and_removing_brings_the_old_ones(net: Net) -> None:
    x = bt.random.normal((3, 8))
    before = net(x).detach().numpy()
    bt.nn.add_lora(net, bt.nn.LoRA(rank=3, alpha=5, root=True))
    teach(net)
    adapted = net(x).detach().numpy()
    import copy

    merged = bt.nn.merge_lora(copy.deepcopy(net))
    np.testing.assert_allclose(merged(x).detach().numpy(), adapted, atol=1e-5)
    assert list(adapters(merged)) == [] and all(p.requires_grad for p in merged.parameters())
    assert list(merged.state_dict()) == list(Net().state_dict())
    bt.nn.remove_lora(net)
    np.testing.assert_array_equal(net(x).detach().numpy(), before)


def test_targets(net: Net) -> None:
    assert bt.nn.add_lora(net, bt.nn.LoRA(targets=("first", "1"))) == ["first", "blocks.1"]
    bt.nn.remove_lora(net)
    assert bt.nn.add_lora(net, bt.nn.LoRA(targets=r"blocks\.\d")) == ["blocks.0", "blocks.1"]
    bt.nn.remove_lora(net)
    how = bt.nn.LoRA(excluded=("head", "blocks"))
    assert bt.nn.add_lora(net, how) == ["first", "plain.0", "named.out"]
    with pytest.raises(ConfigError, match="has adapters already"):
        bt.nn.add_lora(net)
    bt.nn.remove_lora(net)
    with pytest.raises(ConfigError, match=r"'q_proj'.*\nThe module has: 0, 1, first, head, out"):
        bt.nn.add_lora(net, bt.nn.LoRA(targets=("q_proj",)))
    assert list(adapters(net)) == []


def test_scales_and_dropout(net: Net) -> None:
    assert bt.nn.LoRA(rank=4).scale == 2 and bt.nn.LoRA(rank=4, alpha=6).scale == 1.5
    assert bt.nn.LoRA(rank=4, alpha=6, root=True).scale == 3
    bt.nn.add_lora(net, bt.nn.LoRA(rank=4, dropout=0.5))
    for _, layer in adapters(net):
        bt.nn.init.normal_(layer.lora_B.weight)
    x = bt.random.normal((3, 8))
    assert np.abs(net(x).detach().numpy() - net(x).detach().numpy()).max() > 0
    net.eval()
    np.testing.assert_array_equal(net(x).detach().numpy(), net(x).detach().numpy())


def test_beside_weights_of_few_bits() -> None:
    bt.manual_seed(0)
    net = bt.nn.Sequential(bt.nn.Linear(64, 64), bt.nn.ReLU(), bt.nn.Linear(64, 64))
    bt.nn.quantize_(net, "int8")
    assert isinstance(net[0], QuantizedLinear)
    x = bt.random.normal((5, 64))
    before = net(x).detach().numpy()
    assert bt.nn.add_lora(net, bt.nn.LoRA(rank=2)) == ["0", "2"]
    optimizer = bt.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(20):
        loss = (net(x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    with pytest.raises(ConfigError, match="Load the model in float32"):
        bt.nn.merge_lora(net)
    assert len(list(adapters(net))) == 2
    bt.nn.remove_lora(net)
    np.testing.assert_array_equal(net(x).detach().numpy(), before)


@pytest.mark.parametrize(
    "change",
    [
        {"rank": 0},
        {"rank": 2.0},
        {"rank": True},
        {"alpha": 0},
        {"alpha": math.nan},
        {"dropout": 1},
        {"targets": ()},
    ],
)
def test_settings_that_make_no_sense(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        bt.nn.LoRA(**change)

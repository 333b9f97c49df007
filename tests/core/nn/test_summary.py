"""Shapes, parameters, FLOPs and memory of each layer."""

from __future__ import annotations

from typing import Any

import numpy as np

import bestiary as bt

nn = bt.nn


class Net(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.blocks = [nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU())]
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)
        self.head.requires_grad_(False)

    def forward(self, x: Any) -> Any:
        x = self.blocks[0](self.conv(x))
        return self.head(self.drop(self.flatten(self.pool(x))))


def test_every_column():
    model = Net()
    found = model.summary((2, 3, 10, 10))
    rows = {row.name: row for row in found.rows}
    assert rows["conv"].shape == (2, 8, 10, 10)
    assert rows["conv"].parameters == 216
    assert rows["conv"].flops == 2 * 2 * 8 * 100 * 27
    assert rows["conv"].output_bytes == 4 * 1600
    assert rows["blocks.0.0"].flops == 2 * 2 * 8 * 64 * 9
    assert rows["blocks.0"].flops == rows["blocks.0.0"].flops
    assert rows["head"].flops == 2 * 2 * 8 * 5
    assert rows["head"].shape == (2, 5)
    assert rows["blocks.0.0"].depth == 3
    assert (
        found.flops
        == rows[""].flops
        == sum(rows[name].flops for name in ("conv", "blocks.0.0", "head"))
    )
    assert found.parameters == 216 + 80 + 45
    assert found.trainable == 216 + 80
    assert found.parameter_bytes == 4 * found.parameters
    text = str(found)
    for part in ("conv: Conv2d", "(2, 8, 10, 10)", "216", "341 (296 trained)", "with Adam"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 100


def test_nothing_is_left_behind():
    model = Net()
    model.blocks[0].eval()
    model.summary((1, 3, 10, 10))
    assert model.training
    assert not model.blocks[0].training
    assert all(not m._pre_hooks and not m._post_hooks for m in model.modules())


def test_other_inputs_and_layers():
    model = nn.Sequential(
        nn.Embedding(10, 6), nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    )
    ids = np.zeros((2, 7), np.int64)
    found = model.summary(ids)
    rows = {row.name: row for row in found.rows}
    attention = 2 * 2 * 7 * 7 * 6 * 2  # scores and mixing
    projections = 2 * 2 * 7 * 6 * 18 + 2 * 2 * 7 * 6 * 6
    assert rows["1.self_attn"].flops == attention + projections
    assert model.summary(depth=1).rows[-1].name == "1"
    lstm = nn.LSTM(3, 4)
    assert lstm.summary((5, 2, 3)).flops == 2 * 5 * 2 * (3 * 16 + 4 * 16)
    up = nn.ConvTranspose2d(3, 4, 2)
    assert up.summary((1, 3, 5, 5)).flops == 2 * 3 * 25 * 4 * 4
    assert nn.Linear(3, 4).summary().flops == 0


def test_keyword_inputs_and_shared_layers():
    class Twice(nn.Module):
        def __init__(self) -> None:
            self.fc = nn.Linear(3, 3)

        def forward(self, pixel_values: Any) -> dict[str, Any]:
            return {"logits": self.fc(self.fc(pixel_values))}

    found = Twice().summary(pixel_values=(2, 3))
    row = found.rows[1]
    assert row.calls == 2
    assert row.flops == 2 * 2 * 2 * 9
    assert found.rows[0].shape == (2, 3)

"""A training step with everything that could go wrong, for the tests of graphs.

Dropout draws fresh random numbers, batch norm writes its statistics in place, the optimizer reads a
learning rate that may change, and gradients pass a convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import bestiary as bt
from bestiary import nn
from bestiary.core.nn import functional as F

Step = Callable[..., Any]


class Net(nn.Module):
    """Convolution, batch norm, dropout, a linear head."""

    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.4)
        self.out = nn.Linear(8, 5)

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        # Right after a convolution, the norm would leave its bias gradients of rounding errors.
        x = self.norm(F.relu(self.conv(x)))
        return self.out(self.drop(x.mean(axis=(2, 3))))


def training(optimizer_class: type, **settings: Any) -> tuple[Net, Any, Step]:
    """The same network each time, its optimizer, and a step of both."""
    bt.manual_seed(3)
    net = Net()
    optimizer = optimizer_class(net.parameters(), **settings)

    def step(x: bt.Tensor, y: bt.Tensor) -> bt.Tensor:
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return net, optimizer, step


def batches(count: int, size: int = 6) -> list[tuple[bt.Tensor, bt.Tensor]]:
    """Pictures and classes."""
    rng = np.random.default_rng(0)
    return [
        (
            bt.Tensor(rng.normal(size=(size, 3, 5, 4)).astype(np.float32)),
            bt.Tensor(rng.integers(0, 5, size)),
        )
        for _ in range(count)
    ]

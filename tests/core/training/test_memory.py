"""Long training does not grow (TESTPLAN 42), and the same seed gives the same bits (41)."""

from __future__ import annotations

import subprocess
import sys

import pytest

_TRAIN = """
import gc, os, sys
import numpy as np
import bestiary as bt
from bestiary import nn, optim
from bestiary.core.nn import functional as F

gc.disable()  # reference counting alone must do
bt.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1),
    nn.Linear(16 * 36, 10),
)
optimizer = optim.Adam(net.parameters(), lr=1e-3)
rng = np.random.default_rng(0)

def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

steps = int(sys.argv[1])
start = None
for step in range(steps):
    x = bt.Tensor(rng.normal(size=(8, 3, 8, 8)).astype(np.float32))
    loss = F.cross_entropy(net(x), bt.Tensor(rng.integers(0, 10, 8)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step == steps // 5:
        start = memory()
print(memory() / start, loss.item().hex())
"""


def train(steps: int) -> tuple[float, str]:
    done = subprocess.run(
        [sys.executable, "-c", _TRAIN, str(steps)], capture_output=True, text=True, check=True
    )
    growth, loss = done.stdout.split()
    return float(growth), loss


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_thousand_steps_need_no_more_memory_and_repeat_bit_for_bit():
    first, second = train(1000), train(1000)
    assert first[0] < 1.01 and second[0] < 1.01
    assert first[1] == second[1]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_ten_thousand_steps_need_no_more_memory():
    assert train(10_000)[0] < 1.01

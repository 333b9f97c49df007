"""What messages cost where nothing is wrong: none of the code that words them is called.

The `except` clauses that lead to it cost nothing in Python before an exception is raised; what it
comes to in time is measured by tests/benchmarks/errors.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary import nn, optim
from bestiary.core.nn import functional as F
from bestiary.data import ArrayDataset, DataLoader

ROOT = Path(bt.__file__).parent
WORDS = [
    "core/foreign.py",
    "core/mistakes.py",
    "core/notice.py",
    "core/nn/mistakes.py",
    "core/training/mistakes.py",
    "hub/problems.py",
]
FILES = {str(ROOT / name): name for name in WORDS}
FUNCTIONS = {"drop_our_frames", "keyword_error", "nearest", "words"}  # in other files


@contextmanager
def calls() -> Iterator[list[str]]:
    """The functions with words of errors that are called inside."""
    found: list[str] = []

    def see(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_name != "<module>":  # a file that is imported
            if code.co_filename in FILES and code.co_name != "no_attribute":  # of hasattr: late
                found.append(f"{FILES[code.co_filename]}:{code.co_qualname}")
            elif code.co_name in FUNCTIONS and code.co_filename.startswith(str(ROOT)):
                found.append(code.co_name)

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        yield found
    finally:
        sys.setprofile(before)


def training() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(),
        nn.Flatten(), nn.Linear(in_features=64, out_features=5),
    )  # fmt: skip
    optimizer = optim.Adam(net.parameters(), lr=1e-2)
    x = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
    for images, targets in DataLoader(ArrayDataset(x, np.arange(8) % 5), batch_size=4):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images), targets)
        loss.backward()
        optimizer.step()
        loss.item()
    copy = nn.Sequential(*net)
    copy.load_state_dict(net.state_dict())
    net.eval()
    with bt.no_grad():
        bt.argmax(net(bt.asarray(x)), axis=-1).tolist()


def tensors() -> None:
    x = bt.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    y = bt.concat([x @ x.T, 2 * x + 1 - x / 3], axis=0).reshape(-1, 4)
    bt.sum(bt.stack([y, bt.exp(-y)]), axis=0).mean().backward()
    x.detach().numpy()
    x.grad.tolist()
    bt.zeros((2, 3), dtype="float32").astype(bt.float16).astype(bt.bfloat16).sum().item()
    ids = bt.asarray(np.array([[1, 2]]))
    nn.Embedding(4, 3)(ids).sum().backward()


def loading() -> None:
    model = bt.load("resnet-cifar10", num_classes=3)
    model(np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize("work", [training, tensors, loading], ids=lambda f: f.__name__)
def test_no_words_are_made_where_nothing_is_wrong(work: Callable[[], None]) -> None:
    work()  # what is called once, such as imports
    with calls() as found:
        work()
    assert not found


def test_the_check_sees() -> None:
    with calls() as found, pytest.raises(bt.errors.ShapeError):
        nn.Linear(2, 2)(bt.ones((1, 3)))
    assert "drop_our_frames" in found
    assert "core/mistakes.py:clearer" in found
    assert "core/nn/mistakes.py:add_path" in found

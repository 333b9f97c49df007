"""The profiler: all operations with their modules, sums that add up, nothing left behind."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError
from bestiary.core.insight.profile import BACKWARD, OUTSIDE, profile
from bestiary.core.nn import Module
from bestiary.core.nn import functional as F
from bestiary.core.state import watch


class Net(bt.nn.Module):
    def __init__(self) -> None:
        self.first = bt.nn.Linear(8, 16)
        self.blocks = bt.nn.ModuleList([bt.nn.Linear(16, 16), bt.nn.Linear(16, 4)])

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        x = F.relu(self.first(x))
        for block in self.blocks:
            x = block(x)
        return x


def test_operations_and_modules_are_measured() -> None:
    net, x = Net(), bt.random.normal((5, 8))
    with profile() as found:
        time.sleep(0.02)
        y = net(x).sum()
        (y * 2).backward()
    assert found.seconds >= 0.02
    paths = {op.path for op in found.ops}
    assert {"Net", "Net/first", "Net/blocks/0", "Net/blocks/1", BACKWARD, OUTSIDE} == paths
    linear = next(row for row in found.by_op() if row["name"] == "linear")
    assert linear["calls"] == 3 and linear["bytes"] == 4 * 5 * (16 + 16 + 4)
    assert sum(row["share"] for row in found.by_op()) == pytest.approx(1)
    modules = {row["name"]: row for row in found.by_module()}
    assert modules["Net"]["calls"] == modules["Net/first"]["calls"] + 1 + 2
    assert modules["Net"]["seconds"] >= modules["Net/blocks"]["seconds"]
    assert [m.path for m in found.modules] == ["Net/first", "Net/blocks/0", "Net/blocks/1", "Net"]
    inside = sum(op.seconds for op in found.ops)
    assert 0 < inside < found.seconds
    assert found.peak_bytes >= 4 * 5 * 16


def test_memory_counts_what_is_alive_together() -> None:
    x = bt.zeros((1000, 1000))
    with profile() as found:
        y = x
        for _ in range(5):
            y = y + 1
    assert 8_000_000 <= found.peak_bytes <= 12_100_000  # two of 4 MB, not five


def test_memory_counts_who_owns_it_and_once() -> None:
    x = bt.random.normal((2, 3, 8, 8))
    weight = bt.random.normal((4, 3, 3, 3))
    with profile() as found:
        y = F.conv2d(x, weight, padding=1)  # a kernel's images are views of channels-last memory
        z = y.reshape(2, -1)
        turned = x.mT
        both = F.relu(y)
    bytes_of = {row["name"]: row["bytes"] for row in found.by_op()}
    image = 4 * 2 * 4 * 8 * 8
    assert bytes_of["conv2d"] == image == bytes_of["relu"]
    assert turned.shape == x.shape
    copied = bytes_of["reshape"]  # of channels-last memory a copy, else a view
    assert copied in (0, image)
    assert found.peak_bytes == 2 * image + copied
    assert both.shape == y.shape and z.shape == (2, 256)


def test_nothing_is_left_behind() -> None:
    call, before = Module.__call__, watch.count
    with pytest.raises(ZeroDivisionError), profile():
        1 / 0  # noqa: B018
    assert Module.__call__ is call and watch.count == before
    with profile() as found:
        pass
    assert found.ops == [] and "0 operations" in str(found)
    Net()(bt.zeros((1, 8)))
    assert found.ops == []


def test_other_threads_are_left_alone() -> None:
    net = Net()
    with profile() as found:
        thread = threading.Thread(target=net, args=(bt.zeros((1, 8)),))
        thread.start()
        thread.join()
    assert found.ops == [] and found.modules == []


def test_one_profile_at_a_time() -> None:
    with profile(), pytest.raises(ConfigError, match="one at a time"), profile():
        pass
    with profile() as found:
        bt.zeros(3) + 1
    assert len(found.ops) == 1


def test_tables_and_traces(tmp_path: Path) -> None:
    net = Net()
    with bt.profile() as found:
        net(bt.zeros((2, 8)))
    assert "linear" in found.table() and "Net/first" in found.table("module")
    assert "... and" in found.table("module", top=1)
    with pytest.raises(ConfigError, match="'line' is neither"):
        found.table("line")
    trace = json.loads(found.save_trace(tmp_path / "trace.json").read_text())["traceEvents"]
    complete = [event for event in trace if event["ph"] == "X"]
    assert len(complete) == len(found.ops) + len(found.modules)
    outer = next(e for e in complete if e["args"]["path"] == "Net" and e["tid"] == 1)
    inner = [event for event in complete if event["args"]["path"].startswith("Net/")]
    end = outer["ts"] + outer["dur"]
    assert all(outer["ts"] <= e["ts"] and e["ts"] + e["dur"] <= end + 1e-3 for e in inner)
    assert json.loads(json.dumps(found.to_dict()))["ops"][0][0] == found.ops[0].name

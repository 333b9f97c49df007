"""Graphs as files: what is read does what was written, and nothing else is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary import nn, optim
from bestiary.core.errors import WeightsError
from bestiary.core.graph import load_graph, record, replay, save_graph
from bestiary.core.graph.compiled import PASSES
from bestiary.core.graph.program import Program
from bestiary.core.nn import functional as F
from bestiary.core.weights.safetensors import load_file, save_file


class Net(nn.Module):
    """Slices, an index of tensors, attention, norms, halves: constants of every kind."""

    def __init__(self) -> None:
        self.table = nn.Embedding(11, 8)
        self.norm = nn.LayerNorm(8)
        self.lift = nn.Linear(8, 24)
        self.order = nn.Buffer(np.array([2, 0, 1]))

    def forward(self, ids: bt.Tensor) -> bt.Tensor:
        x = self.norm(self.table(ids))
        q, k, v = (self.lift(x)[:, None, :, 8 * i : 8 * i + 8] for i in range(3))
        x = F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0]
        x = x[..., ::-1][:, self.order].astype(bt.bfloat16).astype(bt.float32)
        return F.gelu(x, approximate="tanh") * float("inf") ** 0 + bt.where(x > 0, x, -1.5)


@pytest.fixture
def net() -> Net:
    bt.manual_seed(0)
    return Net().eval()


@pytest.mark.parametrize("optimised", [False, True])
def test_what_is_read_does_what_was_written(net: Net, tmp_path: Path, optimised: bool) -> None:
    ids, others = bt.tensor([[1, 4, 9, 0]]), bt.tensor([[3, 3, 10, 7]])
    with bt.inference_mode():
        graph, _ = record(net, ids)
        wanted = net(others)
    names = dict(net.named_parameters())
    if optimised:
        for _, apply in PASSES:
            apply(graph)
    path = save_graph(graph, tmp_path / "net.graph", names=names)
    again = load_graph(path)
    assert repr(again) == repr(graph)
    np.testing.assert_allclose(replay(again, others)[0].numpy(), wanted.numpy(), rtol=1e-5)
    np.testing.assert_allclose(Program(again)([others.array])[0], wanted.numpy(), rtol=1e-5)
    if not optimised:
        assert {"table.weight", "norm.weight", "lift.bias"} <= set(load_file(path))


def test_random_numbers_and_counters_go_on(tmp_path: Path) -> None:
    count = bt.zeros((1,))
    generator = bt.Generator(5)

    def function(x: bt.Tensor) -> bt.Tensor:
        bt.assign(count, count + 1)
        return x * count + bt.random.uniform((3,), generator=generator)

    with bt.no_grad():
        graph, first = record(function, bt.ones((3,)))
        again = load_graph(save_graph(graph, tmp_path / "noise.graph"))
        wanted = [function(bt.ones((3,))).tolist() for _ in range(3)]
        found = [replay(again, bt.ones((3,)))[0].tolist() for _ in range(3)]
    assert found == wanted and first.tolist() not in wanted


def test_training_steps_are_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    optimizer = optim.Adam(net.parameters())

    def step(x: bt.Tensor) -> bt.Tensor:
        loss = net(x).sum()
        loss.backward()
        optimizer.step()
        return loss

    graph, _ = record(step, bt.ones((1, 3)))
    with pytest.raises(WeightsError, match="memory that several of its arrays share"):
        save_graph(graph, tmp_path / "step.graph")


def broken(path: Path, change: Any) -> None:
    """Write the file again with another description."""
    from bestiary.core.weights.safetensors import SafetensorsFile

    with SafetensorsFile(path) as file:
        described = json.loads(file.metadata["bestiary.graph"])
        arrays = {name: np.array(file[name]) for name in file}
    change(described, arrays)
    save_file(arrays, path, metadata={"bestiary.graph": json.dumps(described)})


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda d, a: d.update(version=2), "version 2"),
        (lambda d, a: d["calls"][0].update(op="system"), "no operation 'system'"),
        (lambda d, a: d["calls"][0]["constants"].update(shell=True), "has no shell"),
        (lambda d, a: d["calls"][0].update(results=[10**9]), "no value 1000000000"),
        (lambda d, a: d["calls"][1].update(results=d["calls"][0]["results"]), "made twice"),
        (lambda d, a: d["calls"].reverse(), "used before it is made"),
        (lambda d, a: d.update(outputs=[len(d["values"]) - 1, -1]), "no value -1"),
        (lambda d, a: d.pop("inputs"), "inputs"),
        (lambda d, a: d.update(calls=7), "not iterable"),
        (lambda d, a: a.update({k: v[:1] for k, v in a.items() if v.ndim}), "not "),
        (lambda d, a: a.clear(), "value"),
        (lambda d, a: d["values"].__setitem__(0, [[2], "object"]), "object"),
    ],
)
def test_files_that_do_not_hold_together_are_refused(
    net: Net, tmp_path: Path, change: Any, word: str
) -> None:
    with bt.inference_mode():
        graph, _ = record(net, bt.tensor([[1, 4, 9, 0]]))
    path = save_graph(graph, tmp_path / "net.graph")
    broken(path, change)
    with pytest.raises(WeightsError, match=word) as caught:
        load_graph(path)
    assert "net.graph" in str(caught.value)


def test_weights_are_no_graph(tmp_path: Path) -> None:
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="weights, and no graph"):
        load_graph(tmp_path / "w.safetensors")

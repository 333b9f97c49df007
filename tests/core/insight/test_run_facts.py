"""What a run logs of models and the machine: shapes, confusion matrices, the use of a GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import DataError
from bestiary.core.insight.runs import gpu
from bestiary.core.insight.runs.frames import frame
from bestiary.core.insight.runs.reader import read_run
from bestiary.core.insight.runs.use import Use
from bestiary.core.insight.runs.writer import PROFILE, Run


class Split(bt.nn.Module):
    def __init__(self) -> None:
        self.first, self.second = bt.nn.Linear(3, 4), bt.nn.Linear(3, 5)

    def forward(self, x: bt.Tensor, *, scale: bt.Tensor | None = None) -> dict[str, bt.Tensor]:
        return {"a": self.first(x), "b": self.second(x)}


def test_shapes_of_the_first_call_are_told(tmp_path: Path) -> None:
    net = Split()
    with Run(tmp_path / "run", module=net) as run:
        assert "inputs" not in run.about["structure"]
        with run.shapes(net):
            net(bt.zeros((7, 3)), scale=bt.ones(()))
            net(bt.zeros((2, 3)))
        assert not any(m._post_hooks for m in net.modules())
    told = json.loads((tmp_path / "run" / "run.json").read_text())["structure"]
    assert (told["inputs"], told["outputs"]) == ("(7, 3), ()", "(7, 4), (7, 5)")
    assert told["children"]["second"]["outputs"] == "(7, 5)"


def test_shapes_are_left_out_where_the_step_fails(tmp_path: Path) -> None:
    net = Split()
    with Run(tmp_path / "run", module=net) as run:
        with pytest.raises(bt.errors.ShapeError), run.shapes(net):
            net(bt.zeros((7, 9)))
        assert not any(m._post_hooks for m in net.modules())


def test_a_trainer_tells_them(tmp_path: Path) -> None:
    net = bt.nn.Sequential(bt.nn.Linear(3, 4), bt.nn.Linear(4, 1))
    with Run(tmp_path / "run", module=net) as run:
        bt.training.Trainer(
            net,
            bt.optim.SGD(net.parameters(), lr=0.1),
            lambda m, b: m(b).mean(),
            [bt.zeros((6, 3)), bt.zeros((5, 3))],
            epochs=1,
            run=run,
            quiet=True,
        ).fit()
    told = read_run(tmp_path / "run").about["structure"]
    assert (told["inputs"], told["children"]["0"]["outputs"]) == ("(6, 3)", "(6, 4)")


def trained(run: Run | None) -> list[np.ndarray]:
    bt.random.manual_seed(3)
    net = bt.nn.Sequential(
        bt.nn.Conv2d(1, 4, 3), bt.nn.BatchNorm2d(4), bt.nn.GELU(), bt.nn.Flatten(),
        bt.nn.Dropout(0.3), bt.nn.Linear(144, 3),
    )  # fmt: skip
    x, y = bt.random.normal((32, 1, 8, 8)), bt.tensor(np.arange(32) % 3)
    bt.training.Trainer(
        net,
        bt.optim.AdamW(net.parameters(), lr=1e-2),
        lambda m, b: bt.nn.functional.cross_entropy(m(b[0]), b[1]),
        [(x[:16], y[:16]), (x[16:], y[16:])],
        epochs=4,
        clip_norm=0.1,
        run=run,
        quiet=True,
    ).fit()
    return [p.array.copy() for p in (*net.parameters(), *net.buffers())]


def test_a_trainer_profiles_its_third_step_and_learns_the_same(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        logged = trained(run)
    for one, other in zip(logged, trained(None), strict=True):
        np.testing.assert_array_equal(one, other)
    told = json.loads((tmp_path / "run" / PROFILE).read_text())
    names = {name for name, *_ in told["ops"]}
    assert {"conv2d", "adam_update", "conv2d_weight_grad"} <= names
    assert {"Sequential", "Sequential/0"} <= {path for path, *_ in told["modules"]}
    log = read_run(tmp_path / "run")
    assert log.about["device"] == "cpu" and log.about["structure"]["class"] == "Sequential"
    assert len(log.histograms["gradients/5/weight"]) >= 1


def test_only_one_profile_is_taken(tmp_path: Path) -> None:
    with bt.profile() as mine, Run(tmp_path / "run") as run:
        trained(run)
    assert not (tmp_path / "run" / PROFILE).exists() and len(mine.ops) > 100


def test_several_modules_are_told_by_name(tmp_path: Path) -> None:
    both = {"left": bt.nn.Linear(3, 4), "right": bt.nn.Linear(4, 2, bias=False)}
    with Run(tmp_path / "run", module=both) as run:
        with run.shapes(both):
            both["right"](both["left"](bt.zeros((5, 3))))
        run.parameters(both, 1)
        run.model(bt.nn.Linear(1, 1))  # there is one
    log = read_run(tmp_path / "run")
    told = log.about["structure"]
    assert (told["class"], told["parameters"], list(told["children"])) == ("", 24, list(both))
    assert told["children"]["right"]["inputs"] == "(5, 4)"
    names = ("left/weight", "left/bias", "right/weight")
    assert set(log.histograms) == {f"parameters/{name}" for name in names}


def test_confusion_matrices_are_kept(tmp_path: Path) -> None:
    counts = np.array([[3, 1], [0, 2**40]])
    with Run(tmp_path / "run") as run:
        run.confusion("test", counts, ["ä", "<b>"], 7)
        run.confusion("test", bt.tensor(counts), ("ä", "<b>"), 8)
        for wrong, labels in (
            (np.ones((2, 2)), "ab"),
            (counts, "abc"),
            (counts[:1], "ab"),
            (-counts, "ab"),
            (np.zeros((0, 0), int), ""),
            (np.zeros((1001, 1001), int), [""] * 1001),
        ):
            with pytest.raises(DataError, match="confusion matrix"):
                run.confusion("test", wrong, labels, 1)
    first, second = read_run(tmp_path / "run").confusions["test"]
    assert (first.step, second.step) == (7, 8)
    assert first.content.labels == ("ä", "<b>")
    np.testing.assert_array_equal(first.content.counts, counts)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"labels": ["a"], "counts": [[1, 2]]}',
        '{"labels": ["a"], "counts": [[-1]]}',
        '{"labels": [], "counts": []}',
        '{"labels": ["a"], "counts": [[1e400]]}',
        '{"labels": 3, "counts": [[1]]}',
    ],
)
def test_foreign_matrices_are_passed_over(tmp_path: Path, content: str) -> None:
    from bestiary.core.insight.runs.events import _CONFUSION, _written

    with open(tmp_path / "events.out.tfevents.1.x", "wb") as file:
        file.write(frame(_written(1.0, 1, "test", _CONFUSION, content)))
        file.write(frame(_written(1.0, 1, "note", "text", "after it")))
    log = read_run(tmp_path)
    assert log.confusions == {} and log.texts["note"][0].content == "after it"


class FakeNvml:
    """Utilisation of one device; `wrong` is what its functions return."""

    def __init__(self, wrong: int = 0) -> None:
        self.wrong, self.asked = wrong, b""

    def nvmlInit_v2(self) -> int:
        return self.wrong

    def nvmlDeviceGetHandleByPciBusId_v2(self, place: bytes, handle: Any) -> int:
        self.asked = place
        return 0

    def nvmlDeviceGetUtilizationRates(self, handle: Any, rates: Any) -> int:
        rates._obj.gpu = 87
        return 0


def fake_cupy(free: int = 3_000_000_000) -> Any:
    runtime = SimpleNamespace(
        memGetInfo=lambda: (free, 10_000_000_000),
        getDevice=lambda: 0,
        deviceGetPCIBusId=lambda device: f"0000:0{device}:00.0",
    )
    return SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))


def test_use_of_a_gpu_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    monkeypatch.setattr(gpu, "_library", lambda: nvml)
    use = Use()
    use._when -= 2
    found = use.sample()
    assert found is not None
    assert (found["gpu"], found["gpu_memory"]) == (87, 7000) and nvml.asked == b"0000:00:00.0"


@pytest.mark.parametrize("library", [None, FakeNvml(9)])
def test_without_nvml_the_memory_is_told(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    monkeypatch.setattr(gpu, "_library", lambda: library)
    assert gpu.GpuUse().sample() == {"gpu_memory": 7000}


def test_without_a_gpu_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert gpu.GpuUse().sample() == {} and "cupy" not in sys.modules
    broken = SimpleNamespace(cuda=SimpleNamespace(runtime=SimpleNamespace()))  # no driver
    monkeypatch.setitem(sys.modules, "cupy", broken)
    assert gpu.GpuUse().sample() == {}

"""ONNX files: sizes that are found, what is refused, and (reference) that onnxruntime agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary import nn
from bestiary.core import wire
from bestiary.core.onnx import exporting
from bestiary.core.onnx.sizes import Corners, Differs, Size
from bestiary.errors import ConfigError

CORNERS = Corners((2, 5), (3, 7), (5, 8))


def test_sizes_are_sums_of_products() -> None:
    assert CORNERS.points == [(2, 5), (3, 5), (2, 7), (3, 7), (5, 8)]
    found = CORNERS.merged([(b * t, 12 * b, t + 1, 4, slice(0, t)) for b, t in CORNERS.points])
    assert found[3] == 4
    assert [s.at((11, 13)) for s in found[:3]] == [143, 132, 14]
    assert found[4].start == 0
    assert isinstance(found[4].stop, Size)


@pytest.mark.parametrize("value", [lambda b, t: t // 2, lambda b, t: b / t, lambda b, t: str(t)])
def test_what_is_no_sum_of_products_differs(value: Any) -> None:
    with pytest.raises(Differs):
        CORNERS.merged([value(b, t) for b, t in CORNERS.points])


class Net(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 6 * 6, 5)

    def forward(self, x: bt.Tensor) -> bt.Tensor:
        y = nn.functional.gelu(self.norm(self.conv(x)))
        return self.head(y.reshape((x.shape[0], -1)))


def fields(data: bytes, number: int) -> list[Any]:
    return [value for field, _, value in wire.fields(data) if field == number]


def test_a_module_is_written_with_its_names(tmp_path: Path) -> None:
    net = Net().eval()
    done = bt.export(net, tmp_path / "m.onnx", inputs={"x": ("batch", 3, 6, 6)}, outputs=["y"])
    assert done.inputs == {"x": ("batch", 3, 6, 6)}
    assert done.outputs == {"y": ("batch", 5)}
    assert done.nodes["Conv"] == 1
    assert done.bytes == sum(f.stat().st_size for f in done.files)
    graph = fields((tmp_path / "m.onnx").read_bytes(), 7)[0]
    names = {fields(t, 8)[0].decode() for t in fields(graph, 5)}
    assert {"conv.weight", "conv.bias", "norm.running_mean", "head.weight"} <= names
    weight = next(t for t in fields(graph, 5) if fields(t, 8) == [b"head.weight"])
    np.testing.assert_array_equal(
        np.frombuffer(fields(weight, 9)[0], np.float32), net.head.weight.array.reshape(-1)
    )
    assert json.loads((tmp_path / "m.json").read_text())["inputs"] == {"x": ["batch", 3, 6, 6]}


def test_large_weights_lie_beside_the_file(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(exporting, "_INSIDE", 100)
    net = Net().eval()
    done = bt.export(net, tmp_path / "m.onnx", inputs={"x": ("batch", 3, 6, 6)})
    assert [f.name for f in done.files] == ["m.onnx", "m.onnx.data", "m.json"]
    graph = fields((tmp_path / "m.onnx").read_bytes(), 7)[0]
    weight = next(t for t in fields(graph, 5) if fields(t, 8) == [b"head.weight"])
    where = {fields(e, 1)[0].decode(): fields(e, 2)[0].decode() for e in fields(weight, 13)}
    assert where["location"] == "m.onnx.data"
    place, length = int(where["offset"]), int(where["length"])
    found = np.frombuffer((tmp_path / "m.onnx.data").read_bytes()[place : place + length], "<f4")
    np.testing.assert_array_equal(found, net.head.weight.array.reshape(-1))


class Odd(nn.Module):
    def __init__(self, what: Any) -> None:
        self.inner = nn.Identity()
        self.what = what

    def forward(self, x: bt.Tensor) -> Any:
        return self.what(self.inner(x))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda x: bt.fft.fft(x.astype(bt.complex64)), "fft"),
        (lambda x: x if float(x.sum()) > 0 else -x, "depends on the values"),
        (lambda x: x + bt.tensor(x.array.mean(0)), "computed outside"),
        (lambda x: x if x.shape[0] == 2 else -x, "other operations"),
        (lambda x: x * (1 / x.shape[0]), "constants that depend"),
        (lambda x: x[: x.shape[0] // 2], "no sum of products"),
        (lambda x: "text", "returns a str"),
    ],
)
def test_what_cannot_be_written_is_named(what: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        bt.export(Odd(what).eval(), tmp_path / "m.onnx", inputs={"x": ("batch", 4)})
    assert not list(tmp_path.iterdir())


def test_other_wrong_input(tmp_path: Path) -> None:
    given: Any = {"x": ("batch", 3, 6, 6)}
    with pytest.raises(ConfigError, match="eval"):
        bt.export(Net(), tmp_path / "m.onnx", inputs=given)
    with pytest.raises(ConfigError, match=r"\*\.onnx"):
        bt.export(Net().eval(), tmp_path / "m.pt", inputs=given)
    with pytest.raises(ConfigError, match="inputs="):
        bt.export(Net().eval(), tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match="float16"):
        bt.export(Net().eval().to(dtype=bt.float16), tmp_path / "m.onnx", inputs=given)
    with pytest.raises(ConfigError, match="dynamic"):
        bt.export(Net().eval(), tmp_path / "m.onnx", inputs=given, dynamic=["rows"])
    with pytest.raises(ConfigError, match="names of outputs"):
        bt.export(Net().eval(), tmp_path / "m.onnx", inputs=given, outputs=["a", "b"])

"""`bestiary bench`: every kind of model is timed, both ways where it is compiled."""

from __future__ import annotations

import json

import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError
from bestiary.hub.benching import bench
from bestiary.hub.cli import _run


@pytest.mark.parametrize(
    "name, unit, compiled",
    [
        ("resnet-fashion", "pictures", True),
        ("ddpm-fashion", "samples", True),
        ("dcgan-fashion", "pictures", True),
        ("ppo-cartpole", "actions", False),
    ],
)
def test_kinds_of_models(name: str, unit: str, compiled: bool) -> None:
    found = bench(bt.load(name), batch_sizes=(1, 3), seconds=0.01)
    assert [s.items for s in found] == [1, 3] and {s.unit for s in found} == {unit}
    for speed in found:
        assert 0 < speed.eager < 60 and speed.runs >= 3 and speed.rate > 0
        assert (speed.ratio is not None) is compiled


def test_language_models_read_and_write() -> None:
    found = bench(bt.load("shakespeare"), seconds=0.01)
    assert [s.what.split()[0] for s in found][-1] == "writes"
    assert all(s.unit == "tokens" for s in found)


def test_the_command_prints_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "resnet-fashion", "--batch", "2", "--seconds", "0.01"]
    assert _run(arguments) == 0
    printed = capsys.readouterr().out
    assert "2 of 28 x 28 pixels" in printed and "times as fast" in printed
    assert _run([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "resnet-fashion" and found["jobs"][0]["compiled"] > 0


def test_what_cannot_be_timed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="mask-generation"):
        bench(bt.load("sam-shapes"))
    with pytest.raises(ConfigError, match="batch sizes"):
        bench(bt.load("resnet-fashion"), batch_sizes=())
    assert _run(["bench", "resnet-fashion", "--batch", "1,x"]) == 2
    assert "no list of batch sizes" in capsys.readouterr().err

"""`bestiary runs` and `bestiary board`, as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import bestiary as bt
from bestiary.hub.cli import _run


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # whatever the window of these tests is


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, lr, last in (("a", 0.1, 0.5), ("b", 0.01, 0.2), ("größe c", 0.001, float("nan"))):
        with bt.Run(tmp_path / name, {"lr": lr, "batch": 8}) as run:
            run.scalars({"train/loss": 0.3, "evaluation/accuracy": 0.9}, 1)
            run.scalars({"train/loss": last, "evaluation/accuracy": 0.8}, 2)
    return tmp_path


def test_runs_are_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["runs", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "run", "status", "step", "time", "evaluation/accuracy", "best", "train/loss", "best", "lr",
    ]  # fmt: skip
    assert lines[1].split()[-5:] == ["0.8", "0.9", "0.5", "0.3", "0.1"]
    assert lines[2].split()[-3:] == ["0.2", "0.2", "0.01"]
    assert lines[3].startswith("größe c") and lines[3].split()[-3:] == ["-", "0.3", "0.001"]
    assert _run(["runs", str(folder), "--sort", "train/loss", "--figure", "train/loss"]) == 0
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == ["r", "b", "a", "g"]
    assert _run(["runs", str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[1]["figures"]["train/loss"] == {
        "last": pytest.approx(0.2), "best": pytest.approx(0.2), "best_step": 2,
    }  # fmt: skip


def test_wrong_input_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("runs", "board"):
        assert _run([command, str(folder / "nothing")]) == 1
        assert "is no folder" in capsys.readouterr().err
    (folder / "none").mkdir()
    assert _run(["runs", str(folder / "none"), "--sort", "loss"]) == 1
    assert "there are no numbers at all" in capsys.readouterr().err
    assert _run(["runs", str(folder), "--sort", "bleu"]) == 1
    assert "there are: evaluation/accuracy, train/loss" in capsys.readouterr().err
    assert _run(["board", str(folder), "--port", "70000"]) == 2
    (folder / "empty").mkdir()
    assert _run(["runs", str(folder / "empty")]) == 0
    assert "no runs in" in capsys.readouterr().err


def test_control_characters_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        with bt.Run(tmp_path / name, {"x": f"\x1b[2J{name}"}) as run:
            run.scalar("loss", 1.0, 1)
    assert _run(["runs", str(tmp_path)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_report_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = folder / "a report.html"
    assert _run(["board", str(folder), "--export", str(target)]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert "train/loss" in target.read_text()


def test_the_board_is_served_until_it_is_interrupted(folder: Path) -> None:
    command = [sys.executable, "-m", "bestiary", "board", str(folder), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{address}api/runs", timeout=30) as answer:
            assert json.load(answer)["count"] == 3
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 130 and "Traceback" not in said


def test_columns_that_do_not_fit_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        settings = {"lr": 0.1 * i, **{f"setting_of_run_{i}_{k}": k for k in range(8)}}
        with bt.Run(tmp_path / f"run{i}", settings, system=False) as log:
            log.scalar("evaluation/accuracy", 0.5 + 0.1 * i, 1)
    monkeypatch.setenv("COLUMNS", "70")
    assert _run(["runs", str(tmp_path)]) == 0
    *table, more = capsys.readouterr().out.splitlines()
    assert len(table) == 4 and max(map(len, table)) <= 70
    # What all runs have comes before what one has.
    assert table[0].split() == [
        "run",
        "status",
        "step",
        "time",
        "evaluation/accuracy",
        "best",
        "lr",
    ]
    assert more.startswith("24 more in a wider window, all with --json: setting_of_run_0_0, ")
    monkeypatch.setenv("COLUMNS", "2000")
    assert _run(["runs", str(tmp_path)]) == 0
    wide = capsys.readouterr().out
    assert "more in a wider window" not in wide and "setting_of_run_2_7" in wide

"""The performance suite: our side alone, or beside PyTorch.

    python tests/benchmarks/run.py                            # ours
    python tests/benchmarks/run.py --peer ../peer/bin/python  # and PyTorch's, in turn
    python tests/benchmarks/run.py --only resnet --json out.json

The peer is the Python of an environment that has torch (and nothing of ours). Each side runs in
a process of its own; outputs are compared before anything is timed; then the sides take turns,
and the median of the ratios pair by pair is what counts, because machines drift. Variables that
slow either side down without need are unset for both.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import MODELS

HERE = Path(__file__).resolve().parent
# Unset for all sides: they force slower BLAS kernels, or keep Python from caching what it compiles.
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONDONTWRITEBYTECODE")


class Side:
    """A worker process: answers one JSON line with one JSON line."""

    def __init__(self, python: str, jobs: str, folder: Path) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in SLOWING}
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), jobs, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker died during {request}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def compare(name: str, folder: Path, other: str) -> str:
    """The largest relative difference of our outputs from those of another side."""
    ours, theirs = folder / f"{name}.ours.npy", folder / f"{name}.{other}.npy"
    if not (ours.exists() and theirs.exists()):
        return ""
    a, b = np.load(ours), np.load(theirs)
    if a.shape != b.shape:
        return f"shapes differ: {a.shape} {b.shape}"
    scale = float(np.abs(b).max()) or 1.0
    return f"{float(np.abs(a - b).max()) / scale:.1e}"


def run(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours = Side(sys.executable, "ours", folder)
        names = [*(["peer"] if arguments.peer else []), *(["onnx"] if arguments.onnx else [])]
        others = {name: Side(arguments.peer, name, folder) for name in names}
        facts = ours.ask(do="facts")
        print(f"ours: {facts}")
        for name, side in others.items():
            print(f"{name}: {side.ask(do='facts')}")
        for name in facts["jobs"]:
            if not arguments.only or re.search(arguments.only, name):
                rows.append(measure(name, ours, others, arguments.rounds, folder))
                if arguments.memory:
                    sides = {"ours": sys.executable, **dict.fromkeys(others, arguments.peer)}
                    rows[-1]["memory"] = {k: peak(p, k, name, folder) for k, p in sides.items()}
                print(line(rows[-1]), flush=True)
        for side in (ours, *others.values()):
            side.close()
    return rows


def measure(
    name: str, ours: Side, others: dict[str, Side], rounds: int, folder: Path
) -> dict[str, Any]:
    """Times of all sides that know a job, in turn; the others' keys begin with their name."""
    row: dict[str, Any] = {"job": name}
    prepared = ours.ask(do="prepare", job=name)
    row["unit"], row["work"] = prepared["unit"], prepared.get("work")
    asked = {k: s for k, s in others.items() if s.ask(do="prepare", job=name).get("known", False)}
    mine: list[float] = []
    theirs: dict[str, list[float]] = {other: [] for other in asked}
    for _ in range(rounds):
        mine.append(ours.ask(do="time", job=name)["seconds"])
        for other, side in asked.items():
            theirs[other].append(side.ask(do="time", job=name)["seconds"])
    row["ours"] = statistics.median(mine)
    row["spread"] = (min(mine), max(mine))
    for other, times in theirs.items():
        ratios = [b / a for a, b in zip(mine, times, strict=True)]
        row[other] = {
            "seconds": statistics.median(times),
            "times_faster": statistics.median(ratios),
            "ratio_spread": (min(ratios), max(ratios)),
            "difference": compare(name, folder, other),
        }
    for side in (ours, *others.values()):
        side.ask(do="forget", job=name)
    return row


def peak(python: str, side: str, name: str, folder: Path) -> int:
    """The most memory that a process of a job alone holds, libraries and weights included."""
    worker = Side(python, side, folder)
    worker.ask(do="prepare", job=name)
    held: int = worker.ask(do="memory")["bytes"]
    worker.close()
    return held


def shown(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:8.2f} µs"
    return f"{seconds * 1e3:8.2f} ms" if seconds < 1 else f"{seconds:8.2f} s "


def line(row: dict[str, Any]) -> str:
    text = f"{row['job']:<34} {shown(row['ours'])}"
    if row.get("work"):
        text += f" {row['work'] / row['ours'] / 1e9:7.0f} {row['unit']}"
    for other in ("peer", "onnx"):
        if other in row:
            found = row[other]
            low, high = found["ratio_spread"]
            text += (
                f"   {other} {shown(found['seconds'])}   {found['times_faster']:.2f}x as fast"
                f" ({low:.2f}..{high:.2f})   difference {found['difference']}"
            )
    for side, held in row.get("memory", {}).items():
        text += f"   {side} holds {held / 1e6:,.0f} MB"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="Python of an environment with torch")
    parser.add_argument("--models", help="a folder of families.py: adds the jobs family-...")
    parser.add_argument("--onnx", action="store_true", help="its onnxruntime too, for families")
    parser.add_argument("--only", help="jobs whose name holds this, a regular expression")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", action="store_true", help="what a process of each job holds")
    parser.add_argument("--json", help="write the rows to this file")
    arguments = parser.parse_args()
    if arguments.models:
        os.environ[MODELS] = str(Path(arguments.models).resolve())
    if arguments.onnx and not arguments.peer:
        parser.error("--onnx runs in the environment of --peer")
    rows = run(arguments)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

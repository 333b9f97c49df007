"""The command line and the files that the scripts of reinforcement learning share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def parser(about: str | None, runs: Iterable[str], out: Path) -> argparse.ArgumentParser:
    """Arguments of a script that trains one of several runs and writes what it reached."""
    found = argparse.ArgumentParser(description=about)
    found.add_argument("run", choices=list(runs))
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--steps", type=int)
    found.add_argument("--episodes", type=int, default=100)
    found.add_argument("--out", type=Path, default=out)
    return found


def write(folder: Path, name: str, result: dict[str, Any]) -> dict[str, Any]:
    """Write a result as `name`.json; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1) + "\n"
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return result


def thinned(curve: list[Any]) -> list[list[float]]:
    """At most about fifty points of a curve, as they are written: steps and return."""
    return [[int(s), round(float(r), 2)] for s, r in curve[:: max(1, len(curve) // 50)]]

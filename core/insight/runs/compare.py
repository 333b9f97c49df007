"""Runs side by side: how far each is, its last and best figures, what they were started with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .reader import RunLog, Series

_LESS = ("loss", "error", "perplexity", "mse", "mae", "rmse", "nll", "fid", "bits", "distance")
_NOT_RESULTS = ("system/", "train/epoch", "train/lr", "lr", "train/seconds")


def lower_is_better(tag: str) -> bool:
    """Whether less of a figure is better, by the words of its name."""
    words = tag.lower().replace("_", " ").replace("/", " ").replace("-", " ").split()
    return any(word.endswith(_LESS) for word in words)


def figures(series: Series, tag: str) -> dict[str, Any]:
    """The newest value, the best one and its step; None where nothing is finite."""
    values = series.values
    finite = np.isfinite(values)
    if not finite.any():
        return {"last": None, "best": None, "best_step": None}
    if lower_is_better(tag):
        place = int(np.argmin(np.where(finite, values, np.inf)))
    else:
        place = int(np.argmax(np.where(finite, values, -np.inf)))
    last = series.last
    return {
        "last": last if math.isfinite(last) else None,
        "best": float(values[place]),
        "best_step": int(series.steps[place]),
    }


def hyperparameters(log: RunLog) -> dict[str, Any]:
    """Numbers, truths and text only, whatever a damaged or foreign file holds."""
    found = log.about.get("hyperparameters")
    if not isinstance(found, dict):
        return {}
    kept: dict[str, Any] = {}
    for name, value in list(found.items())[:500]:
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)
        if isinstance(value, bool | int | float) or value is None:
            kept[str(name)] = value
        else:
            kept[str(name)] = str(value)[:500]
    return kept


def moment(log: RunLog, name: str) -> float | None:
    """A time of a run: "started" or "ended"; None where it is not told."""
    value = log.about.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e12 else None


def summary(log: RunLog, name: str) -> dict[str, Any]:
    """What a table of runs shows of one."""
    scalars = {tag: s for tag, s in log.scalars.items() if len(s)}
    begun = moment(log, "started")
    if begun is None and scalars:
        begun = min(float(s.times[0]) for s in scalars.values())
    ended = moment(log, "ended")
    if ended is None and scalars:
        ended = max(float(s.times[-1]) for s in scalars.values())
    trained = [int(s.steps[-1]) for t, s in scalars.items() if not t.startswith("system/")]
    seconds = ended - begun if begun is not None and ended is not None else None
    return {
        "name": name,
        "status": log.status,
        "started": begun if begun is not None and math.isfinite(begun) else None,
        "seconds": seconds if seconds is not None and math.isfinite(seconds) else None,
        "step": max(trained, default=None),
        "figures": {tag: figures(s, tag) for tag, s in scalars.items()},
        "hyperparameters": hyperparameters(log),
        "problems": list(log.problems),
    }


def differing(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The hyper-parameters in which runs differ, in the order of the first that has each."""
    names = dict.fromkeys(name for row in rows for name in row["hyperparameters"])
    return [
        name for name in names if len({repr(row["hyperparameters"].get(name)) for row in rows}) > 1
    ]


def main_figures(rows: Sequence[dict[str, Any]], most: int = 3) -> list[str]:
    """The figures worth a column: evaluations, then what most runs have; losses first."""
    counts: dict[str, int] = {}
    for row in rows:
        for tag in row["figures"]:
            if not tag.startswith(_NOT_RESULTS):
                counts[tag] = counts.get(tag, 0) + 1

    def rank(tag: str) -> tuple[bool, bool, int, str]:
        evaluated = tag.startswith(("evaluation/", "eval/", "val", "test"))
        known = any(word in tag for word in ("loss", "accuracy", "return", "reward"))
        return not evaluated, not known, -counts[tag], tag

    return sorted(counts, key=rank)[:most]


def name_of(folder: Path, root: Path) -> str:
    """A run's name within the folder of all runs."""
    inner = folder.relative_to(root).as_posix() if folder != root else ""
    return inner or folder.resolve().name

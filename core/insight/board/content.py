"""What the board shows: the runs of a folder, kept up to date, as plain values for JSON.

Runs and tags are named by the numbers that were given to them here: no name that a client sends
ever becomes part of a path.
"""

from __future__ import annotations

import json
import math
import os
import stat
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ..runs.compare import lower_is_better, main_figures, name_of, summary
from ..runs.reader import Moment, RunLog, runs_in
from ..runs.writer import FILE, PROFILE
from .sampling import rebinned, smoothed, thinned

KINDS = ("scalars", "histograms", "images", "texts", "confusions")
_EVERY = 1.0  # seconds between looks at the files
_SEARCH_EVERY = 5.0  # seconds between searches for new runs
_LARGEST_JSON = 64 << 20
_BINS = 64
_MOMENTS = 80  # histograms of one tag that are drawn
_TEXTS = 200
_MATRICES = 30  # of one tag
_CLASSES = 100  # of a confusion matrix that is drawn: those that are taken for others most
_TEXT = 100_000  # characters of one text
_CALLS = 40_000  # of a profile, the longest
_DEPTH, _MODULES = 60, 20_000  # of a structure
# What may be shown, by how it begins: nothing that a browser could run.
_PICTURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


@dataclass
class _Shown:
    """A run, and when it last changed."""

    log: RunLog
    name: str
    changed: int = 0
    seen: str = ""
    lengths: dict[str, int] = field(default_factory=dict)
    tags: dict[str, int] = field(default_factory=dict)  # scalar -> when it last changed


def picture_kind(data: bytes) -> str | None:
    """The media type of a picture that may be shown, by its first bytes; None for others."""
    for start, kind in _PICTURES:
        if data.startswith(start):
            return kind
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


class Board:
    """The runs in a folder.

    Args:
        root: the folder of runs, or a run.
    Raises:
        DataError: it is no folder.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"{root} is no folder: `bestiary board FOLDER` shows the runs in one")
        self.runs: list[_Shown] = []
        self.tags: dict[str, list[str]] = {kind: [] for kind in KINDS}
        self._numbers: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
        self._known: dict[Path, int] = {}
        self._refused: dict[str, str] = {}
        self._clock = 0  # counts updates that brought something
        self._looked = self._searched = -math.inf
        self._lock = threading.RLock()

    def update(self, *, force: bool = False) -> None:
        """Look for new runs and read what has come since, at most once a second."""
        with self._lock:
            now = time.monotonic()
            if not force and now - self._looked < _EVERY:
                return
            if force or now - self._searched >= _SEARCH_EVERY:
                self._search()
                self._searched = now
            self._clock += 1
            for run in self.runs:
                self._update(run)
            self._looked = time.monotonic()

    def overview(self, since: int = -1) -> dict[str, Any]:
        """The table of runs: those that changed after `since`, an earlier answer's `version`."""
        with self._lock:
            self.update()
            rows = []
            for number, run in enumerate(self.runs):
                if run.changed <= since:
                    continue
                row = summary(run.log, run.name)
                numbers = self._numbers["scalars"]
                row["figures"] = {numbers[t]: f for t, f in row["figures"].items()}
                row["has"] = {
                    kind: [self._numbers[kind][tag] for tag in self._of(run, kind)]
                    for kind in KINDS
                }
                row["structure"] = isinstance(run.log.about.get("structure"), dict)
                row["profile"] = self._readable(run.log.folder / PROFILE)
                rows.append({"run": number, **row})
            return {
                "version": self._clock,
                "runs": rows,
                "count": len(self.runs),
                "tags": self.tags,
                "lower": [n for n, t in enumerate(self.tags["scalars"]) if lower_is_better(t)],
                "main": self._main() if rows else None,
                "refused": [f"{name}: {why}" for name, why in sorted(self._refused.items())],
                "folder": self.root.resolve().name,
            }

    def scalars(
        self,
        tag: int,
        runs: Sequence[int] | None = None,
        *,
        since: int = -1,
        width: int = 600,
        axis: str = "step",
        log: bool = False,
        low: float | None = None,
        high: float | None = None,
        smooth: float = 0.0,
    ) -> dict[str, Any]:
        """Points of one tag, of the runs in which it changed after `since`.

        Args:
            width: of the chart in pixels.
            axis: "step", "relative" (seconds since the run's first value) or "wall".
            low, high: the part of the axis that is shown.
            smooth: weight of what was.
        Raises:
            DataError: there is no such tag, or an argument is out of range.
        """
        if axis not in ("step", "relative", "wall"):
            raise DataError(f"axis={axis!r} is none of step, relative, wall", got=axis)
        if not 1 <= width <= 10_000 or not 0 <= smooth <= 0.9999:
            raise DataError("width is from 1 to 10000, smooth from 0 to 0.9999")
        with self._lock:
            name = self._tag("scalars", tag)
            found = {}
            chosen = range(len(self.runs)) if runs is None else runs
            for number in chosen:
                run = self._run(number)
                if run.tags.get(name, -2) > since:
                    series = run.log.scalars[name]
                    x = {"step": series.steps, "wall": series.times}.get(axis)
                    x = series.times - series.times.min() if x is None else x
                    part = _points(np.asarray(x, np.float64), series.values, width, log, low, high,
                                   smooth)  # fmt: skip
                    found[number] = part
            return {"version": self._clock, "tag": tag, "runs": found}

    def histograms(self, run: int, tag: int) -> dict[str, Any]:
        """The histograms of one tag over time, on common bins."""
        with self._lock:
            moments = self._moments("histograms", run, tag)
        moments = [moments[i] for i in _spread(len(moments), _MOMENTS)]
        ends = [(float(m.content.edges[0]), float(m.content.edges[-1])) for m in moments]
        usable = [
            m
            for m, (low, high) in zip(moments, ends, strict=True)
            if math.isfinite(low) and math.isfinite(high) and abs(low) < 1e38 and abs(high) < 1e38
        ]
        if not usable:
            return {"steps": [], "low": 0.0, "high": 1.0, "rows": []}
        low = min(float(m.content.edges[0]) for m in usable)
        high = max(float(m.content.edges[-1]) for m in usable)
        if not high > low:
            low, high = low - 0.5, high + 0.5
        grid = np.linspace(low, high, _BINS + 1)
        rows = [rebinned(m.content.edges, m.content.counts, grid) for m in usable]
        return {
            "steps": [m.step for m in usable],
            "low": low,
            "high": high,
            "rows": [_numbers(row, 6) for row in rows],
        }

    def images(self, run: int, tag: int) -> dict[str, Any]:
        """Which pictures there are of one tag."""
        with self._lock:
            moments = self._moments("images", run, tag)
        return {
            "steps": [m.step for m in moments],
            "times": _numbers([m.time for m in moments]),
            "shown": [picture_kind(m.content) is not None for m in moments],
        }

    def image(self, run: int, tag: int, place: int) -> tuple[str, bytes]:
        """Media type and bytes of one picture.

        Raises:
            DataError: there is none, or it is of a kind that is not shown.
        """
        with self._lock:
            moments = self._moments("images", run, tag)
        if not 0 <= place < len(moments):
            raise DataError(f"there is no picture {place}")
        data = bytes(moments[place].content)
        kind = picture_kind(data)
        if kind is None:
            raise DataError("this picture is no PNG, JPEG, GIF or WebP")
        return kind, data

    def texts(self, run: int, tag: int) -> dict[str, Any]:
        """The newest texts of one tag."""
        with self._lock:
            moments = self._moments("texts", run, tag)[-_TEXTS:]
        return {
            "steps": [m.step for m in moments],
            "texts": [str(m.content)[:_TEXT] for m in moments],
        }

    def confusions(self, run: int, tag: int) -> dict[str, Any]:
        """The confusion matrices of one tag over time."""
        with self._lock:
            moments = self._moments("confusions", run, tag)
        moments = [moments[i] for i in _spread(len(moments), _MATRICES)]
        return {
            "steps": [m.step for m in moments],
            "matrices": [_matrix(m.content) for m in moments],
        }

    def details(self, run: int) -> dict[str, Any]:
        """Structure, profile, versions and command of one run."""
        with self._lock:
            shown = self._run(run)
            about = shown.log.about
            folder = shown.log.folder
        left = [_MODULES]
        command = about.get("command")
        versions = about.get("versions")
        return {
            "structure": _module(about.get("structure"), 0, left),
            "profile": self._profile(folder),
            "command": [str(part)[:500] for part in command[:100]]
            if isinstance(command, list)
            else [],
            "versions": {str(k): str(v)[:200] for k, v in list(versions.items())[:50]}
            if isinstance(versions, dict)
            else {},
            "device": str(about.get("device", ""))[:100],
        }

    # -- inner workings --------------------------------------------------------------------

    def _search(self) -> None:
        inside = self.root.resolve()
        for folder in runs_in(self.root):
            why = _outside(folder, inside)
            if why is not None:
                self._refused[name_of(folder, self.root)] = why
            elif folder not in self._known:
                self._known[folder] = len(self.runs)
                self.runs.append(_Shown(RunLog(folder), name_of(folder, self.root)))

    def _update(self, run: _Shown) -> None:
        why = _outside(run.log.folder, self.root.resolve())
        if why is not None:
            self._refused[run.name] = why
            return
        news = run.log.update()
        seen = f"{run.log.status} {len(run.log.problems)} {run.log.about.get('ended')}"
        seen += str(self._readable(run.log.folder / PROFILE))
        if not news and seen == run.seen:
            return
        run.changed, run.seen = self._clock, seen
        for tag, series in run.log.scalars.items():
            # Rewritten steps leave the length as it is; the newest time tells them.
            state = hash((len(series), float(series.times.max()) if len(series) else 0.0))
            if run.lengths.get(tag) != state:
                run.lengths[tag], run.tags[tag] = state, self._clock
        for kind in KINDS:
            numbers = self._numbers[kind]
            for tag in self._of(run, kind):
                if tag not in numbers:
                    numbers[tag] = len(numbers)
                    self.tags[kind].append(tag)

    def _main(self) -> list[int]:
        numbers = self._numbers["scalars"]
        rows = [{"figures": run.log.scalars} for run in self.runs]
        return [numbers[tag] for tag in main_figures(rows) if tag in numbers]

    def _of(self, run: _Shown, kind: str) -> list[str]:
        found: dict[str, Any] = getattr(run.log, kind)
        return [tag for tag in found if len(found[tag])]

    def _run(self, number: int) -> _Shown:
        if not 0 <= number < len(self.runs):
            raise DataError(f"there is no run {number}")
        return self.runs[number]

    def _tag(self, kind: str, number: int) -> str:
        if not 0 <= number < len(self.tags[kind]):
            raise DataError(f"there is no tag {number} of {kind}")
        return self.tags[kind][number]

    def _moments(self, kind: str, run: int, tag: int) -> list[Moment]:
        found: dict[str, list[Moment]] = getattr(self._run(run).log, kind)
        return list(found.get(self._tag(kind, tag), ()))

    def _readable(self, path: Path) -> bool:
        try:
            found = path.lstat()
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST_JSON

    def _profile(self, folder: Path) -> dict[str, Any] | None:
        path = folder / PROFILE
        if not self._readable(path):
            return None
        try:
            return _calls(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError,
                RecursionError):  # fmt: skip
            return None


def _matrix(found: Any) -> dict[str, Any]:
    """Labels and counts; of many classes those that are confused most."""
    counts, labels = found.counts, found.labels
    kept = np.arange(len(labels))
    if len(labels) > _CLASSES:
        wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
        kept = np.sort(np.argsort(-wrong, kind="stable")[:_CLASSES])
    total = int(counts.sum())
    return {
        "labels": [labels[i][:100] for i in kept],
        "counts": counts[np.ix_(kept, kept)].tolist(),
        "classes": len(labels),
        "accuracy": float(np.trace(counts) / total) if total else None,
    }


def _outside(folder: Path, root: Path) -> str | None:
    """Why a run is not read: a link in it leads out of the root, or a file is none."""
    try:
        if not folder.resolve().is_relative_to(root):
            return "it lies outside the folder"
        with os.scandir(folder) as entries:
            for entry in entries:
                ours = entry.name == FILE or ".tfevents." in entry.name
                if not ours:
                    continue
                if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
                    return f"{entry.name[:100]} is a link that leads out of the folder"
                if entry.name == FILE and not entry.is_file():
                    return f"{FILE} is no file"
                if entry.name == FILE and entry.stat().st_size > _LARGEST_JSON:
                    return f"{FILE} is larger than {_LARGEST_JSON >> 20} MB"
    except (OSError, RuntimeError) as error:
        return str(error)[:200]
    return None


def _points(
    x: Any, y: Any, width: int, log: bool, low: float | None, high: float | None, smooth: float
) -> dict[str, Any]:
    finite = np.isfinite(y) & np.isfinite(x)
    odd = np.flatnonzero(~finite)
    told = {"odd": len(odd), "first_odd": _number(float(x[odd[0]])) if len(odd) else None}
    x, y = x[finite], y[finite]
    if len(x) > 1 and (np.diff(x) < 0).any():  # times of a resumed run
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
    average = smoothed(y, smooth) if smooth else None
    if low is not None or high is not None:  # and one point beyond each end, for the line
        first = 0 if low is None else max(int(np.searchsorted(x, low)) - 1, 0)
        last = len(x) if high is None else int(np.searchsorted(x, high, "right")) + 1
        x, y = x[first:last], y[first:last]
        average = None if average is None else average[first:last]
    drawn = thinned(x, y, width, log=log)
    found = {**told, "count": int(finite.sum()), "x": _numbers(x[drawn], 15),
             "y": _numbers(y[drawn])}  # fmt: skip
    if average is not None:
        some = thinned(x, average, width, log=log)
        found["sx"], found["sy"] = _numbers(x[some], 15), _numbers(average[some])
    return found


def _spread(count: int, most: int) -> list[int]:
    """At most so many places, evenly spread, with the first and the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _numbers(values: Any, digits: int = 7) -> list[float | None]:
    """For JSON: short, and None where a value is not finite."""
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    if digits >= 15:
        return [int(v) if v == int(v) else v for v in listed]
    return [float(f"{v:.{digits}g}") if math.isfinite(v) else None for v in listed]


def _module(found: Any, depth: int, left: list[int]) -> dict[str, Any] | None:
    """A structure as `run.json` tells it, with nothing in it that is not expected."""
    if not isinstance(found, dict) or depth > _DEPTH or left[0] <= 0:
        return None
    left[0] -= 1
    inner = found.get("children")
    children = {}
    for name, child in inner.items() if isinstance(inner, dict) else ():
        kept = _module(child, depth + 1, left)
        if kept is not None:
            children[str(name)[:200]] = kept
    count = found.get("parameters")
    return {
        "class": str(found.get("class", ""))[:200],
        "words": str(found.get("words", ""))[:200],
        "inputs": str(found.get("inputs", ""))[:200],
        "outputs": str(found.get("outputs", ""))[:200],
        "parameters": count if isinstance(count, int) else 0,
        "children": children,
    }


def _calls(found: dict[str, Any]) -> dict[str, Any]:
    """A profile for drawing: the longest calls, times in seconds."""
    ops: list[list[Any]] = [
        [str(name)[:200], str(path)[:500], float(start), float(seconds), int(size),
         " ".join("x".join(str(int(n)) for n in shape) or "scalar" for shape in shapes[:8])]
        for name, path, start, seconds, size, shapes in found["ops"]
    ]  # fmt: skip
    modules: list[list[Any]] = [
        [str(path)[:500], str(kind)[:200], float(start), float(seconds)]
        for path, kind, start, seconds in found["modules"]
    ]
    if not all(math.isfinite(v) for row in (*ops, *modules) for v in row[2:4]):
        raise ValueError("times are finite")
    left_out = max(len(ops) - _CALLS, 0) + max(len(modules) - _CALLS, 0)
    ops = sorted(sorted(ops, key=lambda row: -float(row[3]))[:_CALLS], key=lambda row: row[2])
    modules = sorted(modules, key=lambda row: -float(row[3]))[:_CALLS]
    modules.sort(key=lambda row: row[2])
    return {
        "seconds": float(found["seconds"]),
        "peak_bytes": int(found["peak_bytes"]),
        "ops": ops,
        "modules": modules,
        "left_out": left_out,
    }

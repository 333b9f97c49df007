"""Run logs read back, ours and TensorBoard's, also while they are written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError
from . import events
from .frames import Found, find_records
from .scalars import read_numbers
from .writer import FILE

if TYPE_CHECKING:
    from PIL import Image

_PART = 64 << 20  # bytes of a file that are read at a time
_PROBLEMS = 20  # told of a file


@dataclass
class Series:
    """Numbers of one tag over time, in the order of their steps.

    Attributes:
        steps, times, values: (N,) each; times in seconds since 1970.
    """

    steps: Any
    times: Any
    values: Any

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> float:
        """The newest value."""
        return float(self.values[-1])

    def smoothed(self, weight: float = 0.9) -> Any:
        """The values as an average that forgets: `weight` of what was, the rest of what is.

        The first values are not pulled towards zero. Those that are not finite are passed over.

        Raises:
            DataError: the weight is not from 0 to below 1.
        """
        if not 0 <= weight < 1:
            raise DataError(f"weight={weight} must be from 0 to below 1", got=weight)
        found = np.empty(len(self.values))
        average = scale = 0.0
        for i, value in enumerate(self.values.tolist()):
            if np.isfinite(value):
                average = weight * average + (1 - weight) * value
                scale = weight * scale + (1 - weight)
            found[i] = average / scale if scale else np.nan
        return found


@dataclass(frozen=True)
class Moment:
    """Something other than a number that was logged: a histogram, a picture, text.

    Attributes:
        content: an `events.Histogram`, the bytes of a picture, a string, or an `events.Confusion`.
    """

    step: int
    time: float
    content: Any

    def image(self) -> Image.Image:
        """The picture."""
        import io

        from PIL import Image

        return Image.open(io.BytesIO(self.content))


@dataclass
class RunLog:
    """What a run has logged so far; `update` reads what has come since.

    Attributes:
        folder: where it is.
        about: hyper-parameters, versions, command, status: what `run.json` says.
        scalars, histograms, images, texts, confusions: by tag.
        problems: what could not be read, with its place.
    """

    folder: Path
    about: dict[str, Any] = field(default_factory=dict)
    scalars: dict[str, Series] = field(default_factory=dict)
    histograms: dict[str, list[Moment]] = field(default_factory=dict)
    images: dict[str, list[Moment]] = field(default_factory=dict)
    texts: dict[str, list[Moment]] = field(default_factory=dict)
    confusions: dict[str, list[Moment]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    _read: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def status(self) -> str:
        """ "running", "finished", "failed", "stopped", or "lost" where the process is gone."""
        status = str(self.about.get("status", "unknown"))
        if status == "running" and _gone(self.about):
            return "lost"
        return status

    def update(self) -> bool:
        """Read what has come since; whether there was anything."""
        self.about = _about(self.folder, self.problems)
        found = False
        for path in event_files(self.folder):
            found |= self._update_from(path)
        return found

    def plot(self, *tags: str, size: tuple[int, int] = (720, 420)) -> Image.Image:
        """A chart of numbers over steps; of all whose tag holds "loss" or "accuracy" unless named.

        Raises:
            DataError: there are none of that tag.
        """
        from ..charts import step_chart

        for tag in tags:
            if tag not in self.scalars:
                known = ", ".join(sorted(self.scalars)[:8]) or "none"
                raise DataError(f"{self.name} has no numbers {tag!r}; it has: {known}", tag=tag)
        chosen = tags or tuple(t for t in self.scalars if "loss" in t or "accuracy" in t)
        others = [tag for tag in self.scalars if not tag.startswith("system/")]
        chosen = chosen or tuple(others or self.scalars)[:6]
        lines = {tag: (self.scalars[tag].steps, self.scalars[tag].values) for tag in chosen}
        return step_chart(lines, title=self.name, size=size)

    def _repr_png_(self) -> bytes:
        from ..charts import png

        return png(self.plot())

    def __repr__(self) -> str:
        counts = {
            "numbers": sum(len(s) for s in self.scalars.values()),
            "histograms": sum(map(len, self.histograms.values())),
            "pictures": sum(map(len, self.images.values())),
            "texts": sum(map(len, self.texts.values())),
        }
        shown = ", ".join(f"{n:,} {what}" for what, n in counts.items() if n)
        return f"RunLog({str(self.folder)!r}, {self.status}: {shown or 'nothing yet'})"

    # -- inner workings --------------------------------------------------------------------

    def _update_from(self, path: Path) -> bool:
        place = self._read.get(path.name, 0)
        try:
            size = path.stat().st_size
        except OSError as error:
            self._problem(f"{path.name}: {error.strerror}")
            return False
        if size < place:  # written anew
            place = 0
        changed = False
        while place < size:
            with open(path, "rb") as file:
                file.seek(place)
                data = file.read(max(_PART, _length_at(file, place, size)))
            found = find_records(data, base=place)
            for problem in found.problems:
                self._problem(f"{path.name}: {problem}")
            changed |= bool(len(found.firsts))
            self._take(data, found, path.name)
            if not found.end:
                break  # the rest is not written yet
            place += found.end
            self._read[path.name] = place
        return changed

    def _take(self, data: bytes, found: Found, name: str) -> None:
        numbers, rest = read_numbers(data, found.firsts, found.lengths)
        parts: dict[str, list[tuple[Any, Any, Any]]] = {}
        for part in numbers:
            parts.setdefault(part.tag, []).append((part.steps, part.times, part.values))
        single: dict[str, list[tuple[int, float, float]]] = {}
        for i in rest:
            first, length = int(found.firsts[i]), int(found.lengths[i])
            try:
                event = events.decode(data[first : first + length])
            except (DataError, ValueError, RecursionError) as error:
                self._problem(f"{name}: an event is not understood: {error}")
                continue
            for value in event.values:
                if value.kind == "scalar":
                    row = (event.step, event.time, value.content)
                    single.setdefault(value.tag, []).append(row)
                else:
                    self._keep(value, Moment(event.step, event.time, value.content))
        for tag, rows in single.items():
            steps, times, values = zip(*rows, strict=True)
            parts.setdefault(tag, []).append((np.array(steps), np.array(times), np.array(values)))
        for tag, several in parts.items():
            self._extend(tag, several)

    def _keep(self, value: events.Value, moment: Moment) -> None:
        if value.kind == "hyperparameters":
            self.about.setdefault("hyperparameters", moment.content)
            return
        kinds = {
            "confusion": self.confusions,
            "histogram": self.histograms,
            "image": self.images,
            "text": self.texts,
        }
        kinds[value.kind].setdefault(value.tag, []).append(moment)

    def _extend(self, tag: str, parts: list[tuple[Any, Any, Any]]) -> None:
        earlier = self.scalars.get(tag)
        if earlier is not None:
            parts = [(earlier.steps, earlier.times, earlier.values), *parts]
        steps, times, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        # A resumed run writes some steps again: of one step, the newest counts.
        order = np.lexsort((times, steps))
        steps, times, values = steps[order], times[order], values[order]
        newest = np.append(steps[1:] != steps[:-1], True) if len(steps) else np.ones(0, bool)
        self.scalars[tag] = Series(steps[newest], times[newest], values[newest])

    def _problem(self, text: str) -> None:
        if len(self.problems) < _PROBLEMS and text not in self.problems:
            self.problems.append(text)


def read_run(folder: str | Path) -> RunLog:
    """What a run has logged.

    Raises:
        DataError: the folder holds no run.
    """
    path = Path(folder)
    if not is_run(path):
        inside = [p.name for p in runs_in(path)] if path.is_dir() else []
        hint = f"\nRuns within it: {', '.join(inside[:8])}" if inside else ""
        raise DataError(f"{folder} holds no run: no events.out.tfevents.* file{hint}")
    log = RunLog(path)
    log.update()
    return log


def is_run(folder: Path) -> bool:
    """Whether events are in it."""
    return next(iter(event_files(folder)), None) is not None


def runs_in(folder: str | Path) -> list[Path]:
    """The folders of runs in a folder and in those within it, by name."""
    found = []
    for place, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if any(_is_events(name) for name in files):
            found.append(Path(place))
    return sorted(found)


def event_files(folder: Path) -> Iterator[Path]:
    """The files of events of one run, by name, which begins with their time."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError:
        return
    for name in names:
        if _is_events(name):
            yield folder / name


def _is_events(name: str) -> bool:
    return ".tfevents." in name


def _length_at(file: Any, place: int, size: int) -> int:
    """The size of the record at a place, if it may fit in the file: large ones are read whole."""
    head = file.read(8)
    file.seek(place)
    length = int.from_bytes(head, "little") + 16
    return length if place + length <= size else 0


def _about(folder: Path, problems: list[str]) -> dict[str, Any]:
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        if len(problems) < _PROBLEMS:
            problems.append(f"{FILE}: {error}")
        return {}
    return found if isinstance(found, dict) else {}


def _gone(about: dict[str, Any]) -> bool:
    """Whether the process that writes a run of this machine has ended without a word."""
    import socket

    process = about.get("process")
    if about.get("host") != socket.gethostname() or not isinstance(process, int) or process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False

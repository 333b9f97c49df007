"""`Run`: a training run's log, written while it goes on, readable at any moment."""

from __future__ import annotations

import atexit
import io
import json
import math
import os
import platform
import socket
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ...errors import ConfigError, DataError
from ...paths import atomic
from . import events
from .frames import frame
from .structure import structure, watched
from .use import Use

if TYPE_CHECKING:
    from PIL import Image

    from ..profile import Profile

FILE = "run.json"
PROFILE = "profile.json"
_INTERVAL = 0.5  # seconds that a record waits in memory at most
_LARGEST_STEP = 1 << 62
_LARGEST = 3.4028234e38  # in 32 bits
_LIBRARIES = ("bestiary", "numpy", "ml_dtypes", "cupy", "gymnasium")


class Run:
    """The log of one run in a folder: numbers, histograms, pictures, text, and how it began.

    Events go to a file in TensorBoard's format, everything about the run as a whole to `run.json`:
    hyper-parameters, versions, device, command, structure of the model. No environment variables
    are written. A process that is killed loses what it logged in the last half second, at most.

        with bt.Run("runs/first", {"lr": 1e-3}) as run:
            run.scalar("loss", 0.7, step=1)

    Args:
        folder: made if it is not there; one that holds a run already is gone on with.
        hyperparameters: numbers, truths and text.
        module: whose structure is written down.
        system: log what this process uses of processors and memory once a second, as the numbers
            `system/cpu` (percent of one processor) and `system/memory` (megabytes), and of a GPU in
            use `system/gpu` (percent) and `system/gpu_memory`; their steps are the seconds since
            the run was first begun.
    Raises:
        ConfigError: nothing can be written there, or a hyper-parameter is of another kind.
    """

    def __init__(
        self,
        folder: str | Path,
        hyperparameters: Mapping[str, Any] | None = None,
        *,
        module: Any = None,
        system: bool = True,
    ) -> None:
        self.folder = Path(folder)
        settings = _checked(hyperparameters or {})
        start = time.time()
        host = socket.gethostname().replace(os.sep, "-") or "host"
        name = f"events.out.tfevents.{int(start)}.{host}.{os.getpid()}.{time.perf_counter_ns()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self.folder / name, "xb")  # noqa: SIM115
        except OSError as error:
            raise ConfigError(
                f"no run can be written in {folder}: {error.strerror}", folder=str(folder)
            ) from None
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._wake = threading.Event()
        self._closed = False
        self._use = Use() if system else None
        earlier = _earlier(self.folder / FILE)
        self.about: dict[str, Any] = {
            **earlier,
            "name": self.folder.name,
            "hyperparameters": settings,
            "started": start,
            "begun": earlier.get("begun", start),
            "ended": None,
            "status": "running",
            "process": os.getpid(),
            "host": host,
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else [],
            "versions": _versions(),
        }
        if module is not None:
            self.about["structure"] = structure(module)
            self.about["device"] = str(module.device)
        self._write_about()
        self._add(events.version(start))
        if settings:
            self._add(events.hyperparameters(start, settings))
        self._thread = threading.Thread(
            target=_flush_often, args=(weakref.ref(self), self._wake), daemon=True, name="run-log"
        )
        self._thread.start()
        atexit.register(_close_quietly, weakref.ref(self))

    # -- logging ---------------------------------------------------------------------------

    def scalar(self, tag: str, value: Any, step: int) -> None:
        """A number at a step. Tags with a slash are grouped: "train/loss"."""
        self._add(events.scalar(time.time(), _step(step), _tag(tag), _number(tag, value)))

    def scalars(self, values: Mapping[str, Any], step: int) -> None:
        """Several numbers at a step, by tag."""
        now, step = time.time(), _step(step)
        for tag, value in values.items():
            self._add(events.scalar(now, step, _tag(tag), _number(tag, value)))

    def histogram(self, tag: str, values: Any, step: int) -> None:
        """How the values of a tensor or an array are spread."""
        self._add(events.histogram(time.time(), _step(step), _tag(tag), _array(values)))

    def image(self, tag: str, picture: Any, step: int) -> None:
        """A picture: Pillow's, an array (H, W), (H, W, 3 or 4), or a path of a PNG, JPEG or GIF.

        Arrays of floats are from 0 to 1, arrays of bytes from 0 to 255.
        """
        height, width, data = _picture(picture)
        self._add(events.image(time.time(), _step(step), _tag(tag), height, width, data))

    def text(self, tag: str, value: str, step: int = 0) -> None:
        """Text, which may hold Markdown."""
        self._add(events.text(time.time(), _step(step), _tag(tag), str(value)))

    def confusion(self, tag: str, counts: Any, labels: Sequence[str], step: int) -> None:
        """How often each class was taken for each, with the names of the classes.

        Shape: (N, N), whole numbers; rows are the true classes, columns those predicted.
        Raises:
            DataError: it is no such matrix, or there are other than N labels.
        """
        self._add(events.confusion(time.time(), _step(step), _tag(tag), _matrix(counts, labels)))

    def parameters(self, module: Any, step: int, *, gradients: bool = True) -> None:
        """Histograms of all parameters of a module, and of their gradients where there are any."""
        for name, parameter in module.named_parameters():
            tag = name.replace(".", "/")
            self.histogram(f"parameters/{tag}", parameter, step)
            if gradients and parameter.grad is not None:
                self.histogram(f"gradients/{tag}", parameter.grad, step)

    @contextmanager
    def shapes(self, module: Any) -> Iterator[None]:
        """Add to the tree of a module what its parts are given, and give, inside.

        A trainer does so at its first step; it costs nothing afterwards.
        """
        with watched(module) as seen:
            yield
        if seen and not self._closed:
            self.about["structure"] = structure(module, seen)
            self._write_about()

    def profile(self, profile: Profile) -> None:
        """Keep what `bt.profile()` measured, for the timeline on the board; the newest is kept.

        Raises:
            DataError: it is no profile.
        """
        if not hasattr(profile, "to_dict") or not hasattr(profile, "ops"):
            raise DataError(
                f"what `with bt.profile() as p:` gives is wanted, got {type(profile).__name__}",
                got=type(profile),
            )
        with atomic(self.folder / PROFILE) as part:
            part.write_text(json.dumps(profile.to_dict()), encoding="utf-8")

    def plot(self, *tags: str, size: tuple[int, int] = (720, 420)) -> Image.Image:
        """A chart of what was logged so far, as `bt.read_run(folder).plot()` draws it.

        Raises:
            DataError: there are no numbers of that tag.
        """
        from .reader import read_run

        if not self._closed:
            self.flush()
        return read_run(self.folder).plot(*tags, size=size)

    def _repr_png_(self) -> bytes:
        from ..charts import png

        return png(self.plot())

    # -- the file --------------------------------------------------------------------------

    def flush(self) -> None:
        """Hand everything to the operating system, which keeps it if this process dies."""
        with self._lock:
            if self._waiting and not self._file.closed:
                self._file.write(b"".join(self._waiting))
                self._file.flush()
                self._waiting.clear()

    def close(self, status: str = "finished") -> None:
        """End the run; `status` is "finished", "failed" or "stopped"."""
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        self.flush()
        self._file.close()
        self.about.update(status=status, ended=time.time())
        self._write_about()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.close("stopped" if issubclass(kind, KeyboardInterrupt) else "failed")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.about['status']})"

    def _add(self, event: bytes) -> None:
        if self._closed:
            raise ConfigError(f"the run in {self.folder} is closed: nothing more can be logged")
        with self._lock:
            self._waiting.append(frame(event))

    def _sample(self) -> None:
        """What the process uses now, if a second has passed since the last time."""
        found = self._use.sample() if self._use is not None and not self._closed else None
        if found is not None:
            now = time.time()
            step = max(int(now - float(self.about["begun"])), 0)
            with self._lock:
                for name, value in found.items():
                    event = events.scalar(now, step, f"system/{name}", value)
                    self._waiting.append(frame(event))

    def _write_about(self) -> None:
        with atomic(self.folder / FILE) as part:
            part.write_text(json.dumps(self.about, indent=1), encoding="utf-8")


@contextmanager
def logged(
    folder: str | Path | None, hyperparameters: Mapping[str, Any], module: Any
) -> Iterator[Run | None]:
    """The run of a training whose results go to a folder; None where they are not kept."""
    if folder is None:
        yield None
        return
    with Run(folder, hyperparameters, module=module) as run:
        yield run


def _flush_often(run: weakref.ref[Run], wake: threading.Event) -> None:
    while not wake.wait(_INTERVAL):
        found = run()
        if found is None:
            return
        try:
            found._sample()
            found.flush()
        except OSError as error:  # a full disk must not stop the training
            print(f"run log: {error}; later events may be missing", file=sys.stderr)
            return
        del found


def _close_quietly(run: weakref.ref[Run]) -> None:
    found = run()
    if found is not None and not found._closed:
        found.close("stopped")


def _matrix(counts: Any, labels: Sequence[str]) -> events.Confusion:
    array, names = _array(counts), tuple(str(label) for label in labels)
    whole = array.dtype.kind in "iu" and (not array.size or array.min() >= 0)
    if array.shape != (len(names), len(names)) or not whole or not names:
        raise DataError(
            f"a confusion matrix of {len(names)} classes is of shape {(len(names),) * 2} and holds "
            f"whole numbers from 0 up; got {array.dtype} of shape {array.shape}",
            got=array.shape,
        )
    if len(names) > events.MOST_CLASSES:
        raise DataError(
            f"a confusion matrix may have {events.MOST_CLASSES} classes, not {len(names)}",
            got=len(names),
        )
    return events.Confusion(names, array)


def _versions() -> dict[str, str]:
    from ..system import version_of

    found = {name: version_of(name) for name in _LIBRARIES}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: version for name, version in found.items() if version},
    }


def _earlier(path: Path) -> dict[str, Any]:
    """What an earlier part of this run wrote down, such as its structure."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    kept: dict[str, Any] = {}
    if isinstance(found.get("structure"), dict):
        kept["structure"] = found["structure"]
    begun = found.get("begun")
    if isinstance(begun, float) and 0 < begun <= time.time():
        kept["begun"] = begun
    return kept


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters as numbers, truths and text."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, Path | type):
            value = str(value)
        if isinstance(value, list | tuple):
            value = ", ".join(str(part) for part in value)
        if not isinstance(value, bool | int | float | str):
            raise ConfigError(
                f"the hyper-parameter {name!r} is {type(value).__name__}; numbers, truths and "
                "text can be written down",
                name=name,
            )
        found[name] = str(value) if isinstance(value, float) and not math.isfinite(value) else value
    return found


def _step(step: Any) -> int:
    if isinstance(step, bool) or not isinstance(step, int | np.integer):
        raise DataError(f"step is a whole number, got {step!r}", got=step)
    if not 0 <= step < _LARGEST_STEP:
        raise DataError(f"step={step} is not from 0 to 2**62", got=step)
    return int(step)


def _tag(tag: Any) -> str:
    if not isinstance(tag, str) or not tag:
        raise DataError(f"a tag is text such as 'train/loss', got {tag!r}", got=tag)
    return tag


def _number(tag: str, value: Any) -> float:
    """As it is stored, in 32 bits: what these cannot hold is infinite."""
    try:
        number = float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{tag}: a number is wanted, got {value!r}", got=type(value)) from error
    if abs(number) > _LARGEST:
        return math.copysign(math.inf, number)
    return number


def _array(values: Any) -> Any:
    if hasattr(values, "detach"):
        values = values.detach().cpu().array
    return np.asarray(values)


def _picture(picture: Any) -> tuple[int, int, bytes]:
    from PIL import Image

    if isinstance(picture, str | Path):
        path = Path(picture)
        with Image.open(path) as image:
            if image.format in ("PNG", "JPEG", "GIF", "WEBP"):
                return image.height, image.width, path.read_bytes()
            picture = image.convert("RGB")
    if not isinstance(picture, Image.Image):
        values = _array(picture)
        if values.dtype.kind == "f":
            values = np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)
        whole = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))
        if not whole or values.dtype != np.uint8 or 0 in values.shape:
            raise DataError(
                f"a picture is an array (H, W), (H, W, 3) or (H, W, 4) of bytes, or of floats from "
                f"0 to 1, got shape {values.shape} of {values.dtype}",
                shape=values.shape,
            )
        picture = Image.fromarray(values)
    buffer = io.BytesIO()
    kept = picture if picture.mode in ("L", "RGB", "RGBA") else picture.convert("RGB")
    kept.save(buffer, format="PNG")
    return picture.height, picture.width, buffer.getvalue()

"""`Run`: a training run's log, written while it goes on, readable at any moment."""

from __future__ import annotations

import atexit
import json
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

from ...errors import ConfigError, DataError
from ...paths import atomic
from . import events
from .frames import frame
from .structure import named_parameters, structure, watched
from .use import Use
from .values import (
    array_of,
    confusion_of,
    number_of,
    picture_bytes,
    plain_settings,
    step_number,
    tag_of,
)

if TYPE_CHECKING:
    from PIL import Image

    from ...nn import Module
    from ..profile import Profile

FILE = "run.json"
PROFILE = "profile.json"
_INTERVAL = 0.5  # seconds that a record waits in memory at most
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
        module: whose structure is written down, or several modules by name.
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
        settings = plain_settings(hyperparameters or {})
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
            self._describe(module)
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
        self._add(events.scalar(time.time(), step_number(step), tag_of(tag), number_of(tag, value)))

    def scalars(self, values: Mapping[str, Any], step: int) -> None:
        """Several numbers at a step, by tag."""
        now, step = time.time(), step_number(step)
        for tag, value in values.items():
            self._add(events.scalar(now, step, tag_of(tag), number_of(tag, value)))

    def histogram(self, tag: str, values: Any, step: int) -> None:
        """How the values of a tensor or an array are spread."""
        self._add(events.histogram(time.time(), step_number(step), tag_of(tag), array_of(values)))

    def image(self, tag: str, picture: Any, step: int) -> None:
        """A picture: Pillow's, an array (H, W), (H, W, 3 or 4), or a path of a PNG, JPEG or GIF.

        Arrays of floats are from 0 to 1, arrays of bytes from 0 to 255.
        """
        height, width, data = picture_bytes(picture)
        self._add(events.image(time.time(), step_number(step), tag_of(tag), height, width, data))

    def text(self, tag: str, value: str, step: int = 0) -> None:
        """Text, which may hold Markdown."""
        self._add(events.text(time.time(), step_number(step), tag_of(tag), str(value)))

    def confusion(self, tag: str, counts: Any, labels: Sequence[str], step: int) -> None:
        """How often each class was taken for each, with the names of the classes.

        Shape: (N, N), whole numbers; rows are the true classes, columns those predicted.
        Raises:
            DataError: it is no such matrix, or there are other than N labels.
        """
        self._add(
            events.confusion(
                time.time(), step_number(step), tag_of(tag), confusion_of(counts, labels)
            )
        )

    def parameters(
        self, module: Module | Mapping[str, Module], step: int, *, gradients: bool = True
    ) -> None:
        """Histograms of all parameters of a module, and of their gradients where there are any.

        Args:
            module: or several, by name.
        """
        for name, parameter in named_parameters(module):
            tag = name.replace(".", "/")
            self.histogram(f"parameters/{tag}", parameter, step)
            if gradients and parameter.grad is not None:
                self.histogram(f"gradients/{tag}", parameter.grad, step)

    def model(self, module: Module | Mapping[str, Module]) -> None:
        """Note the tree of a module, or of several by name, and the device, unless there is one."""
        if "structure" not in self.about:
            self._describe(module)
            self._write_about()

    @contextmanager
    def shapes(self, module: Module | Mapping[str, Module]) -> Iterator[None]:
        """Add to the tree of a module what its parts are given, and give, inside.

        A trainer does so at its first step; it costs nothing afterwards.
        """
        with watched(module) as seen:
            yield
        if not self._closed:
            self._describe(module, seen)
            self._write_about()

    @contextmanager
    def profiled(self) -> Iterator[None]:
        """Keep a profile of what is computed inside, unless somebody is taking one already.

        A trainer does so at its third step.
        """
        from ..profile import busy, profile

        if busy():
            yield
            return
        with profile() as found:
            yield
        if not self._closed:
            self.profile(found)

    def _describe(
        self,
        module: Module | Mapping[str, Module],
        shapes: Mapping[int, tuple[str, str]] | None = None,
    ) -> None:
        self.about["structure"] = structure(module, shapes)
        several = list(module.values()) if isinstance(module, Mapping) else [module]
        self.about["device"] = ", ".join(sorted({str(one.device) for one in several}))

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

"""Progress of anything long: a bar in a terminal, plain lines in a pipe or a log file.

Silent for the first two seconds, so that short work prints nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, TextIO, TypeVar, overload

T = TypeVar("T")

DELAY = 2.0  # seconds of silence
LINE_INTERVAL = 10.0  # seconds between plain lines
_BAR_INTERVAL = 0.1


class Progress(Generic[T]):
    """The object behind `progress`: iterate over it, or use it as a context and `update` it.

    Attributes:
        done: how much has been done so far, in units.
    """

    def __init__(
        self,
        iterable: Iterable[T] | None,
        total: float | None,
        what: str,
        unit: str,
        file: TextIO | None,
        delay: float,
        enabled: bool | None,
    ) -> None:
        self._iterable = iterable
        if total is None and iterable is not None:
            try:
                total = len(iterable)  # type: ignore[arg-type]
            except TypeError:
                total = None
        self.total = total
        self.what = what
        self.unit = unit
        self.done: float = 0
        self._note = ""
        self._file = sys.stderr if file is None else file
        # In a program without a console (pythonw) there is no stderr at all.
        self._on = self._file is not None and (_wanted() if enabled is None else enabled)
        self._start = time.monotonic()
        self._next = self._start + delay
        self._said: tuple[float, str] | None = None  # of the last line: how much, and the note
        self._closed = False
        self._bar: Any = None

    def __iter__(self) -> Iterator[T]:
        if self._iterable is None:
            raise TypeError("progress() was given nothing to iterate over; use update() instead")
        with self:
            for item in self._iterable:
                yield item
                self.update(1)

    def __enter__(self) -> Progress[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(finished=kind is None)

    def update(self, amount: float = 1, note: str | None = None) -> None:
        """Record that `amount` more units are done; `note` is shown behind the figures."""
        self.done += amount
        if note is not None:
            self._note = note
        if self._on and not self._closed and time.monotonic() >= self._next:
            self._show()

    def close(self, finished: bool = True) -> None:
        """End the bar; prints a last line where earlier ones were printed and it is another."""
        if self._closed:
            return
        self._closed = True
        if self._bar is not None:
            self._move_bar()
            self._bar.close()
        elif finished and self._said not in (None, (self.done, self._note)):
            self._line()

    def _show(self) -> None:
        if _is_terminal(self._file):
            self._next = time.monotonic() + _BAR_INTERVAL
            if self._bar is None:
                self._bar = self._open_bar()
            self._move_bar()
        else:
            self._next = time.monotonic() + LINE_INTERVAL
            self._line()

    def _open_bar(self) -> Any:
        from tqdm import tqdm

        in_bytes = self.unit == "B"
        bar = tqdm(
            total=self.total,
            desc=self.what,
            unit=self.unit if self.unit in ("B", "it") else f" {self.unit}",
            unit_scale=in_bytes,
            unit_divisor=1000,
            file=self._file,
            leave=False,
            dynamic_ncols=True,
            mininterval=0,
        )
        bar.start_t -= time.monotonic() - self._start
        return bar

    def _move_bar(self) -> None:
        if self._note:
            self._bar.set_postfix_str(self._note, refresh=False)
        self._bar.update(self.done - self._bar.n)
        self._bar.refresh()

    def _line(self) -> None:
        self._said = self.done, self._note
        try:
            print(self._text(), file=self._file, flush=True)
        except (OSError, ValueError):  # a closed pipe or file: nobody is reading
            self._on = False

    def _text(self) -> str:
        elapsed = time.monotonic() - self._start
        rate = self.done / elapsed if elapsed > 0 else 0.0
        parts = [_amount(self.done, self.unit)] if self.done or self.total else []
        if self.total:
            # "3 of 20 files", and "3 MB of 20 MB", whose units may differ.
            done = _amount(self.done, self.unit if self.unit == "B" else "it")
            parts = [f"{done} of {_amount(self.total, self.unit)} ({self.done / self.total:.0%})"]
        if self.done:
            parts.append(f"{_amount(rate, self.unit)}/s")
        if self.total and rate and self.done < self.total:
            parts.append(f"{_duration((self.total - self.done) / rate)} left")
        else:
            parts.append(f"{_duration(elapsed)}")
        if self._note:
            parts.append(self._note)
        return f"{self.what}: " + ", ".join(parts)


@overload
def progress(
    iterable: Iterable[T],
    total: float | None = None,
    what: str = "working",
    unit: str = "it",
    *,
    file: TextIO | None = None,
    delay: float = DELAY,
    enabled: bool | None = None,
) -> Progress[T]: ...


@overload
def progress(
    iterable: None = None,
    total: float | None = None,
    what: str = "working",
    unit: str = "it",
    *,
    file: TextIO | None = None,
    delay: float = DELAY,
    enabled: bool | None = None,
) -> Progress[Any]: ...


def progress(
    iterable: Iterable[Any] | None = None,
    total: float | None = None,
    what: str = "working",
    unit: str = "it",
    *,
    file: TextIO | None = None,
    delay: float = DELAY,
    enabled: bool | None = None,
) -> Progress[Any]:
    """Show the progress of a loop, or of work that is reported with `update`.

    `for x in progress(items, what="reading")`, or
    `with progress(total=size, what="fetching", unit="B") as bar: ... bar.update(len(chunk))`.

    Args:
        total: how much there is to do; taken from `len(iterable)` where there is one.
        unit: what is counted, in the plural; "B" shows bytes as kB, MB and GB.
        file: where it is shown, the standard error stream unless given.
        delay: seconds of silence at the start.
        enabled: None asks the variable BESTIARY_PROGRESS ("0" or "off" turn it off).
    """
    return Progress(iterable, total, what, unit, file, delay, enabled)


def _wanted() -> bool:
    return os.environ.get("BESTIARY_PROGRESS", "").lower() not in ("0", "off", "no", "false")


def _is_terminal(file: Any) -> bool:
    try:
        return bool(file.isatty())
    except (AttributeError, ValueError):  # no such method, or the file is closed
        return False


def _amount(value: float, unit: str) -> str:
    if unit != "B":
        text = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
        return text if unit == "it" else f"{text} {unit}"
    for name in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {name}"
        value /= 1000
    return f"{value:.3g} GB"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"

"""The line that shows how training goes: a bar in a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..insight.progress import progress

if TYPE_CHECKING:
    from .trainer import Trainer

_ORDER = ("loss", "lr", "grad_norm")


class ProgressLine:
    """Loss, figures, learning rate, samples a second, time spent waiting for data, time left."""

    def __init__(self, quiet: bool, file: TextIO | None = None) -> None:
        self.quiet = quiet
        self._file = sys.stderr if file is None else file
        self._bar: Any = None
        self._start = 0.0
        self._samples = 0
        self._wait = 0.0

    def epoch(self, trainer: Trainer) -> None:
        """An epoch begins."""
        self._start, self._samples, self._wait = time.perf_counter(), 0, 0.0
        if self.quiet:
            return
        try:
            total = len(trainer.batches)  # type: ignore[arg-type]
        except TypeError:
            total = None
        of = f"/{trainer.epochs}" if trainer.epochs is not None else ""
        self._bar = progress(
            total=total, what=f"epoch {trainer.epoch + 1}{of}", unit="batches", file=self._file
        )

    def waited(self, seconds: float) -> None:
        """Time that the loop spent waiting for a batch."""
        self._wait += seconds

    def batch(self, trainer: Trainer, batch: Any) -> None:
        """A batch is done."""
        self._samples += batch_size(batch)
        if self._bar is not None:
            self._bar.update(1, note=self._note(trainer.last))

    def _note(self, figures: Mapping[str, float]) -> str:
        elapsed = max(time.perf_counter() - self._start, 1e-9)
        names = [n for n in _ORDER if n in figures] + [n for n in figures if n not in _ORDER]
        shown = [f"{name} {figures[name]:.4g}" for name in names]
        shown.append(f"{self._samples / elapsed:,.0f} samples/s")
        shown.append(f"data wait {100 * self._wait / elapsed:.0f} %")
        return ", ".join(shown)

    def end_epoch(self, trainer: Trainer, row: Mapping[str, float], improved: bool) -> None:
        """An epoch is done: one line that stays."""
        self.close(trainer)
        if self.quiet:
            return
        of = f"/{trainer.epochs}" if trainer.epochs is not None else ""
        figures = {k: v for k, v in row.items() if k not in ("epoch", "step")}
        seconds = time.perf_counter() - self._start
        best = " (best)" if improved else ""
        print(
            f"epoch {trainer.epoch}{of}: {self._note(figures)}, {seconds:.1f} s{best}",
            file=self._file,
            flush=True,
        )

    def resumed(self, trainer: Trainer, folder: Path) -> None:
        """Training goes on from a checkpoint."""
        if not self.quiet:
            print(
                f"resumed at step {trainer.step}, epoch {trainer.epoch + 1}, from {folder.name}",
                file=self._file,
            )

    def close(self, trainer: Trainer) -> None:
        """Remove the bar; what it would say at last is said by the line of the epoch."""
        if self._bar is not None:
            self._bar.close(finished=False)
            self._bar = None


def batch_size(batch: Any) -> int:
    """How many samples a batch holds: the first axis of its first tensor."""
    if hasattr(batch, "shape"):
        return int(batch.shape[0]) if batch.shape else 1
    if isinstance(batch, Mapping):
        return batch_size(next(iter(batch.values()))) if batch else 0
    if isinstance(batch, (list, tuple)) and batch:
        return batch_size(batch[0])
    return 1

"""What a trainer writes into the log of its run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..insight.runs.writer import Run
    from .trainer import Trainer

LEAST = 0.05  # seconds between figures of steps: more would be seen by nobody
_SHARE = 0.01  # of the time, that histograms may take
_MOST = 4_000_000  # values of a parameter beyond which its histogram takes a sample


class TrainingLog:
    """Figures of steps and epochs, and histograms of the parameters, as a run's events."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._next = 0.0
        self._start = time.monotonic()
        self._spent = 0.0  # seconds on histograms

    def step(self, trainer: Trainer) -> None:
        """The figures of the last step, if it is some time since the last were written."""
        now = time.monotonic()
        if now >= self._next or trainer.step == 1 or trainer.step % trainer.log_every == 0:
            self._next = now + LEAST
            figures = {f"train/{name}": value for name, value in trainer.last.items()}
            self.run.scalars(figures, trainer.step)

    def epoch(self, trainer: Trainer, row: Mapping[str, float]) -> None:
        """What was measured after an epoch, and how the parameters are spread."""
        told = {"epoch", "step", *trainer.last}
        figures = {f"evaluation/{name}": v for name, v in row.items() if name not in told}
        self.run.scalars({**figures, "train/epoch": row["epoch"]}, trainer.step)
        now = time.monotonic()
        if self._spent <= _SHARE * (now - self._start):
            self._histograms(trainer)
            self._spent += time.monotonic() - now

    def _histograms(self, trainer: Trainer) -> None:
        for name, parameter in trainer.module.named_parameters():
            values = parameter.detach().cpu().array.reshape(-1)
            every = max(1, values.size // _MOST)
            tag = f"parameters/{name.replace('.', '/')}"
            self.run.histogram(tag, values[::every], trainer.step)

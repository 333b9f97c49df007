"""What a trainer writes into the log of its run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ..tensor import Tensor

if TYPE_CHECKING:
    from ..insight.runs.writer import Run
    from .trainer import Trainer

LEAST = 0.05  # seconds between figures of steps: more would be seen by nobody
_SHARE = 0.005  # of the time, that histograms of a kind may take
_MOST = 2_000_000  # values of a tensor beyond which its histogram takes a sample


class Histograms:
    """Histograms of many tensors in the log of a run, in a small share of the time.

    The first of each kind are always written.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._start = time.monotonic()
        self._spent: dict[str, float] = {}  # seconds, by kind

    def due(self, kind: str) -> bool:
        """Whether there is time for histograms of a kind."""
        return self._spent.get(kind, 0.0) <= _SHARE * (time.monotonic() - self._start)

    def write(self, kind: str, named: Iterable[tuple[str, Tensor | None]], step: int) -> None:
        """Write those that are not None as `kind`/path, if there is time."""
        if not self.due(kind):
            return
        begin = time.monotonic()
        for name, tensor in named:
            if tensor is not None:
                values = tensor.detach().cpu().array.reshape(-1)
                every = max(1, values.size // _MOST)
                self.run.histogram(f"{kind}/{name.replace('.', '/')}", values[::every], step)
        self._spent[kind] = self._spent.get(kind, 0.0) + time.monotonic() - begin


class TrainingLog:
    """Figures of steps and epochs, histograms of parameters and gradients, as a run's events."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._next = 0.0
        self._histograms = Histograms(run)
        self._gradients_due = True  # in the first step of each epoch

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
        self.parameters(trainer)
        self._gradients_due = True

    def parameters(self, trainer: Trainer) -> None:
        """How the parameters are spread now."""
        parameters = trainer.module.named_parameters()
        self._histograms.write("parameters", parameters, trainer.step)

    def gradients(self, trainer: Trainer) -> None:
        """How the gradients of a step are spread: of the first step of an epoch."""
        if self._gradients_due:
            self._gradients_due = False
            named = ((name, p.grad) for name, p in trainer.module.named_parameters())
            self._histograms.write("gradients", named, trainer.step + 1)

"""A step of a loop that is no `Trainer`, with the trainer's errors: NaN traced, memory told."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from .. import random
from ..nn.module import Module
from ..optim import Optimizer
from ..tensor import Tensor
from . import mistakes
from .memory import exhaustion_told
from .tracing import Watch, trace


class Training(Protocol):
    """What those errors need to know of a training: a `Trainer` and a `Turn` are two."""

    module: Module
    optimizer: Optimizer
    clip_norm: float | None
    accumulate: int
    precision: Any
    step: int
    last: dict[str, float]
    watch: Watch

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        """All that hold memory."""

    @property
    def whose(self) -> str:
        """Words after "the loss", such as " of the critic"."""

    def compute(self, batch: Any) -> tuple[Tensor, Mapping[str, float]]:
        """The loss of a batch, and numbers to report."""


class Turn:
    """One player's part of a step, such as the critic's of a GAN.

    Args:
        module: all networks that take part; names of modules in errors begin here.
        optimizer: of what learns in this turn.
        loss: of a batch, a tensor without axes.
        whose: the player, for the words of errors.
        optimizers: all whose states take memory; the turn's own unless given.

    Attributes:
        look: called with the turn when its gradients are there and nothing is updated yet.
        step: finished steps, set by the loop.
        last: the last loss.
    """

    clip_norm: float | None = None
    accumulate = 1
    precision = "float32"

    def __init__(
        self,
        module: Module,
        optimizer: Optimizer,
        loss: Callable[[Any], Tensor],
        *,
        whose: str = "",
        optimizers: Sequence[Optimizer] = (),
    ) -> None:
        self.module, self.optimizer, self._loss = module, optimizer, loss
        self.optimizers = tuple(optimizers) or (optimizer,)
        self.whose = f" of the {whose}" if whose else ""
        self.step = 0
        self.last: dict[str, float] = {}
        self.watch = Watch()
        self.look: Callable[[Turn], None] | None = None

    def compute(self, batch: Any) -> tuple[Tensor, Mapping[str, float]]:
        """The loss of a batch; there are no further numbers."""
        return self._loss(batch), {}

    def __call__(self, batch: Any) -> Tensor:
        """Take the step: loss, gradients, update; returns the loss.

        Raises:
            GradError: the loss or a gradient is not finite; says where that began. Nothing was
                updated in this turn.
            OutOfMemoryError: says what took the memory, and the batch that fits.
        """
        with exhaustion_told(self, batch), np.errstate(all="ignore"):
            self.watch.drawn = random.snapshot()
            loss = self._loss(batch)
            value = float(loss.item())
            if not math.isfinite(value):
                found = trace(self, batch, backward=False)
                raise mistakes.diverged(self, "loss", value, found)
            loss.backward()
            self.watch.losses.append(value)
            self.last = {"loss": value}
            self.watch.check(self, batch)
            if self.look is not None:
                self.look(self)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss

"""The learning rate range test: which rates a training bears, and which it learns fastest with."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigError
from ..insight.tables import html_block, html_table
from .kept import again, checked, kept, one_step
from .mistakes import diverged
from .tracing import trace

if TYPE_CHECKING:
    from PIL import Image

    from .trainer import Trainer

_FORGET = 0.8  # of the smoothed loss before, at each step
_SPAN = 5  # steps over which a slope is taken


@dataclass(frozen=True)
class RateSearch:
    """What `lr_find` found.

    Attributes:
        rates, losses, smoothed: (N,) each: the rates, increasing, the loss at each, and its
            running mean.
        suggestion: the rate at which the smoothed loss fell fastest; None if it never fell.
        diverged: the rate at which the loss grew beyond bounds; None if it did not.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float | None
    diverged: float | None

    def plot(self) -> Image.Image:
        """The losses over the rates, with the suggestion marked."""
        from ..insight.charts import step_chart

        # What diverged would flatten the rest.
        top = max(self.smoothed[0], *self.smoothed) if self.diverged is None else self._top()
        shown = [i for i, v in enumerate(self.smoothed) if v <= top]
        lines = {
            "loss": ([self.rates[i] for i in shown], [min(self.losses[i], top) for i in shown]),
            "smoothed": ([self.rates[i] for i in shown], [self.smoothed[i] for i in shown]),
        }
        return step_chart(
            lines, title="learning rate range test", x_label="learning rate", x_log=True,
            mark=self.suggestion,
        )  # fmt: skip

    def _top(self) -> float:
        return self.smoothed[0] + 0.5 * (self.smoothed[0] - min(self.smoothed)) + 1e-12

    def __str__(self) -> str:
        best = int(np.argmin(self.smoothed))
        fell = f"lowest loss {self.smoothed[best]:.4g} at {self.rates[best]:.3g}"
        end = f"diverged at {self.diverged:.3g}" if self.diverged else "did not diverge"
        if self.suggestion is None:
            return f"no suggestion: the loss never fell ({fell}, {end})"
        return f"learning rate {self.suggestion:.3g}: the loss falls fastest there ({fell}, {end})"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        every = max(1, len(self.rates) // 12)
        rows = [
            (f"{self.rates[i]:.3g}", f"{self.losses[i]:.4g}", f"{self.smoothed[i]:.4g}")
            for i in range(0, len(self.rates), every)
        ]
        return html_block(str(self), html_table(("rate", "loss", "smoothed"), rows, left=0))

    def _repr_png_(self) -> bytes:
        from ..insight.charts import png

        return png(self.plot())


def lr_find(
    trainer: Trainer,
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    stop_at: float = 4.0,
) -> RateSearch:
    """Train with rates that grow from `low` to `high`: where does the loss fall, where diverge?

    Each step takes the next batch; groups of parameters keep the proportion of their rates, of
    which the highest is told. Afterwards weights, optimizer, random streams and loader are as
    they were, bit for bit.

    Args:
        low, high: the first and the last rate.
        steps: how many rates, each a constant factor above the one before.
        stop_at: the test ends when the smoothed loss is this many times the lowest.

    Raises:
        ConfigError: rates or steps that make no sense; no trainer; batches that can be read once.
        GradError: the loss is not finite at the first rate already; says where that began.
    Source: Smith 2017, "Cyclical learning rates for training neural networks".
    """
    checked("lr_find", trainer)
    if not 0 < low < high < math.inf:
        raise ConfigError(f"lr_find: 0 < low < high is wanted, got low={low}, high={high}")
    if steps < 2 * _SPAN or stop_at <= 1:
        raise ConfigError(
            f"lr_find: at least {2 * _SPAN} steps and stop_at above 1 are wanted, got "
            f"steps={steps}, stop_at={stop_at}"
        )
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    over: float | None = None
    with kept(trainer), closing(again(trainer.batches)) as batches, np.errstate(all="ignore"):
        trainer.module.train()
        trainer.optimizer.zero_grad()
        groups = trainer.optimizer.param_groups
        first = [float(group.get("initial_lr", group["lr"])) for group in groups]
        shares = [rate / max(first) if max(first) > 0 else 1.0 for rate in first]
        average = weight = 0.0
        for step in range(steps):
            rate = low * (high / low) ** (step / (steps - 1))
            for group, share in zip(groups, shares, strict=True):
                group["lr"] = rate * share
            loss, batch = one_step(trainer, batches)
            trainer.optimizer.zero_grad()
            if step == 0 and not math.isfinite(loss):
                raise diverged(trainer, "loss", loss, trace(trainer, batch, backward=False))
            average = _FORGET * average + (1 - _FORGET) * loss
            weight = _FORGET * weight + (1 - _FORGET)
            value = average / weight
            lowest = min(smoothed, default=value)
            # Losses may be negative, or nothing.
            bound = lowest + (stop_at - 1) * max(abs(lowest), 1e-8)
            if not math.isfinite(value) or value > bound:
                over = rate
                break
            rates.append(rate)
            losses.append(loss)
            smoothed.append(value)
    return RateSearch(
        tuple(rates), tuple(losses), tuple(smoothed), _steepest(rates, smoothed), over
    )


def _steepest(rates: list[float], smoothed: list[float]) -> float | None:
    """The rate at which the loss falls fastest with the logarithm of the rate."""
    if len(rates) <= 2 * _SPAN:
        return None
    end = int(np.argmin(smoothed))
    places = np.log(rates)
    slopes = [
        (smoothed[i + _SPAN] - smoothed[i]) / (places[i + _SPAN] - places[i])
        for i in range(max(end - _SPAN + 1, 0))
    ]
    if not slopes or min(slopes) >= 0:
        return None
    best = int(np.argmin(slopes))
    return float(math.sqrt(rates[best] * rates[best + _SPAN]))

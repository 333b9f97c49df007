"""Whether a model can learn one batch by heart: if it cannot, it will not learn more either."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from ..insight.flow import GradientFlow, gradient_flow
from ..insight.tables import html_block, html_table
from .kept import again, checked, kept, one_step
from .mistakes import diverged
from .tracing import trace

if TYPE_CHECKING:
    from PIL import Image

    from .trainer import Trainer

_RISEN = 1.5  # of the first loss, beyond which the rate is too high


@dataclass(frozen=True)
class Overfit:
    """What `overfit_one_batch` saw.

    Attributes:
        fitted: whether the loss came down to the target.
        losses: at each step.
        target: the loss that counts as fitted.
        reasons: what may be wrong, where it did not fit.
        flow: the gradients of each layer at the last step.
    """

    fitted: bool
    losses: tuple[float, ...]
    target: float
    reasons: tuple[str, ...]
    flow: GradientFlow

    def __str__(self) -> str:
        said = "fits" if self.fitted else "does not fit"
        first, last, steps = self.losses[0], self.losses[-1], len(self.losses)
        text = f"the model {said} one batch: loss {first:.4g} -> {last:.4g} in {steps} steps"
        if self.fitted:
            return text
        return f"{text} (target {self.target:.4g})" + "".join(f"\n  {r}" for r in self.reasons)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        first, *rest = str(self).splitlines()
        return html_block(first, html_table(("",), [(line.strip(),) for line in rest]))

    def _repr_png_(self) -> bytes:
        from ..insight.charts import png

        return png(self.plot())

    def plot(self) -> Image.Image:
        """The loss at each step."""
        from ..insight.charts import step_chart

        lines = {"loss": (range(1, len(self.losses) + 1), self.losses)}
        return step_chart(lines, title=str(self).splitlines()[0])


def overfit_one_batch(
    trainer: Trainer,
    *,
    steps: int = 200,
    ratio: float = 0.1,
    batch: Any = None,
    keep: bool = False,
) -> Overfit:
    """Train on one batch alone, and say whether the model can learn it.

    A model that cannot has a mistake that more data will not mend: labels in another order,
    frozen or dead layers, a wrong loss, a rate that is far too low or high. Dropout stays as it
    is. A loss that is above zero even at its best needs a higher `ratio`.

    Args:
        steps: at most; it ends where the loss has come down to the target.
        ratio: of the first loss; what counts as fitted.
        batch: the trainer's first one unless given.
        keep: leave the weights as they are afterwards; else all is put back, bit for bit.

    Raises:
        ConfigError: steps or ratio that make no sense; no trainer; batches that can be read once.
        GradError: the loss is not finite; says where that began.
    """
    checked("overfit_one_batch", trainer)
    if steps < 1 or not 0 < ratio < 1:
        raise ConfigError(
            f"overfit_one_batch: steps of 1 or more and a ratio between 0 and 1 are wanted, got "
            f"steps={steps}, ratio={ratio}"
        )
    losses: list[float] = []
    target = -math.inf
    with kept(trainer, weights=not keep), np.errstate(all="ignore"):
        trainer.module.train()
        trainer.optimizer.zero_grad()
        before = [p.array.copy() for p in trainer.module.parameters()]
        same = _one(trainer) if batch is None else itertools.repeat(batch)
        for _ in range(steps):
            trainer.optimizer.zero_grad()
            loss, batch = one_step(trainer, same)
            if not math.isfinite(loss):
                raise diverged(trainer, "loss", loss, trace(trainer, batch, backward=False))
            losses.append(loss)
            if len(losses) == 1:
                target = ratio * loss if loss > 0 else loss - (1 - ratio) * abs(loss)
            if loss <= target:
                break
        flow = gradient_flow(trainer.module)
        pairs = zip(trainer.module.parameters(), before, strict=True)
        moved = any(not bool((p.array == array).all()) for p, array in pairs)
        reasons = () if losses[-1] <= target else tuple(_reasons(trainer, losses, flow, moved))
    return Overfit(not reasons, tuple(losses), target, reasons, flow)


def _one(trainer: Trainer) -> Iterator[Any]:
    """The first batch, over and over."""
    batches = again(trainer.batches)
    first = next(batches)
    batches.close()
    return itertools.repeat(first)


def _reasons(
    trainer: Trainer, losses: list[float], flow: GradientFlow, moved: bool
) -> Iterator[str]:
    """What may be wrong; at least one."""
    rate = float(trainer.optimizer.param_groups[0]["lr"])
    given = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    trained = [(name, p) for name, p in trainer.module.named_parameters() if p.requires_grad]
    left = [name for name, p in trained if id(p) not in given]
    if left:
        yield f"{len(left)} parameters are not in the optimizer: {', '.join(left[:3])}"
    if not moved:
        yield f"no parameter changed: learning rate {rate:g}?"
    for state in dict.fromkeys(row.state for row in flow.problems):
        names = [row.name for row in flow.problems if row.state == state]
        yield f"gradients of {len(names)} layers, {state}: {', '.join(names[:4])}"
    frozen = sum(not p.requires_grad for p in trainer.module.parameters())
    if frozen:
        yield f"{frozen} parameters are frozen: requires_grad_(True) trains them"
    if losses[-1] > _RISEN * losses[0]:
        yield f"the loss grew: a learning rate below {rate:g}? bt.lr_find(trainer)"
    elif losses[-1] < 0.9 * losses[0] and losses[-1] < losses[len(losses) // 2]:
        yield "it still falls: more steps, or a higher learning rate? bt.lr_find(trainer)"
    elif moved:
        yield f"it hardly changes: a learning rate above {rate:g}? bt.lr_find(trainer)"
    inner = trainer.module.named_modules()
    noisy = [name for name, m in inner if "Dropout" in type(m).__name__ and m.p > 0]
    if noisy:
        yield f"dropout keeps it from learning by heart: {', '.join(noisy[:3])}"
    yield "Otherwise: do labels belong to their samples, and does the loss suit them?"

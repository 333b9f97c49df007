"""The loop that the recipes with one loss share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...core import optim
from ...core.nn import Module
from ...core.training import Trainer
from .schedules import rates

_LOG_EVERY = 20  # steps


def trainer_of(
    module: Module,
    optimizer: optim.Optimizer,
    loss: Callable[..., Any],
    batches: Any,
    settings: Any,
    *,
    steps: int,
    out: Path,
    evaluate: Callable[[Module], dict[str, float]],
    quiet: bool,
    **more: Any,
) -> Trainer:
    """A trainer with the schedule, clipping and checkpoints that settings ask for.

    Args:
        settings: with `warmup`, `cooldown`, `clip` and `save_every`.
        out: checkpoints go into `out/checkpoints`.
        more: other arguments of `Trainer`.
    """
    return Trainer(
        module,
        optimizer,
        loss,
        batches,
        steps=steps,
        evaluate=evaluate,
        schedule=optim.LambdaLR(optimizer, rates(steps, settings.warmup, settings.cooldown)),
        clip_norm=settings.clip,
        folder=out / "checkpoints",
        save_every=settings.save_every,
        log_every=_LOG_EVERY,
        quiet=quiet,
        **more,
    )

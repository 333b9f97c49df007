"""How the learning rate of the recipes goes: up, level, down."""

from __future__ import annotations

from collections.abc import Callable


def rates(total: int, warmup: int, cooldown: float) -> Callable[[int], float]:
    """Factor of the learning rate at each step.

    Until the last part, `cooldown` of all steps, it does not depend on how many there are in all:
    before that a training can still be made longer or shorter.
    """
    falling = max(round(cooldown * total), 1)

    def rate(step: int) -> float:
        up = (step + 1) / warmup if step < warmup else 1.0
        return min(up, max(total - step, 0) / falling, 1.0)

    return rate

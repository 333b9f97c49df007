"""Steps a second of built-in environments beside Gymnasium's, taking turns in one run.

    python tests/benchmarks/environments.py

Actions are drawn beforehand. Where Gymnasium has an environment on arrays (CartPole) that is the
peer, else SyncVectorEnv.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from bestiary.rl.environments import make

NAMES = ("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0")


def rate(step: Callable[[Any], Any], actions: np.ndarray, seconds: float = 0.4) -> float:
    """Steps of single environments a second."""
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        for row in actions:
            step(row)
        count += actions.shape[0] * actions.shape[1]
    return count / passed


def main() -> None:
    print("| environment | N | ours, M/s | Gymnasium, M/s | ratio |\n|---|---|---|---|---|")
    for name in NAMES:
        for num in (8, 1024):
            ours, theirs = make(name, num, seed=0), gymnasium.make_vec(name, num)
            ours.reset()
            theirs.reset(seed=0)
            rounds = max(2, 400 // num)
            actions = ours.action_space.sample(0, rounds * num)
            actions = actions.reshape(rounds, num, *ours.action_space.shape)
            rates = [(rate(ours.step, actions), rate(theirs.step, actions)) for _ in range(5)]
            a, b = (statistics.median(r) / 1e6 for r in zip(*rates, strict=True))
            print(f"| {name} | {num:,} | {a:.3g} | {b:.3g} | {a / b:.3g} |", flush=True)


if __name__ == "__main__":
    main()

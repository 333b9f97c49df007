"""The history of an agent that learns: a line now and then, of the rounds since the last one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.errors import DataError

_EVERY = 1000  # steps


class Log:
    """Collects figures, and makes a line of the history of them now and then."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self.start = self.last = time.perf_counter()
        self.steps = 0
        self.due = agent.steps + _EVERY
        self.sums: dict[str, list[float]] = {}

    def state(self) -> dict[str, Any]:
        """What the next line will be made of."""
        return {"due": self.due, "sums": self.sums}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.due = int(state["due"])
        self.sums = {name: [float(total), times] for name, (total, times) in state["sums"].items()}

    def add(self, figures: Mapping[str, float], steps: int) -> dict[str, float] | None:
        """Count the figures of a round; the line that is due, or None.

        Raises:
            DataError: a figure is not finite.
        """
        agent = self.agent
        self.steps += steps
        for name, value in figures.items():
            pair = self.sums.setdefault(name, [0.0, 0])
            pair[0] += value
            pair[1] += 1
        if agent.steps < self.due:
            return None
        self.due = agent.steps + _EVERY
        now = time.perf_counter()
        line: dict[str, float] = {"steps": agent.steps}
        if agent.returns:
            line["return"] = float(np.mean(agent.returns))
            line["length"] = float(np.mean(agent.lengths))
        for name, (total, times) in self.sums.items():
            line[name] = total / times
            if not np.isfinite(line[name]):
                raise DataError(
                    f"{agent.name}: {name} is {line[name]} after {agent.steps} steps: the "
                    "networks have diverged.\nTry a smaller learning_rate.",
                    name=name,
                )
        agent.history.append(line)
        # How fast it went is shown, but is no part of the history, which repeats itself exactly.
        speed = self.steps / max(now - self.last, 1e-9)
        self.sums, self.steps, self.last = {}, 0, now
        return {**line, "steps/s": speed}


def text_of(line: Mapping[str, float]) -> str:
    """A line for people."""
    return ", ".join(f"{k} {v:.4g}" for k, v in line.items() if k != "steps")

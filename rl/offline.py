"""What the algorithms that learn from recorded episodes share: the data, and a loop over it."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from .episodes import Episodes
from .learner import Learner
from .spaces import Box, Discrete


class Offline(Learner):
    """Base of learners whose experience is a recording; `steps` counts updates.

    Args:
        env: the environment in which the data was recorded; it is played in, not learned from.
        data: the episodes, or a file of them. Not needed for acting.
        rest: see `Learner`.
    """

    def __init__(
        self,
        env: Any,
        policy: Any = "mlp",
        *,
        data: Episodes | str | Path | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(env, policy, **rest)
        self.data = Episodes.load(data) if isinstance(data, (str, Path)) else data
        if self.data is not None:
            self.data.check(self.observation_space, self.action_space, self.name)
            self.prepare(self.data)

    def prepare(self, data: Episodes) -> None:
        """Compute from the episodes what updates need."""
        self.inputs = data.observations
        self.labels = self.from_env(data.actions)

    @abstractmethod
    def update(self) -> dict[str, float]:
        """Learn from a part of the data that is drawn."""

    def advance(self) -> dict[str, float]:
        if self.data is None:
            raise ConfigError(
                f"{self.name} learns from recorded episodes, and has none.\n"
                f"{self.name}(env, data=record_episodes(agent, env, 100))"
            )
        self.steps += 1
        return self.update()

    def from_env(self, actions: np.ndarray) -> np.ndarray:
        """Actions of the environment in the agent's numbers: from 0, and from -1 to 1."""
        space = self.action_space
        if isinstance(space, Box):
            middle, half = 0.5 * (space.high + space.low), 0.5 * (space.high - space.low)
            scaled = np.clip((actions - middle) / half, -1, 1)
            return np.asarray(scaled, np.float32)
        return actions - (space.start if isinstance(space, Discrete) else 0)

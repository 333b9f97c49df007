"""Observations and rewards of about unit size, by running statistics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from ..spaces import Box
from .base import Step, VectorEnv
from .wrappers import Wrapper


class RunningStatistics:
    """Mean and variance of all rows that were seen.

    Source: Chan, Golub, LeVeque 1979, on joining the variances of two samples.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.mean = np.zeros(shape)
        self.variance = np.ones(shape)
        self.count = 0

    def update(self, rows: np.ndarray) -> None:
        """Add a batch, (N, *shape)."""
        num = len(rows)
        if num == 0:
            return
        mean, variance = rows.mean(axis=0, dtype=np.float64), rows.var(axis=0, dtype=np.float64)
        total = self.count + num
        away = mean - self.mean
        squares = self.variance * self.count + variance * num
        squares += away**2 * (self.count * num / total)
        self.mean = np.asarray(self.mean + away * (num / total))
        self.variance = np.asarray(squares / total)
        self.count = total

    def state(self) -> dict[str, Any]:
        """Arrays and a count."""
        return {"mean": self.mean, "variance": self.variance, "count": self.count}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        self.mean = np.array(state["mean"], np.float64)
        self.variance = np.array(state["variance"], np.float64)
        self.count = int(state["count"])


class NormalizeObservation(Wrapper):
    """Observations less their running mean, over their running deviation, cut to +-`clip`.

    Args:
        env: its observations are arrays.
        clip: the greatest size.
        statistics: those of another wrapper, to share them with an environment for evaluation.
        training: whether what is seen adds to the statistics.
    """

    def __init__(
        self,
        env: VectorEnv,
        *,
        clip: float = 10.0,
        statistics: RunningStatistics | None = None,
        training: bool = True,
    ) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, Box):
            raise ConfigError(f"NormalizeObservation: {env.id} shows {space}, classes, not numbers")
        if not clip > 0:
            raise ConfigError(f"NormalizeObservation: clip is above 0, not {clip}")
        self.clip = clip
        self.statistics = statistics or RunningStatistics(space.shape)
        self.training = training
        self.observation_space = Box(-clip, clip, space.shape)

    def reset(self, seed: int | None = None) -> np.ndarray:
        return self._seen(self.env.reset(seed))

    def restart(self, rows: np.ndarray) -> np.ndarray:
        observation = self.env.restart(rows)
        if self.training:
            self.statistics.update(observation[rows])
        return self.normalized(observation)

    def step(self, actions: np.ndarray) -> Step:
        step = self.env.step(actions)
        observation, final = self._seen(step.observation), step.final_observation
        if final is not None:
            # Rows without an end hold what they like.
            ended = (step.terminated | step.truncated).reshape(-1, *[1] * (final.ndim - 1))
            final = self.normalized(np.where(ended, final, step.observation))
        return step._replace(observation=observation, final_observation=final)

    def _seen(self, observation: np.ndarray) -> np.ndarray:
        if self.training:
            self.statistics.update(observation)
        return self.normalized(observation)

    def normalized(self, observation: np.ndarray) -> np.ndarray:
        """Observations by the statistics so far, (N, ...) float32."""
        s = self.statistics
        values = (observation - s.mean) / np.sqrt(s.variance + 1e-8)
        return np.clip(values, -self.clip, self.clip).astype(np.float32)

    def own_state(self) -> dict[str, Any]:
        return self.statistics.state()

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        self.statistics.load_state(state)


class NormalizeReward(Wrapper):
    """Rewards over the running deviation of the discounted return, cut to +-`clip`.

    The mean stays: its sign has a meaning.

    Args:
        env: what is wrapped.
        gamma: the discount of the learner.
        clip: the greatest size.
    """

    def __init__(self, env: VectorEnv, *, gamma: float = 0.99, clip: float = 10.0) -> None:
        super().__init__(env)
        if not 0 <= gamma <= 1:
            raise ConfigError(f"NormalizeReward: gamma is between 0 and 1, not {gamma}")
        if not clip > 0:
            raise ConfigError(f"NormalizeReward: clip is above 0, not {clip}")
        self.gamma, self.clip = gamma, clip
        self.statistics = RunningStatistics()
        self.training = True
        self._returns = np.zeros(self.num_envs)

    def reset(self, seed: int | None = None) -> np.ndarray:
        self._returns = np.zeros(self.num_envs)
        return self.env.reset(seed)

    def restart(self, rows: np.ndarray) -> np.ndarray:
        self._returns[rows] = 0
        return self.env.restart(rows)

    def step(self, actions: np.ndarray) -> Step:
        step = self.env.step(actions)
        if self.training:
            self._returns = self._returns * self.gamma + step.reward
            self.statistics.update(self._returns)
            self._returns[step.terminated | step.truncated] = 0
        scale = 1 / np.sqrt(self.statistics.variance + 1e-8)
        reward = np.clip(step.reward * scale, -self.clip, self.clip)
        return step._replace(reward=reward.astype(np.float32))

    def own_state(self) -> dict[str, Any]:
        return {**self.statistics.state(), "returns": self._returns.copy()}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        self.statistics.load_state(state)
        self._returns = np.array(state["returns"], np.float64)

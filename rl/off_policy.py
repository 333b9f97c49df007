"""The loop of the algorithms that learn from a replay memory: act, remember, draw, update."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from .environments.base import count
from .learner import Learner
from .replay import Batch, Replay
from .spaces import Box


@dataclass(frozen=True)
class OffPolicySettings:
    """Hyper-parameters that all of them have, under Stable-Baselines3's names.

    Attributes:
        learning_rate: of Adam, at first; see `anneal`.
        anneal: let the rate fall to nothing while `learn` goes on.
        buffer_size: transitions that the replay memory keeps.
        learning_starts: steps of random actions before learning begins.
        batch_size: transitions in an update.
        tau: how much of the networks the targets take over at a time.
        gamma: discount of later rewards.
        train_freq: steps of every environment between updates.
        gradient_steps: updates then; -1 for as many as there were steps.
        n_steps: rewards that are added before a value is trusted (Sutton 1988).
        save_replay: whether checkpoints hold the memory, so that resuming is exact.
    """

    learning_rate: float = 3e-4
    anneal: bool = False
    buffer_size: int = 1_000_000
    learning_starts: int = 100
    batch_size: int = 256
    tau: float = 0.005
    gamma: float = 0.99
    train_freq: int = 1
    gradient_steps: int = 1
    n_steps: int = 1
    save_replay: bool = True

    def __post_init__(self) -> None:
        for name in ("buffer_size", "batch_size", "train_freq", "n_steps"):
            count(name, getattr(self, name))
        if self.gradient_steps != -1:
            count("gradient_steps (or -1)", self.gradient_steps)
        limits = {"learning_starts": 1e12, "learning_rate": 10, "tau": 1, "gamma": 1}
        for name, high in limits.items():
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and 0 <= value <= high):
                raise ConfigError(f"{name} lies between 0 and {high:g}, not {value!r}")


class OffPolicy(Learner):
    """Base: a subclass gives `build`, `choose`, `explore` and `update`."""

    settings: Any
    replay_alpha = 0.0  # how much priorities count
    _replay: Replay | None = None

    @abstractmethod
    def explore(self, observations: np.ndarray) -> np.ndarray:
        """Actions to learn from, in the agent's numbers."""

    @abstractmethod
    def update(self, batch: Batch) -> dict[str, float]:
        """Learn from transitions; returns what to log."""

    def collected(self) -> None:
        """Called after every step of the environments."""

    def beta(self) -> float:
        """How much the weights of drawn transitions correct their priorities now."""
        return 1.0

    @property
    def replay(self) -> Replay:
        """The memory, made when it is first used."""
        if self._replay is None:
            s, space = self.settings, self.action_space
            # Continuous actions are kept as the agent numbers them, from -1 to 1.
            kept = Box(-1, 1, space.shape) if isinstance(space, Box) else space
            self._replay = Replay(
                s.buffer_size,
                self.observation_space,
                kept,
                self.env.num_envs,
                discount=s.gamma,
                n_steps=s.n_steps,
                alpha=self.replay_alpha,
                seed=self.seed,
            )
        return self._replay

    def advance(self) -> dict[str, float]:
        """`train_freq` steps of the environments, then the updates."""
        s, env, replay = self.settings, self.env, self.replay
        observation = self.first_observation()
        for _ in range(s.train_freq):
            if self.steps < s.learning_starts:
                actions = self.random_actions()
            else:
                actions = self.explore(observation)
            step = env.step(self.to_env(actions))
            replay.add(observation, actions, step)
            self.observation = observation = step.observation
            ended = None
            if step.final_observation is not None:
                ended = step.terminated | step.truncated
            self.count_step(step.reward, ended)
            self.collected()
        if s.anneal:
            for optimizer in self.optimizers().values():
                for group in optimizer.param_groups:
                    group["lr"] = s.learning_rate * (1 - self.progress)
        figures: dict[str, float] = {}
        if self.steps > s.learning_starts and len(replay) >= s.n_steps:
            times = s.gradient_steps if s.gradient_steps > 0 else s.train_freq * env.num_envs
            for _ in range(times):
                figures = self.update(replay.sample(s.batch_size, self.beta()))
        return figures

    def random_actions(self) -> np.ndarray:
        """One of all actions, for every environment, in the agent's numbers."""
        n = self.env.num_envs
        if isinstance(self.action_space, Box):
            return self.rng.uniform(-1, 1, (n, *self.action_space.shape)).astype(np.float32)
        return self.rng.integers(0, self.action_space.features, n)

    def extra_state(self) -> dict[str, Any]:
        if self._replay is None or not self.settings.save_replay:
            return {}
        return {"replay": self._replay.state()}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        if "replay" in state:
            self.replay.load_state(state["replay"])

    def begin_anew(self) -> None:
        super().begin_anew()
        if self._replay is not None:
            self._replay.cut()

"""Environments around environments: statistics of episodes, limits of time, stacked frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...core.errors import ConfigError, DataError
from ..spaces import Box
from .base import Step, VectorEnv, count

_INNER = "env."  # before the names in the state of what is wrapped


class Wrapper(VectorEnv):
    """Base: everything is as in `env` but what a subclass changes."""

    def __init__(self, env: VectorEnv) -> None:
        if not isinstance(env, VectorEnv):
            raise ConfigError(
                f"{type(self).__name__} goes around a VectorEnv, not {type(env).__name__}.\n"
                f"{type(self).__name__}(make(env, num_envs))"
            )
        self.env = env
        self.id = env.id
        self.num_envs = env.num_envs
        self.observation_space = env.observation_space
        self.action_space = env.action_space
        self.fps = env.fps
        self.max_episode_steps = env.max_episode_steps

    def reset(self, seed: int | None = None) -> np.ndarray:
        return self.env.reset(seed)

    def step(self, actions: np.ndarray) -> Step:
        return self.env.step(actions)

    def restart(self, rows: np.ndarray) -> np.ndarray:
        return self.env.restart(rows)

    def action_mask(self) -> np.ndarray | None:
        return self.env.action_mask()

    def own_state(self) -> dict[str, Any]:
        """What the wrapper itself remembers, as arrays and JSON values."""
        return {}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `own_state` gave."""

    def state(self) -> dict[str, Any]:
        inner = {_INNER + name: value for name, value in self.env.state().items()}
        return {**self.own_state(), **inner}

    def load_state(self, state: Mapping[str, Any]) -> None:
        own = {k: v for k, v in state.items() if not k.startswith(_INNER)}
        wanted = set(self.own_state())
        if set(own) != wanted:
            raise DataError(
                f"{type(self).__name__}: the state has {sorted(own)} where {sorted(wanted)} is "
                "wanted: it was taken from other wrappers."
            )
        self.env.load_state({k[len(_INNER) :]: v for k, v in state.items() if k not in own})
        self.load_own_state(own)

    def render(self, i: int = 0) -> np.ndarray:
        return self.env.render(i)

    def final_picture(self, i: int = 0) -> np.ndarray | None:
        return self.env.final_picture(i)

    def close(self) -> None:
        self.env.close()


class EpisodeStatistics(Wrapper):
    """Counts the return and the length of episodes. It goes inside wrappers of the reward."""

    def __init__(self, env: VectorEnv) -> None:
        super().__init__(env)
        self._finished: list[tuple[float, int]] = []
        self._begin()

    def _begin(self) -> None:
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)

    @property
    def finished(self) -> list[tuple[float, int]]:
        """(return, length) of the episodes that ended since this was last read."""
        finished, self._finished = self._finished, []
        return finished

    def reset(self, seed: int | None = None) -> np.ndarray:
        self._begin()
        return self.env.reset(seed)

    def restart(self, rows: np.ndarray) -> np.ndarray:
        self._end(rows & (self._lengths > 0))
        return self.env.restart(rows)

    def step(self, actions: np.ndarray) -> Step:
        step = self.env.step(actions)
        self._returns += step.reward
        self._lengths += 1
        if step.final_observation is not None:
            self._end(step.terminated | step.truncated)
        return step

    def _end(self, rows: np.ndarray) -> None:
        returns, lengths = self._returns[rows].tolist(), self._lengths[rows].tolist()
        self._finished += zip(returns, lengths, strict=True)
        self._returns[rows], self._lengths[rows] = 0, 0

    def own_state(self) -> dict[str, Any]:
        return {
            "returns": self._returns.copy(),
            "lengths": self._lengths.copy(),
            "finished": [list(episode) for episode in self._finished],
        }

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        self._returns = np.array(state["returns"], np.float64)
        self._lengths = np.array(state["lengths"], np.int64)
        self._finished = [(float(a), int(b)) for a, b in state["finished"]]


class TimeLimit(Wrapper):
    """Truncates episodes after `steps` steps."""

    def __init__(self, env: VectorEnv, steps: int) -> None:
        super().__init__(env)
        self.limit = self.max_episode_steps = count("TimeLimit: steps", steps)
        self._steps = np.zeros(self.num_envs, np.int64)

    def reset(self, seed: int | None = None) -> np.ndarray:
        self._steps = np.zeros(self.num_envs, np.int64)
        return self.env.reset(seed)

    def restart(self, rows: np.ndarray) -> np.ndarray:
        self._steps[rows] = 0
        return self.env.restart(rows)

    def step(self, actions: np.ndarray) -> Step:
        observation, reward, terminated, truncated, final = self.env.step(actions)
        self._steps += 1
        over = self._steps >= self.limit
        over &= ~(terminated | truncated)
        if over.any():
            truncated = truncated | over
            final = observation.copy() if final is None else final.copy()
            final[over] = observation[over]
            observation = self.env.restart(over)
        self._steps[terminated | truncated] = 0
        return Step(observation, reward, terminated, truncated, final)

    def own_state(self) -> dict[str, Any]:
        return {"steps": self._steps.copy()}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        self._steps = np.array(state["steps"], np.int64)


class ClipReward(Wrapper):
    """Rewards cut to a range; by default their sign, as is usual for Atari."""

    def __init__(self, env: VectorEnv, low: float | None = None, high: float | None = None) -> None:
        super().__init__(env)
        if (low is None) != (high is None) or not (low or 0) <= (high or 0):
            raise ConfigError(f"ClipReward: give low and high, or neither for signs: {low}, {high}")
        self.low, self.high = low, high

    def step(self, actions: np.ndarray) -> Step:
        step = self.env.step(actions)
        if self.low is None:
            return step._replace(reward=np.sign(step.reward))
        return step._replace(reward=np.clip(step.reward, self.low, self.high))


class FrameStack(Wrapper):
    """The last `frames` observations as one, oldest first, joined along their first axis.

    An episode begins with its first observation repeated.

    Shape: (C, H, W) -> (frames * C, H, W), (D,) -> (frames * D,)
    """

    def __init__(self, env: VectorEnv, frames: int = 4) -> None:
        super().__init__(env)
        self.frames = count("FrameStack: frames", frames)
        space = env.observation_space
        if not isinstance(space, Box) or not space.shape:
            raise ConfigError(f"FrameStack: {env.id} shows {space}, where arrays are wanted")
        self.observation_space = Box(
            np.concatenate([space.low] * frames),
            np.concatenate([space.high] * frames),
            dtype=space.dtype,
        )
        self._first = space.shape[0]
        self._stack = np.zeros((self.num_envs, *self.observation_space.shape), space.dtype)

    def reset(self, seed: int | None = None) -> np.ndarray:
        self._begin(np.ones(self.num_envs, np.bool_), self.env.reset(seed))
        return self._stack.copy()

    def restart(self, rows: np.ndarray) -> np.ndarray:
        self._begin(rows, self.env.restart(rows))
        return self._stack.copy()

    def _begin(self, rows: np.ndarray, observation: np.ndarray) -> None:
        self._stack[rows] = np.concatenate([observation[rows]] * self.frames, axis=1)

    def step(self, actions: np.ndarray) -> Step:
        step = self.env.step(actions)
        newest = step.observation if step.final_observation is None else step.observation.copy()
        ended = step.terminated | step.truncated
        if step.final_observation is not None:
            newest[ended] = step.final_observation[ended]
        stack = np.concatenate([self._stack[:, self._first :], newest], axis=1)
        self._stack = stack
        if step.final_observation is None:
            return step._replace(observation=stack.copy())
        final = stack.copy()
        self._begin(ended, step.observation)
        return step._replace(observation=self._stack.copy(), final_observation=final)

    def own_state(self) -> dict[str, Any]:
        return {"stack": self._stack.copy()}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        self._stack = np.array(state["stack"], self._stack.dtype)

"""Replay memory: what happened, kept to learn from again.

Every observation is stored once: that of the next step is the next one in the memory. Only the
last observations of truncated episodes, after which the memory shows a new episode, are kept
beside it. Several steps are added up when they are drawn, so `n_steps` costs no memory.

Sources: Lin 1992, "Self-improving reactive agents based on reinforcement learning, planning and
teaching"; Schaul et al. 2016, "Prioritized experience replay"; n steps as in Hessel et al. 2018,
"Rainbow".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..core.errors import ConfigError, DataError
from .environments.base import Step, count
from .spaces import Space
from .sum_tree import SumTree


class Batch(NamedTuple):
    """Transitions drawn from the memory.

    Attributes:
        observation: (B, ...)
        action: (B, ...)
        reward: (B,) float32, the discounted sum over the steps.
        next_observation: (B, ...), what the steps led to.
        discount: (B,) float32, what the value of `next_observation` is multiplied by: 0 where the
            episode terminated, else gamma to the number of steps.
        weight: (B,) float32, which corrects for drawing some more often; 1 if all are alike.
        indices: (B,) int64, for `Replay.update_priorities`.
    """

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_observation: np.ndarray
    discount: np.ndarray
    weight: np.ndarray
    indices: np.ndarray


class Replay:
    """The last `capacity` transitions of N environments that step together.

    Args:
        capacity: transitions to keep, over all environments.
        observation_space, action_space: of one environment.
        num_envs: N.
        discount: gamma, with which rewards of several steps are added.
        n_steps: how many steps a transition spans, fewer where the episode ends before.
        alpha: how much priorities count: 0 draws all alike, 1 in proportion to their errors.
        seed: of the draws.

    Raises:
        ConfigError: the memory would not fit into this machine's, or a number makes no sense.
    """

    def __init__(
        self,
        capacity: int,
        observation_space: Space,
        action_space: Space,
        num_envs: int = 1,
        *,
        discount: float = 0.99,
        n_steps: int = 1,
        alpha: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.num_envs = count("replay: num_envs", num_envs)
        # One more than asked for: the newest observation belongs to no transition yet.
        self._rows = count("replay: capacity", capacity) // num_envs + 1
        self.capacity = (self._rows - 1) * num_envs
        self.n_steps = count("replay: n_steps", n_steps)
        if self._rows - 1 < self.n_steps:
            raise ConfigError(
                f"replay: {capacity} transitions are {self._rows - 1} of each of {num_envs} "
                f"environments, and n_steps is {n_steps}.\n"
                f"Make capacity at least {num_envs * self.n_steps}.",
                capacity=capacity,
            )
        for name, value, high in (("discount", discount, 1), ("alpha", alpha, 10)):
            if not 0 <= value <= high:
                raise ConfigError(f"replay: {name} lies between 0 and {high}, not {value!r}")
        self.discount, self.alpha = float(discount), float(alpha)
        needed = memory_needed(capacity, observation_space, action_space, num_envs, alpha > 0)
        _require_memory(needed, self.capacity)
        total = self._rows * num_envs
        self._observation = np.zeros((total, *observation_space.shape), observation_space.dtype)
        self._action = np.zeros((total, *action_space.shape), action_space.dtype)
        self._reward = np.zeros(total, np.float32)
        self._ended = np.zeros(total, np.bool_)  # the episode ended in either way
        self._terminated = np.zeros(total, np.bool_)
        self._finals: dict[int, np.ndarray] = {}  # last observations of truncated episodes
        self._row = 0  # where the next transition goes
        self._full = False
        self._tree = SumTree(total) if alpha > 0 else None
        self._highest = 1.0
        self.rng = np.random.default_rng([seed, 2])
        self._powers = (self.discount ** np.arange(self.n_steps + 1)).astype(np.float32)
        self._ahead = np.arange(self.n_steps) * num_envs

    def __len__(self) -> int:
        return self.capacity if self._full else self._row * self.num_envs

    @property
    def nbytes(self) -> int:
        """Bytes that the arrays take."""
        arrays = [self._observation, self._action, self._reward, self._ended, self._terminated]
        levels = [] if self._tree is None else self._tree.levels
        return sum(a.nbytes for a in (*arrays, *levels, *self._finals.values()))

    def add(self, observation: np.ndarray, action: np.ndarray, step: Step) -> None:
        """Keep one step of all environments: what was seen, what was done, what came of it.

        Shape: observation (N, ...), action (N, ...)

        Raises:
            DataError: a reward is NaN or infinite.
        """
        n = self.num_envs
        here = slice(self._row * n, (self._row + 1) * n)
        if not np.isfinite(step.reward).all():
            raise DataError(
                f"replay: the rewards are {step.reward}. Nothing can be learned from NaN or "
                "infinity: look at the environment.",
                got=step.reward,
            )
        if self._full and self._finals:
            for index in range(here.start, here.stop):
                self._finals.pop(index, None)
        self._observation[here] = observation
        self._action[here] = action
        self._reward[here] = step.reward
        self._terminated[here] = step.terminated
        if step.final_observation is None:
            self._ended[here] = False
        else:
            self._ended[here] = step.terminated | step.truncated
            for row in step.truncated.nonzero()[0].tolist():
                self._finals[here.start + row] = np.array(step.final_observation[row])
        if self._tree is not None:
            # What is new is drawn soon; what lies behind the newest is no transition.
            self._tree.update(np.arange(here.start, here.stop), self._highest)
        self._row += 1
        if self._row == self._rows:
            self._row, self._full = 0, True
        after = slice(self._row * n, (self._row + 1) * n)
        self._observation[after] = step.observation
        self._ended[after] = False
        if self._tree is not None:
            self._tree.update(np.arange(after.start, after.stop), 0.0)

    def cut(self) -> None:
        """The episodes of all environments are cut here: what is added next belongs to new ones."""
        if not len(self):
            return
        n, newest = self.num_envs, (self._row - 1) % self._rows
        for i in range(n):
            index = newest * n + i
            if not self._ended[index]:
                self._ended[index] = True
                self._finals[index] = self._observation[self._row * n + i].copy()

    def sample(self, size: int, beta: float = 1.0) -> Batch:
        """Draw transitions, with replacement.

        Args:
            size: how many.
            beta: how much of the bias of priorities the weights correct, from 0 to 1.

        Raises:
            ConfigError: the memory is empty.
        """
        total = len(self)
        if not total:
            raise ConfigError("replay: nothing to draw from yet; call add first")
        if self._tree is None:
            index = self.rng.integers(0, total, size)
            if self._full:  # counted from the oldest, which follows the newest observation
                index += (self._row + 1) * self.num_envs
                index %= self._rows * self.num_envs
            weight = np.ones(size, np.float32)
        else:
            # One from each of equal parts of the line: less variance than independent draws.
            part = self._tree.total / size
            index = self._tree.find((np.arange(size) + self.rng.random(size)) * part)
            share = self._tree.priorities[index] / self._tree.total
            weights = (total * share) ** -beta
            weight = (weights / weights.max()).astype(np.float32)
        return self._batch(index, weight)

    def _batch(self, index: np.ndarray, weight: np.ndarray) -> Batch:
        total, n = self._rows * self.num_envs, self.num_envs
        if self.n_steps == 1:
            reward, last = self._reward[index], index
            discount = np.full(len(index), self.discount, np.float32)
        else:
            path = (index[:, None] + self._ahead) % total
            # A path stops where its episode ends, or at the newest transition.
            newest = (self._row - 1) % self._rows
            stop = self._ended[path] | (path // n == newest)
            stop[:, -1] = True
            steps = stop.argmax(axis=1)
            taken = np.arange(self.n_steps) <= steps[:, None]
            reward = (self._reward[path] * taken) @ self._powers[:-1]
            last = path[np.arange(len(index)), steps]
            discount = self._powers[steps + 1]
        discount[self._terminated[last]] = 0
        after = last + n
        after[after >= total] -= total
        following = self._observation[after]
        if self._finals:
            for i in self._ended[last].nonzero()[0].tolist():
                final = self._finals.get(int(last[i]))
                if final is not None:
                    following[i] = final
        return Batch(
            self._observation[index],
            self._action[index],
            reward,
            following,
            discount,
            weight,
            index,
        )

    def update_priorities(self, index: np.ndarray, error: np.ndarray) -> None:
        """Draw transitions by the size of their errors from now on: (|error| + 1e-6) ** alpha."""
        if self._tree is None:
            return
        priority = (np.abs(error, dtype=np.float64) + 1e-6) ** self.alpha
        self._tree.update(index, priority)
        self._highest = max(self._highest, float(priority.max()))

    def state(self) -> dict[str, Any]:
        """Everything that the future depends on, as arrays and JSON values."""
        used = len(self._reward) if self._full else (self._row + 1) * self.num_envs
        keys = sorted(self._finals)
        state: dict[str, Any] = {
            "observation": self._observation[:used].copy(),
            "action": self._action[:used].copy(),
            "reward": self._reward[:used].copy(),
            "ended": self._ended[:used].copy(),
            "terminated": self._terminated[:used].copy(),
            "final_index": np.array(keys, np.int64),
            "final_observation": np.array(
                [self._finals[k] for k in keys], self._observation.dtype
            ).reshape(len(keys), *self._observation.shape[1:]),
            "row": self._row,
            "full": self._full,
            "rng": self.rng.bit_generator.state,
        }
        if self._tree is not None:
            state |= {"priority": self._tree.priorities[:used].copy(), "highest": self._highest}
        return state

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where `state` was taken.

        Raises:
            DataError: it belongs to a memory of other spaces, size or options.
        """
        wanted = {"observation", "action", "reward", "ended", "terminated", "row", "full", "rng"}
        wanted |= {"final_index", "final_observation"}
        wanted |= set() if self._tree is None else {"priority", "highest"}
        if missing := wanted - set(state):
            raise DataError(f"replay: the state lacks {', '.join(sorted(missing))}")
        used, row = len(state["reward"]), int(state["row"])
        expected = len(self._reward) if state["full"] else (row + 1) * self.num_envs
        for name in ("observation", "action", "reward", "ended", "terminated"):
            array, mine = np.asarray(state[name]), getattr(self, f"_{name}")
            if array.shape[1:] != mine.shape[1:] or not len(array) == used == expected:
                raise DataError(
                    f"replay: the state's {name} are of shape {array.shape}; here they would be "
                    f"{(expected, *mine.shape[1:])}.\nIt was taken with another capacity, number "
                    "of environments, or environment.",
                    expected=(expected, *mine.shape[1:]),
                    got=array.shape,
                )
            mine[:used] = array
        self._row, self._full = row, bool(state["full"])
        finals = np.asarray(state["final_observation"])
        keys = np.asarray(state["final_index"]).tolist()
        self._finals = {k: np.array(final) for k, final in zip(keys, finals, strict=True)}
        self.rng.bit_generator.state = state["rng"]
        if self._tree is not None:
            self._tree = SumTree(len(self._reward))
            self._tree.update(np.arange(used), np.asarray(state["priority"]))
            self._highest = float(state["highest"])


def memory_needed(
    capacity: int,
    observation_space: Space,
    action_space: Space,
    num_envs: int = 1,
    prioritized: bool = False,
) -> int:
    """Bytes that a `Replay` will take."""
    each = 4 + 1 + 1 + (9 if prioritized else 0)
    for space in (observation_space, action_space):
        each += int(np.prod(space.shape, dtype=np.int64)) * space.dtype.itemsize
    return (capacity // num_envs + 1) * num_envs * each


def _memory_available() -> int | None:
    """Bytes of memory that could be used now; None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _require_memory(needed: int, capacity: int) -> None:
    available = _memory_available()
    if available is None or needed <= available:
        return
    fits = int(0.8 * available / (needed / capacity))
    raise ConfigError(
        f"replay: {capacity:,} transitions need {needed / 1e9:,.1f} GB, and this machine has "
        f"{available / 1e9:,.1f} GB free.\n"
        f"Keep fewer: buffer_size={max(1, fits)}\n"
        "Observations are stored as they come: smaller pictures, or uint8 instead of float32, "
        "help.",
        needed=needed,
        available=available,
        fits=fits,
    )

"""Recorded episodes: data for the algorithms that learn offline, as files and in memory.

A file holds all steps one after another, and how long each episode was:

    observations (T, ...), actions (T, ...), rewards (T,), lengths (E,), terminated (E,)

as `.npz` (NumPy) or `.safetensors`. `terminated` says which episodes reached an end of their own;
the others were cut.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..core.errors import ConfigError, DataError
from ..core.paths import atomic
from ..core.weights.safetensors import load_file, save_file
from .environments.base import count
from .environments.make import make
from .evaluation import player_of
from .spaces import Space

FIELDS = ("observations", "actions", "rewards", "lengths", "terminated")


class Acting(Protocol):
    """What plays: anything with `act`."""

    def act(self, observation: Any, deterministic: bool = True) -> Any: ...


@dataclass(frozen=True, eq=False)
class Episodes:
    """Recorded episodes, checked when they are made.

    Attributes:
        observations: (T, ...), before each action.
        actions: (T, ...), as the environment took them.
        rewards: (T,) float32.
        lengths: (E,) int64; their sum is T.
        terminated: (E,) bool.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray

    def __post_init__(self) -> None:
        steps = len(self.observations)
        shapes = {
            "actions": (steps,) == self.actions.shape[:1],
            "rewards": (steps,) == self.rewards.shape,
            "lengths": self.lengths.ndim == 1 and self.lengths.dtype.kind in "iu",
            "terminated": self.terminated.shape == self.lengths.shape,
        }
        for name, fits in shapes.items():
            if not fits:
                array = getattr(self, name)
                raise DataError(
                    f"episodes: {name} are {array.dtype} of shape {array.shape}, beside "
                    f"{steps} observations and {self.lengths.shape} lengths.",
                    field=name,
                )
        if not len(self.lengths) or self.lengths.min() < 1 or self.lengths.sum() != steps:
            raise DataError(
                f"episodes: {len(self.lengths)} lengths with the sum {self.lengths.sum()}, for "
                f"{steps} steps; each is at least 1 and there is at least one.",
                steps=steps,
            )
        for name in ("observations", "actions", "rewards"):
            array = getattr(self, name)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                where = int(np.argwhere(~np.isfinite(array))[0, 0])
                raise DataError(f"episodes: {name} hold NaN or infinity at step {where}.")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def starts(self) -> np.ndarray:
        """Where each episode begins, (E,)."""
        first: np.ndarray = np.concatenate([[0], self.lengths.cumsum()[:-1]])
        return first

    @property
    def returns(self) -> np.ndarray:
        """The sum of rewards of each episode, (E,)."""
        sums: np.ndarray = np.add.reduceat(self.rewards.astype(np.float64), self.starts)
        return sums

    def returns_to_go(self) -> np.ndarray:
        """The sum of this and all later rewards of the episode, for each step, (T,) float32."""
        before = self.rewards.astype(np.float64).cumsum() - self.rewards
        ends = np.concatenate([before[self.starts[1:]], [self.rewards.sum(dtype=np.float64)]])
        return np.asarray(ends.repeat(self.lengths) - before, np.float32)

    def check(self, observation_space: Space, action_space: Space, name: str) -> None:
        """Complain if these are no episodes of such an environment.

        Raises:
            DataError: observations or actions do not fit their space.
        """
        pairs = (
            ("observations", self.observations, observation_space),
            ("actions", self.actions, action_space),
        )
        for what, array, space in pairs:
            problem: str | None = f"shape {array.shape[1:]}"
            if array.shape[1:] == space.shape:
                problem = space.problem(array)
            if problem is not None:
                raise DataError(
                    f"{name}: the recorded {what} do not fit {space}: {problem}.\n"
                    "Were they recorded in another environment?",
                    expected=space,
                )

    def save(self, path: str | Path) -> None:
        """Write a `.npz` or `.safetensors` file.

        Raises:
            ConfigError: another ending.
        """
        path = Path(path)
        arrays = {name: getattr(self, name) for name in FIELDS}
        if path.suffix == ".safetensors":
            save_file(arrays, path)
        elif path.suffix == ".npz":
            with atomic(path) as part, open(part, "wb") as file:
                np.savez_compressed(file, **arrays)
        else:
            raise ConfigError(f"{path}: episodes are written as .npz or .safetensors")

    @classmethod
    def load(cls, path: str | Path) -> Episodes:
        """Read what `save` wrote.

        Raises:
            DataError: the file holds no episodes.
        """
        path = Path(path)
        try:
            if path.suffix == ".safetensors":
                arrays: dict[str, Any] = load_file(path)
            else:
                with np.load(path, allow_pickle=False) as file:
                    arrays = {name: file[name] for name in file.files}
        except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} cannot be read: {error}") from None
        missing = [name for name in FIELDS if name not in arrays]
        if missing:
            raise DataError(
                f"{path} holds no episodes: {', '.join(missing)} missing; there are "
                f"{', '.join(map(repr, arrays)) or 'no arrays'}.",
                missing=missing,
            )
        return cls(**{name: arrays[name] for name in FIELDS})

    @classmethod
    def joined(cls, parts: Sequence[Episodes]) -> Episodes:
        """Several recordings as one."""
        if not parts:
            raise DataError("episodes: there is nothing to join")
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in FIELDS))


def record_episodes(
    agent: Acting | None,
    env: Any,
    episodes: int,
    *,
    random: float = 0.0,
    num_envs: int = 16,
    seed: int = 0,
) -> Episodes:
    """Play whole episodes and keep them.

    Args:
        agent: what plays; None for random actions.
        env: where.
        episodes: how many; the first to begin.
        random: the share of actions that are random instead.
        num_envs: copies that play at a time.
        seed: of the environments and of random actions.
    """
    count("record_episodes: episodes", episodes)
    if not 0 <= random <= 1:
        raise ConfigError(f"record_episodes: random is a share from 0 to 1, not {random!r}")
    envs = make(env, min(num_envs, episodes))
    # Not the stream of the environments, with which actions would be correlated.
    n, rng = envs.num_envs, np.random.default_rng([seed, 1])
    quota = [len(range(i, episodes, n)) for i in range(n)]
    kept: list[list[tuple[np.ndarray, np.ndarray, np.ndarray, bool]]] = [[] for _ in range(n)]
    seen: list[list[np.ndarray]] = [[] for _ in range(n)]
    done: list[list[np.ndarray]] = [[] for _ in range(n)]
    earned: list[list[float]] = [[] for _ in range(n)]
    observation = envs.reset(seed)
    player = None if agent is None else player_of(agent, n)
    while any(len(k) < q for k, q in zip(kept, quota, strict=True)):
        actions = envs.action_space.sample(rng, n)
        if player is not None:
            chosen = np.asarray(player.act(observation))
            take = rng.random(n) < random
            actions = np.where(take.reshape(n, *[1] * (chosen.ndim - 1)), actions, chosen)
        step = envs.step(actions)
        for i in range(n):
            seen[i].append(observation[i])
            done[i].append(actions[i])
            earned[i].append(float(step.reward[i]))
        over = step.terminated | step.truncated
        if player is not None:
            player.forget(over)
        for i in over.nonzero()[0].tolist():
            if len(kept[i]) < quota[i]:
                rewards = np.array(earned[i], np.float32)
                whole = np.stack(seen[i]), np.stack(done[i]), rewards, bool(step.terminated[i])
                kept[i].append(whole)
            seen[i], done[i], earned[i] = [], [], []
        observation = step.observation
    order = [kept[k % n][k // n] for k in range(episodes)]
    return Episodes(
        np.concatenate([e[0] for e in order]),
        np.concatenate([e[1] for e in order]).astype(envs.action_space.dtype),
        np.concatenate([e[2] for e in order]),
        np.array([len(e[2]) for e in order], np.int64),
        np.array([e[3] for e in order], np.bool_),
    )

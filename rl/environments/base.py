"""What every environment here offers, and the base of those written as arrays.

All environments are vectorised: N copies that step together. A row whose episode ended shows the
first observation of its next episode at once (same-step autoreset); the last observation of the
old one, which learning from a truncated episode needs, is in `Step.final_observation`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from ...core.errors import ConfigError, DataError, DtypeError, IndexRangeError, ShapeError
from ..spaces import Space

NO_STATE = "no state"  # `reason` of the error of environments that do not offer theirs


class Step(NamedTuple):
    """What one step of N environments gives.

    The arrays are the caller's: the environment does not write into them again.

    Attributes:
        observation: (N, ...), for ended rows already the first of the next episode.
        reward: (N,) float32.
        terminated: (N,) bool, episodes that reached an end of their own. Nothing comes after it.
        truncated: (N,) bool, episodes that were cut, by a limit of time. They had a future, so
            learners add the value of `final_observation`. Never true together with `terminated`.
        final_observation: (N, ...) with the true last observations in the rows that ended (other
            rows hold what they like), or None where no row ended.
    """

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    final_observation: np.ndarray | None


class VectorEnv(ABC):
    """N environments of one kind that step together.

    Attributes:
        num_envs: N.
        observation_space: of one environment.
        action_space: of one environment.
        id: the name that messages and records show.
        fps: pictures a second at which episodes look natural.
        max_episode_steps: after so many steps an episode is truncated; None if it is not known.
        maker: the class or function of the user's that made it; None where the id tells.
    """

    num_envs: int
    observation_space: Space
    action_space: Space
    id: str = "environment"
    maker: Any = None
    fps: int = 30
    max_episode_steps: int | None = None

    @property
    def kind(self) -> Any:
        """What `make` makes others like it of."""
        return self.id if self.maker is None else self.maker

    @abstractmethod
    def reset(self, seed: int | None = None) -> np.ndarray:
        """Begin new episodes everywhere.

        Args:
            seed: starts the random stream anew; None goes on with it.

        Shape: the observations are (N, ...).
        """

    @abstractmethod
    def step(self, actions: np.ndarray) -> Step:
        """Act once in every environment.

        Shape: actions are (N, ...).

        Raises:
            ShapeError: not one action for each environment.
            ConfigError: `reset` was not called before.
        """

    def restart(self, rows: np.ndarray) -> np.ndarray:
        """Begin new episodes in some rows, as if they had ended.

        Shape: rows (N,) bool; all observations are returned, (N, ...).
        """
        raise ConfigError(f"{self.id} cannot begin anew in single rows.")

    def action_mask(self) -> np.ndarray | None:
        """Which actions are legal now, (N, n) bool; None where all always are."""
        return None

    def state(self) -> dict[str, Any]:
        """Everything that the future depends on, as arrays and JSON values."""
        raise ConfigError(
            f"{self.id} cannot be saved: it does not offer its state.\n"
            "Environments that are built in, and subclasses of ArrayEnv, do.",
            reason=NO_STATE,
        )

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where `state` was taken."""
        raise ConfigError(f"{self.id} cannot be resumed: it does not take a state.")

    def render(self, i: int = 0) -> np.ndarray:
        """A picture of environment i, (H, W, 3) uint8."""
        raise ConfigError(f"{self.id} draws no pictures.")

    def final_picture(self, i: int = 0) -> np.ndarray | None:
        """The last picture of the episode of environment i, if the last step ended it.

        `render` shows the next episode by then. None where no picture was kept.
        """
        return None

    def close(self) -> None:  # noqa: B027 (most have nothing to release)
        """Release what the environments hold."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{self.id} x {self.num_envs} ({self.observation_space} -> {self.action_space})"


class ArrayEnv(VectorEnv):
    """Base of environments whose N states are one array.

    A subclass sets the two spaces and defines `begin`, `advance` and `observe`; random draws come
    from `self.rng`. Everything else, such as resets, limits of time, checks of actions and exact
    resume, is here.

    Attributes:
        rng: where random draws come from.
        trusted: False checks at every step that `advance` and `observe` gave finite numbers of the
            right shapes; that takes a few microseconds.
    """

    trusted = False

    def __init__(
        self,
        num_envs: int = 1,
        *,
        seed: int | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        self.num_envs = count("num_envs", num_envs)
        if max_episode_steps is not None:
            self.max_episode_steps = count("max_episode_steps", max_episode_steps)
        self.rng = _generator(seed)
        self._state: np.ndarray | None = None
        self._steps = np.zeros(self.num_envs, np.int32)
        self._longest = 0  # no episode has more steps
        # The rows that ended in the last step and their states, for pictures.
        self._ended: tuple[np.ndarray, np.ndarray] | None = None

    @abstractmethod
    def begin(self, num: int) -> np.ndarray:
        """States at the beginning of `num` episodes; the last axis counts them."""

    @abstractmethod
    def advance(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Next states, rewards and which episodes ended; must not write into `state`."""

    @abstractmethod
    def observe(self, state: np.ndarray) -> np.ndarray:
        """What an agent sees of these states, in a new array.

        Shape: (..., n) -> (n, ...)
        """

    def draw(self, state: np.ndarray) -> np.ndarray:
        """A picture of one state (without the last axis)."""
        raise ConfigError(f"{self.id} draws no pictures: {type(self).__name__} defines no draw.")

    def reset(self, seed: int | None = None) -> np.ndarray:
        if seed is not None:
            self.rng = _generator(seed)
        self._state = self.begin(self.num_envs)
        self._steps, self._longest = np.zeros(self.num_envs, np.int32), 0
        self._ended = None
        return self.observe(self._state)

    def restart(self, rows: np.ndarray) -> np.ndarray:
        state = self._current().copy()
        state[..., rows] = self.begin(int(np.count_nonzero(rows)))
        self._state, self._steps = state, np.where(rows, np.int32(0), self._steps)
        return self.observe(state)

    def step(self, actions: np.ndarray) -> Step:
        before = self._current()
        actions = checked_actions(actions, self.action_space, self.num_envs, self.id)
        state, reward, terminated = self.advance(before, actions)
        observation = self.observe(state)
        if not self.trusted:
            self._check(state, reward, terminated, observation)
        steps = self._steps + 1
        self._longest += 1
        if self.max_episode_steps is None or self._longest < self.max_episode_steps:
            truncated = np.zeros(self.num_envs, np.bool_)
            ended = terminated.nonzero()[0]
        else:
            truncated = steps >= self.max_episode_steps
            truncated &= ~terminated
            ended = (terminated | truncated).nonzero()[0]
            self._longest = int(steps.max(initial=0, where=~truncated))
        final = None
        self._ended = None
        if len(ended):
            self._ended = ended, state[..., ended]
            final, observation = observation, observation.copy()
            first = self.begin(len(ended))
            state[..., ended] = first
            observation[ended] = self.observe(first)
            steps[ended] = 0
        self._state, self._steps = state, steps
        return Step(observation, reward, terminated, truncated, final)

    def state(self) -> dict[str, Any]:
        return {
            "state": self._current().copy(),
            "steps": self._steps.copy(),
            "rng": self.rng.bit_generator.state,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        missing = {"state", "steps", "rng"} - set(state)
        if missing:
            raise DataError(f"{self.id}: the state lacks {', '.join(sorted(missing))}")
        likeness = self.begin(1) if self._state is None else self._state
        new, steps = np.asarray(state["state"]), np.asarray(state["steps"])
        wanted = (*likeness.shape[:-1], self.num_envs)
        if new.shape != wanted or steps.shape != (self.num_envs,):
            raise DataError(
                f"{self.id}: the state is of shape {new.shape}, with {steps.shape} counts of steps;"
                f" for {self.num_envs} environments it is {wanted} and ({self.num_envs},).\n"
                "It was taken from another environment, or from another number of them.",
                expected=wanted,
                got=new.shape,
            )
        generator = np.random.default_rng(0)
        try:
            generator.bit_generator.state = state["rng"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.id}: the state of the random stream is damaged: {error!r}"
            ) from None
        self._state = np.array(new, likeness.dtype)
        self._steps = np.array(steps, np.int32)
        self._longest = int(self._steps.max(initial=0))
        self._ended = None
        self.rng = generator

    def render(self, i: int = 0) -> np.ndarray:
        if not -self.num_envs <= i < self.num_envs:
            raise IndexRangeError(
                f"{self.id}: there is no environment {i}, only 0 to {self.num_envs - 1}", index=i
            )
        return self.draw(self._current()[..., i])

    def final_picture(self, i: int = 0) -> np.ndarray | None:
        if self._ended is None:
            return None
        rows, states = self._ended
        found = (rows == i % self.num_envs).nonzero()[0]
        return self.draw(states[..., found[0]]) if len(found) else None

    def _check(
        self,
        state: np.ndarray,
        reward: np.ndarray,
        terminated: np.ndarray,
        observation: np.ndarray,
    ) -> None:
        n, space = self.num_envs, self.observation_space
        wanted = {
            "advance: the states": (state, self._current().shape, None),
            "advance: the rewards": (reward, (n,), np.dtype(np.float32)),
            "advance: the ends": (terminated, (n,), np.dtype(np.bool_)),
            "observe: the observations": (observation, (n, *space.shape), space.dtype),
        }
        for what, (array, shape, dtype) in wanted.items():
            check_array(f"{self.id}, {what}", array, shape, dtype)

    def _current(self) -> np.ndarray:
        if self._state is None:
            raise ConfigError(f"{self.id}: call reset() first, which begins the episodes.")
        return self._state


def checked_actions(actions: Any, space: Space, num_envs: int, name: str) -> np.ndarray:
    """Actions as an array of the right shape and kind.

    Continuous ones may be outside their bounds, where environments clip them; NaN may not.

    Raises:
        ShapeError: not one action for each environment.
        DtypeError: of a kind that the space does not have.
        IndexRangeError: no such action.
    """
    array = np.asarray(actions)
    wanted = (num_envs, *space.shape)
    if array.shape != wanted:
        raise ShapeError(
            f"{name}: step() wants actions of shape {wanted}, one for each of the {num_envs} "
            f"environments, and got {array.shape}.\nThe space of one action is {space}.",
            expected=wanted,
            got=array.shape,
        )
    kind, number = array.dtype.kind, space.dtype.kind
    if kind not in ("biuf" if number == "f" else "iu"):
        raise DtypeError(
            f"{name}: step() wants actions of {space}, and got {array.dtype}.",
            expected=space.dtype,
            got=array.dtype,
        )
    if number == "f":
        if not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0, 0])
            raise IndexRangeError(
                f"{name}: the action for environment {row} is {array[row]}.\n"
                "The policy that chose it has diverged: look at its learning rate and losses.",
                row=row,
            )
        return array
    if (problem := space.problem(array)) is not None:
        raise IndexRangeError(f"{name}: among the actions, {problem}.", space=space)
    return array


def check_array(
    what: str, array: Any, shape: tuple[int, ...], dtype: np.dtype[Any] | None = None
) -> None:
    """Complain of an array from somebody's environment that is not as it should be.

    Raises:
        ShapeError: it is of another shape.
        DtypeError: it is of another type.
        DataError: there is a NaN or an infinity in it.
    """
    if not isinstance(array, np.ndarray):
        raise DtypeError(f"{what} are {type(array).__name__}, where an array is wanted.")
    if array.shape != shape:
        raise ShapeError(
            f"{what} are of shape {array.shape}, where {shape} is wanted.",
            expected=shape,
            got=array.shape,
        )
    if dtype is not None and array.dtype != dtype:
        raise DtypeError(
            f"{what} are {array.dtype}, where {dtype} is wanted: .astype(np.{dtype.name})",
            expected=dtype,
            got=array.dtype,
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
        raise DataError(f"{what} hold {array[where]} at {where}.", where=where)


def count(name: str, value: Any) -> int:
    """A number of things, checked."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ConfigError(f"{name} is a whole number of at least 1, not {value!r}", value=value)
    return int(value)


def checked_seed(seed: Any) -> None:
    """Complain of a seed that is none."""
    if seed is not None and (
        isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0
    ):
        raise ConfigError(f"a seed is a whole number of at least 0, not {seed!r}", seed=seed)


def _generator(seed: Any) -> np.random.Generator:
    checked_seed(seed)
    return np.random.default_rng(seed)

"""Single environments with Gymnasium's methods, stepped one after the other.

Gymnasium itself is not needed: what counts is that `reset(seed=...)` gives (observation, info) and
`step(action)` (observation, reward, terminated, truncated, info), and that there are two spaces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...core.errors import BestiaryError, ConfigError, DataError, MissingExtra, ShapeError
from .. import spaces
from .base import Step, VectorEnv, check_array, checked_actions

METHODS = ("reset", "step", "observation_space", "action_space")


class LoopEnv(VectorEnv):
    """N environments that somebody wrote for one at a time.

    Continuous actions are cut to the bounds of their space.

    Args:
        envs: the environments, of one kind, each an object of its own.
        seed: of the first `reset`; environment i gets `seed + i`, as in Gymnasium.

    Raises:
        ConfigError: they lack methods, differ in their spaces, or have spaces of other kinds.
    """

    def __init__(self, envs: Sequence[Any], *, seed: int | None = None) -> None:
        if not envs:
            raise ConfigError("there is no environment in the list")
        self.envs = list(envs)
        self.num_envs = len(self.envs)
        first = self.envs[0]
        self.id = name_of(first)
        for method in METHODS:
            if not hasattr(first, method):
                raise ConfigError(
                    f"{self.id} is no environment: it has no {method}.\n"
                    f"Wanted: {', '.join(METHODS)}, as Gymnasium has them.",
                    missing=method,
                )
        if len({id(env) for env in self.envs}) < self.num_envs:
            raise ConfigError(
                f"{self.id}: one object is there several times, and can be in one state only.\n"
                "A function that makes environments must make a new one at every call."
            )
        self.observation_space = space_of(first, "observation_space", self.id)
        self.action_space = space_of(first, "action_space", self.id)
        for i, env in enumerate(self.envs):
            for what in ("observation_space", "action_space"):
                if space_of(env, what, self.id) != getattr(self, what):
                    raise ConfigError(
                        f"{self.id}: environment {i} has the {what} {getattr(env, what)}, and "
                        f"environment 0 {getattr(first, what)}.\nAll must be of one kind.",
                        expected=getattr(first, what),
                        got=getattr(env, what),
                    )
        self.fps = frames_a_second(first)
        self.max_episode_steps = limit_of(first)
        self._seed = seed
        self._begun = False
        self._last = self._empty()  # what the rows show now

    def reset(self, seed: int | None = None) -> np.ndarray:
        seed, self._seed = (self._seed if seed is None else seed), None
        observation = self._empty()
        for i in range(self.num_envs):
            observation[i] = self._reset_one(i, None if seed is None else seed + i)
        self._begun = True
        self._last = observation
        return self._finite(observation).copy()

    def restart(self, rows: np.ndarray) -> np.ndarray:
        for i in rows.nonzero()[0].tolist():
            self._last[i] = self._reset_one(i, None)
        return self._finite(self._last).copy()

    def step(self, actions: np.ndarray) -> Step:
        if not self._begun:
            raise ConfigError(f"{self.id}: call reset() first, which begins the episodes.")
        chosen = foreign_actions(actions, self.action_space, self.num_envs, self.id)
        observation = self._empty()
        reward = np.empty(self.num_envs, np.float32)
        terminated = np.zeros(self.num_envs, np.bool_)
        truncated = np.zeros(self.num_envs, np.bool_)
        for i, env in enumerate(self.envs):
            answer = _called(env.step, f"{self.id}: step of environment {i}", chosen[i])
            if not isinstance(answer, tuple) or len(answer) != 5:
                raise DataError(
                    f"{self.id}: step() gave {_described(answer)}, where Gymnasium's five values "
                    "are wanted:\nobservation, reward, terminated, truncated, info.\n"
                    "With four it is written for the old Gym: there `done` meant both kinds of "
                    "end; return terminated and truncated instead.",
                    got=answer,
                )
            value, reward[i], terminated[i], truncated[i] = self._parts(i, answer)
            observation[i] = value
        truncated &= ~terminated
        self._finite(observation)
        check_array(f"{self.id}, step: the rewards", reward, reward.shape)
        ended = (terminated | truncated).nonzero()[0]
        final = None
        if len(ended):
            final, observation = observation, observation.copy()
            for i in ended.tolist():
                observation[i] = self._reset_one(i, None)
            self._finite(observation)
        self._last = observation.copy()
        return Step(observation, reward, terminated, truncated, final)

    def render(self, i: int = 0) -> np.ndarray:
        return picture(self.envs[i].render, self.envs[i], self.id)

    def close(self) -> None:
        for env in self.envs:
            if hasattr(env, "close"):
                env.close()

    def _empty(self) -> np.ndarray:
        space = self.observation_space
        return np.empty((self.num_envs, *space.shape), space.dtype)

    def _reset_one(self, i: int, seed: int | None) -> Any:
        env = self.envs[i]
        # Before the first seed, the environments seed themselves.
        settings = {} if seed is None else {"seed": seed}
        answer = _called(env.reset, f"{self.id}: reset of environment {i}", **settings)
        if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], dict):
            raise DataError(
                f"{self.id}: reset() gave {_described(answer)}, where an observation and a "
                "dictionary are wanted:\nreturn observation, {}",
                got=answer,
            )
        return self._value(i, "reset", answer[0])

    def _parts(self, i: int, answer: tuple[Any, ...]) -> tuple[Any, float, bool, bool]:
        value, reward, terminated, truncated, _ = answer
        numbers = []
        for what, number in (
            ("reward", reward),
            ("terminated", terminated),
            ("truncated", truncated),
        ):
            array = np.asarray(number)
            if array.size != 1 or array.dtype.kind not in "biuf":
                raise ShapeError(
                    f"{self.id}: step() of environment {i} gave as {what} {_described(number)}, "
                    "where one number is wanted.",
                    got=number,
                )
            numbers.append(array.item())
        return self._value(i, "step", value), numbers[0], bool(numbers[1]), bool(numbers[2])

    def _value(self, i: int, where: str, value: Any) -> np.ndarray:
        """One observation, checked."""
        try:
            array = np.asarray(value)
        except ValueError:  # ragged lists
            array = np.asarray(None)
        space = self.observation_space
        if array.shape != space.shape or array.dtype.kind not in "biuf":
            raise ShapeError(
                f"{self.id}: {where}() of environment {i} gave an observation of shape "
                f"{array.shape} and type {array.dtype};\nits observation_space says {space}.",
                expected=space.shape,
                got=array.shape,
            )
        return array

    def _finite(self, observation: np.ndarray) -> np.ndarray:
        check_array(f"{self.id}: the observations", observation, observation.shape)
        return checked_observations(observation, self.observation_space, self.id)


def checked_observations(values: np.ndarray, space: spaces.Space, name: str) -> np.ndarray:
    """Classes must be among those of the space: they become indices. Boxes may be overstepped."""
    if not isinstance(space, spaces.Box) and (problem := space.problem(values)) is not None:
        raise DataError(f"{name}: among the observations, {problem} ({space}).")
    return values


def foreign_actions(actions: Any, space: spaces.Space, num_envs: int, name: str) -> Any:
    """Actions as environments of others want them: within bounds, of the space's type."""
    array = checked_actions(actions, space, num_envs, name)
    if isinstance(space, spaces.Box):
        array = np.clip(array, space.low, space.high)
    array = array.astype(space.dtype)
    return array.tolist() if isinstance(space, spaces.Discrete) else array


def name_of(env: Any) -> str:
    """The id of an environment of others, or the name of its class."""
    try:
        spec = getattr(env, "spec", None)
    except Exception:  # wrappers that cannot be described raise here
        spec = None
    inner = getattr(env, "unwrapped", env)
    return str(getattr(spec, "id", None) or type(inner).__name__)


def limit_of(env: Any) -> int | None:
    """After how many steps an environment of others cuts its episodes, where it says so."""
    try:
        limit = getattr(getattr(env, "spec", None), "max_episode_steps", None)
    except Exception:
        limit = None
    return limit if isinstance(limit, int) else None


def frames_a_second(env: Any) -> int:
    """The speed at which pictures of an environment of others are to be shown."""
    fps = (getattr(env, "metadata", None) or {}).get("render_fps")
    return int(fps) if fps else VectorEnv.fps


def space_of(env: Any, what: str, name: str) -> spaces.Space:
    """A space of an environment of others.

    Raises:
        ConfigError: it is of a kind that agents here have no use for.
    """
    try:
        return spaces.of(getattr(env, what))
    except ConfigError as error:
        raise ConfigError(f"{name}, {what}: {error.message}", **error.facts) from None


def picture(draw: Callable[[], Any], env: Any, name: str) -> np.ndarray:
    """What an environment of others draws, checked."""
    if getattr(env, "render_mode", "rgb_array") != "rgb_array":
        raise ConfigError(
            f"{name} was made with render_mode={env.render_mode!r}, and pictures need "
            f"'rgb_array'.\nmake({name!r}, options={{'render_mode': 'rgb_array'}})"
        )
    try:
        frame = draw()
    except Exception as error:
        if type(error).__name__ == "DependencyNotInstalled":
            raise MissingExtra(f"{name} cannot be drawn: {error}") from None
        raise
    array = np.asarray(frame)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise DataError(
            f"{name}: render() gave {_described(frame)}, where an array (height, width, 3) of "
            "uint8 is wanted."
        )
    return array


def _called(function: Callable[..., Any], where: str, *values: Any, **settings: Any) -> Any:
    """Call somebody's code; its exceptions leave with a note on where they come from."""
    try:
        return function(*values, **settings)
    except BestiaryError:
        raise
    except Exception as error:
        error.add_note(f"({where}, with {values or settings or 'no arguments'})")
        raise


def _described(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and type {value.dtype}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) < 60 else text[:60] + '...'}"

"""Gymnasium's environments: by id, and vectors of any of its three ways to begin episodes anew.

Gymnasium 1.1 or later. Its vector environments begin an episode in the step that ended the last
(SAME_STEP), in the one after (NEXT_STEP), or when they are told to (DISABLED). Ours is the first
one; the other two are turned into it by resetting the ended rows at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np

from ...core.errors import ConfigError, DataError, MissingExtra
from ...core.notice import warn_once
from .base import Step, VectorEnv, check_array
from .loop import (
    LoopEnv,
    checked_observations,
    foreign_actions,
    frames_a_second,
    limit_of,
    name_of,
    picture,
    space_of,
)

# What an environment needs -> the extra that brings it.
EXTRAS = {"box2d": "bestiary[box2d]", "mujoco": "gymnasium[mujoco]", "ale": "gymnasium[atari]"}


def by_id(
    name: str, num_envs: int, seed: int | None, options: dict[str, Any], known: Iterable[str]
) -> VectorEnv:
    """N of Gymnasium's environments of an id.

    Raises:
        MissingExtra: Gymnasium, or what the environment needs, is not installed.
        ConfigError: there is no such id.
    """
    try:
        import gymnasium
    except ImportError:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.75)
        if near:
            raise _unknown(name, near) from None
        raise MissingExtra(
            f"there is no environment {name!r} among those that are built in:\n"
            f"{', '.join(known)}.\n"
            "If it is one of Gymnasium's: pip install 'bestiary[rl]'",
            extra="rl",
        ) from None
    if "render_mode" not in options and _draws(gymnasium, name):
        options = {"render_mode": "rgb_array", **options}

    def one() -> Any:
        # What its checker looks for is looked for here too, at every step.
        return gymnasium.make(name, disable_env_checker=True, **options)

    try:
        return LoopEnv([one() for _ in range(num_envs)], seed=seed)
    except gymnasium.error.DependencyNotInstalled as error:
        text = str(error).lower()
        extra = next((e for word, e in EXTRAS.items() if word in text or word in name.lower()), "")
        fix = f"pip install '{extra}'" if extra else str(error)
        raise MissingExtra(
            f"{name} needs a library that is not installed: {error}\n{fix}", extra=extra
        ) from None
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        if isinstance(error, gymnasium.error.UnregisteredEnv) or "Malformed" in str(error):
            names = {*known, *gymnasium.registry}
            near = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.5)
            raise _unknown(name, near) from None
        raise ConfigError(f"{name} cannot be made: {error}", name=name) from error


def _unknown(name: str, near: list[str]) -> ConfigError:
    hint = f"Near: {', '.join(near)}." if near else "'module:Class' names one of your own."
    return ConfigError(f"there is no environment {name!r}.\n{hint}", name=name, near=near)


def _draws(gymnasium: Any, name: str) -> bool:
    """Whether the environments of an id can draw without a window."""
    from gymnasium.envs.registration import load_env_creator

    try:
        entry = gymnasium.spec(name).entry_point
        creator = entry if callable(entry) else load_env_creator(entry)
    except Exception:  # whatever is wrong shows, with its message, when one is made
        return False
    return "rgb_array" in (getattr(creator, "metadata", None) or {}).get("render_modes", ())


def from_vector(env: Any, *, seed: int | None = None) -> VectorEnv:
    """A vector environment of Gymnasium as one of ours."""
    mode = (getattr(env, "metadata", None) or {}).get("autoreset_mode", "NextStep")
    mode = getattr(mode, "value", mode)
    if mode not in ("NextStep", "SameStep", "Disabled"):
        raise ConfigError(f"{name_of(env)}: its autoreset_mode is {mode!r}, which is not known.")
    if mode == "NextStep" and not _resets_rows(env):
        return _as_singles(env, seed)
    return GymnasiumVector(env, mode, seed=seed)


class GymnasiumVector(VectorEnv):
    """A vector environment of Gymnasium.

    Args:
        env: it.
        mode: its autoreset mode: SameStep, NextStep or Disabled.
        seed: of the first `reset`.
    """

    def __init__(self, env: Any, mode: str, *, seed: int | None = None) -> None:
        self.env = env
        self.mode = mode
        self.num_envs = int(env.num_envs)
        self.id = name_of(env)
        self.observation_space = space_of(env, "single_observation_space", self.id)
        self.action_space = space_of(env, "single_action_space", self.id)
        self.fps = frames_a_second(env)
        self.max_episode_steps = limit_of(env)
        self._seed = seed
        self._begun = False
        self._last = np.empty(0)  # what the rows show now

    def reset(self, seed: int | None = None) -> np.ndarray:
        seed, self._seed = (self._seed if seed is None else seed), None
        self._last = self._observed("reset", self.env.reset(seed=seed)[0])
        self._begun = True
        return self._last.copy()

    def restart(self, rows: np.ndarray) -> np.ndarray:
        self._last = self._restart(self._last, rows)
        return self._last.copy()

    def step(self, actions: np.ndarray) -> Step:
        if not self._begun:
            raise ConfigError(f"{self.id}: call reset() first, which begins the episodes.")
        space, n = self.action_space, self.num_envs
        chosen = np.asarray(foreign_actions(actions, space, n, self.id), space.dtype)
        seen, rewards, terminated, truncated, infos = self.env.step(chosen)
        observation = self._observed("step", seen)
        reward = np.asarray(rewards).astype(np.float32)
        check_array(f"{self.id}, step: the rewards", reward, (n,))
        terminated = np.array(terminated, np.bool_)
        truncated = np.array(truncated, np.bool_) & ~terminated
        ended = terminated | truncated
        final = None
        if ended.any():
            if self.mode == "SameStep":
                final = self._finals(observation, infos, ended)
            else:
                final, observation = observation, self._restart(observation, ended)
        self._last = observation.copy()
        return Step(observation, reward, terminated, truncated, final)

    def _finals(self, observation: np.ndarray, infos: Any, ended: np.ndarray) -> np.ndarray:
        if "final_obs" not in infos:
            raise DataError(
                f"{self.id}: episodes ended, and infos has no 'final_obs', which environments "
                f"that begin anew in the same step give.\nIt has: {', '.join(infos) or 'nothing'}."
            )
        final = observation.copy()
        for i in ended.nonzero()[0]:
            value = np.asarray(infos["final_obs"][i])
            check_array(f"{self.id}, step: the final observation", value, final.shape[1:])
            final[i] = value
        return final

    def _restart(self, observation: np.ndarray, ended: np.ndarray) -> np.ndarray:
        answer = self.env.reset(options={"reset_mask": ended.copy()})
        new = self._observed("reset", answer[0])
        others = ~ended
        if not np.array_equal(new[others], observation[others]):
            raise DataError(
                f"{self.id}: told to reset {int(ended.sum())} of {self.num_envs} environments, it "
                "reset others too.\nIts reset must obey options['reset_mask'], an array of bool."
            )
        return new

    def _observed(self, where: str, values: Any) -> np.ndarray:
        space = self.observation_space
        array = np.array(values)
        check_array(f"{self.id}, {where}: the observations", array, (self.num_envs, *space.shape))
        return checked_observations(array.astype(space.dtype, copy=False), space, self.id)

    def render(self, i: int = 0) -> np.ndarray:
        def draw() -> Any:
            frames = self.env.render()
            return None if frames is None else frames[i]

        return picture(draw, self.env, self.id)

    def close(self) -> None:
        self.env.close()


def _resets_rows(env: Any) -> bool:
    """Whether a vector environment can begin anew in single rows."""
    from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

    if env.num_envs == 1 or isinstance(env.unwrapped, (SyncVectorEnv, AsyncVectorEnv)):
        return True
    # Tried: after some steps, the others must stay where they are.
    first = np.array(env.reset(seed=0)[0])
    rng = np.random.default_rng(0)
    space = space_of(env, "single_action_space", name_of(env))
    for _ in range(3):
        before = np.array(env.step(space.sample(rng, env.num_envs))[0])
    mask = np.zeros(env.num_envs, np.bool_)
    mask[0] = True
    try:
        after = np.array(env.reset(options={"reset_mask": mask})[0])
    except Exception:
        return False
    moved = not np.array_equal(before[1:], first[1:])
    return moved and np.array_equal(before[1:], after[1:])


def _as_singles(env: Any, seed: int | None) -> VectorEnv:
    """The single environments that a vector environment is made of, where its id tells them."""
    import gymnasium

    name, spec = name_of(env), getattr(env, "spec", None)
    settings = dict(getattr(spec, "kwargs", None) or {})
    for key in ("num_envs", "vectorization_mode", "vector_kwargs", "wrappers"):
        settings.pop(key, None)
    if spec is None or spec.entry_point is None or env.unwrapped is not env:
        raise ConfigError(
            f"{name} begins an episode in the step after its last one ended, and cannot reset "
            "single rows, so that a step would be lost for learning.\n"
            "Let its reset obey options['reset_mask'], or make its autoreset_mode SAME_STEP, or:\n"
            f"gymnasium.make_vec({name!r}, {env.num_envs}, vectorization_mode='sync')"
        )
    warn_once(
        f"singles {name}",
        f"{type(env).__name__} begins an episode in the step after its last one ended, and cannot "
        f"reset single rows: its {env.num_envs} environments are made one by one instead.",
        UserWarning,
    )
    envs = [gymnasium.make(spec.id, **settings) for _ in range(env.num_envs)]
    return LoopEnv(envs, seed=seed)

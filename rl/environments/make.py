"""Environments from what a user has: an id, an object, a function, a class in a module."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from ...core.errors import ConfigError
from .base import VectorEnv

# Ids of what is built in -> file, class, settings.
ENVIRONMENTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Acrobot-v1": ("acrobot", "Acrobot", {}),
    "CartPole-v1": ("cartpole", "CartPole", {}),
    "MountainCar-v0": ("mountain_car", "MountainCar", {}),
    "MountainCarContinuous-v0": ("mountain_car", "MountainCarContinuous", {}),
    "Pendulum-v1": ("pendulum", "Pendulum", {}),
}


def make(
    env: Any,
    num_envs: int = 1,
    *,
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> VectorEnv:
    """N environments that step together.

    Args:
        env: the id of an environment, built in or Gymnasium's ("CartPole-v1", "LunarLander-v3");
            `"module:Class"`; a class or function that makes one; or one that is made already,
            of Gymnasium or from here.
        num_envs: how many copies.
        seed: starts the random stream; `reset(seed)` does too.
        options: arguments for whatever makes the environments.

    Raises:
        ConfigError: there is none of that name, or it cannot be multiplied.
        MissingExtra: it is one of Gymnasium's, which is not installed.
    """
    options = dict(options or {})
    if isinstance(env, str):
        return _by_name(env, num_envs, seed, options)
    if isinstance(env, type) and issubclass(env, VectorEnv):
        return env(num_envs, seed=seed, **options)  # type: ignore[call-arg]
    if isinstance(env, VectorEnv):
        return _given(env, num_envs, seed, options)
    raise ConfigError(f"{env!r} is no environment")


def _by_name(name: str, num_envs: int, seed: int | None, options: dict[str, Any]) -> VectorEnv:
    known = _forgiven(name)
    if known is not None:
        file, kind, settings = ENVIRONMENTS[known]
        cls = getattr(importlib.import_module(f".{file}", __package__), kind)
        made: VectorEnv = cls(num_envs, seed=seed, **{**settings, **options})
        made.id = known
        return made
    near = difflib.get_close_matches(name, ENVIRONMENTS, n=3, cutoff=0.5)
    raise ConfigError(f"there is no environment {name!r}; near: {near}", name=name, near=near)


def _forgiven(name: str) -> str | None:
    """The id that is meant: case, hyphens and a missing version are forgiven."""
    if name in ENVIRONMENTS:
        return name

    def plain(text: str) -> str:
        return text.lower().replace("-", "").replace("_", "")

    found = [i for i in ENVIRONMENTS if plain(name) in (plain(i), plain(i.rpartition("-v")[0]))]
    return max(found, default=None)


def _given(env: VectorEnv, num_envs: int, seed: int | None, options: dict[str, Any]) -> VectorEnv:
    if options:
        raise ConfigError(f"{env.id} is made already, so that options come too late: {options}")
    if num_envs not in (1, env.num_envs):
        raise ConfigError(
            f"{env.id} has {env.num_envs} environments, and {num_envs} are asked for.\n"
            f"Make it with so many, or leave num_envs away.",
            expected=num_envs,
            got=env.num_envs,
        )
    if seed is not None:
        env.reset(seed)
    return env

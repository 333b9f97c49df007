"""Environments from what a user has: an id, an object, a function, a class in a module."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError
from .base import VectorEnv, checked_seed, count
from .loop import LoopEnv, name_of

# Ids of what is built in -> file, class, settings.
ENVIRONMENTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Acrobot-v1": ("acrobot", "Acrobot", {}),
    "CartPole-v1": ("cartpole", "CartPole", {}),
    "Catch-v0": ("catch", "Catch", {}),
    "ConnectFour-v0": ("connect_four", "ConnectFour", {}),
    "GridWorld-v0": ("grid_world", "GridWorld", {}),
    "MountainCar-v0": ("mountain_car", "MountainCar", {}),
    "MountainCarContinuous-v0": ("mountain_car", "MountainCarContinuous", {}),
    "Pendulum-v1": ("pendulum", "Pendulum", {}),
}


def make(
    env: Any,
    num_envs: int | None = None,
    *,
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> VectorEnv:
    """N environments that step together.

    Args:
        env: the id of an environment, built in or Gymnasium's ("CartPole-v1", "LunarLander-v3");
            `"module:Class"`; a class or function that makes one; or one that is made already,
            from here or Gymnasium's, single or vector.
        num_envs: how many copies. None: one, or as many as a vector environment has.
        seed: starts the random stream; `reset(seed)` does too.
        options: arguments for whatever makes the environments.

    Raises:
        ConfigError: there is none of that name, or it cannot be multiplied.
        MissingExtra: it is one of Gymnasium's, which is not installed.
    """
    options = dict(options or {})
    if num_envs is not None:
        count("num_envs", num_envs)
    checked_seed(seed)
    if isinstance(env, str):
        return _by_name(env, num_envs, seed, options)
    if isinstance(env, type) or (callable(env) and not hasattr(env, "step")):
        made = _called(env, num_envs, seed, options)
        made.maker = partial(env, **options) if options else env
        return made
    if options:
        raise ConfigError(f"{env!r} is made already: options come too late for it", got=options)
    return _given(env, num_envs, seed)


def _by_name(
    name: str, num_envs: int | None, seed: int | None, options: dict[str, Any]
) -> VectorEnv:
    known = _forgiven(name)
    if known is not None:
        file, kind, settings = ENVIRONMENTS[known]
        cls = getattr(importlib.import_module(f".{file}", __package__), kind)
        made = _called(cls, num_envs, seed, {**settings, **options})
        made.id = known
        return made
    module, colon, attribute = name.partition(":")
    if colon and attribute.isidentifier():
        made = _called(_imported(module, attribute), num_envs, seed, options)
        made.id = name
        return made
    from .gymnasium import by_id

    return by_id(name, num_envs or 1, seed, options, tuple(ENVIRONMENTS))


def _forgiven(name: str) -> str | None:
    """The id that is meant: case, hyphens and a missing version are forgiven."""
    if name in ENVIRONMENTS:
        return name

    def plain(text: str) -> str:
        return text.lower().replace("-", "").replace("_", "")

    found = [i for i in ENVIRONMENTS if plain(name) in (plain(i), plain(i.rpartition("-v")[0]))]
    return max(found, default=None)


def _imported(module: str, attribute: str) -> Any:
    """What the user's `module:Class` names; modules in the current folder are found too."""
    root = module.partition(".")[0]
    here = Path.cwd()
    beside = (here / f"{root}.py").is_file() or (here / root).is_dir()
    if beside and str(here) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(here))
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, root):
            raise  # an import within it
        raise ConfigError(
            f"{module}:{attribute}: there is no module {module!r}, neither installed nor in "
            f"{here}.",
            module=module,
        ) from None
    except (ValueError, TypeError) as error:  # an empty name, a relative one
        raise ConfigError(f"{module}:{attribute} is no module and class: {error}") from None
    if not hasattr(found, attribute):
        near = difflib.get_close_matches(attribute, vars(found), n=3)
        raise ConfigError(
            f"{found.__name__} has no {attribute!r}. Near: {', '.join(near) or 'nothing'}.",
            near=near,
        )
    return getattr(found, attribute)


def _called(
    function: Callable[..., Any], num_envs: int | None, seed: int | None, options: dict[str, Any]
) -> VectorEnv:
    """What a class or function makes, as often as wanted."""
    try:
        parameters = list(signature(function).parameters)
    except (TypeError, ValueError):  # some built-in callables have none
        parameters = []
    settings = dict(options)
    if "num_envs" in parameters:
        settings["num_envs"] = num_envs or 1
        if "seed" in parameters:
            settings["seed"] = seed
    try:
        first = function(**settings)
    except TypeError as error:
        name = getattr(function, "__name__", repr(function))
        wanted = ", ".join(parameters) or "no arguments"
        raise ConfigError(
            f"{name}({', '.join(f'{k}={v!r}' for k, v in settings.items())}): {error}\n"
            f"It takes: {wanted}.",
            got=settings,
        ) from error
    if isinstance(first, VectorEnv) or hasattr(first, "single_observation_space"):
        return _given(first, num_envs, None if "seed" in settings else seed)
    more = [function(**settings) for _ in range((num_envs or 1) - 1)]
    return LoopEnv([first, *more], seed=seed)


def _given(env: Any, num_envs: int | None, seed: int | None) -> VectorEnv:
    """An environment that is made already."""
    if not isinstance(env, VectorEnv) and not hasattr(env, "single_observation_space"):
        return LoopEnv([env, *_siblings(env, (num_envs or 1) - 1)], seed=seed)
    if num_envs not in (None, env.num_envs):
        raise ConfigError(
            f"{getattr(env, 'id', env)} has {env.num_envs} environments, and {num_envs} are asked "
            "for.\nMake it with so many, or leave num_envs away.",
            expected=num_envs,
            got=env.num_envs,
        )
    if not isinstance(env, VectorEnv):
        from .gymnasium import from_vector

        return from_vector(env, seed=seed)
    if seed is not None:
        env.reset(seed)
    return env


def _siblings(env: Any, num: int) -> list[Any]:
    """More environments like one of Gymnasium that says how it was made."""
    if num == 0:
        return []
    try:
        spec = env.spec
    except (AttributeError, ValueError):
        spec = None
    if spec is None:
        raise ConfigError(
            f"{name_of(env)}: {num + 1} environments are asked for, and this is one object.\n"
            f"Give what makes them: make(lambda: {type(env).__name__}(...), {num + 1})",
            got=num + 1,
        )
    import gymnasium

    return [gymnasium.make(spec) for _ in range(num)]

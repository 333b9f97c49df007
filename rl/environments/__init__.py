"""Environments as arrays of many copies, and adapters for those of others.

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# At once: a later import of the module of this name would hide the function.
from .make import ENVIRONMENTS as ENVIRONMENTS
from .make import make as make

_NAMES = {
    name: module
    for module, names in {
        "acrobot": "Acrobot",
        "atari": "Atari atari",
        "base": "ArrayEnv Step VectorEnv",
        "cartpole": "CartPole",
        "catch": "Catch",
        "connect_four": "ConnectFour",
        "grid_world": "GridWorld",
        "mountain_car": "MountainCar MountainCarContinuous",
        "normalizing": "NormalizeObservation NormalizeReward RunningStatistics",
        "pendulum": "Pendulum",
        "wrappers": "ClipReward EpisodeStatistics FrameStack TimeLimit Wrapper",
    }.items()
    for name in names.split()
}

if TYPE_CHECKING:
    from .acrobot import Acrobot as Acrobot
    from .atari import Atari as Atari
    from .atari import atari as atari
    from .base import ArrayEnv as ArrayEnv
    from .base import Step as Step
    from .base import VectorEnv as VectorEnv
    from .cartpole import CartPole as CartPole
    from .catch import Catch as Catch
    from .connect_four import ConnectFour as ConnectFour
    from .grid_world import GridWorld as GridWorld
    from .mountain_car import MountainCar as MountainCar
    from .mountain_car import MountainCarContinuous as MountainCarContinuous
    from .normalizing import NormalizeObservation as NormalizeObservation
    from .normalizing import NormalizeReward as NormalizeReward
    from .normalizing import RunningStatistics as RunningStatistics
    from .pendulum import Pendulum as Pendulum
    from .wrappers import ClipReward as ClipReward
    from .wrappers import EpisodeStatistics as EpisodeStatistics
    from .wrappers import FrameStack as FrameStack
    from .wrappers import TimeLimit as TimeLimit
    from .wrappers import Wrapper as Wrapper

__all__ = sorted([*_NAMES, "ENVIRONMENTS", "make"])


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES})

"""In place of an environment that is not here: its spaces, and a name at best."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from ...core.errors import ConfigError
from ..spaces import Space
from .base import Step, VectorEnv


class Elsewhere(VectorEnv):
    """Stands for the environment that an agent was trained in, of which only the spaces are known.

    Args:
        observation_space, action_space: of it.
        named: "module:Class", where that is what the agent's file says. Whoever loads the agent
            decides whether that is imported, and not the file.
    """

    id = "an environment that the file does not name"
    num_envs = 1

    def __init__(
        self, observation_space: Space, action_space: Space, named: str | None = None
    ) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.id = named or self.id
        self.named = named

    def reset(self, seed: int | None = None) -> np.ndarray:
        space = self.observation_space
        return np.zeros((1, *space.shape), space.dtype)

    def step(self, actions: np.ndarray) -> Step:
        self.refuse()

    def refuse(self) -> NoReturn:
        """Say that there is nothing to play in.

        Raises:
            ConfigError
        """
        if self.named is not None:
            raise ConfigError(
                f"This agent was trained in {self.named}, and a file alone does not make its code "
                f"run.\nGive it: agent.play({self.named!r}), or --env {self.named}",
                got=self.named,
            )
        raise ConfigError(
            "This agent of Stable-Baselines3 has no environment: its file does not say which.\n"
            'Give one: load_stable_baselines3(path, env="CartPole-v1"), agent.play("CartPole-v1"), '
            "or --env CartPole-v1"
        )

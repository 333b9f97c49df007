"""C51: learns the distribution of returns over fixed atoms.

Bellemare et al. 2017, "A distributional perspective on reinforcement learning". The network gives
a logit for each of `atoms` returns z_i from v_min to v_max, for every action. The update:

    p' = softmax of the target network for the action of the greatest mean sum_i z_i p'_i
    m  = the distribution of r + d z under p', projected back to the atoms
    loss = weight * cross_entropy(m, p(s, a))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core.errors import ConfigError
from . import dqn
from .environments.base import count
from .q_networks import QNetwork, features
from .replay import Batch


@dataclass(frozen=True)
class Settings(dqn.Settings):
    """Those of DQN, and:

    Attributes:
        atoms: how many returns (51: Bellemare et al. 2017).
        v_min, v_max: the least and the greatest return that is thought possible.
    """

    atoms: int = 51
    v_min: float = -10.0
    v_max: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if count("atoms", self.atoms) < 2 or not self.v_min < self.v_max:
            raise ConfigError(
                "C51: at least 2 atoms from v_min up to a greater v_max, not "
                f"{self.atoms} from {self.v_min} to {self.v_max}"
            )


def project(
    probability: np.ndarray,
    reward: np.ndarray,
    discount: np.ndarray,
    support: np.ndarray,
) -> np.ndarray:
    """The distribution of `reward + discount * z`, shared among the two nearest atoms each.

    Shape: probability (B, K), reward (B,), discount (B,), support (K,) -> (B, K)
    """
    rows, atoms = probability.shape
    low, high = support[0], support[-1]
    moved = np.clip(reward[:, None] + discount[:, None] * support, low, high)
    position = (moved - low) * ((atoms - 1) / (high - low))
    below = np.minimum(position.astype(np.int64), atoms - 2)
    share = position - below  # of the atom above
    place = below + atoms * np.arange(rows)[:, None]
    flat = np.bincount(
        np.concatenate([place.ravel(), place.ravel() + 1]),
        np.concatenate([(probability * (1 - share)).ravel(), (probability * share).ravel()]),
        minlength=rows * atoms,
    )
    return flat.reshape(rows, atoms).astype(np.float32)


class C51(dqn.DQN):
    """Distributional Q-learning over fixed atoms, for discrete actions."""

    Settings: ClassVar[type[Any]] = Settings

    def build(self) -> None:
        s = self.settings
        self.width = s.atoms
        self.support = np.linspace(s.v_min, s.v_max, s.atoms, dtype=np.float32)
        super().build()

    def probabilities(self, network: QNetwork, inputs: np.ndarray) -> np.ndarray:
        """(B, A, K)"""
        return softmax(network.bare(inputs).reshape(len(inputs), -1, self.width))

    def values(self, network: QNetwork, observations: np.ndarray) -> np.ndarray:
        inputs = features(self.observation_space, observations)
        means: np.ndarray = self.probabilities(network, inputs) @ self.support
        return means

    def update(self, batch: Batch) -> dict[str, float]:
        here = features(self.observation_space, batch.observation)
        following = features(self.observation_space, batch.next_observation)
        every = np.arange(len(here))
        after = self.probabilities(self.target, following)
        judge = self.probabilities(self.network, following) if self.settings.double else after
        best = (judge @ self.support).argmax(axis=1)
        wanted = project(after[every, best], batch.reward, batch.discount, self.support)
        trace = self.network.traced(here)
        logits = trace.out.reshape(len(here), -1, self.width)
        got = softmax(logits[every, batch.action])
        gradient = np.zeros_like(logits)
        # d cross_entropy(m, softmax(l)) / d l = softmax(l) - m
        gradient[every, batch.action] = (got - wanted) * (batch.weight / len(here))[:, None]
        self.descend(trace, gradient.reshape(trace.out.shape))
        loss = -(wanted * np.log(got + 1e-8)).sum(axis=1)
        self.replay.update_priorities(batch.indices, loss)
        q = float((wanted @ self.support).mean())
        return {"loss": float((loss * batch.weight).mean()), "q": q}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    odds: np.ndarray = np.exp(logits - logits.max(axis=-1, keepdims=True))
    odds /= odds.sum(axis=-1, keepdims=True)
    return odds

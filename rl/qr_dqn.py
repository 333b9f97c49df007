"""QR-DQN: learns quantiles of the distribution of returns.

Dabney et al. 2018, "Distributional reinforcement learning with quantile regression". The network
gives N returns for every action, the quantiles at (i + 1/2) / N. The update, with u_ij = y_j -
theta_i for every pair of a quantile and a target y_j = r + d theta'_j:

    loss = weight * sum_i mean_j |tau_i - [u_ij < 0]| huber(u_ij)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from . import dqn
from .environments.base import count
from .q_networks import QNetwork, features
from .replay import Batch


@dataclass(frozen=True)
class Settings(dqn.Settings):
    """Those of DQN, and:

    Attributes:
        quantiles: how many (Dabney et al. 2018 take 200 for Atari).
    """

    quantiles: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        count("quantiles", self.quantiles)


def quantile_huber(theta: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The loss of each row, and its gradient for theta.

    Shape: theta (B, N), target (B, M) -> (B,), (B, N)
    """
    n, m = theta.shape[1], target.shape[1]
    tau = (np.arange(n, dtype=np.float32) + 0.5) / n
    u = target[:, None, :] - theta[:, :, None]  # (B, N, M)
    share = np.abs(tau[:, None] - (u < 0))
    inside = np.clip(u, -1, 1)  # the derivative of huber(u)
    huber = inside * (u - 0.5 * inside)  # u^2 / 2 inside, |u| - 1/2 outside
    loss = (share * huber).sum(axis=(1, 2)) / m
    gradient = -(share * inside).sum(axis=2) / m
    return loss, gradient


class QRDQN(dqn.DQN):
    """Q-learning of quantiles, for discrete actions."""

    Settings: ClassVar[type[Any]] = Settings

    def build(self) -> None:
        self.width = self.settings.quantiles
        super().build()

    def quantiles(self, network: QNetwork, inputs: np.ndarray) -> np.ndarray:
        """(B, A, N)"""
        return network.bare(inputs).reshape(len(inputs), -1, self.width)

    def values(self, network: QNetwork, observations: np.ndarray) -> np.ndarray:
        inputs = features(self.observation_space, observations)
        means: np.ndarray = self.quantiles(network, inputs).mean(axis=2)
        return means

    def update(self, batch: Batch) -> dict[str, float]:
        here = features(self.observation_space, batch.observation)
        following = features(self.observation_space, batch.next_observation)
        every = np.arange(len(here))
        after = self.quantiles(self.target, following)
        judge = self.quantiles(self.network, following) if self.settings.double else after
        best = judge.mean(axis=2).argmax(axis=1)
        y = batch.reward[:, None] + batch.discount[:, None] * after[every, best]
        trace = self.network.traced(here)
        theta = trace.out.reshape(len(here), -1, self.width)
        loss, slope = quantile_huber(theta[every, batch.action], y)
        gradient = np.zeros_like(theta)
        gradient[every, batch.action] = slope * (batch.weight / len(here))[:, None]
        self.descend(trace, gradient.reshape(trace.out.shape))
        self.replay.update_priorities(batch.indices, loss)
        return {"loss": float((loss * batch.weight).mean()), "q": float(y.mean())}

"""A2C: after a few steps of many environments, one step of the optimizer on what they brought.

Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning", with all
environments in step.

    loss = -mean(log p(a) A) + vf_coef mean((v - return)^2) - ent_coef mean(entropy)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import optim
from .on_policy import Array, OnPolicy, OnPolicySettings, Rollout


@dataclass(frozen=True)
class Settings(OnPolicySettings):
    """Hyper-parameters of A2C; defaults are Stable-Baselines3's.

    Attributes:
        use_rms_prop: RMSprop, as in the paper, else Adam.
        rms_prop_eps: added to its denominator.
    """

    learning_rate: float = 7e-4
    n_steps: int = 5
    gae_lambda: float = 1.0
    normalize_advantage: bool = False
    use_rms_prop: bool = True
    rms_prop_eps: float = 1e-5


class A2C(OnPolicy):
    """Advantage actor-critic, for choices and for numbers."""

    Settings: ClassVar[type[Any]] = Settings
    settings: Any

    def make_optimizer(self) -> optim.Optimizer:
        s = self.settings
        if s.use_rms_prop:
            return optim.RMSprop(self._parameters, s.learning_rate, alpha=0.99, eps=s.rms_prop_eps)
        return optim.Adam(self._parameters, s.learning_rate)

    def update(self, rollout: Rollout) -> dict[str, float]:
        s = self.settings
        advantage = rollout.advantages
        if s.normalize_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        size = np.float32(len(advantage))
        told: dict[str, float] = {}

        def d_out(out: Array) -> tuple[Array, Array | None, dict[str, float]]:
            free, actions = self.free, rollout.actions
            told["policy_loss"] = float(
                -(self.distribution.log_prob(out, free, actions) * advantage).mean()
            )
            gradient = np.asarray(-advantage / size, np.float32)
            found = self.distribution.gradient(out, free, actions, gradient, -s.ent_coef)
            told["entropy"] = found[2]
            return found[0], found[1], told

        def d_values(values: Array) -> Array:
            error = values - rollout.returns
            told["value_loss"] = float((error * error).mean())
            return np.asarray((2 * s.vf_coef / size) * error, np.float32)

        return self.descend(rollout.features, d_out, d_values)

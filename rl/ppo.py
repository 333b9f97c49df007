"""PPO: improves a policy by many small steps on what it has just done, and never by too much.

Schulman et al. 2017, "Proximal policy optimization algorithms"; the details that results hang on
are listed by Huang et al. 2022, "The 37 implementation details of proximal policy optimization".

The loss of an action a that was taken with probability p_old(a) and had the advantage A:

    r = p(a) / p_old(a)
    policy = -min(r A, clip(r, 1 - c, 1 + c) A)
    loss = mean(policy) + vf_coef mean((v - return)^2) - ent_coef mean(entropy)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import optim
from ..core.errors import ConfigError
from .environments.base import count
from .on_policy import Array, OnPolicy, OnPolicySettings, Rollout


@dataclass(frozen=True)
class Settings(OnPolicySettings):
    """Hyper-parameters of PPO; defaults are Stable-Baselines3's, for any number of environments.

    Attributes:
        batch_size: actions in a step of the optimizer.
        n_epochs: times that each action is learnt from.
        clip_range: how far the probability of an action may move at a time (Schulman et al. 2017).
        clip_range_vf: how far a value may; None: as far as it likes.
        target_kl: end an update early when the policy has moved this far; None: never.
    """

    batch_size: int = 64
    n_epochs: int = 10
    clip_range: float = 0.2
    clip_range_vf: float | None = None
    target_kl: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        count("batch_size", self.batch_size)
        count("n_epochs", self.n_epochs)
        if self.batch_size < 2 and self.normalize_advantage:
            raise ConfigError("batch_size is at least 2 where advantages are normalised")
        if not 0 < self.clip_range < 1:
            raise ConfigError(f"clip_range lies between 0 and 1, not {self.clip_range!r}")
        for name in ("clip_range_vf", "target_kl"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is above 0 or None, not {value!r}")


class PPO(OnPolicy):
    """Proximal policy optimisation, for choices and for numbers."""

    Settings: ClassVar[type[Any]] = Settings
    settings: Any

    def make_optimizer(self) -> optim.Optimizer:
        return optim.Adam(self._parameters, self.settings.learning_rate, eps=1e-5)

    def update(self, rollout: Rollout) -> dict[str, float]:
        s = self.settings
        figures: dict[str, float] = {}
        for _ in range(s.n_epochs):
            for chosen, x in self.batches(rollout):
                if len(chosen) < 2 and s.normalize_advantage:
                    continue
                figures = self._step(rollout, chosen, x)
            if s.target_kl is not None and figures.get("kl", 0.0) > 1.5 * s.target_kl:
                break
        return {**figures, "explained": _explained(rollout.values, rollout.returns)}

    def batches(self, rollout: Rollout) -> Iterator[tuple[Array, Any]]:
        """Mini-batches in a new order: the rows of each, and what `forward` takes for them."""
        size = self.settings.batch_size
        order = self.rng.permutation(len(rollout.actions))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            yield chosen, rollout.features[chosen]

    def _step(self, rollout: Rollout, chosen: Array, x: Any) -> dict[str, float]:
        s = self.settings
        actions, old = rollout.actions[chosen], rollout.log_probs[chosen]
        returns, advantage = rollout.returns[chosen], rollout.advantages[chosen]
        if s.normalize_advantage:
            advantage = (advantage - advantage.mean()) / (advantage.std(ddof=1) + 1e-8)
        size = np.float32(len(chosen))
        told: dict[str, float] = {}

        def d_out(out: Array) -> tuple[Array, Array | None, dict[str, float]]:
            free = self.free
            moved = self.distribution.log_prob(out, free, actions) - old
            ratio = np.exp(moved)
            cut = np.clip(ratio, 1 - s.clip_range, 1 + s.clip_range)
            plain, bound = ratio * advantage, cut * advantage
            # Where the cut one is smaller, the loss does not depend on the policy any more.
            gradient = np.where(plain <= bound, -plain, 0).astype(np.float32) / size
            told["policy_loss"] = float(-np.minimum(plain, bound).mean())
            told["kl"] = float((ratio - 1 - moved).mean())
            told["clipped"] = float((np.abs(ratio - 1) > s.clip_range).mean())
            found = self.distribution.gradient(out, free, actions, gradient, -s.ent_coef)
            told["entropy"] = found[2]
            return found[0], found[1], told

        def d_values(values: Array) -> Array:
            error = values - returns
            if s.clip_range_vf is not None:
                before = rollout.values[chosen]
                moved = values - before
                error = before + np.clip(moved, -s.clip_range_vf, s.clip_range_vf) - returns
                error = np.where(np.abs(moved) <= s.clip_range_vf, error, 0)
            told["value_loss"] = float((error * error).mean())
            return np.asarray((2 * s.vf_coef / size) * error, np.float32)

        return self.descend(x, d_out, d_values)


def _explained(values: Array, returns: Array) -> float:
    """The share of the variance of the returns that the values foretold."""
    spread = float(returns.var())
    return 1 - float((returns - values).var()) / spread if spread > 0 else 0.0

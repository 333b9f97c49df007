"""SAC: a policy for continuous actions that is as random as it can afford to be.

Haarnoja et al. 2018, "Soft actor-critic algorithms and applications". The policy is a normal
distribution squashed by tanh, a = tanh(u), u = mean + std * noise. The update, for a transition
(s, a, r, s') whose episode goes on with discount d and temperature alpha:

    a' ~ pi(s'),  y = r + d (min_i Qi_target(s', a') - alpha log pi(a' | s'))
    critics: sum_i (Qi(s, a) - y)^2 / 2
    actor: alpha log pi(a | s) - min_i Qi(s, a)
    temperature: -log alpha (log pi(a | s) + target_entropy)
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import optim
from ..core.errors import ConfigError
from ..core.nn.module import Module
from ..core.nn.parameter import Parameter
from ..core.tensor import Tensor
from .actor_critic import Critics, require_vector
from .diverging import descend
from .off_policy import OffPolicy, OffPolicySettings
from .q_networks import Perceptron, features, sizes_of
from .replay import Batch

LOG_STD = (-20.0, 2.0)  # limits of the logarithm of the deviation
_AUTO = re.compile(r"auto(?:_(\d*\.?\d+))?")
_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Settings(OffPolicySettings):
    """Hyper-parameters of SAC; sources: Haarnoja et al. 2018, as in Stable-Baselines3.

    Attributes:
        hidden: sizes of the hidden layers.
        critics: how many; the least of them counts.
        ent_coef: the temperature; None or "auto" to learn it, "auto_0.1"
            to learn it from 0.1 on (Stable-Baselines3).
        initial_ent_coef: where it starts when it is learned.
        target_entropy: what it aims at then; None for minus the number of action features.
    """

    hidden: tuple[int, ...] = (256, 256)
    critics: int = 2
    ent_coef: float | str | None = None
    initial_ent_coef: float = 1.0
    target_entropy: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "hidden", sizes_of("hidden", self.hidden))
        found = _AUTO.fullmatch(self.ent_coef) if isinstance(self.ent_coef, str) else None
        if found is not None:
            object.__setattr__(self, "ent_coef", None)
            if found[1]:
                object.__setattr__(self, "initial_ent_coef", float(found[1]))
        fixed = self.ent_coef
        wrong = fixed is not None and (isinstance(fixed, str) or not fixed >= 0)
        if wrong or not self.initial_ent_coef > 0:
            raise ConfigError(
                'SAC: ent_coef is at least 0, None, "auto" or "auto_0.1", and initial_ent_coef '
                f"above 0; got {fixed!r} and {self.initial_ent_coef!r}"
            )


class Temperature(Module):
    """The logarithm of alpha, as a module, so that it is saved and trained as one."""

    def __init__(self, start: float) -> None:
        self.log_alpha = Parameter(np.array([math.log(start)], np.float32))

    @property
    def alpha(self) -> float:
        return math.exp(self.log_alpha.array.item())

    def adjust(self, surplus: float, optimizer: optim.Optimizer) -> None:
        """One step: down where the policy has a surplus of entropy over the target."""
        # d (log alpha * surplus) / d log alpha
        self.log_alpha.grad = Tensor(np.array([surplus], np.float32))
        optimizer.step()


class SAC(OffPolicy):
    """Soft actor-critic, for continuous actions."""

    Settings: ClassVar[type[Any]] = Settings
    actions = "continuous"

    def build(self) -> None:
        s = self.settings
        require_vector(self.name, self.observation_space)
        seen, done = self.observation_space.features, self.action_space.features
        self.actor = Perceptron([seen, *s.hidden, 2 * done])  # means, logarithms of deviations
        self.critics = Critics(s.critics, seen + done, s.hidden)
        self._average = optim.EMA(self.critics, 1 - s.tau)
        self.target: Any = self._average.module
        self.temperature = Temperature(s.initial_ent_coef)
        self.target_entropy = -float(done) if s.target_entropy is None else s.target_entropy
        self.actor_optimizer = optim.Adam(self.actor.parameters(), s.learning_rate)
        self.critic_optimizer = optim.Adam(self.critics.parameters(), s.learning_rate)
        self.temperature_optimizer = optim.Adam(self.temperature.parameters(), s.learning_rate)

    def modules(self) -> dict[str, Module]:
        return {
            "actor": self.actor,
            "critics": self.critics,
            "target": self.target,
            "temperature": self.temperature,
        }

    def optimizers(self) -> dict[str, optim.Optimizer]:
        return {
            "actor": self.actor_optimizer,
            "critics": self.critic_optimizer,
            "temperature": self.temperature_optimizer,
        }

    @property
    def alpha(self) -> float:
        """The temperature."""
        fixed = self.settings.ent_coef
        return self.temperature.alpha if fixed is None else float(fixed)

    def choose(self, observations: np.ndarray, deterministic: bool) -> np.ndarray:
        head = self.actor.bare(features(self.observation_space, observations))
        if deterministic:
            best: np.ndarray = np.tanh(head[:, : head.shape[1] // 2])
            return best
        return self._draw(head)[0]

    def explore(self, observations: np.ndarray) -> np.ndarray:
        return self.choose(observations, deterministic=False)

    def _draw(self, head: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Actions, their log-probabilities, and the noise that they were made of.

        Shape: head (B, 2 D) -> (B, D), (B,), (B, D)
        """
        mean, log_std = np.split(head, 2, axis=1)
        log_std = log_std.clip(*LOG_STD)
        std = np.exp(log_std)
        noise = self.rng.standard_normal(mean.shape, np.float32)
        u = mean + std * noise
        # log(1 - tanh(u)^2), stable for large u
        squash = 2 * (np.float32(math.log(2)) - u - np.logaddexp(0, -2 * u))
        log_prob = (-0.5 * noise * noise - log_std - np.float32(_HALF_LOG_TAU) - squash).sum(axis=1)
        return np.tanh(u), log_prob, noise

    def actor_gradient(
        self, head: np.ndarray, action: np.ndarray, noise: np.ndarray, slope: np.ndarray
    ) -> np.ndarray:
        """The gradient of the mean of `alpha log pi - Q` for means and logarithms of deviations.

        Shape: head (B, 2 D), the others (B, D); slope is that of Q for the action.
        """
        alpha, share = np.float32(self.alpha), np.float32(1 / len(head))
        raw = head[:, action.shape[1] :]
        # Through a = tanh(u): d a / d u = 1 - a^2, and d log pi / d u = 2 a.
        for_u = (2 * alpha * action - slope * (1 - action * action)) * share
        # Through u = mean + std * noise: d u / d log std = std * noise, d log pi / d log std = -1.
        std = np.exp(raw.clip(*LOG_STD))
        for_log_std = for_u * std * noise - alpha * share
        for_log_std *= (raw > LOG_STD[0]) & (raw < LOG_STD[1])
        return np.concatenate([for_u, for_log_std], axis=1)

    def update(self, batch: Batch) -> dict[str, float]:
        s = self.settings
        here = features(self.observation_space, batch.observation)
        following = features(self.observation_space, batch.next_observation)
        head = self.actor.traced(here)
        action, log_prob, noise = self._draw(head.out)
        alpha = self.alpha
        after, log_after, _ = self._draw(self.actor.bare(following))
        least = self.target.bare(following, after).min(axis=0)
        y = batch.reward + batch.discount * (least - np.float32(alpha) * log_after)
        # The loss has a half that `fit` has not: Adam's steps do not see factors.
        critic_loss = self.critics.fit(
            here, batch.action, y, self.critic_optimizer, step=self.steps
        )
        q, slope = self.critics.slope(here, action, least=True)
        gradient = self.actor_gradient(head.out, action, noise, slope)
        descend(self.actor, head, gradient, self.actor_optimizer, step=self.steps, whose="actor")
        if s.ent_coef is None:
            surplus = -float(log_prob.mean()) - self.target_entropy
            self.temperature.adjust(surplus, self.temperature_optimizer)
        self._average.update()
        return {
            "critic_loss": critic_loss / 2,
            "actor_loss": float((alpha * log_prob - q).mean()),
            "alpha": alpha,
            "entropy": -float(log_prob.mean()),
        }

"""TD3: a deterministic policy for continuous actions, judged by the lesser of two critics.

Fujimoto et al. 2018, "Addressing function approximation error in actor-critic methods". The
update, for a transition (s, a, r, s') whose episode goes on with discount d:

    a' = clip(pi_target(s') + clip(noise, -c, c), -1, 1)
    y  = r + d min(Q1_target(s', a'), Q2_target(s', a'))
    critics: (Q1(s, a) - y)^2 + (Q2(s, a) - y)^2
    actor, every `policy_delay` updates: -Q1(s, pi(s)); then the targets follow by tau
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import optim
from ..core.errors import ConfigError
from ..core.nn.module import Module
from .actor_critic import Critics, require_vector
from .diverging import descend
from .environments.base import count
from .off_policy import OffPolicy, OffPolicySettings
from .q_networks import Perceptron, features, sizes_of
from .replay import Batch


@dataclass(frozen=True)
class Settings(OffPolicySettings):
    """Hyper-parameters of TD3; Fujimoto et al. 2018, some as in Stable-Baselines3.

    Attributes:
        hidden: sizes of the hidden layers.
        critics: how many; the least of them counts.
        policy_delay: updates of the critics for one of the actor.
        target_policy_noise: deviation of the noise on the target's actions.
        target_noise_clip: its greatest size.
        exploration_noise: deviation of the noise on actions that are tried, of their range from -1
            to 1.
    """

    hidden: tuple[int, ...] = (400, 300)
    learning_rate: float = 1e-3
    critics: int = 2
    policy_delay: int = 2
    target_policy_noise: float = 0.2
    target_noise_clip: float = 0.5
    exploration_noise: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "hidden", sizes_of("hidden", self.hidden))
        count("critics", self.critics)
        count("policy_delay", self.policy_delay)
        for name in ("target_policy_noise", "target_noise_clip", "exploration_noise"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is at least 0, not {getattr(self, name)!r}")


class TD3(OffPolicy):
    """Twin delayed deep deterministic policy gradient, for continuous actions."""

    Settings: ClassVar[type[Any]] = Settings
    actions = "continuous"

    def build(self) -> None:
        s = self.settings
        require_vector(self.name, self.observation_space)
        seen, done = self.observation_space.features, self.action_space.features
        self.actor = Perceptron([seen, *s.hidden, done], squash=True)
        self.critics = Critics(s.critics, seen + done, s.hidden)
        self._actor_average = optim.EMA(self.actor, 1 - s.tau)
        self._critic_average = optim.EMA(self.critics, 1 - s.tau)
        self.target_actor: Any = self._actor_average.module
        self.target_critics: Any = self._critic_average.module
        self.actor_optimizer = optim.Adam(self.actor.parameters(), s.learning_rate)
        self.critic_optimizer = optim.Adam(self.critics.parameters(), s.learning_rate)
        self.updates = 0

    def modules(self) -> dict[str, Module]:
        return {
            "actor": self.actor,
            "critics": self.critics,
            "target_actor": self.target_actor,
            "target_critics": self.target_critics,
        }

    def optimizers(self) -> dict[str, optim.Optimizer]:
        return {"actor": self.actor_optimizer, "critics": self.critic_optimizer}

    def choose(self, observations: np.ndarray, deterministic: bool) -> np.ndarray:
        actions = self.actor.bare(features(self.observation_space, observations))
        return actions if deterministic else self._noisy(actions)

    def explore(self, observations: np.ndarray) -> np.ndarray:
        return self.choose(observations, deterministic=False)

    def _noisy(self, actions: np.ndarray) -> np.ndarray:
        noise = self.rng.standard_normal(actions.shape, np.float32)
        noise *= self.settings.exploration_noise
        noise += actions
        return noise.clip(-1, 1)

    def update(self, batch: Batch) -> dict[str, float]:
        s = self.settings
        here = features(self.observation_space, batch.observation)
        following = features(self.observation_space, batch.next_observation)
        after = self.target_actor.bare(following)
        if s.target_policy_noise:
            noise = self.rng.standard_normal(after.shape, np.float32) * s.target_policy_noise
            after = (after + noise.clip(-s.target_noise_clip, s.target_noise_clip)).clip(-1, 1)
        least = self.target_critics.bare(following, after).min(axis=0)
        y = batch.reward + batch.discount * least
        loss = self.critics.fit(here, batch.action, y, self.critic_optimizer, step=self.steps)
        self.updates += 1
        if self.updates % s.policy_delay == 0:
            trace = self.actor.traced(here)
            q, slope = self.critics.slope(here, trace.out)
            gradient = -slope / len(here)
            descend(
                self.actor, trace, gradient, self.actor_optimizer, step=self.steps, whose="actor"
            )
            self._actor_average.update()
            self._critic_average.update()
            return {"critic_loss": loss, "actor_loss": -float(q.mean()), "q": float(y.mean())}
        return {"critic_loss": loss, "q": float(y.mean())}

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), "updates": self.updates}

    def load_extra_state(self, state: Any) -> None:
        super().load_extra_state(state)
        self.updates = int(state["updates"])

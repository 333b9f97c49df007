"""SAC for discrete actions, over which expectations are sums.

Christodoulou 2019, "Soft actor-critic for discrete action settings". The update, with pi the
probabilities of all actions, for a transition (s, a, r, s') with discount d, temperature alpha:

    y = r + d sum_a' pi(a' | s') (min_i Qi_target(s', a') - alpha log pi(a' | s'))
    critics: sum_i (Qi(s, a) - y)^2
    actor: sum_a pi(a | s) (alpha log pi(a | s) - min_i Qi(s, a))
    temperature: log alpha (entropy of pi(s) - target_entropy)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import optim
from ..core.nn.container import ModuleList
from ..core.nn.module import Module
from ..core.tensor import Tensor
from . import sac
from .diverging import check_update, descend
from .off_policy import OffPolicy
from .q_networks import QNetwork, features
from .replay import Batch


@dataclass(frozen=True)
class Settings(sac.Settings):
    """Those of SAC, and:

    Attributes:
        target_entropy_share: `target_entropy` is this share of the greatest, log(actions), where it
            is not given. Christodoulou 2019 has 0.98, which hardly ever lets the policy settle; a
            half is what works on the classic tasks here.
    """

    target_entropy_share: float = 0.5


class DiscreteSAC(OffPolicy):
    """Soft actor-critic, for discrete actions."""

    Settings: ClassVar[type[Any]] = Settings
    actions = "discrete"

    def build(self) -> None:
        s = self.settings
        n = self.action_space.features
        self.actor = QNetwork(self.observation_space, n, s.hidden)
        networks = [QNetwork(self.observation_space, n, s.hidden) for _ in range(s.critics)]
        self.critics = ModuleList(networks)
        self._average = optim.EMA(self.critics, 1 - s.tau)
        self.target: Any = self._average.module
        self.temperature = sac.Temperature(s.initial_ent_coef)
        given = s.target_entropy
        self.target_entropy = s.target_entropy_share * math.log(n) if given is None else given
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
        logits = self.actor.bare(features(self.observation_space, observations))
        if not deterministic:  # the largest of logits with Gumbel noise is a draw
            logits = logits + self.rng.gumbel(size=logits.shape)
        chosen: np.ndarray = logits.argmax(axis=1)
        return chosen

    def explore(self, observations: np.ndarray) -> np.ndarray:
        return self.choose(observations, deterministic=False)

    def update(self, batch: Batch) -> dict[str, float]:
        s = self.settings
        here = features(self.observation_space, batch.observation)
        following = features(self.observation_space, batch.next_observation)
        every, share = np.arange(len(here)), np.float32(1 / len(here))
        alpha = np.float32(self.alpha)
        log_after = log_softmax(self.actor.bare(following))
        least = np.min([network.bare(following) for network in self.target], axis=0)
        value = (np.exp(log_after) * (least - alpha * log_after)).sum(axis=1)
        y = batch.reward + batch.discount * value
        traces, loss = [network.traced(here) for network in self.critics], 0.0
        gradients = []
        for trace in traces:
            error = trace.out[every, batch.action] - y
            gradient = np.zeros_like(trace.out)
            gradient[every, batch.action] = 2 * error * share
            trace.backward(gradient)
            gradients.append(gradient)
            loss += float(np.vdot(error, error)) / len(y)
        q = np.min([trace.out for trace in traces], axis=0)
        check_update(
            loss,
            self.critics,
            self.critic_optimizer,
            here,
            *gradients,
            step=self.steps,
            whose="critics",
            loss=loss,
            forward=lambda x: [network(Tensor(x)) for network in self.critics],
        )
        self.critic_optimizer.step()
        trace = self.actor.traced(here)
        log_prob = log_softmax(trace.out)
        prob = np.exp(log_prob)
        cost = alpha * log_prob - q
        mean = (prob * cost).sum(axis=1, keepdims=True)
        # d sum_a pi_a cost_a / d logit_b = pi_b (cost_b - mean)
        gradient = prob * (cost - mean) * share
        descend(self.actor, trace, gradient, self.actor_optimizer, step=self.steps, whose="actor")
        entropy = -float((prob * log_prob).sum(axis=1).mean())
        if s.ent_coef is None:
            self.temperature.adjust(entropy - self.target_entropy, self.temperature_optimizer)
        self._average.update()
        return {
            "critic_loss": loss,
            "actor_loss": float(mean.mean()),
            "alpha": float(alpha),
            "entropy": entropy,
        }


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities over the last axis."""
    shifted: np.ndarray = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted

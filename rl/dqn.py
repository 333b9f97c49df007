"""DQN: learns the value of every action, and takes the best.

Mnih et al. 2015, "Human-level control through deep reinforcement learning". Options: double (van
Hasselt et al. 2016), duelling (Wang et al. 2016), prioritised replay (Schaul et al. 2016), several
steps (Sutton 1988). Beside those, the loop is that of off_policy.py.

The update, for a transition (s, a, r, s') whose episode goes on with discount d:

    y = r + d max_a' Q_target(s', a')                       plain
    y = r + d Q_target(s', argmax_a' Q(s', a'))             double
    loss = weight * huber(Q(s, a) - y)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import optim
from ..core.errors import ConfigError
from ..core.nn.module import Module
from .diverging import check_update
from .off_policy import OffPolicy, OffPolicySettings
from .q_networks import GraphTrace, LayerTrace, QNetwork, features, sizes_of
from .replay import Batch


@dataclass(frozen=True)
class Settings(OffPolicySettings):
    """Hyper-parameters of DQN; sources: Mnih et al. 2015 unless another is named.

    Attributes:
        hidden: sizes of the hidden layers; two of 64 as in Stable-Baselines3.
        learning_rate: of Adam; 1e-4 is Stable-Baselines3's choice.
        train_freq: steps of every environment between updates.
        target_update_interval: steps after which the target takes the network's weights over.
        tau: how much it takes over then.
        exploration_fraction: part of `learn` in which the share of random actions falls.
        exploration_initial_eps, exploration_final_eps: that share at first and at last.
        max_grad_norm: gradients are scaled down to this norm (Stable-Baselines3).
        double: choose the next action by the network, value it by the target.
        duelling: separate values of states from advantages of actions.
        prioritized: draw transitions by their error; `alpha` and `beta` as in Schaul et al. 2016.
    """

    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float = 1e-4
    buffer_size: int = 1_000_000
    batch_size: int = 32
    train_freq: int = 4
    target_update_interval: int = 10_000
    tau: float = 1.0
    exploration_fraction: float = 0.1
    exploration_initial_eps: float = 1.0
    exploration_final_eps: float = 0.05
    max_grad_norm: float = 10.0
    double: bool = False
    duelling: bool = False
    prioritized: bool = False
    alpha: float = 0.6
    beta: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "hidden", sizes_of("hidden", self.hidden))
        for name in ("exploration_fraction", "exploration_initial_eps", "exploration_final_eps"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} lies between 0 and 1, not {getattr(self, name)!r}")
        if not (self.alpha >= 0 and 0 <= self.beta <= 1 and self.max_grad_norm > 0):
            raise ConfigError(
                "DQN: alpha is at least 0, beta from 0 to 1, max_grad_norm above 0; got "
                f"{self.alpha}, {self.beta}, {self.max_grad_norm}"
            )


class DQN(OffPolicy):
    """Deep Q-learning, for discrete actions."""

    Settings: ClassVar[type[Any]] = Settings
    actions = "discrete"
    settings: Any
    width = 1  # numbers that the network gives for an action

    def build(self) -> None:
        s = self.settings
        self.network = self._network()
        self._average = optim.EMA(self.network, 1 - s.tau)
        self.target: Any = self._average.module
        self.optimizer = optim.Adam(self.network.parameters(), s.learning_rate)
        self._parameters = list(self.network.parameters())
        self.replay_alpha = s.alpha if s.prioritized else 0.0
        self.epsilon = s.exploration_initial_eps
        self._changed = True  # since the target took the weights over

    def _network(self) -> QNetwork:
        s = self.settings
        return QNetwork(
            self.observation_space,
            self.action_space.features,
            s.hidden,
            width=self.width,
            duelling=s.duelling,
        )

    def modules(self) -> dict[str, Module]:
        return {"network": self.network, "target": self.target}

    def optimizers(self) -> dict[str, optim.Optimizer]:
        return {"optimizer": self.optimizer}

    # -- acting ------------------------------------------------------------------------------

    def values(self, network: QNetwork, observations: np.ndarray) -> np.ndarray:
        """The value of every action, (B, A), of observations."""
        return network.bare(features(self.observation_space, observations))

    def choose(self, observations: np.ndarray, deterministic: bool) -> np.ndarray:
        best: np.ndarray = self.values(self.network, observations).argmax(axis=1)
        if not deterministic and self.epsilon > 0:
            rolls = self.rng.random(len(best))
            random = rolls < self.epsilon
            if random.any():
                best[random] = self.rng.integers(0, self.action_space.features, int(random.sum()))
        return best

    def explore(self, observations: np.ndarray) -> np.ndarray:
        s = self.settings
        done = min(1.0, self.progress / s.exploration_fraction) if s.exploration_fraction else 1.0
        start, end = s.exploration_initial_eps, s.exploration_final_eps
        self.epsilon = start + done * (end - start)
        if len(observations) == 1 and self.rng.random() < self.epsilon:
            return self.rng.integers(
                0, self.action_space.features, 1
            )  # the network need not be asked
        if len(observations) == 1:
            return self.choose(observations, deterministic=True)
        return self.choose(observations, deterministic=False)

    # -- learning ----------------------------------------------------------------------------

    def collected(self) -> None:
        s = self.settings
        every = max(1, s.target_update_interval // self.env.num_envs)
        due = (self.steps // self.env.num_envs) % every == 0
        if due and (self._changed or s.tau < 1):
            self._average.update()
            self._changed = False

    def update(self, batch: Batch) -> dict[str, float]:
        here = features(self.observation_space, batch.observation)
        following = features(self.observation_space, batch.next_observation)
        every = np.arange(len(here))
        after = self.target.bare(following)
        judge = self.network.bare(following) if self.settings.double else after
        y = batch.reward + batch.discount * after[every, judge.argmax(axis=1)]
        trace = self.network.traced(here)
        error = trace.out[every, batch.action] - y
        gradient = np.zeros_like(trace.out)
        # d huber(e) / d e = e, limited to -1 and 1; the loss is a mean.
        gradient[every, batch.action] = np.clip(error, -1, 1) * batch.weight / len(error)
        self.descend(trace, gradient)
        self.replay.update_priorities(batch.indices, error)
        size = np.abs(error)
        huber = np.where(size < 1, 0.5 * error * error, size - 0.5)
        return {"loss": float((huber * batch.weight).mean()), "q": float(y.mean())}

    def descend(self, trace: LayerTrace | GraphTrace, gradient: np.ndarray) -> None:
        """One step of the optimizer, from the gradient of the loss for the network's output.

        Raises:
            GradError: a gradient is not finite; nothing is updated.
        """
        trace.backward(gradient)
        norm = optim.clip_grad_norm_(self._parameters, self.settings.max_grad_norm)
        check_update(
            float(norm.item()),
            self.network,
            self.optimizer,
            trace.given,
            gradient,
            step=self.steps,
            whose=self.name,
        )
        self.optimizer.step()
        self._changed = True

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), "changed": self._changed}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        super().load_extra_state(state)
        self._changed = bool(state["changed"])

    def beta(self) -> float:
        s = self.settings
        return float(s.beta + (1 - s.beta) * self.progress)

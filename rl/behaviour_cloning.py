"""Behaviour cloning: does what it was shown.

Pomerleau 1989, "ALVINN: an autonomous land vehicle in a neural network". The update, for recorded
pairs of an observation s and an action a:

    discrete actions: loss = -log softmax(f(s))_a;  continuous ones: loss = mean (f(s) - a)^2
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import optim
from ..core.errors import ConfigError
from ..core.nn.module import Module
from .actor_critic import require_vector
from .c51 import softmax
from .diverging import descend
from .environments.base import count
from .offline import Offline
from .q_networks import Perceptron, QNetwork, features, sizes_of
from .spaces import Box


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters of behaviour cloning, chosen here.

    Attributes:
        hidden: sizes of the hidden layers.
        learning_rate, weight_decay: of AdamW.
        batch_size: pairs in an update.
    """

    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 128

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", sizes_of("hidden", self.hidden))
        count("batch_size", self.batch_size)
        if not (self.learning_rate > 0 and self.weight_decay >= 0):
            raise ConfigError(
                "learning_rate is above 0 and weight_decay at least 0, not "
                f"{self.learning_rate!r} and {self.weight_decay!r}"
            )


class BehaviourCloning(Offline):
    """Supervised learning of recorded actions."""

    Settings: ClassVar[type[Any]] = Settings
    settings: Any

    def build(self) -> None:
        s = self.settings
        n = self.action_space.features
        self.network: Any
        if isinstance(self.action_space, Box):
            require_vector(self.name, self.observation_space)
            self.network = Perceptron([self.observation_space.features, *s.hidden, n], squash=True)
        else:
            self.network = QNetwork(self.observation_space, n, s.hidden)
        self.optimizer = optim.AdamW(
            self.network.parameters(), s.learning_rate, weight_decay=s.weight_decay
        )

    def modules(self) -> dict[str, Module]:
        return {"network": self.network}

    def optimizers(self) -> dict[str, optim.Optimizer]:
        return {"optimizer": self.optimizer}

    def choose(self, observations: np.ndarray, deterministic: bool) -> np.ndarray:
        out: np.ndarray = self.network.bare(features(self.observation_space, observations))
        if isinstance(self.action_space, Box):
            return out
        if not deterministic:
            out = out + self.rng.gumbel(size=out.shape)
        chosen: np.ndarray = out.argmax(axis=1)
        return chosen

    def update(self) -> dict[str, float]:
        index = self.rng.integers(0, len(self.inputs), self.settings.batch_size)
        label = self.labels[index]
        trace = self.network.traced(features(self.observation_space, self.inputs[index]))
        if isinstance(self.action_space, Box):
            error = trace.out - label
            gradient = error * np.float32(2 / error.size)
            loss = float((error * error).mean())
        else:
            got = softmax(trace.out)
            every = np.arange(len(label))
            loss = -float(np.log(got[every, label] + 1e-8).mean())
            gradient = got  # d cross_entropy / d logits = softmax - one-hot
            gradient[every, label] -= 1
            gradient *= np.float32(1 / len(label))
        descend(self.network, trace, gradient, self.optimizer, step=self.steps, whose=self.name)
        return {"loss": loss}

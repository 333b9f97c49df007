"""REINFORCE: makes actions more probable by what came after them. To be read first.

Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement
learning". With a value to compare with, which changes no mean and much of the noise:

    return[t] = reward[t] + gamma return[t + 1]
    loss = -mean(log p(action) (return - value)) + vf_coef mean((value - return)^2)

That is A2C with whole returns (gae_lambda=1) and rollouts so long that they hold whole episodes;
what remains of an episode at the end of a rollout is judged by the value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..core import optim
from .a2c import A2C
from .a2c import Settings as A2CSettings


@dataclass(frozen=True)
class Settings(A2CSettings):
    """Hyper-parameters of REINFORCE.

    Attributes:
        n_steps: steps of every environment between updates: longer than an episode, if possible.
        learning_rate: of Adam.
        normalize_advantage: bring what is compared to mean 0 and deviation 1, which saves choosing
            the rate by the size of the rewards.
    """

    learning_rate: float = 3e-3
    n_steps: int = 500
    normalize_advantage: bool = True
    use_rms_prop: bool = False


class REINFORCE(A2C):
    """The policy gradient as it is, for choices and for numbers."""

    Settings: ClassVar[type[Any]] = Settings

    def make_optimizer(self) -> optim.Optimizer:
        return optim.Adam(self._parameters, self.settings.learning_rate)

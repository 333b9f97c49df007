"""DDPG: a deterministic policy for continuous actions, judged by one critic.

Lillicrap et al. 2016, "Continuous control with deep reinforcement learning". It is TD3 without
what TD3 added: one critic, no noise on the target's actions, the actor learns at every update:

    y = r + d Q_target(s', pi_target(s'));  critic: (Q(s, a) - y)^2;  actor: -Q(s, pi(s))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from . import td3


@dataclass(frozen=True)
class Settings(td3.Settings):
    """Those of TD3, set so that what TD3 added is off."""

    critics: int = 1
    policy_delay: int = 1
    target_policy_noise: float = 0.0


class DDPG(td3.TD3):
    """Deep deterministic policy gradient, for continuous actions."""

    Settings: ClassVar[type[Any]] = Settings

"""Reinforcement learning: one file per algorithm, with environments, buffers and evaluation.

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_NAMES = {
    name: module
    for module, names in {
        "a2c": "A2C",
        "alphazero": "AlphaZero",
        "behaviour_cloning": "BehaviourCloning",
        "agents": "load_agent",
        "c51": "C51",
        "callbacks": "CheckpointEvery EvaluateEvery LogTo StopAtReturn",
        "ddpg": "DDPG",
        "decision_transformer": "DecisionTransformer",
        "discrete_sac": "DiscreteSAC",
        "dqn": "DQN",
        "episodes": "Episodes record_episodes",
        "environments.make": "make",
        "evaluation": "Evaluation evaluate record",
        "ppo": "PPO",
        "qr_dqn": "QRDQN",
        "recurrent_ppo": "RecurrentPPO",
        "reinforce": "REINFORCE",
        "sac": "SAC",
        "spaces": "Box Discrete MultiBinary MultiDiscrete",
        "stable_baselines3": "load_stable_baselines3",
        "td3": "TD3",
    }.items()
    for name in names.split()
}

if TYPE_CHECKING:
    from .a2c import A2C as A2C
    from .agents import load_agent as load_agent
    from .alphazero import AlphaZero as AlphaZero
    from .behaviour_cloning import BehaviourCloning as BehaviourCloning
    from .c51 import C51 as C51
    from .callbacks import CheckpointEvery as CheckpointEvery
    from .callbacks import EvaluateEvery as EvaluateEvery
    from .callbacks import LogTo as LogTo
    from .callbacks import StopAtReturn as StopAtReturn
    from .ddpg import DDPG as DDPG
    from .decision_transformer import DecisionTransformer as DecisionTransformer
    from .discrete_sac import DiscreteSAC as DiscreteSAC
    from .dqn import DQN as DQN
    from .environments.make import make as make
    from .episodes import Episodes as Episodes
    from .episodes import record_episodes as record_episodes
    from .evaluation import Evaluation as Evaluation
    from .evaluation import evaluate as evaluate
    from .evaluation import record as record
    from .ppo import PPO as PPO
    from .qr_dqn import QRDQN as QRDQN
    from .recurrent_ppo import RecurrentPPO as RecurrentPPO
    from .reinforce import REINFORCE as REINFORCE
    from .sac import SAC as SAC
    from .spaces import Box as Box
    from .spaces import Discrete as Discrete
    from .spaces import MultiBinary as MultiBinary
    from .spaces import MultiDiscrete as MultiDiscrete
    from .stable_baselines3 import load_stable_baselines3 as load_stable_baselines3
    from .td3 import TD3 as TD3

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"bestiary.rl has no {name!r}; it has: {', '.join(sorted(_NAMES))}")
    value = getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

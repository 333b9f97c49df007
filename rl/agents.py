"""Agents by name or by folder, of any algorithm here: what `bt.load` asks for."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from ..core.errors import WeightsError

FILE = "agent.json"  # in the folder of an agent
_SHIPPED = Path(__file__).parent / "assets"
# The class of each algorithm, and the file that it is in.
ALGORITHMS = {
    "A2C": "a2c",
    "AlphaZero": "alphazero",
    "BehaviourCloning": "behaviour_cloning",
    "C51": "c51",
    "DDPG": "ddpg",
    "DQN": "dqn",
    "DecisionTransformer": "decision_transformer",
    "DiscreteSAC": "discrete_sac",
    "PPO": "ppo",
    "QRDQN": "qr_dqn",
    "REINFORCE": "reinforce",
    "SAC": "sac",
    "TD3": "td3",
}


def shipped() -> list[str]:
    """Names of the agents that come with the package."""
    return sorted(path.parent.name for path in _SHIPPED.glob(f"*/{FILE}"))


def folder_of(name: str | Path) -> Path | None:
    """The folder of an agent: one that is given, or that of a name; None of what is no agent."""
    path = Path(name).expanduser()
    if (path / FILE).is_file():
        return path
    if isinstance(name, Path) or path.exists():
        return None
    known = {n.replace("-", ""): n for n in shipped()}
    found = known.get(name.lower().replace("-", "").replace("_", ""))
    return None if found is None else _SHIPPED / found


def algorithm(name: str) -> Any:
    """The class of an algorithm.

    Raises:
        WeightsError: there is none of that name.
    """
    if name not in ALGORITHMS:
        raise WeightsError(
            f"there is no algorithm {name!r}; there are: {', '.join(ALGORITHMS)}", got=name
        )
    return getattr(importlib.import_module(f".{ALGORITHMS[name]}", __package__), name)


def load_agent(folder: str | Path, env: Any = None) -> Any:
    """The agent of a folder, of whichever algorithm it is, or of a zip of Stable-Baselines3.

    Args:
        env: to play or to learn on in; the one that it was trained in unless given.
    Raises:
        WeightsError: the folder holds no agent.
        ConfigError: the environment has other spaces.
    """
    path = Path(folder)
    if path.suffix == ".zip":
        from .stable_baselines3 import load_stable_baselines3

        return load_stable_baselines3(path, env)
    try:
        card = json.loads((path / FILE).read_text(encoding="utf-8"))
        name = str(card["algorithm"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} holds no agent: {FILE}: {error!r}") from None
    return algorithm(name).load(path, env)

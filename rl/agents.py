"""Agents by name or by folder, of any algorithm here: what `bt.load` asks for."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import re
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, MissingExtra, WeightsError
from ..core.notice import HubWarning, warn_once
from . import spaces

FILE = "agent.json"  # in the folder of an agent
_ZIP = ".zip"  # of Stable-Baselines3
_NORMALIZED = "vec_normalize.pkl"  # lies beside some
_NAMED = re.compile(r"[a-z0-9]+-([A-Za-z]\w*-v\d+)\.zip")  # as on its hub: algorithm-environment
TASK = "reinforcement-learning"
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
    "RecurrentPPO": "recurrent_ppo",
    "SAC": "sac",
    "TD3": "td3",
}


def shipped() -> list[str]:
    """Names of the agents that come with the package."""
    return sorted(path.parent.name for path in _SHIPPED.glob(f"*/{FILE}"))


def folder_of(name: str | Path) -> Path | None:
    """Where an agent is: a folder or a zip that is given, or that of a name; None of what is none.

    A zip that is there is taken for one of Stable-Baselines3, which `load_agent` checks.
    """
    path = Path(name).expanduser()
    if (path / FILE).is_file() or (path.suffix == _ZIP and path.is_file()):
        return path
    if isinstance(name, Path) or path.exists():
        return None
    known = {n.replace("-", ""): n for n in shipped()}
    found = known.get(name.lower().replace("-", "").replace("_", ""))
    return None if found is None else _SHIPPED / found


def facts(name: str | Path) -> dict[str, Any] | None:
    """What is known of an agent, as JSON values, without making it; None of what is none.

    Raises:
        WeightsError: the agent is damaged.
    """
    place = folder_of(name)
    if place is None:
        return None
    if place.suffix == _ZIP:
        agent = load_agent(place)
        own = {
            "algorithm": agent.name,
            "environment": None,
            "observation_space": str(agent.observation_space),
            "action_space": str(agent.action_space),
            "settings": dataclasses.asdict(agent.settings),
            "seed": None,
            "steps": agent.steps,
        }
        tensors = {k: m.state_dict() for k, m in agent.modules().items()}
        numbers = sum(t.size for k, m in tensors.items() if not _target(k) for t in m.values())
    else:
        from ..core.weights.safetensors import SafetensorsFile

        own = _card(place)
        with SafetensorsFile(place / "agent.safetensors") as file:
            numbers = sum(math.prod(file.info(k).shape) for k in file if not _target(k))
        for key in ("observation_space", "action_space"):
            own[key] = str(spaces.from_json(own[key]))
    comes_along = place.parent == _SHIPPED
    return {
        "name": place.name,
        "task": TASK,
        **own,
        "parameters": numbers,
        "license": "Apache-2.0" if comes_along else None,
        "commercial": True if comes_along else None,
        "bundled": comes_along,
    }


def _target(key: str) -> bool:
    """Whether a network is the slow copy of another one."""
    return key.startswith("target")


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
        env: to play or to learn on in; the one that it was trained in unless given. A zip does not
            say which that was, unless its name does, as on the hub: `ppo-CartPole-v1.zip`.
    Raises:
        WeightsError: the folder holds no agent.
        ConfigError: the environment has other spaces.
    """
    path = Path(folder)
    if path.suffix == _ZIP:
        return _of_zip(path, env)
    return algorithm(_card(path)["algorithm"]).load(path, env)


def _of_zip(path: Path, env: Any) -> Any:
    from .stable_baselines3 import load_stable_baselines3

    if (path.parent / _NORMALIZED).is_file():
        warn_once(
            f"normalised: {path}",
            f"{path.name} learnt from normalised observations. How they were is in "
            f"{_NORMALIZED}, a pickle, which is not read: give it such observations.",
            HubWarning,
        )
    named = _NAMED.fullmatch(path.name)
    if env is None and named is not None:
        try:
            return load_stable_baselines3(path, named[1])
        except (ConfigError, MissingExtra):
            pass  # it is not to be had here, or is another one of the same name
    return load_stable_baselines3(path, env)


def _card(folder: Path) -> dict[str, Any]:
    """What stands in an agent's `agent.json`."""
    try:
        card = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {**card, "algorithm": str(card["algorithm"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{folder} holds no agent: {FILE}: {error!r}") from None

"""Agents that Stable-Baselines3 saved, of PPO, A2C, DQN, SAC and TD3, with networks of numbers.

Such a zip holds `data` (JSON, with pickles inside, which are left alone), `policy.pth` (the
networks) and `pytorch_variables.pth` (the temperature of SAC). Spaces and settings are read from
the text that stands beside every pickle; weights without running any code of the file.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError, WeightsError
from ..core.weights.torch_checkpoint import read_checkpoint
from .environments.elsewhere import Elsewhere
from .environments.make import make
from .spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space

Arrays = dict[str, np.ndarray]

_LARGEST = 1 << 30  # bytes of one member
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|inf)")
_LAYER = re.compile(r"(.+)\.(\d+)\.(weight|bias)")
# Where each network is there, and where here; a number of a layer follows in both.
_ON_POLICY = {
    "mlp_extractor.policy_net": "network.actor",
    "mlp_extractor.value_net": "network.critic",
}
_PLACES = {
    "PPO": _ON_POLICY,
    "A2C": _ON_POLICY,
    "DQN": {"q_net.q_net": "network.q", "q_net_target.q_net": "target.q"},
    "SAC": {"actor.latent_pi": "actor"},
    "TD3": {"actor.mu": "actor", "actor_target.mu": "target_actor"},
}
_CRITICS = {
    "SAC": {"critic": "critics", "critic_target": "target"},
    "TD3": {"critic": "critics", "critic_target": "target_critics"},
}
_LAST = {
    "PPO": {"action_net": "network.actor", "value_net": "network.critic"},
    "A2C": {"action_net": "network.actor", "value_net": "network.critic"},
}


def load_stable_baselines3(path: str | Path, env: Any = None) -> Any:
    """The agent in a zip that Stable-Baselines3 saved; nothing in it is unpickled.

    Its best actions are those of Stable-Baselines3's `predict(..., deterministic=True)`. States of
    optimizers are not taken over.

    Args:
        path: the zip, of PPO, A2C, DQN, SAC, TD3 or DDPG (which is a TD3 with one critic).
        env: to play or learn on in; without it the agent only acts.

    Raises:
        WeightsError: it is no such file, is damaged, or holds networks of another kind.
        ConfigError: the environment has other spaces.
    """
    path = Path(path)
    data, tensors, variables = _members(path)
    algorithm = _algorithm(path, data, tensors)
    _check_kind(path, algorithm, data)
    seen, done = (_space(path, data, k) for k in ("observation_space", "action_space"))
    renamed, hidden = _renamed(path, algorithm, tensors)
    from .agents import algorithm as class_of

    kind = class_of(algorithm)
    settings = {**_settings(kind.Settings, data), "hidden": hidden}
    critics = {m[1] for k in renamed if (m := re.match(r"critics\.networks\.(\d+)\.", k))}
    if critics:
        settings["critics"] = len(critics)
    place = Elsewhere(seen, done) if env is None else make(env, 1)
    if place.action_space != done or place.observation_space.shape != seen.shape:
        raise ConfigError(
            f"{path}: the agent sees {seen} and does {done}; {place.id} has "
            f"{place.observation_space} and {place.action_space}.",
            expected=(seen, done),
        )
    agent = kind(place, **settings)
    if algorithm == "SAC":
        log_alpha = variables.get("log_ent_coef", agent.temperature.log_alpha.array)
        renamed["temperature.log_alpha"] = np.asarray(log_alpha, np.float32).reshape(1)
    agent._load_tensors(renamed, str(path))
    if algorithm == "DQN":
        agent.epsilon = float(data.get("exploration_rate", agent.epsilon))
    agent.steps = int(data.get("num_timesteps") or 0)
    return agent


def _members(path: Path) -> tuple[dict[str, Any], Arrays, Arrays]:
    """`data`, `policy.pth` and `pytorch_variables.pth` of a zip."""
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            data = json.loads(_bytes(path, archive, "data"))
            if not isinstance(data, dict):
                raise ValueError("`data` is no dictionary")
            found: list[Arrays] = []
            for name in ("policy.pth", "pytorch_variables.pth"):
                place = Path(folder) / name
                if name == "pytorch_variables.pth" and name not in archive.namelist():
                    found.append({})
                    continue
                place.write_bytes(_bytes(path, archive, name))
                content = read_checkpoint(place)
                found.append(
                    {k: np.array(v) for k, v in content.items() if isinstance(v, np.ndarray)}
                    if isinstance(content, Mapping)
                    else {}
                )
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"{path} is no agent of Stable-Baselines3: {error}\n"
            "Its zips hold `data` (JSON) and `policy.pth`."
        ) from None
    for name, value in found[0].items():
        if value.dtype != np.float32 or not np.isfinite(value).all():
            raise WeightsError(f"{path}: {name} is not made of finite float32 numbers")
    return data, found[0], found[1]


def _bytes(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > _LARGEST:
        raise WeightsError(f"{path}: {name} would take {info.file_size:,} bytes: refused")
    return archive.read(info)


def _algorithm(path: Path, data: Mapping[str, Any], tensors: Arrays) -> str:
    """The algorithm, which the file does not name, by what only it has."""
    if any(k.startswith("q_net.") for k in tensors):
        return "DQN"
    if any(k.startswith("actor.latent_pi.") for k in tensors):
        return "SAC"
    if any(k.startswith("actor.mu.") for k in tensors):
        return "TD3"
    if any(k.startswith("action_net.") for k in tensors):
        return "PPO" if "clip_range" in data else "A2C"
    raise WeightsError(
        f"{path}: no networks of PPO, A2C, DQN, SAC or TD3, but: {', '.join(list(tensors)[:4])}"
    )


def _check_kind(path: Path, algorithm: str, data: Mapping[str, Any]) -> None:
    options = data.get("policy_kwargs")
    options = options if isinstance(options, dict) else {}
    wanted = "Tanh" if algorithm in _LAST else "ReLU"
    activation = str(options.get("activation_fn", wanted))
    if not re.search(rf"\b{wanted}\b", activation):
        raise WeightsError(
            f"{path}: its layers have {activation} between; {algorithm} here has {wanted}.",
            expected=wanted,
            got=activation,
        )
    if data.get("use_sde"):
        raise WeightsError(f"{path}: noise that depends on the state (use_sde) is not supported.")


def _space(path: Path, data: Mapping[str, Any], key: str) -> Space:
    """A space, from the text that describes it."""
    found = data.get(key)
    try:
        if not isinstance(found, dict):
            raise ValueError("it is missing")
        kind = str(found[":type:"]).rstrip("'>").rpartition(".")[2]
        if kind == "Discrete":
            return Discrete(int(found["n"]), int(found.get("start", 0)))
        if kind == "MultiDiscrete":
            return MultiDiscrete(tuple(int(n) for n in _NUMBER.findall(str(found["nvec"]))))
        if kind == "MultiBinary":
            return MultiBinary(int(found["n"]))
        if kind != "Box":
            raise ValueError(f"{kind} is not supported")
        shape = tuple(found["_shape"])
        if len(shape) != 1:
            raise ValueError(f"shape {shape}: only lists of numbers are supported")
        low, high = ([float(n) for n in _NUMBER.findall(str(found[k]))] for k in ("low", "high"))
        if len(low) != shape[0] or len(high) != shape[0]:
            raise ValueError(f"{shape[0]} bounds are wanted, {len(low)} and {len(high)} are there")
        return Box(low, high, dtype=str(found["dtype"]))
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: {key} cannot be read: {error}") from None


def _renamed(path: Path, algorithm: str, tensors: Arrays) -> tuple[Arrays, tuple[int, ...]]:
    """The weights under the names here, and the sizes of the hidden layers."""
    found: Arrays = {}
    rest = dict(tensors)
    places = dict(_PLACES[algorithm])
    for there, here in _CRITICS.get(algorithm, {}).items():
        for name in tensors:
            if m := re.fullmatch(rf"{there}\.qf(\d+)\.\d+\.\w+", name):
                places[f"{there}.qf{m[1]}"] = f"{here}.networks.{m[1]}"
    for name, value in tensors.items():
        m = _LAYER.fullmatch(name)
        if m and m[1] in places:
            # Numbers there count the activations between, too.
            found[f"{places[m[1]]}.layers.{int(m[2]) // 2}.{m[3]}"] = value
            del rest[name]
    for there, here in _LAST.get(algorithm, {}).items():
        number = sum(k.startswith(f"{here}.layers.") for k in found) // 2
        for part in ("weight", "bias"):
            found[f"{here}.layers.{number}.{part}"] = _taken(path, rest, f"{there}.{part}")
    if algorithm == "SAC":  # two heads there, one layer with both here
        number = sum(k.startswith("actor.layers.") for k in found) // 2
        for part in ("weight", "bias"):
            heads = [_taken(path, rest, f"actor.{head}.{part}") for head in ("mu", "log_std")]
            found[f"actor.layers.{number}.{part}"] = np.concatenate(heads)
    if "log_std" in rest and algorithm in _LAST:
        found["network.log_std"] = rest.pop("log_std")
    if rest:
        raise WeightsError(
            f"{path}: networks of another kind than MlpPolicy's: {', '.join(list(rest)[:4])}"
        )
    return found, _hidden(path, found)


def _taken(path: Path, rest: Arrays, name: str) -> np.ndarray:
    if name not in rest:
        raise WeightsError(f"{path}: {name} is missing")
    return rest.pop(name)


def _hidden(path: Path, tensors: Arrays) -> tuple[int, ...]:
    """The sizes of the hidden layers, which are the same in all networks here."""
    sizes: dict[str, list[int]] = {}
    for name, value in sorted(tensors.items()):
        network, _, layer = name.partition(".layers.")
        if layer.endswith("weight"):
            sizes.setdefault(network, []).append(len(value))
    found = {name: tuple(each[:-1]) for name, each in sizes.items()}
    if len(set(found.values())) != 1 or () in found.values():
        raise WeightsError(
            f"{path}: all networks must have the same hidden layers, at least one; found "
            + ", ".join(f"{name} {each}" for name, each in found.items())
        )
    return next(iter(found.values()))


def _settings(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters that mean the same here and are written as plain values."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        value = data.get(field.name)
        if isinstance(value, dict):  # a schedule; constant ones are legible
            text = re.search(r"val=([-+.\de]+)\)", str(value.get("value_schedule", "")))
            value = float(text[1]) if text else None
        if isinstance(value, (bool, int, float)) or (
            field.name == "ent_coef" and isinstance(value, str)
        ):
            found[field.name] = value
    return found

"""Small untrained agents saved by Stable-Baselines3, and what they do on 1,000 observations.

Run: python tests/references/stable_baselines3_agents.py (with stable-baselines3 and gymnasium)
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import DATA
from safetensors.numpy import save_file
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3

_AGENTS: list[tuple[Any, str, Any]] = [
    (PPO, "CartPole-v1", [12, 10]),
    (A2C, "Pendulum-v1", [12, 10]),
    (DQN, "CartPole-v1", [12, 10]),
    (SAC, "Pendulum-v1", [12, 10]),
    (TD3, "Pendulum-v1", [12, 10]),
]


def _without_system(path: Path) -> None:
    """Leave out what the file says of the machine that it was made on."""
    with zipfile.ZipFile(path) as old:
        kept = {n: old.read(n) for n in old.namelist() if n != "system_info.txt"}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in kept.items():
            new.writestr(name, content)


def main() -> None:
    folder = DATA / "stable-baselines3"
    folder.mkdir(exist_ok=True)
    stored: dict[str, np.ndarray] = {}
    for kind, env, sizes in _AGENTS:
        name = kind.__name__.lower()
        agent = kind("MlpPolicy", env, policy_kwargs={"net_arch": sizes}, seed=0, device="cpu")
        generator = torch.Generator().manual_seed(1)
        for p in agent.policy.parameters():  # far from 0, so that all actions are among those taken
            p.data += 0.5 * torch.randn(p.shape, generator=generator)
        agent.save(folder / name)
        _without_system(folder / f"{name}.zip")
        rng = np.random.default_rng(2)
        width = agent.observation_space.shape[0]
        seen = rng.normal(0, 1, (1000, width)).astype(np.float32)
        stored[f"{name}.observations"] = seen
        stored[f"{name}.actions"] = np.asarray(agent.predict(seen, deterministic=True)[0])
    save_file(stored, folder / "actions.safetensors")


if __name__ == "__main__":
    main()

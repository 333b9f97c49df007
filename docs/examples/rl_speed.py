"""Time learning beside Stable-Baselines3, with the same hyper-parameters, one thread each.

    python docs/examples/rl_speed.py --peer ../peer/bin/python

The peer is the Python of an environment with stable-baselines3 and gymnasium. The two sides take
turns; what counts are ratios. Expected: 2 or more for PPO, A2C and DQN, more than 1 for SAC and
TD3. Two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rl_settings import DQN_CARTPOLE

SETTINGS: dict[str, tuple[str, str, int, tuple[int, ...], dict[str, Any]]] = {
    "PPO, defaults": ("PPO", "CartPole-v1", 8192, (64, 64), {}),
    "A2C, defaults": ("A2C", "CartPole-v1", 10_000, (64, 64), {}),
    "DQN, defaults": (
        "DQN",
        "CartPole-v1",
        6000,
        (64, 64),
        {"learning_starts": 100, "buffer_size": 100_000},
    ),
    "DQN, rl-zoo": ("DQN", "CartPole-v1", 6000, (256, 256), DQN_CARTPOLE),
    "SAC": ("SAC", "Pendulum-v1", 900, (256, 256), {"learning_rate": 1e-3}),
    "TD3": (
        "TD3",
        "Pendulum-v1",
        2000,
        (400, 300),
        {"learning_rate": 1e-3, "learning_starts": 1000},
    ),
}


def ours(name: str) -> float:
    """Seconds of `learn` here."""
    from bestiary import rl

    algorithm, env, steps, hidden, settings = SETTINGS[name]
    agent = getattr(rl, algorithm)("MlpPolicy", env, seed=0, hidden=hidden, **settings)
    start = time.perf_counter()
    agent.learn(steps, progress=False)
    return time.perf_counter() - start


def peers(name: str) -> float:
    """Seconds of `learn` in Stable-Baselines3."""
    import stable_baselines3
    import torch

    torch.set_num_threads(1)
    algorithm, env, steps, hidden, settings = SETTINGS[name]
    agent = getattr(stable_baselines3, algorithm)(
        "MlpPolicy", env, seed=0, device="cpu", policy_kwargs={"net_arch": [*hidden]}, **settings
    )
    start = time.perf_counter()
    agent.learn(steps)
    return time.perf_counter() - start


def main(peer: str, out: Path, rounds: int) -> dict[str, Any]:
    """Run both sides in turns; returns and writes seconds and ratios."""
    one = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BESTIARY_NUM_THREADS"), "1"
    )
    result: dict[str, Any] = {"command": "python docs/examples/rl_speed.py --peer PEER", "runs": {}}
    for name, (_, env, steps, *_) in SETTINGS.items():
        seconds: dict[str, list[float]] = {"ours": [], "stable-baselines3": []}
        for _ in range(rounds):
            for side, python in (("ours", sys.executable), ("stable-baselines3", peer)):
                command = [python, __file__, "--side", side, "--only", name]
                printed = subprocess.run(
                    command, env={**os.environ, **one}, check=True, capture_output=True, text=True
                ).stdout
                seconds[side].append(round(float(printed.split()[-1]), 3))
        ratio = min(seconds["stable-baselines3"]) / min(seconds["ours"])
        result["runs"][name] = {
            "environment": env,
            "steps": steps,
            "seconds": seconds,
            "times as fast": round(ratio, 2),
        }
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="the Python of an environment with stable-baselines3")
    parser.add_argument("--out", type=Path, default=Path("docs/examples/rl_results/speed.json"))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--side", choices=["ours", "stable-baselines3"], help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=SETTINGS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print((ours if args.side == "ours" else peers)(args.only))
    else:
        print(json.dumps(main(args.peer, args.out, args.rounds), indent=1))

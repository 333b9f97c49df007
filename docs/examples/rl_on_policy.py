"""Train the agents that learn from what they just did, here or in Stable-Baselines3, into JSON.

    python docs/examples/rl_on_policy.py ppo-cartpole --seed 0
    peer/bin/python docs/examples/rl_on_policy.py ppo-cartpole --seed 0 --peer

Both sides have the same hyper-parameters, one thread, and are judged by 100 episodes that are
played by the best action. With `--peer` the Python is one that has stable-baselines3, and bestiary
is not needed. Expected: CartPole 475 or more, Acrobot -100 or better; Pendulum -200 or better.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_settings import DQN_CARTPOLE

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BESTIARY_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

HERE = Path(__file__).parent
# Hyper-parameters: of rl-baselines3-zoo, without normalising wrappers, state-dependent noise and
# falling clip ranges; `anneal` is a learning rate that falls to nothing.
RUNS: dict[str, tuple[str, str, int, int, dict[str, Any]]] = {
    "ppo-cartpole": (
        "PPO",
        "CartPole-v1",
        100_000,
        8,
        {
            "learning_rate": 1e-3,
            "anneal": True,
            "n_steps": 32,
            "batch_size": 256,
            "n_epochs": 20,
            "gamma": 0.98,
            "gae_lambda": 0.8,
        },
    ),
    "a2c-cartpole": ("A2C", "CartPole-v1", 200_000, 8, {"anneal": True}),
    "ppo-acrobot": (
        "PPO",
        "Acrobot-v1",
        200_000,
        16,
        {"n_steps": 256, "n_epochs": 4, "gae_lambda": 0.94, "batch_size": 64},
    ),
    "ppo-pendulum": (
        "PPO",
        "Pendulum-v1",
        200_000,
        4,
        {"n_steps": 1024, "gamma": 0.9, "learning_rate": 1e-3},
    ),
    # Ours is in rl_off_policy.py, with the same settings.
    "dqn-cartpole": (
        "DQN",
        "CartPole-v1",
        50_000,
        1,
        {"hidden": (256, 256), **DQN_CARTPOLE},
    ),
}


@dataclass
class Arguments:
    """What to train, and where the results go."""

    run: str
    seed: int = 0
    steps: int | None = None
    episodes: int = 100
    out: Path = HERE / "rl_results"
    peer: bool = False


def ours(args: Arguments, steps: int) -> dict[str, Any]:
    """Train here; steps, seconds, returns of episodes and the curve of learning."""
    from bestiary import rl

    algorithm, env, _, num_envs, settings = RUNS[args.run]
    agent = getattr(rl, algorithm)(env, seed=args.seed, num_envs=num_envs, **settings)
    clock = _Clock()
    agent.learn(steps, progress=False)
    seconds = clock.seconds()
    found = rl.evaluate(agent, episodes=args.episodes)
    curve = [[line["steps"], line["return"]] for line in agent.history if "return" in line]
    return {
        "steps": agent.steps,
        "seconds": seconds,
        "returns": found.returns,
        "curve": curve,
    }


def peers(args: Arguments, steps: int) -> dict[str, Any]:
    """The same in Stable-Baselines3."""
    import numpy as np
    import stable_baselines3
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    torch.set_num_threads(1)
    algorithm, env, _, num_envs, given = RUNS[args.run]
    settings = dict(given)
    hidden = settings.pop("hidden", (64, 64))
    rate = settings.get("learning_rate", 7e-4 if algorithm == "A2C" else 3e-4)
    if settings.pop("anneal", False):
        settings["learning_rate"] = lambda left: left * rate

    curve: list[list[float]] = []

    class Watch(BaseCallback):  # type: ignore[misc, unused-ignore]
        """Notes the mean return of the last hundred episodes every thousand steps."""

        def _on_step(self) -> bool:
            due = curve[-1][0] + 1000 if curve else 1000
            if self.num_timesteps >= due and self.model.ep_info_buffer:
                mean = np.mean([episode["r"] for episode in self.model.ep_info_buffer])
                curve.append([self.num_timesteps, float(mean)])
            return True

    agent = getattr(stable_baselines3, algorithm)(
        "MlpPolicy",
        make_vec_env(env, num_envs, seed=args.seed),
        seed=args.seed,
        device="cpu",
        policy_kwargs={"net_arch": list(hidden)},
        **settings,
    )
    clock = _Clock()
    agent.learn(steps, callback=Watch())
    seconds = clock.seconds()
    worlds = make_vec_env(env, 16, seed=10_000)
    returns, _ = evaluate_policy(
        agent, worlds, args.episodes, deterministic=True, return_episode_rewards=True
    )
    return {
        "steps": agent.num_timesteps,
        "seconds": seconds,
        "returns": returns,
        "curve": curve,
        "version": stable_baselines3.__version__,
    }


class _Clock:
    """Seconds since it was made: on the wall, and of the processor, which is steadier."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def seconds(self) -> dict[str, float]:
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        return {"wall": round(wall, 1), "cpu": round(cpu, 1)}


def main(args: Arguments) -> dict[str, Any]:
    """Train, evaluate, write; returns what was written."""
    algorithm, env, steps, *_ = RUNS[args.run]
    found = (peers if args.peer else ours)(args, steps if args.steps is None else args.steps)
    returns, curve = [float(r) for r in found["returns"]], found["curve"]
    mean = sum(returns) / len(returns)
    result = {
        "run": args.run,
        "algorithm": algorithm,
        "environment": env,
        "library": f"stable-baselines3 {found['version']}" if args.peer else "bestiary",
        "seed": args.seed,
        "steps": found["steps"],
        "seconds": found["seconds"],
        "command": f"python docs/examples/rl_on_policy.py {args.run} --seed {args.seed}"
        + (" --peer" if args.peer else ""),
        "machine": "x86_64, shared with other work",
        "return": {
            "mean": round(mean, 3),
            "std": round((sum((r - mean) ** 2 for r in returns) / len(returns)) ** 0.5, 3),
        },
        "episodes": len(returns),
        "curve": [[int(s), round(r, 2)] for s, r in curve[:: max(1, len(curve) // 50)]],
    }
    folder = args.out / "stable-baselines3" if args.peer else args.out
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{args.run}-{args.seed}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Arguments.out)
    parser.add_argument("--peer", action="store_true", help="train in stable-baselines3")
    print(json.dumps(main(Arguments(**vars(parser.parse_args()))), indent=1))

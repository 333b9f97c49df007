"""Train an agent in Stable-Baselines3 as the examples here do, and write the result as JSON.

    peer/bin/python docs/examples/rl_peer.py ppo-cartpole --seed 0

Its Python is one that has stable-baselines3; bestiary is not needed. Hyper-parameters are those of
rl_settings.py, with one thread, and the agent is judged by 100 episodes that are played by the best
action.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_files import parser, thinned, write
from rl_settings import RUNS, apart

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

HERE = Path(__file__).parent
# What is the same without being said here, and has to be said there.
_HIDDEN = {"SAC": (256, 256), "TD3": (400, 300)}
_RATES = {"A2C": 7e-4, "DQN": 1e-4, "TD3": 1e-3}


@dataclass
class Arguments:
    """What to train, and where the results go."""

    run: str
    seed: int = 0
    steps: int | None = None
    episodes: int = 100
    out: Path = HERE / "rl_results" / "stable-baselines3"


def settings_of(name: str) -> dict[str, Any]:
    """The hyper-parameters of a run, as arguments of Stable-Baselines3's class."""
    run = RUNS[name]
    settings = dict(run.settings)
    hidden = settings.pop("hidden", _HIDDEN.get(run.algorithm, (64, 64)))
    settings["policy_kwargs"] = {"net_arch": list(hidden)}
    rate = settings.get("learning_rate", _RATES.get(run.algorithm, 3e-4))
    if settings.pop("anneal", False):
        settings["learning_rate"] = lambda left: left * rate
    noise = settings.pop("exploration_noise", None)
    if noise is not None:
        import numpy as np
        from stable_baselines3.common.noise import NormalActionNoise

        settings["action_noise"] = NormalActionNoise(np.zeros(1), np.full(1, noise))
    return settings


def main(args: Arguments) -> dict[str, Any]:
    """Train, evaluate, write; returns what was written."""
    import numpy as np
    import stable_baselines3
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    torch.set_num_threads(1)
    run = RUNS[args.run]
    steps = run.steps if args.steps is None else args.steps
    every = apart(steps)
    curve: list[list[float]] = []

    class Watch(BaseCallback):  # type: ignore[misc, unused-ignore]
        """Notes the mean return of the last hundred episodes now and then."""

        def _on_step(self) -> bool:
            due = curve[-1][0] + every if curve else every
            if self.num_timesteps >= due and self.model.ep_info_buffer:
                mean = np.mean([episode["r"] for episode in self.model.ep_info_buffer])
                curve.append([self.num_timesteps, float(mean)])
            return True

    agent = getattr(stable_baselines3, run.algorithm)(
        "MlpPolicy",
        make_vec_env(run.env, run.num_envs, seed=args.seed),
        seed=args.seed,
        device="cpu",
        **settings_of(args.run),
    )
    wall, cpu = time.perf_counter(), time.process_time()
    agent.learn(steps, callback=Watch())
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    worlds = make_vec_env(run.env, 16, seed=10_000)
    returns, _ = evaluate_policy(
        agent, worlds, args.episodes, deterministic=True, return_episode_rewards=True
    )
    result = {
        "run": args.run,
        "algorithm": run.algorithm,
        "environment": run.env,
        "library": f"stable-baselines3 {stable_baselines3.__version__}",
        "seed": args.seed,
        "steps": agent.num_timesteps,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "command": f"python docs/examples/rl_peer.py {args.run} --seed {args.seed}",
        "machine": "x86_64, shared with other work",
        "return": {"mean": round(np.mean(returns), 3), "std": round(np.std(returns), 3)},
        "episodes": len(returns),
        "curve": thinned(curve),
    }
    return write(args.out, f"{args.run}-{args.seed}", result)


if __name__ == "__main__":
    given = parser(__doc__, RUNS, Arguments.out)
    print(json.dumps(main(Arguments(**vars(given.parse_args()))), indent=1))

"""Train an agent, and write what it reaches as JSON.

    python docs/examples/rl_train.py ppo-cartpole --seed 0

The runs and their hyper-parameters are in rl_settings.py; rl_peer.py does the same in
Stable-Baselines3. One thread; the agent is judged by 100 episodes that are played by the best
action. Expected: CartPole 475 or more, Acrobot -100 or better, Pendulum -200 or better, LunarLander
200 or more, Catch 1. Half a minute to four minutes each.
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

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BESTIARY_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

HERE = Path(__file__).parent


@dataclass
class Arguments:
    """What to train, and where the results go."""

    run: str
    seed: int = 0
    steps: int | None = None
    episodes: int = 100
    out: Path = HERE / "rl_results"
    agent: Path | None = None


def main(args: Arguments) -> dict[str, Any]:
    """Train, evaluate, write; returns what was written."""
    from bestiary import rl

    run = RUNS[args.run]
    agent = getattr(rl, run.algorithm)(
        run.env, seed=args.seed, num_envs=run.num_envs, **run.settings
    )
    steps = run.steps if args.steps is None else args.steps
    every = apart(steps)
    curve: list[list[float]] = []

    def watch(agent: Any) -> None:
        """Note the mean return of the last hundred episodes now and then."""
        due = curve[-1][0] + every if curve else every
        if agent.steps >= due and agent.returns:
            curve.append([agent.steps, sum(agent.returns) / len(agent.returns)])

    wall, cpu = time.perf_counter(), time.process_time()
    agent.learn(steps, watch, progress=False)
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    found = rl.evaluate(agent, episodes=args.episodes, progress=False)
    result = {
        "run": args.run,
        "algorithm": run.algorithm,
        "environment": run.env,
        "library": "bestiary",
        "seed": args.seed,
        "steps": agent.steps,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "command": f"python docs/examples/rl_train.py {args.run} --seed {args.seed}",
        "machine": "x86_64, shared with other work",
        "return": {"mean": round(found.mean, 3), "std": round(found.std, 3)},
        "episodes": len(found.returns),
        "curve": thinned(curve),
    }
    write(args.out, f"{args.run}-{args.seed}", result)
    if args.agent is not None:
        agent.save(args.agent)
    return result


if __name__ == "__main__":
    given = parser(__doc__, RUNS, Arguments.out)
    given.add_argument("--agent", type=Path, help="folder to save the agent in")
    print(json.dumps(main(Arguments(**vars(given.parse_args()))), indent=1))

"""Train AlphaZero on Connect Four, play against others, and write the games as JSON.

    python docs/examples/rl_alphazero.py --seed 0

Expected: more than 95 of 100 games won against random play, and most against minimax of depth 3.
Six minutes on one processor.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_files import write

from bestiary.rl.alphazero import AlphaZero, match
from bestiary.rl.environments import connect_four

HERE = Path(__file__).parent
RUN = "alphazero-connect-four"


@dataclass
class Arguments:
    """How long to train, how many games to play, and where the results go."""

    seed: int = 0
    steps: int = 40_000
    games: int = 100
    out: Path = HERE / "rl_results"


def main(args: Arguments) -> dict[str, Any]:
    """Train, play, write; returns what was written."""
    agent = AlphaZero("ConnectFour-v0", seed=args.seed)
    wall, cpu = time.perf_counter(), time.process_time()
    agent.learn(args.steps, progress=False)
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    result: dict[str, Any] = {
        "run": RUN,
        "algorithm": "AlphaZero",
        "environment": "ConnectFour-v0",
        "seed": args.seed,
        "steps": agent.steps,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "command": f"python docs/examples/rl_alphazero.py --seed {args.seed}",
        "machine": "x86_64, shared with other work",
    }
    opponents = {"random": connect_four.random_columns, "minimax": connect_four.minimax}
    for name, opponent in opponents.items():
        won, lost = match(agent, opponent, args.games)
        result[name] = {"won": won, "lost": lost}
    return write(args.out, f"{RUN}-{args.seed}", result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Arguments.steps)
    parser.add_argument("--games", type=int, default=Arguments.games)
    parser.add_argument("--out", type=Path, default=Arguments.out)
    print(json.dumps(main(Arguments(**vars(parser.parse_args()))), indent=1))

"""Train the decision transformer and behaviour cloning on the same recordings, and compare them.

    python docs/examples/rl_offline.py decision-transformer-pendulum --seed 0

The recordings are of players of very different strength. Behaviour cloning does what they did on
the mean; the decision transformer is asked for the return of the best ones. Expected, as means of
five seeds: Pendulum -615 (-226 to -944) and -772, the grid world 0.87 and -1. Two minutes, and one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rl_files import parser, write

from bestiary.rl import (
    DQN,
    SAC,
    BehaviourCloning,
    DecisionTransformer,
    Episodes,
    Evaluation,
    evaluate,
    record_episodes,
)
from bestiary.rl.environments import GridWorld

HERE = Path(__file__).parent
EACH = 100  # episodes of every player
Found = tuple[str, list[str], list[Episodes], dict[str, Evaluation], float]


@dataclass
class Arguments:
    """What to train, and where the results go; `steps` are updates, for trying it out."""

    run: str
    seed: int = 0
    steps: int | None = None
    episodes: int = 100
    out: Path = HERE / "rl_results"


class ShortestWay:
    """Goes the shortest way through the grid world, which value iteration finds."""

    def __init__(self) -> None:
        env = GridWorld()
        cells = np.arange(env.observation_space.features)
        value = np.zeros(len(cells))
        for _ in range(60):
            outcome = []
            for action in range(4):
                new, reward, end = env.advance(cells[None], np.full(len(cells), action))
                outcome.append(reward + np.where(end, 0, value[new[0]]))
            self.worth = np.stack(outcome, axis=1)
            value = self.worth.max(axis=1)

    def act(self, observation: Any, deterministic: bool = True) -> Any:
        return self.worth[np.asarray(observation)].argmax(axis=-1)


def grid_world(args: Arguments) -> Found:
    """One that knows the way, one that does not, and one that goes anywhere."""
    name = "GridWorld-v0"
    players: dict[str, tuple[Any, float]] = {
        "shortest way, 20 % random": (ShortestWay(), 0.2),
        "untrained DQN, 30 % random": (DQN(name, seed=3), 0.3),
        "random": (None, 1.0),
    }
    parts = [
        record_episodes(player, name, EACH, random=random, seed=10 * args.seed + i)
        for i, (player, random) in enumerate(players.values())
    ]
    data = Episodes.joined(parts)
    cloned = BehaviourCloning(name, data=data, seed=args.seed)
    cloned.learn(args.steps or 1500, progress=False)
    agent = DecisionTransformer(
        name, data=data, seed=args.seed, context=3, longest=100, learning_rate=2e-3, width=32
    ).learn(args.steps or 500, progress=False)
    found = {
        "decision transformer": agent.play_episodes(args.episodes),
        "behaviour cloning": evaluate(cloned, name, args.episodes),
        "behaviour cloning, actions drawn": evaluate(
            cloned, name, args.episodes, deterministic=False
        ),
    }
    return name, list(players), parts, found, agent.statistics.target


def pendulum(args: Arguments) -> Found:
    """SAC at three moments of its training, the last one also shaken, and random play."""
    name, steps = "Pendulum-v1", 6000 if args.steps is None else args.steps
    moments = {"SAC, a sixth of its training": steps // 6, "SAC, a third": steps // 3}
    players: list[str] = []
    parts: list[Episodes] = []

    def keep(player: str, agent: Any, random: float = 0.0) -> None:
        seed = 10 * args.seed + len(parts)
        parts.append(record_episodes(agent, name, EACH, random=random, seed=seed))
        players.append(player)

    def watch(agent: SAC) -> None:
        for player, moment in moments.items():
            if agent.steps >= moment and player not in players:
                keep(player, agent)

    keep("random", None)
    strong = SAC(name, seed=args.seed, learning_rate=1e-3).learn(steps, watch, progress=False)
    keep("SAC", strong)
    keep("SAC, 30 % random", strong, 0.3)
    data = Episodes.joined(parts)
    wanted = float(parts[-2].returns.mean())
    cloned = BehaviourCloning(name, data=data, seed=args.seed)
    cloned.learn(args.steps or 5000, progress=False)
    agent = DecisionTransformer(
        name,
        data=data,
        seed=args.seed,
        context=5,
        longest=200,
        learning_rate=2e-3,
        target_return=wanted,
    ).learn(args.steps or 2500, progress=False)
    found = {
        "decision transformer": agent.play_episodes(args.episodes),
        "behaviour cloning": evaluate(cloned, name, args.episodes),
    }
    return name, players, parts, found, wanted


RUNS: dict[str, Callable[[Arguments], Found]] = {
    "decision-transformer-grid-world": grid_world,
    "decision-transformer-pendulum": pendulum,
}


def main(args: Arguments) -> dict[str, Any]:
    """Record, train, play, write; returns what was written."""
    wall, cpu = time.perf_counter(), time.process_time()
    name, players, parts, found, wanted = RUNS[args.run](args)
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    result = {
        "run": args.run,
        "environment": name,
        "seed": args.seed,
        "recorded": {
            "players": players,
            "episodes": [len(part) for part in parts],
            "steps": [int(part.lengths.sum()) for part in parts],
            "return": [round(float(part.returns.mean()), 3) for part in parts],
        },
        "asked for": round(wanted, 3),
        "return": {k: {"mean": round(v.mean, 3), "std": round(v.std, 3)} for k, v in found.items()},
        "episodes": args.episodes,
        "seconds": {k: round(v, 1) for k, v in seconds.items()},
        "command": f"python docs/examples/rl_offline.py {args.run} --seed {args.seed}",
        "machine": "x86_64, shared with other work",
    }
    return write(args.out, f"{args.run}-{args.seed}", result)


if __name__ == "__main__":
    given = parser(__doc__, RUNS, Arguments.out)
    print(json.dumps(main(Arguments(**vars(given.parse_args()))), indent=1))

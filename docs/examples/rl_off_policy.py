"""Train the agents that learn from a memory, and write what they reach as JSON.

    python docs/examples/rl_off_policy.py dqn-cartpole --seed 0

Expected, as means of 100 episodes: dqn-cartpole 500, dqn-acrobot -100 or better, dqn-catch 1,
sac-pendulum and td3-pendulum -200 or better, alphazero-connect-four more than 95 of 100 games
against random play and most against minimax. Each takes one to six minutes on one processor.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rl_settings import DQN_CARTPOLE

from bestiary.rl.alphazero import AlphaZero, match
from bestiary.rl.behaviour_cloning import BehaviourCloning
from bestiary.rl.decision_transformer import DecisionTransformer
from bestiary.rl.dqn import DQN
from bestiary.rl.environments import GridWorld, connect_four, make
from bestiary.rl.episodes import Episodes, record_episodes
from bestiary.rl.evaluation import evaluate
from bestiary.rl.sac import SAC
from bestiary.rl.td3 import TD3

# Hyper-parameters: of rl-baselines3-zoo where it has the task, else chosen here.
RUNS: dict[str, tuple[Any, str, int, dict[str, Any]]] = {
    "dqn-cartpole": (
        DQN,
        "CartPole-v1",
        50_000,
        {"hidden": (256, 256), **DQN_CARTPOLE},
    ),
    "dqn-acrobot": (
        DQN,
        "Acrobot-v1",
        100_000,
        {
            "hidden": (256, 256),
            "learning_rate": 6.3e-4,
            "batch_size": 128,
            "buffer_size": 50_000,
            "learning_starts": 1000,
            "target_update_interval": 250,
            "train_freq": 4,
            "gradient_steps": 4,
            "exploration_fraction": 0.12,
            "exploration_final_eps": 0.1,
        },
    ),
    "dqn-catch": (
        DQN,
        "Catch-v0",
        30_000,
        {
            "num_envs": 8,
            "learning_rate": 1e-3,
            "buffer_size": 20_000,
            "learning_starts": 1000,
            "target_update_interval": 500,
            "exploration_fraction": 0.5,
            "train_freq": 1,
            "gradient_steps": 2,
        },
    ),
    "sac-pendulum": (SAC, "Pendulum-v1", 6000, {"learning_rate": 1e-3}),
    "td3-pendulum": (
        TD3,
        "Pendulum-v1",
        8000,
        {"learning_rate": 1e-3, "learning_starts": 1000, "exploration_noise": 0.1},
    ),
    # Small enough to be shipped.
    "dqn-cartpole-small": (
        DQN,
        "CartPole-v1",
        50_000,
        {
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1000,
            "target_update_interval": 10,
            "train_freq": 256,
            "gradient_steps": 128,
            "exploration_fraction": 0.16,
            "exploration_final_eps": 0.04,
            "double": True,
        },
    ),
    "sac-pendulum-small": (SAC, "Pendulum-v1", 8000, {"learning_rate": 1e-3, "hidden": (64, 64)}),
    "alphazero-connect-four": (AlphaZero, "ConnectFour-v0", 40_000, {}),
}
OFFLINE = "decision-transformer-grid-world"


@dataclass
class Arguments:
    """What to train, and where the results go."""

    run: str
    seed: int = 0
    steps: int | None = None
    episodes: int = 100
    out: Path = Path("docs/examples/rl_results")
    agent: Path | None = None


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


def offline(args: Arguments) -> dict[str, Any]:
    """The decision transformer beside behaviour cloning, of the same recordings."""
    name, start = "GridWorld-v0", time.perf_counter()
    players = [(ShortestWay(), 0.2), (DQN(name, seed=3), 0.3), (None, 1.0)]
    parts = [
        record_episodes(player, name, 100, random=random, seed=10 * args.seed + i)
        for i, (player, random) in enumerate(players)
    ]
    data = Episodes.joined(parts)
    cloned = BehaviourCloning(name, data=data, seed=args.seed).learn(args.steps or 1500)
    agent = DecisionTransformer(
        name, data=data, seed=args.seed, context=3, longest=100, learning_rate=2e-3, width=32
    ).learn(args.steps or 500)
    found = {
        "decision transformer": agent.play_episodes(args.episodes),
        "behaviour cloning": evaluate(cloned, name, args.episodes),
        "behaviour cloning, actions drawn": evaluate(
            cloned, name, args.episodes, deterministic=False
        ),
    }
    return {
        "run": args.run,
        "environment": name,
        "seed": args.seed,
        "recorded": {
            "players": ["shortest way, 20 % random", "untrained DQN, 30 % random", "random"],
            "episodes": [len(part) for part in parts],
            "steps": [int(part.lengths.sum()) for part in parts],
            "return": [round(float(part.returns.mean()), 3) for part in parts],
        },
        "return": {k: {"mean": v.mean, "std": v.std} for k, v in found.items()},
        "seconds": {"wall": round(time.perf_counter() - start, 1)},
        "command": f"python docs/examples/rl_off_policy.py {args.run} --seed {args.seed}",
    }


def returns(agent: Any, env: str, episodes: int) -> np.ndarray:
    """The return of one episode in each of so many copies of the environment."""
    envs = make(env, episodes)
    seen = envs.reset(10_000)
    total, on = np.zeros(episodes), np.ones(episodes, bool)
    while on.any():
        step = envs.step(agent.act(seen))
        total += step.reward * on
        on &= ~(step.terminated | step.truncated)
        seen = step.observation
    return total


def main(args: Arguments) -> dict[str, Any]:
    """Train, evaluate, write; returns what was written."""
    if args.run == OFFLINE:
        result = offline(args)
        write(args, result)
        return result
    algorithm, env, steps, settings = RUNS[args.run]
    steps = steps if args.steps is None else args.steps
    agent = algorithm(env, seed=args.seed, **settings)
    wall, cpu = time.perf_counter(), time.process_time()
    agent.learn(steps)
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    result = {
        "run": args.run,
        "algorithm": algorithm.__name__,
        "environment": env,
        "seed": args.seed,
        "steps": agent.steps,
        "seconds": {k: round(v, 1) for k, v in seconds.items()},
        "command": f"python docs/examples/rl_off_policy.py {args.run} --seed {args.seed}",
        "machine": f"{platform.machine()}, shared with other work",
    }
    if isinstance(agent, AlphaZero):
        for name, opponent in (
            ("random", connect_four.random_columns),
            ("minimax", connect_four.minimax),
        ):
            won, lost = match(agent, opponent, args.episodes)
            result[name] = {"won": won, "lost": lost}
    else:
        found = returns(agent, env, args.episodes)
        result["return"] = {"mean": float(found.mean()), "std": float(found.std())}
        result["episodes"] = args.episodes
        every = max(1, len(agent.history) // 50)
        result["curve"] = [
            [line["steps"], round(line["return"], 2)] for line in agent.history[::every]
        ]
    write(args, result)
    if args.agent is not None:
        agent.save(args.agent)
    return result


def write(args: Arguments, result: dict[str, Any]) -> None:
    """Keep a result in a file of its own."""
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{args.run}-{args.seed}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", choices=[*RUNS, OFFLINE])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Arguments.out)
    parser.add_argument("--agent", type=Path, help="folder to save the agent in")
    print(json.dumps(main(Arguments(**vars(parser.parse_args()))), indent=1))

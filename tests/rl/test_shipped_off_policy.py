"""The agents that come with the package and were trained from a memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bestiary.rl.alphazero import AlphaZero, match
from bestiary.rl.dqn import DQN
from bestiary.rl.environments import connect_four, make
from bestiary.rl.sac import SAC

ASSETS = Path(__file__).parents[2] / "rl" / "assets"
SIZE = 200_000


def mean_return(agent: DQN | SAC, episodes: int) -> float:
    env = make(agent.env.id, episodes)
    seen, total = env.reset(5), np.zeros(episodes)
    on = np.ones(episodes, bool)
    while on.any():
        step = env.step(agent.act(seen))
        total += step.reward * on
        on &= ~(step.terminated | step.truncated)
        seen = step.observation
    return float(total.mean())


def test_dqn_balances_the_pole() -> None:
    assert mean_return(DQN.load(ASSETS / "dqn-cartpole"), 20) == 500


def test_sac_swings_the_pendulum_up() -> None:
    assert mean_return(SAC.load(ASSETS / "sac-pendulum"), 50) > -200


def test_alphazero_beats_minimax() -> None:
    agent = AlphaZero.load(ASSETS / "alphazero-connect-four")
    agent.search.simulations = 32  # half, for time
    assert match(agent, connect_four.random_columns, 20)[0] >= 0.9
    won, lost = match(agent, connect_four.minimax, 20)
    assert won > lost


def test_they_are_small() -> None:
    for name in ("dqn-cartpole", "sac-pendulum", "alphazero-connect-four"):
        assert (ASSETS / name / "agent.safetensors").stat().st_size < SIZE

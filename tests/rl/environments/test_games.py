"""GridWorld and Catch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bestiary.core.errors import ConfigError
from bestiary.rl.environments import Catch, GridWorld, make

MAP = """
S.X
.#G
S..
"""


def test_moves_on_a_map() -> None:
    env = GridWorld(1, layout=MAP)
    assert env.observation_space.features == 9
    up, right, down, left = env.next.T
    #           S  .  X  .  #  G  S  .  .
    assert up.tolist() == [0, 1, 2, 0, 1, 2, 3, 7, 5]
    assert right.tolist() == [1, 2, 2, 3, 5, 5, 7, 8, 8]
    assert down.tolist() == [3, 1, 5, 6, 7, 8, 6, 7, 8]
    assert left.tolist() == [0, 0, 1, 3, 3, 5, 6, 6, 7]
    new, reward, end = env.advance(np.array([[0, 1, 8]]), np.array([1, 1, 0]))
    assert new.tolist() == [[1, 2, 5]]
    assert reward.tolist() == pytest.approx([-0.01, -1, 1])
    assert end.tolist() == [False, True, True]


def test_starts_are_drawn() -> None:
    first = GridWorld(500, layout=MAP, seed=0).reset()
    assert set(first.tolist()) == {0, 6}
    assert 200 < (first == 0).sum() < 300


def test_slipping() -> None:
    env = GridWorld(1, layout=["....", ".S..", "....", "...G"], slip=0.4, seed=0)
    new, _, _ = env.advance(np.full((1, 40_000), 5), np.full(40_000, 1))
    share = {cell: (new == cell).mean() for cell in (6, 1, 9, 4)}
    assert share[6] == pytest.approx(0.7, abs=0.01)
    assert [share[c] for c in (1, 9, 4)] == pytest.approx([0.1] * 3, abs=0.01)


def test_the_default_map_can_be_solved() -> None:
    """Value iteration over the table finds the way: 14 moves."""
    env = GridWorld()
    cells = np.arange(env.observation_space.features)
    value = np.zeros(len(cells))
    for _ in range(60):
        outcome = []
        for action in range(4):
            new, reward, end = env.advance(cells[None], np.full(len(cells), action))
            outcome.append(reward + np.where(end, 0, value[new[0]]))
        value = np.max(outcome, axis=0)
    assert value[env.starts[0]] == pytest.approx(1 - 0.01 * 13, abs=1e-6)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"layout": ""}, "equal length"),
        ({"layout": "S.\nG"}, "equal length"),
        ({"layout": "..G"}, r"no start \(S\)"),
        ({"layout": "S.."}, r"no goal \(G\)"),
        ({"layout": "S?G"}, r"\['\?'\]"),
        ({"slip": 1.5}, "1.5"),
        ({"slip": np.nan}, "nan"),
    ],
)
def test_wrong_maps(settings: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        GridWorld(**settings)


def test_a_ball_that_is_followed_is_caught() -> None:
    env = Catch(64, seed=0)
    obs = env.reset()
    assert obs.shape == (64, 1, 20, 20)
    assert obs.dtype == np.uint8
    assert set(np.unique(obs)) == {0, 255}
    for t in range(9):
        # From the pixels: the columns of the ball and of the paddle.
        ball = obs[:, 0, :-2].max(1).argmax(1)
        paddle = obs[:, 0, -1].argmax(1)
        assert (obs[:, 0, :-2].max(2).argmax(1) == 2 * t).all()
        step = env.step(np.sign(ball - paddle) + 1)
        obs = step.observation
        assert step.terminated.all() == (t == 8)
        assert step.terminated.any() == (t == 8)
    assert (step.reward == 1).all()
    assert step.final_observation is not None
    assert (step.final_observation[:, 0, -1].sum(1) == 2 * 255).all()  # the ball in the paddle


def test_a_ball_that_is_avoided_is_lost() -> None:
    env = Catch(64, seed=0, rows=5, columns=7, cell=1)
    obs = env.reset()
    assert obs.shape == (64, 1, 5, 7)
    total = np.zeros(64)
    for _ in range(4):
        ball = obs[:, 0, :-1].max(1).argmax(1)
        step = env.step(np.where(ball < 3, 2, 0))
        obs = step.observation
        total += step.reward
    assert (total == -1).all()


@pytest.mark.parametrize("settings", [{"rows": 1}, {"columns": 0}, {"cell": 0}, {"rows": 2.5}])
def test_wrong_fields(settings: Any) -> None:
    with pytest.raises(ConfigError, match="Catch: "):
        Catch(**settings)


def test_last_pictures_are_kept() -> None:
    env = make("Catch-v0", 2, seed=0, options={"max_episode_steps": 5})
    env.reset()
    before = env.render(1)
    for _ in range(4):
        assert env.final_picture(1) is None
        env.step(np.ones(2, int))
    env.step(np.ones(2, int))
    last, now = env.final_picture(1), env.render(1)
    assert last is not None
    assert np.array_equal(last, env.final_picture(-1))
    assert not np.array_equal(last, now)
    assert before.shape == last.shape
    env.step(np.ones(2, int))
    assert env.final_picture(1) is None

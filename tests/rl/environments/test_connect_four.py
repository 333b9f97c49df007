from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bestiary.core.errors import ConfigError, DataError, IndexRangeError, ShapeError
from bestiary.rl.environments import ConnectFour, connect_four, make
from bestiary.rl.environments.connect_four import (
    empty,
    full,
    legal,
    minimax,
    planes,
    play,
    random_columns,
    winner,
)


def naive_winner(board: np.ndarray) -> int:
    for who in (1, -1):
        for r in range(6):
            for c in range(7):
                for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
                    cells = [(r + i * down, c + i * right) for i in range(4)]
                    if all(0 <= y < 6 and 0 <= x < 7 and board[y, x] == who for y, x in cells):
                        return who
    return 0


def board(text: str) -> np.ndarray:
    """x moves; rows from the top, missing ones are empty."""
    rows = [["·xo".index(c) for c in row] for row in text.split()]
    filled = np.array([[0] * 7] * (6 - len(rows)) + rows, np.int8)
    return np.where(filled == 2, -1, filled).astype(np.int8)[None]


def test_rules_are_those_of_a_slow_game() -> None:
    rng = np.random.default_rng(0)
    boards = empty(200)
    slow = np.zeros((200, 6, 7), int)
    mover = 1
    results: list[int] = []
    while len(boards):
        can = legal(boards)
        assert np.array_equal(can, (slow == 0).any(1))
        columns = random_columns(boards, rng)
        assert can[np.arange(len(boards)), columns].all()
        kept = boards.copy()
        after = play(boards, columns)
        assert np.array_equal(boards, kept)
        for i, c in enumerate(columns):
            row = max(r for r in range(6) if slow[i, r, c] == 0)
            slow[i, row, c] = mover
        mover = -mover
        assert np.array_equal(after, slow * mover)
        won = winner(after)
        assert won.tolist() == [naive_winner(b) * mover for b in slow]
        assert np.array_equal(winner(-after), -won)
        assert (won <= 0).all()  # only who moved last can have won
        filled = full(after)
        assert np.array_equal(filled, (slow != 0).all((1, 2)))
        over = (won != 0) | filled
        results += won[over].tolist()
        boards, slow = after[~over], slow[~over]
    assert len(results) == 200
    assert set(results) <= {0, -1}
    assert winner(boards).shape == full(boards).shape == (0,)
    assert after.dtype == np.int8


def test_all_lines_win() -> None:
    assert connect_four._LINES.shape == (42, 69)
    for line in connect_four._LINES.T:
        cells = line.reshape(1, 6, 7).astype(np.int8)
        assert winner(cells) == 1
        assert winner(-cells) == -1
        fewer = cells.copy()
        fewer[tuple(np.argwhere(cells)[0])] = -1
        assert winner(fewer) == 0


def test_planes_for_networks() -> None:
    seen = planes(board("x·o····"))
    assert seen.shape == (1, 2, 6, 7)
    assert seen[0, 0, 5].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert seen[0, 1, 5].tolist() == [0, 0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "text, depth, best",
    [
        ("xxx··oo", 1, {3}),  # wins
        ("ooo··xx", 2, {3}),  # prevents
        ("x······ x······ x·ooo·o", 1, {0}),  # winning comes first
        ("x······ x······ x·ooo·o", 3, {0}),
        ("··xx···", 3, {1, 4}),  # makes three with both ends open: two stones later it wins
    ],
)
def test_minimax_finds(text: str, depth: int, best: set[int]) -> None:
    rng = np.random.default_rng(0)
    many = np.repeat(board(text), 50, axis=0)
    assert set(minimax(many, rng, depth).tolist()) == best


def test_minimax_beats_chance() -> None:
    env = ConnectFour(100, seed=0)
    rng = np.random.default_rng(1)
    env.reset()
    score: list[float] = []
    for _ in range(12):
        step = env.step(minimax(env.boards, rng, 2))
        score += step.reward[step.terminated].tolist()
    assert len(score) > 80
    assert np.mean(score) > 0.9


def test_games_against_an_opponent() -> None:
    """Replayed with the rules: rewards, ends, who begins."""
    played: list[tuple[np.ndarray, np.ndarray]] = []

    def opponent(boards: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        columns = random_columns(boards, rng)
        played.append((boards.copy(), columns))
        return columns

    env = ConnectFour(300, opponent=opponent, seed=0)
    env.reset()
    begun = (env.boards != 0).sum((1, 2))
    assert set(begun.tolist()) == {0, 1}
    assert 100 < begun.sum() < 200
    rng = np.random.default_rng(2)
    rewards = []
    for _ in range(40):
        before = env.boards
        mask = env.action_mask()
        assert np.array_equal(mask, legal(before))
        columns = random_columns(before, rng)
        step = env.step(columns)
        after = play(before, columns)
        won = winner(after) == -1
        assert (step.reward[won] == 1).all()
        assert step.terminated[won].all()
        lost = step.reward == -1
        final = step.observation if step.final_observation is None else step.final_observation
        last = final[:, 0] - final[:, 1]
        assert (winner(last.astype(np.int8))[lost] == -1).all()
        assert (winner(last.astype(np.int8))[won] == 1).all()
        quiet = ~step.terminated
        assert (step.reward[quiet] == 0).all()
        assert np.array_equal(planes(env.boards), step.observation)
        drawn = step.terminated & (step.reward == 0)
        assert (last[drawn] != 0).all()
        rewards += step.reward[step.terminated].tolist()
    assert {1.0, -1.0} <= set(rewards)
    assert abs(np.mean(rewards)) < 0.15
    assert all((b.sum((1, 2)) <= 0).all() for b, _ in played)


def test_stones_in_full_columns_lose() -> None:
    env = ConnectFour(4, opponent=lambda boards, rng: legal(boards).argmax(1), seed=0)
    env.reset()
    for _ in range(3):
        env.step(np.zeros(4, int))
    rows = ~env.action_mask()[:, 0]
    before = env.boards
    step = env.step(np.where(rows, 0, 1))
    assert rows.any()
    assert (step.reward[rows] == -1).all()
    assert step.terminated[rows].all()
    assert step.final_observation is not None
    assert np.array_equal(step.final_observation[rows], planes(before)[rows])


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: play(empty(2), np.array([0])), ShapeError, "each of 2 boards"),
        (lambda: play(empty(1), np.array([0.0])), ShapeError, "float64"),
        (lambda: play(empty(1), np.array([7])), IndexRangeError, "0 to 6"),
        (lambda: play(empty(1), np.array([-1])), IndexRangeError, "0 to 6"),
        (
            lambda: play(board("x······ " * 6), np.array([0])),
            IndexRangeError,
            "board 0, column 0 is full",
        ),
        (lambda: minimax(empty(), np.random.default_rng(), 0), ConfigError, "depth"),
        (lambda: ConnectFour(opponent="deep"), ConfigError, "random, minimax"),
        (lambda: ConnectFour(opponent=3), ConfigError, "name or a function"),  # type: ignore
        (
            lambda: ConnectFour(9, opponent=lambda b, r: np.full(len(b), 9), seed=0).reset(),
            DataError,
            "opponent played",
        ),
        (
            lambda: ConnectFour(9, opponent=lambda b, r: np.zeros(2, int), seed=0).reset(),
            DataError,
            "opponent played",
        ),
    ],
)
def test_wrong_moves(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_minimax_as_opponent() -> None:
    env = make("ConnectFour-v0", 60, seed=0, options={"opponent": "minimax"})
    rng = np.random.default_rng(0)
    env.reset()
    score: list[float] = []
    for _ in range(15):
        mask = env.action_mask()
        assert mask is not None
        step = env.step((mask * rng.random(mask.shape)).argmax(1))
        score += step.reward[step.terminated].tolist()
    assert np.mean(score) < -0.9

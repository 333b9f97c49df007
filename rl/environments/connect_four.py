"""Connect Four: drop stones into columns; four in a line win.

The rules are functions over many boards at once, for searches and for play against oneself: a
board is (6, 7) int8 seen by the player to move, 1 for own stones, -1 for the other's, row 0 on
top. The environment is the game against an opponent that is part of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...core.errors import ConfigError, DataError, IndexRangeError, ShapeError
from ..spaces import Box, Discrete
from .base import ArrayEnv, count

ROWS, COLUMNS = 6, 7

# An opponent chooses columns for boards that it sees as the player to move.
Opponent = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _lines() -> np.ndarray:
    """The 69 ways to have four in a line as columns of a matrix over the 42 cells."""
    lines = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for row in range(ROWS):
            for column in range(COLUMNS):
                cells = [(row + i * down, column + i * right) for i in range(4)]
                if all(r < ROWS and 0 <= c < COLUMNS for r, c in cells):
                    line = np.zeros((ROWS, COLUMNS), np.float32)
                    line[tuple(zip(*cells, strict=True))] = 1
                    lines.append(line.ravel())
    return np.stack(lines, axis=1)


_LINES = _lines()


def empty(num: int = 1) -> np.ndarray:
    """Boards without stones, (num, 6, 7)."""
    return np.zeros((num, ROWS, COLUMNS), np.int8)


def legal(boards: np.ndarray) -> np.ndarray:
    """Which columns have room, (N, 7) bool."""
    room: np.ndarray = boards[:, 0] == 0
    return room


def play(boards: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The boards after a stone of the player to move, seen by the other player.

    Shape: boards (N, 6, 7), columns (N,)

    Raises:
        IndexRangeError: a column is full, or there is none of that number.
    """
    columns = np.asarray(columns)
    if columns.shape != boards.shape[:1] or columns.dtype.kind not in "iu":
        raise ShapeError(
            f"Connect Four: a column for each of {len(boards)} boards is wanted, as integers, not "
            f"{columns.dtype} of shape {columns.shape}.",
            expected=boards.shape[:1],
            got=columns.shape,
        )
    every = np.arange(len(boards))
    if len(columns) and (columns.min() < 0 or columns.max() >= COLUMNS):
        raise IndexRangeError("Connect Four: columns are numbered 0 to 6", columns=columns)
    row = (boards[every, :, columns] == 0).sum(1) - 1  # the lowest that is free
    if len(row) and row.min() < 0:
        where = int(row.argmin())
        raise IndexRangeError(
            f"Connect Four: on board {where}, column {columns[where]} is full. `legal(boards)` "
            "says which are not.",
            board=where,
        )
    after: np.ndarray = -boards
    after[every, row, columns] = -1
    return after


def winner(boards: np.ndarray) -> np.ndarray:
    """Who has four in a line: 1 the player to move, -1 the other, 0 nobody; (N,) int8."""
    counts = boards.reshape(len(boards), ROWS * COLUMNS).astype(np.float32) @ _LINES
    won = np.zeros(len(boards), np.int8)
    won[counts.max(axis=1) == 4] = 1
    won[counts.min(axis=1) == -4] = -1
    return won


def full(boards: np.ndarray) -> np.ndarray:
    """Which boards have no room left, (N,) bool."""
    filled: np.ndarray = (boards[:, 0] != 0).all(axis=1)
    return filled


def planes(boards: np.ndarray) -> np.ndarray:
    """Boards for a network: own stones, the other's stones; (N, 2, 6, 7) float32."""
    return np.stack([boards == 1, boards == -1], axis=1).astype(np.float32)


def random_columns(boards: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Any legal column."""
    return _best(legal(boards).astype(np.float32), rng)


def minimax(boards: np.ndarray, rng: np.random.Generator, depth: int = 3) -> np.ndarray:
    """The best column by looking `depth` stones ahead; equally good ones are drawn from.

    A win is the better the sooner it comes; what is beyond the depth counts as a draw.
    """
    return _best(_column_values(boards, count("minimax: depth", depth)), rng)


def _column_values(boards: np.ndarray, depth: int) -> np.ndarray:
    """What each column is worth to the player to move, (N, 7); -inf where there is no room."""
    values = np.full((len(boards), COLUMNS), -np.inf, np.float32)
    board, column = legal(boards).nonzero()
    after = play(boards[board], column)
    worth = np.zeros(len(after), np.float32)
    worth[winner(after) == -1] = depth  # the stone made four
    if depth > 1:
        going_on = ((worth == 0) & ~full(after)).nonzero()[0]
        if len(going_on):
            worth[going_on] = -_column_values(after[going_on], depth - 1).max(axis=1)
    values[board, column] = worth
    return values


def _best(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the columns of the highest value, drawn."""
    best = values == values.max(axis=1, keepdims=True)
    chosen: np.ndarray = (best * (rng.random(values.shape) + 1)).argmax(axis=1)
    return chosen


def _boards(state: np.ndarray) -> np.ndarray:
    """States, whose last axis counts them, as boards of their own."""
    return np.array(np.moveaxis(state, -1, 0), order="C")


OPPONENTS: dict[str, Opponent] = {"random": random_columns, "minimax": minimax}


class ConnectFour(ArrayEnv):
    """1 for a win, -1 for a loss, 0 for a draw. A stone in a full column loses.

    Who begins is drawn anew for each game.

    Args:
        num_envs: how many games.
        opponent: "random", "minimax" (three stones ahead), or a function that chooses columns for
            boards, seen by it as the player to move: `opponent(boards, rng)`.
        seed, max_episode_steps: see `ArrayEnv`.

    Shape: observations (N, 2, 6, 7) float32, own stones and the opponent's; actions (N,), columns.
    """

    id = "ConnectFour-v0"
    fps = 2
    trusted = True
    observation_space = Box(0, 1, (2, ROWS, COLUMNS))
    action_space = Discrete(COLUMNS)

    def __init__(
        self,
        num_envs: int = 1,
        *,
        opponent: str | Opponent = "random",
        seed: int | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        super().__init__(num_envs, seed=seed, max_episode_steps=max_episode_steps)
        if isinstance(opponent, str):
            if opponent not in OPPONENTS:
                raise ConfigError(
                    f"ConnectFour: there is no opponent {opponent!r}: {', '.join(OPPONENTS)}, or "
                    "a function of boards and a generator.",
                    opponent=opponent,
                )
            opponent = OPPONENTS[opponent]
        if not callable(opponent):
            raise ConfigError(f"ConnectFour: the opponent is a name or a function: {opponent!r}")
        self.opponent = opponent

    @property
    def boards(self) -> np.ndarray:
        """The boards as the agent sees them, (N, 6, 7) int8."""
        return _boards(self._current())

    def action_mask(self) -> np.ndarray:
        return legal(self.boards)

    def begin(self, num: int) -> np.ndarray:
        boards = empty(num)
        second = (self.rng.random(num) < 0.5).nonzero()[0]
        boards[second] = self._answer(boards[second])
        return np.moveaxis(boards, 0, -1)

    def advance(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        boards = _boards(state)
        reward = np.zeros(len(boards), np.float32)
        fits = boards[np.arange(len(boards)), 0, actions] == 0
        reward[~fits] = -1
        playing = fits.nonzero()[0]
        after = play(boards[playing], actions[playing])
        boards[playing] = -after  # seen by the agent again
        reward[playing[winner(after) == -1]] = 1
        terminated = (reward != 0) | full(boards)
        playing = (~terminated).nonzero()[0]
        answered = self._answer(-boards[playing])
        boards[playing] = answered
        lost = winner(answered) == -1
        reward[playing[lost]] = -1
        terminated[playing] = lost | full(answered)
        return np.moveaxis(boards, 0, -1), reward, terminated

    def _answer(self, boards: np.ndarray) -> np.ndarray:
        """Boards after the opponent's stones, seen by the agent."""
        if not len(boards):
            return boards
        columns = np.asarray(self.opponent(boards, self.rng))
        try:
            return play(boards, columns)
        except (ShapeError, IndexRangeError) as error:
            raise DataError(f"ConnectFour: the opponent played {columns}. {error}") from None

    def observe(self, state: np.ndarray) -> np.ndarray:
        return planes(np.moveaxis(state, -1, 0))

    def draw(self, state: np.ndarray) -> np.ndarray:
        from . import drawing as d

        canvas = d.Canvas((60 * COLUMNS, 60 * ROWS), scale=60, background=d.BLUE)
        colours = {0: d.PAPER, 1: d.YELLOW, -1: d.RED}
        for (row, column), stone in np.ndenumerate(state):
            canvas.circle((column + 0.5, ROWS - 0.5 - row), 0.4, colours[int(stone)])
        return canvas.pixels()

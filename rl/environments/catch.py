"""Catch: move a paddle under a falling ball; seen as pixels.

The game of Mnih et al. 2014, "Recurrent models of visual attention", with one ball an episode.
"""

from __future__ import annotations

import numpy as np

from ...core.errors import ConfigError
from ..spaces import Box, Discrete
from .base import ArrayEnv, count


class Catch(ArrayEnv):
    """1 for a ball that is caught, -1 for one that is not; an episode is one ball.

    The state is (row of the ball, its column, column of the paddle); the paddle begins in the
    middle of the lowest row, the ball anywhere in the topmost.

    Args:
        num_envs: how many copies.
        rows, columns: size of the field in cells.
        cell: pixels along the side of a cell.
        seed, max_episode_steps: see `ArrayEnv`.

    Shape: observations (N, 1, rows * cell, columns * cell) uint8, 0 or 255; actions (N,): 0 moves
    left, 1 stays, 2 moves right.
    """

    id = "Catch-v0"
    fps = 8
    trusted = True
    action_space = Discrete(3)

    def __init__(
        self,
        num_envs: int = 1,
        *,
        rows: int = 10,
        columns: int = 10,
        cell: int = 2,
        seed: int | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        super().__init__(num_envs, seed=seed, max_episode_steps=max_episode_steps)
        self.rows, self.columns = count("Catch: rows", rows), count("Catch: columns", columns)
        self.cell = count("Catch: cell", cell)
        if rows < 2:
            raise ConfigError("Catch: rows is at least 2: one for the ball, one for the paddle")
        self.observation_space = Box(0, 255, (1, rows * cell, columns * cell), np.uint8)

    def begin(self, num: int) -> np.ndarray:
        state = np.zeros((3, num), np.int64)
        state[1] = self.rng.integers(0, self.columns, num)
        state[2] = self.columns // 2
        return state

    def advance(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        new = state.copy()
        new[0] += 1
        new[2] = np.clip(state[2] + actions - 1, 0, self.columns - 1)
        landed = new[0] == self.rows - 1
        caught = np.where(new[1] == new[2], np.float32(1), np.float32(-1))
        return new, landed * caught, landed

    def observe(self, state: np.ndarray) -> np.ndarray:
        num = state.shape[1]
        cells = np.zeros((num, self.rows, self.columns), np.uint8)
        every = np.arange(num)
        cells[every, state[0], state[1]] = 255
        cells[every, -1, state[2]] = 255
        if self.cell > 1:
            cells = cells.repeat(self.cell, axis=1).repeat(self.cell, axis=2)
        return cells[:, None]

    def draw(self, state: np.ndarray) -> np.ndarray:
        from . import drawing as d

        side = max(1, 400 // max(self.rows, self.columns))
        size = (side * self.columns, side * self.rows)
        canvas = d.Canvas(size, scale=side, background=d.INK)
        row, column, paddle = (int(v) for v in state)
        canvas.rectangle((paddle + 0.02, 0.25), (paddle + 0.98, 0.65), d.BLUE, radius=0.15)
        canvas.circle((column + 0.5, self.rows - 0.5 - row), 0.36, d.YELLOW)
        return canvas.pixels()

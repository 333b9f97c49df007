"""GridWorld: find the goal on a map of walls and pits; small enough for tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...core.errors import ConfigError
from ..spaces import Discrete
from .base import ArrayEnv

# S start (one of them is drawn), G goal, X pit, # wall, . floor
LAYOUT = """
S..#....
...#.X..
...#....
.....#..
..X..#..
.....#.G
"""

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left


class GridWorld(ArrayEnv):
    """1 for the goal, -1 for a pit, which both end the episode, and -0.01 for each step.

    Args:
        num_envs: how many copies.
        layout: rows of equal length: `S` starts (one of them is drawn), `G` goals, `X` pits, `#`
            walls, `.` floor. Walls and the edge stop a move.
        slip: the probability that a move goes in a random direction.
        seed, max_episode_steps: see `ArrayEnv`.

    Shape: observations (N,) are numbers of cells, row by row; actions (N,): 0 up, 1 right,
    2 down, 3 left.
    """

    id = "GridWorld-v0"
    fps = 5
    max_episode_steps = 100
    trusted = True
    action_space = Discrete(4)

    def __init__(
        self,
        num_envs: int = 1,
        *,
        layout: str | Sequence[str] = LAYOUT,
        slip: float = 0.0,
        seed: int | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        super().__init__(num_envs, seed=seed, max_episode_steps=max_episode_steps)
        self.layout = _rows(layout)
        if not 0 <= slip <= 1:
            raise ConfigError(f"GridWorld: slip is a probability, not {slip!r}", slip=slip)
        self.slip = float(slip)
        cells = np.array([list(row) for row in self.layout])
        self.shape = cells.shape
        flat = cells.ravel()
        self.observation_space = Discrete(flat.size)
        self.starts = (flat == "S").nonzero()[0]
        self._reward = np.where(flat == "G", 1, np.where(flat == "X", -1, -0.01)).astype(np.float32)
        self._ends = (flat == "G") | (flat == "X")
        self.next = self._table(cells)

    def _table(self, cells: np.ndarray) -> np.ndarray:
        """Where each action leads from each cell, (cells, 4)."""
        height, width = cells.shape
        row, column = np.divmod(np.arange(height * width), width)
        table = np.empty((height * width, 4), np.int64)
        for action, (down, right) in enumerate(MOVES):
            r = np.clip(row + down, 0, height - 1)
            c = np.clip(column + right, 0, width - 1)
            free = cells[r, c] != "#"
            table[:, action] = np.where(free, r * width + c, row * width + column)
        return table

    def begin(self, num: int) -> np.ndarray:
        return self.rng.choice(self.starts, (1, num))

    def advance(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.slip:
            slips = self.rng.random(len(actions)) < self.slip
            actions = np.where(slips, self.rng.integers(0, 4, len(actions)), actions)
        cell = self.next[state[0], actions]
        return cell[None], self._reward[cell], self._ends[cell]

    def observe(self, state: np.ndarray) -> np.ndarray:
        return np.array(state[0])

    def draw(self, state: np.ndarray) -> np.ndarray:
        from . import drawing as d

        height, width = self.shape
        canvas = d.Canvas((48 * width, 48 * height), scale=48, background=d.GROUND)
        colours = {"#": d.INK, "G": d.GREEN, "X": d.RED}
        for r, row in enumerate(self.layout):
            for c, what in enumerate(row):
                y = height - 1 - r
                low, high = (c + 0.03, y + 0.03), (c + 0.97, y + 0.97)
                canvas.rectangle(low, high, colours.get(what, d.PAPER), radius=0.06)
        r, c = divmod(int(state[0]), width)
        canvas.circle((c + 0.5, height - 0.5 - r), 0.3, d.BLUE)
        return canvas.pixels()


def _rows(layout: str | Sequence[str]) -> tuple[str, ...]:
    rows = tuple(layout.split() if isinstance(layout, str) else layout)
    text = "\n".join(map(str, rows))
    if not rows or len({len(row) for row in rows}) != 1:
        raise ConfigError(f"GridWorld: a layout has rows of equal length, not\n{text}")
    unknown = set("".join(rows)) - set("SGX#.")
    if unknown:
        raise ConfigError(f"GridWorld: a layout is of S G X # . and not of {sorted(unknown)}")
    for letter, what in (("S", "start"), ("G", "goal")):
        if letter not in text:
            raise ConfigError(f"GridWorld: the layout has no {what} ({letter}):\n{text}")
    return rows

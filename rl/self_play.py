"""Games against oneself, many at once, and the positions that a network learns from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.errors import DataError
from .environments.base import count
from .tree_search import Game, TreeSearch


class SelfPlay:
    """Games that go on side by side; one that ends is followed by a new one.

    Args:
        game: the rules.
        start: makes the boards on which games begin.
        search: finds the actions.
        games: how many.
        explore: in the first moves of a game actions are drawn by their visits, later on the most
            visited is taken.
        longest: the moves that a game can have.
        rng: where random draws come from.
    """

    def __init__(
        self,
        game: Game,
        start: Any,
        search: TreeSearch,
        games: int,
        *,
        explore: int,
        longest: int,
        rng: np.random.Generator,
    ) -> None:
        self.game, self.start, self.search = game, start, search
        self.games = count("self-play: games", games)
        self.explore, self.rng = explore, rng
        self.boards = start(games)
        self.length = np.zeros(games, np.int64)
        self.actions = game.legal(self.boards).shape[1]
        self._boards = np.zeros((games, longest, *self.boards.shape[1:]), self.boards.dtype)
        self._policy = np.zeros((games, longest, self.actions), np.float32)
        self.lengths: list[int] = []  # of the games that ended in the last move

    def move(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One move in every game; the positions of games that ended by it.

        Returns:
            boards (M, ...), policies (M, A) that the search found, outcomes (M,) for the player to
            move: 1 won, -1 lost, 0 drawn.
        """
        found = self.search(self.boards, self.rng)
        policy = found.visits / found.visits.sum(axis=1, keepdims=True)
        every = np.arange(self.games)
        self._boards[every, self.length] = self.boards
        self._policy[every, self.length] = policy
        best = policy.argmax(axis=1)
        drawn = (policy.cumsum(axis=1) > self.rng.random((self.games, 1))).argmax(axis=1)
        action = np.where((self.length < self.explore) & (policy[every, drawn] > 0), drawn, best)
        self.boards = self.game.play(self.boards, action)
        self.length += 1
        won = self.game.winner(self.boards) != 0
        over = (won | self.game.full(self.boards)).nonzero()[0]
        boards, policies, outcomes = [], [], []
        for g in over.tolist():
            moves = int(self.length[g])
            boards.append(self._boards[g, :moves].copy())
            policies.append(self._policy[g, :moves].copy())
            # Who made the last move won, if anybody did.
            sign = 1 - 2 * ((moves - 1 - np.arange(moves)) % 2)
            outcomes.append((sign * bool(won[g])).astype(np.float32))
        self.lengths = self.length[over].tolist()
        self.boards[over] = self.start(len(over))
        self.length[over] = 0
        if not boards:
            return self._boards[0, :0], self._policy[0, :0], np.zeros(0, np.float32)
        return np.concatenate(boards), np.concatenate(policies), np.concatenate(outcomes)

    def state(self) -> dict[str, Any]:
        """Everything that the future depends on but the generator, as arrays."""
        return {
            "boards": self.boards.copy(),
            "length": self.length.copy(),
            "past_boards": self._boards.copy(),
            "past_policy": self._policy.copy(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where `state` was taken.

        Raises:
            DataError: it belongs to another game, or to another number of games.
        """
        mine = {
            "boards": self.boards,
            "length": self.length,
            "past_boards": self._boards,
            "past_policy": self._policy,
        }
        for name, array in mine.items():
            got = np.asarray(state[name]) if name in state else None
            if got is None or got.shape != array.shape:
                raise DataError(
                    f"self-play: the state's {name} are of shape "
                    f"{None if got is None else got.shape}; here it is {array.shape}."
                )
            array[...] = got


class Positions:
    """The newest positions of self-play, as many as fit."""

    def __init__(self, capacity: int, board: np.ndarray, actions: int) -> None:
        self.capacity = count("positions: capacity", capacity)
        self.boards = np.zeros((capacity, *board.shape), board.dtype)
        self.policy = np.zeros((capacity, actions), np.float32)
        self.outcome = np.zeros(capacity, np.float32)
        self.size = self.place = 0

    def add(self, boards: np.ndarray, policy: np.ndarray, outcome: np.ndarray) -> None:
        """Keep positions; the oldest give way."""
        where = (self.place + np.arange(len(boards))) % self.capacity
        self.boards[where], self.policy[where], self.outcome[where] = boards, policy, outcome
        self.place = (self.place + len(boards)) % self.capacity
        self.size = min(self.capacity, self.size + len(boards))

    def sample(
        self, size: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions drawn alike, with replacement."""
        index = rng.integers(0, self.size, size)
        return self.boards[index], self.policy[index], self.outcome[index]

    def state(self) -> dict[str, Any]:
        used = slice(0, self.size)
        return {
            "boards": self.boards[used].copy(),
            "policy": self.policy[used].copy(),
            "outcome": self.outcome[used].copy(),
            "place": self.place,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        size = len(state["boards"])
        if size > self.capacity or state["boards"].shape[1:] != self.boards.shape[1:]:
            raise DataError(
                f"positions: {state['boards'].shape} boards do not fit into {self.boards.shape}"
            )
        used = slice(0, size)
        self.boards[used], self.policy[used] = state["boards"], state["policy"]
        self.outcome[used] = state["outcome"]
        self.size, self.place = size, int(state["place"])

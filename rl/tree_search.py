"""Monte Carlo tree search over many boards at once, guided by a network.

Each board has a tree of its own, and all trees grow by one leaf at the same time: every array has
the boards first, so that choosing, playing and evaluating are a few steps in NumPy, and the network
sees all new leaves together.

Source: Silver et al. 2017, "Mastering the game of Go without human knowledge" (the search).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from ..core.errors import ConfigError, DataError, ShapeError
from .environments.base import count

# Boards (N, ...) seen by the player to move -> logits (N, A) and values (N,) from -1 to 1.
Evaluator = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Game(Protocol):
    """The rules of a game of two players, over many boards; `environments.connect_four` has them.

    Boards are always seen by the player to move.
    """

    def legal(self, boards: np.ndarray) -> np.ndarray:
        """Which actions are allowed, (N, A) bool."""

    def play(self, boards: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The boards after an action each, seen by the other player."""

    def winner(self, boards: np.ndarray) -> np.ndarray:
        """1 the player to move, -1 the other, 0 nobody; (N,)."""

    def full(self, boards: np.ndarray) -> np.ndarray:
        """Which boards nobody can play on, (N,) bool."""


class Searched(NamedTuple):
    """What a search found.

    Attributes:
        visits: (N, A) float32, how often each action was looked into: the improved policy.
        value: (N,) float32, the mean outcome of all looks, from -1 to 1 for the player to move.
        prior: (N, A) float32, the network's own probabilities, without noise.
    """

    visits: np.ndarray
    value: np.ndarray
    prior: np.ndarray


class TreeSearch:
    """The search.

    Args:
        game: the rules.
        evaluate: the network.
        simulations: leaves that each tree grows.
        exploration: weight of the prior against the values found.
        noise: how much of the prior at the root is noise, so that self-play tries everything.
        alpha: concentration of that noise; about 10 / the usual number of actions.
    """

    def __init__(
        self,
        game: Game,
        evaluate: Evaluator,
        *,
        simulations: int = 64,
        exploration: float = 1.5,
        noise: float = 0.0,
        alpha: float = 1.0,
    ) -> None:
        self.game, self.evaluate = game, evaluate
        self.simulations = count("tree search: simulations", simulations)
        if not exploration > 0 or not 0 <= noise <= 1 or not alpha > 0:
            raise ConfigError(
                "tree search: exploration and alpha are above 0 and noise is from 0 to 1, not "
                f"{exploration}, {alpha} and {noise}."
            )
        self.exploration, self.noise, self.alpha = exploration, noise, alpha

    def __call__(self, boards: np.ndarray, rng: np.random.Generator) -> Searched:
        """Search from boards on which somebody can still play.

        Raises:
            DataError: a game is over already, or the network gave NaN.
        """
        over = (self.game.winner(boards) != 0) | self.game.full(boards)
        if over.any():
            raise DataError(
                f"tree search: the game on board {int(over.argmax())} is over; nothing to search."
            )
        prior, _ = self._expand(boards)
        trees = _Trees(boards, prior, self.simulations)
        if self.noise:
            legal = prior > 0
            gamma = rng.standard_gamma(self.alpha, prior.shape) * legal
            drawn = gamma / np.maximum(gamma.sum(axis=1, keepdims=True), 1e-12)
            trees.prior[:, 0] = (1 - self.noise) * prior + self.noise * drawn
        for _ in range(self.simulations):
            self._grow(trees)
        visits = trees.visits[:, 0]
        value = trees.values[:, 0].sum(axis=1) / visits.sum(axis=1)
        return Searched(visits.copy(), value, prior)

    def _expand(self, boards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The network's probabilities of legal actions, and its values."""
        logits, value = self.evaluate(boards)
        if not (np.isfinite(logits).all() and np.isfinite(value).all()):
            raise DataError("tree search: the network gives NaN or infinity; has it diverged?")
        legal = self.game.legal(boards)
        if logits.shape != legal.shape or value.shape != (len(boards),):
            raise ShapeError(
                f"tree search: the network gave logits {logits.shape} and values {value.shape}; "
                f"wanted are {legal.shape} and {(len(boards),)}.",
                expected=legal.shape,
                got=logits.shape,
            )
        odds = np.exp(logits - logits.max(axis=1, keepdims=True)) * legal
        odds += 1e-8 * legal  # where the network gives all its weight to illegal ones
        return odds / odds.sum(axis=1, keepdims=True), value

    def _grow(self, trees: _Trees) -> None:
        """One more leaf for every tree."""
        going = np.arange(len(trees.size))
        node = np.zeros(len(going), np.int64)
        leaf = np.zeros(len(going), np.int64)
        depth = np.zeros(len(going), np.int64)
        path = []
        while len(going):
            action = self._choose(trees, going, node)
            path.append((going, node, action))
            depth[going] += 1
            following = trees.child[going, node, action]
            new = following < 0
            if new.any():
                following[new] = self._add(trees, going[new], node[new], action[new])
            leaf[going] = following
            on = ~new & np.isnan(trees.outcome[going, following])
            going, node = going[on], following[on]
        every = np.arange(len(leaf))
        outcome = trees.outcome[every, leaf]
        value = np.where(np.isnan(outcome), trees.estimate[every, leaf], outcome)
        for step, (which, node, action) in enumerate(path):
            # Good for who is to move at the leaf is bad for who moved there.
            sign = 1 - 2 * ((depth[which] - step) % 2)
            trees.visits[which, node, action] += 1
            trees.values[which, node, action] += sign * value[which]

    def _choose(self, trees: _Trees, which: np.ndarray, node: np.ndarray) -> np.ndarray:
        """The action of the greatest upper bound: mean value plus prior over visits (PUCT)."""
        visits, prior = trees.visits[which, node], trees.prior[which, node]
        total = visits.sum(axis=1, keepdims=True)
        values = trees.values[which, node]
        # What was never tried counts as being worth what the node is.
        mean = values.sum(axis=1, keepdims=True) / np.maximum(total, 1)
        score = np.where(visits > 0, values / np.maximum(visits, 1), mean)
        score += self.exploration * prior * np.sqrt(total + 1) / (1 + visits)
        score[prior == 0] = -np.inf
        chosen: np.ndarray = score.argmax(axis=1)
        return chosen

    def _add(
        self, trees: _Trees, which: np.ndarray, node: np.ndarray, action: np.ndarray
    ) -> np.ndarray:
        """Make the leaves that actions lead to, and evaluate them."""
        boards = self.game.play(trees.boards[which, node], action)
        made: np.ndarray = trees.size[which]
        trees.size[which] += 1
        trees.child[which, node, action] = made
        trees.boards[which, made] = boards
        won = self.game.winner(boards).astype(np.float32)
        over = (won != 0) | self.game.full(boards)
        trees.outcome[which, made] = np.where(over, won, np.float32(np.nan))
        on = ~over
        if on.any():
            prior, value = self._expand(boards[on])
            trees.prior[which[on], made[on]] = prior
            trees.estimate[which[on], made[on]] = value
        return made


class _Trees:
    """N trees as arrays: boards first, then nodes, then actions. Node 0 is the root."""

    def __init__(self, boards: np.ndarray, prior: np.ndarray, leaves: int) -> None:
        num, actions = prior.shape
        nodes = leaves + 1
        self.size = np.ones(num, np.int64)
        self.boards = np.zeros((num, nodes, *boards.shape[1:]), boards.dtype)
        self.boards[:, 0] = boards
        self.prior = np.zeros((num, nodes, actions), np.float32)
        self.prior[:, 0] = prior
        self.visits = np.zeros((num, nodes, actions), np.float32)
        self.values = np.zeros((num, nodes, actions), np.float32)  # sums, for who is to move
        self.child = np.full((num, nodes, actions), -1, np.int64)
        self.estimate = np.zeros((num, nodes), np.float32)
        self.outcome = np.full((num, nodes), np.nan, np.float32)  # NaN: the game goes on

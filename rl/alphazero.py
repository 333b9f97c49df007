"""AlphaZero: learns a game of two players by playing it against itself.

Silver et al. 2018, "A general reinforcement learning algorithm that masters chess, shogi, and Go
through self-play", at the size of Connect Four. A tree search, guided by the network, finds better
moves than the network alone; the network learns to give what the search found, p (the shares of
visits), and how the game ended, z (1 won, -1 lost, for the player to move):

    loss = -sum_a p_a log softmax(logits)_a + (z - v)^2

The loop plays one move in all games at once, remembers the games that ended, and learns from
positions drawn from the newest; each is mirrored half of the time, as the game is symmetric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import nn, optim
from ..core.autograd import backward
from ..core.errors import ConfigError, DataError
from ..core.nn import functional as F
from ..core.nn.module import Module
from ..core.ops.trigonometry import tanh
from ..core.state import inference_mode
from ..core.tensor import Tensor
from .c51 import softmax
from .diverging import check_update
from .environments import connect_four
from .environments.base import count
from .learner import Learner
from .self_play import Positions, SelfPlay
from .tree_search import TreeSearch


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters of AlphaZero, for a few minutes on one processor.

    Attributes:
        simulations: leaves that a search grows for a move of self-play (Silver et al. 2018: 800).
        play_simulations: leaves for a move of `act`.
        exploration: weight of the network's prior in the search.
        noise, noise_alpha: share and concentration of the noise at the root (Silver et al. 2018: a
            quarter; 10 / the usual number of moves).
        explore_moves: moves at the beginning of a game that are drawn by visits, not the best.
        channels, blocks: size of the network.
        learning_rate, weight_decay: of AdamW.
        batch_size: positions in an update.
        reuse: how often a position is learned from, on average.
        buffer_size: newest positions that are kept.
        learning_starts: positions before learning begins.
    """

    simulations: int = 48
    play_simulations: int = 64
    exploration: float = 1.5
    noise: float = 0.25
    noise_alpha: float = 1.0
    explore_moves: int = 12
    channels: int = 32
    blocks: int = 3
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    batch_size: int = 256
    reuse: float = 4.0
    buffer_size: int = 60_000
    learning_starts: int = 2000

    def __post_init__(self) -> None:
        names = "simulations play_simulations channels blocks batch_size buffer_size"
        for name in names.split():
            count(name, getattr(self, name))
        if not (self.learning_rate > 0 and self.weight_decay >= 0 and self.reuse > 0):
            raise ConfigError(
                "AlphaZero: learning_rate and reuse are above 0 and weight_decay at least 0; got "
                f"{self.learning_rate!r}, {self.reuse!r} and {self.weight_decay!r}"
            )
        if self.explore_moves < 0 or self.learning_starts < 1:
            raise ConfigError("AlphaZero: explore_moves is at least 0, learning_starts at least 1")


class Network(nn.Module):
    """Convolutions over the board, then a logit for every column, and the value of the position.

    Shape: (B, 2, H, W) -> (B, actions), (B,)
    """

    def __init__(self, shape: tuple[int, ...], actions: int, channels: int, blocks: int) -> None:
        planes, height, width = shape
        self.first = nn.Conv2d(planes, channels, 3, padding=1)
        self.blocks = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(blocks)]
        self.head = nn.Conv2d(channels, 8, 1)
        self.policy = nn.Linear(8 * height * width, actions)
        self.hidden = nn.Linear(8 * height * width, 32)
        self.value = nn.Linear(32, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.first(x))
        for block in self.blocks:
            x = x + F.relu(block(x))
        x = F.relu(self.head(x))
        x = x.reshape(x.shape[0], -1)
        value = tanh(self.value(F.relu(self.hidden(x))))
        return self.policy(x), value.reshape(-1)


class AlphaZero(Learner):
    """Self-play with tree search, for Connect Four.

    `num_envs` is the number of games that go on at once, `steps` counts positions. `act` searches
    with `play_simulations` leaves, without noise, and takes the most visited move.
    """

    Settings: ClassVar[type[Any]] = Settings
    actions = "discrete"
    settings: Any

    def __init__(
        self, env: Any = "ConnectFour-v0", policy: Any = "mlp", *, num_envs: int = 128, **rest: Any
    ) -> None:
        super().__init__(env, policy, num_envs=num_envs, **rest)

    def build(self) -> None:
        s = self.settings
        if not isinstance(self.env, connect_four.ConnectFour):
            raise ConfigError(
                f"AlphaZero plays Connect Four, whose rules it needs for its search, and not "
                f"{self.env.id}.\nAlphaZero('ConnectFour-v0')",
                got=self.env.id,
            )
        shape, columns = self.observation_space.shape, self.action_space.features
        self.network = Network(shape, columns, s.channels, s.blocks)
        self.optimizer = optim.AdamW(
            self.network.parameters(), s.learning_rate, weight_decay=s.weight_decay
        )
        common = {"exploration": s.exploration, "alpha": s.noise_alpha}
        self.search = TreeSearch(connect_four, self.judge, simulations=s.play_simulations, **common)
        learning = TreeSearch(
            connect_four, self.judge, simulations=s.simulations, noise=s.noise, **common
        )
        self.games = SelfPlay(
            connect_four,
            connect_four.empty,
            learning,
            self.env.num_envs,
            explore=s.explore_moves,
            longest=connect_four.ROWS * connect_four.COLUMNS,
            rng=self.rng,
        )
        self.positions = Positions(s.buffer_size, connect_four.empty(1)[0], columns)
        self.updates = 0

    def modules(self) -> dict[str, Module]:
        return {"network": self.network}

    def optimizers(self) -> dict[str, optim.Optimizer]:
        return {"optimizer": self.optimizer}

    def judge(self, boards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits and values of boards by the network alone, (B, 7) and (B,)."""
        with inference_mode():
            logits, value = self.network(Tensor(connect_four.planes(boards)))
        return logits.array, value.array

    def choose(self, observations: np.ndarray, deterministic: bool) -> np.ndarray:
        boards = (observations[:, 0] - observations[:, 1]).astype(np.int8)
        both = (observations[:, 0] != 0) & (observations[:, 1] != 0)
        if both.any() or (np.abs(observations).max(initial=0) > 1):
            raise DataError("AlphaZero: the observation is no board: a cell is taken twice.")
        visits = self.search(boards, self.rng).visits
        if deterministic:
            best: np.ndarray = visits.argmax(axis=1)
            return best
        share = visits.cumsum(axis=1) / visits.sum(axis=1, keepdims=True)
        drawn: np.ndarray = (share > self.rng.random((len(boards), 1))).argmax(axis=1)
        return drawn

    def advance(self) -> dict[str, float]:
        """One move in every game, then updates."""
        s = self.settings
        boards, policy, outcome = self.games.move()
        self.positions.add(boards, policy, outcome)
        self.steps += len(boards)
        self.lengths = (self.lengths + self.games.lengths)[-100:]
        figures: dict[str, float] = {}
        if self.positions.size >= s.learning_starts:
            while self.updates * s.batch_size < s.reuse * self.steps:
                figures = self.update()
                self.updates += 1
        return figures

    def update(self) -> dict[str, float]:
        """Learn from a batch of positions."""
        boards, policy, outcome = self.positions.sample(self.settings.batch_size, self.rng)
        mirrored = self.rng.random(len(boards)) < 0.5
        boards = np.where(mirrored[:, None, None], boards[:, :, ::-1], boards)
        policy = np.where(mirrored[:, None], policy[:, ::-1], policy)
        x = connect_four.planes(boards)
        logits, value = self.network(Tensor(x))
        got = softmax(logits.array)
        error = value.array - outcome
        share = np.float32(1 / len(boards))
        self.optimizer.zero_grad()
        # Both losses are means: softmax - p for the logits, 2 (v - z) for the value.
        gradients = (got - policy) * share, 2 * error * share
        backward([logits, value], [Tensor(g) for g in gradients])
        check_update(
            sum(float(np.vdot(g, g)) for g in gradients),
            self.network,
            self.optimizer,
            x,
            *gradients,
            step=self.steps,
            whose=self.name,
        )
        self.optimizer.step()
        return {
            "policy_loss": -float((policy * np.log(got + 1e-8)).sum(axis=1).mean()),
            "value_loss": float((error * error).mean()),
        }

    def extra_state(self) -> dict[str, Any]:
        return {
            "games": self.games.state(),
            "positions": self.positions.state(),
            "updates": self.updates,
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.games.load_state(state["games"])
        self.positions.load_state(state["positions"])
        self.updates = int(state["updates"])


def match(
    agent: AlphaZero, opponent: connect_four.Opponent, games: int, seed: int = 0
) -> tuple[float, float]:
    """The shares of games that the agent wins and loses; each side begins half of them.

    Args:
        agent: plays its best moves.
        opponent: `connect_four.minimax`, `connect_four.random_columns`, or another such function.
        games: how many, all at once.
        seed: of the opponent's draws.
    """
    rng = np.random.default_rng(seed)
    boards = connect_four.empty(count("match: games", games))
    result = np.zeros(games)
    on, turn = np.arange(games), np.arange(games) % 2 == 0  # whether the agent moves
    while len(on):
        seen, mine = boards[on], turn[on]
        columns = np.empty(len(on), np.int64)
        if mine.any():
            columns[mine] = agent.act(connect_four.planes(seen[mine]))
        if not mine.all():
            columns[~mine] = opponent(seen[~mine], rng)
        boards[on] = after = connect_four.play(seen, columns)
        won = connect_four.winner(after) != 0
        result[on[won]] = np.where(mine[won], 1, -1)
        turn[on] = ~mine
        on = on[~(won | connect_four.full(after))]
    return float((result > 0).mean()), float((result < 0).mean())

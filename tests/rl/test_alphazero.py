"""The search against play that is known to be best, self-play, and learning from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bestiary.core.errors import ConfigError, DataError, ShapeError
from bestiary.rl.alphazero import AlphaZero, match
from bestiary.rl.environments import connect_four as game
from bestiary.rl.self_play import Positions, SelfPlay
from bestiary.rl.tree_search import TreeSearch

SMALL: dict[str, Any] = {
    "num_envs": 16,
    "simulations": 8,
    "play_simulations": 16,
    "channels": 8,
    "blocks": 1,
    "batch_size": 32,
    "learning_starts": 64,
    "buffer_size": 500,
}


def uniform(boards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A network that knows nothing."""
    return np.zeros((len(boards), 7), np.float32), np.zeros(len(boards), np.float32)


def after(*columns: int) -> np.ndarray:
    board = game.empty(1)
    for column in columns:
        board = game.play(board, np.array([column]))
    return board


def test_finds_wins_and_stops_losses() -> None:
    boards = np.concatenate(
        [
            after(0, 1, 0, 1, 0, 1),  # the player to move wins in column 0
            after(0, 1, 0, 1, 0),  # and has to stop that here
            after(3, 6, 3, 6, 4, 6),  # six stones to stop: columns 6
        ]
    )
    search = TreeSearch(game, uniform, simulations=150)
    found = search(boards, np.random.default_rng(0))
    assert found.visits.argmax(axis=1).tolist() == [0, 0, 6]
    assert found.visits.sum(axis=1).tolist() == [150] * 3
    assert found.value[0] > 0.8
    np.testing.assert_allclose(found.prior, 1 / 7, rtol=1e-5)


def test_each_tree_is_its_own() -> None:
    """Boards searched together give what each gives alone."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((42, 8)).astype(np.float32) * 0.5

    def network(boards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        out = (boards.reshape(len(boards), 42, 1) * weights).sum(axis=1)
        return out[:, :7], np.tanh(out[:, 7])

    boards = np.concatenate([after(3, 3, 2), after(), after(0, 0, 0, 0, 0, 0, 1)])
    search = TreeSearch(game, network, simulations=60)
    together = search(boards, rng)
    for i in range(3):
        alone = search(boards[i : i + 1], rng)
        np.testing.assert_array_equal(together.visits[i], alone.visits[0])
    assert together.visits[2, 0] == 0  # that column is full


def test_values_are_the_mean_of_what_was_found() -> None:
    """One simulation deep: the values of the moves, seen by the other player."""

    def network(boards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        stones = (boards != 0).sum(axis=(1, 2))
        return np.zeros((len(boards), 7), np.float32), (stones / 10).astype(np.float32)

    found = TreeSearch(game, network, simulations=7, exploration=100)(
        game.empty(2), np.random.default_rng(0)
    )
    assert found.visits.tolist() == [[1] * 7] * 2  # each move once
    np.testing.assert_allclose(found.value, -0.1, rtol=1e-5)


def test_noise_tries_more() -> None:
    def sure(boards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, value = uniform(boards)
        logits[:, 2] = 12
        return logits, value

    rng = np.random.default_rng(0)
    quiet = TreeSearch(game, sure, simulations=30)(game.empty(8), rng)
    loud = TreeSearch(game, sure, simulations=30, noise=0.5)(game.empty(8), rng)
    assert (quiet.visits[:, 2] == 30).all()
    assert (loud.visits[:, 2] < 30).all()
    np.testing.assert_allclose(loud.prior, quiet.prior)


def test_self_play_tells_how_games_ended() -> None:
    rng = np.random.default_rng(0)
    search = TreeSearch(game, uniform, simulations=4, noise=0.5)
    play = SelfPlay(game, game.empty, search, 8, explore=4, longest=42, rng=rng)
    ended = 0
    for _ in range(60):
        boards, policy, outcome = play.move()
        np.testing.assert_allclose(policy.sum(axis=1), 1, rtol=1e-5)
        start = 0
        for length in play.lengths:
            own = slice(start, start + length)
            start += length
            last = boards[own][-1:]
            columns = game.legal(last)[0].nonzero()[0]
            wins = [c for c in columns if game.winner(game.play(last, np.array([c])))[0] == -1]
            if outcome[own][-1] == 1:
                assert wins  # the last position could be won, and was
            if length > 1:
                np.testing.assert_array_equal(outcome[own][1:], -outcome[own][:-1])
            assert (boards[own][0] == 0).all()
            assert [(b != 0).sum() for b in boards[own]] == list(range(length))
            ended += 1
        assert start == len(boards)
    assert ended > 10


def test_positions_forget_the_oldest() -> None:
    kept = Positions(5, game.empty(1)[0], 7)
    for value in range(4):
        kept.add(np.full((2, 6, 7), value, np.int8), np.zeros((2, 7)), np.full(2, value))
    assert sorted(kept.outcome.tolist()) == [1, 2, 2, 3, 3]
    boards, _, outcome = kept.sample(50, np.random.default_rng(0))
    assert (boards[:, 0, 0] == outcome).all() and set(outcome) == {1, 2, 3}
    other = Positions(5, game.empty(1)[0], 7)
    other.load_state(kept.state())
    assert (other.outcome == kept.outcome).all() and other.place == kept.place
    with pytest.raises(DataError, match="do not fit"):
        Positions(4, game.empty(1)[0], 7).load_state(kept.state())


def test_learns_repeats_itself_and_resumes_exactly(tmp_path: Path) -> None:
    whole = AlphaZero(seed=1, **SMALL).learn(700, progress=False)
    again = AlphaZero(seed=1, **SMALL)
    again.learn(700, lambda agent: agent.steps < 300, progress=False, out=tmp_path)
    assert 300 <= again.steps < 700
    resumed = AlphaZero(seed=5, **SMALL).learn(700, progress=False, resume=tmp_path)
    for key, value in whole.network.state_dict().items():
        np.testing.assert_array_equal(value.array, resumed.network.state_dict()[key].array)
    assert whole.updates == resumed.updates > 10
    board = game.planes(after(3, 3, 2))[0]
    whole.save(tmp_path / "agent")
    loaded = AlphaZero.load(tmp_path / "agent")
    assert loaded.act(board) == whole.act(board)
    assert loaded.act(game.planes(after(0, 1, 0, 1, 0, 1))[0]) == 0  # wins at once


def test_the_loss_falls() -> None:
    agent = AlphaZero(seed=0, **{**SMALL, "learning_rate": 3e-3}).learn(400, progress=False)
    boards, policy, outcome = agent.positions.sample(64, np.random.default_rng(0))
    agent.positions.boards[:64], agent.positions.policy[:64] = boards, policy
    agent.positions.outcome[:64], agent.positions.size = outcome, 64
    first = agent.update()
    for _ in range(60):
        last = agent.update()
    assert last["value_loss"] < 0.7 * first["value_loss"]
    assert last["policy_loss"] < first["policy_loss"]


def test_a_match_counts_wins() -> None:
    agent = AlphaZero(seed=0, **SMALL)
    won, lost = match(agent, lambda boards, rng: game.legal(boards).argmax(axis=1), 10)
    assert won + lost <= 1
    assert won > 0.7  # against one that fills columns from the left

    def ten(boards: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return game.minimax(boards, rng, 4)

    agent.search.simulations = 1
    assert match(agent, ten, 10)[1] > 0.7


def test_wrong_input() -> None:
    with pytest.raises(ConfigError, match=r"AlphaZero plays Connect Four.*CartPole"):
        AlphaZero("CartPole-v1")
    for name in ("simulations", "channels", "batch_size", "reuse", "learning_rate"):
        with pytest.raises(ConfigError, match=name):
            AlphaZero(**{name: 0})
    agent = AlphaZero(**SMALL)
    with pytest.raises(DataError, match="taken twice"):
        agent.act(np.ones((2, 6, 7)))
    with pytest.raises(ShapeError, match=r"\(2, 6, 7\)"):
        agent.act(np.ones((6, 7)))
    over = after(0, 1, 0, 1, 0, 1, 0)
    with pytest.raises(DataError, match="board 0 is over"):
        agent.act(game.planes(over))
    rng = np.random.default_rng(0)

    def broken(boards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full((len(boards), 7), np.nan), np.zeros(len(boards))

    with pytest.raises(DataError, match="NaN"):
        TreeSearch(game, broken)(game.empty(1), rng)
    with pytest.raises(ShapeError, match=r"\(1, 7\)"):
        TreeSearch(game, lambda b: (np.zeros((len(b), 6)), np.zeros(len(b))))(game.empty(1), rng)
    with pytest.raises(ConfigError, match="noise"):
        TreeSearch(game, uniform, noise=2)

"""PPO with a memory: on what only a memory solves, and its parts by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bestiary.core.errors import ConfigError, ShapeError
from bestiary.core.tensor import Tensor
from bestiary.rl import PPO, Box, Discrete, RecurrentPPO, evaluate, load_agent, record
from bestiary.rl.environments.base import ArrayEnv
from bestiary.rl.environments.cartpole import CartPole
from bestiary.rl.environments.catch import Catch
from bestiary.rl.episodes import record_episodes
from bestiary.rl.recurrent_ppo import Sequences, sequences_of


class Delayed(ArrayEnv):
    """Ten steps in which the reward is 1 for naming the class that was seen two steps ago."""

    id = "Delayed"
    max_episode_steps = 10
    action_space: Any = Discrete(3)
    observation_space = Discrete(3)

    def begin(self, num: int) -> np.ndarray:
        state = np.full((3, num), -1)  # what is seen now, and one and two steps ago
        state[0] = self.rng.integers(0, 3, num)
        return state

    def advance(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        reward = (actions == state[2]).astype(np.float32)
        new = np.concatenate([self.rng.integers(0, 3, (1, len(actions))), state[:2]])
        return new, reward, np.zeros(len(actions), np.bool_)

    def observe(self, state: np.ndarray) -> np.ndarray:
        return np.array(state[0])


class Blind(CartPole):
    """CartPole whose velocities are not seen."""

    id = "Blind"
    _seen = np.array([4.8, 0.42], np.float32)
    observation_space = Box(-_seen, _seen)

    def observe(self, state: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(state[::2].T, np.float32)


class Vanishing(Catch):
    """Catch in pictures that show the ball only at the top: where it falls must be remembered."""

    id = "Vanishing"

    def __init__(self, num_envs: int = 1, *, rows: int = 6, **rest: Any) -> None:
        super().__init__(num_envs, rows=rows, columns=5, **rest)

    def observe(self, state: np.ndarray) -> np.ndarray:
        shown = super().observe(state)
        shown[state[0] > 0, :, : -self.cell] = 0
        return shown


SMALL: dict[str, Any] = {"hidden": (16,), "memory": 16, "num_envs": 8, "n_steps": 32}
FAST: dict[str, Any] = {"gamma": 0.3, "learning_rate": 1e-2, "n_epochs": 4, "batch_size": 128}


def test_only_a_memory_knows_what_was_seen() -> None:
    agent = RecurrentPPO(Delayed, seed=1, **SMALL, **FAST).learn(16_000, progress=False)
    assert evaluate(agent, Delayed, 50).mean > 7.5  # of 8 that can be known
    plain = PPO(Delayed, seed=1, hidden=(16,), num_envs=8, n_steps=32, **FAST)
    plain.learn(16_000, progress=False)
    assert evaluate(plain, Delayed, 50).mean < 4  # a third of 8 by guessing
    data = record_episodes(agent, Delayed, 20)
    assert data.returns.mean() > 7.3


def test_pictures_are_remembered() -> None:
    settings: dict[str, Any] = {
        "num_envs": 16, "n_steps": 20, "batch_size": 160, "n_epochs": 4, "learning_rate": 3e-3,
        "hidden": (32,), "gamma": 0.9,
        "ent_coef": 0.2,  # twelve seeds of twelve learn it; with a tenth of that, four of six
    }  # fmt: skip
    agent = RecurrentPPO(Vanishing, seed=0, memory=32, **settings).learn(48_000, progress=False)
    assert evaluate(agent, Vanishing, 100, progress=False).mean > 0.9
    plain = PPO(Vanishing, seed=0, **settings).learn(48_000, progress=False)
    assert evaluate(plain, Vanishing, 100, progress=False).mean < 0.5


def test_sequences_end_where_episodes_do() -> None:
    ended = np.zeros((5, 3), bool)
    ended[1, 0] = ended[4, 1] = ended[0, 2] = ended[1, 2] = True
    assert sequences_of(ended) == [
        (0, 0, 2), (0, 2, 5), (1, 0, 5), (2, 0, 1), (2, 1, 2), (2, 2, 5)
    ]  # fmt: skip


@pytest.mark.parametrize("env", [Delayed, "Pendulum-v1", Vanishing])
def test_learning_sees_what_acting_saw(env: Any) -> None:
    """Before the first update, probabilities and values of sequences are those of acting."""
    agent = RecurrentPPO(env, seed=0, **SMALL)
    agent._gather()  # so that the second one begins in the middle of episodes
    rollout = agent._gather()
    rows = []
    for chosen, x in agent.batches(rollout):
        out, values = agent.forward(x)
        np.testing.assert_allclose(values.array, rollout.values[chosen], atol=1e-5)
        old = agent.distribution.log_prob(out.array, agent.free, rollout.actions[chosen])
        np.testing.assert_allclose(old, rollout.log_probs[chosen], atol=1e-5)
        rows.append(chosen)
    assert sorted(np.concatenate(rows)) == list(range(8 * 32))
    assert len(rows) > 1


def test_gradients_run_through_the_sequence() -> None:
    agent = RecurrentPPO("Pendulum-v1", seed=0, **SMALL)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 2, 3)).astype(np.float32)
    mask = np.ones((6, 2), bool)
    mask[4:, 1] = False
    memory = agent.no_memory(2)
    outs = []
    for change in (0.0, 1.0):
        moved = x.copy()
        moved[0] += change
        moved[4:, 1] += 7  # masked: must not matter
        outs.append(agent.network(Sequences(moved, mask, memory))[1].array)
    assert outs[0].shape == (10,) and abs(outs[1][5] - outs[0][5]) > 1e-6
    same = x.copy()
    again = agent.network(Sequences(same, mask, memory))[1].array
    np.testing.assert_array_equal(again, outs[0])
    values = agent.network(Sequences(x, mask, memory))[1]
    last: Tensor = values[5]
    last.backward()
    gradient = agent.network.lstm.weight_hh.grad
    assert gradient is not None and np.abs(gradient.array).max() > 0


def test_acting_remembers_and_forgets() -> None:
    agent = RecurrentPPO("CartPole-v1", seed=0, **SMALL)
    seen = agent.env.reset(3)
    one, memory = agent.predict(seen, deterministic=True)
    assert one.shape == (8,) and memory[0].shape == (8, 16) and np.abs(memory[0]).max() > 0
    _, later = agent.predict(seen, memory)
    _, anew = agent.predict(seen, memory, np.arange(8) < 4)
    np.testing.assert_array_equal(anew[0][:4], memory[0][:4])
    np.testing.assert_array_equal(anew[0][4:], later[0][4:])
    np.testing.assert_array_equal(agent.act(seen), one)
    single, kept = agent.predict(seen[0], deterministic=True)
    assert single == one[0] and kept[0].shape == (1, 16)
    with pytest.raises(ShapeError, match="state of 8 environments"):
        agent.predict(seen, kept)
    with pytest.raises(ShapeError, match="episode_start has 3"):
        agent.predict(seen, memory, [True] * 3)


def test_saving_and_resuming(tmp_path: Path) -> None:
    settings = {**SMALL, "num_envs": 2, "n_epochs": 2}

    def agent() -> RecurrentPPO:
        return RecurrentPPO("CartPole-v1", seed=3, **settings)

    whole = agent().learn(512, progress=False)
    agent().learn(512, lambda a: a.steps < 256, progress=False, out=tmp_path)
    resumed = agent().learn(512, progress=False, resume=tmp_path)
    for name, value in whole.network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), resumed.network.state_dict()[name].numpy())
    again = load_agent(whole.save(tmp_path / "saved"))
    assert isinstance(again, RecurrentPPO) and again.settings.memory == 16
    assert evaluate(again, episodes=4).returns == evaluate(whole, episodes=4).returns
    assert record(again, tmp_path / "run.gif").lengths[0] > 1


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match=r"pictures of shape .* too small"):
        RecurrentPPO(lambda: Vanishing(rows=2))
    with pytest.raises(ConfigError, match="memory is a whole number"):
        RecurrentPPO("CartPole-v1", memory=0)
    with pytest.raises(ConfigError, match="Near: memory"):
        RecurrentPPO("CartPole-v1", memry=8)


@pytest.mark.slow
def test_cart_pole_without_velocities() -> None:
    settings: dict[str, Any] = {"num_envs": 8, "n_steps": 128, "learning_rate": 1e-3, "gamma": 0.98}
    agent = RecurrentPPO(Blind, seed=0, **settings).learn(150_000, progress=False)
    plain = PPO(Blind, seed=0, batch_size=128, **settings).learn(150_000, progress=False)
    assert evaluate(agent, Blind, 20).mean > 300 > evaluate(plain, Blind, 20).mean

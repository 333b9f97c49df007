"""Recorded episodes, and what is learned from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bestiary.core.errors import ConfigError, DataError
from bestiary.rl.behaviour_cloning import BehaviourCloning
from bestiary.rl.decision_transformer import DecisionTransformer
from bestiary.rl.environments.base import ArrayEnv
from bestiary.rl.episodes import Episodes, record_episodes
from bestiary.rl.spaces import Box, Discrete


class Echo(ArrayEnv):
    """Six steps in which the reward is 1 for naming the class that is seen."""

    id = "Echo"
    max_episode_steps = 6
    action_space = Discrete(3, start=2)
    observation_space = Discrete(3)

    def begin(self, num: int) -> np.ndarray:
        return self.rng.integers(0, 3, (1, num))

    def advance(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        reward = (actions - 2 == state[0]).astype(np.float32)
        return self.begin(len(actions)), reward, np.zeros(len(actions), np.bool_)

    def observe(self, state: np.ndarray) -> np.ndarray:
        return np.array(state[0])


class EchoBox(Echo):
    """Six steps in which the cost is the distance from half of what is seen."""

    id = "EchoBox"
    action_space = Box(-2, 2, (1,))
    observation_space = Box(-1, 1, (2,))

    def begin(self, num: int) -> np.ndarray:
        return self.rng.uniform(-1, 1, (2, num)).astype(np.float32)

    def advance(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        cost = np.abs(actions[:, 0] - state[0]).astype(np.float32)
        return self.begin(len(actions)), -cost, np.zeros(len(actions), np.bool_)

    def observe(self, state: np.ndarray) -> np.ndarray:
        return np.array(state.T)


class Expert:
    def act(self, observation: Any, deterministic: bool = True) -> Any:
        array = np.asarray(observation)
        return array + 2 if array.ndim == 1 else array[:, :1]


class Fool:
    """Names the next class, always: what is learned depends on whom one follows."""

    def act(self, observation: Any, deterministic: bool = True) -> Any:
        return (np.asarray(observation) + 1) % 3 + 2


TINY: dict[str, Any] = {"context": 3, "width": 16, "layers": 1, "batch_size": 32, "longest": 10}
TINY |= {"learning_rate": 5e-3, "warmup": 20}


def test_records_whole_episodes(tmp_path: Path) -> None:
    data = record_episodes(Expert(), Echo, 7, num_envs=3, seed=1)
    assert len(data) == 7 and data.lengths.tolist() == [6] * 7
    assert not data.terminated.any()
    assert (data.actions - 2 == data.observations).all() and (data.rewards == 1).all()
    assert data.returns.tolist() == [6] * 7
    assert data.returns_to_go()[:8].tolist() == [6, 5, 4, 3, 2, 1, 6, 5]
    assert data.starts.tolist() == [0, 6, 12, 18, 24, 30, 36]
    half = record_episodes(Expert(), Echo, 100, random=0.6, seed=1)
    assert half.returns.mean() == pytest.approx(6 * (0.4 + 0.6 / 3), abs=0.5)
    assert record_episodes(None, Echo, 100).returns.mean() == pytest.approx(2, abs=0.5)
    pole = record_episodes(None, "CartPole-v1", 5)
    assert pole.terminated.all() and (pole.returns == pole.lengths).all()
    for name in ("a.npz", "a.safetensors"):
        data.save(tmp_path / name)
        loaded = Episodes.load(tmp_path / name)
        for field in ("observations", "actions", "rewards", "lengths", "terminated"):
            np.testing.assert_array_equal(getattr(loaded, field), getattr(data, field))
    both = Episodes.joined([data, half])
    assert len(both) == 107 and both.returns[:7].tolist() == [6] * 7


def test_behaviour_cloning_does_what_it_was_shown(tmp_path: Path) -> None:
    record_episodes(Expert(), Echo, 30).save(tmp_path / "data.npz")
    agent = BehaviourCloning(Echo, data=tmp_path / "data.npz", learning_rate=1e-2, seed=0)
    agent.learn(150, progress=False)
    assert agent.act(np.arange(3)).tolist() == [2, 3, 4]
    agent = BehaviourCloning(EchoBox, data=record_episodes(Expert(), EchoBox, 100), seed=0)
    agent.learn(400, progress=False)
    seen = EchoBox(50, seed=2).reset()
    assert np.abs(agent.act(seen) - seen[:, :1]).mean() < 0.07
    agent.save(tmp_path / "agent")
    loaded = BehaviourCloning.load(tmp_path / "agent", env=EchoBox)
    np.testing.assert_array_equal(loaded.act(seen), agent.act(seen))


def test_earns_what_is_asked_for(tmp_path: Path) -> None:
    """Of a mixture, the transformer does as well or as badly as it is told; cloning cannot."""
    parts = [record_episodes(Expert(), Echo, 60), record_episodes(Fool(), Echo, 90, seed=1)]
    data = Episodes.joined(parts)
    agent = DecisionTransformer(Echo, data=data, seed=0, **TINY).learn(500, progress=False)
    assert agent.play_episodes(20, Echo).mean > 5.5  # the best of the data unless told otherwise
    assert agent.play_episodes(20, Echo, target_return=0).mean < 0.5
    cloned = BehaviourCloning(Echo, data=data, seed=0, learning_rate=1e-2)
    cloned.learn(300, progress=False)
    assert cloned.act(np.arange(3)).tolist() == [3, 4, 2]  # the majority's
    agent.save(tmp_path)
    loaded = DecisionTransformer.load(tmp_path, env=Echo)
    assert loaded.play_episodes(20, Echo) == agent.play_episodes(20, Echo)
    assert loaded.act(np.arange(3)).tolist() == [2, 3, 4]


def test_transformer_gives_numbers() -> None:
    data = record_episodes(Expert(), EchoBox, 100, random=0.3)
    agent = DecisionTransformer(EchoBox, data=data, seed=0, **TINY).learn(400, progress=False)
    cloned = BehaviourCloning(EchoBox, data=data, seed=0).learn(400, progress=False)
    assert agent.history[-1:] == [] and cloned.steps == 400
    worst = record_episodes(None, EchoBox, 50).returns.mean()
    assert agent.play_episodes(30, EchoBox, target_return=0).mean > worst / 3


def test_the_future_is_hidden() -> None:
    """What comes after a step, and its own action, do not change what is predicted for it."""
    data = record_episodes(Expert(), EchoBox, 5)
    agent = DecisionTransformer(EchoBox, data=data, seed=0, **TINY)
    rng = np.random.default_rng(0)
    returns = rng.random((2, 3)).astype(np.float32)
    inputs = rng.random((2, 3, 2)).astype(np.float32)
    actions = rng.random((2, 3, 1)).astype(np.float32)
    time = np.tile(np.arange(3), (2, 1))
    real = np.ones((2, 3), bool)
    before = agent.run(returns, inputs, actions, time, real).array.copy()
    actions[:, 1:] += 1
    inputs[:, 2] += 1
    returns[:, 2] += 1
    after = agent.run(returns, inputs, actions, time, real).array
    np.testing.assert_allclose(after[:, :2], before[:, :2], atol=1e-6)
    assert np.abs(after[:, 2] - before[:, 2]).min() > 1e-4
    # Steps that there are not change nothing either.
    real[:, 0] = False
    first = agent.run(returns, inputs, actions, time, real).array.copy()
    actions[:, 0], inputs[:, 0], returns[:, 0] = 7, 7, 7
    again = agent.run(returns, inputs, actions, time, real).array
    np.testing.assert_allclose(again[:, 1:], first[:, 1:], atol=1e-6)


@pytest.mark.parametrize(
    "algorithm, settings", [(BehaviourCloning, {}), (DecisionTransformer, TINY)]
)
def test_repeats_itself_and_resumes_exactly(
    algorithm: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    data = record_episodes(Expert(), Echo, 10, random=0.5)
    whole = algorithm(Echo, data=data, seed=1, **settings).learn(30, progress=False)
    part = algorithm(Echo, data=data, seed=1, **settings)
    part.learn(30, lambda agent: agent.steps < 12, progress=False, out=tmp_path)
    resumed = algorithm(Echo, data=data, seed=4, **settings)
    resumed.learn(30, progress=False, resume=tmp_path)
    for key, value in whole.network.state_dict().items():
        np.testing.assert_array_equal(value.array, resumed.network.state_dict()[key].array)


def test_wrong_data(tmp_path: Path) -> None:
    data = record_episodes(Expert(), Echo, 3)
    good = {name: getattr(data, name) for name in ("observations", "actions", "rewards")}
    good |= {"lengths": data.lengths, "terminated": data.terminated}
    for name, value, words in (
        ("rewards", data.rewards[:-1], "rewards are"),
        ("actions", data.actions[:-1], "actions are"),
        ("lengths", data.lengths[:-1], "terminated are"),
        ("lengths", data.lengths + 1, "21"),
        ("lengths", data.lengths.astype(float), "lengths are float64"),
        ("rewards", np.full(18, np.nan, np.float32), "NaN or infinity at step 0"),
    ):
        with pytest.raises(DataError, match=words):
            Episodes(**{**good, name: value})
    empty = {name: value[:0] for name, value in good.items()}
    with pytest.raises(DataError, match="0 lengths"):
        Episodes(**empty)
    with pytest.raises(DataError, match="nothing to join"):
        Episodes.joined([])
    with pytest.raises(ConfigError, match="npz or"):
        data.save(tmp_path / "a.txt")
    (tmp_path / "a.npz").write_bytes(b"no zip file")
    with pytest.raises(DataError, match="cannot be read"):
        Episodes.load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", observations=np.zeros(3))
    with pytest.raises(DataError, match="actions, rewards, lengths, terminated missing"):
        Episodes.load(tmp_path / "b.npz")
    with pytest.raises(DataError, match="do not fit"):
        BehaviourCloning("CartPole-v1", data=data)
    other = Episodes(**{**good, "actions": data.actions - 2})
    with pytest.raises(DataError, match=r"0 is outside 2 to 4"):
        DecisionTransformer(Echo, data=other)
    with pytest.raises(ConfigError, match="has none"):
        BehaviourCloning(Echo).learn(3, progress=False)
    with pytest.raises(ConfigError, match="longest=6"):
        DecisionTransformer(Echo, data=data, longest=5)
    with pytest.raises(ConfigError, match="share"):
        record_episodes(None, Echo, 2, random=2)
    for name, value in (("width", 15), ("heads", 3), ("context", 0), ("return_scale", -1)):
        with pytest.raises(ConfigError, match=name):
            DecisionTransformer(Echo, **{**TINY, name: value})

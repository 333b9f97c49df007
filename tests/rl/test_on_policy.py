"""PPO, A2C and REINFORCE: on environments whose answer is known, and their parts by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError, ShapeError
from bestiary.rl import A2C, PPO, REINFORCE, Evaluation, evaluate, make, record
from bestiary.rl.environments.base import ArrayEnv
from bestiary.rl.on_policy import advantages_of
from bestiary.rl.policies import Categorical, Gaussian
from bestiary.rl.spaces import Box, Discrete, MultiBinary, MultiDiscrete


class Identity(ArrayEnv):
    """Ten steps in which the reward is 1 for naming the class that is seen."""

    id = "Identity"
    max_episode_steps = 10
    action_space: Any = Discrete(3)
    observation_space = Discrete(3)

    def begin(self, num: int) -> np.ndarray:
        return self.rng.integers(0, 3, (1, num))

    def advance(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        reward = self.reward(state[0], actions).astype(np.float32)
        return self.begin(len(actions)), reward, np.zeros(len(actions), np.bool_)

    def reward(self, seen: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return actions == seen

    def observe(self, state: np.ndarray) -> np.ndarray:
        return np.array(state[0])


class Several(Identity):
    """Two choices, of which both are wanted."""

    id = "Several"
    action_space = MultiDiscrete([3, 2])

    def reward(self, seen: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return ((actions[:, 0] == seen) + 1.0 * (actions[:, 1] == seen % 2)) / 2


class Bits(Identity):
    """Both bits of the number that is seen."""

    id = "Bits"
    action_space = MultiBinary(2)

    def reward(self, seen: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return ((actions[:, 0] == seen % 2) + 1.0 * (actions[:, 1] == seen // 2)) / 2


class Near(Identity):
    """The cost is the distance from what is seen; actions from -2 to 2."""

    id = "Near"
    action_space = Box(-2, 2, (1,))
    observation_space: Any = Box(-1, 1, (1,))

    def begin(self, num: int) -> np.ndarray:
        return self.rng.uniform(-1, 1, (1, num)).astype(np.float32)

    def reward(self, seen: np.ndarray, actions: np.ndarray) -> np.ndarray:
        return 1 - np.abs(actions[:, 0] - seen)

    def observe(self, state: np.ndarray) -> np.ndarray:
        return np.array(state.T)


FAST: dict[str, Any] = {"hidden": (32,), "gamma": 0.1, "num_envs": 8, "learning_rate": 1e-2}
CASES: list[tuple[Any, dict[str, Any], int]] = [
    (PPO, {**FAST, "n_steps": 32, "batch_size": 64, "n_epochs": 4}, 6000),
    (A2C, FAST, 12000),
    (REINFORCE, {**FAST, "n_steps": 20}, 12000),
]


@pytest.mark.parametrize(("algorithm", "settings", "steps"), CASES)
@pytest.mark.parametrize("env", [Identity, Several, Bits])
def test_choices_are_learnt(algorithm: Any, settings: Any, steps: int, env: Any) -> None:
    agent = algorithm(env, seed=1, **settings).learn(steps, progress=False)
    assert evaluate(agent, env).mean > 9.5


@pytest.mark.parametrize(("algorithm", "settings", "steps"), CASES)
def test_numbers_are_learnt(algorithm: Any, settings: Any, steps: int) -> None:
    agent = algorithm(Near, seed=1, **settings).learn(2 * steps, progress=False)
    assert evaluate(agent, Near).mean > 9


def test_pictures_are_learnt() -> None:
    agent = PPO("Catch-v0", seed=0, num_envs=16, n_steps=32, batch_size=128, learning_rate=2e-3)
    before = evaluate(agent, episodes=50).mean
    agent.learn(8_000, progress=False)
    assert agent.network.pixels is not None
    assert evaluate(agent, episodes=50).mean > before + 0.5


# -- parts ---------------------------------------------------------------------------------------


def test_advantages_are_sums_of_later_errors() -> None:
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 7, 3)).astype(np.float32)
    ended = rng.random((7, 3)) < 0.3
    last = rng.normal(size=3).astype(np.float32)
    gamma, lam = 0.9, 0.7
    found = advantages_of(rewards, values, ended, last, gamma, lam)
    for i in range(3):
        for t in range(7):
            total, factor = 0.0, 1.0
            for k in range(t, 7):
                after = 0.0 if ended[k, i] else (values[k + 1, i] if k < 6 else last[i])
                total += factor * (rewards[k, i] + gamma * after - values[k, i])
                factor *= gamma * lam
                if ended[k, i]:
                    break
            assert found[t, i] == pytest.approx(total, abs=1e-5)


def test_lambda_of_one_gives_whole_returns() -> None:
    rewards, ended = np.ones((5, 1), np.float32), np.zeros((5, 1), bool)
    values = np.arange(5, dtype=np.float32)[:, None]
    found = advantages_of(rewards, values, ended, np.array([10.0], np.float32), 1.0, 1.0)
    np.testing.assert_allclose((found + values)[:, 0], [15, 14, 13, 12, 11])


@pytest.mark.parametrize(
    ("head", "size"),
    [(Categorical([4], True), 4), (Categorical([3, 2], False), 5), (Gaussian(3), 3)],
)
def test_gradients_of_distributions_are_right(head: Any, size: int) -> None:
    """Against differences of the loss, in float64."""
    rng = np.random.default_rng(1)
    out, free = rng.normal(size=(6, size)), rng.normal(size=size) * 0.3 if head.free else None
    actions = head.sample(out, free, rng)
    weight, entropy = rng.normal(size=6), 0.7

    def loss(out: np.ndarray, free: Any) -> float:
        mean = head.gradient(out, free, actions, np.zeros(6), 0.0)[2]
        return float((weight * head.log_prob(out, free, actions)).sum() + entropy * mean)

    d_out, d_free, _ = head.gradient(out, free, actions, weight, entropy)
    for i in np.ndindex(out.shape):
        step = np.zeros_like(out)
        step[i] = 1e-5
        numeric = (loss(out + step, free) - loss(out - step, free)) / 2e-5
        assert d_out[i] == pytest.approx(numeric, abs=1e-6)
    if free is not None:
        for i in range(size):
            step = np.zeros(size)
            step[i] = 1e-5
            numeric = (loss(out, free + step) - loss(out, free - step)) / 2e-5
            assert d_free[i] == pytest.approx(numeric, abs=1e-6)


def test_draws_follow_the_probabilities() -> None:
    rng = np.random.default_rng(0)
    logits = np.log(np.array([0.2, 0.5, 0.3], np.float32))
    drawn = Categorical([3], True).sample(np.tile(logits, (20_000, 1)), None, rng)
    np.testing.assert_allclose(np.bincount(drawn) / 20_000, [0.2, 0.5, 0.3], atol=0.015)
    free = np.log(np.array([0.5], np.float32))
    numbers = Gaussian(1).sample(np.full((20_000, 1), 3.0, np.float32), free, rng)
    assert numbers.mean() == pytest.approx(3, abs=0.02)
    assert numbers.std() == pytest.approx(0.5, abs=0.02)


def test_episodes_that_are_cut_have_a_future() -> None:
    """Of a reward of 1 for ever, cut after 10 steps, the value is 1 / (1 - gamma)."""

    class Forever(Identity):
        id = "Forever"

        def reward(self, seen: np.ndarray, actions: np.ndarray) -> np.ndarray:
            return np.ones(len(actions))

    settings = {"hidden": (16,), "gamma": 0.8, "num_envs": 8, "learning_rate": 1e-2}
    agent = PPO(Forever, n_steps=32, batch_size=64, **settings).learn(20_000, progress=False)
    np.testing.assert_allclose(agent.value(np.arange(3)), 5, atol=0.4)


# -- use -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [PPO, A2C, REINFORCE])
def test_the_same_seed_gives_the_same_agent(algorithm: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"num_envs": 2, "n_steps": 16}
    one, two = (
        algorithm("CartPole-v1", seed=3, **settings).learn(200, progress=False) for _ in range(2)
    )
    for name, value in one.network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), two.network.state_dict()[name].numpy())
    one.save(tmp_path)
    again = algorithm.load(tmp_path)
    seen = make("CartPole-v1", 20).reset(0)
    np.testing.assert_array_equal(again.act(seen), one.act(seen))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["agent.json", "agent.safetensors"]


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_resuming_changes_nothing(algorithm: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"num_envs": 2, "n_steps": 16, "anneal": True}

    def agent() -> Any:
        return algorithm("CartPole-v1", seed=3, **settings)

    whole = agent().learn(320, progress=False)

    def stop(found: Any) -> bool:
        return found.steps < 160

    agent().learn(320, stop, progress=False, out=tmp_path)
    resumed = agent().learn(320, progress=False, resume=tmp_path)
    assert resumed.steps == whole.steps
    for name, value in whole.network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), resumed.network.state_dict()[name].numpy())


def test_evaluation_counts_the_first_episodes() -> None:
    agent = PPO("CartPole-v1", seed=0)
    found = evaluate(agent, episodes=7, seed=5)
    assert isinstance(found, Evaluation) and len(found.returns) == 7
    assert found.returns == evaluate(agent, episodes=7, seed=5).returns
    assert found.mean == pytest.approx(np.mean(found.returns))
    assert "over 7 episodes" in str(found) and found.to_dict()["std"] == found.std
    assert all(r == n for r, n in zip(found.returns, found.lengths, strict=True))
    with pytest.raises(ConfigError, match="episodes"):
        evaluate(agent, episodes=0)


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_recording(tmp_path: Path, ending: str) -> None:
    agent = PPO("CartPole-v1", seed=0)
    path = tmp_path / "deep" / f"run.{ending}"
    found = record(agent, path)
    with Image.open(path) as image:
        assert image.n_frames >= found.lengths[0] // 2  # equal pictures are joined
        assert image.size[0] > 100
    with pytest.raises(ConfigError, match=r"\.gif or \.webp"):
        record(agent, tmp_path / "run.mp4")


@pytest.mark.parametrize("algorithm", [PPO, A2C, REINFORCE])
@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0},
        {"gamma": 1.5},
        {"n_steps": 0},
        {"hidden": ()},
        {"max_grad_norm": 0},
        {"ent_coef": -1},
        {"learning_rte": 1e-3},
    ],
)
def test_settings_that_make_no_sense(algorithm: Any, change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        algorithm("CartPole-v1", **change)


@pytest.mark.parametrize("change", [{"clip_range": 1.0}, {"n_epochs": 0}, {"target_kl": 0}])
def test_settings_of_ppo(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        PPO("CartPole-v1", **change)


def test_mistakes() -> None:
    agent = PPO("MlpPolicy", "CartPole-v1", seed=0)  # in Stable-Baselines3's order
    with pytest.raises(ShapeError, match="an observation has shape"):
        agent.act(np.zeros(3))
    with pytest.raises(DataError, match="NaN"):
        agent.act(np.full(4, np.nan))
    with pytest.raises(ConfigError, match="policy"):
        PPO("CartPole-v1", "transformer")

    class Whole(Identity):
        id = "Whole"
        action_space = Box(0, 5, (2,), np.int64)

    with pytest.raises(ConfigError, match="are not supported"):
        PPO(Whole)


def test_an_early_end_of_updates() -> None:
    settings: dict[str, Any] = {"num_envs": 4, "n_steps": 64, "learning_rate": 0.05}
    agent = PPO(Identity, seed=0, target_kl=1e-4, **settings)
    agent.learn(1024, progress=False)
    assert np.isfinite(agent.value(np.arange(3))).all()
    clipped = PPO(Identity, seed=0, clip_range_vf=0.1, **settings).learn(1024, progress=False)
    assert np.isfinite(clipped.value(np.arange(3))).all()


def test_names_are_there() -> None:
    assert bt.rl.PPO is PPO and "SAC" in dir(bt.rl)
    with pytest.raises(AttributeError, match="it has: A2C"):
        _ = bt.rl.PPPO


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_cart_pole_is_solved(seed: int) -> None:
    agent = PPO("CartPole-v1", seed=seed, num_envs=8, n_steps=256, learning_rate=1e-3)
    agent.learn(80_000, progress=False)
    assert evaluate(agent, episodes=20).mean > 475

"""The algorithms that learn from a replay memory, on environments whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bestiary.core.errors import ConfigError, DataError, GradError, ShapeError, WeightsError
from bestiary.rl.c51 import C51, project
from bestiary.rl.ddpg import DDPG
from bestiary.rl.discrete_sac import DiscreteSAC
from bestiary.rl.dqn import DQN
from bestiary.rl.environments import CartPole, Catch, make
from bestiary.rl.environments.base import ArrayEnv
from bestiary.rl.qr_dqn import QRDQN, quantile_huber
from bestiary.rl.sac import SAC
from bestiary.rl.spaces import Box, Discrete
from bestiary.rl.td3 import TD3


class Identity(ArrayEnv):
    """Ten steps in which the reward is 1 for naming the class that is seen."""

    id = "Identity"
    max_episode_steps = 10
    action_space = Discrete(3)
    observation_space = Discrete(3)

    def begin(self, num: int) -> np.ndarray:
        return self.rng.integers(0, 3, (1, num))

    def advance(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        reward = (actions == state[0]).astype(np.float32)
        return self.begin(len(actions)), reward, np.zeros(len(actions), np.bool_)

    def observe(self, state: np.ndarray) -> np.ndarray:
        return np.array(state[0])


class IdentityBox(Identity):
    """Ten steps in which the cost is the distance from what is seen; actions from -2 to 2."""

    id = "IdentityBox"
    action_space = Box(-2, 2, (1,))
    observation_space = Box(-1, 1, (1,))

    def begin(self, num: int) -> np.ndarray:
        return self.rng.uniform(-1, 1, (1, num)).astype(np.float32)

    def advance(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        cost = np.abs(actions[:, 0] - state[0]).astype(np.float32)
        return self.begin(len(actions)), -cost, np.zeros(len(actions), np.bool_)

    def observe(self, state: np.ndarray) -> np.ndarray:
        return np.array(state.T)


SMALL: dict[str, Any] = {"hidden": (32,), "learning_starts": 100, "buffer_size": 2000, "gamma": 0.1}
Q: dict[str, Any] = {
    **SMALL,
    "learning_rate": 5e-3,
    "train_freq": 1,
    "target_update_interval": 50,
    "exploration_fraction": 0.5,
}
RANGE: dict[str, Any] = {"v_min": 0.0, "v_max": 2.0, "atoms": 11}
POLICY: dict[str, Any] = {**SMALL, "learning_rate": 5e-3, "batch_size": 64}
DISCRETE: list[tuple[Any, dict[str, Any]]] = [
    (DQN, Q),
    (DQN, {**Q, "double": True, "duelling": True, "prioritized": True, "n_steps": 2}),
    (DQN, {**Q, "duelling": True, "hidden": (32, 16), "num_envs": 4}),
    (C51, {**Q, **RANGE}),
    (C51, {**Q, **RANGE, "double": True, "prioritized": True}),
    (QRDQN, {**Q, "quantiles": 8}),
    (DiscreteSAC, {**POLICY, "ent_coef": 0.05}),
    (DiscreteSAC, {**POLICY, "target_entropy_share": 0.2}),
]
CONTINUOUS: list[tuple[Any, dict[str, Any]]] = [
    (DDPG, POLICY),
    (TD3, POLICY),
    (TD3, {**POLICY, "num_envs": 2, "gradient_steps": -1}),
    (SAC, POLICY),
    (SAC, {**POLICY, "ent_coef": 0.01, "n_steps": 2, "gamma": 0.0}),
]
EVERY = [(DQN, Q), (C51, {**Q, **RANGE}), (QRDQN, Q), (DiscreteSAC, POLICY)]


def environment(algorithm: Any) -> type[Identity]:
    return IdentityBox if algorithm.actions == "continuous" else Identity


@pytest.mark.parametrize("algorithm, settings", DISCRETE)
def test_names_what_it_sees(algorithm: Any, settings: dict[str, Any]) -> None:
    agent = algorithm(Identity, seed=1, **settings).learn(800, progress=False)
    assert agent.act(np.arange(3)).tolist() == [0, 1, 2]
    assert agent.act(np.int64(2)) == 2


@pytest.mark.parametrize("algorithm, settings", CONTINUOUS)
def test_gives_what_it_sees(algorithm: Any, settings: dict[str, Any]) -> None:
    agent = algorithm(IdentityBox, seed=1, **settings).learn(800, progress=False)
    seen = np.linspace(-0.9, 0.9, 7, dtype=np.float32)[:, None]
    assert np.abs(agent.act(seen) - seen).mean() < 0.15


@pytest.mark.parametrize("algorithm, settings", [DISCRETE[1], *EVERY[1:], *CONTINUOUS[:4]])
def test_repeats_itself_and_resumes_exactly(
    algorithm: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    env = environment(algorithm)
    settings = {**settings, "learning_starts": 20}
    seen = env(50, seed=3).reset()
    whole = algorithm(env, seed=2, **settings).learn(200, progress=False)
    again = algorithm(env, seed=2, **settings)
    stop = 100

    def interrupt(agent: Any) -> bool:
        return agent.steps < stop

    again.learn(200, interrupt, progress=False, out=tmp_path)
    assert again.steps == stop
    resumed = algorithm(env, seed=7, **settings)
    resumed.learn(200, progress=False, resume=tmp_path)
    assert resumed.steps == 200
    for (name, a), b in zip(whole.modules().items(), resumed.modules().values(), strict=True):
        for key, value in a.state_dict().items():
            np.testing.assert_array_equal(value.array, b.state_dict()[key].array, f"{name}.{key}")
    np.testing.assert_array_equal(whole.act(seen), resumed.act(seen))
    assert whole.history == resumed.history
    other = algorithm(env, seed=3, **settings).learn(100, progress=False)
    key, value = next(iter(next(iter(other.modules().values())).state_dict().items()))
    assert (value.array != next(iter(whole.modules().values())).state_dict()[key].array).any()


@pytest.mark.parametrize("algorithm, settings", [*EVERY, *CONTINUOUS[:2], CONTINUOUS[3]])
def test_saves_and_loads(algorithm: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    env = environment(algorithm)
    agent = algorithm(env, seed=2, **settings).learn(150, progress=False)
    agent.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["agent.json", "agent.safetensors"]
    loaded = algorithm.load(tmp_path, env=env)
    seen = env(100, seed=4).reset()
    np.testing.assert_array_equal(agent.act(seen), loaded.act(seen))
    assert loaded.settings == agent.settings
    action, state = loaded.predict(seen[0], deterministic=True)
    assert state is None and np.shape(action) == loaded.action_space.shape
    other = SAC if algorithm is not SAC else TD3
    with pytest.raises(WeightsError, match=rf"{algorithm.__name__}\.load"):
        other.load(tmp_path)
    with pytest.raises(ConfigError, match="the agent sees"):
        algorithm.load(tmp_path, env="CartPole-v1" if env is Identity else "Pendulum-v1")
    (tmp_path / "agent.json").write_text("{}")
    with pytest.raises(WeightsError, match="holds no agent"):
        algorithm.load(tmp_path)


def test_temperatures_as_stable_baselines_writes_them() -> None:
    for given, fixed, start in (("auto", None, 1.0), ("auto_0.1", None, 0.1), (0.2, 0.2, 1.0)):
        agent = SAC(IdentityBox, **{**POLICY, "ent_coef": given})
        assert (agent.settings.ent_coef, agent.settings.initial_ent_coef) == (fixed, start)
        assert agent.alpha == pytest.approx(start if fixed is None else fixed)


def test_stable_baselines_order_and_starting_actions() -> None:
    class Shifted(Identity):
        action_space = Discrete(3, start=5)

        def advance(self, state: Any, actions: Any) -> Any:
            assert ((actions >= 5) & (actions < 8)).all()
            return super().advance(state, actions - 5)

    agent = DQN("MlpPolicy", Shifted, seed=0, **Q).learn(1000, progress=False)
    assert agent.act(np.arange(3)).tolist() == [5, 6, 7]


def test_learns_from_pixels() -> None:
    settings: dict[str, Any] = {
        "learning_rate": 2e-3,
        "buffer_size": 3000,
        "learning_starts": 200,
        "train_freq": 1,
        "target_update_interval": 200,
        "exploration_fraction": 0.5,
        "num_envs": 4,
        "gradient_steps": 2,
    }
    agent = DQN(lambda num_envs, seed: Catch(num_envs, rows=4, columns=4, seed=seed), **settings)
    agent.learn(3000, progress=False)
    assert agent.replay.nbytes < 1.1 * 3001 * 64 + 40_000
    env = Catch(64, rows=4, columns=4, seed=1)
    seen, total = env.reset(), 0.0
    for _ in range(3):
        seen, reward, *_ = env.step(agent.act(seen))
        total += float(reward.sum())
    assert total / 64 > 0.8


def test_projection_against_direct_computation() -> None:
    rng = np.random.default_rng(0)
    support = np.linspace(-2, 3, 11, dtype=np.float32)
    p = rng.dirichlet(np.ones(11), 40).astype(np.float32)
    reward = rng.uniform(-3, 4, 40).astype(np.float32)
    reward[:6] = [0, 0.5, -2, 3, 10, -10]  # on atoms, at the ends, beyond them
    discount = np.where(np.arange(40) % 3 == 0, 0, 0.9).astype(np.float32)
    wanted = np.zeros((40, 11))
    for row in range(40):
        for i in range(11):
            place = min(max(reward[row] + discount[row] * support[i], -2), 3) + 2
            place /= 0.5
            for j in range(11):  # a triangle around every atom
                wanted[row, j] += p[row, i] * max(0.0, 1 - abs(place - j))
    got = project(p, reward, discount, support)
    np.testing.assert_allclose(got, wanted, atol=2e-6)
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-5)


def test_quantile_loss_against_direct_computation() -> None:
    rng = np.random.default_rng(0)
    theta, target = rng.standard_normal((3, 5)), 2 * rng.standard_normal((3, 4))

    def direct(theta: np.ndarray, row: int) -> float:
        total = 0.0
        for i in range(5):
            for y in target[row]:
                u = y - theta[row, i]
                huber = 0.5 * u * u if abs(u) <= 1 else abs(u) - 0.5
                total += abs((i + 0.5) / 5 - (u < 0)) * huber / 4
        return total

    loss, gradient = quantile_huber(theta, target)
    for row in range(3):
        assert loss[row] == pytest.approx(direct(theta, row))
        for i in range(5):
            shift = np.zeros_like(theta)
            shift[row, i] = 1e-6
            slope = (direct(theta + shift, row) - direct(theta - shift, row)) / 2e-6
            assert gradient[row, i] == pytest.approx(slope, abs=1e-5)


def test_sac_gradient_against_autograd() -> None:
    """The closed form of the actor's gradient, against the loss written out."""
    import bestiary as bt

    agent = SAC(IdentityBox, seed=0, **{**POLICY, "ent_coef": 0.3})
    rng = np.random.default_rng(0)
    seen = rng.uniform(-1, 1, (6, 1)).astype(np.float32)
    head = agent.actor.bare(seen)
    action, log_prob, noise = agent._draw(head)
    x = bt.tensor(head, requires_grad=True)
    mean, log_std = x[:, :1], x[:, 1:]
    u = mean + bt.exp(log_std) * bt.tensor(noise)
    a = bt.tanh(u)
    normal = -0.5 * bt.tensor(noise) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    log_pi = (normal - bt.log(1 - a * a)).sum(axis=1)
    np.testing.assert_allclose(log_prob, log_pi.detach().numpy(), rtol=1e-4, atol=1e-5)
    joined = bt.concat([bt.tensor(seen), a], axis=1)
    outs = [network(joined).reshape(-1) for network in agent.critics.networks]
    (0.3 * log_pi - bt.minimum(*outs)).mean().backward()
    # What the agent computes, from its own update.
    q, slope = agent.critics.slope(seen, action, least=True)
    np.testing.assert_allclose(q, bt.minimum(*outs).detach().numpy(), rtol=1e-5)
    assert x.grad is not None
    np.testing.assert_allclose(
        agent.actor_gradient(head, action, noise, slope), x.grad.array, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    "algorithm, env, settings, words",
    [
        (DQN, IdentityBox, {}, "DQN is for discrete actions.*\nFor those: SAC"),
        (SAC, Identity, {}, "SAC is for continuous actions.*\nFor those: DQN"),
        (TD3, "Catch-v0", {}, "TD3 is for continuous"),
        (DQN, Identity, {"learning_rte": 1}, r"no setting 'learning_rte'. Near: learning_rate"),
        (DQN, Identity, {"hidden": (0,)}, "hidden"),
        (DQN, Identity, {"hidden": ()}, "hidden"),
        (DQN, Identity, {"learning_rate": -1}, "learning_rate"),
        (DQN, Identity, {"gamma": 1.2}, "gamma"),
        (DQN, Identity, {"exploration_fraction": 2}, "exploration_fraction"),
        (DQN, Identity, {"batch_size": 0}, "batch_size"),
        (DQN, Identity, {"policy": "lstm"}, "'lstm'"),
        (DQN, Identity, {"seed": -1}, "seed"),
        (C51, Identity, {"v_min": 2, "v_max": 1}, "v_min"),
        (C51, Identity, {"atoms": 1}, "atoms"),
        (QRDQN, Identity, {"quantiles": 0}, "quantiles"),
        (TD3, IdentityBox, {"policy_delay": 0}, "policy_delay"),
        (TD3, IdentityBox, {"exploration_noise": -1}, "exploration_noise"),
        (SAC, IdentityBox, {"ent_coef": -1}, "ent_coef"),
        (SAC, IdentityBox, {"ent_coef": "automatic"}, "ent_coef"),
        (SAC, IdentityBox, {"ent_coef": "auto_0"}, "initial_ent_coef"),
    ],
)
def test_wrong_settings(algorithm: Any, env: Any, settings: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        algorithm(env, **settings)


def test_wrong_input() -> None:
    agent = DQN(CartPole, buffer_size=10**13)
    with pytest.raises(ShapeError, match=r"\(4,\).*got \(3,\)"):
        agent.act(np.zeros(3))
    with pytest.raises(DataError, match="NaN"):
        agent.act(np.array([0, np.nan, 0, 0]))
    with pytest.raises(ConfigError, match=r"GB free.\nKeep fewer: buffer_size"):
        agent.learn(10)
    with pytest.raises(ConfigError, match="steps"):
        agent.learn(0)
    with pytest.raises(ConfigError, match="no checkpoint"):
        agent.learn(10, resume="nowhere")


def test_divergence_is_told() -> None:
    agent = DQN(CartPole, buffer_size=5000, learning_starts=100, seed=0)
    for p in agent.network.parameters():
        p.array[...] = np.inf
    with (
        pytest.raises(GradError, match=r"DQN became nan at step(.|\n)*It was in the weights"),
        np.errstate(all="ignore"),
    ):
        agent.learn(2000, progress=False)


def test_json_of_an_agent(tmp_path: Path) -> None:
    DQN("cartpole", buffer_size=100, seed=5).save(tmp_path)
    card = json.loads((tmp_path / "agent.json").read_text())
    assert card["algorithm"] == "DQN" and card["environment"] == "CartPole-v1"
    assert card["settings"]["buffer_size"] == 100 and card["seed"] == 5
    assert make(card["environment"]).observation_space.to_json() == card["observation_space"]


@pytest.mark.slow
def test_balances_the_pole() -> None:
    agent = DQN(
        "CartPole-v1",
        seed=0,
        hidden=(256, 256),
        learning_rate=2.3e-3,
        batch_size=64,
        buffer_size=100_000,
        learning_starts=1000,
        target_update_interval=10,
        train_freq=256,
        gradient_steps=128,
        exploration_fraction=0.16,
        exploration_final_eps=0.04,
    ).learn(50_000, progress=False)
    assert max(line["return"] for line in agent.history) > 150


@pytest.mark.parametrize("algorithm, env", [(DQN, "CartPole-v1"), (SAC, "Pendulum-v1")])
def test_the_learning_rate_falls(algorithm: Any, env: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"anneal": True, "learning_rate": 1e-2, "hidden": (8,)}
    settings |= {"learning_starts": 4, "batch_size": 8, "buffer_size": 200, "train_freq": 1}
    rates: list[float] = []

    def watch(agent: Any) -> bool:
        found = {g["lr"] for o in agent.optimizers().values() for g in o.param_groups}
        assert len(found) == 1
        rates.append(*found)
        return agent.steps < 20

    algorithm(env, seed=0, **settings).learn(40, watch, progress=False, out=tmp_path)
    assert rates[0] == pytest.approx(1e-2) and rates[-1] == pytest.approx(1e-2 * (1 - 19 / 40))
    resumed = algorithm(env, seed=0, **settings).learn(40, progress=False, resume=tmp_path)
    whole = algorithm(env, seed=0, **settings).learn(40, progress=False)
    seen = whole.observation_space.sample(0, 5)
    np.testing.assert_array_equal(resumed.act(seen), whole.act(seen))
    assert whole.optimizers().popitem()[1].param_groups[0]["lr"] == pytest.approx(1e-2 / 40)

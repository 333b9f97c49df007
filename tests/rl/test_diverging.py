"""Agents whose updates are not finite, or run out of memory (ERRORS 21 and 22)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary import rl
from bestiary.core.errors import GradError, OutOfMemoryError
from bestiary.rl.diverging import check_update

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of NaN


def updates(agent: Any, number: int) -> None:
    for _ in range(number):
        agent.update(agent.replay.sample(8, 1.0))


def weights(agent: Any) -> list[np.ndarray]:
    return [p.array.copy() for m in agent.modules().values() for p in m.parameters()]


@pytest.mark.parametrize("name", ["PPO", "A2C", "REINFORCE"])
def test_a_broken_gradient_reaches_no_weight(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewards that are NaN: the message says that what the gradient was made of is not finite."""
    agent = getattr(rl, name)("CartPole-v1", hidden=(8,))
    before, step = weights(agent), agent.env.step

    def poisoned(actions: np.ndarray) -> Any:
        found = step(actions)
        found.reward[:] = np.nan
        return found

    monkeypatch.setattr(agent.env, "step", poisoned)
    with pytest.raises(GradError, match=f"the gradients of the {name} became nan at step") as told:
        agent.learn(4096, progress=False)
    assert told.value.direction == "data"
    assert "batch['gradients'][" in str(told.value) and "learning rate" in str(told.value)
    assert told.value.step <= 4096
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(agent), strict=True))


@pytest.mark.parametrize("name", ["DQN", "C51", "QRDQN"])
def test_broken_weights_of_values(name: str) -> None:
    agent = getattr(rl, name)("CartPole-v1", hidden=(8,), learning_starts=16)
    agent.learn(32, progress=False)
    next(iter(agent.network.parameters())).array[0, 0] = np.nan
    with pytest.raises(GradError, match=f"the gradients of the {name} became nan at step 32") as t:
        agent.update(agent.replay.sample(8, 1.0))
    assert t.value.direction == "parameters"
    assert "parameter q.layers.0.weight: 1 of" in str(t.value)


@pytest.mark.parametrize("name", ["SAC", "TD3", "DDPG"])
def test_broken_weights_of_critics(name: str) -> None:
    agent = getattr(rl, name)("Pendulum-v1", hidden=(8,), learning_starts=16)
    agent.learn(32, progress=False)
    next(iter(agent.critics.parameters())).array[0, 0] = np.nan
    with pytest.raises(GradError, match="the gradients of the critics became nan at step 32") as t:
        agent.update(agent.replay.sample(8, 1.0))
    assert t.value.direction == "parameters"
    assert "parameter networks.0.layers.0.weight: 1 of" in str(t.value)


@pytest.mark.parametrize("name", ["SAC", "TD3", "DDPG", "DiscreteSAC"])
@pytest.mark.parametrize("part", ["actor", "critics"])
def test_nothing_is_updated_from_broken_weights(name: str, part: str) -> None:
    """The critics learn first; a broken actor breaks their targets."""
    env = "CartPole-v1" if name == "DiscreteSAC" else "Pendulum-v1"
    agent = getattr(rl, name)(env, hidden=(8,), learning_starts=16)
    agent.learn(32, progress=False)
    broken = getattr(agent, part)
    next(iter(broken.parameters())).array[0, 0] = np.nan
    before = [p.array.copy() for p in broken.parameters()]
    with pytest.raises(GradError, match=r"the gradients of the (actor|critics) became nan") as told:
        updates(agent, 4)  # TD3's actor learns every second time
    assert told.value.direction in ("parameters", "data")
    after = [p.array for p in broken.parameters()]
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, after, strict=True))


def recorded() -> Any:
    return rl.record_episodes(rl.DQN("CartPole-v1", hidden=(8,)), "CartPole-v1", 4)


@pytest.mark.parametrize("name", ["BehaviourCloning", "DecisionTransformer"])
def test_broken_weights_of_agents_that_learn_from_recordings(name: str) -> None:
    agent = getattr(rl, name)("CartPole-v1", data=recorded(), seed=0)
    next(iter(agent.network.parameters())).array.reshape(-1)[0] = np.nan
    before = weights(agent)
    with pytest.raises(GradError, match=f"the gradients of the {name} became nan") as told:
        agent.update()
    assert told.value.direction == "parameters"
    after = weights(agent)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, after, strict=True))


def test_broken_positions_of_alphazero() -> None:
    agent = rl.AlphaZero(
        seed=0, channels=8, blocks=1, num_envs=4, simulations=4, batch_size=8, learning_starts=8
    )
    agent.learn(64, progress=False)
    next(iter(agent.network.parameters())).array.reshape(-1)[0] = np.nan
    with pytest.raises(GradError, match="the gradients of the AlphaZero became nan") as told:
        agent.update()
    assert told.value.direction == "parameters"


def test_the_first_operation_of_an_agent_is_named() -> None:
    """A network of one's own, whose square root has no slope at 0."""
    agent = rl.PPO("CartPole-v1", hidden=(8,), n_steps=16, batch_size=16)
    inner = agent.network.forward

    def forward(x: Any) -> Any:
        out, values = inner(x)
        return bt.sqrt(out * 0), values

    agent.network.forward = forward
    with pytest.raises(GradError) as told:
        agent.learn(64, progress=False)
    assert (told.value.direction, told.value.backward_of) == ("backward", "sqrt")


def test_memory_that_runs_out_in_an_update() -> None:
    agent = rl.PPO("CartPole-v1", hidden=(8,), n_steps=64, batch_size=64)
    inner = agent.network.forward

    def forward(x: Any) -> Any:
        if x.shape[0] == 64:
            raise MemoryError("Unable to allocate")
        return inner(x)

    agent.network.forward = forward
    with pytest.raises(OutOfMemoryError) as told:
        agent.learn(64, progress=False)
    parameters = sum(p.nbytes for p in agent.network.parameters())
    assert told.value.parameters == told.value.gradients == parameters
    assert told.value.batch_size == 64 and told.value.activations > 0
    assert "fits: batch_size=" in str(told.value)


def test_nothing_is_said_of_finite_gradients_whose_squares_overflow() -> None:
    agent = rl.DQN("CartPole-v1", hidden=(8,))
    gradient = np.full((2, 2), 1e30, np.float32)
    x = np.zeros((2, 4), np.float32)
    check_update(np.inf, agent.network, agent.optimizer, x, gradient, step=1, whose="DQN")
    gradient[1, 0] = np.inf
    with pytest.raises(GradError, match="of the DQN became inf at step 1"):
        check_update(np.inf, agent.network, agent.optimizer, x, gradient, step=1, whose="DQN")

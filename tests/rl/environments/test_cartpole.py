from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from bestiary.rl.environments import CartPole, make


def test_transitions_are_gymnasiums() -> None:
    rng = np.random.default_rng(0)
    count = 10_000
    # Beyond the limits too, so that ends are compared.
    states = rng.uniform(-1, 1, (4, count)) * np.array([[2.6], [3], [0.25], [3]])
    actions = rng.integers(0, 2, count)
    env = CartPole()
    new, reward, terminated = env.advance(states.copy(), actions)
    seen = env.observe(new)
    other = gymnasium.make("CartPole-v1").unwrapped
    for i in range(count):
        other.state, other.steps_beyond_terminated = states[:, i], None
        obs, r, end, _, _ = other.step(int(actions[i]))
        assert np.abs(seen[i] - obs).max() <= 1e-6
        assert np.abs(new[:, i] - other.state).max() <= 1e-6
        assert (reward[i], terminated[i]) == (r, end)
    assert 0.1 < terminated.mean() < 0.9
    assert env.observation_space == make("CartPole-v1").observation_space
    assert np.array_equal(env.observation_space.high, other.observation_space.high)


def test_episodes_begin_near_rest() -> None:
    first = make("CartPole-v1", 2000, seed=0).reset()
    assert np.abs(first).max() <= 0.05
    assert np.abs(first).max() > 0.0499
    assert np.abs(first.mean(0)).max() < 0.003


@pytest.mark.parametrize("name, limit", [("CartPole-v1", 500), ("CartPole-v0", 200)])
def test_limits(name: str, limit: int) -> None:
    env = make(name, 3, seed=1)
    assert env.max_episode_steps == limit
    obs = env.reset()
    ends = []
    for _ in range(limit):
        # Push towards where the pole falls: that balances it.
        step = env.step((obs[:, 2] + 0.5 * obs[:, 3] + 0.1 * obs[:, 1] > 0).astype(np.int64))
        obs = step.observation
        assert not step.terminated.any()
        ends.append(step.truncated.all())
    assert ends.index(True) == limit - 1

"""The classic tasks of control: transitions, limits and beginnings are Gymnasium's."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from bestiary.rl import spaces
from bestiary.rl.environments import ArrayEnv, make

COUNT = 10_000

# Id -> half the widths of the states that are tried: beyond limits too, so that ends are compared.
STATES: dict[str, tuple[float, ...]] = {
    "Acrobot-v1": (np.pi, np.pi, 4 * np.pi, 9 * np.pi),
    "CartPole-v1": (2.6, 3, 0.25, 3),
    "MountainCar-v0": (1.2, 0.07),
    "MountainCarContinuous-v0": (1.2, 0.07),
    "Pendulum-v1": (20.0, 8.0),
}


def tried(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    states = rng.uniform(-1, 1, (len(STATES[name]), COUNT)) * np.array(STATES[name])[:, None]
    if name.startswith("Mountain"):
        states[0] = np.minimum(states[0], 0.6)
    if name == "MountainCarContinuous-v0":  # kept in single precision there
        states = states.astype(np.float32).astype(np.float64)
    return states, make(name).action_space.sample(rng, COUNT)


def gymnasium_step(name: str, env: Any, state: np.ndarray, action: Any) -> tuple[Any, ...]:
    env.state = state.astype(np.float32) if name == "MountainCarContinuous-v0" else state.copy()
    if name.startswith("CartPole"):
        env.steps_beyond_terminated = None
    return env.step(action if np.ndim(action) else int(action))


@pytest.mark.parametrize("name", STATES)
def test_transitions_are_gymnasiums(name: str) -> None:
    states, actions = tried(name, np.random.default_rng(0))
    if name in ("Pendulum-v1", "MountainCarContinuous-v0"):
        actions = (1.2 * actions).astype(np.float32)  # beyond the bounds, where both cut
    ours = make(name)
    assert isinstance(ours, ArrayEnv)
    kept = states.copy()
    new, reward, terminated = ours.advance(states, actions)
    assert np.array_equal(states, kept)
    seen = ours.observe(new)
    theirs = gymnasium.make(name).unwrapped
    for i in range(COUNT):
        obs, r, end, cut, _ = gymnasium_step(name, theirs, states[:, i], actions[i])
        assert np.abs(new[:, i] - np.asarray(theirs.state)).max() <= 1e-6
        # Speeds above 8 have steps of about 1e-6 in single precision.
        assert (np.abs(seen[i] - obs) <= 1e-6 * np.maximum(1, np.abs(obs))).all()
        assert abs(reward[i] - r) <= 1e-6 * max(1, abs(r))
        assert terminated[i] == end
        assert not cut
    assert reward.dtype == np.float32
    if name != "Pendulum-v1":
        assert 0.01 < terminated.mean() < 0.9


@pytest.mark.parametrize("name", STATES)
def test_one_environment_moves_as_many_do(name: str) -> None:
    states, actions = tried(name, np.random.default_rng(2))
    env: Any = make(name)
    together = env.advance(states, actions)
    for i in range(0, COUNT, 50):
        here = slice(i, i + 1)
        for one, all_ in zip(env.advance(states[:, here], actions[here]), together, strict=True):
            assert one.dtype == all_.dtype
            np.testing.assert_allclose(one, all_[..., here], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", STATES)
def test_spaces_and_limits_are_gymnasiums(name: str) -> None:
    ours, theirs = make(name), gymnasium.make(name)
    assert ours.observation_space == spaces.of(theirs.observation_space)
    assert ours.action_space == spaces.of(theirs.action_space)
    assert theirs.spec is not None
    assert ours.max_episode_steps == theirs.spec.max_episode_steps
    assert ours.fps == theirs.metadata["render_fps"]
    assert ours.id == name


@pytest.mark.parametrize("name", STATES)
def test_episodes_begin_as_gymnasiums(name: str) -> None:
    """Ranges and means of many first observations."""
    ours = make(name, 2000, seed=0).reset()
    theirs = gymnasium.make(name).unwrapped
    theirs.reset(seed=0)
    other = np.array([theirs.reset()[0] for _ in range(2000)])
    width = np.ptp(other, axis=0)
    assert np.allclose(ours.min(0), other.min(0), atol=0.02 * width.max())
    assert np.allclose(ours.max(0), other.max(0), atol=0.02 * width.max())
    assert np.allclose(ours.mean(0), other.mean(0), atol=0.07 * width.max())
    assert np.allclose(ours.std(0), other.std(0), atol=0.05 * width.max())
    assert ours.dtype == other.dtype


@pytest.mark.parametrize("name", STATES)
def test_observations_stay_in_their_space(name: str) -> None:
    env = make(name, 16, seed=0)
    rng = np.random.default_rng(1)
    obs = env.reset()
    for _ in range(300):
        assert (obs >= env.observation_space.low).all()
        assert (obs <= env.observation_space.high).all()
        step = env.step(env.action_space.sample(rng, 16))
        obs = step.observation
    assert env.render(3).shape[2] == 3


def test_episodes_are_cut_at_the_limit() -> None:
    for limit in (500, 200):
        env = make("CartPole-v1", 3, seed=1, options={"max_episode_steps": limit})
        obs = env.reset()
        cut = []
        for _ in range(limit):
            # Push towards where the pole falls: that balances it.
            lean = obs[:, 2] + 0.5 * obs[:, 3] + 0.1 * obs[:, 1]
            step = env.step((lean > 0).astype(np.int64))
            obs = step.observation
            assert not step.terminated.any()
            cut.append(bool(step.truncated.all()))
        assert cut.index(True) == limit - 1


def test_swinging_reaches_the_hill() -> None:
    for name, strong in (("MountainCar-v0", 2.0), ("MountainCarContinuous-v0", 1.0)):
        env = make(name, 5, seed=0)
        obs = env.reset()
        reached = np.zeros(5, bool)
        best = np.full(5, -np.inf)
        for _ in range(160):
            right = obs[:, 1] >= 0
            actions = np.where(right, 2, 0) if strong == 2 else np.where(right, 1.0, -1.0)[:, None]
            step = env.step(actions)
            obs = step.observation
            reached |= step.terminated
            best = np.maximum(best, step.reward)
        assert reached.all()
        assert (best > 99).all() if strong == 1 else (best == -1).all()


@pytest.mark.parametrize("action", [np.nan, np.inf])
def test_actions_that_are_no_numbers(action: float) -> None:
    env = make("Pendulum-v1", 3)
    env.reset()
    actions = np.zeros((3, 1), np.float32)
    actions[1] = action
    with pytest.raises(IndexError, match=r"environment 1 is (?s:.*)diverged"):
        env.step(actions)


def test_pictures_move() -> None:
    for name in STATES:
        env = make(name, 1, seed=0)
        env.reset()
        first = env.render()
        for _ in range(12):
            env.step(env.action_space.sample(3, 1))
        assert first.dtype == np.uint8
        assert first.std() > 5
        assert np.abs(first.astype(int) - env.render()).max() > 50

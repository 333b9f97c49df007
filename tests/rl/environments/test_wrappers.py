from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from bestiary.core.errors import ConfigError, DataError
from bestiary.rl.environments import (
    CartPole,
    ClipReward,
    EpisodeStatistics,
    FrameStack,
    NormalizeObservation,
    NormalizeReward,
    RunningStatistics,
    Step,
    TimeLimit,
    VectorEnv,
    make,
)
from bestiary.rl.spaces import Box


def play(env: VectorEnv, steps: int = 80, seed: int = 0) -> list[Step]:
    rng = np.random.default_rng(seed)
    return [env.step(env.action_space.sample(rng, env.num_envs)) for _ in range(steps)]


def cartpoles(kind: str, num: int = 5) -> VectorEnv:
    """Ours, and Gymnasium's in a loop and as a vector."""
    if kind == "arrays":
        return make("CartPole-v1", num, seed=0)
    if kind == "loop":
        return make(lambda: gymnasium.make("CartPole-v1"), num, seed=0)
    mode = gymnasium.vector.AutoresetMode(kind)
    vector = gymnasium.make_vec(
        "CartPole-v1", num, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}
    )
    return make(vector, seed=0)


def test_statistics_of_episodes() -> None:
    env = EpisodeStatistics(make("MountainCarContinuous-v0", 4, options={"max_episode_steps": 7}))
    env.reset(0)
    steps = play(env, 30)
    finished = env.finished
    total = np.cumsum([s.reward for s in steps], axis=0)
    expected = [total[6], total[13] - total[6], total[20] - total[13], total[27] - total[20]]
    assert [n for _, n in finished] == [7] * 16
    assert np.allclose([r for r, _ in finished], np.concatenate(expected), atol=1e-5)
    assert env.finished == []
    env.reset()
    play(env, 6)
    assert env.finished == []


@pytest.mark.parametrize("kind", ["arrays", "loop", "SameStep", "NextStep", "Disabled"])
def test_limits_of_time(kind: str) -> None:
    inner = cartpoles(kind)
    env = TimeLimit(EpisodeStatistics(inner), 20)
    plain = cartpoles(kind)
    first, same = env.reset(0), plain.reset(0)
    assert np.array_equal(first, same)
    assert env.max_episode_steps == 20
    age = np.zeros(5, int)
    seen = {"terminated": 0, "truncated": 0}
    rng = np.random.default_rng(0)
    for _ in range(100):
        actions = rng.integers(0, 2, 5)
        true = CartPole().advance(first.T.astype(np.float64), actions)[0].T
        step = env.step(actions)
        age += 1
        assert np.array_equal(step.truncated, (age >= 20) & ~step.terminated)
        ended = step.terminated | step.truncated
        if ended.any():
            assert step.final_observation is not None
            assert np.abs(step.observation[ended]).max() <= 0.05
            assert np.abs(step.final_observation - true)[ended].max() <= 1e-5
        else:
            assert step.final_observation is None
        assert np.allclose(step.observation[~ended], true[~ended], atol=1e-5)
        first = step.observation
        age[ended] = 0
        seen["terminated"] += step.terminated.sum()
        seen["truncated"] += step.truncated.sum()
    assert min(seen.values()) >= 4
    lengths = [n for _, n in env.env.finished]  # type: ignore[attr-defined]
    assert len(lengths) == sum(seen.values())
    assert lengths.count(20) >= seen["truncated"]
    assert max(lengths) == 20


def test_stacked_frames() -> None:
    env = FrameStack(make("Catch-v0", 3, seed=0, options={"rows": 5, "cell": 1}), 3)
    assert env.observation_space == Box(0, 255, (3, 5, 10), np.uint8)
    plain = make("Catch-v0", 3, seed=0, options={"rows": 5, "cell": 1})
    frames = [plain.reset()] * 3
    assert np.array_equal(env.reset(), np.concatenate(frames, 1))
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for ours, step in zip(play(env, 12), play(plain, 12), strict=True):
        newest = step.observation if step.final_observation is None else step.final_observation
        frames = [*frames[1:], newest]
        if step.final_observation is None:
            assert ours.final_observation is None
        else:
            assert ours.final_observation is not None
            assert np.array_equal(ours.final_observation, np.concatenate(frames, 1))
            frames = [step.observation] * 3
        assert np.array_equal(ours.observation, np.concatenate(frames, 1))
        assert np.array_equal(ours.reward, step.reward)
        kept.append((ours.observation, ours.observation.copy()))
    assert all(np.array_equal(a, b) for a, b in kept)
    flat = FrameStack(make("CartPole-v1", 2), 4)
    assert flat.reset().shape == (2, 16)
    assert flat.observation_space.shape == (16,)


def test_running_statistics_are_those_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(50, 3, (1000, 4)) * np.array([1, 10, 0.1, 0])
    statistics = RunningStatistics((4,))
    for part in np.split(rows, [1, 7, 300, 300, 900]):
        statistics.update(part)
    assert statistics.count == 1000
    assert np.allclose(statistics.mean, rows.mean(0), rtol=1e-12)
    assert np.allclose(statistics.variance, rows.var(0), rtol=1e-9, atol=1e-12)


def test_normalized_observations() -> None:
    env = NormalizeObservation(make("MountainCar-v0", 16, seed=0))
    assert env.observation_space == Box(-10, 10, (2,))
    env.reset()
    steps = play(env, 250)
    late = np.concatenate([s.observation for s in steps[-100:]])
    assert late.dtype == np.float32
    assert np.abs(late).max() <= 10
    assert np.abs(late.mean(0)).max() < 0.5
    assert late.std(0) == pytest.approx([1, 1], abs=0.4)
    cut = next(s for s in steps if s.final_observation is not None)
    assert np.isfinite(cut.final_observation).all()  # type: ignore[arg-type]
    # Shared with an environment for evaluation, which leaves the statistics alone.
    count = env.statistics.count
    other = NormalizeObservation(
        make("MountainCar-v0", 2, seed=9), statistics=env.statistics, training=False
    )
    raw = make("MountainCar-v0", 2, seed=9).reset()
    s = env.statistics
    assert np.allclose(other.reset(), (raw - s.mean) / np.sqrt(s.variance), atol=1e-4)
    play(other, 5)
    assert env.statistics.count == count == 16 * 251


def test_final_observations_are_normalized_too() -> None:
    plain = make("CartPole-v1", 6, seed=0)
    env = NormalizeObservation(make("CartPole-v1", 6, seed=0))
    plain.reset()
    env.reset()
    found = 0
    for ours, step in zip(play(env), play(plain), strict=True):
        ended = step.terminated | step.truncated
        if ended.any():
            assert ours.final_observation is not None
            assert step.final_observation is not None
            found += 1
            # The pole leans by more than it ever does otherwise.
            assert (np.abs(ours.final_observation[ended]).max(1) > 1).all()
            assert not np.array_equal(ours.final_observation[ended], ours.observation[ended])
    assert found > 5
    assert np.array_equal(env.normalized(step.observation), ours.observation)


def test_normalized_rewards() -> None:
    """Against Gymnasium's: the same statistics but for their start."""
    env = NormalizeReward(make("Pendulum-v1", 8, seed=0), gamma=0.9)
    plain = make("Pendulum-v1", 8, seed=0)
    env.reset()
    plain.reset()
    returns = np.zeros(8)
    seen: list[np.ndarray] = []
    for ours, step in zip(play(env, 300), play(plain, 300), strict=True):
        returns = returns * 0.9 + step.reward
        seen.append(returns.copy())
        deviation = np.std(np.concatenate(seen))
        wanted = np.clip(step.reward / np.sqrt(deviation**2 + 1e-8), -10, 10)
        assert np.allclose(ours.reward, wanted, rtol=1e-4)
        returns[step.truncated] = 0
    assert ours.reward.dtype == np.float32


def test_clipped_rewards() -> None:
    env = ClipReward(make("Pendulum-v1", 3, seed=0))
    env.reset()
    assert {r for s in play(env, 5) for r in s.reward.tolist()} == {-1.0}
    env = ClipReward(make("Pendulum-v1", 3, seed=0), -2, 0)
    env.reset()
    assert min(r for s in play(env, 50) for r in s.reward.tolist()) == -2


def test_states_of_wrappers() -> None:
    def build() -> VectorEnv:
        inner = EpisodeStatistics(make("CartPole-v1", 6, seed=1))
        return NormalizeReward(NormalizeObservation(FrameStack(TimeLimit(inner, 15), 2)))

    env = build()
    env.reset()
    play(env, 33)
    saved = env.state()
    assert all(isinstance(v, (np.ndarray, int, list, dict)) for v in saved.values())
    first = play(env, 40, seed=1)
    other = build()
    other.load_state(saved)
    for a, b in zip(first, play(other, 40, seed=1), strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a[:4], b[:4], strict=True))
        assert (a.final_observation is None) == (b.final_observation is None)
    with pytest.raises(DataError, match="other wrappers"):
        FrameStack(make("CartPole-v1", 6)).load_state(saved)
    assert saved["env.env.env.env.env.steps"].shape == (6,)


def test_what_wrappers_pass_on() -> None:
    env = EpisodeStatistics(make("ConnectFour-v0", 2, seed=0))
    env.reset()
    mask = env.action_mask()
    assert mask is not None
    assert mask.shape == (2, 7)
    assert (env.id, env.fps, env.num_envs) == ("ConnectFour-v0", 2, 2)
    assert env.render(1).shape[2] == 3
    assert env.final_picture(0) is None
    env.close()


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: FrameStack(gymnasium.make("CartPole-v1")), "around a VectorEnv, not"),  # type: ignore[arg-type]
        (lambda: FrameStack(CartPole(), 0), "frames"),
        (lambda: FrameStack(make("GridWorld-v0")), "arrays are wanted"),
        (lambda: NormalizeObservation(make("GridWorld-v0")), "classes, not numbers"),
        (lambda: NormalizeObservation(CartPole(), clip=0), "clip"),
        (lambda: NormalizeReward(CartPole(), gamma=1.5), "gamma"),
        (lambda: NormalizeReward(CartPole(), clip=-1), "clip"),
        (lambda: TimeLimit(CartPole(), 2.5), "steps"),  # type: ignore[arg-type]
        (lambda: ClipReward(CartPole(), 1), "neither"),
        (lambda: ClipReward(CartPole(), 1, 0), "neither"),
    ],
)
def test_wrong_settings(wrong: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        wrong()

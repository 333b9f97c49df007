"""The replay memory against a plain list of what happened."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bestiary.core.errors import ConfigError, DataError
from bestiary.rl.environments.base import Step
from bestiary.rl.replay import Replay, memory_needed
from bestiary.rl.spaces import Box, Discrete
from bestiary.rl.sum_tree import SumTree

SPACE = Box(-np.inf, np.inf, (2,))


def filled(replay: Replay, steps: int, seed: int = 0) -> list[dict[str, Any]]:
    """Add random steps; returns them one environment's step each, with the memory's index."""
    rng = np.random.default_rng(seed)
    n, rows = replay.num_envs, replay.capacity // replay.num_envs + 1
    number = iter(range(10**6))
    now = np.array([[next(number), e] for e in range(n)], np.float32)
    log = []
    for t in range(steps):
        action = rng.integers(0, 5, n)
        reward = rng.standard_normal(n).astype(np.float32)
        kind = rng.integers(0, 8, n)
        terminated, truncated = kind == 0, kind == 1
        true_next = np.array([[next(number), e] for e in range(n)], np.float32)
        shown = true_next.copy()
        ended = terminated | truncated
        shown[ended] += 0.5  # the first observation of the next episode
        final = true_next if ended.any() else None
        replay.add(now, action, Step(shown, reward, terminated, truncated, final))
        for e in range(n):
            log.append(
                {
                    "index": (t % rows) * n + e,
                    "env": e,
                    "t": t,
                    "observation": now[e],
                    "action": action[e],
                    "reward": reward[e],
                    "next": true_next[e],
                    "terminated": terminated[e],
                    "ended": ended[e],
                }
            )
        now = shown
    return log


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("num_envs, steps", [(1, 20), (1, 95), (3, 40), (3, 9)])
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_draws_equal_the_list(n_steps: int, num_envs: int, steps: int, alpha: float) -> None:
    replay = Replay(
        60, SPACE, Discrete(5), num_envs, discount=0.9, n_steps=n_steps, alpha=alpha, seed=1
    )
    log = filled(replay, steps)
    kept = {e["index"]: e for e in log[-len(replay) :]}
    assert len(kept) == len(replay) == min(60, steps * num_envs)
    follow = {(e["env"], e["t"]): e for e in log}
    batch = replay.sample(400)
    assert set(batch.indices.tolist()) <= set(kept)
    assert len(set(batch.indices.tolist())) > 0.9 * len(kept)  # every one has its turn
    for row, index in enumerate(batch.indices.tolist()):
        entry = last = kept[index]
        reward, discount = float(entry["reward"]), 0.9
        for k in range(1, n_steps):
            if last["ended"] or (entry["env"], entry["t"] + k) not in follow:
                break
            last = follow[(entry["env"], entry["t"] + k)]
            reward += discount * float(last["reward"])
            discount *= 0.9
        assert batch.observation[row].tolist() == entry["observation"].tolist()
        assert batch.action[row] == entry["action"]
        assert batch.reward[row] == pytest.approx(reward, abs=1e-5)
        assert batch.discount[row] == pytest.approx(0 if last["terminated"] else discount)
        if not last["terminated"]:  # a truncated episode goes on from its true last observation
            assert batch.next_observation[row].tolist() == last["next"].tolist()


def test_pixels_are_stored_once() -> None:
    pixels = Box(0, 255, (4, 20, 20), np.uint8)
    replay = Replay(1000, pixels, Discrete(3))
    assert replay.nbytes < 1.02 * 1001 * 4 * 20 * 20
    assert replay.nbytes == memory_needed(1000, pixels, Discrete(3))


def test_priorities_are_drawn_in_proportion() -> None:
    replay = Replay(64, SPACE, Discrete(5), alpha=0.5, seed=0)
    filled(replay, 64)
    error = np.arange(64.0)
    indices = np.array(sorted(set(replay.sample(2000).indices.tolist())))
    assert len(indices) == 64
    replay.update_priorities(indices, error)
    share = (error + 1e-6) ** 0.5
    share /= share.sum()
    counts = np.zeros(65)
    for _ in range(200):
        np.add.at(counts, replay.sample(100).indices, 1)
    drawn = counts[indices] / counts.sum()
    assert np.abs(drawn - share).max() < 0.004
    batch = replay.sample(500, beta=0.7)
    place = {index: k for k, index in enumerate(indices.tolist())}
    wanted = (64 * share[[place[i] for i in batch.indices.tolist()]]) ** -0.7
    np.testing.assert_allclose(batch.weight, wanted / wanted.max(), rtol=1e-5)


@pytest.mark.parametrize("size", [1, 31, 33, 1000, 40_000])
def test_sum_tree_against_cumulative_sums(size: int) -> None:
    rng = np.random.default_rng(size)
    tree = SumTree(size)
    for _ in range(3):
        index = rng.permutation(size)[: max(1, size // 2)]
        tree.update(index, rng.integers(0, 5, len(index)).astype(float))
    tree.update(np.array([0]), np.array([2.0]))
    ends = tree.priorities.cumsum()
    assert tree.total == ends[-1]
    position = rng.random(500) * tree.total
    assert tree.find(position).tolist() == np.searchsorted(ends, position, "right").tolist()
    # The very end belongs to the last entry that has a length.
    assert tree.find(np.array([tree.total]))[0] == tree.priorities.nonzero()[0][-1]


def test_resumes_exactly() -> None:
    for alpha, steps in ((0.0, 30), (0.6, 30), (0.6, 90)):
        options: dict[str, Any] = {"alpha": alpha, "n_steps": 2}
        first = Replay(40, SPACE, Discrete(5), 2, **options)
        filled(first, steps)
        first.update_priorities(first.sample(8).indices, np.arange(8.0))
        second = Replay(40, SPACE, Discrete(5), 2, **options, seed=9)
        second.load_state(first.state())
        for _ in range(3):
            for a, b in zip(first.sample(16), second.sample(16), strict=True):
                np.testing.assert_array_equal(a, b)
            filled(first, 3, seed=5)
            filled(second, 3, seed=5)


def test_too_large() -> None:
    with pytest.raises(ConfigError, match=r"GB free.\nKeep fewer: buffer_size=\d+") as caught:
        Replay(10**9, Box(0, 255, (4, 84, 84), np.uint8), Discrete(3))
    assert caught.value.needed > 2.8e13
    assert 0 < caught.value.fits < 10**8


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"capacity": 0}, "capacity is a whole number"),
        ({"capacity": 2.5}, "capacity is a whole number"),
        ({"n_steps": 0}, "n_steps"),
        ({"capacity": 4, "num_envs": 2, "n_steps": 3}, "Make capacity at least 6"),
        ({"discount": 1.5}, "discount"),
        ({"discount": np.nan}, "discount"),
        ({"alpha": -1}, "alpha"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Replay(**{"capacity": 10, **settings}, observation_space=SPACE, action_space=Discrete(5))


def test_wrong_data() -> None:
    replay = Replay(10, SPACE, Discrete(5), alpha=1)
    with pytest.raises(ConfigError, match="nothing to draw"):
        replay.sample(2)
    no = np.zeros(1, bool)
    step = Step(np.zeros((1, 2)), np.array([np.nan], np.float32), no, no, None)
    with pytest.raises(DataError, match="NaN"):
        replay.add(np.zeros((1, 2)), np.zeros(1, int), step)
    filled(replay, 5)
    with pytest.raises(DataError, match="diverged"):
        replay.update_priorities(np.array([0, 1]), np.array([1, np.nan]))
    other = Replay(12, SPACE, Discrete(5), alpha=1)
    filled(other, 30)
    with pytest.raises(DataError, match="another capacity"):
        replay.load_state(other.state())
    with pytest.raises(DataError, match=r"lacks .*reward"):
        replay.load_state({"row": 1})


@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_cut_ends_the_episodes_where_they_are(n_steps: int) -> None:
    replay = Replay(40, SPACE, Discrete(5), 2, discount=0.9, n_steps=n_steps, seed=1)
    replay.cut()  # there is nothing to cut
    zero, no = np.zeros(2, np.float32), np.zeros(2, np.bool_)

    def see(number: float) -> np.ndarray:
        return np.full((2, 2), number, np.float32)

    for t in range(4):
        replay.add(see(t), np.zeros(2, int), Step(see(t + 1), zero + 1, no, no, None))
    replay.cut()
    for t in range(100, 103):
        replay.add(see(t), np.zeros(2, int), Step(see(t + 1), zero + 1, no, no, None))
    batch = replay.sample(300)
    before = batch.observation[:, 0] < 50
    assert before.any() and not before.all()
    np.testing.assert_array_equal(batch.next_observation[:, 0] < 50, before)
    last = batch.observation[:, 0] == 3  # it has a future: the episode was cut
    np.testing.assert_allclose(batch.next_observation[last], 4)
    np.testing.assert_allclose(batch.discount[last], 0.9)
    np.testing.assert_allclose(batch.reward[last], 1)

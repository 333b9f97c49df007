"""What all environments promise, tried on CartPole and on one written here."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from bestiary.core.errors import (
    BestiaryError,
    ConfigError,
    DataError,
    DtypeError,
    IndexRangeError,
    ShapeError,
)
from bestiary.rl.environments import ENVIRONMENTS, ArrayEnv, VectorEnv, make
from bestiary.rl.spaces import Box, Discrete


class Counter(ArrayEnv):
    """Counts its steps; ends by itself after `length`, which is drawn; action 1 counts twice."""

    id = "Counter"
    observation_space = Box(0, 100, (2,))
    action_space = Discrete(2)

    def begin(self, num: int) -> np.ndarray:
        return np.stack([np.zeros(num, np.int64), self.rng.integers(2, 9, num)])

    def advance(
        self, state: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        new = state.copy()
        new[0] += 1 + actions
        return new, new[0].astype(np.float32), new[0] >= new[1]

    def observe(self, state: np.ndarray) -> np.ndarray:
        return state.T.astype(np.float32)


def test_ended_rows_show_the_next_episode() -> None:
    env = Counter(50, seed=0, max_episode_steps=5)
    obs = env.reset()
    age = np.zeros(50, int)
    seen = {"terminated": 0, "truncated": 0, "none": 0}
    for _ in range(30):
        length = obs[:, 1].copy()
        step = env.step(np.zeros(50, int))
        age += 1
        assert np.array_equal(step.reward, age)
        assert np.array_equal(step.terminated, age >= length)
        assert np.array_equal(step.truncated, (age >= 5) & (age < length))
        ended = step.terminated | step.truncated
        if ended.any():
            assert step.final_observation is not None
            assert np.array_equal(step.final_observation[ended, 0], age[ended])
            assert np.array_equal(step.final_observation[ended, 1], length[ended])
            assert (step.observation[ended, 0] == 0).all()
        else:
            assert step.final_observation is None
            seen["none"] += 1
        age[ended] = 0
        assert np.array_equal(step.observation[:, 0], age)
        obs = step.observation
        seen["terminated"] += step.terminated.sum()
        seen["truncated"] += step.truncated.sum()
    assert min(seen["terminated"], seen["truncated"]) > 10


KINDS = [*ENVIRONMENTS, Counter]


def run(env: VectorEnv, rng: np.random.Generator, steps: int = 60) -> list[np.ndarray]:
    """Everything that is seen under legal actions, drawn."""
    seen: list[np.ndarray] = []
    for _ in range(steps):
        mask = env.action_mask()
        actions = env.action_space.sample(rng, env.num_envs)
        if mask is not None:
            actions = (mask * rng.random(mask.shape)).argmax(1)
        step = env.step(actions)
        seen += step[:4]
        if step.final_observation is not None:
            seen.append(step.final_observation[step.terminated | step.truncated])
    return seen


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_repeats_everything(kind: Any) -> None:
    def episode(seed: int) -> list[np.ndarray]:
        env = make(kind, 8, seed=seed, options={"max_episode_steps": 25})
        return [env.reset(), *run(env, np.random.default_rng(0))]

    first = episode(3)
    assert same(first, episode(3))
    assert not same(first, episode(4)) or kind == "GridWorld-v0"  # which draws nothing
    env = make(kind, 8)
    assert np.array_equal(env.reset(3), first[0])
    assert not np.array_equal(env.reset(), first[0]) or kind == "GridWorld-v0"
    assert np.array_equal(env.reset(3), first[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_resumes_exactly(kind: Any) -> None:
    options: dict[str, Any] = {"max_episode_steps": 25}
    if kind == "GridWorld-v0":
        options["slip"] = 0.2
    env = make(kind, 8, seed=5, options=options)
    env.reset()
    run(env, np.random.default_rng(0), 20)
    saved = env.state()
    # The stream's state is JSON, the rest arrays.
    saved["rng"] = json.loads(json.dumps(saved["rng"]))
    assert all(isinstance(saved[k], np.ndarray) for k in ("state", "steps"))
    first = run(env, np.random.default_rng(1))
    for other in (env, make(kind, 8, options=options)):
        other.load_state(saved)
        assert same(run(other, np.random.default_rng(1)), first)


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_not_written_into(kind: Any) -> None:
    env = make(kind, 8, seed=5)
    assert isinstance(env, ArrayEnv)
    env.reset()
    for seed in range(30):
        held = env._state
        assert held is not None
        copy = held.copy()
        run(env, np.random.default_rng(seed), 1)
        assert np.array_equal(held, copy)


def test_arrays_belong_to_the_caller() -> None:
    env = make("CartPole-v1", 4, seed=0)
    kept = [env.reset()]
    copies = [kept[0].copy()]
    for _ in range(40):
        for array in env.step(np.zeros(4, int)):
            if array is not None:
                kept.append(array)
                copies.append(array.copy())
    assert all(np.array_equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_reset_comes_first() -> None:
    env = make("CartPole-v1", 2)
    for early in (lambda: env.step(np.zeros(2, int)), env.state, env.render):
        with pytest.raises(ConfigError, match=r"reset\(\) first"):
            early()


@pytest.mark.parametrize(
    "actions, error, words",
    [
        ([0, 1], ShapeError, r"\(3,\).*\(2,\)"),
        ([[0, 1, 0]], ShapeError, r"\(1, 3\)"),
        (1, ShapeError, r"\(\)"),
        ([0.0, 1.0, 0.0], DtypeError, "float64"),
        ([True, False, True], DtypeError, "bool"),
        (["a", "b", "c"], DtypeError, "Discrete"),
        ([0, 2, 0], IndexRangeError, "2 is outside 0 to 1"),
        ([0, -1, 0], IndexRangeError, "-1 is outside 0 to 1"),
    ],
)
def test_wrong_actions(actions: Any, error: type[BestiaryError], words: str) -> None:
    env = make("CartPole-v1", 3, seed=0)
    first = env.reset()
    with pytest.raises(error, match=words):
        env.step(actions)
    assert np.array_equal(env.state()["state"].T.astype(np.float32), first)


@pytest.mark.parametrize(
    "part, value, error, words",
    [
        ("reward", np.full(3, np.nan, np.float32), DataError, r"Counter.*rewards hold nan at \(0,"),
        ("reward", np.ones((3, 1), np.float32), ShapeError, r"rewards are of shape \(3, 1\)"),
        ("reward", np.ones(3), DtypeError, r"float64.*astype\(np.float32\)"),
        ("reward", [1, 2, 3], DtypeError, "list"),
        ("terminated", np.zeros(3), DtypeError, "bool"),
        ("state", np.full((2, 3), np.inf), DataError, "states hold inf"),
        ("state", np.ones((2, 4)), ShapeError, "states"),
        ("observation", np.ones((3, 3), np.float32), ShapeError, r"observations.*\(3, 3\)"),
        ("observation", np.ones((3, 2)), DtypeError, "observations"),
    ],
)
def test_mistakes_in_ones_own_environment(
    part: str, value: Any, error: type[BestiaryError], words: str
) -> None:
    class Wrong(Counter):
        def advance(self, state: np.ndarray, actions: np.ndarray) -> Any:
            right = dict(
                zip(("state", "reward", "terminated"), super().advance(state, actions), strict=True)
            )
            return tuple((right | ({part: value} if part in right else {})).values())

        def observe(self, state: np.ndarray) -> Any:
            begun = self._state is not None
            return value if part == "observation" and begun else super().observe(state)

    env = Wrong(3)
    env.reset()
    with pytest.raises(error, match=words):
        env.step(np.zeros(3, int))


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda s: s.pop("rng"), "lacks rng"),
        (lambda s: s.update(state=s["state"][:, :2]), r"\(4, 2\).*\(4, 3\)"),
        (lambda s: s.update(state=s["state"][:2]), r"\(2, 3\)"),
        (lambda s: s.update(steps=s["steps"][:1]), "counts of steps"),
        (lambda s: s.update(rng={"bit_generator": "PCG64"}), "damaged"),
        (lambda s: s.update(rng=3), "damaged"),
    ],
)
def test_wrong_states(change: Any, words: str) -> None:
    env = make("CartPole-v1", 3, seed=0)
    env.reset()
    state = env.state()
    change(state)
    with pytest.raises(DataError, match=words):
        make("CartPole-v1", 3).load_state(state)


@pytest.mark.parametrize("number", [0, -1, 2.5, "4", True])
def test_wrong_numbers(number: Any) -> None:
    for kind in ("CartPole-v1", Counter):
        with pytest.raises(ConfigError, match="num_envs"):
            make(kind, number)
        with pytest.raises(ConfigError, match="max_episode_steps"):
            make(kind, options={"max_episode_steps": number})


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True])
def test_wrong_seeds(seed: Any) -> None:
    with pytest.raises(ConfigError, match="seed"):
        make("CartPole-v1", seed=seed)
    with pytest.raises(ConfigError, match="seed"):
        make("CartPole-v1").reset(seed)


def test_pictures() -> None:
    with make("CartPole-v1", 2, seed=0) as env:
        env.reset()
        left, right = env.render(), env.render(1)
        assert left.dtype == np.uint8
        assert left.shape[2] == 3
        assert len(np.unique(left.reshape(-1, 3), axis=0)) > 20
        assert not np.array_equal(left, right)
        assert np.array_equal(env.render(-1), right)
        with pytest.raises(IndexRangeError, match="no environment 2, only 0 to 1"):
            env.render(2)
    plain = Counter(2)
    plain.reset()
    with pytest.raises(ConfigError, match="draws no pictures"):
        plain.render()
    assert "Counter x 2" in repr(plain)

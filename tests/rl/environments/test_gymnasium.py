"""Environments of Gymnasium and in its manner: singles, and vectors of all three kinds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

from bestiary.core.errors import BestiaryError, ConfigError, DataError, MissingExtra, ShapeError
from bestiary.core.notice import forget_warnings
from bestiary.rl.environments import make
from bestiary.rl.environments.gymnasium import GymnasiumVector
from bestiary.rl.environments.loop import LoopEnv
from bestiary.rl.spaces import Box, Discrete

STEPS = 120
LIMIT = 30


class Line:
    """Walk to 5 from a random place; written without Gymnasium. `wrong` makes mistakes."""

    observation_space = Box(-20, 20, (1,))
    action_space = Discrete(2)

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong
        self.rng = np.random.default_rng()

    def reset(self, *, seed: int | None = None) -> Any:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.x, self.steps = float(self.rng.integers(-3, 3)), 0
        return self.spoiled("reset", (np.array([self.x], np.float32), {}))

    def step(self, action: int) -> Any:
        assert type(action) is int
        if self.wrong == "raise":
            raise RuntimeError("the simulator is gone")
        self.x += 2 * action - 1
        self.steps += 1
        end, cut = self.x >= 5, self.steps >= 8
        return self.spoiled("step", (np.array([self.x], np.float32), -1.0, end, cut, {}))

    def spoiled(self, where: str, answer: tuple[Any, ...]) -> Any:
        kind, _, what = self.wrong.partition(" ")
        if kind != where:
            return answer
        first, rest = answer[0], answer[1:]
        spoilers: dict[str, Callable[[], Any]] = {
            "nan": lambda: (first * np.nan, *rest),
            "shape": lambda: (np.zeros(2, np.float32), *rest),
            "ragged": lambda: ([[1.0], [1.0, 2.0]], *rest),
            "text": lambda: ("here", *rest),
            "old": lambda: (first, -1.0, False, {}) if where == "step" else first,
            "reward nan": lambda: (first, np.nan, *rest[1:]),
            "reward shape": lambda: (first, np.ones(2), *rest[1:]),
            "reward none": lambda: (first, None, *rest[1:]),
        }
        return spoilers[what]()


class Bandit(gymnasium.Env[Any, Any]):
    """Continuous actions, classes as observations."""

    observation_space = gymnasium.spaces.Discrete(3, start=1)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}

    def __init__(self, observation: Any = 2, render_mode: str | None = None) -> None:
        self.observation, self.render_mode = observation, render_mode
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.observation, {}

    def step(self, action: Any) -> Any:
        self.taken.append(action)
        return self.observation, float(action.sum()), True, True, {}

    def render(self) -> Any:
        return np.full((8, 9, 3), 200, np.uint8)


def run(env: Any, seed: int = 3) -> list[tuple[Any, ...]]:
    """The trajectory under fixed actions; final observations where rows ended."""
    rng = np.random.default_rng(0)
    found: list[tuple[Any, ...]] = [(env.reset(seed),)]
    for _ in range(STEPS):
        step = env.step(rng.integers(0, 2, env.num_envs))
        ended = step.terminated | step.truncated
        assert (step.final_observation is not None) == ended.any()
        final = None if step.final_observation is None else step.final_observation[ended]
        found.append((*step[:4], final))
    env.close()
    return found


def same(a: list[tuple[Any, ...]], b: list[tuple[Any, ...]]) -> bool:
    return all(
        np.array_equal(x, y) for r, s in zip(a, b, strict=True) for x, y in zip(r, s, strict=True)
    )


@pytest.fixture(scope="module")
def direct() -> list[tuple[Any, ...]]:
    """What four CartPoles do, stepped by hand, with episodes of at most 30 steps."""
    envs = [gymnasium.make("CartPole-v1", max_episode_steps=LIMIT) for _ in range(4)]
    rng = np.random.default_rng(0)
    found: list[tuple[Any, ...]] = [
        (np.stack([e.reset(seed=3 + i)[0] for i, e in enumerate(envs)]),)
    ]
    for _ in range(STEPS):
        rows, finals = [], []
        for env, action in zip(envs, rng.integers(0, 2, 4), strict=True):
            obs, reward, end, cut, _ = env.step(action)
            if end or cut:
                finals.append(obs)
                obs, _ = env.reset()
            rows.append((obs, reward, end, cut and not end))
        obs, reward, end, cut = (np.stack(part) for part in zip(*rows, strict=True))
        found.append((obs, reward, end, cut, np.stack(finals) if finals else None))
    return found


def test_singles_are_stepped_in_a_loop(direct: list[tuple[Any, ...]]) -> None:
    env = make(lambda: gymnasium.make("CartPole-v1", max_episode_steps=LIMIT), 4)
    assert isinstance(env, LoopEnv)
    assert (env.id, env.fps, env.max_episode_steps) == ("CartPole-v1", 50, LIMIT)
    assert same(run(env), direct)
    ends, cuts = (sum(step[k].sum() for step in direct[1:]) for k in (2, 3))
    assert min(ends, cuts) >= 2


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_all_three_ways_of_beginning_anew(
    kind: str, mode: str, direct: list[tuple[Any, ...]]
) -> None:
    theirs = gymnasium.make_vec(
        "CartPole-v1",
        4,
        vectorization_mode=kind,
        vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode(mode)},
        max_episode_steps=LIMIT,
    )
    env = make(theirs)
    assert isinstance(env, GymnasiumVector)
    assert (env.mode, env.num_envs, env.id) == (mode, 4, "CartPole-v1")
    assert same(run(env), direct)


def test_wrapped_vectors(direct: list[tuple[Any, ...]]) -> None:
    theirs = gymnasium.make_vec("CartPole-v1", 4, vectorization_mode="sync", max_episode_steps=30)
    env = make(gymnasium.wrappers.vector.ClipReward(theirs, 0, 0.5))
    found = run(env)
    assert np.array_equal(found[5][0], direct[5][0])
    assert (found[5][1] == 0.5).all()


def test_vectors_that_cannot_reset_rows(direct: list[tuple[Any, ...]]) -> None:
    """Gymnasium's own CartPole on arrays is one: its single environments take its place."""
    forget_warnings()
    theirs = gymnasium.make_vec("CartPole-v1", 4, max_episode_steps=LIMIT)
    assert type(theirs).__name__ == "CartPoleVectorEnv"
    with pytest.warns(UserWarning, match="CartPoleVectorEnv .* one by one"):
        env = make(theirs)
    assert same(run(env), direct)
    wrapped = gymnasium.wrappers.vector.ClipReward(gymnasium.make_vec("CartPole-v1", 4), 0, 0.5)
    with pytest.raises(ConfigError, match=r"reset_mask(?s:.*)vectorization_mode='sync'"):
        make(wrapped)
    one = make(gymnasium.make_vec("CartPole-v1", 1))  # a single one is reset whole
    assert isinstance(one, GymnasiumVector)
    assert sum(step[2].sum() for step in run(one)[1:]) > 2


class Rows(gymnasium.vector.VectorEnv):  # type: ignore[type-arg]
    """A vector environment of one's own, that obeys `reset_mask` unless told not to."""

    def __init__(self, mode: str, num_envs: int = 3, wrong: str = "") -> None:
        self.num_envs, self.wrong = num_envs, wrong
        self.metadata = {"autoreset_mode": mode}
        self.single_observation_space = gymnasium.spaces.Box(0, 99, (1,), np.float32)
        self.single_action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        if self.wrong == "all":
            mask = np.ones(self.num_envs, bool)
        self.x = np.where(mask, 0, getattr(self, "x", np.zeros(self.num_envs)))
        return self.x[:, None].astype(np.float32), {}

    def step(self, actions: Any) -> Any:
        self.x = self.x + 1 + actions
        ended, infos = self.x >= 10, {}
        seen = self.x[:, None].astype(np.float32)
        if self.metadata["autoreset_mode"] == "SameStep" and ended.any():
            if not self.wrong:
                infos["final_obs"] = seen.copy()
            seen[ended], self.x = 0, np.where(ended, 0, self.x)
        reward = np.full(self.num_envs, np.nan) if self.wrong == "nan" else self.x
        return seen, reward, ended, np.zeros(self.num_envs, bool), infos


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_vectors_of_ones_own(mode: str) -> None:
    env = make(Rows(mode))
    assert isinstance(env, GymnasiumVector)
    env.reset(0)
    for _ in range(8):
        assert env.step(np.array([1, 0, 0])).final_observation is None or _ == 4
    step = env.step(np.array([1, 0, 0]))
    assert step.observation.ravel().tolist() == [8, 9, 9]
    step = env.step(np.array([1, 0, 1]))
    assert step.observation.tolist() == [[0], [0], [0]]
    assert step.final_observation is not None
    assert step.final_observation.tolist() == [[10], [10], [11]]


@pytest.mark.parametrize(
    "mode, wrong, error, words",
    [
        ("Disabled", "all", DataError, "reset others too"),
        ("NextStep", "all", ConfigError, "cannot reset single rows"),
        ("SameStep", "final", DataError, "no 'final_obs'"),
        ("SameStep", "nan", DataError, "rewards hold nan"),
        ("Later", "", ConfigError, "'Later'"),
    ],
)
def test_mistakes_of_vectors(mode: str, wrong: str, error: type[Exception], words: str) -> None:
    def play() -> None:
        env = make(Rows(mode, wrong=wrong))
        env.reset()
        for _ in range(12):
            env.step(np.array([0, 0, 1]))

    with pytest.raises(error, match=words):
        play()


def test_environments_that_know_nothing_of_gymnasium() -> None:
    env = make(Line, 3, seed=0)
    first = env.reset()
    assert first.shape == (3, 1)
    assert np.array_equal(first, env.reset(0))
    assert env.id == "Line"
    ended = {"terminated": 0, "truncated": 0}
    for _ in range(40):
        step = env.step(np.array([1, 0, 1]))
        assert not (step.terminated & step.truncated).any()
        ended["terminated"] += step.terminated.sum()
        ended["truncated"] += step.truncated.sum()
    assert min(ended.values()) >= 4


def test_actions_and_classes_of_others() -> None:
    env = make(Bandit, 2)
    assert env.reset().tolist() == [2, 2]
    step = env.step(np.array([[0.5, -3], [9, 0.25]]))
    assert step.reward.tolist() == [-0.5, 1.25]
    assert step.terminated.all()
    assert not step.truncated.any()  # the end of its own counts
    (inner, _) = env.envs  # type: ignore[attr-defined]
    assert inner.taken[0].dtype == np.float32
    with pytest.raises(DataError, match="observations, 7 is outside 1 to 3"):
        make(Bandit(7)).reset()
    with pytest.raises(ConfigError, match="cannot be saved"):
        env.state()


@pytest.mark.parametrize(
    "wrong, error, words",
    [
        ("reset nan", DataError, r"Line: the observations hold nan at \(0, 0\)"),
        ("step nan", DataError, r"Line: the observations hold nan"),
        ("reset shape", ShapeError, r"reset\(\) of environment 0.*\(2,\)(?s:.*)Box"),
        ("step shape", ShapeError, r"step\(\) of environment 0"),
        ("step ragged", ShapeError, "shape"),
        ("step text", ShapeError, "<U4"),
        ("reset old", DataError, r"reset\(\) gave an array(?s:.*)return observation, \{\}"),
        ("step old", DataError, "a tuple of 4(?s:.*)old Gym"),
        ("step reward nan", DataError, r"rewards hold nan at \(0,\)"),
        ("step reward shape", ShapeError, "as reward an array of shape"),
        ("step reward none", ShapeError, "NoneType"),
    ],
)
def test_mistakes_of_singles(wrong: str, error: type[BestiaryError], words: str) -> None:
    env = make(lambda: Line(wrong), 2)

    def play() -> None:
        env.reset()
        env.step(np.zeros(2, int))

    with pytest.raises(error, match=words):
        play()


def test_exceptions_of_others_say_where() -> None:
    env = make(lambda: Line("raise"), 2)
    env.reset()
    with pytest.raises(RuntimeError, match="simulator is gone") as caught:
        env.step(np.zeros(2, int))
    assert "Line: step of environment 0" in caught.value.__notes__[0]


def test_what_is_no_environment() -> None:
    class Half:
        observation_space = action_space = Discrete(2)

        def reset(self, seed: int | None = None) -> Any: ...

    for wrong, words in (
        (Half(), "Half is no environment: it has no step"),
        (3, "int is no environment"),
        (object, "no reset"),
        (lambda: None, "NoneType"),
    ):
        with pytest.raises(ConfigError, match=words):
            make(wrong)
    with pytest.raises(ConfigError, match=r"Dict is not supported(?s:.*)FlattenObservation"):
        make(_with_space(gymnasium.spaces.Dict({"a": gymnasium.spaces.Discrete(2)})))
    sizes = iter([2, 3])
    with pytest.raises(ConfigError, match="environment 1 has the action_space"):
        make(lambda: _with_space(None, gymnasium.spaces.Discrete(next(sizes))), 2)
    shared = Line()
    with pytest.raises(ConfigError, match="several times"):
        make(lambda: shared, 2)
    with pytest.raises(ConfigError, match="list"):
        LoopEnv([])


def _with_space(observation: Any = None, action: Any = None) -> Any:
    env = Bandit()
    env.observation_space = observation or env.observation_space
    env.action_space = action or env.action_space
    return env


def test_one_object_becomes_many_by_its_spec() -> None:
    env = make(gymnasium.make("MountainCar-v0", max_episode_steps=7), 3, seed=0)
    assert (env.num_envs, env.max_episode_steps) == (3, 7)
    first = env.reset()
    assert len(np.unique(first[:, 0])) == 3
    with pytest.raises(ConfigError, match=r"make\(lambda: Line\(...\), 4\)"):
        make(Line(), 4)


def test_gymnasiums_ids() -> None:
    env = make("FrozenLake-v1", 2, seed=0, options={"is_slippery": False})
    assert env.reset().tolist() == [0, 0]
    step = env.step(np.array([2, 1]))
    assert step.observation.tolist() == [1, 4]
    assert env.max_episode_steps == 100
    with pytest.raises(ConfigError, match=r"'FrozenLaek-v1'(?s:.*)FrozenLake-v1") as caught:
        make("FrozenLaek-v1")
    assert "FrozenLake-v1" in caught.value.near
    with pytest.raises(ConfigError, match="nonsense"):
        make("FrozenLake-v1", options={"nonsense": 3})
    with pytest.raises(ConfigError, match=r"no environment 'zzzz'(?s:.*)module:Class"):
        make("zzzz")


def test_pictures_of_others() -> None:
    env = make(Bandit, 2, options={"render_mode": "rgb_array"})
    env.reset()
    assert env.render(1).shape == (8, 9, 3)
    with pytest.raises(ConfigError, match=r"options={'render_mode': 'rgb_array'}"):
        make(Bandit).render()
    broken = make(Bandit, options={"render_mode": "rgb_array"})
    broken.envs[0].render = lambda: None  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"render\(\) gave NoneType"):
        broken.render()
    vector = make(gymnasium.vector.SyncVectorEnv([lambda: Bandit(2, "rgb_array")] * 2))
    vector.reset()
    assert vector.render(1).shape == (8, 9, 3)


def test_without_gymnasium(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingExtra, match=r"pip install 'bestiary\[rl\]'") as caught:
        make("LunarLander-v3")
    assert caught.value.extra == "rl"
    with pytest.raises(ConfigError, match="Near: CartPole-v1"):
        make("CartPol-v1")
    assert make("CartPole-v1", 2).reset().shape == (2, 4)
    assert make(Line, 2).reset().shape == (2, 1)


def test_what_gymnasiums_environments_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for name in ("gymnasium.envs.box2d", "gymnasium.envs.box2d.lunar_lander"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(MissingExtra, match=r"pip install 'bestiary\[box2d\]'") as caught:
        make("LunarLander-v3")
    assert caught.value.extra == "bestiary[box2d]"

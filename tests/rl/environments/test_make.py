"""Names, modules and objects that become environments."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bestiary.core.errors import ConfigError
from bestiary.rl import environments
from bestiary.rl.environments import ENVIRONMENTS, ArrayEnv, CartPole, make
from bestiary.rl.environments.base import VectorEnv

MODULE = """
from bestiary.rl.environments import CartPole
from bestiary.rl.spaces import Discrete

class Short(CartPole):
    id = "Short"
    max_episode_steps = 3

class Single:
    observation_space = action_space = Discrete(2)
    def __init__(self, value=1):
        self.value = value
    def reset(self, seed=None):
        return self.value, {}
    def step(self, action):
        return self.value, 1.0, True, False, {}

def several(num_envs):
    return Short(num_envs)

def fixed():
    return Short(5)

number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_environments.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.delitem(sys.modules, "my_environments", raising=False)
    return "my_environments"


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_id(name: str) -> None:
    env = make(name, 3, seed=0)
    assert isinstance(env, ArrayEnv)
    assert (env.id, env.num_envs) == (name, 3)
    assert make(name.lower().replace("-", "_")).id == name
    first = env.reset()
    assert first.shape == (3, *env.observation_space.shape)
    assert first.dtype == env.observation_space.dtype
    rng = np.random.default_rng(0)
    for _ in range(60):
        mask = env.action_mask()
        actions = env.action_space.sample(rng, 3)
        if mask is not None:
            actions = mask.argmax(1)
        step = env.step(actions)
        assert env.observation_space.problem(step.observation) is None
        assert step.observation.dtype == first.dtype
        assert step.reward.dtype == np.float32
        assert not (step.terminated & step.truncated).any()
    assert env.render().dtype == np.uint8
    env.trusted = False  # the checks of environments of one's own pass
    env.step(actions if (mask := env.action_mask()) is None else mask.argmax(1))


def test_versions_are_forgiven() -> None:
    assert make("cartpole").id == "CartPole-v1"
    assert make("mountain-car-continuous").id == "MountainCarContinuous-v0"


def test_classes_and_functions(module: str) -> None:
    assert make(CartPole, 4).num_envs == 4
    assert make(CartPole).num_envs == 1
    for name, num in (("Short", 4), ("Single", 4), ("several", 4), ("fixed", None)):
        env = make(f"{module}:{name}", num)
        assert env.num_envs == (num or 5)
        assert len(env.reset()) == env.num_envs
        step = env.step(np.zeros(env.num_envs, int))
        assert isinstance(env, VectorEnv)
        assert step.reward.tolist() == [1] * env.num_envs
    assert make(f"{module}:Single", options={"value": 0}).reset().tolist() == [0]
    assert make(f"{module}:Short").max_episode_steps == 3


def test_seeds_reach_everything(module: str) -> None:
    for what in ("CartPole-v1", CartPole, f"{module}:Short", lambda: CartPole(3), CartPole(3)):
        env = make(what, 3, seed=7)
        assert np.array_equal(env.reset(7), make("CartPole-v1", 3, seed=7).reset())


@pytest.mark.parametrize(
    "name, words",
    [
        ("my_environments:Shrt", "no 'Shrt'. Near: Short"),
        ("my_environments:number", "number|int"),
        ("my_environment:Short", "no module 'my_environment'"),
        (":Short", "no module and class"),
        (".a:Short", "no module and class"),
        ("", "no environment ''"),
    ],
)
def test_wrong_names(module: str, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(name)


def test_failing_imports_are_not_hidden(module: str, tmp_path: Path) -> None:
    (tmp_path / "needs_more.py").write_text("import not_there_at_all\n")
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        make("needs_more:Env")


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: make(CartPole(3), 4), "has 3 environments, and 4"),
        (lambda: make(CartPole(3), options={"a": 1}), "too late"),
        (lambda: make(CartPole, options={"nonsense": 1}), r"nonsense(?s:.*)It takes: num_envs"),
        (lambda: make("CartPole-v1", options={"nonsense": 1}), "nonsense"),
        (lambda: make("CartPole-v1", 0), "num_envs"),
        (lambda: make(CartPole(3), seed=-1), "seed"),
    ],
)
def test_wrong_settings(wrong: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        wrong()


def test_the_function_is_not_hidden_by_its_module() -> None:
    import bestiary.rl.environments.make as module  # noqa: F401

    assert callable(environments.make)
    assert environments.make is make
    with pytest.raises(AttributeError, match="nonsense"):
        environments.nonsense  # noqa: B018
    for name in environments.__all__:
        assert getattr(environments, name) is not None
        assert name in dir(environments)

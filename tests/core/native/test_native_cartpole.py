"""The kernel of CartPole against the environment in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bestiary.core import native
from bestiary.core.errors import DtypeError, ShapeError
from bestiary.rl.environments.cartpole import CartPole


def states(number: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(number)
    size = np.array([[2.6], [3], [angle], [4]])
    return rng.uniform(-size, size, (4, number)), rng.integers(0, 2, number)


@pytest.mark.parametrize("number", [1, 63, 64, 65, 1000, 10_000])
@pytest.mark.parametrize("angle", [0.25, 0.79, 40.0])
def test_is_the_environment_in_numpy(isa: Any, number: int, angle: float) -> None:
    state, actions = states(number, angle)
    before = state.copy()
    new, ended = native.cartpole(state, actions)
    wanted, _, fallen = CartPole(1).advance_in_numpy(state, actions)
    np.testing.assert_allclose(new, wanted, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(ended, fallen)
    np.testing.assert_array_equal(state, before)
    assert ended.dtype == np.bool_ and (number < 1000 or 0 < ended.mean() <= 1)


def test_threads_change_nothing(isa: Any) -> None:
    state, actions = states(20_000, 0.3)
    whole = native.cartpole(state, actions)[0]
    parts = [
        native.cartpole(np.ascontiguousarray(state[:, k : k + 4096]), actions[k : k + 4096])[0]
        for k in range(0, 20_000, 4096)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))


def test_angles_that_are_not_numbers_stay_so(isa: Any) -> None:
    state, actions = states(70, 0.2)
    state[2, 5] = np.nan
    new, _ = native.cartpole(state, actions)
    assert np.isnan(new[2, 5]) and np.isfinite(np.delete(new, 5, axis=1)).all()


def test_the_environment_uses_it(monkeypatch: Any) -> None:
    state, actions = states(100, 0.2)
    calls: list[int] = []
    kernel = native.cartpole

    def counted(*given: Any) -> Any:
        calls.append(1)
        return kernel(*given)

    monkeypatch.setattr(native, "cartpole", counted)
    env = CartPole(100)
    moved, reward, _ = env.advance(state, actions)
    assert calls == ([1] if native.available() else []) and (reward == 1).all()
    monkeypatch.setattr(native, "available", lambda: False)
    plain, _, _ = CartPole(100).advance(state, actions)
    np.testing.assert_allclose(moved, plain, rtol=0, atol=1e-13)
    assert len(calls) <= 1
    env.advance(state.astype(np.float32), actions)  # of other types: in NumPy


def test_mistakes(isa: Any) -> None:
    state, actions = states(10, 0.2)
    with pytest.raises(DtypeError, match="actions"):
        native.cartpole(state, actions.astype(np.int32))
    with pytest.raises(DtypeError, match="state"):
        native.cartpole(state.astype(np.float32), actions)
    with pytest.raises(ShapeError, match="actions"):
        native.cartpole(state, actions[:9])
    with pytest.raises(ShapeError, match="state"):
        native.cartpole(state[:3], actions)

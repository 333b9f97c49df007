"""Initial distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, ShapeError

init = bt.nn.init


def wide(*shape: int, dtype: object = None) -> bt.nn.Parameter:
    return init.parameter(*shape, dtype=dtype)


@pytest.fixture(autouse=True)
def _seeded():
    bt.manual_seed(0)


@pytest.mark.parametrize("dtype", [bt.float32, bt.float64, bt.float16, bt.bfloat16])
def test_uniform_and_normal(dtype):
    x = init.uniform_(wide(200, 100, dtype=dtype), -2.0, 3.0).array.astype(np.float64)
    assert -2 <= x.min() < -1.9
    assert 2.9 < x.max() <= 3
    assert abs(x.mean() - 0.5) < 0.05
    y = init.normal_(wide(200, 100, dtype=dtype), 1.0, 0.5).array.astype(np.float64)
    assert abs(y.mean() - 1) < 0.02
    assert abs(y.std() - 0.5) < 0.02


def test_truncated_normal():
    x = init.trunc_normal_(wide(300, 100), std=0.02, a=-0.03, b=0.01).array
    assert x.min() >= -0.03
    assert x.max() <= 0.01
    assert x.max() > 0.0095
    inside = np.random.default_rng(0).standard_normal(400_000) * 0.02
    inside = inside[(inside > -0.03) & (inside < 0.01)]
    assert abs(x.mean() - inside.mean()) < 3e-4
    assert abs(x.std() - inside.std()) < 3e-4
    with pytest.raises(ConfigError, match="values, not multiples of std"):
        init.trunc_normal_(wide(3, 3), mean=10.0, std=0.02)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("xavier_uniform_", math.sqrt(2 / (40 * 9 + 60 * 9))),
        ("xavier_normal_", math.sqrt(2 / (40 * 9 + 60 * 9))),
        ("kaiming_uniform_", math.sqrt(2 / (40 * 9))),
        ("kaiming_normal_", math.sqrt(2 / (40 * 9))),
    ],
)
def test_standard_deviations(name, expected):
    x = getattr(init, name)(wide(60, 40, 3, 3)).array
    assert abs(x.std() / expected - 1) < 0.02
    assert abs(x.mean()) < expected / 30


def test_fans_modes_and_gains():
    x = init.kaiming_normal_(wide(60, 40, 3, 3), mode="fan_out", nonlinearity="tanh").array
    assert abs(x.std() / (5 / 3 / math.sqrt(60 * 9)) - 1) < 0.02
    assert init.calculate_gain("leaky_relu", 0.2) == pytest.approx(math.sqrt(2 / 1.04))
    assert init.calculate_gain("selu") == 0.75
    assert init.calculate_gain("conv2d") == 1.0
    with pytest.raises(ConfigError, match="There are: leaky_relu"):
        init.calculate_gain("swishy")
    with pytest.raises(ConfigError, match="fan_in"):
        init.kaiming_normal_(wide(3, 3), mode="fan_sideways")
    with pytest.raises(ShapeError, match="at least two axes"):
        init.xavier_uniform_(wide(3))


@pytest.mark.parametrize("shape", [(5, 12), (12, 5), (4, 3, 2, 2), (6, 6)])
def test_orthogonal(shape):
    x = init.orthogonal_(wide(*shape), gain=2.0).array.reshape(shape[0], -1).astype(np.float64)
    if x.shape[0] > x.shape[1]:
        x = x.T
    np.testing.assert_allclose(x @ x.T, 4 * np.eye(len(x)), atol=1e-5)


def test_simple_values():
    np.testing.assert_array_equal(init.eye_(wide(2, 3)).array, np.eye(2, 3))
    np.testing.assert_array_equal(init.constant_(wide(2), 1.5).array, [1.5, 1.5])
    np.testing.assert_array_equal(init.zeros_(wide(2)).array, 0)
    np.testing.assert_array_equal(init.ones_(wide(2)).array, 1)
    sparse = init.sparse_(wide(10, 4), 0.3).array
    assert ((sparse == 0).sum(0) == 3).all()
    dirac = init.dirac_(wide(4, 2, 3, 3), groups=2).array
    assert dirac.sum() == 4
    assert dirac[0, 0, 1, 1] == dirac[1, 1, 1, 1] == dirac[2, 0, 1, 1] == dirac[3, 1, 1, 1] == 1
    for wrong in (
        lambda: init.eye_(wide(2)),
        lambda: init.dirac_(wide(2, 2)),
        lambda: init.orthogonal_(wide(2)),
        lambda: init.sparse_(wide(2), 0.5),
    ):
        with pytest.raises(ShapeError):
            wrong()


def test_seeds_and_generators_repeat():
    first = init.normal_(wide(4, 4)).array.copy()
    bt.manual_seed(0)
    np.testing.assert_array_equal(init.normal_(wide(4, 4)).array, first)
    for fill in (init.uniform_, init.trunc_normal_, init.orthogonal_, init.xavier_normal_):
        drawn = [fill(wide(4, 4), generator=np.random.default_rng(3)).array for _ in range(2)]
        np.testing.assert_array_equal(*drawn)


def test_initialising_a_trained_parameter_is_seen_by_the_graph():
    p = init.ones_(wide(3))
    loss = (p * p).sum()
    init.zeros_(p)
    with pytest.raises(bt.errors.GradError, match="changed in place"):
        loss.backward()

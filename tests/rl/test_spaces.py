from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from bestiary.core.errors import BestiaryError, ConfigError, DataError
from bestiary.rl.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space, from_json, of

SPACES: list[Space] = [
    Box(-1, 1, (3,)),
    Box(np.array([-np.inf, 0, -2.5], np.float32), np.array([np.inf, np.inf, 7], np.float32)),
    Box(0, 255, (1, 4, 5), np.uint8),
    Box(-np.inf, np.inf, (), np.float64),
    Box(0, 1, (2,), np.bool_),
    Discrete(5),
    Discrete(3, start=-1),
    MultiDiscrete((3, 2, 5)),
    MultiBinary(4),
]


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_samples_are_in_the_space(space: Space) -> None:
    many = space.sample(0, 500)
    assert many.shape == (500, *space.shape)
    assert many.dtype == space.dtype
    assert space.problem(many) is None
    one = space.sample(0)
    assert one.shape == space.shape
    assert one.dtype == space.dtype
    assert space.contains(one)
    assert np.array_equal(space.sample(7, 3), space.sample(7, 3))
    assert len(np.unique(many)) > 1


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_json_gives_the_space_back(space: Space) -> None:
    text = json.dumps(space.to_json(), allow_nan=False)
    again = Space.from_json(json.loads(text))
    assert again == space
    assert hash(again) == hash(space)
    assert again.dtype == space.dtype
    assert space not in [s for s in SPACES if s is not space]


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_features_of_a_network(space: Space) -> None:
    features = space.encode(space.sample(1, 6))
    assert features.shape == (6, space.features)
    assert features.dtype == np.float32


def test_classes_become_one_hot() -> None:
    assert Discrete(3, start=2).encode(np.array([4, 2])).tolist() == [[0, 0, 1], [1, 0, 0]]
    rows = MultiDiscrete((2, 3)).encode(np.array([[1, 0], [0, 2]]))
    assert rows.tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]


def test_samples_reach_everything() -> None:
    assert set(Discrete(3, start=-1).sample(0, 200).tolist()) == {-1, 0, 1}
    assert set(MultiDiscrete((2, 4)).sample(0, 200)[:, 1].tolist()) == {0, 1, 2, 3}
    pixels = Box(0, 255, (10,), np.uint8).sample(0, 500)
    assert (pixels.min(), pixels.max()) == (0, 255)
    half = Box(2, np.inf, ()).sample(0, 500)
    assert half.min() >= 2
    assert half.max() > 4
    below = Box(-np.inf, 2, ()).sample(0, 500)
    assert below.max() <= 2
    assert below.min() < 0
    free = Box(-np.inf, np.inf, ()).sample(0, 500)
    assert abs(free.mean()) < 0.2
    assert free.std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "space, value",
    [
        (Box(-1, 1, (2,)), [0.0]),
        (Box(-1, 1, (2,)), [0.0, 2.0]),
        (Box(-1, 1, (2,)), [0.0, np.nan]),
        (Box(-1, 1, (2,)), "ab"),
        (Box(-1, 1, (2,)), [[0.0], [1.0, 2.0]]),
        (Discrete(3), 3),
        (Discrete(3), -1),
        (Discrete(3), 1.0),
        (Discrete(3), [1]),
        (MultiDiscrete((2, 2)), [1, 2]),
        (MultiDiscrete((2, 2)), [1.0, 1.0]),
        (MultiBinary(2), [0, 2]),
    ],
)
def test_what_is_not_in_a_space(space: Space, value: Any) -> None:
    assert not space.contains(value)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Box(1, 0),
        lambda: Box(np.nan, 1),
        lambda: Box(0, 1, (-2,)),
        lambda: Box(0, 1, (2.5,)),
        lambda: Box([0, 0], [1, 1, 1]),
        lambda: Box(0, 256, (2,), np.uint8),
        lambda: Box(0, 1, (2,), "U3"),
        lambda: Discrete(0),
        lambda: Discrete(2.0),
        lambda: Discrete(True),
        lambda: MultiDiscrete([]),
        lambda: MultiDiscrete([2, 0]),
        lambda: MultiDiscrete("ab"),
        lambda: MultiDiscrete([2.5]),
        lambda: MultiBinary(-1),
    ],
)
def test_wrong_spaces_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        wrong()


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {},
        {"kind": "Dict"},
        {"kind": "Discrete"},
        {"kind": "Discrete", "n": 3, "start": 0, "more": 1},
        {"kind": "Discrete", "n": -3, "start": 0},
        {"kind": "Box", "low": 0, "high": 1, "shape": [2], "dtype": "text"},
        {"kind": "Box", "low": "a", "high": 1, "shape": [2], "dtype": "float32"},
        {"kind": "Box", "low": 0, "high": 1, "shape": 2.5, "dtype": "float32"},
    ],
)
def test_wrong_descriptions_are_refused(wrong: Any) -> None:
    with pytest.raises(DataError):
        from_json(wrong)


def test_spaces_do_not_change() -> None:
    box = Box(0, 1, (2,))
    with pytest.raises(AttributeError):
        box.low = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        box.low[0] = 3


def test_spaces_of_gymnasium() -> None:
    g = pytest.importorskip("gymnasium").spaces
    assert of(g.Box(-1, 1, (3,))) == Box(-1, 1, (3,))
    assert of(g.Box(0, 255, (4, 4, 1), np.uint8)) == Box(0, 255, (4, 4, 1), np.uint8)
    assert of(g.Box(-np.inf, np.inf, (2,), np.float64)) == Box(-np.inf, np.inf, (2,), np.float64)
    assert of(g.Discrete(4, start=2)) == Discrete(4, 2)
    assert of(g.MultiDiscrete([2, 3])) == MultiDiscrete((2, 3))
    assert of(g.MultiBinary(5)) == MultiBinary(5)
    whole = of(g.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (2,), np.int64))
    assert whole.contains(np.array([-(2**40), 2**40]))
    assert of(Discrete(3)) == Discrete(3)
    for wrong in (
        g.Dict({"a": g.Discrete(2)}),
        g.Tuple([g.Discrete(2)]),
        g.Text(5),
        g.MultiDiscrete([[2, 3], [2, 2]]),
        g.MultiDiscrete([2, 3], start=[1, 0]),
        g.MultiBinary((2, 2)),
    ):
        with pytest.raises(ConfigError, match="support"):
            of(wrong)
    with pytest.raises(BestiaryError, match="FlattenObservation"):
        of(g.Dict({"a": g.Discrete(2)}))

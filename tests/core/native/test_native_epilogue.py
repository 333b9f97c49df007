"""What follows a product, in one pass, against its parts done one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bestiary.core import native
from bestiary.core.errors import ConfigError, DtypeError, ShapeError

SHAPES = [(1, 1), (3, 5), (0, 4), (2, 3, 17), (65, 64), (9, 1000)]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def gelu(x: Any) -> Any:
    return x * 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2)))


DEFINITIONS: dict[str, Any] = {
    "gelu": gelu,
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3))),
    "silu": lambda x: x * sigmoid(x),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "sigmoid": sigmoid,
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("activation", [None, *native.ACTIVATIONS])
def test_finish(isa: str, activation: str | None, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    for biased in (False, True):
        for added in (False, True):
            x, other = (rng.standard_normal(shape).astype(np.float32) * 2 for _ in range(2))
            bias = rng.standard_normal(shape[-1:]).astype(np.float32)
            want = x.astype(np.float64)
            want = want + bias if biased else want
            want = want + other if added else want
            if activation is None:
                want = np.clip(want, -1, 2)
            else:
                want = DEFINITIONS[activation](want)
            got = native.finish(
                x,
                bias if biased else None,
                other if added else None,
                activation=activation,
                clamp=(-1.0, 2.0),
            )
            assert got is x
            assert_allclose(got, want, rtol=2e-6, atol=2e-6)


def test_every_activation_has_a_definition() -> None:
    assert set(DEFINITIONS) == set(native.ACTIVATIONS)


def test_nan_stays_nan(isa: str) -> None:
    x = np.full((2, 9), np.nan, np.float32)
    assert np.isnan(native.finish(x, clamp=native.RELU)).all()


def test_a_prepared_convolution_is_the_convolution(isa: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 9, 7, 5)).astype(np.float32)
    weight = rng.standard_normal((6, 5, 3, 3)).astype(np.float32)
    bias = rng.standard_normal(6).astype(np.float32)
    packed = native.pack_weight(weight)
    options: Any = {"stride": (2, 1), "padding": (1, 0, 2, 1), "clamp": native.RELU}
    prepared = native.Convolution(x.shape, packed, **options)
    add = rng.standard_normal(prepared.out_shape).astype(np.float32)
    want = native.conv2d(x, packed, bias, add=add, **options)
    for _ in range(2):
        assert_array_equal(prepared(x, bias, add), want)
    with pytest.raises(ShapeError, match="x must have shape"):
        prepared(x[:1], bias, add)
    with pytest.raises(ShapeError, match="add"):
        prepared(x, bias, add[:1])


def test_mistakes(built: None) -> None:
    x = np.zeros((2, 3), np.float32)
    with pytest.raises(ConfigError, match="swish"):
        native.finish(x, activation="swish")
    with pytest.raises(ShapeError, match="bias"):
        native.finish(x, np.zeros(2, np.float32))
    with pytest.raises(ShapeError, match="add"):
        native.finish(x, None, np.zeros((1, 3), np.float32))
    with pytest.raises(DtypeError):
        native.finish(x.astype(np.float64))

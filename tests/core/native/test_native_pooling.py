"""Max pooling and ReLU against their definitions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bestiary.core import native
from bestiary.core.errors import ConfigError, ShapeError

# n, h, w, c, kernel, options, output size
CASES: list[tuple[int, int, int, int, tuple[int, int], dict[str, Any], tuple[int, int]]] = [
    (2, 9, 8, 3, (3, 3), {"stride": (2, 2), "padding": (1, 1)}, (5, 4)),
    (1, 7, 9, 20, (2, 3), {"stride": (1, 2), "padding": (1, 0)}, (8, 4)),
    (3, 8, 8, 64, (2, 2), {"stride": (2, 2)}, (4, 4)),
    (1, 8, 9, 5, (2, 2), {"dilation": (3, 2)}, (5, 7)),
    (2, 7, 7, 17, (2, 2), {"stride": (2, 2)}, (4, 4)),  # windows that hang over the end
    (1, 1, 1, 1, (1, 1), {}, (1, 1)),
    (0, 4, 4, 8, (2, 2), {"stride": (2, 2)}, (2, 2)),
]


def places(case: Any, y: int, x: int) -> list[tuple[int, int]]:
    """The pixels of a window that lie inside, in order."""
    _, h, w, _, kernel, options, _ = case
    (sh, sw), (ph, pw) = options.get("stride", (1, 1)), options.get("padding", (0, 0))
    dh, dw = options.get("dilation", (1, 1))
    found = [
        (y * sh - ph + i * dh, x * sw - pw + j * dw)
        for i, j in itertools.product(range(kernel[0]), range(kernel[1]))
    ]
    return [(i, j) for i, j in found if 0 <= i < h and 0 <= j < w]


@pytest.mark.parametrize("case", CASES, ids=[f"{c[3]}ch" for c in CASES])
def test_max_pool(isa: str, case: Any) -> None:
    n, h, w, c, kernel, options, size = case
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (n, h, w, c)).astype(np.float32)  # with equal values
    g = rng.integers(-9, 9, (n, *size, c)).astype(np.float32)
    out = native.max_pool2d(x, size, kernel, **options)
    expected = np.empty((n, *size, c), np.float32)
    gradient = np.zeros_like(x)
    for y, z in itertools.product(range(size[0]), range(size[1])):
        window = places(case, y, z)
        values = np.stack([x[:, i, j] for i, j in window], 1)
        expected[:, y, z] = values.max(1)
        for b, k in itertools.product(range(n), range(c)):
            i, j = window[int(values[b, :, k].argmax())]
            gradient[b, i, j, k] += g[b, y, z, k]
    assert_array_equal(out, expected)
    assert_array_equal(native.max_pool2d_backward(g, x, out, kernel, **options), gradient)


def test_nan_wins(isa: str) -> None:
    x = np.zeros((1, 2, 2, 3), np.float32)
    x[0, 0, 1] = np.nan
    assert np.isnan(native.max_pool2d(x, (1, 1), (2, 2))).all()


def test_threads_change_nothing(isa: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 31, 30, 40)).astype(np.float32)
    options = {"stride": (2, 2), "padding": (1, 1)}
    results = []
    before = native.get_num_threads()
    try:
        for threads in (1, 3):
            native.set_num_threads(threads)
            y = native.max_pool2d(x, (16, 15), (3, 3), **options)
            results.append((y, native.max_pool2d_backward(y, x, y, (3, 3), **options)))
    finally:
        native.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        assert_array_equal(one, other)


@pytest.mark.parametrize("size", [0, 1, 15, 40_000])
def test_relu(isa: str, size: int) -> None:
    rng = np.random.default_rng(size)
    x, g = rng.standard_normal((2, size)).astype(np.float32)
    x[:1] = 0
    y = native.relu(x)
    assert_array_equal(y, np.maximum(x, 0))
    assert_array_equal(native.relu_backward(g, y), np.where(y > 0, g, 0))
    special = native.relu(np.array([np.nan, np.inf, -np.inf], np.float32))
    assert_array_equal(special, [np.nan, np.inf, 0])


def test_misuse_raises(isa: str) -> None:
    x = np.zeros((1, 4, 4, 2), np.float32)
    with pytest.raises(ConfigError):
        native.max_pool2d(x, (2, 2), (0, 2))
    with pytest.raises(ShapeError):
        native.max_pool2d_backward(x, x, np.zeros((1, 2, 2, 2), np.float32), (2, 2))
    with pytest.raises(ShapeError):
        native.max_pool2d_backward(x, x, np.zeros((1, 2, 2, 3), np.float32), (2, 2))

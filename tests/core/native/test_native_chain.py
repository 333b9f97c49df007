"""The kernel of elementwise chains: each operation to 2 units in the last place, any layout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from bestiary.core import native
from bestiary.core.errors import ConfigError, ShapeError
from bestiary.core.native.chain import OPERATIONS

_ERF = np.vectorize(math.erf, otypes=[float])


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _gelu_tanh(x: Any) -> Any:
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


DEFINITIONS: dict[str, Any] = {
    "negative": lambda x: -x,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "square": np.square,
    "reciprocal": np.reciprocal,
    "tanh": np.tanh,
    "erf": _ERF,
    "sigmoid": _sigmoid,
    "relu": lambda x: np.where(x < 0, 0, x),
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: x / 2 * (1 + _ERF(x / math.sqrt(2))),
    "gelu_tanh": _gelu_tanh,
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "relu_backward": lambda g, y: np.where(y > 0, g, 0),
}
EXACT = ("exp", "log", "tanh", "erf", "sqrt", "add", "subtract", "multiply", "divide", "square")


def single(name: str, *arrays: Any) -> Any:
    inputs = tuple(("input", k) for k in range(len(arrays)))
    return native.Chain([(name, inputs)], [0], arrays[0].shape)(*arrays)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_operations(isa: str, name: str) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal(3000) * s for s in (1e-3, 0.3, 1.0, 4.0, 20.0)])
    x = (np.abs(x) if name in ("log", "sqrt") else x).astype(np.float32)
    arrays = [x] if OPERATIONS[name] < 32 else [x, x[::-1].copy()]
    found = single(name, *arrays)
    with np.errstate(all="ignore"):
        want = DEFINITIONS[name](*(a.astype(np.float64) for a in arrays))
    if name in EXACT:
        normal = np.abs(want) > 1e-37
        units = np.abs(found - want) / np.spacing(np.abs(want).astype(np.float32))
        assert units[normal & np.isfinite(units)].max() <= 2
    assert_allclose(found, want, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sqrt", "maximum", "minimum"])
def test_numbers_that_are_not_ordinary(isa: str, name: str) -> None:
    x = np.array([0, -0.0, 1e-40, 1e38, np.inf, -np.inf, np.nan, -1e-40, -1], np.float32)
    arrays = [x] if OPERATIONS[name] < 32 else [x, np.roll(x, 1)]
    found = single(name, *arrays)
    with np.errstate(all="ignore"):
        want = DEFINITIONS[name](*(a.astype(np.float64) for a in arrays)).astype(np.float32)
    assert_allclose(found, want, rtol=1e-6)


def test_slopes_are_those_of_the_kernels_of_their_own(isa: str) -> None:
    rng = np.random.default_rng(0)
    g, x = rng.standard_normal((2, 999)).astype(np.float32) * 3
    for name in ("silu", "gelu", "gelu_tanh", "hardswish"):
        want = getattr(native, f"{name}_backward")(g, x)
        assert_allclose(single(f"{name}_backward", g, x), want, rtol=1e-6, atol=1e-7)


LAYOUTS = [(0, 1, 2, 3), (0, 3, 1, 2), (3, 2, 1, 0)]


@given(st.data())
def test_any_program_shape_and_layout(data: Any) -> None:
    if not native.available():
        pytest.skip("the native kernels are not built")
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=4, max_size=4)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    arrays = []
    for _ in range(data.draw(st.integers(1, 6))):
        own = [n if data.draw(st.booleans()) else 1 for n in shape]
        own = list(shape) if not arrays else own[data.draw(st.integers(0, 3)) :]
        x = rng.uniform(-1, 1, own).astype(np.float32)
        if x.ndim == 4:
            axes = data.draw(st.sampled_from(LAYOUTS))
            x = np.ascontiguousarray(x.transpose(axes)).transpose(np.argsort(axes))
        arrays.append(x)
    steps: list[Any] = []
    values: list[Any] = []
    for s in range(data.draw(st.integers(1, 16))):
        name = data.draw(st.sampled_from(["add", "multiply", "maximum", "tanh", "abs", "negative"]))
        operands = []
        for _ in range(1 if OPERATIONS[name] < 32 else 2):
            kind = data.draw(st.sampled_from(["input", "number", "step" if s else "input"]))
            if kind == "number":
                operands.append((kind, data.draw(st.sampled_from([0.5, -1.0, 2.0]))))
            else:
                most = len(arrays) if kind == "input" else s
                operands.append((kind, data.draw(st.integers(0, most - 1))))
        steps.append((name, tuple(operands)))
        numbers = [
            v if kind == "number" else (arrays if kind == "input" else values)[v]
            for kind, v in operands
        ]
        values.append(DEFINITIONS[name](*(np.asarray(v, np.float64) for v in numbers)))
    others = data.draw(st.lists(st.integers(0, len(steps) - 1), max_size=3))
    wanted = sorted({len(steps) - 1, *others})
    chain = native.Chain(steps, wanted, shape)
    for _ in range(2):
        found = chain(*arrays[: chain.inputs])
        for k, out in zip(wanted, found if len(wanted) > 1 else (found,), strict=True):
            assert out.shape == shape
            assert_allclose(out, np.broadcast_to(values[k], shape), rtol=1e-4, atol=1e-5)


def test_long_arrays_on_several_threads_give_the_same_bits(built: None) -> None:
    x = np.random.default_rng(0).standard_normal((301, 1007)).astype(np.float32)
    chain = native.Chain(
        [("tanh", (("input", 0),)), ("multiply", (("step", 0), ("input", 1)))], [1], x.shape
    )
    before = native.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        native.set_num_threads(threads)
        results.append(chain(x, x[0]))
    native.set_num_threads(before)
    assert_array_equal(results[0], results[1])
    assert_array_equal(results[0], results[2])
    assert_allclose(results[0], np.tanh(x) * x[0], rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_is_refused(built: None) -> None:
    with pytest.raises(ConfigError, match="8 inputs"):
        native.Chain([("add", (("input", 0), ("input", 8)))], [0], (3,))
    chain = native.Chain([("exp", (("input", 0),))], [0], (3,))
    for shape in ((4,), (2, 3)):
        with pytest.raises(ShapeError, match=r"chain of shape \(3,\)"):
            chain(np.zeros(shape, np.float32))
    empty = native.Chain([("exp", (("input", 0),))], [0], (0, 3))
    assert empty(np.zeros((0, 3), np.float32)).shape == (0, 3)

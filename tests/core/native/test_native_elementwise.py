"""Elementwise native kernels against float64 definitions."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bestiary.core import native
from bestiary.core import random as random_
from bestiary.core.errors import DtypeError, ShapeError

SIZES = [0, 1, 3, 15, 16, 17, 64, 1000, 16385, 70001]
bfloat16 = np.dtype(ml_dtypes.bfloat16)
float16 = np.dtype(np.float16)


def points(size: int) -> Any:
    x = np.random.default_rng(size).standard_normal(size) * 3
    special = [0.0, -0.0, 0.9, -0.9, 1.27, -1.28, 5.0, -5.0, 12.0, -12.0, 100.0, -100.0]
    x[: min(size, len(special))] = special[:size]
    return x.astype(np.float32)


_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def cdf(x: Any) -> Any:
    return 0.5 * _erfc(-x / math.sqrt(2))


def sigmoid(x: Any) -> Any:
    return np.where(x < 0, np.exp(np.minimum(x, 0)), 1.0) / (1 + np.exp(-np.abs(x)))


def inner(x: Any) -> Any:
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def inner_slope(x: Any) -> Any:
    return 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)


def gated_slope(x: Any, u: Any, slope: Any) -> Any:
    return sigmoid(u) + x * slope * sigmoid(u) * sigmoid(-u)


def hardsigmoid(x: Any) -> Any:
    return np.clip(x / 6 + 0.5, 0, 1)


FORWARD: dict[str, Any] = {
    "sigmoid": sigmoid,
    "hardswish": lambda x: x * hardsigmoid(x),
    "erf": _erf,
    "gelu": lambda x: x * cdf(x),
    "gelu_tanh": lambda x: x * sigmoid(inner(x)),
    "silu": lambda x: x * sigmoid(x),
}
SLOPE: dict[str, Any] = {
    "hardswish": lambda x: np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5)),
    "gelu": lambda x: cdf(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    "gelu_tanh": lambda x: gated_slope(x, inner(x), inner_slope(x)),
    "silu": lambda x: gated_slope(x, x, 1.0),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FORWARD)
def test_activation(isa: str, name: str, size: int) -> None:
    x = points(size)
    kernel = getattr(native, name)
    got = kernel(x)
    assert got.dtype == np.float32
    assert_allclose(got, FORWARD[name](x.astype(np.float64)), rtol=5e-7, atol=4e-7)
    if name in SLOPE:
        g = np.random.default_rng(1).standard_normal(size).astype(np.float32)
        want = g * SLOPE[name](x.astype(np.float64))
        assert_allclose(getattr(native, name + "_backward")(g, x), want, rtol=2e-6, atol=2e-6)
    native.set_num_threads(1)
    assert_array_equal(kernel(x), got)
    assert kernel(x, out=x) is x
    assert_array_equal(x, got)


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_tails_keep_relative_accuracy(isa: str, name: str) -> None:
    x = np.linspace(-11, -1, 5001).astype(np.float32)
    want = FORWARD[name](x.astype(np.float64))
    assert_allclose(getattr(native, name)(x), want, rtol=1e-4)


def test_every_float_of_a_dense_sample(isa: str) -> None:
    x = np.arange(0, 2**32, 9973, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = x[np.isfinite(x)]
    assert_allclose(native.erf(x), _erf(x.astype(np.float64)), rtol=5e-7, atol=1e-37)


def test_infinities_and_nan(isa: str) -> None:
    x = np.array([math.inf, -math.inf, math.nan] * 7, np.float32)
    assert_array_equal(native.erf(x)[:3], np.array([1, -1, math.nan], np.float32))
    for name in ("gelu", "gelu_tanh", "silu"):
        got = getattr(native, name)(x)
        assert got[0] == math.inf
        assert np.isnan(got[2])


def test_layout_is_kept(isa: str) -> None:
    base = points(2 * 5 * 6 * 7).reshape(2, 5, 6, 7)
    for x in (base, base.transpose(0, 3, 1, 2), base.transpose(3, 2, 1, 0), base[:, :, 1:2]):
        got = native.silu(x)
        assert_array_equal(got, native.silu(x.copy(order="C")))
        g = points(x.size).reshape(x.shape)
        back = native.silu_backward(g, x)
        assert_array_equal(back, native.silu_backward(g, x.copy(order="C")))
        if x.base is base and x.size == base.size:
            assert got.strides == x.strides == back.strides
    assert_array_equal(native.silu(base[::-1, :, ::2]), native.silu(base)[::-1, :, ::2])
    assert native.silu(np.full((), 1.5, np.float32)).shape == ()
    out = np.empty_like(base)
    with pytest.raises(ValueError, match="memory order"):
        native.silu(base.transpose(0, 3, 1, 2), out=out.transpose(0, 1, 3, 2))


@pytest.mark.parametrize("dtype", [bfloat16, float16], ids=str)
def test_half_types_agree_with_numpy_on_every_value(isa: str, dtype: Any) -> None:
    bits = np.arange(65536, dtype=np.uint16)
    with np.errstate(all="ignore"):
        want = bits.view(dtype).astype(np.float32)
        got = native.widen(bits.view(dtype))
        assert_array_equal(got, want)
        assert_array_equal(np.signbit(got), np.signbit(want))
        finite = np.sort(want[np.isfinite(want)])
        middle = ((finite[1:].astype(np.float64) + finite[:-1]) / 2).astype(np.float32)
        near = [np.nextafter(middle, np.float32(s)) for s in (-math.inf, math.inf)]
        sample = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
        edges = np.array([65504, 65519.99, 65520, 3.3895314e38, 3.4e38, math.inf], np.float32)
        x = np.concatenate([want, middle, *near, sample.view(np.float32), edges, -edges])
        down, reference = native.narrow(x, dtype), x.astype(dtype)
    assert down.dtype == dtype
    nan = np.isnan(x)
    assert np.isnan(down[nan].astype(np.float32)).all()
    assert_array_equal(down[~nan].view(np.uint16), reference[~nan].view(np.uint16))


def test_half_types_keep_channels_last(isa: str) -> None:
    x = points(120).reshape(2, 3, 4, 5).transpose(0, 3, 1, 2)
    half = native.narrow(x, bfloat16)
    assert half.strides == tuple(s // 2 for s in x.strides)
    assert_array_equal(half, x.astype(bfloat16))
    assert native.widen(half).strides == x.strides


@pytest.mark.parametrize("seed", [0, 1, 2**63 + 12345, 2**64 - 1])
@pytest.mark.parametrize("first", [0, 3, 2**32 - 5, 2**40 + 1])
def test_philox_is_the_reference_stream(isa: str, seed: int, first: int) -> None:
    for count in (0, 1, 9, 5000):
        want = random_.philox(np, seed, first, count)
        assert_array_equal(native.philox(seed, first, count), want)


def test_philox_known_answer(isa: str) -> None:
    """The first vector of the authors' own tests (Random123, kat_vectors)."""
    assert [hex(v) for v in native.philox(0, 0, 1)] == [
        "0x6627e8d5",
        "0xe169c58d",
        "0xbc57ac4c",
        "0x9b00dbd8",
    ]


def test_misuse_raises(isa: str) -> None:
    x = points(64)
    for bad in (x.astype(np.float64), x.astype(np.int32), [1.0, 2.0], None, x.astype(">f4")):
        with pytest.raises(DtypeError):
            native.gelu(bad)  # type: ignore[arg-type]
    with pytest.raises(ShapeError):
        native.gelu_backward(x[:3], x)
    with pytest.raises(ValueError, match="memory order"):
        native.gelu(x, out=x[:3])
    frozen = x.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        native.gelu(x, out=frozen)
    with pytest.raises(DtypeError):
        native.widen(x)
    with pytest.raises(DtypeError):
        native.narrow(x, np.dtype(np.int16))
    rows = x.reshape(8, 8)
    with pytest.raises(ShapeError):
        native.batch_norm_apply(rows, x[:2].copy(), x[:8].copy(), x[:8].copy())
    with pytest.raises(ValueError, match="contiguous"):
        native.batch_norm_stats(rows[:, ::2])
    odd = np.frombuffer(bytearray(4 * 16 + 1), np.uint8)[1:].view(np.float32)
    assert_array_equal(native.gelu(odd), native.gelu(odd.copy()))  # misaligned: copied
    with pytest.raises(ValueError, match="aligned"):
        native.batch_norm_stats(odd.reshape(4, 4))

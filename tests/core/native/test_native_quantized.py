"""Weights of few bits: exact numbers, and products as near as sums in float32 can be."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bestiary.core import native
from bestiary.core.errors import DtypeError, ShapeError
from bestiary.core.quantization import FORMATS, unpack

EXACT = 3e-7  # of the sum of sizes: what products in float32 may be off


def weights(form: str, rows: int, features: int) -> np.ndarray:
    """Any bits, with scales of a sane size."""
    layout = FORMATS[form]
    rng = np.random.default_rng(rows)
    raw = rng.integers(0, 256, (rows, layout.stored(features)), np.uint8)
    if form in ("bfloat16", "float16"):
        raw[:, 1::2] = raw[:, 1::2] & 0x83 | 0x38  # exponents in the middle
    elif form == "int8":
        raw[:, :4] = np.full((rows, 1), 0.01, np.float32).view(np.uint8)
    else:
        blocks = raw.reshape(rows, features // layout.block, layout.bytes)
        scales = {"q4_1": (0, 2), "q5_1": (0, 2), "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208,)}
        for at in scales.get(form, (0,)):
            blocks[..., at + 1] = blocks[..., at + 1] & 0x83 | 0x24
    return raw


@pytest.mark.parametrize("form", FORMATS)
def test_numbers_are_exact(isa: str, form: str) -> None:
    for rows, features in ((1, 256), (5, 512), (300, 256), (0, 256)):
        raw = weights(form, rows, features)
        want = unpack(np, raw, form, features)
        assert np.isfinite(want).all()
        assert_array_equal(native.numbers(form, raw, features), want)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("rows", [1, 3, 4, 6])
def test_products(isa: str, form: str, rows: int) -> None:
    rng = np.random.default_rng(0)
    for outs, features in ((1, 256), (7, 512), (602, 256)):
        raw = weights(form, outs, features)
        wide = unpack(np, raw, form, features).astype(np.float64)
        x = rng.standard_normal((rows, features)).astype(np.float32)
        size = np.abs(x) @ np.abs(wide.T)
        got = native.product(form, raw, x)
        assert_allclose(got / size, x @ wide.T / size, rtol=0, atol=EXACT)
        bias = rng.standard_normal(outs).astype(np.float32)
        out = np.empty_like(got)
        assert native.product(form, raw, x, bias, out) is out
        assert_array_equal(out, got + bias)


def test_single_groups(isa: str) -> None:
    for form in FORMATS:
        if FORMATS[form].block == 32:
            raw = weights(form, 5, 32)
            assert_array_equal(native.numbers(form, raw, 32), unpack(np, raw, form, 32))
            one = native.product(form, raw, np.eye(32, dtype=np.float32)[:3])
            assert_array_equal(one, unpack(np, raw, form, 32)[:, :3].T)


def test_every_number_of_16_bits(isa: str) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).reshape(-1, 64).view(np.uint8)
    for form in ("bfloat16", "float16"):
        assert_array_equal(native.numbers(form, every, 64), unpack(np, every, form, 64))


def test_threads_change_nothing(isa: str) -> None:
    raw = weights("q4_1", 3000, 512)
    x = np.random.default_rng(0).standard_normal((2, 512)).astype(np.float32)
    first = native.product("q4_1", raw, x)
    native.set_num_threads(1)
    assert_array_equal(native.product("q4_1", raw, x), first)


def test_wrong_input_is_refused(built: None) -> None:
    raw, x = weights("q8_0", 4, 64), np.zeros((1, 64), np.float32)
    with pytest.raises(ShapeError, match="68 bytes; got 67") as caught:
        native.product("q8_0", np.ascontiguousarray(raw[:, :-1]), x)
    assert caught.value.expected == 68
    with pytest.raises(ShapeError, match="whole blocks"):
        native.numbers("q8_0", raw, 63)
    with pytest.raises(ShapeError):
        native.product("q8_0", raw, x, np.zeros(3, np.float32))
    with pytest.raises(DtypeError):
        native.product("q8_0", raw.view(np.int8), x)
    with pytest.raises(ValueError, match="contiguous"):
        native.product("q8_0", raw[:, ::2], x)

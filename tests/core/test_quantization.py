"""Formats of few bits: what is lost, and that rows stand for themselves."""

from __future__ import annotations

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, ShapeError
from bestiary.core.quantization import FORMATS, PACKED, as_format, pack, unpack

# The largest error of numbers in a group, in parts of the range that the group has.
STEPS = {
    "int8": 1 / 254,
    "q8_0": 1 / 250,
    "q4_1": 1 / 29,
    "q4_0": 1 / 7.9,  # there is no +8
    "bfloat16": 2**-8,
    "float16": 2**-11,
}


@pytest.fixture
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(7, 96)) * np.exp(rng.normal(size=(7, 1)))).astype(np.float32)


@pytest.mark.parametrize("form", PACKED)
def test_errors_are_within_half_a_step(form, rows) -> None:
    packed = pack(rows, form)
    assert packed.dtype == np.uint8 and packed.shape == (7, FORMATS[form].stored(96))
    groups = rows if form == "int8" else rows.reshape(7, 3, 32)
    size = np.abs(groups).max(-1, keepdims=True)
    error = np.abs(unpack(np, packed, form, 96) - rows).reshape(groups.shape)
    assert (error <= STEPS[form] * size * (1 if form != "q4_1" else 2)).all()


@pytest.mark.parametrize("form", PACKED)
def test_rows_are_filled_up_and_stand_for_themselves(form, rows) -> None:
    short = rows[:, :75]
    packed = pack(short, form)
    values = unpack(np, packed, form, 75)
    assert values.shape == (7, 75) and np.abs(values - short).max() < np.abs(rows).max() / 7
    np.testing.assert_array_equal(unpack(np, packed[[4, 1]], form, 75), values[[4, 1]])
    np.testing.assert_array_equal(pack(short.reshape(7, 1, 75), form)[:, 0], packed)


@pytest.mark.parametrize("form", PACKED)
def test_zeros_stay_zeros_and_a_second_time_changes_nothing(form, rows) -> None:
    assert not unpack(np, pack(np.zeros((2, 64), np.float32), form), form, 64).any()
    once = unpack(np, pack(rows, form), form, 96)
    np.testing.assert_allclose(unpack(np, pack(once, form), form, 96), once, rtol=2e-3, atol=2e-3)


def test_halves_are_the_numbers_themselves(rows) -> None:
    for form, dtype in (("bfloat16", bt.bfloat16), ("float16", bt.float16)):
        want = rows.astype(dtype)
        np.testing.assert_array_equal(pack(rows, form), want.view(np.uint8))
        np.testing.assert_array_equal(unpack(np, pack(want, form), form, 96), want)


def test_what_is_wrong_is_named() -> None:
    assert as_format("int4").name == "q4_1"
    with pytest.raises(ConfigError, match=r"int3.*format") as caught:
        as_format("int3")
    assert "int4" in str(caught.value)
    with pytest.raises(ConfigError, match="only read"):
        pack(np.zeros((1, 256), np.float32), "q6_k")
    with pytest.raises(ShapeError, match="34 bytes, not 35"):
        unpack(np, np.zeros((2, 35), np.uint8), "q8_0", 32)

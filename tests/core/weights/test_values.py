"""TESTPLAN A, row 12: NaN and infinite weights are named."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from bestiary.core.errors import WeightsError
from bestiary.core.weights import load, load_bytes, nonfinite, require_finite, save_bytes, save_file

FLOATS = ["f2", "f4", "f8", "c8", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_row_12_counts(dtype):
    array = np.zeros((3, 5), dtype)
    array[1, 2] = np.nan
    array[2, 2:4] = np.inf, -np.inf
    assert nonfinite({"a": array, "b": np.zeros(3, dtype)}) == {"a": (1, 2)}
    assert nonfinite({"a": array.T, "b": array[:, ::-1]}) == {"a": (1, 2), "b": (1, 2)}


def test_row_12_float8_e4m3_has_nan_only():
    codes = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn)
    assert nonfinite({"a": codes}) == {"a": (2, 0)}


def test_row_12_every_bfloat16_pattern():
    codes = np.arange(65536, dtype=np.uint16).view(ml_dtypes.bfloat16)
    assert nonfinite({"a": codes}) == {"a": (254, 2)}


def test_row_12_far_from_the_beginning():
    array = np.zeros(3_000_000, np.float32)
    array[-1] = np.nan
    assert nonfinite({"a": array}) == {"a": (1, 0)}


def test_row_12_integers_and_empty_tensors_have_none():
    assert nonfinite({"a": np.ones(3, np.int64), "b": np.ones(2, bool), "c": np.zeros(0)}) == {}


@pytest.mark.parametrize("name", ["x.safetensors", "folder"])
def test_row_12_check_values(tmp_path, name):
    path = tmp_path / name
    target = path / "model.safetensors" if name == "folder" else path
    save_file({"good": np.ones(3), "h.0.bad": np.array([1, np.nan, np.inf])}, target)
    assert load(path)["h.0.bad"].shape == (3,)
    for mapped in (False, True):
        with pytest.raises(WeightsError) as caught:
            load(path, check_values=True, mapped=mapped)
        message = str(caught.value)
        assert "'h.0.bad': 1 NaN, 1 infinite of 3" in message
        assert "good" not in message
        assert str(target) in message
        assert caught.value.tensors == {"h.0.bad": (1, 1)}


def test_row_12_check_values_of_bytes():
    with pytest.raises(WeightsError, match="'a': 1 NaN"):
        load_bytes(save_bytes({"a": np.array(np.nan)}), check_values=True)
    load_bytes(save_bytes({"a": np.array(1.0)}), check_values=True)


def test_row_12_many_bad_tensors_fit_the_message():
    bad = {f"layers.{i}.weight": np.full(2, np.nan) for i in range(100)}
    with pytest.raises(WeightsError) as caught:
        require_finite(bad, "x")
    assert "100 of 100" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 12
    assert len(caught.value.tensors) == 100

"""Products with weights of half types: never wide as a whole, and rounded once."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import bestiary as bt
import bestiary.core.nn.functional as F
from bestiary.core import native


@pytest.fixture(params=["native", "plain"])
def kernels(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setenv("BESTIARY_NATIVE", "0")
    elif not native.available():
        pytest.skip("the extension is not built")


@pytest.mark.parametrize("dtype", [bt.bfloat16, bt.float16])
@pytest.mark.parametrize("features", [64, 75])
@pytest.mark.parametrize("rows", [0, 1, 3, 16, 40])
def test_values(kernels, dtype, features, rows) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, features)).astype(dtype)
    weight = rng.normal(size=(50, features)).astype(dtype)
    bias = rng.normal(size=50).astype(dtype)
    want = x.astype(np.float64) @ weight.astype(np.float64).T + bias.astype(np.float64)
    got = F.linear(bt.Tensor(x), bt.Tensor(weight), bt.Tensor(bias))
    assert got.dtype == dtype
    step = 2.0**-7 if dtype == bt.bfloat16 else 2.0**-10
    assert np.allclose(got.array.astype(np.float64), want, rtol=step, atol=1e-4)


def test_turned_weights_too(kernels) -> None:
    rng = np.random.default_rng(0)
    weight = bt.Tensor(rng.normal(size=(64, 50)).astype(bt.bfloat16)).mT
    x = bt.Tensor(rng.normal(size=(2, 64)).astype(bt.bfloat16))
    want = F.linear(x.astype(bt.float32), weight.astype(bt.float32))
    got = F.linear(x, weight).astype(bt.float32)
    assert np.allclose(got.array, want.array, rtol=2.0**-7, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 64])
def test_memory(kernels, rows) -> None:
    """Of a weight of 32 MB, 64 MB wide, a few MB are wide at a time."""
    weight = bt.zeros((4096, 4096), dtype=bt.bfloat16)
    x = bt.zeros((rows, 4096), dtype=bt.bfloat16)
    F.linear(x, weight)
    tracemalloc.start()
    F.linear(x, weight)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 16e6

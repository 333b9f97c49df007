"""The kernels of cross-entropy and Adam against float64 definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import bestiary as bt
from bestiary.core import native
from bestiary.core.errors import DtypeError, ShapeError
from bestiary.core.nn import functional as F
from bestiary.core.optim import Adam

SHAPES = [(1, 1), (5, 2), (64, 2), (3, 15), (3, 16), (7, 17), (33, 64), (9, 1000), (2000, 40)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cross_entropy(isa: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape)
    x = (rng.standard_normal(shape) * 6).astype(np.float32)
    ids = rng.integers(0, shape[1], shape[0])
    wide = x.astype(np.float64)
    want = np.log(np.exp(wide - wide.max(1, keepdims=True)).sum(1)) + wide.max(1)
    loss, lse = native.cross_entropy(x, ids)
    assert_allclose(lse, want, rtol=3e-6, atol=3e-6)
    assert_allclose(loss, want - wide[np.arange(len(x)), ids], rtol=1e-5, atol=6e-6)
    p = np.exp(wide - want[:, None])
    p[np.arange(len(x)), ids] -= 1
    assert_allclose(native.cross_entropy_backward(x, ids, lse, 0.25), p / 4, rtol=1e-4, atol=1e-6)


def test_ids_that_are_no_classes_never_reach_other_memory(isa: str) -> None:
    x = np.zeros((4, 3), np.float32)
    ids = np.array([0, 3, -1, 1 << 60])
    loss, lse = native.cross_entropy(x, ids)
    assert_array_equal(np.isnan(loss), [False, True, True, True])
    assert np.isfinite(native.cross_entropy_backward(x, ids, lse, 1.0)).all()


def test_infinite_and_missing_logits_are_as_without_the_kernel(
    isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.zeros((4, 3), np.float32)
    x[0, 1], x[1], x[2, 0], x[3, 0] = np.inf, -np.inf, np.nan, -np.inf
    logits, y = bt.Tensor(x), bt.tensor([0, 1, 2, 1])
    with np.errstate(all="ignore"):
        found = F.cross_entropy(logits, y, reduction="none").numpy()
        wanted = F.cross_entropy(bt.Tensor(x.astype(np.float64)), y, reduction="none").numpy()
    assert_array_equal(np.isfinite(found), np.isfinite(wanted))
    assert found[3] == pytest.approx(wanted[3])


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_that_of_float64(isa: str, amsgrad: bool, maximize: bool, decay: float) -> None:
    rng = np.random.default_rng(0)
    sizes = [(7, 3), (5000,), (20000,), (1,), (130, 129)]
    starts = [rng.standard_normal(s) for s in sizes]
    grads = [[rng.standard_normal(s) for s in sizes] for _ in range(4)]
    found: dict[Any, list[Any]] = {}
    for dtype in (np.float32, np.float64):
        params = [bt.nn.Parameter(s.astype(dtype)) for s in starts]
        options: Any = {"amsgrad": amsgrad, "maximize": maximize, "weight_decay": decay}
        optimizer = Adam(params, lr=0.01, **options)
        for step in grads:
            for p, g in zip(params, step, strict=True):
                p.grad = bt.Tensor(g.astype(dtype))
            optimizer.step()
        found[dtype] = [p.detach().numpy() for p in params]
    for a, b in zip(found[np.float32], found[np.float64], strict=True):
        assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_wrong_arrays_are_refused(isa: str) -> None:
    x, ids = np.zeros((2, 3), np.float32), np.zeros(2, np.int64)
    with pytest.raises(DtypeError, match="ids must be a NumPy array of int64"):
        native.cross_entropy(x, ids.astype(np.int32))
    with pytest.raises(ShapeError, match="ids must have shape"):
        native.cross_entropy(x, np.zeros(3, np.int64))
    with pytest.raises(ShapeError, match="exp_avg must have shape"):
        native.adam(x[0], x[0], x[0, :2], x[0], None, (0.0,) * 8)

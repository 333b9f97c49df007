"""Attention in one pass against its definition in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import bestiary as bt
from bestiary.core import native
from bestiary.core.errors import DtypeError, ShapeError
from bestiary.core.nn import functional as F

# batch, heads, heads of keys, queries, keys, width, width of values
SHAPES = [
    (1, 1, 1, 1, 1, 1, 1),
    (2, 3, 3, 5, 7, 4, 4),
    (1, 4, 2, 33, 31, 16, 32),
    (2, 6, 1, 8, 257, 64, 64),
    (1, 2, 2, 65, 300, 80, 72),
    (1, 1, 1, 40, 513, 12, 100),
    (1, 1, 1, 9, 20, 512, 512),
    (3, 1, 1, 0, 4, 8, 8),
    (1, 2, 2, 4, 0, 8, 8),
]


def made(shape: tuple[int, ...], seed: int = 0, turned: bool = False) -> tuple[Any, Any, Any]:
    """Queries, keys and values; turned: axes of heads and rows lie the other way in memory."""
    b, heads, shared, tq, tk, d, dv = shape
    random = np.random.default_rng(seed)

    def one(h: int, t: int, width: int) -> Any:
        if turned:
            return random.standard_normal((b, t, h, width), dtype=np.float32).swapaxes(1, 2)
        return random.standard_normal((b, h, t, width), dtype=np.float32)

    return one(heads, tq, d), one(shared, tk, d), one(shared, tk, dv)


def wanted(q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool) -> tuple[Any, Any]:
    group = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x.astype(np.float64), group, axis=1) for x in (k, v))
    scores = q.astype(np.float64) @ k.swapaxes(-1, -2) * scale
    if mask is not None:
        scores = scores + mask
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -math.inf)
    top = scores.max(-1, keepdims=True, initial=-math.inf)
    top = np.where(np.isfinite(top), top, 0.0)
    e = np.exp(scores - top)
    total = e.sum(-1, keepdims=True)
    out = (e / np.where(total == 0, 1, total)) @ v
    lse = np.where(total == 0, 0, np.log(np.where(total == 0, 1, total)) + top)
    return out, lse[..., 0]


def compare(shape: tuple[int, ...], mask: Any, causal: bool, turned: bool, seed: int = 0) -> None:
    q, k, v = made(shape, seed, turned)
    want, want_lse = wanted(q, k, v, mask, 0.3, causal)
    lse = np.full(q.shape[:3], np.nan, np.float32)
    options: Any = {"scale": 0.3, "causal": causal}
    out = native.attention(q, k, v, mask, **options, lse=lse)
    assert_allclose(out, want, rtol=1e-4, atol=1e-5)
    assert_allclose(lse, want_lse, rtol=1e-5, atol=1e-5)
    for threads in (1, 3):
        native.set_num_threads(threads)
        assert_array_equal(native.attention(q, k, v, mask, **options), out)
    native.set_num_threads(2)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention(isa: str, shape: tuple[int, ...], causal: bool, turned: bool) -> None:
    compare(shape, None, causal, turned)


@pytest.mark.parametrize("kind", ["of keys", "of rows", "whole", "shut"])
@pytest.mark.parametrize("shape", SHAPES[1:6], ids=str)
def test_masks(isa: str, shape: tuple[int, ...], kind: str) -> None:
    """Numbers that are added, -inf among them; queries that may attend to nothing get zeros."""
    b, heads, _, tq, tk, _, _ = shape
    random = np.random.default_rng(5)
    lead = {"of keys": (b, 1, 1), "of rows": (1, 1, tq), "whole": (b, heads, tq), "shut": (1, 1, 1)}
    mask = random.standard_normal((*lead[kind], tk), dtype=np.float32)
    mask[random.random(mask.shape) < 0.4] = -math.inf
    if kind == "shut":
        mask[...] = -math.inf
    elif kind == "whole":
        mask[:, :, -1] = -math.inf
    compare(shape, mask, kind == "of rows", False)
    if kind == "shut":
        assert not native.attention(*made(shape), mask, scale=1.0).any()


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, n) for n in (3, 3, 2, 70, 300, 70, 70))),
    causal=st.booleans(),
    turned=st.booleans(),
    masked=st.booleans(),
    seed=st.integers(0, 9),
)
@pytest.mark.usefixtures("built")
def test_any_shape(
    shape: tuple[int, ...], causal: bool, turned: bool, masked: bool, seed: int
) -> None:
    b, group, shared, *rest = shape
    full = (b, group * shared, shared, *rest)
    mask = None
    if masked:
        mask = np.random.default_rng(seed).standard_normal((b, 1, rest[0], rest[1]))
        mask = mask.astype(np.float32)
    compare(full, mask, causal, turned, seed)


def test_large_scores_and_nan(isa: str) -> None:
    """The largest score is taken off, and NaN stays with its query."""
    q, k, v = made((1, 1, 1, 40, 300, 8, 8))
    q[0, 0, 3] *= 1e4
    q[0, 0, 7, 2] = np.nan
    out = native.attention(q, k, v, scale=1.0)
    want, _ = wanted(q[:, :, :7], k, v, None, 1.0, False)
    assert_allclose(out[:, :, :7], want, rtol=1e-4, atol=1e-5)
    assert np.isnan(out[0, 0, 7]).all()
    assert np.isfinite(np.delete(out[0, 0], 7, axis=0)).all()


@pytest.mark.usefixtures("built")
def test_what_does_not_fit_is_refused() -> None:
    q, k, v = made((1, 2, 2, 5, 7, 8, 8))
    with pytest.raises(ShapeError, match="k must have shape"):
        native.attention(q, k[..., :4], v, scale=1.0)
    with pytest.raises(ShapeError, match="v must have shape"):
        native.attention(q, k, v[:, :, :3], scale=1.0)
    with pytest.raises(ShapeError, match="heads of keys divide"):
        native.attention(*made((1, 3, 2, 5, 7, 8, 8)), scale=1.0)
    with pytest.raises(ShapeError, match="none is wider than 512"):
        native.attention(*made((1, 1, 1, 5, 7, 513, 8)), scale=1.0)
    with pytest.raises(ShapeError, match="mask"):
        native.attention(q, k, v, np.zeros((1, 1, 3, 7), np.float32), scale=1.0)
    with pytest.raises(DtypeError, match="float32"):
        native.attention(q.astype(np.float64), k, v, scale=1.0)
    with pytest.raises(ValueError, match="contiguous"):
        native.attention(q[..., ::2], k[..., ::2], v, scale=1.0)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("mask", [None, "truth", "one key"])
def test_the_operation_uses_it(mask: str | None, monkeypatch: Any) -> None:
    """Also without samples, with masks of truth values, and its gradient fits."""
    q, k, v = (bt.tensor(x[0], requires_grad=True) for x in made((1, 4, 2, 12, 17, 8, 8)))
    masks: Any = {
        None: None,
        "truth": bt.tensor(np.random.default_rng(0).random((1, 12, 17)) < 0.7),
        "one key": bt.tensor(np.full((4, 12, 1), 0.5, np.float32)),
    }
    given_mask = masks[mask]

    def run() -> list[Any]:
        out = F.scaled_dot_product_attention(q, k, v, given_mask, enable_gqa=True)
        return [out, *bt.grad((out * out).sum(), (q, k, v))]

    calls = []
    ours = native.attention
    monkeypatch.setattr(native, "attention", lambda *a, **o: calls.append(1) or ours(*a, **o))
    fast = run()
    assert calls
    monkeypatch.setattr("bestiary.core.ops.native_attention._FEW", 1000)
    for a, b in zip(fast, run(), strict=True):
        assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-4, atol=1e-5)

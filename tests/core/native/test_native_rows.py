"""Softmax and normalisation kernels against float64 definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bestiary.core import native
from bestiary.core.errors import DtypeError, ShapeError

SHAPES = [(1, 1), (3, 5), (2, 3, 16), (7, 17), (0, 8), (65, 63), (33, 64), (130, 129), (300, 768)]
COLUMNS = [(1, 1), (2, 3, 5, 1), (65, 3), (33, 16), (4, 7, 7, 64), (97, 65), (3, 200), (9000, 24)]


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def both_threads(compute: Any) -> Any:
    """What it gives with two threads; one and three must give the same bits."""
    native.set_num_threads(2)
    two = compute()
    for threads in (1, 3):
        native.set_num_threads(threads)
        for a, b in zip(two, compute(), strict=True):
            assert_array_equal(a, b)
    return two


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_softmax(isa: str, shape: tuple[int, ...]) -> None:
    x = normal(*shape) * 5
    wide = x.astype(np.float64)
    want = np.exp(wide - wide.max(-1, keepdims=True))
    want /= want.sum(-1, keepdims=True)
    (y,) = both_threads(lambda: (native.softmax(x),))
    assert_allclose(y, want, rtol=1e-5, atol=1e-9)
    g = normal(*shape, seed=1)
    (dx,) = both_threads(lambda: (native.softmax_backward(g, y),))
    assert_allclose(dx, want * (g - (g * want).sum(-1, keepdims=True)), rtol=1e-4, atol=3e-6)
    assert native.softmax(x, out=x) is x
    assert_array_equal(x, y)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_log_softmax(isa: str, shape: tuple[int, ...]) -> None:
    x = normal(*shape) * 5
    wide = x.astype(np.float64)
    top = wide.max(-1, keepdims=True)
    lse = np.log(np.exp(wide - top).sum(-1, keepdims=True)) + top
    (y,) = both_threads(lambda: (native.log_softmax(x),))
    # Compilers that may not vectorise (sanitizers) add one number after the other.
    assert_allclose(y, wide - lse, rtol=1e-5, atol=5e-6)
    g = normal(*shape, seed=1)
    (dx,) = both_threads(lambda: (native.log_softmax_backward(g, y),))
    want = g - np.exp(wide - lse) * g.sum(-1, keepdims=True, dtype=np.float64)
    assert_allclose(dx, want, rtol=1e-4, atol=1e-5)
    sums = np.empty(shape[:-1], np.float32)
    native.softmax(x, lse=sums)
    assert_allclose(sums, lse[..., 0], rtol=1e-5, atol=3e-6)


def test_log_softmax_of_nothing(isa: str) -> None:
    x = np.full((2, 20), -np.inf, np.float32)
    x[1, 3] = 0
    sums = np.empty(2, np.float32)
    assert (native.log_softmax(x)[0] == -np.inf).all()
    assert not native.softmax(x, lse=sums)[0].any()
    assert sums.tolist() == [0, 0]
    assert not native.log_softmax_backward(np.zeros_like(x), native.log_softmax(x)).any()


def test_softmax_masks_and_extremes(isa: str) -> None:
    x = normal(4, 37)
    x[0, 5:] = -np.inf
    x[1] = -np.inf
    x[2] = 3e38
    x[3, 4] = np.nan
    y = native.softmax(x)
    assert (y[0, 5:] == 0).all()
    assert_allclose(y[0, :5].sum(), 1, rtol=1e-6)
    assert (y[1] == 0).all()
    assert_allclose(y[2], 1 / 37, rtol=1e-6)
    assert np.isnan(y[3]).all()


@pytest.mark.parametrize("centre", [True, False], ids=["layer", "rms"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layer_norm(isa: str, shape: tuple[int, ...], centre: bool) -> None:
    d = shape[-1]
    x, weight, bias = normal(*shape) * 2 + 3, normal(d, seed=1), normal(d, seed=2)
    g = normal(*shape, seed=3)
    wide = x.astype(np.float64)
    mean = wide.mean(-1, keepdims=True) * centre
    rstd = 1 / np.sqrt(((wide - mean) ** 2).mean(-1, keepdims=True) + 1e-5)
    hat = (wide - mean) * rstd
    y, got_mean, got_rstd = both_threads(
        lambda: native.layer_norm(x, weight, bias, eps=1e-5, centre=centre)
    )
    assert got_mean.shape == got_rstd.shape == shape[:-1]
    scale = rstd.max(initial=1)
    assert_allclose(got_mean, mean[..., 0], rtol=2e-5, atol=1e-6)
    assert_allclose(got_rstd, rstd[..., 0], rtol=2e-5)
    assert_allclose(y, hat * weight + bias, rtol=2e-5, atol=2e-5 * scale)
    dx, dweight, dbias = both_threads(
        lambda: native.layer_norm_backward(g, x, weight, got_mean, got_rstd, centre=centre)
    )
    gw = g * weight.astype(np.float64)
    want = gw - hat * (gw * hat).mean(-1, keepdims=True)
    if centre:
        want -= gw.mean(-1, keepdims=True)
    assert_allclose(dx, rstd * want, rtol=1e-4, atol=2e-5 * scale)
    axes = tuple(range(len(shape) - 1))
    assert_allclose(dweight, (g * hat).sum(axes), rtol=1e-5, atol=6e-5 * scale)
    assert_allclose(dbias, g.sum(axes, dtype=np.float64), rtol=1e-5, atol=1e-5)
    plain, _, _ = native.layer_norm(x, eps=1e-5, centre=centre)
    assert_allclose(plain, hat, rtol=1e-5, atol=1e-5 * scale)
    assert native.layer_norm_backward(g, x, None, got_mean, got_rstd, needs=(False, False)) == (
        None,
        None,
        None,
    )


@pytest.mark.parametrize("shape", COLUMNS, ids=str)
def test_batch_norm(isa: str, shape: tuple[int, ...]) -> None:
    c = shape[-1]
    x = normal(*shape) * 2 + normal(c, seed=9) * 30
    weight, bias, g = normal(c, seed=1), normal(c, seed=2), normal(*shape, seed=3)
    wide, rows = x.reshape(-1, c).astype(np.float64), x.size // c
    mean, var = both_threads(lambda: native.batch_norm_stats(x))
    assert_allclose(mean, wide.mean(0), rtol=1e-6, atol=1e-6)
    assert_allclose(var, wide.var(0), rtol=1e-5, atol=1e-10)
    samples = x.reshape(1, -1, c).repeat(3, 0)
    own, spread = both_threads(lambda: native.sample_stats(samples))
    assert_allclose(own, np.stack([wide.mean(0)] * 3), rtol=1e-6, atol=1e-6)
    assert_allclose(spread, np.stack([wide.var(0)] * 3), rtol=1e-5, atol=1e-10)
    scale = weight / np.sqrt(var + 1e-5)
    (y,) = both_threads(lambda: (native.batch_norm_apply(x, mean, scale, bias, clamp=native.RELU),))
    want = np.maximum((wide - mean) * scale + bias, 0).reshape(shape)
    assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    dx, dweight, dbias = both_threads(
        lambda: native.batch_norm_backward(g, x, weight, mean, var, eps=1e-5)
    )
    rstd = 1 / np.sqrt(wide.var(0) + 1e-5)
    hat, flat = (wide - wide.mean(0)) * rstd, g.reshape(-1, c).astype(np.float64)
    atol = 2e-5 * rows**0.5
    assert_allclose(dbias, flat.sum(0), rtol=1e-5, atol=atol)
    assert_allclose(dweight, (flat * hat).sum(0), rtol=1e-5, atol=atol)
    if rows > 2:
        want = weight * rstd * (flat - flat.mean(0) - hat * (flat * hat).mean(0))
        assert_allclose(dx, want.reshape(shape), rtol=1e-4, atol=1e-4)
    assert_allclose(native.channel_sum(x), wide.sum(0), rtol=1e-5, atol=atol)


def test_variance_far_from_zero(isa: str) -> None:
    """A mean of 10,000 and a deviation of 1: sums of squares in float32 would give noise."""
    x = (np.random.default_rng(0).standard_normal((20_000, 40)) + 10_000).astype(np.float32)
    mean, var = native.batch_norm_stats(x)
    wide = x.astype(np.float64)
    assert_allclose(mean, wide.mean(0), rtol=1e-7)
    assert_allclose(var, wide.var(0), rtol=1e-4)
    total = native.channel_sum(np.full((1_000_000, 3), 0.1, np.float32))
    assert_allclose(total, 1_000_000 * float(np.float32(0.1)), rtol=1e-6)


def test_empty_and_zero_width(isa: str) -> None:
    for shape in ((0, 3), (4, 0), (0, 0)):
        x = np.zeros(shape, np.float32)
        assert native.softmax(x).shape == shape
        assert native.layer_norm(x)[0].shape == shape
        zeros = np.zeros(shape[1], np.float32)
        assert native.batch_norm_apply(x, zeros, zeros, zeros).shape == shape
        assert native.channel_sum(x).shape == shape[1:]
        dx, dweight, _ = native.batch_norm_backward(x, x, None, zeros, zeros)
        assert dx is not None
        assert dx.shape == shape
        assert (dweight == 0).all()
    with pytest.raises(ShapeError):
        native.batch_norm_stats(np.zeros((0, 3), np.float32))


def test_misuse_raises(isa: str) -> None:
    x = normal(4, 8)
    with pytest.raises(DtypeError, match="x must be a NumPy array of float32, got float64"):
        native.softmax(x.astype(np.float64))
    with pytest.raises(ValueError, match="C-contiguous"):
        native.softmax(x.T)
    with pytest.raises(ShapeError):
        native.softmax(np.zeros((), np.float32))
    with pytest.raises(ShapeError, match="weight must have shape"):
        native.layer_norm(x, normal(7))
    with pytest.raises(ShapeError, match="mean"):
        native.layer_norm_backward(x, x, None, normal(3), normal(4))
    with pytest.raises(ShapeError, match="out"):
        native.softmax(x, out=normal(4, 7))
    with pytest.raises(ShapeError, match="g must"):
        native.batch_norm_backward(x[:2], x, None, normal(8), normal(8))
    frozen = x.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        native.softmax(x, out=frozen)

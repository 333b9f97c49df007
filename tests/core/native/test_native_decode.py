"""Steps of a language model for one token, against the same in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bestiary.core import native
from bestiary.core.errors import ConfigError, DtypeError, ShapeError
from bestiary.core.quantization import pack, unpack

Array = np.ndarray[Any, Any]


def normal(*shape: int) -> Array:
    rng = np.random.default_rng(sum(shape))
    return rng.standard_normal(shape).astype(np.float32)


def turned(x: Array, cosines: Array, sines: Array, weight: Array | None, eps: float) -> Array:
    """Heads (N, W), normalised and turned."""
    x = x.astype(np.float64)
    if weight is not None:
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight
    a, b = np.split(x, 2, -1)
    return np.concatenate([a * cosines - b * sines, b * cosines + a * sines], -1)


@pytest.mark.parametrize(("heads", "shared", "width"), [(4, 4, 16), (6, 2, 64), (3, 1, 80)])
@pytest.mark.parametrize(("at", "first"), [(0, 0), (1, 0), (63, 0), (64, 0), (200, 0), (200, 130)])
@pytest.mark.parametrize("normed", [False, True])
def test_attention(
    isa: str, heads: int, shared: int, width: int, at: int, first: int, normed: bool
) -> None:
    keys, values = normal(shared, 256, width), normal(shared, 256, width) + 1
    keys[:, at:] = values[:, at:] = np.nan  # memory that nothing was written to
    keys[:, :first] = values[:, :first] = np.nan
    qkv, out = normal((heads + 2 * shared) * width), np.empty(heads * width, np.float32)
    angles = normal(width // 2)
    cosines, sines = np.cos(angles), np.sin(angles)
    norms = (normal(width), normal(width) + 1) if normed else (None, None)
    q, k, v = np.split(qkv.reshape(-1, width), [heads, heads + shared])
    attend = native.TokenAttention(
        qkv,
        out,
        shared=shared,
        width=width,
        scale=0.3,
        query_norm=norms[0],
        key_norm=norms[1],
        eps=0.1,
    )
    attend(cosines, sines, keys, values, at, first)
    assert_allclose(keys[:, at], turned(k, cosines, sines, norms[1], 0.1), rtol=1e-5, atol=1e-5)
    assert_array_equal(values[:, at], v)
    q = turned(q, cosines, sines, norms[0], 0.1).reshape(shared, -1, width)
    seen = slice(first, at + 1)
    scores = 0.3 * q @ keys[:, seen].astype(np.float64).swapaxes(1, 2)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    want = p / p.sum(-1, keepdims=True) @ values[:, seen].astype(np.float64)
    assert_allclose(out, want.reshape(-1), rtol=2e-5, atol=2e-5)


def test_scores_of_any_size(isa: str) -> None:
    """A single key that outweighs all others, in every block."""
    keys, values = np.zeros((1, 200, 16), np.float32), normal(1, 200, 16)
    qkv, out = np.zeros(48, np.float32), np.empty(16, np.float32)
    qkv[0] = 1000.0
    attend = native.TokenAttention(qkv, out, shared=1, width=16, scale=1.0)
    ones, none = np.ones(8, np.float32), np.zeros(8, np.float32)
    for place in (3, 70, 149):
        keys[:] = 0
        keys[0, place, 0] = 1000.0
        attend(ones, none, keys, values, 150, 0)
        assert_array_equal(out, values[0, place])


@pytest.mark.parametrize("form", ["float32", "bfloat16", "int8", "q4_1"])
def test_products(isa: str, form: str) -> None:
    wide = normal(75, 96)
    if form == "float32":
        raw = wide.view(np.uint8)
    else:
        raw = pack(wide, form)
        wide = unpack(np, raw, form, 96)
    x, out = normal(96), normal(75)
    want = wide.astype(np.float64) @ x
    native.run_steps([native.product_step(form, [raw], x, None, out)])
    assert_allclose(out, want, rtol=1e-5, atol=1e-5)
    native.run_steps([native.product_step(form, [raw], x, out, out)])  # added to what is there
    assert_allclose(out, 2 * want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["float32", "int8", "q4_1"])
@pytest.mark.parametrize("sizes", [(5, 9), (64, 1, 7), (700, 300, 300)])
def test_several_weights(isa: str, form: str, sizes: tuple[int, ...]) -> None:
    wide = [normal(size, 64) for size in sizes]
    raw = [w.view(np.uint8) if form == "float32" else pack(w, form) for w in wide]
    if form != "float32":
        wide = [unpack(np, r, form, 64) for r in raw]
    x, bias, out = normal(64), normal(sum(sizes)), np.full(sum(sizes), np.nan, np.float32)
    native.run_steps([native.product_step(form, raw, x, bias, out)])
    want = np.concatenate(wide).astype(np.float64) @ x + bias
    assert_allclose(out, want, rtol=1e-5, atol=1e-5)
    with pytest.raises(ShapeError, match="1 to 3 weights"):
        native.product_step(form, raw * 3, x, bias, out)


def test_norms_and_gates(isa: str) -> None:
    x, weight, out = normal(70), normal(70), np.empty(70, np.float32)
    native.run_steps([native.rms_norm_step(x, weight, 0.1, out)])
    wide = x.astype(np.float64)
    assert_allclose(out, wide / np.sqrt((wide**2).mean() + 0.1) * weight, rtol=1e-5, atol=1e-6)
    bias = normal(70) + 1
    native.run_steps([native.layer_norm_step(x, weight, bias, 0.1, out)])
    centred = wide - wide.mean()
    want = centred / np.sqrt((centred**2).mean() + 0.1) * weight + bias
    assert_allclose(out, want, rtol=1e-5, atol=1e-5)
    native.run_steps([native.activation_step("silu", x, out), native.add_step(x, out)])
    assert_allclose(out, wide / (1 + np.exp(-wide)) + wide, rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="gelu_tanh"):
        native.activation_step("tanh", x, out)
    both = 3 * normal(140)
    native.run_steps([native.gated_step(both, out)])
    gate, up = np.split(both.astype(np.float64), 2)
    assert_allclose(out, gate / (1 + np.exp(-gate)) * up, rtol=1e-5, atol=1e-5)


def test_wrong_input_is_refused(built: None) -> None:
    x, out = np.zeros(32, np.float32), np.zeros(16, np.float32)
    with pytest.raises(ShapeError, match="no multiple of 32"):
        native.product_step("float32", [np.zeros((16, 120), np.uint8)], x[:30], None, out)
    with pytest.raises(ShapeError):
        native.product_step("float32", [np.zeros((16, 120), np.uint8)], x, None, out)
    with pytest.raises(ShapeError):
        native.product_step("int8", [np.zeros((16, 35), np.uint8)], x, None, out)
    with pytest.raises(ShapeError):
        native.product_step("int8", [np.zeros((15, 36), np.uint8)], x, None, out)
    with pytest.raises(DtypeError):
        native.rms_norm_step(x, np.ones(32), 0.1, x)
    with pytest.raises(ShapeError):
        native.gated_step(x, x)
    for shared, width in ((1, 24), (3, 16), (0, 16), (1, 272)):
        with pytest.raises(ConfigError, match="multiple of 16"):
            native.TokenAttention(np.zeros(96, np.float32), x, shared=shared, width=width, scale=1)
    attend = native.TokenAttention(np.zeros(64, np.float32), x, shared=1, width=16, scale=1)
    turns, cache = np.ones(8, np.float32), np.zeros((1, 5, 16), np.float32)
    for at, first in ((5, 0), (2, 3), (2, -1)):
        with pytest.raises(ShapeError, match="places"):
            attend(turns, turns, cache, cache, at, first)
    with pytest.raises(ShapeError, match="keys"):
        attend(turns, turns, cache, cache[:, :4], 1, 0)
    with pytest.raises(TypeError, match="array 5"):
        attend(turns, turns, cache.astype(np.float64), cache, 1, 0)

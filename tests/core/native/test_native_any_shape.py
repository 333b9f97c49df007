"""The kernels that no operation calls with its own operands, over shapes chosen by hypothesis.

Together with op_cases.py, and the programs of test_native_chain.py, every kernel is named here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from drawing import SIZES, Draw, drawn, laid, maybe, numbers, size, wide
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from op_cases import CASES

from bestiary.core import native
from bestiary.core import random as random_
from bestiary.core.dtypes import bfloat16, float16
from bestiary.core.native import runtime
from bestiary.core.op import REGISTRY
from bestiary.core.quantization import FORMATS, unpack
from bestiary.rl.environments.cartpole import CartPole

FORMS = (*FORMATS, "float32")


def body(name: str, *operands: Any, **constants: Any) -> Any:
    return REGISTRY[name].body(np, *operands, **constants)


def halves(draw: Draw) -> None:
    """Any memory is taken, and kept where it has no gaps."""
    x = numbers(draw, *(size(draw, 17) for _ in range(draw(st.integers(0, 4)))), scale=100)
    for dtype in (bfloat16, float16):
        down = native.narrow(x, dtype)
        assert_array_equal(down, x.astype(dtype))
        assert_array_equal(native.widen(laid(draw, down)), down.astype(np.float32))


def blocks_of_random_words(draw: Draw) -> None:
    seed, first = draw(st.integers(0, 2**64 - 1)), draw(st.integers(0, 2**40))
    count = draw(st.sampled_from([0, *SIZES, 4097]))
    assert_array_equal(native.philox(seed, first, count), random_.philox(np, seed, first, count))


ENDINGS: dict[str, Callable[[Any], Any]] = {
    "gelu": lambda x: body("gelu", x, approximate="none"),
    "gelu_tanh": lambda x: body("gelu", x, approximate="tanh"),
    **{name: lambda x, name=name: body(name, x) for name in ("silu", "hardswish", "sigmoid")},
}


def ending(name: str | None) -> Callable[[Draw], None]:
    """Bias, an addend, then an activation or a clamp, in place."""

    def any_ending(draw: Draw) -> None:
        shape = (*(size(draw, 33) for _ in range(draw(st.integers(0, 2)))), size(draw, zero=False))
        x, add = (numbers(draw, *shape).copy("C") for _ in range(2))
        bias = maybe(draw, numbers(draw, shape[-1]).copy())
        other = maybe(draw, add)
        want = wide(x) + (0 if bias is None else bias) + (0 if other is None else other)
        want = np.clip(want, -0.5, 1) if name is None else ENDINGS[name](want)
        clamp = (-0.5, 1.0) if name is None else native.NO_CLAMP
        assert native.finish(x, bias, other, activation=name, clamp=clamp) is x
        assert_allclose(x, want, rtol=2e-6, atol=2e-6)

    return any_ending


def raw_weight(draw: Draw, form: str, rows: int, features: int) -> tuple[Any, Any]:
    """Bytes of a weight with scales of a sane size, and its numbers."""
    if form == "float32":
        values = numbers(draw, rows, features).copy()
        return np.ascontiguousarray(values).view(np.uint8).reshape(rows, 4 * features), values
    layout = FORMATS[form]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    raw = rng.integers(0, 256, (rows, layout.stored(features)), np.uint8)
    if form in ("bfloat16", "float16"):
        raw[:, 1::2] = raw[:, 1::2] & 0x83 | 0x38
    elif form == "int8":
        raw[:, :4] = np.full((rows, 1), 0.01, np.float32).view(np.uint8)
    else:
        blocks = raw.reshape(rows, features // layout.block, layout.bytes)
        scales = {"q4_1": (0, 2), "q5_1": (0, 2), "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208,)}
        for at in scales.get(form, (0,)):
            blocks[..., at + 1] = blocks[..., at + 1] & 0x83 | 0x24
    return raw, unpack(np, raw, form, features)


def products(form: str) -> Callable[[Draw], None]:
    """Products and numbers of weights of few bits; a step of a token has up to three weights."""

    def any_product(draw: Draw) -> None:
        block = 32 if form == "float32" else FORMATS[form].block
        features = block * draw(st.sampled_from([1, 2, 3]))
        many = draw(st.integers(1, 3))
        weights = [
            raw_weight(draw, form, size(draw, 33, zero=k > 0), features) for k in range(many)
        ]
        raws, values = [raw for raw, _ in weights], np.concatenate([v for _, v in weights])
        x, bias = numbers(draw, features).copy(), numbers(draw, len(values)).copy()
        bias = bias if draw(st.booleans()) else None
        out = np.empty(len(values), np.float32)
        native.run_steps([native.product_step(form, raws, x, bias, out)])
        want = wide(values) @ wide(x) + (0 if bias is None else bias)
        room = 1e-6 * (np.abs(wide(values)) @ np.abs(wide(x)) + 1)
        assert (np.abs(out - want) <= room).all()
        if form == "float32":
            bare = np.empty_like(values)
            runtime.run(
                "numbers_float32",
                (raws[0], bare[: len(raws[0])]),
                (features // 32, 4 * features),
                (),
                len(raws[0]),
                3,
            )
            assert_array_equal(bare[: len(raws[0])], weights[0][1])
            return
        assert_array_equal(native.numbers(form, raws[0], features), weights[0][1])
        few = numbers(draw, draw(st.sampled_from([0, 1, 3, 4, 5, 9])), features)
        found = native.product(form, raws[0], np.array(few, order="C"))
        room = 1e-6 * (np.abs(wide(few)) @ np.abs(wide(weights[0][1]).T) + 1)
        assert (np.abs(found - wide(few) @ wide(weights[0][1]).T) <= room).all()

    return any_product


def poles(draw: Draw) -> None:
    count = draw(st.sampled_from([0, *SIZES, 5001]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    state, actions = rng.uniform(-2.5, 2.5, (4, count)), rng.integers(0, 2, count)
    found, ended = native.cartpole(state, actions)
    want, _, fallen = CartPole(1).advance_in_numpy(state, actions)
    assert_allclose(found, want, rtol=0, atol=1e-13)
    assert_array_equal(ended, fallen)


def gates_and_sums(draw: Draw) -> None:
    count = draw(st.sampled_from([0, *SIZES, 16_385]))
    both, out = numbers(draw, 2 * count, scale=3).copy(), np.empty(count, np.float32)
    native.run_steps([native.gated_step(both, out)])
    gate, up = np.split(wide(both), 2)
    want = gate / (1 + np.exp(-gate)) * up
    assert_allclose(out, want, rtol=1e-5, atol=1e-6)
    native.run_steps([native.add_step(both[:count].copy(), out)])
    assert_allclose(out, want + gate, rtol=1e-5, atol=1e-5)


def tokens(draw: Draw) -> None:
    """Attention of a token: caches that are full to the last place, or begin anywhere."""
    width, shared = draw(st.sampled_from([16, 32, 48, 80, 256])), draw(st.integers(1, 3))
    heads = shared * draw(st.integers(1, 3))
    capacity = draw(st.sampled_from([1, 2, 63, 64, 65, 66, 130]))
    at = draw(st.integers(0, capacity - 1))
    first = draw(st.integers(0, at))
    keys, values = (numbers(draw, shared, capacity, width).copy("C") for _ in range(2))
    keys[:, :first] = values[:, :first] = np.nan
    qkv = numbers(draw, (heads + 2 * shared) * width).copy()
    out, angles = np.empty(heads * width, np.float32), numbers(draw, width // 2)
    cosines, sines = np.cos(angles), np.sin(angles)
    attend = native.TokenAttention(qkv, out, shared=shared, width=width, scale=width**-0.5)
    attend(cosines, sines, keys, values, at, first)
    q, k, v = np.split(wide(qkv).reshape(-1, width), [heads, heads + shared])
    q, k = (turned(x, cosines, sines) for x in (q, k))
    assert_allclose(keys[:, at], k, rtol=1e-5, atol=1e-5)
    assert_array_equal(values[:, at], v.astype(np.float32))
    seen = slice(first, at + 1)
    scores = q.reshape(shared, -1, width) @ wide(keys[:, seen]).swapaxes(1, 2) * width**-0.5
    p = np.exp(scores - scores.max(-1, keepdims=True))
    want = p / p.sum(-1, keepdims=True) @ wide(values[:, seen])
    assert_allclose(out, want.reshape(-1), rtol=3e-5, atol=3e-5)


def turned(x: Any, cosines: Any, sines: Any) -> Any:
    a, b = np.split(x, 2, -1)
    return np.concatenate([a * cosines - b * sines, b * cosines + a * sines], -1)


STORED = {form: (f"product_{form}", f"numbers_{form}") for form in FORMS}
OTHERS: dict[str, tuple[Callable[[Draw], None], tuple[str, ...]]] = {
    "halves": (
        halves,
        tuple(
            f"{a}_to_{b}"
            for h in ("bfloat16", "float16")
            for a, b in ((h, "float32"), ("float32", h))
        ),
    ),
    "random words": (blocks_of_random_words, ("philox",)),
    "a clamp": (ending(None), ("end_clamp",)),
    **{name: (ending(name), (f"end_{name}",)) for name in native.ACTIVATIONS},
    **{f"products {form}": (products(form), names) for form, names in STORED.items()},
    "CartPole": (poles, ("cartpole",)),
    "gates": (gates_and_sums, ("gated", "added")),
    "tokens": (tokens, ("attend_token",)),
}


@pytest.mark.parametrize("examples", [30, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", OTHERS)
def test_any_shape(isa: str, name: str, examples: int, watched: Any) -> None:
    check, kernels = OTHERS[name]

    def every(data: Any) -> None:
        check(data.draw)

    drawn(every, examples, lambda: watched.seen >= set(kernels))


def test_every_kernel_is_in_a_table(built: None) -> None:
    named = {kernel for case in CASES for kernel in case.kernels}
    named |= {kernel for _, kernels in OTHERS.values() for kernel in kernels}
    # test_native_chain.py: any program, shape and layout; test_native_winograd.py: any shape.
    named |= {"chain", "winograd2", "winograd4"}
    assert named == set(runtime.KERNELS)

"""The recurrent primitives: gradients of both orders, and the fused form against the plain one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.ops.recurrent import gru_scan, lstm_scan, rnn_scan
from bestiary.testing import gradcheck

T, B, H, P = 4, 3, 3, 2
MASK = np.arange(T)[:, None] < np.array([4, 1, 3])


def draw(*shape: int, seed: int = 0, dtype: Any = np.float64) -> bt.Tensor:
    return bt.asarray(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


CASES: dict[str, tuple[Any, list[Any], dict[str, Any]]] = {
    "rnn": (
        rnn_scan,
        [draw(T, B, H), draw(B, H, seed=1), draw(H, H, seed=2)],
        {"rectified": False},
    ),
    "rnn_relu": (
        rnn_scan,
        [draw(T, B, H), draw(B, H, seed=1), draw(H, H, seed=2)],
        {"rectified": True},
    ),
    "lstm": (
        lstm_scan,
        [draw(T, B, 4 * H), draw(B, H, seed=1), draw(B, H, seed=2), draw(4 * H, H, seed=3), None],
        {},
    ),
    "lstm_projected": (
        lstm_scan,
        [
            draw(T, B, 4 * H),
            draw(B, P, seed=1),
            draw(B, H, seed=2),
            draw(4 * H, P, seed=3),
            draw(P, H, seed=4),
        ],
        {},
    ),
    "gru": (
        gru_scan,
        [draw(T, B, 3 * H), draw(B, H, seed=1), draw(3 * H, H, seed=2), draw(3 * H, seed=3)],
        {},
    ),
    "gru_plain": (
        gru_scan,
        [draw(T, B, 3 * H), draw(B, H, seed=1), draw(3 * H, H, seed=2), None],
        {},
    ),
}


def call(name: str, masked: bool, reverse: bool) -> tuple[Any, list[Any]]:
    op, operands, constants = CASES[name]
    mask = bt.asarray(MASK) if masked else None
    places = [i for i, x in enumerate(operands) if x is not None]

    def function(*given: Any) -> Any:
        filled = [None] * len(operands)
        for i, x in zip(places, given, strict=True):
            filled[i] = x
        out = op(*filled, mask, reverse=reverse, **constants)
        if op is lstm_scan:
            return out[:2]
        return out[0] if isinstance(out, tuple) else out

    return function, [operands[i] for i in places]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_gradients_of_both_orders(name, masked, reverse):
    function, inputs = call(name, masked, reverse)
    gradcheck(function, inputs, elements=12)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_fused_equals_composite(name, masked):
    op, operands, constants = CASES[name]
    mask = bt.asarray(MASK) if masked else None
    for reverse in (False, True):
        fused = op(*operands, mask, reverse=reverse, **constants)
        plain = op.composite(*operands, mask, reverse=reverse, **constants)
        fused = fused if isinstance(fused, tuple) else (fused,)
        plain = plain if isinstance(plain, tuple) else (plain,)
        for f, p in zip(fused, plain, strict=True):
            if p is not None:
                np.testing.assert_allclose(f.array, p.array, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [bt.float32, bt.float16, bt.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_dtypes_are_kept(name, dtype):
    op, operands, constants = CASES[name]
    given = [None if x is None else x.astype(dtype).requires_grad_() for x in operands]
    out = op(*given, None, reverse=False, **constants)
    first = out[0] if isinstance(out, tuple) else out
    assert first.dtype == dtype
    first.sum().backward()
    for x in given:
        assert x is None or (x.grad.dtype == dtype and x.grad.shape == x.shape)
    exact = op(*operands, None, reverse=False, **constants)
    exact = exact[0] if isinstance(exact, tuple) else exact
    np.testing.assert_allclose(first.array.astype(float), exact.array, rtol=2e-2, atol=5e-2)


def test_extreme_gates_do_not_overflow():
    gates = bt.asarray(np.full((2, 1, 4), 1e4, np.float32) * np.float32([1, -1, 1, -1]))
    zero = bt.asarray(np.zeros((1, 1), np.float32))
    weight = bt.asarray(np.zeros((4, 1), np.float32))
    hs, cs, _ = lstm_scan(gates, zero, zero, weight, None, None, reverse=False)
    assert np.isfinite(hs.array).all()
    np.testing.assert_allclose(cs.array.ravel(), [1.0, 1.0])


def test_empty_sequences():
    layer = bt.nn.LSTM(3, 4)
    out, (h, c) = layer(bt.asarray(np.zeros((2, 0, 3), np.float32)))
    assert out.shape == (2, 0, 4)
    assert h.shape == c.shape == (1, 0, 4)

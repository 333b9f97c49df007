"""The recurrent primitives; tests/core/nn/test_recurrent_ops.py has masks and projections too."""

from __future__ import annotations

from typing import Any

import numpy as np
from rows import Array, Row, Sample, sample, uniform

from bestiary.core.ops.recurrent import gru_scan, lstm_scan, rnn_scan

MASK = np.array([[True, True], [True, False], [False, False]])


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _steps(gates: Array, reverse: bool) -> Any:
    order = range(len(gates))
    return reversed(order) if reverse else order


def _kept(mask: Any, t: int, new: Array, old: Array) -> Array:
    return new if mask is None else np.where(mask[t][:, None], new, old)


def _rnn(gates: Array, h: Array, w: Array, mask: Any, *, reverse: bool, rectified: bool) -> Array:
    states = np.zeros((*gates.shape[:2], h.shape[1]))
    for t in _steps(gates, reverse):
        new = gates[t] + h @ w.T
        h = states[t] = _kept(mask, t, np.maximum(new, 0) if rectified else np.tanh(new), h)
    return states


def _lstm(
    gates: Array, h: Array, c: Array, w: Array, projection: Any, mask: Any, *, reverse: bool
) -> tuple[Array, Array]:
    hs, cs = np.zeros((*gates.shape[:2], h.shape[1])), np.zeros((*gates.shape[:2], c.shape[1]))
    for t in _steps(gates, reverse):
        i, f, g, o = np.split(gates[t] + h @ w.T, 4, axis=1)
        new_c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        new_h = _sigmoid(o) * np.tanh(new_c)
        new_h = new_h if projection is None else new_h @ projection.T
        h = hs[t] = _kept(mask, t, new_h, h)
        c = cs[t] = _kept(mask, t, new_c, c)
    return hs, cs


def _gru(gates: Array, h: Array, w: Array, b: Any, mask: Any, *, reverse: bool) -> Array:
    states = np.zeros((*gates.shape[:2], h.shape[1]))
    for t in _steps(gates, reverse):
        own = np.split(h @ w.T + (0 if b is None else b), 3, axis=1)
        x = np.split(gates[t], 3, axis=1)
        r, z = _sigmoid(x[0] + own[0]), _sigmoid(x[1] + own[1])
        h = states[t] = _kept(mask, t, (1 - z) * np.tanh(x[2] + r * own[2]) + z * h, h)
    return states


def _samples(gates: int, states: int, last: str, **constants: Any) -> Any:
    """Calls for 3 steps, a batch of 2 and 2 features."""

    def make(rng: np.random.Generator) -> list[Sample]:
        made = []
        for reverse, mask in ((False, None), (True, MASK)):
            operands: list[Any] = [uniform(rng, (3, 2, 2 * gates))]
            operands += [uniform(rng, (2, 2)) for _ in range(states)]
            operands.append(uniform(rng, (2 * gates, 2)))
            if last == "projection":
                operands.append(uniform(rng, (2, 2)) if reverse else None)
            if last == "bias":
                operands.append(uniform(rng, (2 * gates,)) if reverse else None)
            made.append(sample(*operands, mask, reverse=reverse, **constants))
        return made

    return make


def lstm_states(*operands: Any, **constants: Any) -> Any:
    """States and cells; the third result is for the gradient only."""
    return lstm_scan(*operands, **constants)[:2]


def gru_states(*operands: Any, **constants: Any) -> Any:
    """States; the second result is for the gradient only."""
    return gru_scan(*operands, **constants)[0]


ROWS = [
    Row(
        rnn_scan,
        _samples(1, 1, "", rectified=False),
        covers=("rnn_scan_backward",),
        reference=_rnn,
        half_ulp=None,
    ),
    Row(
        rnn_scan,
        _samples(1, 1, "", rectified=True),
        name="rnn_scan_rectified",
        reference=_rnn,
        half_ulp=None,
    ),
    Row(
        lstm_states,
        _samples(4, 2, "projection"),
        covers=("lstm_scan", "lstm_scan_backward"),
        reference=_lstm,
        half_ulp=None,
    ),
    Row(
        gru_states,
        _samples(3, 1, "bias"),
        covers=("gru_scan", "gru_scan_backward"),
        reference=_gru,
        half_ulp=None,
    ),
]

"""Recurrent layers over whole sequences: one primitive for all steps of one direction.

A loop of small operations would pay for every one of them at every step. The products with the
input, which need no loop, are made outside (`linear`), and come in as `gates`.

Letters: T steps, B batch, H features of the state, P features of the output (H, unless an LSTM
projects). `mask` (T, B), where given, is False at steps that a sequence does not have: its state
is carried over them unchanged. `reverse` runs from the last step to the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..op import op
from .activation import relu, sigmoid
from .linalg import matmul
from .normalization import flat_rows
from .scans import (
    StateGradient,
    gate_parts,
    kept,
    sigmoid_in_place,
    states_before,
    time_order,
    unrolled,
)
from .shape import matrix_transpose
from .trigonometry import tanh

if TYPE_CHECKING:
    from ..tensor import Tensor


# -- the simple network ------------------------------------------------------------------------


def _rnn_of(
    gates: Tensor,
    h0: Tensor,
    w_hh: Tensor,
    mask: Tensor | None = None,
    *,
    reverse: bool,
    rectified: bool,
) -> Tensor:
    weight = matrix_transpose(w_hh)

    def step(x: Tensor, h: Tensor) -> tuple[Tensor]:
        total = x + matmul(h, weight)
        return (relu(total) if rectified else tanh(total),)

    return unrolled(step, gates, (h0,), mask, reverse)[0]


@op(same_float=True, composite=_rnn_of)
def rnn_scan(
    xp: Any,
    gates: Tensor,
    h0: Tensor,
    w_hh: Tensor,
    mask: Tensor | None = None,
    *,
    reverse: bool,
    rectified: bool,
) -> Tensor:
    """`h = tanh(gates + h @ w_hh.T)` (or its positive part) step by step: all states (T, B, H)."""
    states: Any = xp.empty_like(gates)
    weight, h = w_hh.T, h0
    for t in time_order(gates.shape[0], reverse):
        new = xp.matmul(h, weight)
        new += gates[t]
        if rectified:
            xp.maximum(new, 0, out=new)
        else:
            xp.tanh(new, out=new)
        h = states[t] = kept(xp.where, mask, t, new, h)
    return states


@rnn_scan.backward
def _(g, gates, h0, w_hh, mask, out, reverse, rectified):
    return (
        *rnn_scan_backward(g, out, h0, w_hh, mask, reverse=reverse, rectified=rectified),
        None,
    )


@op(outputs=3)
def rnn_scan_backward(
    xp: Any,
    grad: Tensor,
    states: Tensor,
    h0: Tensor,
    w_hh: Tensor,
    mask: Tensor | None = None,
    *,
    reverse: bool,
    rectified: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `rnn_scan` for gates, first state and weight."""
    dgates: Any = xp.empty_like(states)
    dh = StateGradient(xp, h0, grad, mask)
    for t in time_order(states.shape[0], not reverse):
        slope = states[t] > 0 if rectified else 1 - states[t] * states[t]
        xp.multiply(dh.at(t), slope, out=dgates[t])
        dh.back(dgates[t] @ w_hh)
    before = states_before(xp, states, h0, reverse)
    return dgates, dh.value, flat_rows(dgates).T @ flat_rows(before)


# -- long short-term memory --------------------------------------------------------------------


def _lstm_of(
    gates: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_hh: Tensor,
    w_hr: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    reverse: bool,
) -> tuple[Tensor, Tensor, None]:
    weight, size = matrix_transpose(w_hh), c0.shape[1]

    def step(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = gate_parts(x + matmul(h, weight), size)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        return (h if w_hr is None else matmul(h, matrix_transpose(w_hr))), c

    hs, cs = unrolled(step, gates, (h0, c0), mask, reverse)
    return hs, cs, None


@op(outputs=3, same_float=True, composite=_lstm_of)
def lstm_scan(
    xp: Any,
    gates: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_hh: Tensor,
    w_hr: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """All states (T, B, P) and cells (T, B, H) of an LSTM, and its gates (T, B, 4 H).

    Source: Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; gates in
    torch's order: input, forget, cell, output. `w_hr` projects the state.
    """
    steps, batch, _ = gates.shape
    size = c0.shape[1]
    acts: Any = xp.empty_like(gates)
    hs: Any = xp.empty((steps, batch, h0.shape[1]), gates.dtype)
    cs: Any = xp.empty((steps, batch, size), gates.dtype)
    h: Any = h0
    c: Any = c0
    for t in time_order(steps, reverse):
        a = acts[t]
        xp.matmul(h, w_hh.T, out=a)
        a += gates[t]
        i, f, g, o = gate_parts(a, size)
        sigmoid_in_place(xp, a[:, : 2 * size])
        xp.tanh(g, out=g)
        sigmoid_in_place(xp, o)
        new_c = f * c
        new_c += i * g
        new_h = xp.tanh(new_c)
        new_h *= o
        if w_hr is not None:
            new_h = new_h @ w_hr.T
        h = hs[t] = kept(xp.where, mask, t, new_h, h)
        c = cs[t] = kept(xp.where, mask, t, new_c, c)
    return hs, cs, acts


@lstm_scan.backward
def _(g, gates, h0, c0, w_hh, w_hr, mask, out, reverse):
    hs, cs, acts = out
    grads = lstm_scan_backward(g[0], g[1], hs, cs, acts, h0, c0, w_hh, w_hr, mask, reverse=reverse)
    return (*grads, None)


@op(outputs=5)
def lstm_scan_backward(
    xp: Any,
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    hs: Tensor,
    cs: Tensor,
    acts: Tensor,
    h0: Tensor,
    c0: Tensor,
    w_hh: Tensor,
    w_hr: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of `lstm_scan` for gates, first state and cell, and both weights."""
    size = c0.shape[1]
    dgates: Any = xp.empty_like(acts)
    dw_hr: Any = None if w_hr is None else xp.zeros_like(w_hr)
    before_c = states_before(xp, cs, c0, reverse)
    dh, dc = StateGradient(xp, h0, grad_h, mask), StateGradient(xp, c0, grad_c, mask)
    for t in time_order(hs.shape[0], not reverse):
        i, f, g, o = gate_parts(acts[t], size)
        c = xp.tanh(cs[t])
        dhidden, dcell = dh.at(t), dc.at(t)
        if w_hr is not None:
            dw_hr += dhidden.T @ (o * c)
            dhidden = dhidden @ w_hr
        dcell = dcell + dhidden * o * (1 - c * c)
        di, df, dg, do = gate_parts(dgates[t], size)
        di[...] = dcell * g * i * (1 - i)
        df[...] = dcell * before_c[t] * f * (1 - f)
        dg[...] = dcell * i * (1 - g * g)
        do[...] = dhidden * c * o * (1 - o)
        dh.back(dgates[t] @ w_hh)
        dc.back(dcell * f)
    before_h = states_before(xp, hs, h0, reverse)
    dw_hh = flat_rows(dgates).T @ flat_rows(before_h)
    return dgates, dh.value, dc.value, dw_hh, dw_hr


# -- gated recurrent unit ----------------------------------------------------------------------


def _gru_of(
    gates: Tensor,
    h0: Tensor,
    w_hh: Tensor,
    b_hh: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    reverse: bool,
) -> tuple[Tensor, None]:
    weight, size = matrix_transpose(w_hh), h0.shape[1]

    def step(x: Tensor, h: Tensor) -> tuple[Tensor]:
        own = matmul(h, weight)
        if b_hh is not None:
            own = own + b_hh
        x_r, x_z, x_n = gate_parts(x, size)
        own_r, own_z, own_n = gate_parts(own, size)
        r, z = sigmoid(x_r + own_r), sigmoid(x_z + own_z)
        n = tanh(x_n + r * own_n)
        return (n + z * (h - n),)

    return unrolled(step, gates, (h0,), mask, reverse)[0], None


@op(outputs=2, same_float=True, composite=_gru_of)
def gru_scan(
    xp: Any,
    gates: Tensor,
    h0: Tensor,
    w_hh: Tensor,
    b_hh: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """All states (T, B, H) of a gated recurrent unit, and its gates (T, B, 4 H).

    Source: Cho et al. 2014, in torch's form, which resets after the product; gates in its order:
    reset, update, new; the fourth is the state's part of the new gate before it is reset.
    """
    steps, batch, _ = gates.shape
    size = h0.shape[1]
    acts: Any = xp.empty((steps, batch, 4 * size), gates.dtype)
    states: Any = xp.empty((steps, batch, size), gates.dtype)
    h: Any = h0
    for t in time_order(steps, reverse):
        own = xp.matmul(h, w_hh.T)
        if b_hh is not None:
            own += b_hh
        a, x = acts[t], gates[t]
        xp.add(own[:, : 2 * size], x[:, : 2 * size], out=a[:, : 2 * size])
        sigmoid_in_place(xp, a[:, : 2 * size])
        r, z, n, own_n = gate_parts(a, size)
        own_n[...] = own[:, 2 * size :]
        xp.multiply(r, own_n, out=n)
        n += x[:, 2 * size :]
        xp.tanh(n, out=n)
        new = h - n
        new *= z
        new += n
        h = states[t] = kept(xp.where, mask, t, new, h)
    return states, acts


@gru_scan.backward
def _(g, gates, h0, w_hh, b_hh, mask, out, reverse):
    states, acts = out
    grads = gru_scan_backward(g[0], states, acts, h0, w_hh, b_hh, mask, reverse=reverse)
    return (*grads, None)


@op(outputs=4)
def gru_scan_backward(
    xp: Any,
    grad: Tensor,
    states: Tensor,
    acts: Tensor,
    h0: Tensor,
    w_hh: Tensor,
    b_hh: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of `gru_scan` for gates, first state, weight and bias."""
    size = h0.shape[1]
    dgates: Any = xp.empty((*states.shape[:2], 3 * size), states.dtype)
    down: Any = xp.empty_like(dgates)  # gradients of the state's own part
    before = states_before(xp, states, h0, reverse)
    dh = StateGradient(xp, h0, grad, mask)
    for t in time_order(states.shape[0], not reverse):
        r, z, n, own_n = gate_parts(acts[t], size)
        dr, dz, dn = gate_parts(dgates[t], size)
        dnew = dh.at(t)
        dn[...] = dnew * (1 - z) * (1 - n * n)
        dr[...] = dn * own_n * r * (1 - r)
        dz[...] = dnew * (before[t] - n) * z * (1 - z)
        down[t, :, : 2 * size] = dgates[t, :, : 2 * size]
        down[t, :, 2 * size :] = dn * r
        dh.back(dnew * z + down[t] @ w_hh)
    rows = flat_rows(down)
    return dgates, dh.value, rows.T @ flat_rows(before), None if b_hh is None else rows.sum(0)

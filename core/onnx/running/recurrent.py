"""Recurrent operators by the library's scans over time.

The format orders gates otherwise than torch, and so do its first states and results: directions
are an axis of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...ops.recurrent import gru_scan, lstm_scan, rnn_scan
from ...ops.scans import unrolled
from ...tensor import Tensor
from . import api as A
from . import operator

Scan = Callable[..., tuple[Tensor, ...]]  # (direction, x, w, r, b, mask, reverse, *states)
_USUAL = {"RNN": ["tanh"], "GRU": ["sigmoid", "tanh"], "LSTM": ["sigmoid", "tanh", "tanh"]}


def _parts(x: Tensor, order: tuple[int, ...], gates: int) -> Tensor:
    """Rows of gates in another order."""
    rows = x.shape[0] // gates
    return A.concat([x[i * rows : (i + 1) * rows] for i in order], axis=0)


def _activations(c: Any, directions: int) -> list[str]:
    """Names for one direction, in small letters; those of others must be the same."""
    usual = _USUAL[c.kind]
    given = [name.lower() for name in c.get("activations", usual * directions)]
    one = given[: len(usual)]
    if given != one * directions or (one != usual and (c.kind != "RNN" or one != ["relu"])):
        raise c.refused(f"activations {', '.join(given)}")
    if c.get("clip") is not None or c.get("input_forget", 0):
        raise c.refused("clip or input_forget")
    return one


def _scanned(
    c: Any, x: Tensor, w: Tensor, r: Tensor, b: Any, lengths: Any, first: list[Any], scan: Scan
) -> tuple[Tensor, ...]:
    """All directions: outputs (T, directions, B, H), and last states (directions, B, H)."""
    ways = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}
    reverses, swapped = ways[c.get("direction", "forward")], bool(c.get("layout", 0))
    if swapped:
        x = A.permute_dims(x, (1, 0, 2))
        first = [s if s is None else A.permute_dims(s, (1, 0, 2)) for s in first]
    steps, batch, size = x.shape[0], x.shape[1], r.shape[-1]
    if not steps or w.shape[0] != len(reverses):
        raise c.refused(f"{steps} steps with weights of {w.shape[0]} directions")
    mask = None
    if lengths is not None:
        mask = Tensor(np.arange(steps)[:, None] < lengths.array[None])  # (T, B)
    outputs, last = [], [[] for _ in first]  # type: ignore[var-annotated]
    for d, reverse in enumerate(reverses):
        start = [A.zeros((batch, size), dtype=x.dtype) if s is None else s[d] for s in first]
        bias = A.zeros((2 * w.shape[1],), dtype=x.dtype) if b is None else b[d]
        states = scan(d, x, w[d], r[d], bias, mask, reverse, *start)
        out = states[0]
        if mask is not None:
            out = A.where(A.expand_dims(mask, axis=2), out, 0.0)
        outputs.append(A.astype(out, dtype=x.dtype))
        for kept, values in zip(last, states, strict=True):
            kept.append(values[0 if reverse else steps - 1])
    found = [A.stack(outputs, axis=1), *(A.stack(kept) for kept in last)]
    if swapped:
        found = [A.permute_dims(found[0], (2, 0, 1, 3))] + [
            A.permute_dims(s, (1, 0, 2)) for s in found[1:]
        ]
    return tuple(found)[: c.outputs]


@operator("RNN")
def _rnn(
    c: Any, x: Tensor, w: Tensor, r: Tensor, b: Any = None, lengths: Any = None, h: Any = None
) -> Any:
    rectified = _activations(c, w.shape[0]) == ["relu"]

    def scan(d: int, x: Any, w: Any, r: Any, b: Any, mask: Any, reverse: bool, h: Any) -> Any:
        n = w.shape[0]
        gates = A.F.linear(x, w, A.add(b[:n], b[n:]))
        return (rnn_scan(gates, h, r, mask, reverse=reverse, rectified=rectified),)

    return _scanned(c, x, w, r, b, lengths, [h], scan)


@operator("GRU")
def _gru(
    c: Any, x: Tensor, w: Tensor, r: Tensor, b: Any = None, lengths: Any = None, h: Any = None
) -> Any:
    _activations(c, w.shape[0])
    after = bool(c.get("linear_before_reset", 0))

    def scan(d: int, x: Any, w: Any, r: Any, b: Any, mask: Any, reverse: bool, h: Any) -> Any:
        order, size = (1, 0, 2), r.shape[1]  # update, reset, new: ours begins with reset
        bw, br = (_parts(v, order, 3) for v in (b[: 3 * size], b[3 * size :]))
        w, r = _parts(w, order, 3), _parts(r, order, 3)
        if after:
            gates = A.F.linear(x, w, bw)
            return gru_scan(gates, h, r, br, mask, reverse=reverse)[:1]
        gates = A.F.linear(x, w, A.add(bw, br))

        def step(now: Any, h: Any) -> tuple[Any]:
            own = A.F.linear(h, r[: 2 * size])
            both = A.F.sigmoid(A.add(now[:, : 2 * size], own))
            reset, update = both[:, :size], both[:, size:]
            inner = A.F.linear(A.multiply(reset, h), r[2 * size :])
            new = A.tanh(A.add(now[:, 2 * size :], inner))
            return (A.add(new, A.multiply(update, A.subtract(h, new))),)

        return unrolled(step, gates, (h,), mask, reverse)

    return _scanned(c, x, w, r, b, lengths, [h], scan)


@operator("LSTM")
def _lstm(
    c: Any, x: Tensor, w: Tensor, r: Tensor, b: Any = None, lengths: Any = None, h: Any = None,
    cell: Any = None, peep: Any = None,
) -> Any:  # fmt: skip
    _activations(c, w.shape[0])

    def scan(
        d: int, x: Any, w: Any, r: Any, b: Any, mask: Any, reverse: bool, h: Any, cell: Any
    ) -> Any:
        order, size = (0, 2, 3, 1), r.shape[1]  # input, output, forget, cell
        bias = _parts(A.add(b[: 4 * size], b[4 * size :]), order, 4)
        gates, r = A.F.linear(x, _parts(w, order, 4), bias), _parts(r, order, 4)
        if peep is None:
            return lstm_scan(gates, h, cell, r, None, mask, reverse=reverse)[:2]
        pi, po, pf = (peep[d, k * size : (k + 1) * size] for k in range(3))

        def step(now: Any, h: Any, cell: Any) -> tuple[Any, Any]:
            total = A.add(now, A.F.linear(h, r))
            i, f, g, o = (total[:, k * size : (k + 1) * size] for k in range(4))
            i = A.F.sigmoid(A.add(i, A.multiply(pi, cell)))
            f = A.F.sigmoid(A.add(f, A.multiply(pf, cell)))
            cell = A.add(A.multiply(f, cell), A.multiply(i, A.tanh(g)))
            o = A.F.sigmoid(A.add(o, A.multiply(po, cell)))
            return A.multiply(o, A.tanh(cell)), cell

        return unrolled(step, gates, (h, cell), mask, reverse)

    return _scanned(c, x, w, r, b, lengths, [h, cell], scan)

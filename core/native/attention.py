"""Attention in one pass: no array of scores. Arrays are float32."""

from __future__ import annotations

import numpy as np

from ..errors import ShapeError
from .runtime import Float32, check, output, panel_width, run

#: Width of the widest head that the kernel takes.
WIDEST = 512


def attention(
    q: Float32,
    k: Float32,
    v: Float32,
    mask: Float32 | None = None,
    *,
    scale: float,
    causal: bool = False,
    lse: Float32 | None = None,
) -> Float32:
    """softmax(q k^T scale + mask) v; queries that may attend to nothing get zeros.

    Args:
        causal: query i sees keys 0 to i.
        lse: receives the logsumexp of the scores of each query, 0 where it attends to nothing.

    Shape: q (B, H, TQ, D), k (B, G, TK, D), v (B, G, TK, DV), with H a multiple of G; mask (B, H,
        TQ, TK), of which all axes but the last may be 1; lse (B, H, TQ). The result is
        (B, H, TQ, DV), in memory (B, TQ, H, DV). Strides are free but for the last axis.
    Raises: ShapeError, also for heads wider than `WIDEST`; DtypeError; ValueError for strides.
    """
    for name, array in (("q", q), ("k", k), ("v", v)):
        check("attention", name, array, (None, None, None, None), strided=True)
    (b, heads, tq, d), (_, shared, tk, _), dv = q.shape, k.shape, v.shape[3]
    check("attention", "k", k, (b, None, None, d), strided=True)
    check("attention", "v", v, (b, shared, tk, dv), strided=True)
    if shared == 0 or heads % shared or max(d, dv) > WIDEST:
        raise ShapeError(
            f"native.attention: {heads} heads of width {d} and {dv}, {shared} of keys; the "
            f"heads of keys divide those of queries, and none is wider than {WIDEST}",
            got=q.shape,
        )
    steps: tuple[int, ...] = (0, 0, 0)
    if mask is not None:
        check("attention", "mask", mask, (None, None, None, tk), strided=True)
        if any(n not in (1, m) for n, m in zip(mask.shape, (b, heads, tq), strict=False)):
            raise ShapeError(f"native.attention: a mask of {mask.shape} for {(b, heads, tq, tk)}")
        steps = _steps(mask)
    if lse is not None:
        check("attention", "lse", lse, (b, heads, tq))
    out = output("attention", None, (b, tq, heads, dv))
    panels = -(-tq // panel_width())
    ints = (heads, shared, tq, tk, d, dv, *_steps(q), *_steps(k), *_steps(v), *steps)
    items = b * heads * panels
    run("attention", (q, k, v, mask, out, lse), (*ints, causal, panels), (scale,), items, 1)
    return np.swapaxes(out, 1, 2)


def _steps(array: Float32) -> tuple[int, ...]:
    """Numbers from one batch, head and row to the next; none along axes of length 1."""
    return tuple(
        0 if n == 1 else stride // 4
        for n, stride in zip(array.shape[:3], array.strides[:3], strict=True)
    )

"""Attention over blocks of query rows, on arrays: what the primitive and its gradient do.

A block's scores are made, turned into probabilities and used up before the next block: memory
does not grow with the square of the length. What is kept for the gradient is the logsumexp of
each row; the backward pass makes the probabilities of a block again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from .. import dtypes

BLOCK = {"cpu": 1 << 19, "cuda": 1 << 26}  # scores that are made at once


class Block(NamedTuple):
    """Query rows of some heads of one sample, or of everything."""

    lead: tuple[Any, ...]  # index of the axes before heads
    heads: slice
    shared: slice  # the heads of k and v that they attend to
    rows: slice
    keys: int  # keys that causal rows can see


def blocks(xp: Any, q: Any, k: Any, causal: bool, single: bool = False) -> Iterator[Block]:
    """The blocks to work on; `single` keeps the samples apart."""
    *lead, heads, tq, _ = q.shape
    tk, shared = k.shape[-2], k.shape[-3]
    group = heads // shared
    room = BLOCK["cpu" if xp is np else "cuda"]
    small = math.prod(lead) * heads * tq * tk <= room and (tq <= 128 or not causal)
    if small and not single:
        every = slice(None)
        yield Block((every,) * len(lead), slice(0, heads), slice(0, shared), slice(0, tq), tk)
        return
    rows = max(min(room // max(tk * group, 1), tq), 1)
    if causal:
        rows = max(min(rows, 256), 1)  # shorter blocks leave out more of the upper triangle
    some = max(min(room // max(tk * group * rows, 1), shared), 1)
    for index in product(*(range(n) for n in lead)):
        for first in range(0, shared, some):
            last = min(first + some, shared)
            for start in range(0, tq, rows):
                stop = min(start + rows, tq)
                keys = min(tk, stop) if causal else tk
                yield Block(
                    index,
                    slice(first * group, last * group),
                    slice(first, last),
                    slice(start, stop),
                    keys,
                )


@lru_cache(maxsize=64)
def _upper_triangle(rows: int, columns: int, dtype: Any) -> Any:
    """-inf above the diagonal, to be added to scores."""
    return np.triu(np.full((rows, columns), -math.inf, dtype), 1)


def _mask_part(mask: Any, block: Block) -> Any:
    """The part of a mask that a block uses, with its broadcast axes kept at 1."""
    index: list[Any] = []
    places = (*block.lead, block.heads, block.rows, slice(0, block.keys))
    for n, place in zip(mask.shape, places, strict=True):
        if n == 1:
            index.append(0 if isinstance(place, int) else slice(None))
        else:
            index.append(place)
    return mask[tuple(index)]


def _scores(
    xp: Any, q: Any, k: Any, mask: Any, block: Block, scale: float, causal: bool
) -> tuple[Any, Any, Any]:
    """Scores (..., heads, rows, keys) of a block, its scaled queries and its keys.

    Queries that share a head of k are rows of one product.
    """
    queries = q[(*block.lead, block.heads, block.rows)]
    wide = dtypes.float32 if q.dtype in dtypes.HALVES else q.dtype
    queries = _as(queries * scale, wide)
    keys = _as(k[(*block.lead, block.shared, slice(0, block.keys))], wide)
    scores = _per_head(xp.matmul(_per_shared(queries, keys), keys.swapaxes(-1, -2)), queries)
    if mask is not None:
        part = _mask_part(mask, block)
        if part.dtype.kind == "b":
            part = xp.where(part, 0.0, -math.inf).astype(wide)
        scores += part
    if causal:
        first, last = block.rows.start, min(block.rows.stop, block.keys)
        if last > first:
            corner = _upper_triangle(block.rows.stop - first, last - first, wide)
            scores[..., first:last] += xp.asarray(corner)
        if block.keys > block.rows.stop:
            scores[..., block.rows.stop :] = -math.inf
    return scores, queries, keys


def _as(x: Any, dtype: Any) -> Any:
    return x.astype(dtype, copy=False)


def _per_shared(x: Any, like: Any) -> Any:
    """(..., heads, rows, n) as (..., shared heads, rows of their group, n)."""
    shared = like.shape[-3]
    if x.shape[-3] == shared:
        return x
    return x.reshape(*x.shape[:-3], shared, x.shape[-3] // shared * x.shape[-2], x.shape[-1])


def _row_dot(a: Any, b: Any) -> Any:
    return (a * b).sum(-1, keepdims=True)


def _per_head(x: Any, like: Any) -> Any:
    """The inverse of `_per_shared`."""
    return x.reshape(*like.shape[:-1], x.shape[-1])


def kept(xp: Any, key: Any, block: Block, q: Any, k: Any, dropout: float) -> Any:
    """Which probabilities (heads, rows, keys) dropout keeps: a function of their place alone."""
    from ..random import _words

    seed, position = (int(v) for v in (key.get() if hasattr(key, "get") else key))
    *lead, heads, tq, _ = q.shape
    tk = k.shape[-2]
    sample = 0
    for n, i in zip(lead, block.lead, strict=True):
        sample = sample * n + i
    rows = block.rows.stop - block.rows.start
    parts = []
    for head in range(block.heads.start, block.heads.stop):
        start = ((sample * heads + head) * tq + block.rows.start) * tk
        words = _words(xp, (seed, position + start), rows * tk)
        parts.append(words.reshape(rows, tk)[:, : block.keys])
    return xp.stack(parts) < np.uint32(min(round((1 - dropout) * 2**32), 2**32 - 1))


def _like_queries(xp: Any, q: Any, width: int) -> Any:
    """A new array (..., heads, rows, width), its axes in memory as those of q."""
    if q.ndim >= 4 and q.strides[-3] < q.strides[-2]:
        *lead, heads, rows, _ = q.shape  # (B, T, heads, D) memory: heads join without a copy
        return xp.empty((*lead, rows, heads, width), q.dtype).swapaxes(-2, -3)
    return xp.empty((*q.shape[:-1], width), q.dtype)


def normalised(xp: Any, scores: Any) -> Any:
    """Scores made probabilities in place; returns the logsumexp of each row, 0 for one of -inf."""
    if scores.shape[-1] == 0:
        return xp.zeros(scores.shape[:-1], scores.dtype)
    top = scores.max(-1, keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    scores -= top
    xp.exp(scores, out=scores)
    total = scores.sum(-1, keepdims=True)
    total += total == 0
    scores /= total
    return (xp.log(total) + top)[..., 0]


def attend(
    xp: Any,
    q: Any,
    k: Any,
    v: Any,
    mask: Any,
    key: Any,
    *,
    scale: float,
    causal: bool,
    dropout: float,
    normalise: Any = normalised,
) -> Any:
    """The blocks of attention; `normalise` makes scores probabilities."""
    out = _like_queries(xp, q, v.shape[-1])
    lse = xp.zeros(q.shape[:-1], np.float64)
    for block in blocks(xp, q, k, causal, single=dropout > 0):
        place = (*block.lead, block.heads, block.rows)
        p, queries, keys = _scores(xp, q, k, mask, block, scale, causal)
        values = _as(v[(*block.lead, block.shared, slice(0, block.keys))], p.dtype)
        lse[place] = normalise(xp, p)
        if dropout:
            p *= kept(xp, key, block, q, k, dropout)
            p *= 1 / (1 - dropout)
        out[place] = _per_head(xp.matmul(_per_shared(p, keys), values), queries)
    return out, lse


def renormalised(xp: Any, scores: Any, lse: Any) -> None:
    """Scores made probabilities again, in place."""
    scores -= lse[..., None]
    xp.exp(scores, out=scores)


def scores_gradient(xp: Any, p: Any, dp: Any, delta: Any) -> None:
    """The gradient of probabilities `dp` made that of the scores, in place.

    `delta` () is the product of the result and its gradient for each row, called where wanted.
    """
    dp -= delta()
    dp *= p


def attend_backward(
    xp: Any,
    grad: Any,
    q: Any,
    k: Any,
    v: Any,
    mask: Any,
    key: Any,
    result: Any,
    lse: Any,
    *,
    scale: float,
    causal: bool,
    dropout: float,
    mask_needed: bool,
    renormalise: Any = renormalised,
    to_scores: Any = scores_gradient,
) -> Any:
    """The blocks of the backward pass."""
    wide = dtypes.float32 if q.dtype in dtypes.HALVES else q.dtype
    dq = _like_queries(xp, q, q.shape[-1])
    dk: Any = xp.zeros_like(k, dtype=wide)
    dv: Any = xp.zeros_like(v, dtype=wide)
    dmask: Any = xp.zeros(mask.shape, wide) if mask is not None and mask_needed else None
    for block in blocks(xp, q, k, causal, single=dropout > 0):
        place = (*block.lead, block.heads, block.rows)
        shared = (*block.lead, block.shared, slice(0, block.keys))
        p, queries, keys = _scores(xp, q, k, mask, block, scale, causal)
        renormalise(xp, p, lse[place].astype(wide))
        g = _as(grad[place], wide)
        g_rows = _per_shared(xp.ascontiguousarray(g), keys)
        values = _as(v[shared], wide)
        dp = _per_head(xp.matmul(g_rows, values.swapaxes(-1, -2)), queries)
        if dropout:
            factor = kept(xp, key, block, q, k, dropout).astype(wide) * (1 / (1 - dropout))
            dv[shared] += xp.matmul(_per_shared(p * factor, keys).swapaxes(-1, -2), g_rows)
            dp *= factor
        else:
            dv[shared] += xp.matmul(_per_shared(p, keys).swapaxes(-1, -2), g_rows)
        to_scores(xp, p, dp, lambda g=g, place=place: _as(_row_dot(g, result[place]), wide))
        if dmask is not None:
            part = _mask_part(dmask, block)
            axes = tuple(i for i, n in enumerate(part.shape) if n == 1 and dp.shape[i] != 1)
            part += dp.sum(axes, keepdims=True) if axes else dp
        ds = _per_shared(dp, keys)
        dq[place] = _per_head(xp.matmul(ds, keys), queries) * scale
        dk[shared] += xp.matmul(ds.swapaxes(-1, -2), _per_shared(queries, keys))
    return dq, _as(dk, k.dtype), _as(dv, v.dtype), dmask

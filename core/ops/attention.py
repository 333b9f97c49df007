"""Scaled dot-product attention, in blocks of query rows.

A block's scores are made, turned into probabilities and used up before the next block: memory
does not grow with the square of the length. What is kept for the gradient is the logsumexp of
each row; the backward pass makes the probabilities of a block again.

A row that may attend to nothing gives zeros, and its gradients are zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import dtypes
from ..errors import ConfigError, DtypeError, ShapeError
from ..op import op
from .elementwise import where
from .linalg import matmul
from .shape import broadcast_to, expand_dims, matrix_transpose, reshape
from .softmax import softmax

if TYPE_CHECKING:
    from ..random import Generator
    from ..tensor import Tensor

_BLOCK = {"cpu": 1 << 19, "cuda": 1 << 26}  # scores that are made at once


class _Block(NamedTuple):
    """Query rows of some heads of one sample, or of everything."""

    lead: tuple[Any, ...]  # index of the axes before heads
    heads: slice
    shared: slice  # the heads of k and v that they attend to
    rows: slice
    keys: int  # keys that causal rows can see


def _blocks(xp: Any, q: Any, k: Any, causal: bool, single: bool = False) -> Iterator[_Block]:
    """The blocks to work on; `single` keeps the samples apart."""
    *lead, heads, tq, _ = q.shape
    tk, shared = k.shape[-2], k.shape[-3]
    group = heads // shared
    room = _BLOCK["cpu" if xp is np else "cuda"]
    small = math.prod(lead) * heads * tq * tk <= room and (tq <= 128 or not causal)
    if small and not single:
        every = slice(None)
        yield _Block((every,) * len(lead), slice(0, heads), slice(0, shared), slice(0, tq), tk)
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
                yield _Block(
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


def _mask_part(mask: Any, block: _Block) -> Any:
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
    xp: Any, q: Any, k: Any, mask: Any, block: _Block, scale: float, causal: bool
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


def _kept(xp: Any, key: Any, block: _Block, q: Any, k: Any, dropout: float) -> Any:
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


# -- the primitive -----------------------------------------------------------------------------


def _attention_of(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    key: Tensor | None,
    *,
    scale: float,
    causal: bool,
    dropout: float,
) -> tuple[Tensor, None]:
    group = q.shape[-3] // k.shape[-3]
    if group > 1:
        k, v = _repeated(k, group), _repeated(v, group)
    scores = matmul(q * scale, matrix_transpose(k))
    if mask is not None:
        scores = where(mask, scores, -math.inf) if mask.dtype.kind == "b" else scores + mask
    if causal:
        scores = where(causal_mask(scores), scores, -math.inf)
    probabilities = softmax(scores, -1)
    if dropout:
        kept = attention_dropout(q, k, key, dropout=dropout)
        probabilities = probabilities * kept * (1 / (1 - dropout))
    return matmul(probabilities, v), None


def _repeated(x: Tensor, group: int) -> Tensor:
    """Each head `group` times."""
    *lead, heads, t, d = x.shape
    spread = broadcast_to(expand_dims(x, axis=-3), (*lead, heads, group, t, d))
    return reshape(spread, (*lead, heads * group, t, d))


@op(differentiable=False)
def causal_mask(xp: Any, scores: Tensor) -> Tensor:
    """Which keys each query may see: those that are not later."""
    return xp.tri(scores.shape[-2], scores.shape[-1], dtype=bool)


@op(differentiable=False)
def attention_dropout(xp: Any, q: Tensor, k: Tensor, key: Tensor, *, dropout: float) -> Tensor:
    """All the probabilities that dropout keeps, for the composite."""
    *lead, heads, tq, _ = q.shape
    out = xp.empty((*lead, heads, tq, k.shape[-2]), bool)
    for block in _blocks(xp, q, k, causal=False, single=True):
        out[(*block.lead, block.heads, block.rows)] = _kept(xp, key, block, q, k, dropout)
    return out


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
    for block in _blocks(xp, q, k, causal, single=dropout > 0):
        place = (*block.lead, block.heads, block.rows)
        p, queries, keys = _scores(xp, q, k, mask, block, scale, causal)
        values = _as(v[(*block.lead, block.shared, slice(0, block.keys))], p.dtype)
        lse[place] = normalise(xp, p)
        if dropout:
            p *= _kept(xp, key, block, q, k, dropout)
            p *= 1 / (1 - dropout)
        out[place] = _per_head(xp.matmul(_per_shared(p, keys), values), queries)
    return out, lse


@op(name="attention", outputs=2, same_float=True, composite=_attention_of)
def _attention(
    xp: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    key: Tensor | None,
    *,
    scale: float,
    causal: bool,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """Attention, and the logsumexp of each row of scores (0 where nothing may be attended to)."""
    arrays = q, k, v, mask, key
    return attend(xp, *arrays, scale=scale, causal=causal, dropout=dropout)


@_attention.backward
def _(g, q, k, v, mask, key, out, scale, causal, dropout, needs):
    dq, dk, dv, dmask = attention_backward(
        g[0],
        q,
        k,
        v,
        mask,
        key,
        out[0],
        out[1],
        scale=scale,
        causal=causal,
        dropout=dropout,
        mask_needed=needs[3],
    )
    return dq, dk, dv, dmask, None


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
    for block in _blocks(xp, q, k, causal, single=dropout > 0):
        place = (*block.lead, block.heads, block.rows)
        shared = (*block.lead, block.shared, slice(0, block.keys))
        p, queries, keys = _scores(xp, q, k, mask, block, scale, causal)
        renormalise(xp, p, lse[place].astype(wide))
        g = _as(grad[place], wide)
        g_rows = _per_shared(xp.ascontiguousarray(g), keys)
        values = _as(v[shared], wide)
        dp = _per_head(xp.matmul(g_rows, values.swapaxes(-1, -2)), queries)
        if dropout:
            factor = _kept(xp, key, block, q, k, dropout).astype(wide) * (1 / (1 - dropout))
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


@op(outputs=4)
def attention_backward(
    xp: Any,
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    key: Tensor | None,
    result: Tensor,
    lse: Tensor,
    *,
    scale: float,
    causal: bool,
    dropout: float,
    mask_needed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of attention for queries, keys, values and an additive mask."""
    arrays = grad, q, k, v, mask, key, result, lse
    options: Any = {"scale": scale, "causal": causal, "dropout": dropout}
    return attend_backward(xp, *arrays, **options, mask_needed=mask_needed)


# -- as users call it --------------------------------------------------------------------------


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """softmax(query key^T scale + mask) value, without ever holding all the scores.

    Args:
        attn_mask: True where a query may attend, or numbers added to the scores; broadcast to
            (..., heads, TQ, TK).
        dropout_p: probabilities left out at random; give 0 when not training.
        is_causal: query i sees keys 0 to i only.
        scale: defaults to 1 / sqrt(D).
        enable_gqa: several heads of the query share one of key and value.

    A query that may attend to nothing gets zeros.

    Shape: query (..., heads, TQ, D), key (..., heads, TK, D), value (..., heads, TK, DV); the
        result is (..., heads, TQ, DV).
    Raises:
        ShapeError: shapes that do not go together.
    Source: Vaswani et al. 2017; blocks as in Dao et al. 2022, "FlashAttention".
    """
    _check_attention(query, key, value, enable_gqa)
    if not 0 <= dropout_p < 1:
        raise ConfigError(f"attention: dropout_p lies from 0 to below 1, got {dropout_p}")
    missing = max(3 - query.ndim, 0)
    if missing:
        query, key, value = (expand_dims(x, axis=0) for x in (query, key, value))
    tq, tk = query.shape[-2], key.shape[-2]
    if attn_mask is not None:
        attn_mask = _fitted_mask(attn_mask, query, tk)
    draw = None
    if dropout_p > 0:
        from ..random import key as random_key

        count = math.prod(query.shape[:-1]) * tk
        draw = random_key(count, generator, query.device)
    out: Tensor = _attention(
        query,
        key,
        value,
        attn_mask,
        draw,
        scale=1 / math.sqrt(query.shape[-1]) if scale is None else float(scale),
        causal=bool(is_causal) and tq > 1,
        dropout=float(dropout_p),
    )[0]
    return out[0] if missing else out


def _check_attention(q: Tensor, k: Tensor, v: Tensor, gqa: bool) -> None:
    shapes = f"query {tuple(q.shape)}, key {tuple(k.shape)}, value {tuple(v.shape)}"
    if not q.ndim == k.ndim == v.ndim or q.ndim < 2:
        raise ShapeError(f"attention: the numbers of axes differ: {shapes}.", got=tuple(q.shape))
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError(
            f"attention: query and key must have one width, key and value one length: {shapes}.",
            expected=tuple(q.shape),
            got=tuple(k.shape),
        )
    if k.shape[:-2] != v.shape[:-2] or q.shape[:-3] != k.shape[:-3]:
        raise ShapeError(f"attention: the leading axes differ: {shapes}.", got=tuple(k.shape))
    if q.ndim > 2 and q.shape[-3] != k.shape[-3]:
        if gqa and k.shape[-3] and q.shape[-3] % k.shape[-3] == 0:
            return
        hint = (
            "\nDo heads of the query share those of key and value? enable_gqa=True"
            if k.shape[-3] and q.shape[-3] % k.shape[-3] == 0 and not gqa
            else ""
        )
        raise ShapeError(
            f"attention: {q.shape[-3]} heads of the query, {k.shape[-3]} of key and value: "
            f"{shapes}.{hint}",
            expected=q.shape[-3],
            got=k.shape[-3],
        )


def _fitted_mask(mask: Tensor, q: Tensor, tk: int) -> Tensor:
    """The mask with as many axes as the scores."""
    if mask.dtype.kind in "iu":
        raise DtypeError(
            f"attention: a mask is boolean (True: attend) or floating (added), got {mask.dtype}.\n"
            "Of 1 and 0? mask.astype(bt.bool)",
            got=str(mask.dtype),
        )
    scores = (*q.shape[:-1], tk)
    fits = mask.ndim <= len(scores) and all(
        n in (1, m) for n, m in zip(mask.shape[::-1], scores[::-1], strict=False)
    )
    if not fits:
        hint = ""
        if mask.ndim == 2 and mask.shape == (q.shape[0], tk):
            hint = "\nA mask of the keys of each sample? mask[:, None, None, :]"
        raise ShapeError(
            f"attention: a mask of shape {tuple(mask.shape)} cannot be broadcast to the scores "
            f"{scores}.{hint}",
            expected=scores,
            got=tuple(mask.shape),
        )
    return (
        mask
        if mask.ndim == len(scores)
        else reshape(mask, (1,) * (len(scores) - mask.ndim) + tuple(mask.shape))
    )

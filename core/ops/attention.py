"""Scaled dot-product attention, in blocks of query rows.

How the blocks are worked on is in attention_blocks.py. A row that may attend to nothing gives
zeros, and its gradients are zero.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DtypeError, ShapeError
from ..op import op
from .attention_blocks import attend, attend_backward, blocks, kept
from .elementwise import where
from .linalg import matmul
from .manipulation import repeat
from .shape import expand_dims, matrix_transpose, reshape
from .softmax import softmax

if TYPE_CHECKING:
    from ..random import Generator
    from ..tensor import Tensor

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
        k, v = repeat(k, group, axis=-3), repeat(v, group, axis=-3)
    scores = matmul(q * scale, matrix_transpose(k))
    if mask is not None:
        scores = where(mask, scores, -math.inf) if mask.dtype.kind == "b" else scores + mask
    if causal:
        scores = where(causal_mask(scores), scores, -math.inf)
    probabilities = softmax(scores, -1)
    if dropout:
        chosen = attention_dropout(q, k, key, dropout=dropout)
        probabilities = probabilities * chosen * (1 / (1 - dropout))
    return matmul(probabilities, v), None


@op(differentiable=False)
def causal_mask(xp: Any, scores: Tensor) -> Tensor:
    """Which keys each query may see: those that are not later."""
    return xp.tri(scores.shape[-2], scores.shape[-1], dtype=bool)


@op(differentiable=False)
def attention_dropout(xp: Any, q: Tensor, k: Tensor, key: Tensor, *, dropout: float) -> Tensor:
    """All the probabilities that dropout keeps, for the composite."""
    *lead, heads, tq, _ = q.shape
    out = xp.empty((*lead, heads, tq, k.shape[-2]), bool)
    for block in blocks(xp, q, k, causal=False, single=True):
        out[(*block.lead, block.heads, block.rows)] = kept(xp, key, block, q, k, dropout)
    return out


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

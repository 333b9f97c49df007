"""Attention and rotary positions as single operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...tensor import Tensor
from . import api as A
from . import operator


def _heads(x: Tensor, heads: int | None) -> Tensor:
    """(B, T, N * W) as (B, N, T, W); four axes are so already."""
    if x.ndim == 4 or heads is None:
        return x
    return A.permute_dims(A.reshape(x, (*x.shape[:2], heads, -1)), (0, 2, 1, 3))


def _allowed(c: Any, tokens: int, keys: int, past: int, real: Tensor | None) -> Any:
    """Which keys causality, windows and lengths leave, (B or 1, 1, T, S); None for all."""
    causal = c.get("is_causal", 0)
    left, right = c.get("left_window_size", -1), c.get("right_window_size", -1)
    if not causal and left < 0 and right < 0 and real is None:
        return None
    before = np.full(1, past) if real is None else real.array.reshape(-1) - tokens
    place = before[:, None, None] + np.arange(tokens)[:, None]  # (B or 1, T, 1)
    key = np.arange(keys)
    found = np.ones((len(before), tokens, keys), bool)
    if causal:
        found &= key <= place
    if left >= 0:
        found &= key >= place - left
    if right >= 0:
        found &= key <= place + right
    if real is not None:
        found &= key < real.array.reshape(-1, 1, 1)
    return found[:, None]


def _bias(mask: Tensor | None, allowed: Any, keys: int, dtype: Any) -> Tensor | None:
    """What is added to the scores."""
    bias = None
    if mask is not None:
        truth = mask.dtype.kind == "b"
        array = mask.array
        short = keys - array.shape[-1]
        if short > 0:
            widths = [(0, 0)] * (array.ndim - 1) + [(0, short)]
            array = np.pad(array, widths, constant_values=False if truth else -np.inf)
        bias = np.where(array, 0.0, -np.inf) if truth else array
    if allowed is not None:
        own = np.where(allowed, 0.0, -np.inf)
        bias = own if bias is None else bias + own
    return None if bias is None else Tensor(np.asarray(bias, dtype))


@operator("Attention")
def _attention(
    c: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any = None, past_k: Any = None,
    past_v: Any = None, real: Any = None,
) -> Any:  # fmt: skip
    flat, dtype = q.ndim == 3, q.dtype
    own, shared = c.get("q_num_heads"), c.get("kv_num_heads")
    q, k, v = _heads(q, own), _heads(k, shared), _heads(v, shared)
    past = 0
    if past_k is not None and past_v is not None:
        past = past_k.shape[2]
        k, v = A.concat([past_k, k], axis=2), A.concat([past_v, v], axis=2)
    present = k, v
    if k.shape[1] < 1 or q.shape[1] % k.shape[1]:
        raise c.refused(f"{q.shape[1]} heads of queries with {k.shape[1]} of keys")
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = A.repeat(k, groups, axis=1), A.repeat(v, groups, axis=1)
    scale = c.get("scale")
    root = float(np.sqrt(q.shape[-1] ** -0.5 if scale is None else scale))
    scores = A.matmul(A.multiply(q, root), A.permute_dims(A.multiply(k, root), (0, 1, 3, 2)))
    kept, cap = [scores], c.get("softcap", 0.0)
    if cap > 0:
        scores = A.multiply(A.tanh(A.divide(scores, cap)), cap)
    kept.append(scores)
    allowed = _allowed(c, q.shape[2], k.shape[2], past, real)
    bias = _bias(mask, allowed, k.shape[2], scores.dtype)
    scores = scores if bias is None else A.add(scores, bias)
    kept.append(scores)
    code = c.get("softmax_precision", 0)
    wide = A.astype(scores, dtype=c.dtype_of(code)) if code else scores
    # Queries that see nothing give zeros.
    none = A.all(A.equal(wide, float("-inf")), axis=-1, keepdims=True)
    weights = A.F.softmax(A.where(none, 0.0, wide), axis=-1)
    weights = A.astype(A.where(none, 0.0, weights), dtype=dtype)
    kept.append(weights)
    out = A.matmul(weights, v)
    if flat:
        b, n, t, w = out.shape
        out = A.reshape(A.permute_dims(out, (0, 2, 1, 3)), (b, t, n * w))
    mode = c.get("qk_matmul_output_mode", 0)
    if not 0 <= mode < len(kept):
        raise c.refused(f"qk_matmul_output_mode={mode}")
    return (A.astype(out, dtype=dtype), *present, kept[mode])[: c.outputs]


@operator("RotaryEmbedding")
def _rotary(c: Any, x: Tensor, cos: Tensor, sin: Tensor, places: Tensor | None = None) -> Tensor:
    flat = x.ndim == 3
    y = _heads(x, c.get("num_heads"))  # (B, N, T, W)
    width = c.get("rotary_embedding_dim", 0) or y.shape[-1]
    if places is not None:
        cos, sin = cos[places], sin[places]
    cos, sin = (A.expand_dims(t, axis=1) for t in (cos, sin))
    turned, rest = y[..., :width], y[..., width:]
    pairs = bool(c.get("interleaved", 0))
    half = width // 2
    if pairs:
        first, second = turned[..., 0::2], turned[..., 1::2]
    else:
        first, second = turned[..., :half], turned[..., half:]
    a = A.subtract(A.multiply(first, cos), A.multiply(second, sin))
    b = A.add(A.multiply(first, sin), A.multiply(second, cos))
    if pairs:
        turned = A.reshape(A.stack([a, b], axis=-1), turned.shape)
    else:
        turned = A.concat([a, b], axis=-1)
    out = A.concat([turned, rest], axis=-1) if width < y.shape[-1] else turned
    return A.reshape(A.permute_dims(out, (0, 2, 1, 3)), x.shape) if flat else out

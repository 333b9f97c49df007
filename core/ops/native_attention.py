"""Attention by the kernel that holds no scores, as the primitive calls it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import native

# Queries are worked on by panels of up to 32: for fewer, products of whole heads are as fast.
_FEW = 8


def attention(
    q: Any, k: Any, v: Any, mask: Any = None, *, scale: float, causal: bool, lse: bool = True
) -> Any:
    """Attention of float32 arrays and the logsumexp of its rows, None unless `lse`.

    NotImplemented for what the kernel does not take, or is not faster for.
    """
    widest = max(q.shape[-1], v.shape[-1])
    if q.shape[-2] < _FEW or widest > native.WIDEST or q.ndim not in (3, 4):
        return NotImplemented
    if mask is not None:
        mask = _added(mask, k.shape[-2])
    if q.ndim == 3:
        q, k, v = q[None], k[None], v[None]
        mask = None if mask is None else mask[None]
        out, total = _run(q, k, v, mask, scale, causal, lse)
        return out[0], None if total is None else total[0]
    return _run(q, k, v, mask, scale, causal, lse)


def _run(q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool, lse: bool) -> Any:
    total = np.empty(q.shape[:-1], np.float32) if lse else None
    q, k, v = _rows(q), _rows(k), _rows(v)
    out = native.attention(q, k, v, mask, scale=scale, causal=causal, lse=total)
    return out, None if total is None else total.astype(np.float64)


def _rows(x: Any) -> Any:
    """With a last axis that lies without gaps."""
    return x if x.strides[-1] == 4 and x.flags.aligned else np.ascontiguousarray(x)


def _added(mask: Any, keys: int) -> Any:
    """A mask as float32 numbers to add, one for each key."""
    if mask.dtype.kind == "b":
        mask = np.where(mask, np.float32(0), np.float32(-math.inf))
    if mask.shape[-1] != keys:
        mask = np.broadcast_to(mask, (*mask.shape[:-1], keys))
    return _rows(mask)

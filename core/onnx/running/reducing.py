"""Sums, means, extremes and norms along axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...tensor import Tensor
from . import api as A
from . import operator

_KINDS: dict[str, Any] = {
    "ReduceSum": A.sum,
    "ReduceMean": A.mean,
    "ReduceMax": A.max,
    "ReduceMin": A.min,
    "ReduceProd": A.prod,
}


@operator(
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp",
)  # fmt: skip
def _reduced(c: Any, x: Tensor, axes: Tensor | None = None) -> Any:
    given = c.get("axes") if axes is None else axes.array.tolist()
    if not given and axes is not None and axes.size == 0:
        given = None
    if not given and c.get("noop_with_empty_axes", 0):
        if c.kind == "ReduceL1":
            return A.abs(x)
        if c.kind == "ReduceSumSquare":
            return A.square(x)
        return x
    axis = tuple(a % x.ndim for a in given) if given else tuple(range(x.ndim))
    keep, dtype, kind = bool(c.get("keepdims", 1)), x.dtype, c.kind
    options: Any = {"axis": axis, "keepdims": keep}
    truth = dtype == np.dtype(bool)
    y = A.astype(x, dtype=np.dtype(np.int32)) if truth else x
    if kind in ("ReduceMax", "ReduceMin") and 0 in [x.shape[a] for a in axis]:
        return c.empty(x, options, kind)
    if kind in _KINDS:
        out = _KINDS[kind](y, **options)
    elif kind == "ReduceL1":
        out = A.sum(A.abs(y), **options)
    elif kind == "ReduceSumSquare":
        out = A.sum(A.square(y), **options)
    elif kind == "ReduceL2":
        out = A.sqrt(A.sum(A.square(_floating(y)), **options))
    elif kind == "ReduceLogSum":
        out = A.log(A.sum(_floating(y), **options))
    else:
        out = A.logsumexp(_floating(y), **options)
    return A.astype(out, dtype=dtype)


def _floating(x: Tensor) -> Tensor:
    return x if x.dtype.kind in "fV" else A.astype(x, dtype=np.dtype(float))


@operator("ArgMax", "ArgMin")
def _place(c: Any, x: Tensor) -> Any:
    axis, keep = c.get("axis", 0) % x.ndim, bool(c.get("keepdims", 1))
    find = A.argmax if c.kind == "ArgMax" else A.argmin
    if c.get("select_last_index", 0):
        found = find(A.flip(x, axis=axis), axis=axis, keepdims=keep)
        return A.subtract(x.shape[axis] - 1, found)
    return find(x, axis=axis, keepdims=keep)


@operator("TopK")
def _top(c: Any, x: Tensor, k: Tensor | None = None) -> Any:
    count = c.get("k") if k is None else int(k.array.item())
    axis = c.get("axis", -1) % x.ndim
    order = A.argsort(x, axis=axis, descending=bool(c.get("largest", 1)), stable=True)
    part: list[Any] = [slice(None)] * x.ndim
    part[axis] = slice(0, count)
    places = order[tuple(part)]
    return A.take_along_axis(x, places, axis=axis), A.astype(places, dtype=np.dtype(np.int64))

"""Sums, means, extremes, places of extremes, cumulative sums, softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...dtypes import int32
from ...graph.record import Call
from ..builder import Builder
from . import emits
from .elementwise import one, result_dtype

_REDUCTIONS = {
    "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd",
    "norm2": "ReduceL2", "logsumexp": "ReduceLogSumExp",
}  # fmt: skip


def _axes(b: Builder, call: Call) -> list[int]:
    axis, ndim = call.constants.get("axis"), b.ndim(call.operands[0])
    if axis is None:
        return list(range(ndim))
    return [a % ndim for a in (axis if isinstance(axis, tuple | list) else (axis,))]


@emits(*_REDUCTIONS)
def _reduced(b: Builder, call: Call) -> str:
    axes, keep = _axes(b, call), int(bool(call.constants.get("keepdims", False)))
    if not axes:
        return one(b, call)
    return b.add(_REDUCTIONS[call.op.name], one(b, call), axes=axes, keepdims=keep)  # type: ignore[no-any-return]


@emits("sum")
def _sum(b: Builder, call: Call) -> str:
    return _summed(b, one(b, call), _axes(b, call), bool(call.constants.get("keepdims", False)))


def _summed(b: Builder, name: str, axes: list[int], keep: bool) -> str:
    if not axes:
        return name
    return b.add("ReduceSum", name, b.const(np.array(axes)), keepdims=int(keep))  # type: ignore[no-any-return]


@emits("channel_sum")
def _channel_sum(b: Builder, call: Call) -> str:
    ndim = b.ndim(call.operands[0])
    kept = call.constants.get("axis", 1) % ndim
    return _summed(b, one(b, call), [i for i in range(ndim) if i != kept], False)


@emits("all", "any")
def _truth(b: Builder, call: Call) -> str:
    x, axes = call.operands[0], _axes(b, call)
    true = b.cast(b.name(x), b.dtype(x), np.dtype(bool))
    if not axes:
        return true
    number = b.cast(true, np.dtype(bool), int32)
    kind = "ReduceMin" if call.op.name == "all" else "ReduceMax"
    keep = int(bool(call.constants.get("keepdims", False)))
    return b.cast(b.add(kind, number, axes=axes, keepdims=keep), int32, np.dtype(bool))


@emits("argmax", "argmin")
def _place(b: Builder, call: Call) -> str:
    axis, x = call.constants.get("axis"), call.operands[0]
    name, keep = b.name(x), bool(call.constants.get("keepdims", False))
    if axis is None:
        if keep:
            raise b.refused("a place among all elements that keeps the axes")
        name, axis = b.add("Reshape", name, b.const(np.array([-1]))), 0
    if b.dtype(x).kind == "b":
        name = b.cast(name, b.dtype(x), int32)
    kind = "ArgMax" if call.op.name == "argmax" else "ArgMin"
    found = b.add(kind, name, axis=axis, keepdims=int(keep))
    return b.cast(found, np.dtype(np.int64), result_dtype(b, call))


@emits("softmax", "log_softmax")
def _softmax(b: Builder, call: Call) -> str:
    kind = "Softmax" if call.op.name == "softmax" else "LogSoftmax"
    return b.add(kind, one(b, call), axis=call.constants["axis"])  # type: ignore[no-any-return]


@emits("cumulative_sum")
def _cumulative(b: Builder, call: Call) -> str:
    axis, reverse = call.constants["axis"], call.constants.get("reverse", False)
    name, dtype = one(b, call), result_dtype(b, call)
    at: Any = b.const(np.asarray(axis, np.int64))
    return b.add("CumSum", b.cast(name, dtype, dtype), at, reverse=int(reverse))  # type: ignore[no-any-return]

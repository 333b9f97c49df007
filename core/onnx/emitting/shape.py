"""Operations that move elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...graph.record import Call
from ..builder import Builder
from ..sizes import Size
from . import emits
from .elementwise import one, result_dtype


@emits("reshape")
def _reshape(b: Builder, call: Call) -> str:
    x, out = call.operands[0], call.results[0]
    assert out is not None
    return b.reshape(b.name(x), b.shape(out), b.shape(x))


@emits("permute_dims")
def _permute(b: Builder, call: Call) -> str:
    return b.add("Transpose", b.name(call.operands[0]), perm=list(call.constants["axes"]))  # type: ignore[no-any-return]


@emits("broadcast_to")
def _broadcast(b: Builder, call: Call) -> str:
    out = call.results[0]
    assert out is not None
    return b.add("Expand", b.name(call.operands[0]), b.ints(b.shape(out)))  # type: ignore[no-any-return]


@emits("astype")
def _astype(b: Builder, call: Call) -> str:
    return one(b, call)


@emits("lowered")
def _lowered(b: Builder, call: Call) -> str:
    return one(b, call)


@emits("concat")
def _concat(b: Builder, call: Call) -> str:
    parts = [one(b, call, i) for i in range(len(call.operands))]
    return b.add("Concat", *parts, axis=call.constants.get("axis", 0))  # type: ignore[no-any-return]


@emits("stack")
def _stack(b: Builder, call: Call) -> str:
    axis, out = call.constants.get("axis", 0), call.results[0]
    assert out is not None
    at = b.const(np.array([axis % b.ndim(out)]))
    parts = [b.add("Unsqueeze", one(b, call, i), at) for i in range(len(call.operands))]
    return b.add("Concat", *parts, axis=axis % b.ndim(out))  # type: ignore[no-any-return]


@emits("split")
def _split(b: Builder, call: Call) -> list[str]:
    sizes, axis = call.constants["sizes"], call.constants["axis"]
    name = b.name(call.operands[0])
    if len(sizes) == 1:
        return [name]
    return b.add("Split", name, b.ints(sizes), outputs=len(sizes), axis=axis)  # type: ignore[no-any-return]


@emits("unstack")
def _unstack(b: Builder, call: Call) -> list[str]:
    x, axis = call.operands[0], call.constants["axis"]
    count = len(call.results)
    return [b.add("Gather", b.name(x), b.const(np.asarray(i)), axis=axis) for i in range(count)]


@emits("flip")
def _flip(b: Builder, call: Call) -> str:
    axes = list(call.constants["axes"])
    least = b.const(np.full(len(axes), np.iinfo(np.int64).min + 1))
    ones = b.const(np.full(len(axes), -1))
    return b.add("Slice", b.name(call.operands[0]), ones, least, b.const(np.array(axes)), ones)  # type: ignore[no-any-return]


@emits("roll")
def _roll(b: Builder, call: Call) -> str:
    x, shift, axis = call.operands[0], call.constants["shift"], call.constants["axis"]
    if axis is None:
        raise b.refused("roll without an axis")
    axes = axis if isinstance(axis, tuple) else (axis,)
    shifts = shift if isinstance(shift, tuple) else (shift,) * len(axes)
    name, shape = b.name(x), b.shape(x)
    for a, s in zip(axes, shifts, strict=True):
        n = shape[a]
        if isinstance(n, Size) or isinstance(s, Size):
            raise b.refused("roll along an open axis")
        cut, at = (n - s % n) % n, b.const(np.array([a]))
        if cut:
            first = b.add("Slice", name, b.ints([0]), b.ints([cut]), at)
            rest = b.add("Slice", name, b.ints([cut]), b.ints([n]), at)
            name = b.add("Concat", rest, first, axis=a)
    return name


@emits("tile")
def _tile(b: Builder, call: Call) -> str:
    x, counts = call.operands[0], list(call.constants["counts"])
    name, missing = b.name(x), len(counts) - b.ndim(x)
    if missing > 0:
        name = b.add("Unsqueeze", name, b.const(np.arange(missing)))
    counts = [1] * max(-missing, 0) + counts
    return b.add("Tile", name, b.ints(counts))  # type: ignore[no-any-return]


@emits("repeat")
def _repeat(b: Builder, call: Call) -> str:
    x, out = call.operands[0], call.results[0]
    assert out is not None
    axis, ndim = call.constants["axis"] % b.ndim(x), b.ndim(x)
    wide = b.add("Unsqueeze", b.name(x), b.const(np.array([axis + 1])))
    counts: list[Any] = [1] * (ndim + 1)
    counts[axis + 1] = call.constants["count"]
    return b.reshape(b.add("Tile", wide, b.ints(counts)), b.shape(out), b.shape(x)[:axis])


@emits("tril", "triu")
def _triangle(b: Builder, call: Call) -> str:
    k = b.number(call.constants["k"])
    return b.add("Trilu", b.name(call.operands[0]), k, upper=int(call.op.name == "triu"))  # type: ignore[no-any-return]


_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "edge": "edge"}


@emits("pad")
def _pad(b: Builder, call: Call) -> str:
    mode = call.constants["mode"]
    if mode not in _MODES:
        raise b.refused(f"padding of mode {mode!r}")
    widths = call.constants["widths"]
    ends = b.ints([*(low for low, _ in widths), *(high for _, high in widths)])
    value = b.const(np.asarray(call.constants.get("value", 0), result_dtype(b, call)))
    return b.add("Pad", b.name(call.operands[0]), ends, value, mode=_MODES[mode])  # type: ignore[no-any-return]


@emits("zeros_of")
def _zeros(b: Builder, call: Call) -> str:
    out = call.results[0]
    assert out is not None
    return b.add("Expand", b.const(np.zeros((), b.dtype(out))), b.ints(b.shape(out)))  # type: ignore[no-any-return]

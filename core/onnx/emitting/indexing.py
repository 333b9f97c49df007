"""Parts of tensors, and rows of tables."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ...graph.record import Call, Ref
from ...ops.indexing import TENSOR
from ..builder import Builder
from ..sizes import Size
from . import emits

_FAR = sys.maxsize


@emits("embedding")
def _embedding(b: Builder, call: Call) -> str:
    weight, ids = call.operands
    return b.add("Gather", b.name(weight), _whole(b, ids), axis=0)  # type: ignore[no-any-return]


def _whole(b: Builder, ids: Ref) -> str:
    """Indices in a dtype that ONNX takes."""
    dtype = b.dtype(ids)
    return b.cast(b.name(ids), dtype, dtype if dtype in (np.int32, np.int64) else np.int64)


@emits("getitem")
def _getitem(b: Builder, call: Call) -> str:
    x, *indices = call.operands
    layout = _spelled_out(b, call.constants["layout"], b.ndim(x))
    name = _sliced(b, b.name(x), [item for item in layout if item is not None])
    # Now axis by axis: whole ones, numbers, tensors, new ones.
    at = [i for i, item in enumerate(i for i in layout if i is not None) if item is TENSOR]
    if any(b.dtype(i).kind == "b" for i in indices):
        raise b.refused("choosing by a mask, whose result has no fixed size,")
    if len(at) > 1:
        name = _several(b, name, layout, at, indices)
        return name
    axis = 0
    for item in layout:
        if item is None:
            name = b.add("Unsqueeze", name, b.const(np.array([axis])))
            axis += 1
        elif item is TENSOR:
            name = b.add("Gather", name, _whole(b, indices[0]), axis=axis)
            axis += b.ndim(indices[0])
        elif isinstance(item, slice):
            axis += 1
        else:
            name = b.add("Gather", name, b.number(item), axis=axis)
    return name


def _spelled_out(b: Builder, layout: Any, ndim: int) -> list[Any]:
    """With a slice for each axis that `...` and the end stand for."""
    if any(isinstance(item, bool) for item in layout):
        raise b.refused("an index that is True or False")
    used = sum(item is not None and item is not Ellipsis for item in layout)
    rest = [slice(None)] * (ndim - used)
    if Ellipsis in layout:
        place = next(i for i, item in enumerate(layout) if item is Ellipsis)
        return [*layout[:place], *rest, *layout[place + 1 :]]
    return [*layout, *rest]


def _sliced(b: Builder, name: str, items: list[Any]) -> str:
    starts: list[Any] = []
    ends: list[Any] = []
    axes: list[int] = []
    steps: list[int] = []
    for axis, item in enumerate(items):
        if not isinstance(item, slice) or item == slice(None):
            continue
        step = 1 if item.step is None else item.step
        if isinstance(step, Size):
            raise b.refused("a step that depends on an open axis")
        first, last = (0, _FAR) if step > 0 else (_FAR, -_FAR)
        starts.append(first if item.start is None else item.start)
        ends.append(last if item.stop is None else item.stop)
        axes.append(axis)
        steps.append(step)
    if not axes:
        return name
    where = b.const(np.array(axes, np.int64))
    return b.add("Slice", name, b.ints(starts), b.ints(ends), where, b.ints(steps))  # type: ignore[no-any-return]


def _several(b: Builder, name: str, layout: list[Any], at: list[int], indices: list[Ref]) -> str:
    """Tensors that index the first axes together."""
    shapes = [b.shape(i) for i in indices]
    if at != list(range(len(at))) or None in layout or any(s != shapes[0] for s in shapes):
        raise b.refused("indexing by several tensors that are not those of the first axes")
    if any(not isinstance(item, slice) for item in layout[len(at) :]):
        raise b.refused("indexing by tensors and numbers")
    end = b.const(np.array([-1]))
    whole = [b.cast(b.name(i), b.dtype(i), np.int64) for i in indices]
    places = b.add("Concat", *(b.add("Unsqueeze", i, end) for i in whole), axis=-1)
    return b.add("GatherND", name, places)  # type: ignore[no-any-return]


@emits("take_along_axis")
def _along(b: Builder, call: Call) -> str:
    x, indices = call.operands
    axis = call.constants["axis"] % b.ndim(x)
    for i, (have, given) in enumerate(zip(b.shape(x), b.shape(indices), strict=True)):
        if i != axis and have != given:
            raise b.refused("take_along_axis with axes of other lengths")
    return b.add("GatherElements", b.name(x), _whole(b, indices), axis=axis)  # type: ignore[no-any-return]


@emits("one_hot")
def _one_hot(b: Builder, call: Call) -> str:
    out = call.results[0]
    assert out is not None
    classes = b.const(np.arange(call.constants["classes"], dtype=np.int64))
    ids = b.cast(b.name(call.operands[0]), b.dtype(call.operands[0]), np.int64)
    same = b.add("Equal", b.add("Unsqueeze", ids, b.const(np.array([-1]))), classes)
    return b.cast(same, np.dtype(bool), b.dtype(out))

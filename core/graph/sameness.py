"""Whether two recordings of a function are the same graph: then a third call runs it again.

What Python computes between the operations is in a recording as a constant. Where two calls
with other inputs, one after another, left the same constants, those do not depend on the inputs
or on how often the function ran.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np

from ..devices import backend_of
from .record import Graph, Ref


def difference(first: Graph, second: Graph, given: Collection[int] = ()) -> str | None:
    """What tells two recordings apart, in words; None where they are the same.

    Args:
        given: numbers of external values that each call is given anew.
    """
    for one, other in zip(first.calls, second.calls, strict=False):
        if one.op is not other.op:
            return f"it ran {one.op.name} in one call and {other.op.name} in the next"
        if one.results != other.results or len(one.operands) != len(other.operands):
            return f"the results of {one.op.name} went other ways"
        if set(one.constants) != set(other.constants):
            return f"{one.op.name} had other arguments"
        for name, value in one.constants.items():
            if not _same(value, other.constants[name]):
                now = other.constants[name]
                return f"{name} of {one.op.name} was {value!r} in one call and {now!r} in the next"
        for x, y in zip(one.operands, other.operands, strict=True):
            if not _same(x, y):
                return f"{one.op.name} took {x!r} in one call and {y!r} in the next"
    if len(first.calls) != len(second.calls):
        return f"it ran {len(first.calls)} operations in one call, {len(second.calls)} in the next"
    used = {x.index for call in first.calls for x in call.operands if isinstance(x, Ref)}
    for index in sorted(used):
        if first.kinds[index] != second.kinds[index]:
            (a, _), (b, _) = first.kinds[index], second.kinds[index]
            return f"a value was of shape {a} in one call, and {b} in the next"
        one_array, other_array = first.external.get(index), second.external.get(index)
        if index in given or one_array is other_array:
            continue
        if one_array is None or other_array is None or not _equal(one_array, other_array):
            user = next(call for call in first.calls if Ref(index) in call.operands)
            return (
                f"{user.op.name} took an array that Python made, with other values in the next call"
                " (what changes from call to call must be an argument)"
            )
    return None


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if backend_of(a) is not None:
        return _equal(a, b)
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    return bool(a == b)


def _equal(a: Any, b: Any) -> bool:
    if type(a) is not np.ndarray or type(b) is not np.ndarray:
        return a is b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return a.tobytes() == b.tobytes()

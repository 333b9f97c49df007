"""Constants, conditions and loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...tensor import Tensor
from . import operator


@operator("Constant")
def _constant(c: Any) -> Any:
    for name, dtype in (
        ("value", None), ("value_float", np.float32), ("value_int", np.int64),
        ("value_floats", np.float32), ("value_ints", np.int64),
    ):  # fmt: skip
        value = c.get(name)
        if value is not None:
            return Tensor(np.asarray(value, dtype))
    raise c.refused("a constant of text")


@operator("Identity")
def _identity(c: Any, x: Any) -> Any:
    return x


@operator("If")
def _if(c: Any, test: Tensor) -> Any:
    return tuple(c.inner(c.get("then_branch" if bool(test.array.item()) else "else_branch"), []))


@operator("Loop")
def _loop(c: Any, count: Any = None, test: Any = None, *state: Any) -> Any:
    body = c.get("body")
    most = None if count is None else int(count.array.item())
    going = test is None or bool(test.array.item())
    carried, rows, i = list(state), [], 0
    while going and (most is None or i < most):
        found = c.inner(
            body, [Tensor(np.asarray(i, np.int64)), Tensor(np.asarray(going)), *carried]
        )
        going, carried = bool(found[0].array.item()), found[1 : 1 + len(state)]
        rows.append(found[1 + len(state) :])
        i += 1
    return (*carried, *_scanned(rows, len(body.outputs) - 1 - len(state)))


def _scanned(rows: list[Any], count: int) -> list[Tensor]:
    return [
        Tensor(np.stack([row[i].array for row in rows]) if rows else np.zeros((0,), np.float32))
        for i in range(count)
    ]


@operator("Size")
def _size(c: Any, x: Tensor) -> Any:
    return Tensor(np.asarray(x.size, np.int64))


@operator("Shape")
def _shape(c: Any, x: Tensor) -> Any:
    shape = x.shape[c.get("start", 0) : c.get("end")]
    return Tensor(np.asarray(shape, np.int64))

"""Reading and writing parts of tensors.

An index is split into its layout (slices, numbers, new axes: constants) and its index tensors
(operands), so that a recorded graph sees the tensors that it depends on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DtypeError, IndexRangeError
from ..op import op

if TYPE_CHECKING:
    from ..tensor import Tensor

# In a layout, stands where the next index tensor goes.
TENSOR = "tensor"

Layout = tuple[Any, ...]


def split_index(index: Any, is_tensor: Any) -> tuple[Layout, list[Any]]:
    """The layout of an index and the tensors or arrays in it."""
    items = index if isinstance(index, tuple) else (index,)
    layout: list[Any] = []
    operands: list[Any] = []
    for item in items:
        if isinstance(item, list):
            item = np.asarray(item) if item else np.zeros(0, np.int64)
        if is_tensor(item) or (hasattr(item, "dtype") and hasattr(item, "shape")):
            if item.dtype.kind not in "biu":
                raise DtypeError(
                    f"an index must be integer or boolean, got {item.dtype}.\n"
                    "Convert it: x[i.astype(bt.int64)]",
                    got=str(item.dtype),
                )
            layout.append(TENSOR)
            operands.append(item)
        elif item is None or item is Ellipsis or isinstance(item, (slice, int, bool)):
            layout.append(item)
        elif hasattr(item, "__index__"):
            layout.append(item.__index__())
        else:
            raise DtypeError(f"cannot index with {type(item).__name__}", got=type(item).__name__)
    return tuple(layout), operands


def _join(layout: Layout, operands: Any) -> Any:
    if len(layout) == 1 and layout[0] is not TENSOR:
        return layout[0]
    rest = iter(operands)
    return tuple(next(rest) if item is TENSOR else item for item in layout)


def _index_error(error: Exception, operands: Any, constants: Any) -> Exception | None:
    if isinstance(error, IndexError):
        return IndexRangeError(f"indexing a tensor of shape {tuple(operands[0].shape)}: {error}")
    return None


@op(view=True)
def getitem(xp: Any, x: Tensor, *indices: Tensor, layout: Layout) -> Tensor:
    """`x[index]`."""
    return x[_join(layout, indices)]


@getitem.backward
def _(g, shapes, indices, layout):
    return scatter_add(g, *indices, layout=layout, shape=shapes[0]), *(None for _ in indices)


getitem.explains(_index_error)


@op
def scatter_add(xp: Any, values: Tensor, *indices: Tensor, layout: Layout, shape: Any) -> Tensor:
    """Zeros of `shape` with `values` added at an index; repeated places add up."""
    result = xp.zeros(shape, values.dtype)
    index = _join(layout, indices)
    if all(i.dtype.kind == "b" for i in indices):
        result[index] = values  # slices, numbers and masks name each place once
    else:
        xp.add.at(result, index, values)
    return result


@scatter_add.backward
def _(g, indices, layout):
    return getitem(g, *indices, layout=layout), *(None for _ in indices)


@op(raw=True, writes=("x",))
def write_item(xp: Any, x: Tensor, value: Tensor, *indices: Tensor, layout: Layout) -> Tensor:
    """`x[index] = value` in x's own memory; the result is that memory."""
    x[_join(layout, indices)] = value
    return x


@write_item.backward
def _(g, shapes, indices, layout, needs):
    first = second = None
    if needs[0]:
        first = erase_item(g, *indices, layout=layout)
    if needs[1]:
        second = getitem(g, *indices, layout=layout)
    return first, second, *(None for _ in indices)


write_item.explains(_index_error)


@op(raw=True)
def erase_item(xp: Any, x: Tensor, *indices: Tensor, layout: Layout) -> Tensor:
    """A copy with zeros at an index."""
    result = x.copy()
    result[_join(layout, indices)] = 0
    return result


@erase_item.backward
def _(g, indices, layout):
    return erase_item(g, *indices, layout=layout), *(None for _ in indices)

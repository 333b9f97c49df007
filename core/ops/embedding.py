"""Rows of a table, looked up by id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DtypeError, IndexRangeError
from ..op import op
from .shape import astype

if TYPE_CHECKING:
    from ..tensor import Tensor


def _check_ids(ids: Any, count: int) -> None:
    if ids.size == 0:
        return
    least, most = int(ids.min()), int(ids.max())
    if least >= 0 and most < count:
        return
    value = least if least < 0 else most
    place = tuple(int(i) for i in np.unravel_index(int((ids == value).argmax()), ids.shape))
    hint = (
        "Negative ids often mark positions to leave out of the loss: replace them in the input."
        if value < 0
        else "Do the tokenizer and the model belong together? Tokens added to the tokenizer need "
        f"rows here: Embedding({value + 1}, ...)"
    )
    raise IndexRangeError(
        f"embedding: id {value} at index {place} is out of range: the vocabulary has {count} "
        f"entries, 0 to {count - 1}.\n{hint}",
        value=value,
        index=place,
        vocabulary=count,
    )


@op(name="embedding", raw=True)
def _embedding(xp: Any, weight: Tensor, ids: Tensor, *, padding_idx: int | None) -> Tensor:
    _check_ids(ids, weight.shape[0])
    return xp.take(weight, ids, axis=0)


@_embedding.backward
def _(g, ids, shapes, padding_idx):
    return embedding_grad(g, ids, count=shapes[0][0], padding_idx=padding_idx), None


@op
def embedding_grad(
    xp: Any, grad: Tensor, ids: Tensor, *, count: int, padding_idx: int | None
) -> Tensor:
    """Rows added up by id into a table of `count`: the transpose of the look-up."""
    width = grad.shape[-1]
    out = xp.zeros((count, width), grad.dtype)
    flat = ids.reshape(-1)
    rows: Any = grad.reshape(flat.shape[0], width)
    if padding_idx is not None:
        kept = flat != padding_idx
        flat, rows = flat[kept], rows[kept]
    if xp is not np:
        xp.add.at(out, flat, rows)
    elif flat.size:
        # Rows of one id brought together: NumPy adds at repeated places slowly.
        order = np.argsort(flat, kind="stable")
        ordered = flat[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        out[ordered[starts]] = np.add.reduceat(rows[order], starts, axis=0)
    return out


@embedding_grad.backward
def _(g, ids, padding_idx):
    out = _embedding(g, ids, padding_idx=padding_idx)
    if padding_idx is not None:
        out = out * astype(ids != padding_idx, dtype=g.dtype)[..., None]
    return out, None


def embedding(x: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Rows of a table.

    Args:
        x: ids, integers of any shape.
        weight: the table (entries, features).
        padding_idx: an entry that gets no gradient.

    Raises:
        IndexRangeError: an id that the table does not have.
    """
    if x.dtype.kind not in "iu":
        raise DtypeError(
            f"embedding: ids are integers, got {x.dtype}.\nConvert them: x.astype(bt.int64)",
            got=str(x.dtype),
        )
    if padding_idx is not None and padding_idx < 0:
        padding_idx += weight.shape[0]
    return _embedding(weight, x, padding_idx=padding_idx)

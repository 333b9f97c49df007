"""Linear maps and tables whose weights have few bits: bytes in a format of core/quantization.py.

A weight is widened by blocks while it is multiplied, never whole. It takes no gradient: gradients
flow through to the input, so that what stands before or beside such a layer can be trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import native
from ..dtypes import float32, uint8
from ..errors import DtypeError, ShapeError
from ..op import op
from ..quantization import FORMATS, as_format, unpack
from .embedding import _check_ids
from .linear import FEW
from .normalization import flat_rows, sum_rows

if TYPE_CHECKING:
    from ..tensor import Tensor

_BLOCK = 1 << 20  # numbers that are wide at once: 4 MB


def widened(xp: Any, raw: Any, form: str, features: int, out: Any = None) -> Any:
    """Rows of bytes as numbers, in float32, exactly. Shape: (N, bytes) -> (N, features)."""
    if xp is np and native.available() and raw.flags.c_contiguous:
        block = FORMATS[form].block
        return native.numbers(form, raw, -(-features // block) * block, out)[:, :features]
    return unpack(xp, raw, form, features)


def _blocks(xp: Any, weight: Any, form: str, features: int) -> Iterator[tuple[slice, Any]]:
    """Rows of a weight in float32, some at a time; each is gone when the next is asked for."""
    width = -(-features // FORMATS[form].block) * FORMATS[form].block
    step = max(32, _BLOCK // max(width, 1))
    count = weight.shape[0]
    scratch = np.empty((min(step, count), width), np.float32) if xp is np else None
    for at in range(0, count, step):
        part = weight[at : at + step]
        own = None if scratch is None else scratch[: part.shape[0]]
        yield slice(at, at + part.shape[0]), widened(xp, part, form, features, own)


@op(name="quantized_linear", same_float=True)
def _linear(
    xp: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *, form: str, features: int
) -> Tensor:
    rows = flat_rows(x)
    out = xp.empty((rows.shape[0], weight.shape[0]), x.dtype)
    for part, numbers in _blocks(xp, weight, form, features):
        out[:, part] = xp.matmul(rows, numbers.astype(x.dtype, copy=False).T)
    if bias is not None:
        out += bias
    return out.reshape(*x.shape[:-1], weight.shape[0])


@_linear.kernel("cpu")
def _few(x: Any, weight: Any, bias: Any, *, form: str, features: int) -> Any:
    """One row, or few: as fast as memory gives the weights."""
    rows = x.size // max(features, 1)
    if not 0 < rows <= FEW or x.dtype != float32 or not native.available():
        return NotImplemented
    if not (x.flags.aligned and (bias is None or bias.flags.aligned)):
        return NotImplemented
    flat = np.ascontiguousarray(x).reshape(rows, features)
    short = -features % FORMATS[form].block
    if short:
        flat = np.pad(flat, ((0, 0), (0, short)))
    if bias is not None:
        bias = np.ascontiguousarray(bias, np.float32)
    out = native.product(form, np.ascontiguousarray(weight), flat, bias)
    return out.reshape(*x.shape[:-1], weight.shape[0])


@_linear.backward
def _(g, weight, needs, form, features):
    return (
        quantized_linear_input_grad(g, weight, form=form, features=features) if needs[0] else None,
        None,
        sum_rows(g) if needs[2] else None,
    )


@op
def quantized_linear_input_grad(
    xp: Any, grad: Tensor, weight: Tensor, *, form: str, features: int
) -> Tensor:
    """The gradient of `quantized_linear` for its input: (..., out) gives (..., features)."""
    rows = flat_rows(grad)
    out = xp.zeros((rows.shape[0], features), grad.dtype)
    for part, numbers in _blocks(xp, weight, form, features):
        out += xp.matmul(rows[:, part], numbers.astype(grad.dtype, copy=False))
    return out.reshape(*grad.shape[:-1], features)


@quantized_linear_input_grad.backward
def _(g, weight, form, features):
    return _linear(g, weight, None, form=form, features=features), None


def quantized_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, form: str) -> Tensor:
    """`x @ W.T + bias` over the last axis, of a W stored in few bits; it gets no gradient.

    Args:
        form: the format of its rows: "int8", "q4_1", "bfloat16", ...

    Shape: x (..., in), weight (out, bytes of a row), uint8, bias (out,); the result is (..., out).
    Raises:
        ShapeError: rows of another length than the last axis of x has in this format.
        DtypeError: x holds no floats, the weight no bytes.
        ConfigError: no such format.
    """
    layout = as_format(form)
    features = x.shape[-1] if x.ndim else 0
    if weight.dtype != uint8:
        raise DtypeError(
            f"quantized_linear: the weight holds bytes (uint8), got {weight.dtype}.\n"
            f"bestiary.core.quantization.pack(weight, {form!r}) makes such a weight.",
            expected="uint8",
            got=str(weight.dtype),
        )
    if weight.ndim != 2 or not x.ndim or weight.shape[1] != layout.stored(features):
        raise ShapeError(
            f"quantized_linear: the input has {features} features, whose rows take "
            f"{layout.stored(features)} bytes in {layout.name};\nthe weight has shape "
            f"{tuple(weight.shape)} (out, bytes of a row).",
            expected=layout.stored(features),
            got=tuple(weight.shape),
        )
    return _linear(x, weight, bias, form=layout.name, features=features)


@op(name="quantized_embedding", differentiable=False)
def _embedding(xp: Any, weight: Tensor, ids: Tensor, *, form: str, features: int) -> Tensor:
    _check_ids(ids, weight.shape[0])
    rows = xp.take(weight, ids.reshape(-1), axis=0)
    return widened(xp, rows, form, features).reshape(*ids.shape, features)


def quantized_embedding(x: Tensor, weight: Tensor, *, form: str, features: int) -> Tensor:
    """Rows of a table stored in few bits, in float32.

    Args:
        x: ids, integers of any shape.
        weight: the table (entries, bytes of a row), uint8.
        form: the format of its rows.
        features: numbers in a row.

    Raises:
        IndexRangeError: an id that the table does not have.
        DtypeError: ids that are no integers.
        ShapeError: rows of another length.
    """
    layout = as_format(form)
    if x.dtype.kind not in "iu":
        raise DtypeError(
            f"quantized_embedding: ids are integers, got {x.dtype}.\n"
            "Convert them: x.astype(bt.int64)",
            got=str(x.dtype),
        )
    if weight.ndim != 2 or weight.shape[1] != layout.stored(features):
        raise ShapeError(
            f"quantized_embedding: rows of {features} numbers take {layout.stored(features)} bytes "
            f"in {layout.name}; the table has shape {tuple(weight.shape)}.",
            expected=layout.stored(features),
            got=tuple(weight.shape),
        )
    return _embedding(weight, x, form=layout.name, features=features)

"""The linear map of the last axis, as one 2-D product, and its gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import native
from ..conversion import converted
from ..dtypes import HALVES, float32, uint8
from ..errors import ShapeError
from ..op import op
from .normalization import flat_rows, sum_rows

if TYPE_CHECKING:
    from ..tensor import Tensor


FEW = 16  # rows up to which a weight is widened in registers, anew for each four of them
_BLOCK = 1 << 20  # numbers of a half weight that are wide at once: 4 MB


@op(name="linear", same_float=True, narrow=("weight",))
def _linear(xp: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # Flattened: NumPy's 3-D by 2-D product is up to three times slower.
    rows = x if x.ndim == 2 else flat_rows(x)
    if xp is np and weight.dtype in HALVES:
        out = _by_half(rows, weight)
    else:
        out = xp.matmul(rows, weight.T)
    if bias is not None:
        out += bias
    return out if x.ndim == 2 else out.reshape(*x.shape[:-1], weight.shape[0])


def _by_half(rows: Any, weight: Any) -> Any:
    """Float32 rows by a transposed weight of a half type, which is never wide as a whole."""
    count, features = weight.shape
    whole = weight.flags.c_contiguous and features % 32 == 0 and native.available()
    narrow = 0 < len(rows) <= FEW and rows.dtype == float32 and rows.flags.aligned
    if whole and narrow and weight.size:
        form = weight.dtype.name
        return native.product(form, weight.view(uint8), np.ascontiguousarray(rows))
    if weight.T.flags.c_contiguous and not weight.flags.c_contiguous:  # stored the other way round
        out = np.zeros((len(rows), count), float32)
        step = max(32, _BLOCK // max(count, 1))
        for at in range(0, features, step):
            out += np.matmul(rows[:, at : at + step], converted(weight.T[at : at + step], float32))
        return out
    out = np.empty((len(rows), count), float32)
    step = max(32, _BLOCK // max(features, 1))
    for at in range(0, count, step):
        part = converted(weight[at : at + step], float32)
        np.matmul(rows, part.T, out=out[:, at : at + step])
    return out


@_linear.backward
def _(g, x, weight, needs):
    return (
        linear_input_grad(g, weight) if needs[0] else None,
        linear_weight_grad(g, x) if needs[1] else None,
        sum_rows(g) if needs[2] else None,
    )


@op
def linear_input_grad(xp: Any, grad: Tensor, weight: Tensor) -> Tensor:
    """The gradient of `linear` for its input: (..., out) and (out, in) give (..., in)."""
    if grad.ndim == 2:
        return xp.matmul(grad, weight)
    return xp.matmul(flat_rows(grad), weight).reshape(*grad.shape[:-1], weight.shape[1])


@linear_input_grad.backward
def _(g, grad, weight, needs):
    return (
        _linear(g, weight, None) if needs[0] else None,
        linear_weight_grad(grad, g) if needs[1] else None,
    )


@op
def linear_weight_grad(xp: Any, grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of `linear` for its weight: (..., out) and (..., in) give (out, in)."""
    if x.ndim == 2:
        return xp.matmul(grad.T, x)
    return xp.matmul(flat_rows(grad).T, flat_rows(x))


@linear_weight_grad.backward
def _(g, grad, x):
    return _linear(x, g, None), linear_input_grad(grad, g)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias` over the last axis.

    Shape: x (..., in), weight (out, in), bias (out,); the result is (..., out).
    Raises:
        ShapeError: the last axis of x is not the weight's second.
        DtypeError: the floating dtypes differ.
    """
    return _linear(x, weight, bias)


@_linear.explains
def _(error, operands, constants):
    x, weight = operands[0], operands[1]
    if weight.ndim != 2 or x.ndim == 0:
        return ShapeError(
            f"linear: needs x (..., in) and weight (out, in), got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}.",
            expected=2,
            got=weight.ndim,
        )
    out, expected = weight.shape
    got = x.shape[-1]
    if got == expected:
        return None
    before = shape_before_flattening(x)
    arose = ""
    if before is not None:
        arose = f" = {'x'.join(str(n) for n in before)} flattened"
    return ShapeError(
        f"linear: the layer takes {expected} features, its input has {got}{arose}.\n"
        f"  input {tuple(x.shape)}, weight {tuple(weight.shape)} (out, in)\n"
        f"Make the layer fit: Linear({got}, {out})",
        expected=expected,
        got=got,
        before=before,
    )


def shape_before_flattening(x: Any) -> tuple[int, ...] | None:
    """The axes that a reshape joined to make the last axis of `x`; None if none did."""
    got = x.shape[-1]
    sources = []
    node = getattr(x, "_node", None)
    if node is not None and getattr(getattr(node, "op", None), "name", "") == "reshape":
        sources.append(node.shapes[0])
    base = getattr(x.array if hasattr(x, "array") else x, "base", None)
    if base is not None and hasattr(base, "shape"):
        sources.append(base.shape)
    for shape in sources:
        for start in range(len(shape) - 1):
            tail = tuple(int(n) for n in shape[start:])
            size = 1
            for n in tail:
                size *= n
            if size == got:
                return tail
    return None

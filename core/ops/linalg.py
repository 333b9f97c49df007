"""Products of matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ShapeError
from ..op import op
from .elementwise import conj
from .shape import expand_dims, matrix_transpose, squeeze

if TYPE_CHECKING:
    from ..tensor import Tensor


@op(name="matmul", promote=True)
def _matmul(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    return xp.matmul(x1, x2)


@_matmul.backward
def _(g, x1, x2, needs):
    first = _matmul(g, conj(matrix_transpose(x2))) if needs[0] else None
    second = _matmul(conj(matrix_transpose(x1)), g) if needs[1] else None
    return first, second


def matmul(x1: Tensor, x2: Tensor) -> Tensor:
    """Matrix product over the last two axes, broadcast over the others; 1-d operands as vectors.

    Raises:
        ShapeError: the last axis of x1 and the second last of x2 differ.
    """
    if x1.ndim == 0 or x2.ndim == 0:
        raise ShapeError(
            f"matmul: needs vectors or matrices, got shapes {tuple(x1.shape)} and "
            f"{tuple(x2.shape)}.\nA number times a tensor is written *: x1 * x2"
        )
    inner = x2.shape[-2] if x2.ndim > 1 else x2.shape[-1]
    if x1.shape[-1] != inner:
        raise _unfitting(x1, x2, inner)
    if x1.ndim > 1 and x2.ndim > 1:
        return _matmul(x1, x2)
    left = expand_dims(x1, axis=0) if x1.ndim == 1 else x1
    right = expand_dims(x2, axis=1) if x2.ndim == 1 else x2
    out: Tensor = _matmul(left, right)
    if x2.ndim == 1:
        out = squeeze(out, -1)
    return squeeze(out, -1 if x2.ndim == 1 else -2) if x1.ndim == 1 else out


def _unfitting(x1: Tensor, x2: Tensor, inner: int) -> ShapeError:
    def mark(shape: tuple[int, ...], axis: int) -> str:
        place = axis % len(shape)
        sizes = [f">{n}<" if i == place else str(n) for i, n in enumerate(shape)]
        return "(" + ", ".join(sizes) + ")"

    right_axis = -2 if x2.ndim > 1 else -1
    hint = "Check which axis holds the features."
    if x2.ndim > 1 and x1.shape[-1] == x2.shape[-1]:
        hint = "Is the second one transposed? x1 @ x2.mT"
    elif x1.ndim > 1 and x1.shape[-2] == inner:
        hint = "Is the first one transposed? x1.mT @ x2"
    return ShapeError(
        "matmul: the marked sizes must be equal:\n"
        f"  x1 {mark(tuple(x1.shape), -1)}\n  x2 {mark(tuple(x2.shape), right_axis)}\n{hint}",
        expected=x1.shape[-1],
        got=inner,
    )

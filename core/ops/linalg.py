"""Products of matrices and vectors, and what reads a matrix without decomposing it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import dtypes
from ..errors import ShapeError
from ..mistakes import marked, unequal_stacks
from ..op import op
from ..spelling import spelled
from .axes import one_axis
from .elementwise import conj, multiply, zeros_of
from .manipulation import broadcast_arrays, unstack
from .reduction import sum as sum_over
from .shape import (
    expand_dims,
    matrix_transpose,
    permute_dims,
    reshape,
    rounded_once,
    squeeze,
    stack,
)

if TYPE_CHECKING:
    from ..tensor import Tensor

# -- the matrix product ------------------------------------------------------------------------


@op(name="matmul", promote=True)
def _matmul(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    return xp.matmul(x1, x2)


@_matmul.kernel("cuda")
def _(x1: Any, x2: Any) -> Any:
    """CuPy multiplies stacks of matrices in float16 and float32, not in bfloat16."""
    if x1.dtype != dtypes.bfloat16 or max(x1.ndim, x2.ndim) < 3:
        return NotImplemented
    return (x1.astype(dtypes.float32) @ x2.astype(dtypes.float32)).astype(x1.dtype)


@_matmul.backward
def _(g, x1, x2, needs):
    first = _matmul(g, conj(matrix_transpose(x2))) if needs[0] else None
    second = _matmul(conj(matrix_transpose(x1)), g) if needs[1] else None
    return first, second


@_matmul.explains
def _(error, operands, constants):
    x1, x2 = operands
    if not isinstance(error, ValueError):
        return None
    if x1.shape[-1] != x2.shape[-2]:
        return _unfitting(x1, x2)
    return unequal_stacks(tuple(x1.shape), tuple(x2.shape))


def matmul(x1: Tensor, x2: Tensor, /) -> Tensor:
    """Matrix product over the last two axes, broadcast over the others; 1-d operands as vectors.

    Raises:
        ShapeError: the last axis of x1 and the second last of x2 differ.
    """
    first, second = len(x1.shape), len(x2.shape)
    if first == 2 == second:
        return _matmul(x1, x2)
    if first == 0 or second == 0:
        raise ShapeError(
            f"matmul: needs vectors or matrices, got shapes {tuple(x1.shape)} and "
            f"{tuple(x2.shape)}.\nA number times a tensor is written *: x1 * x2"
        )
    inner = x2.shape[-2] if second > 1 else x2.shape[-1]
    if x1.shape[-1] != inner:
        raise _unfitting(x1, x2)
    if first > 2 and second == 2:
        # As one product: NumPy's 3-d by 2-d is up to three times slower, and its gradient too.
        rows = reshape(x1, (math.prod(x1.shape[:-1]), x1.shape[-1]))
        return reshape(_matmul(rows, x2), (*x1.shape[:-1], x2.shape[-1]))
    if first > 1 and second > 1:
        return _matmul(x1, x2)
    left = expand_dims(x1, axis=0) if first == 1 else x1
    right = expand_dims(x2, axis=1) if second == 1 else x2
    out: Tensor = _matmul(left, right)
    if second == 1:
        out = squeeze(out, -1)
    return squeeze(out, -1 if second == 1 else -2) if first == 1 else out


def _unfitting(x1: Tensor, x2: Tensor) -> ShapeError:
    inner = x2.shape[-2] if x2.ndim > 1 else x2.shape[-1]
    right_axis = -2 if x2.ndim > 1 else -1
    hint = "Check which axis holds the features."
    if x2.ndim > 1 and x1.shape[-1] == x2.shape[-1]:
        hint = "Is the second one transposed? x1 @ x2.mT"
    elif x1.ndim > 1 and x1.shape[-2] == inner:
        hint = "Is the first one transposed? x1.mT @ x2"
    return ShapeError(
        "matmul: the marked sizes must be equal:\n"
        f"  x1 {marked(tuple(x1.shape), -1)}\n  x2 {marked(tuple(x2.shape), right_axis)}\n{hint}",
        expected=x1.shape[-1],
        got=inner,
    )


# -- other products ----------------------------------------------------------------------------


def tensordot(
    x1: Tensor,
    x2: Tensor,
    /,
    *,
    axes: int | tuple[Sequence[int], Sequence[int]] = 2,
) -> Tensor:
    """Products of elements summed over axes of both.

    Args:
        axes: how many of x1's last and x2's first axes, or the axes of each.
    """
    if isinstance(axes, int):
        if not 0 <= axes <= min(x1.ndim, x2.ndim):
            raise ShapeError(f"tensordot: axes={axes} for shapes {x1.shape} and {x2.shape}")
        left, right = tuple(range(x1.ndim - axes, x1.ndim)), tuple(range(axes))
    else:
        left = tuple(a % x1.ndim for a in axes[0])
        right = tuple(a % x2.ndim for a in axes[1])
    sizes = [x1.shape[a] for a in left]
    if sizes != [x2.shape[a] for a in right]:
        raise ShapeError(
            f"tensordot: the axes {left} of {tuple(x1.shape)} and {right} of {tuple(x2.shape)} "
            "differ in size.",
            x1=tuple(x1.shape),
            x2=tuple(x2.shape),
        )
    rest1 = tuple(i for i in range(x1.ndim) if i not in left)
    rest2 = tuple(i for i in range(x2.ndim) if i not in right)
    shape1 = tuple(x1.shape[i] for i in rest1)
    shape2 = tuple(x2.shape[i] for i in rest2)
    inner = math.prod(sizes)
    rows = reshape(permute_dims(x1, rest1 + left), (math.prod(shape1), inner))
    columns = reshape(permute_dims(x2, right + rest2), (inner, math.prod(shape2)))
    return reshape(_matmul(rows, columns), shape1 + shape2)


@spelled
@rounded_once
def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """Sum of `conj(x1) * x2` over an axis."""
    for x in (x1, x2):
        one_axis("vecdot", axis, x.shape)
    if x1.shape[axis] != x2.shape[axis]:
        raise ShapeError(
            f"vecdot: axis {axis} has {x1.shape[axis]} and {x2.shape[axis]} elements.",
            expected=x1.shape[axis],
            got=x2.shape[axis],
        )
    product = multiply(conj(x1), x2)
    # Counted from the end: broadcasting may have added axes before.
    return sum_over(product, axis=axis if axis < 0 else axis - x1.ndim, dtype=product.dtype)


def outer(x1: Tensor, x2: Tensor, /) -> Tensor:
    """All products of an element of one vector with one of the other."""
    if x1.ndim != 1 or x2.ndim != 1:
        raise ShapeError(f"outer: takes vectors, got shapes {x1.shape} and {x2.shape}")
    return multiply(expand_dims(x1, axis=1), expand_dims(x2, axis=0))


@spelled
@rounded_once
def cross(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """Cross product of vectors of 3 elements along an axis."""
    for x in (x1, x2):
        if not -x.ndim <= axis < x.ndim or x.shape[axis] != 3:
            raise ShapeError(
                f"cross: axis {axis} must have 3 elements, got shape {tuple(x.shape)}.",
                got=tuple(x.shape),
            )
    x1, x2 = broadcast_arrays(x1, x2)
    place = axis % x1.ndim
    a, b = unstack(x1, axis=place), unstack(x2, axis=place)
    parts = [a[i] * b[j] - a[j] * b[i] for i, j in ((1, 2), (2, 0), (0, 1))]
    return stack(parts, axis=place)


# -- diagonals ---------------------------------------------------------------------------------


@op(name="diagonal", view=True)
def _diagonal(xp: Any, x: Tensor, *, offset: int) -> Tensor:
    return xp.diagonal(x, offset, -2, -1)


@_diagonal.backward
def _(g, shapes, offset):
    return from_diagonal(g, offset=offset, shape=shapes[0])


@op(raw=True)
def from_diagonal(xp: Any, x: Tensor, *, offset: int, shape: tuple[int, ...]) -> Tensor:
    """Matrices with x on a diagonal and zeros elsewhere."""
    out = xp.zeros(shape, x.dtype)
    places = xp.arange(x.shape[-1])
    out[..., places + max(-offset, 0), places + max(offset, 0)] = x
    return out


@from_diagonal.backward
def _(g, offset):
    return _diagonal(g, offset=offset)


def diagonal(x: Tensor, /, *, offset: int = 0) -> Tensor:
    """A diagonal of matrices: 0 is the main one, positive ones lie above it."""
    _check_matrices("diagonal", x)
    return _diagonal(x, offset=offset)


def diag(x: Tensor, /) -> Tensor:
    """Square matrices with x, which may be a stack of vectors, on the diagonal."""
    return from_diagonal(x, offset=0, shape=(*x.shape, x.shape[-1]))


def trace(x: Tensor, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """Sum of a diagonal of matrices."""
    return sum_over(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def _check_matrices(name: str, x: Tensor, square: bool = False) -> None:
    if x.ndim < 2 or (square and x.shape[-1] != x.shape[-2]):
        kind = "square matrices" if square else "matrices"
        raise ShapeError(
            f"{name}: takes {kind} in the last two axes, got shape {tuple(x.shape)}.",
            got=tuple(x.shape),
        )


@rounded_once
def matrix_power(x: Tensor, n: int, /) -> Tensor:
    """A square matrix multiplied with itself; a negative power inverts it first."""
    from .equations import inv

    _check_matrices("matrix_power", x, square=True)
    if n < 0:
        return matrix_power(inv(x), -n)
    if n == 0:
        return diag(zeros_of(x, shape=tuple(x.shape[:-1])) + 1)
    result = None
    while n:
        if n & 1:
            result = x if result is None else _matmul(result, x)
        n >>= 1
        if n:
            x = _matmul(x, x)
    assert result is not None
    return result

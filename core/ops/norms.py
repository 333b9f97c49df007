"""Norms of vectors and matrices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .. import dtypes
from ..errors import ConfigError
from ..op import op
from ..spelling import spelled
from .axes import Axis
from .decompositions import svdvals
from .elementwise import abs, where
from .linalg import _check_matrices
from .logic import not_equal
from .reduction import _spread, max, min, sum, total
from .shape import astype, expand_dims, reshape, rounded_once

if TYPE_CHECKING:
    from ..tensor import Tensor


@op(name="norm2", to_float=True)
def _norm2(xp: Any, x: Tensor, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    squares = xp.square(x.real) + xp.square(x.imag) if x.dtype.kind == "c" else xp.square(x)
    return xp.sqrt(total(xp, squares, axis, keepdims))


@_norm2.backward
def _(g, x, out, axis):
    scaled = reshape(g, out.shape) / where(out == 0, 1.0, out)
    return _spread(scaled, x.shape, axis) * x


@spelled
@rounded_once
def vector_norm(
    x: Tensor, /, *, axis: Axis = None, keepdims: bool = False, ord: float = 2
) -> Tensor:
    """The `ord`-norm over axes, all of them by default. Its gradient at 0 is 0.

    Args:
        ord: any number; inf and -inf give the largest and smallest modulus, 0 counts.
    """
    if ord == 2:
        return _norm2(x, axis=axis, keepdims=keepdims)
    if ord == 0:
        count = sum(not_equal(x, 0), axis=axis, keepdims=keepdims)
        return astype(count, dtype=_real_dtype(x))
    size = abs(x if x.dtype in dtypes.INEXACT else astype(x, dtype=dtypes.default_float))
    if ord == math.inf:
        return max(size, axis=axis, keepdims=keepdims)
    if ord == -math.inf:
        return min(size, axis=axis, keepdims=keepdims)
    if ord == 1:
        return sum(size, axis=axis, keepdims=keepdims)
    powers = sum(size**ord, axis=axis, keepdims=keepdims)
    flat = powers == 0
    return where(flat, 0.0, where(flat, 1.0, powers) ** (1 / ord))


def _real_dtype(x: Tensor) -> dtypes.DType:
    return dtypes.real_of(x.dtype) if x.dtype in dtypes.INEXACT else dtypes.default_float


@rounded_once
def matrix_norm(x: Tensor, /, *, keepdims: bool = False, ord: Any = "fro") -> Tensor:
    """A norm of matrices.

    Args:
        ord: "fro" (root of the sum of squares), "nuc" (sum of singular values), 2 and -2 (largest
            and smallest singular value), 1 and -1 (of column sums), inf and -inf (of row sums).
    """
    _check_matrices("matrix_norm", x)
    if ord == "fro":
        return _norm2(x, axis=(-2, -1), keepdims=keepdims)
    if ord in ("nuc", 2, -2):
        values = svdvals(x)
        reduce: Any = sum if ord == "nuc" else max if ord == 2 else min
        out = reduce(values, axis=-1)
    elif ord in (1, -1, math.inf, -math.inf):
        by_column = ord in (1, -1)
        sums = sum(abs(x), axis=-2 if by_column else -1)
        out = (max if ord > 0 else min)(sums, axis=-1)
    else:
        raise ConfigError(
            f"matrix_norm: ord is 'fro', 'nuc', 1, -1, 2, -2, inf or -inf; got {ord!r}", got=ord
        )
    return expand_dims(out, axis=(-2, -1)) if keepdims else out

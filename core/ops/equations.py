"""Inverses, linear equations and determinants of matrices, batched over leading axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import DataError, ShapeError
from ..op import op
from .elementwise import conj, imag, zeros_of
from .linalg import _check_matrices, _matmul
from .manipulation import broadcast_shapes
from .reduction import sum
from .shape import broadcast_to, expand_dims, matrix_transpose, reshape, squeeze

if TYPE_CHECKING:
    from ..tensor import Tensor


def adjoint(x: Any) -> Any:
    """Conjugate transpose."""
    return conj(matrix_transpose(x))


def _numbers(x: Any) -> Any:
    """One number for each matrix, to be multiplied with it."""
    return reshape(x, (*x.shape, 1, 1))


def explained(name: str, what: str) -> Any:
    """Errors of LAPACK, which names neither the function nor the remedy."""

    def explain(error: Exception, operands: Any, constants: Any) -> Exception | None:
        if type(error).__name__ == "LinAlgError":
            return DataError(
                f"{name}: {what} ({error}); shape {tuple(operands[0].shape)}.",
                shape=tuple(operands[0].shape),
            )
        return None

    return explain


@op(name="inv", to_float=True)
def _inv(xp: Any, x: Tensor) -> Tensor:
    return xp.linalg.inv(x)


@_inv.backward
def _(g, out):
    back = adjoint(out)
    return -_matmul(_matmul(back, g), back)


_inv.explains(explained("inv", "a matrix is singular; bt.linalg.pinv has no such limit"))


def inv(x: Tensor, /) -> Tensor:
    """The inverse of square matrices.

    Raises:
        DataError: a matrix is singular.
    """
    _check_matrices("inv", x, square=True)
    return _inv(x)


@op(name="solve", promote=True, to_float=True)
def _solve(xp: Any, a: Tensor, b: Tensor) -> Tensor:
    return xp.linalg.solve(a, b)


@_solve.backward
def _(g, a, out, needs):
    second = _solve(adjoint(a), g)
    return -_matmul(second, adjoint(out)) if needs[0] else None, second


_solve.explains(explained("solve", "a matrix is singular"))


def solve(x1: Tensor, x2: Tensor, /) -> Tensor:
    """x with `x1 @ x = x2`; x2 is a vector if it has one axis, else matrices.

    Raises:
        DataError: a matrix is singular.
    """
    _check_matrices("solve", x1, square=True)
    rows = x2.shape[-2] if x2.ndim > 1 else x2.shape[-1] if x2.ndim else None
    if rows != x1.shape[-1]:
        raise ShapeError(
            f"solve: x1 {tuple(x1.shape)} has {x1.shape[-1]} columns, x2 {tuple(x2.shape)} "
            f"{rows} rows.",
            expected=x1.shape[-1],
            got=rows,
        )
    right = expand_dims(x2, axis=-1) if x2.ndim == 1 else x2
    if right.ndim < x1.ndim:  # else a stack of matrices could be taken for a stack of vectors
        right = reshape(right, (*(1,) * (x1.ndim - right.ndim), *right.shape))
    batch = broadcast_shapes(x1.shape[:-2], right.shape[:-2])
    left = x1 if x1.shape[:-2] == batch else broadcast_to(x1, (*batch, *x1.shape[-2:]))
    if right.shape[:-2] != batch:
        right = broadcast_to(right, (*batch, *right.shape[-2:]))
    out: Tensor = _solve(left, right)
    return squeeze(out, -1) if x2.ndim == 1 else out


@op(name="det", to_float=True)
def _det(xp: Any, x: Tensor) -> Tensor:
    return xp.linalg.det(x)


@_det.backward
def _(g, x):
    return _numbers(g) * adjoint(adjugate(x))


@op
def adjugate(xp: Any, x: Tensor) -> Tensor:
    """The determinant times the inverse, which exists for singular matrices too."""
    u, s, vh = xp.linalg.svd(x)
    n = x.shape[-1]
    others = xp.stack([xp.prod(xp.delete(s, i, axis=-1), axis=-1) for i in range(n)], axis=-1)
    sign = xp.linalg.det(u) * xp.linalg.det(vh)
    inner = xp.conj(xp.swapaxes(vh, -1, -2)) * others[..., None, :]
    return sign[..., None, None] * xp.matmul(inner, xp.conj(xp.swapaxes(u, -1, -2)))


@adjugate.backward
def _(g, x, out):
    # Of det(x) inv(x): only matrices that are not singular have this second derivative here.
    inverse, scale = _inv(x), _numbers(_det(x))
    through_det = _numbers(sum(conj(inverse) * g, axis=(-2, -1))) * adjoint(out)
    back = adjoint(inverse)
    return through_det - _matmul(_matmul(back, conj(scale) * g), back)


def det(x: Tensor, /) -> Tensor:
    """The determinant of square matrices."""
    _check_matrices("det", x, square=True)
    return _det(x)


class SlogdetResult(NamedTuple):
    """A determinant as its sign (or phase) and the logarithm of its modulus."""

    sign: Tensor
    logabsdet: Tensor


@op(name="slogdet", outputs=2, to_float=True)
def _slogdet(xp: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    sign, logabsdet = xp.linalg.slogdet(x)
    return sign, logabsdet


@_slogdet.backward
def _(g, x, out):
    factor = 0.0 if g[1] is None else g[1]
    if x.dtype.kind == "c" and g[0] is not None:
        factor = factor - imag(conj(g[0]) * out[0]) * 1j
    elif g[1] is None:
        return zeros_of(x)
    return _numbers(factor) * adjoint(_inv(x))


def slogdet(x: Tensor, /) -> SlogdetResult:
    """Sign and log-modulus of the determinant, which cannot overflow."""
    _check_matrices("slogdet", x, square=True)
    return SlogdetResult(*_slogdet(x))

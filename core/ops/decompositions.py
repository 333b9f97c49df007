"""Determinants, inverses, equations and factorisations of matrices, batched over leading axes.

Gradients that divide by differences of eigenvalues or singular values are not defined where two
of them are equal; those of a factorisation hold for losses that do not depend on its freedom of
sign or phase.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import dtypes
from ..errors import ConfigError, DataError, GradError, ShapeError
from ..op import op
from .elementwise import conj, imag, real, where, zeros_of
from .linalg import _check_matrices, _matmul, diag, diagonal
from .logic import greater
from .manipulation import broadcast_shapes, tril, triu
from .reduction import max, sum
from .shape import broadcast_to, concat, expand_dims, matrix_transpose, reshape, squeeze

if TYPE_CHECKING:
    from ..tensor import Tensor


def _h(x: Any) -> Any:
    """Conjugate transpose."""
    return conj(matrix_transpose(x))


def _column(x: Any) -> Any:
    return expand_dims(x, axis=-1)


def _row(x: Any) -> Any:
    return expand_dims(x, axis=-2)


def _numbers(x: Any) -> Any:
    """One number for each matrix, to be multiplied with it."""
    return reshape(x, (*x.shape, 1, 1))


def _explained(name: str, what: str) -> Any:
    """Errors of LAPACK, which names neither the function nor the remedy."""

    def explain(error: Exception, operands: Any, constants: Any) -> Exception | None:
        if type(error).__name__ == "LinAlgError":
            return DataError(
                f"{name}: {what} ({error}); shape {tuple(operands[0].shape)}.",
                shape=tuple(operands[0].shape),
            )
        return None

    return explain


# -- inverse, equations, determinants ----------------------------------------------------------


@op(name="inv", to_float=True)
def _inv(xp: Any, x: Tensor) -> Tensor:
    return xp.linalg.inv(x)


@_inv.backward
def _(g, out):
    back = _h(out)
    return -_matmul(_matmul(back, g), back)


_inv.explains(_explained("inv", "a matrix is singular; bt.linalg.pinv has no such limit"))


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
    second = _solve(_h(a), g)
    return -_matmul(second, _h(out)) if needs[0] else None, second


_solve.explains(_explained("solve", "a matrix is singular"))


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
    return _numbers(g) * _h(adjugate(x))


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
    through_det = _numbers(sum(conj(inverse) * g, axis=(-2, -1))) * _h(out)
    back = _h(inverse)
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
    return _numbers(factor) * _h(_inv(x))


def slogdet(x: Tensor, /) -> SlogdetResult:
    """Sign and log-modulus of the determinant, which cannot overflow."""
    _check_matrices("slogdet", x, square=True)
    return SlogdetResult(*_slogdet(x))


# -- factorisations ----------------------------------------------------------------------------


@op(name="cholesky", to_float=True)
def _cholesky(xp: Any, x: Tensor) -> Tensor:
    return xp.linalg.cholesky(x)


@_cholesky.backward
def _(g, out):
    # Murray 2016, "Differentiation of the Cholesky decomposition", equation 10.
    inner = tril(_matmul(_h(out), g))
    inner = inner - 0.5 * diag(diagonal(inner))
    back = _h(out)
    full = _h(_solve(back, _h(_solve(back, inner))))
    return 0.5 * (full + _h(full))


_cholesky.explains(
    _explained("cholesky", "a matrix is not positive definite; add a little to its diagonal")
)


def cholesky(x: Tensor, /, *, upper: bool = False) -> Tensor:
    """The triangular factor L of symmetric positive definite matrices, `L @ L.mT`.

    Args:
        upper: return its (conjugate) transpose.

    Raises:
        DataError: a matrix is not positive definite.
    """
    _check_matrices("cholesky", x, square=True)
    lower: Tensor = _cholesky(x)
    return _h(lower) if upper else lower


class QRResult(NamedTuple):
    """Orthonormal Q and upper triangular R."""

    Q: Tensor
    R: Tensor


@op(name="qr", outputs=2, to_float=True)
def _qr(xp: Any, x: Tensor, *, mode: str) -> tuple[Tensor, Tensor]:
    q, r = xp.linalg.qr(x, mode=mode)
    return q, r


@_qr.backward
def _(g, out, shapes, mode):
    # Walter & Lehmann 2018; wide matrices [X | Y] through R = [U | V] with X = Q U, V = Q^H Y.
    q, r = out
    rows, columns = shapes[0][-2:]
    if mode == "complete" and rows > columns:
        raise GradError(
            "the complete QR of a tall matrix has no gradient: part of Q is arbitrary.\n"
            'Use bt.linalg.qr(x, mode="reduced")'
        )
    gq = zeros_of(q) if g[0] is None else g[0]
    gr = zeros_of(r) if g[1] is None else g[1]
    if rows >= columns:
        return _qr_square(gq, gr, q, r)
    gu, gv, u = gr[..., :rows], gr[..., rows:], r[..., :rows]
    y = _matmul(q, r[..., rows:])
    gx = _qr_square(gq + _matmul(y, _h(gv)), gu, q, u)
    return concat([gx, _matmul(q, gv)], axis=-1)


def _qr_square(gq: Any, gr: Any, q: Any, r: Any) -> Any:
    inner = triu(_matmul(gr, _h(r)) - _matmul(_h(q), gq))
    both = inner + _h(inner) - diag(real(diagonal(inner)))
    return _h(_solve(r, _h(gq + _matmul(q, both))))


def qr(x: Tensor, /, *, mode: str = "reduced") -> QRResult:
    """`x = Q @ R`.

    Args:
        mode: "reduced", or "complete" for a square Q.
    """
    if mode not in ("reduced", "complete"):
        raise ConfigError(f"qr: mode is 'reduced' or 'complete', got {mode!r}", got=mode)
    _check_matrices("qr", x)
    return QRResult(*_qr(x, mode=mode))


class EighResult(NamedTuple):
    """Eigenvalues in rising order and eigenvectors in columns."""

    eigenvalues: Tensor
    eigenvectors: Tensor


@op(name="eigh", outputs=2, to_float=True)
def _eigh(xp: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = xp.linalg.eigh(x)
    return values, vectors


@_eigh.backward
def _(g, out):
    values, vectors = out
    inner = None if g[0] is None else diag(g[0])
    if g[1] is not None:
        rotation = _matmul(_h(vectors), g[1]) * _differences(values)
        inner = rotation if inner is None else inner + rotation
    return _matmul(_matmul(vectors, inner), _h(vectors))


def _differences(values: Any) -> Any:
    """1 / (v[j] - v[i]), and 0 on the diagonal."""
    gaps = _row(values) - _column(values)
    same = diag(zeros_of(values) + 1) == 1
    return where(same, 0.0, 1 / where(same, 1.0, gaps))


def eigh(x: Tensor, /) -> EighResult:
    """Eigenvalues and eigenvectors of symmetric (Hermitian) matrices; reads the lower triangle."""
    _check_matrices("eigh", x, square=True)
    return EighResult(*_eigh(x))


@op(name="eigvalsh", to_float=True)
def _eigvalsh(xp: Any, x: Tensor) -> Tensor:
    return xp.linalg.eigvalsh(x)


@_eigvalsh.backward
def _(g, x):
    vectors = _eigh(x)[1]
    return _matmul(vectors * _row(g), _h(vectors))


def eigvalsh(x: Tensor, /) -> Tensor:
    """Eigenvalues of symmetric (Hermitian) matrices in rising order."""
    _check_matrices("eigvalsh", x, square=True)
    return _eigvalsh(x)


class SVDResult(NamedTuple):
    """`x = (U * S) @ Vh`, singular values falling."""

    U: Tensor
    S: Tensor
    Vh: Tensor


@op(name="svd", outputs=3, to_float=True)
def _svd(xp: Any, x: Tensor, *, full_matrices: bool) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vh = xp.linalg.svd(x, full_matrices=full_matrices)
    return u, s, vh


@_svd.backward
def _(g, out, shapes, full_matrices):
    # Townsend 2016, "Differentiating the singular value decomposition"; the last term of the
    # diagonal fixes the phase of complex vectors.
    u, s, vh = out
    gu, gs, gvh = g
    rows, columns = shapes[0][-2:]
    if full_matrices and rows != columns and not (gu is None and gvh is None):
        raise GradError(
            "the full singular vectors have no gradient: part of them is arbitrary.\n"
            "Use bt.linalg.svd(x, full_matrices=False)"
        )
    if full_matrices:
        u, vh = u[..., : s.shape[-1]], vh[..., : s.shape[-1], :]
    inner = None if gs is None else diag(gs)
    if gu is None and gvh is None:
        return _matmul(_matmul(u, inner), vh)
    v = _h(vh)
    gaps = _differences(s * s)
    if gu is not None:
        first = _skew(_matmul(_h(u), gu))
        turn = first * gaps * _row(s)
        if u.dtype.kind == "c":
            turn = turn + diag(0.5 * diagonal(first) / s)
        inner = turn if inner is None else inner + turn
    if gvh is not None:
        turn = _column(s) * _skew(_matmul(vh, _h(gvh))) * gaps
        inner = turn if inner is None else inner + turn
    if rows > columns and gu is not None:
        outside = (gu - _matmul(u, _matmul(_h(u), gu))) / _row(s)
        return _matmul(_matmul(u, inner) + outside, vh)
    result = _matmul(_matmul(u, inner), vh)
    if rows < columns and gvh is not None:
        outside = (gvh - _matmul(_matmul(gvh, v), vh)) / _column(s)
        result = result + _matmul(u, outside)
    return result


def _skew(x: Any) -> Any:
    return x - _h(x)


def svd(x: Tensor, /, *, full_matrices: bool = True) -> SVDResult:
    """Singular value decomposition.

    Args:
        full_matrices: square U and Vh; only the reduced ones have gradients.
    """
    _check_matrices("svd", x)
    return SVDResult(*_svd(x, full_matrices=full_matrices))


@op(name="svdvals", to_float=True)
def _svdvals(xp: Any, x: Tensor) -> Tensor:
    return xp.linalg.svd(x, compute_uv=False)


@_svdvals.backward
def _(g, x):
    u, _, vh = _svd(x, full_matrices=False)
    return _matmul(u * _row(g), vh)


def svdvals(x: Tensor, /) -> Tensor:
    """Singular values, falling."""
    _check_matrices("svdvals", x)
    return _svdvals(x)


# -- rank and pseudo-inverse -------------------------------------------------------------------


def _tolerance(x: Tensor, rtol: Any) -> Any:
    if rtol is not None:
        return rtol
    kind = dtypes.widened(x.dtype) if x.dtype in dtypes.INEXACT else dtypes.default_float
    longest = x.shape[-1] if x.shape[-1] > x.shape[-2] else x.shape[-2]
    return longest * float(np.finfo(kind).eps)


def matrix_rank(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """How many singular values are above `rtol` times the largest.

    Args:
        rtol: defaults to the larger side times the dtype's precision.
    """
    _check_matrices("matrix_rank", x)
    values: Tensor = _svdvals(x)
    if 0 in x.shape[-2:]:
        return sum(greater(values, 0), axis=-1)
    bound = max(values, axis=-1) * _tolerance(x, rtol)
    return sum(greater(values, _column(bound)), axis=-1)


@op(name="pinv", to_float=True)
def _pinv(xp: Any, x: Tensor, rtol: Tensor) -> Tensor:
    return xp.linalg.pinv(x, rtol)


@_pinv.backward
def _(g, x, out):
    # Golub & Pereyra 1973, for matrices of constant rank.
    back = _h(out)
    gh = _h(g)
    first = -_matmul(_matmul(back, g), back)
    left = _matmul(gh, _matmul(out, back))
    left = left - _matmul(x, _matmul(out, left))
    right = _matmul(_matmul(back, out), gh)
    right = right - _matmul(_matmul(right, out), x)
    return first + left + right, None


def pinv(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """The Moore-Penrose pseudo-inverse.

    Args:
        rtol: singular values below it, times the largest, count as 0; defaults to the larger
            side times the dtype's precision.
    """
    _check_matrices("pinv", x)
    return _pinv(x, _tolerance(x, rtol))

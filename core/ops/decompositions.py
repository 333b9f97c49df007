"""Factorisations of matrices, batched over leading axes, and what singular values tell.

Gradients that divide by differences of eigenvalues or singular values are not defined where two
of them are equal; those of a factorisation hold for losses that do not depend on its freedom of
sign or phase.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import dtypes
from ..errors import ConfigError, GradError
from ..op import op
from .elementwise import real, where, zeros_of
from .equations import _solve, adjoint, explained
from .linalg import _check_matrices, _matmul, diag, diagonal
from .logic import greater
from .manipulation import tril, triu
from .reduction import max, sum
from .shape import concat, expand_dims

if TYPE_CHECKING:
    from ..tensor import Tensor


def _column(x: Any) -> Any:
    return expand_dims(x, axis=-1)


def _row(x: Any) -> Any:
    return expand_dims(x, axis=-2)


@op(name="cholesky", to_float=True)
def _cholesky(xp: Any, x: Tensor) -> Tensor:
    return xp.linalg.cholesky(x)


@_cholesky.backward
def _(g, out):
    # Murray 2016, "Differentiation of the Cholesky decomposition", equation 10.
    inner = tril(_matmul(adjoint(out), g))
    inner = inner - 0.5 * diag(diagonal(inner))
    back = adjoint(out)
    full = adjoint(_solve(back, adjoint(_solve(back, inner))))
    return 0.5 * (full + adjoint(full))


_cholesky.explains(
    explained("cholesky", "a matrix is not positive definite; add a little to its diagonal")
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
    return adjoint(lower) if upper else lower


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
    gx = _qr_square(gq + _matmul(y, adjoint(gv)), gu, q, u)
    return concat([gx, _matmul(q, gv)], axis=-1)


def _qr_square(gq: Any, gr: Any, q: Any, r: Any) -> Any:
    inner = triu(_matmul(gr, adjoint(r)) - _matmul(adjoint(q), gq))
    both = inner + adjoint(inner) - diag(real(diagonal(inner)))
    return adjoint(_solve(r, adjoint(gq + _matmul(q, both))))


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
        rotation = _matmul(adjoint(vectors), g[1]) * _differences(values)
        inner = rotation if inner is None else inner + rotation
    return _matmul(_matmul(vectors, inner), adjoint(vectors))


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
    return _matmul(vectors * _row(g), adjoint(vectors))


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
    v = adjoint(vh)
    gaps = _differences(s * s)
    if gu is not None:
        first = _skew(_matmul(adjoint(u), gu))
        turn = first * gaps * _row(s)
        if u.dtype.kind == "c":
            turn = turn + diag(0.5 * diagonal(first) / s)
        inner = turn if inner is None else inner + turn
    if gvh is not None:
        turn = _column(s) * _skew(_matmul(vh, adjoint(gvh))) * gaps
        inner = turn if inner is None else inner + turn
    if rows > columns and gu is not None:
        outside = (gu - _matmul(u, _matmul(adjoint(u), gu))) / _row(s)
        return _matmul(_matmul(u, inner) + outside, vh)
    result = _matmul(_matmul(u, inner), vh)
    if rows < columns and gvh is not None:
        outside = (gvh - _matmul(_matmul(gvh, v), vh)) / _column(s)
        result = result + _matmul(u, outside)
    return result


def _skew(x: Any) -> Any:
    return x - adjoint(x)


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
    back = adjoint(out)
    gh = adjoint(g)
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

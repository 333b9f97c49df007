"""Rows of core/ops/linalg.py, einsum.py, equations.py, decompositions.py, norms.py and fft.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rows import Row, Sample, sample, uniform

import bestiary as bt
from bestiary.errors import ConfigError, DataError, GradError, ShapeError

FULL = ("float32", "float64")
linalg, fft = bt.linalg, bt.fft


def of(*calls: tuple[Any, dict[str, Any]]) -> Callable[..., Any]:
    """Samples of one tensor each: pairs (shape, constants)."""

    def samples(rng: np.random.Generator) -> list[Sample]:
        return [sample(uniform(rng, size), **constants) for size, constants in calls]

    return samples


def products(*pairs: tuple[Any, Any], **constants: Any) -> Callable[..., Any]:
    def samples(rng: np.random.Generator) -> list[Sample]:
        return [sample(uniform(rng, a), uniform(rng, b), **constants) for a, b in pairs]

    return samples


def _regular(rng: np.random.Generator, shape: Any) -> Any:
    """Matrices far from singular."""
    return uniform(rng, shape, -1, 1) + 2.5 * np.eye(shape[-2], shape[-1])


def regular(*shapes: Any) -> Callable[..., Any]:
    return lambda rng: [sample(_regular(rng, shape)) for shape in shapes]


def _symmetric(x: bt.Tensor) -> bt.Tensor:
    return x + bt.conj(x.mT)


def _positive(x: bt.Tensor) -> bt.Tensor:
    return x @ bt.conj(x.mT) + bt.linalg.matrix_power(x, 0) * 2


def _positive_array(x: Any) -> Any:
    return x @ np.swapaxes(x.conj(), -1, -2) + 2 * np.eye(x.shape[-1])


def _equations(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(_regular(rng, (3, 3)), uniform(rng, (3,))),
        sample(_regular(rng, (3, 3)), uniform(rng, (3, 2))),
        sample(_regular(rng, (2, 3, 3)), uniform(rng, (3, 2))),
        sample(_regular(rng, (3, 3)), uniform(rng, (2, 3, 1))),
        sample(_regular(rng, (1, 1)), uniform(rng, (1,))),
        sample(_regular(rng, (0, 2, 2)), uniform(rng, (2,))),
    ]


def _solve_reference(a: Any, b: Any) -> Any:
    return np.linalg.solve(a, b[:, None])[..., 0] if b.ndim == 1 else np.linalg.solve(a, b)


def _rebuilt_qr(x: bt.Tensor, mode: str = "reduced") -> Any:
    q, r = linalg.qr(x, mode=mode)
    return q @ r, q, r


def _qr_reference(x: Any, mode: str = "reduced") -> Any:
    q, r = np.linalg.qr(x, mode=mode)
    return x, q, r


def _eigh(x: bt.Tensor) -> Any:
    """What does not depend on the phase of eigenvectors."""
    values, vectors = linalg.eigh(_symmetric(x))
    rebuilt = (vectors * bt.expand_dims(values, axis=-2)) @ bt.conj(vectors.mT)
    return values, bt.abs(vectors), rebuilt


def _eigh_reference(x: Any) -> Any:
    x = x + np.swapaxes(x.conj(), -1, -2)
    values, vectors = np.linalg.eigh(x)
    return values, np.abs(vectors), x


def _svd(x: bt.Tensor, full_matrices: bool = False) -> Any:
    u, s, vh = linalg.svd(x, full_matrices=full_matrices)
    k = s.shape[-1]
    rebuilt = (u[..., :k] * bt.expand_dims(s * s, axis=-2)) @ vh[..., :k, :]
    return s, bt.abs(u), bt.abs(vh), rebuilt


def _svd_reference(x: Any, full_matrices: bool = False) -> Any:
    u, s, vh = np.linalg.svd(x, full_matrices=full_matrices)
    k = s.shape[-1]
    rebuilt = (u[..., :k] * (s * s)[..., None, :]) @ vh[..., :k, :]
    return s, np.abs(u), np.abs(vh), rebuilt


def _adjugate_of_singular() -> None:
    x = bt.asarray([[1.0, 2.0], [2.0, 4.0]], dtype=bt.float64).requires_grad_()
    linalg.det(x).backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.tolist(), [[4.0, -2.0], [-2.0, 1.0]], atol=1e-12)
    raise AssertionError("as expected")


def _full_svd_gradient() -> None:
    x = bt.ones((2, 3), dtype=bt.float64).requires_grad_()
    linalg.svd(x).U.sum().backward()


def _einsum(*xs: Any, subscripts: str) -> Any:
    return bt.einsum(subscripts, *xs)


def _sums(rng: np.random.Generator) -> list[Sample]:
    calls = [
        ("ij,jk->ik", ((2, 3), (3, 4))),
        ("bij,bkj->bik", ((2, 3, 4), (2, 5, 4))),
        ("...ij,...jk", ((2, 2, 3), (3, 4))),
        ("ii->i", ((3, 3),)),
        ("iji", ((2, 3, 2),)),
        ("ij,ij->", ((2, 3), (2, 3))),
        ("i,j->ji", ((2,), (3,))),
        ("ij,jk,kl->il", ((2, 3), (3, 2), (2, 4))),
        ("b...,b...->b...", ((2, 3, 1), (2, 3, 4))),
        ("ij->ji", ((2, 3),)),
        ("ij,jk->ik", ((0, 3), (3, 2))),
        (",i->i", ((), (2,))),
    ]
    return [sample(*[uniform(rng, s) for s in shapes], subscripts=sub) for sub, shapes in calls]


def _matrix_norm_samples(rng: np.random.Generator) -> list[Sample]:
    x = uniform(rng, (2, 3, 4))
    orders = ("fro", "nuc", 1, -1, 2, -2, float("inf"), -float("inf"))
    return [sample(x, ord=o) for o in orders] + [sample(x, keepdims=True)]


def _vector_norm_samples(rng: np.random.Generator) -> list[Sample]:
    x = uniform(rng, (2, 3, 4), 0.3, 2) * rng.choice([-1, 1], (2, 3, 4))
    return [
        *[sample(x, ord=o, axis=1) for o in (1, 2, 3, 0.5, -1, float("inf"), -float("inf"))],
        sample(x, axis=(0, 2), keepdims=True),
        sample(x),
        sample(uniform(rng, ())),
        sample(np.zeros((0, 2)), axis=0),
    ]


def _vector_norm_reference(x: Any, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    return np.linalg.vector_norm(x, axis=axis, keepdims=keepdims, ord=ord)


def _norm_at_zero() -> None:
    x = bt.zeros((2, 3), dtype=bt.float64).requires_grad_()
    for order in (1, 2, 3):
        g = bt.grad(linalg.vector_norm(x, ord=order), x)
        assert g.tolist() == [[0.0] * 3] * 2
    raise AssertionError("as expected")


def _spectrum(rng: np.random.Generator, shape: Any) -> Any:
    return np.asarray(uniform(rng, shape) + 1j * uniform(rng, shape))


def spectra(*calls: tuple[Any, dict[str, Any]]) -> Callable[..., Any]:
    def samples(rng: np.random.Generator) -> list[Sample]:
        return [sample(_spectrum(rng, size), **constants) for size, constants in calls]

    return samples


def _both(*calls: tuple[Any, dict[str, Any]]) -> Callable[..., Any]:
    return lambda rng: [*of(*calls)(rng), *spectra(*calls)(rng)]


ONE_AXIS = (
    ((2, 5), {}),
    ((2, 5), {"n": 4, "axis": 1, "norm": "ortho"}),
    ((4, 2), {"n": 6, "axis": 0, "norm": "forward"}),
    ((1,), {}),
)
ALL_AXES: tuple[tuple[Any, dict[str, Any]], ...] = (
    ((2, 3), {}),
    ((2, 3, 2), {"axes": (0, 2), "norm": "ortho"}),
    ((2, 3), {"s": (3, 2), "axes": (0, 1), "norm": "forward"}),
)
FOURIER: dict[str, Any] = {"dtypes": FULL, "rtol": 1e-6}

ROWS = [
    Row(
        bt.matmul,
        products(
            ((2, 3), (3, 4)),
            ((2, 2, 3), (3, 4)),
            ((2, 3), (2, 3, 4)),
            ((2, 1, 2, 3), (3, 3, 2)),
            ((3,), (3,)),
            ((3,), (2, 3, 4)),
            ((2, 2, 3), (3,)),
            ((0, 3), (3, 2)),
            ((2, 0), (0, 3)),
            ((1, 1), (1, 1)),
        ),
        reference=np.matmul,
        complex=True,
        errors=(
            (lambda: bt.matmul(bt.ones((2, 3)), bt.ones((4, 5))), ShapeError, ">3<"),
            (lambda: bt.ones((2, 3)) @ bt.ones((2, 3)), ShapeError, "mT"),
            (lambda: bt.matmul(bt.ones(()), bt.ones(2)), ShapeError, r"\*"),
        ),
    ),
    Row(
        bt.tensordot,
        lambda rng: [
            sample(uniform(rng, (2, 3, 4)), uniform(rng, (3, 4, 2))),
            sample(uniform(rng, (2, 3)), uniform(rng, (4, 3)), axes=((1,), (1,))),
            sample(uniform(rng, (2,)), uniform(rng, (3,)), axes=0),
            sample(uniform(rng, (2, 3, 4)), uniform(rng, (4, 2)), axes=((0, -1), (1, 0))),
        ],
        reference=np.tensordot,
        complex=True,
        errors=((lambda: bt.tensordot(bt.ones((2, 3)), bt.ones(2), axes=1), ShapeError, "differ"),),
    ),
    Row(
        bt.vecdot,
        products(((2, 3), (2, 3)), ((3,), (2, 3)), ((2, 0), (2, 0))),
        reference=lambda a, b, axis=-1: np.sum(a.conj() * b, axis=axis),
        complex=True,
        errors=((lambda: bt.vecdot(bt.ones(2), bt.ones(3)), ShapeError, "2 and 3"),),
    ),
    Row(
        bt.outer,
        products(((2,), (3,)), ((0,), (2,))),
        reference=np.outer,
        errors=((lambda: bt.outer(bt.ones((2, 2)), bt.ones(2)), ShapeError, "vectors"),),
    ),
    Row(
        linalg.cross,
        products(((2, 3), (2, 3)), ((3,), (2, 3))),
        reference=np.cross,
        errors=((lambda: linalg.cross(bt.ones(2), bt.ones(2)), ShapeError, "3 elements"),),
    ),
    Row(
        _einsum,
        _sums,
        name="einsum",
        reference=lambda *xs, subscripts: np.einsum(subscripts, *xs),
        complex=True,
        errors=(
            (lambda: bt.einsum("ij,jk->ik", bt.ones((2, 3))), ConfigError, "2 terms for 1"),
            (lambda: bt.einsum("i", bt.ones((2, 3))), ConfigError, "2 axes"),
            (lambda: bt.einsum("i->j", bt.ones(2)), ConfigError, "'j'"),
            (lambda: bt.einsum("i,i", bt.ones(2), bt.ones(3)), ShapeError, "size 2 and size 3"),
            (lambda: bt.einsum("1,i", bt.ones(2), bt.ones(3)), ConfigError, "letters"),
        ),
    ),
    Row(
        linalg.diagonal,
        of(
            ((3, 3), {}),
            ((2, 3, 4), {"offset": 1}),
            ((3, 2), {"offset": -1}),
            ((2, 2), {"offset": 5}),
        ),
        reference=lambda x, offset=0: np.diagonal(x, offset, -2, -1),
        covers=("from_diagonal",),
        view=True,
        errors=((lambda: linalg.diagonal(bt.ones(2)), ShapeError, "matrices"),),
    ),
    Row(
        bt.diag,
        of(((3,), {}), ((2, 2), {})),
        reference=lambda x: x[..., None] * np.eye(x.shape[-1]),
    ),
    Row(
        bt.trace,
        of(((3, 3), {}), ((2, 3, 4), {"offset": 1})),
        reference=lambda x, offset=0: np.trace(x, offset, -2, -1),
    ),
    Row(
        lambda x, n: linalg.matrix_power(x, n),
        lambda rng: [sample(_regular(rng, (2, 3, 3)), n=n) for n in (0, 1, 3, 4, -2)],
        name="matrix_power",
        reference=np.linalg.matrix_power,
        half_ulp=None,
        dtypes=FULL,
        errors=((lambda: linalg.matrix_power(bt.ones((2, 3)), 2), ShapeError, "square"),),
    ),
    # -- decompositions --
    Row(
        linalg.inv,
        regular((3, 3), (2, 2, 2), (1, 1), (0, 2, 2)),
        reference=np.linalg.inv,
        complex=True,
        errors=(
            (lambda: linalg.inv(bt.zeros((2, 2))), DataError, "singular"),
            (lambda: linalg.inv(bt.zeros((2, 3))), ShapeError, "square"),
        ),
    ),
    Row(
        linalg.solve,
        _equations,
        reference=_solve_reference,
        complex=True,
        errors=(
            (lambda: linalg.solve(bt.zeros((2, 2)), bt.ones(2)), DataError, "singular"),
            (lambda: linalg.solve(bt.ones((2, 2)), bt.ones(3)), ShapeError, "3 rows"),
        ),
    ),
    Row(
        linalg.det,
        regular((3, 3), (2, 2, 2), (1, 1)),
        reference=np.linalg.det,
        covers=("adjugate",),
        complex=True,
        errors=((_adjugate_of_singular, AssertionError, "expected"),),
    ),
    Row(
        linalg.slogdet,
        regular((3, 3), (2, 2, 2)),
        reference=np.linalg.slogdet,
        complex=True,
    ),
    Row(
        lambda x, upper=False: linalg.cholesky(_positive(x), upper=upper),
        of(((3, 3), {}), ((2, 2, 2), {"upper": True}), ((1, 1), {})),
        name="cholesky",
        reference=lambda x, upper=False: np.linalg.cholesky(_positive_array(x), upper=upper),
        complex=True,
        half_ulp=None,
        dtypes=FULL,
        errors=((lambda: linalg.cholesky(-bt.eye(2)), DataError, "positive definite"),),
    ),
    Row(
        _rebuilt_qr,
        lambda rng: [
            sample(_regular(rng, (4, 3))),
            sample(_regular(rng, (2, 3, 3))),
            sample(_regular(rng, (3, 5))),
            sample(_regular(rng, (3, 5)), mode="complete"),
        ],
        name="qr",
        reference=_qr_reference,
        complex=True,
        half_ulp=None,
        errors=(
            (lambda: linalg.qr(bt.ones((2, 2)), mode="r"), ConfigError, "'complete'"),
            (
                lambda: (
                    linalg.qr(bt.ones((3, 2)).requires_grad_(), mode="complete").Q.sum().backward()
                ),
                GradError,
                "reduced",
            ),
        ),
    ),
    Row(
        _eigh,
        of(((3, 3), {}), ((2, 2, 2), {})),
        name="eigh",
        reference=_eigh_reference,
        complex=True,
        half_ulp=None,
    ),
    Row(
        lambda x: linalg.eigvalsh(_symmetric(x)),
        of(((3, 3), {}), ((2, 2, 2), {})),
        name="eigvalsh",
        reference=lambda x: np.linalg.eigvalsh(x + np.swapaxes(x, -1, -2)),
        complex=True,
        half_ulp=None,
    ),
    Row(
        _svd,
        of(((4, 3), {}), ((3, 4), {}), ((2, 3, 3), {"full_matrices": True}), ((1, 3), {})),
        name="svd",
        reference=_svd_reference,
        complex=True,
        half_ulp=None,
        errors=((_full_svd_gradient, GradError, "full_matrices=False"),),
    ),
    Row(
        linalg.svdvals,
        of(((4, 3), {}), ((2, 2, 3), {})),
        reference=lambda x: np.linalg.svd(x, compute_uv=False),
        complex=True,
    ),
    Row(
        linalg.pinv,
        of(((4, 3), {}), ((2, 2, 3), {}), ((2, 2), {})),
        reference=np.linalg.pinv,
        complex=True,
        rtol=1e-8,
    ),
    Row(
        linalg.matrix_rank,
        lambda rng: [
            sample(uniform(rng, (3, 4))),
            sample(np.ones((2, 3, 3))),
            sample(np.diag([1.0, 1e-3, 0.0]), rtol=1e-2),
        ],
        reference=lambda x, rtol=None: np.linalg.matrix_rank(x, rtol=rtol),
        order=0,
    ),
    Row(
        linalg.matrix_norm,
        _matrix_norm_samples,
        reference=lambda x, keepdims=False, ord="fro": np.linalg.norm(
            x, ord=ord, axis=(-2, -1), keepdims=keepdims
        ),
        errors=((lambda: linalg.matrix_norm(bt.ones((2, 2)), ord=3), ConfigError, "'fro'"),),
    ),
    Row(
        linalg.vector_norm,
        _vector_norm_samples,
        reference=_vector_norm_reference,
        covers=("norm2",),
        complex=True,
        errors=(
            (_norm_at_zero, AssertionError, "expected"),
            (lambda: linalg.vector_norm(bt.ones(2), dim=0), TypeError, "axis="),
        ),
    ),
    # -- transforms --
    Row(fft.fft, _both(*ONE_AXIS), reference=np.fft.fft, **FOURIER),
    Row(fft.ifft, _both(*ONE_AXIS), reference=np.fft.ifft, name="ifft", **FOURIER),
    Row(fft.fftn, _both(*ALL_AXES), reference=np.fft.fftn, **FOURIER),
    Row(fft.ifftn, _both(*ALL_AXES), reference=np.fft.ifftn, **FOURIER),
    Row(
        fft.rfft,
        of(*ONE_AXIS),
        reference=np.fft.rfft,
        errors=(
            (lambda: fft.rfft(bt.ones(2, dtype=bt.complex64)), ConfigError, "real"),
            (lambda: fft.fft(bt.ones(2), norm="both"), ConfigError, "ortho"),
            (lambda: fft.fft(bt.ones(2), n=0), ShapeError, "at least one"),
            (lambda: fft.fft(bt.ones(2), dim=0), TypeError, "axis="),
        ),
        **FOURIER,
    ),
    Row(
        fft.irfft,
        spectra(
            ((2, 4), {}),
            ((2, 4), {"n": 7, "norm": "ortho"}),
            ((3, 2), {"n": 3, "axis": 0, "norm": "forward"}),
            ((4,), {"n": 1}),
        ),
        reference=np.fft.irfft,
        **FOURIER,
    ),
    Row(fft.rfftn, of(*ALL_AXES), reference=np.fft.rfftn, **FOURIER),
    Row(
        fft.irfftn,
        spectra(((2, 3), {}), ((2, 3), {"s": (2, 5), "axes": (0, 1), "norm": "ortho"})),
        reference=np.fft.irfftn,
        **FOURIER,
    ),
    Row(
        fft.hfft,
        spectra(((2, 4), {}), ((4,), {"n": 5, "norm": "forward"})),
        reference=np.fft.hfft,
        **FOURIER,
    ),
    Row(fft.ihfft, of(((2, 4), {}), ((5,), {"norm": "ortho"})), reference=np.fft.ihfft, **FOURIER),
    Row(
        fft.fftshift,
        of(((4,), {}), ((3, 4), {"axes": 1})),
        reference=np.fft.fftshift,
    ),
    Row(fft.ifftshift, of(((5,), {}), ((3, 4), {"axes": (0, 1)})), reference=np.fft.ifftshift),
]

"""The cases of ops.py, as expressions: read by the script that needs torch and by the test.

Each is a function of B (torch's functions behind our spelling, or bestiary) and of its inputs,
with the inputs' shapes. A shape may have a kind before it: "+" positive numbers, "u" numbers
between -0.8 and 0.8, "d" numbers far from each other, "z" complex numbers, "m" matrices far from
singular; "b" booleans and "i5" whole numbers below 5 have no gradient.

Inputs come from NumPy's legacy generator, whose stream is frozen: they need not be stored.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

CASES: dict[str, tuple[Callable[..., Any], list[Any]]] = {}

_X = (2, 3, 4)
_M = (3, 4)


def case(name: str, function: Callable[..., Any], *shapes: Any) -> None:
    assert name not in CASES, name
    CASES[name] = (function, list(shapes))


def inputs(name: str) -> list[tuple[Any, bool]]:
    """The inputs of a case, in float64 or complex128, and whether each has a gradient."""
    rng = np.random.RandomState(zlib.crc32(name.encode()) % 2**31)
    found: list[tuple[Any, bool]] = []
    for spec in CASES[name][1]:
        kind, shape = spec if spec and isinstance(spec[0], str) else ("f", spec)
        if kind == "+":
            found.append((rng.uniform(0.3, 2.0, shape), True))
        elif kind == "u":
            found.append((rng.uniform(-0.8, 0.8, shape), True))
        elif kind == "d":
            size = int(np.prod(shape))
            found.append(((rng.permutation(size) * 0.3 - size * 0.15 + 0.07).reshape(shape), True))
        elif kind == "z":
            values = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
            found.append((np.asarray(values), True))
        elif kind == "m":
            found.append((rng.uniform(-1, 1, shape) + 2.5 * np.eye(shape[-2], shape[-1]), True))
        elif kind == "b":
            found.append((rng.uniform(0, 1, shape) < 0.5, False))
        elif kind[0] == "i":
            found.append((rng.randint(0, int(kind[1:]), shape), False))
        else:
            found.append((np.asarray(rng.standard_normal(shape) * 1.5), True))
    return found


def cotangents(name: str, like: list[Any]) -> list[Any]:
    """Fixed random numbers in the shapes and kinds of some arrays: gradients to send back."""
    rng = np.random.RandomState(zlib.crc32((name + "/g").encode()) % 2**31)
    found = []
    for shape, is_complex in like:
        values = np.asarray(rng.standard_normal(shape))
        if is_complex:
            values = values + 1j * rng.standard_normal(shape)
        found.append(np.asarray(values))
    return found


def results(out: Any) -> list[Any]:
    return list(out) if isinstance(out, (tuple, list)) else [out]


# -- elementwise -------------------------------------------------------------------------------

for _names, _kind in (
    ("negative positive abs sign exp expm1 square sin cos tan atan sinh cosh tanh asinh erf", "f"),
    ("log log1p log2 log10 sqrt reciprocal", "+"),
    ("asin acos atanh floor ceil trunc round", "u"),
):
    for _name in _names.split():
        case(_name, lambda B, x, n=_name: getattr(B, n)(x), (_kind, _X))
for _name in (
    "negative abs sign exp log sqrt square reciprocal sin cos tan sinh cosh tanh asinh acosh atanh "
    "asin acos atan real imag conj log2 log10 log1p"
).split():
    case(f"{_name}_complex", lambda B, x, n=_name: getattr(B, n)(x), ("z", _M))
case("acosh", lambda B, x: B.acosh(x + 1), ("+", _X))
for _name in "add subtract multiply maximum minimum atan2 hypot logaddexp copysign".split():
    case(_name, lambda B, x, y, n=_name: getattr(B, n)(x, y), _X, (3, 1))
case("divide", lambda B, x, y: B.divide(x, y), _X, ("+", (3, 1)))
case("multiply_complex", lambda B, x, y: B.multiply(x, y), ("z", _M), ("z", (4,)))
case("divide_complex", lambda B, x, y: B.divide(x, y), ("z", _M), ("z", (4,)))
case("multiply_mixed", lambda B, x, y: B.multiply(x, y), ("z", _M), (4,))
case("maximum_equal", lambda B, x: B.maximum(x, x * 1.0), (4,))
case("pow", lambda B, x, y: B.pow(x, y), ("+", _M), (4,))
case("pow_whole", lambda B, x: x**3, _M)
case("pow_square", lambda B, x: x**2, _M)
case("pow_negative", lambda B, x: x**-1.5, ("+", _M))
case("pow_of_number", lambda B, x: 1.7**x, _M)
case("remainder", lambda B, x, y: B.remainder(x, y), _M, ("+", (4,)))
case("where", lambda B, m, x, y: B.where(m, x, y), ("b", _M), _M, (4,))
case("clip", lambda B, x: B.clip(x, -0.5, 1.0), _M)
case("clip_tensors", lambda B, x, a, b: B.clip(x, a - 1, b + 1), _M, ("u", (4,)), ("u", (3, 1)))
case("clip_crossed", lambda B, x, a, b: B.clip(x, a + 2, b), _M, ("u", (4,)), ("u", (4,)))

# -- reductions --------------------------------------------------------------------------------

for _axis in (None, 1, (0, 2)):
    _label = "all" if _axis is None else f"{_axis}".replace(" ", "")
    for _keep in (False, True):
        for _name in ("sum", "mean"):
            case(
                f"{_name}_{_label}_{_keep}",
                lambda B, x, n=_name, a=_axis, k=_keep: getattr(B, n)(x, axis=a, keepdims=k),
                _X,
            )
    for _name in ("var", "std"):
        for _correction in (0, 1):
            case(
                f"{_name}_{_label}_{_correction}",
                lambda B, x, n=_name, a=_axis, c=_correction: getattr(B, n)(
                    x, axis=a, correction=c
                ),
                _X,
            )
    for _name in ("max", "min"):
        case(
            f"{_name}_{_label}", lambda B, x, n=_name, a=_axis: getattr(B, n)(x, axis=a), ("d", _X)
        )
case("max_of_equals", lambda B, x: B.max(B.clip(x, -0.1, 0.1), axis=1), _M)
case("prod", lambda B, x: B.prod(x, axis=1), _X)
case("prod_all", lambda B, x: B.prod(x), _M)
case("prod_of_a_zero", lambda B, x: B.prod(B.clip(x, 0.0, 9.0), axis=0), (3, 4))
case("cumulative_sum", lambda B, x: B.cumulative_sum(x, axis=1), _X)
case("cumulative_prod", lambda B, x: B.cumulative_prod(x, axis=1), _X)
case("cumulative_prod_complex", lambda B, x: B.cumulative_prod(x, axis=0), ("z", (4,)))
case("diff", lambda B, x: B.diff(x, axis=1, n=2), _X)
case("logsumexp", lambda B, x: B.logsumexp(x, axis=-1), _X)

# -- shapes ------------------------------------------------------------------------------------

case("reshape", lambda B, x: B.reshape(x, (4, -1)), _X)
case("permute_dims", lambda B, x: B.permute_dims(x, (2, 0, 1)), _X)
case("matrix_transpose", lambda B, x: x.mT * 2, _X)
case("expand_dims", lambda B, x: B.expand_dims(x, axis=1) * 2, _X)
case("squeeze", lambda B, x: B.squeeze(x, 1) * 2, (2, 1, 3))
case("broadcast_to", lambda B, x: B.broadcast_to(x, (2, 3, 4)), (3, 1))
case("concat", lambda B, x, y: B.concat([x, y], axis=1), (2, 3), (2, 1))
case("stack", lambda B, x, y: B.stack([x, y], axis=1), (2, 3), (2, 3))
case("flip", lambda B, x: B.flip(x, axis=(0, 2)), _X)
case("roll", lambda B, x: B.roll(x, (1, -2), axis=(0, 2)), _X)
case("moveaxis", lambda B, x: B.moveaxis(x, 0, 2), _X)
case("tril", lambda B, x: B.tril(x, k=-1), _X)
case("triu", lambda B, x: B.triu(x, k=1), _X)
case("unstack", lambda B, x: B.unstack(x, axis=1), _X)
case("split", lambda B, x: B.split(x, [1, 2], axis=1), _X)
case("repeat", lambda B, x: B.repeat(x, 2, axis=1), _X)
case("tile", lambda B, x: B.tile(x, (2, 1, 3)), _X)
case("meshgrid", lambda B, x, y: B.meshgrid(x, y, indexing="ij"), (2,), (3,))
case("pad", lambda B, x: B.pad(x, ((0, 0), (1, 2), (2, 0)), constant_values=0.5), _X)
for _mode in ("edge", "reflect", "circular"):
    case(
        f"pad_{_mode}",
        lambda B, x, m=_mode: B.pad(x, ((0, 0), (0, 0), (1, 2), (2, 1)), mode=m),
        (2, 3, 4, 4),
    )

# -- indexing and sorting ----------------------------------------------------------------------

case("getitem", lambda B, x: x[1, :, ::2] * 2, _X)
case("getitem_by_tensor", lambda B, x, i: x[:, i] * 2, _X, ("i3", (5,)))
case("getitem_by_tensors", lambda B, x, i, j: x[i, :, j] * 2, _X, ("i2", (5,)), ("i4", (5,)))
case("getitem_by_mask", lambda B, x, m: x[m] * 2, _M, ("b", _M))
case("take", lambda B, x, i: B.take(x, i, axis=1), _X, ("i3", (4,)))
case("take_along_axis", lambda B, x, i: B.take_along_axis(x, i, axis=1), _M, ("i4", (3, 5)))
case(
    "put_along_axis",
    lambda B, x, i, v: B.put_along_axis(x, i, v, axis=1),
    _M,
    ("i4", (3, 1)),
    (3, 1),
)
case(
    "put_along_axis_add",
    lambda B, x, i, v: B.put_along_axis(x, i, v, axis=1, mode="add"),
    *(_M, ("i4", (3, 5)), (3, 5)),
)
case("sort", lambda B, x: B.sort(x, axis=1), ("d", _X))
case("sort_descending", lambda B, x: B.sort(x, axis=0, descending=True), ("d", _X))
case("topk", lambda B, x: B.topk(x, 2, axis=1).values, ("d", _X))

# -- linear algebra ----------------------------------------------------------------------------

case("matmul", lambda B, x, y: B.matmul(x, y), (2, 3, 4), (4, 2))
case("matmul_batch", lambda B, x, y: B.matmul(x, y), (2, 1, 3, 4), (3, 4, 2))
case("matmul_vectors", lambda B, x, y: B.matmul(x, y), (4,), (4,))
case("matmul_vector", lambda B, x, y: B.matmul(x, y), (4,), (2, 4, 3))
case("matmul_complex", lambda B, x, y: B.matmul(x, y), ("z", (3, 4)), ("z", (4, 2)))
case("tensordot", lambda B, x, y: B.tensordot(x, y, axes=2), (2, 3, 4), (3, 4, 2))
case("tensordot_axes", lambda B, x, y: B.tensordot(x, y, axes=([0, 2], [1, 0])), _X, (4, 2, 3))
case("vecdot", lambda B, x, y: B.vecdot(x, y), ("z", (2, 3)), ("z", (2, 3)))
case("outer", lambda B, x, y: B.outer(x, y), (3,), (4,))
case("trace", lambda B, x: B.trace(x), (3, 4))
case("diag", lambda B, x: B.diag(x), (2, 3))
case("einsum", lambda B, x, y: B.einsum("bij,bkj->bik", x, y), (2, 3, 4), (2, 2, 4))
case("einsum_three", lambda B, x, y, z: B.einsum("ij,jk,k->i", x, y, z), (2, 3), (3, 4), (4,))
case("cross", lambda B, x, y: B.linalg.cross(x, y), (2, 3), (2, 3))
case("diagonal", lambda B, x: B.linalg.diagonal(x, offset=1) * 2, _X)
case("inv", lambda B, x: B.linalg.inv(x), ("m", (2, 3, 3)))
case("solve", lambda B, x, y: B.linalg.solve(x, y), ("m", (2, 3, 3)), (2, 3, 2))
case("solve_vector", lambda B, x, y: B.linalg.solve(x, y), ("m", (3, 3)), (3,))
case("det", lambda B, x: B.linalg.det(x), ("m", (2, 3, 3)))
case("slogdet", lambda B, x: B.linalg.slogdet(x)[1], ("m", (2, 3, 3)))
case("cholesky", lambda B, x: B.linalg.cholesky(x @ x.mT), ("m", (2, 3, 3)))
case("qr", lambda B, x: B.linalg.qr(x), ("m", (2, 4, 3)))
case("qr_wide", lambda B, x: B.linalg.qr(x), ("m", (3, 4)))
case("eigvalsh", lambda B, x: B.linalg.eigvalsh(x + x.mT), (2, 3, 3))
case("eigh", lambda B, x: [v**2 for v in B.linalg.eigh(x + x.mT)], (2, 3, 3))
case("svd", lambda B, x: [v**2 for v in B.linalg.svd(x, full_matrices=False)], (2, 4, 3))
case("svd_wide", lambda B, x: [v**2 for v in B.linalg.svd(x, full_matrices=False)], (3, 4))
case("svdvals", lambda B, x: B.linalg.svdvals(x), (2, 4, 3))
case("pinv", lambda B, x: B.linalg.pinv(x), (2, 4, 3))
case("matrix_power", lambda B, x: B.linalg.matrix_power(x, 3), ("m", (3, 3)))
case("matrix_power_negative", lambda B, x: B.linalg.matrix_power(x, -2), ("m", (3, 3)))
for _order in ("fro", "nuc", 1, 2, -2, float("inf")):
    case(
        f"matrix_norm_{_order}",
        lambda B, x, o=_order: B.linalg.matrix_norm(x, ord=o, keepdims=True),
        (2, 3, 4),
    )
for _order in (1, 2, 3, 0.5, float("inf"), -float("inf")):
    case(
        f"vector_norm_{_order}",
        lambda B, x, o=_order: B.linalg.vector_norm(x, ord=o, axis=1),
        ("d", _X),
    )
case("vector_norm_complex", lambda B, x: B.linalg.vector_norm(x), ("z", (3,)))

# -- transforms --------------------------------------------------------------------------------

case("fft", lambda B, x: B.fft.fft(x, n=6, axis=1), ("z", (2, 5)))
case("fft_real", lambda B, x: B.fft.fft(x, norm="ortho"), (2, 5))
case("ifft", lambda B, x: B.fft.ifft(x, norm="forward"), ("z", (2, 5)))
case("fftn", lambda B, x: B.fft.fftn(x, axes=(0, 2)), ("z", _X))
case("ifftn", lambda B, x: B.fft.ifftn(x), ("z", (2, 3)))
case("rfft", lambda B, x: B.fft.rfft(x), (2, 5))
case("rfft_even", lambda B, x: B.fft.rfft(x, n=4, norm="ortho"), (2, 5))
case("irfft", lambda B, x: B.fft.irfft(x), ("z", (2, 4)))
case("irfft_odd", lambda B, x: B.fft.irfft(x, n=7, norm="forward"), ("z", (2, 4)))
case("rfftn", lambda B, x: B.fft.rfftn(x), (2, 3, 4))
case("irfftn", lambda B, x: B.fft.irfftn(x), ("z", (2, 3)))
case("hfft", lambda B, x: B.fft.hfft(x), ("z", (4,)))
case("ihfft", lambda B, x: B.fft.ihfft(x), (5,))

"""Rows of core/ops/elementwise.py, trigonometry.py, rounding.py and logic.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from rows import Row, Sample, apart, binary, sample, unary, uniform

import bestiary as bt
from bestiary.core.ops import elementwise as ew
from bestiary.core.ops import logic, rounding, trigonometry
from bestiary.errors import DtypeError, ShapeError

T = bt.Tensor


def _clip_samples(rng: np.random.Generator) -> list[Sample]:
    x = uniform(rng, (2, 3))
    low, high = uniform(rng, (3,), -1.5, -0.5), uniform(rng, (2, 1), 0.5, 1.5)
    return [
        sample(x, low, high),
        sample(x, -0.5, 0.7),
        sample(x, None, 0.3),
        sample(x, low, None),
        sample(x),
        sample(uniform(rng, ()), -0.1, 0.1),
        sample(uniform(rng, (0, 2)), -0.1, 0.1),
        sample(uniform(rng, (2, 3, 2, 2)), -0.5, 0.7),
    ]


def _where_samples(rng: np.random.Generator) -> list[Sample]:
    mask = rng.random((2, 3)) > 0.5
    wide = rng.random((2, 3, 2, 2)) > 0.5
    return [
        sample(mask, uniform(rng, (2, 3)), uniform(rng, (2, 3))),
        sample(mask, uniform(rng, (3,)), uniform(rng, (2, 1))),
        sample(mask, uniform(rng, (2, 3)), 0.5),
        sample(mask, 0.5, uniform(rng, (2, 3))),
        sample(np.asarray(True), uniform(rng, ()), uniform(rng, ())),
        sample(np.zeros((0, 3), bool), uniform(rng, (0, 3)), uniform(rng, (3,))),
        sample(wide, uniform(rng, wide.shape), uniform(rng, wide.shape)),
    ]


def _ints(rng: np.random.Generator, shape: Any = (2, 3)) -> Any:
    return rng.integers(-9, 9, shape)


def _bits(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(_ints(rng), _ints(rng, (3,))),
        sample(_ints(rng, ()), 3),
        sample(rng.random(4) > 0.5, rng.random((2, 4)) > 0.5),
        sample(_ints(rng, (0, 2)), 1),
    ]


def _shifts(rng: np.random.Generator) -> list[Sample]:
    return [sample(_ints(rng), rng.integers(0, 4, (3,))), sample(_ints(rng), 2)]


def _truths(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(rng.random((2, 3)) > 0.5, rng.random(3) > 0.5),
        sample(_ints(rng), rng.random((2, 3)) > 0.5),
        sample(np.asarray([0.0, 1.5, np.nan]), True),
        sample(np.zeros((0,), bool), False),
    ]


def _special(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(np.asarray([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5])),
        sample(uniform(rng, ())),
        sample(uniform(rng, (0, 3))),
        sample(_ints(rng)),
    ]


def _reduced(rng: np.random.Generator) -> list[Sample]:
    x = rng.random((2, 3, 4)) > 0.3
    return [
        sample(x),
        sample(x, axis=1),
        sample(x, axis=(0, 2), keepdims=True),
        sample(uniform(rng, (3,))),
        sample(np.zeros((0, 2), bool), axis=0),
        sample(np.asarray(True)),
    ]


def _equal_pairs(rng: np.random.Generator) -> list[Sample]:
    a = _ints(rng).astype(float)
    return [
        sample(a, np.where(rng.random(a.shape) > 0.5, a, a + 1)),
        sample(a, 1.0),
        sample(_ints(rng), _ints(rng)),
        sample(np.asarray([np.nan, np.inf]), np.asarray([np.nan, np.inf])),
        sample(uniform(rng, ()), uniform(rng, (2,))),
        sample(uniform(rng, (0, 2)), uniform(rng, (2,))),
    ]


def _pow_samples(rng: np.random.Generator) -> list[Sample]:
    positive = uniform(rng, (2, 3), 0.3, 2)
    return [
        sample(positive, uniform(rng, (3,))),
        *[sample(uniform(rng, (2, 3), 0.3, 2) * s, p) for s in (1, -1) for p in (2, 3, -1, 0, 1)],
        sample(positive, 0.5),
        sample(positive, np.asarray([2.0, 0.0, -1.0])),
        sample(1.7, uniform(rng, (2, 3))),
        sample(uniform(rng, (), 0.5, 2), uniform(rng, ())),
        sample(uniform(rng, (0, 3), 0.5, 2), 2.0),
        sample(uniform(rng, (2, 3, 2, 2), 0.5, 2), 2),
    ]


def _quotients(rng: np.random.Generator) -> list[Sample]:
    a = uniform(rng, (2, 3), -8, 8)
    b = apart(rng, (3,), (0,), 0.7, 3) * np.asarray([1, -1, 1])
    near = np.abs(a / b - np.round(a / b)) < 0.05
    a = np.where(near, a + 0.2 * b, a)
    return [
        sample(a, b),
        sample(a + 0.013, 0.7),
        sample(5.3, b + 0.017),
        sample(uniform(rng, ()) + 0.3, np.asarray(0.37)),
        sample(uniform(rng, (0, 2)), 2.0),
        sample(uniform(rng, (2, 3, 2, 2), 0.1, 0.9), uniform(rng, (2, 3, 2, 2), 1.1, 2)),
    ]


def _steps(rng: np.random.Generator) -> list[Sample]:
    return [sample(uniform(rng, (2, 3)), uniform(rng, (3,))), sample(uniform(rng, ()), 0.0)]


def _erf(x: Any) -> Any:
    import math

    return np.vectorize(math.erf, otypes=[float])(x)


def _logaddexp_extremes() -> None:
    x = bt.tensor([-bt.inf, 0.0], requires_grad=True)
    bt.logaddexp(x, bt.asarray([-bt.inf, -bt.inf])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0]
    raise AssertionError("as expected")


ROWS = [
    binary(ew.add, np.add, complex=True),
    binary(ew.subtract, np.subtract, complex=True),
    binary(ew.multiply, np.multiply, complex=True),
    binary(ew.divide, np.divide, low=0.4, complex=True),
    binary(ew.maximum, np.maximum, separate=True),
    binary(ew.minimum, np.minimum, separate=True),
    binary(trigonometry.atan2, np.arctan2, low=0.3),
    binary(trigonometry.hypot, np.hypot, low=0.3),
    binary(ew.logaddexp, np.logaddexp, errors=((_logaddexp_extremes, AssertionError, "expected"),)),
    binary(rounding.copysign, np.copysign, low=0.2),
    Row(rounding.nextafter, _steps, order=0, dtypes=("float32", "float64")),
    Row(ew.pow, _pow_samples, reference=np.power, complex=False, keeps_layout=True),
    Row(rounding.floor_divide, _quotients, reference=np.floor_divide, keeps_layout=True),
    Row(rounding.remainder, _quotients, reference=np.remainder, keeps_layout=True, rtol=1e-6),
    Row(
        bt.clip,
        _clip_samples,
        reference=lambda x, a=None, b=None: x if a is None and b is None else np.clip(x, a, b),
        keeps_layout=True,
    ),
    Row(ew.where, _where_samples, reference=np.where, keeps_layout=True),
    unary(ew.negative, np.negative, complex=True),
    unary(ew.positive, np.positive, complex=True),
    unary(ew.zeros_of, np.zeros_like, order=0),
    Row(
        bt.conj,
        lambda rng: [
            sample(np.asarray(uniform(rng, s) + 1j * uniform(rng, s))) for s in ((), (2, 3), (0,))
        ],
        reference=np.conj,
        name="conj",
        dtypes=("float32", "float64"),
    ),
    unary(ew.real, np.real, complex=True),
    unary(ew.imag, np.imag, complex=True),
    unary(ew.abs, np.abs, corners=(0,), complex=True),
    unary(ew.sign, np.sign, corners=(0,), complex=True),
    unary(ew.exp, np.exp, complex=True),
    unary(ew.expm1, np.expm1, complex=True),
    unary(ew.log, np.log, low=0.3, complex=True),
    unary(ew.log1p, np.log1p, low=-0.6, complex=True),
    unary(ew.log2, np.log2, low=0.3, complex=True),
    unary(ew.log10, np.log10, low=0.3, complex=True),
    unary(ew.sqrt, np.sqrt, low=0.3, complex=True),
    unary(ew.square, np.square, complex=True),
    unary(ew.reciprocal, np.reciprocal, low=0.4, complex=True),
    unary(trigonometry.sin, np.sin, complex=True),
    unary(trigonometry.cos, np.cos, complex=True),
    unary(trigonometry.tan, np.tan, low=-1, high=1, complex=True),
    unary(trigonometry.asin, np.arcsin, low=-0.8, high=0.8, complex=True),
    unary(trigonometry.acos, np.arccos, low=-0.8, high=0.8, complex=True),
    unary(trigonometry.atan, np.arctan, complex=True),
    unary(trigonometry.sinh, np.sinh, complex=True),
    unary(trigonometry.cosh, np.cosh, complex=True),
    unary(trigonometry.tanh, np.tanh, complex=True),
    unary(trigonometry.asinh, np.arcsinh, complex=True),
    unary(trigonometry.acosh, np.arccosh, low=1.3, high=3, complex=True),
    unary(trigonometry.atanh, np.arctanh, low=-0.8, high=0.8, complex=True),
    unary(rounding.floor, np.floor, corners=(-2, -1, 0, 1, 2)),
    unary(rounding.ceil, np.ceil, corners=(-2, -1, 0, 1, 2)),
    unary(rounding.trunc, np.trunc, corners=(-2, -1, 0, 1, 2)),
    unary(rounding.round, np.round, corners=(-1.5, -0.5, 0.5, 1.5)),
    # -- logic: nothing has a gradient --
    *[
        Row(function, _equal_pairs, reference=reference, order=0)
        for function, reference in (
            (logic.equal, np.equal),
            (logic.not_equal, np.not_equal),
            (logic.less, np.less),
            (logic.less_equal, np.less_equal),
            (logic.greater, np.greater),
            (logic.greater_equal, np.greater_equal),
        )
    ],
    *[
        Row(function, _bits, reference=reference, order=0)
        for function, reference in (
            (logic.bitwise_and, np.bitwise_and),
            (logic.bitwise_or, np.bitwise_or),
            (logic.bitwise_xor, np.bitwise_xor),
        )
    ],
    Row(logic.bitwise_left_shift, _shifts, reference=np.left_shift, order=0),
    Row(logic.bitwise_right_shift, _shifts, reference=np.right_shift, order=0),
    Row(
        logic.bitwise_invert,
        lambda rng: [sample(_ints(rng)), sample(rng.random(3) > 0.5), sample(_ints(rng, ()))],
        reference=np.invert,
        order=0,
        errors=((lambda: bt.bitwise_invert(bt.ones(2)), DtypeError, "float32"),),
    ),
    *[
        Row(function, _truths, reference=reference, order=0)
        for function, reference in (
            (logic.logical_and, np.logical_and),
            (logic.logical_or, np.logical_or),
            (logic.logical_xor, np.logical_xor),
        )
    ],
    Row(logic.logical_not, _special, reference=np.logical_not, order=0),
    Row(logic.isnan, _special, reference=np.isnan, order=0),
    Row(logic.isinf, _special, reference=np.isinf, order=0),
    Row(logic.isfinite, _special, reference=np.isfinite, order=0),
    Row(rounding.signbit, lambda rng: _special(rng)[:3], reference=np.signbit, order=0),
    Row(
        logic.isclose,
        lambda rng: [*_equal_pairs(rng), sample(np.ones(3), np.ones(3) + 1e-6, rtol=1e-7)],
        reference=np.isclose,
        order=0,
    ),
    Row(logic.all, _reduced, reference=np.all, order=0),
    Row(
        logic.any,
        _reduced,
        reference=np.any,
        order=0,
        errors=(
            (lambda: bt.any(bt.ones(2), dim=0), TypeError, "axis="),
            (lambda: bt.add(bt.ones(2), bt.ones(3)), ShapeError, "add"),
        ),
    ),
]

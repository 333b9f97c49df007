"""Activations, the softmax family and the error function."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from rows import SHAPES, Array, Row, Sample, sample, unary, uniform

import bestiary.core.nn.functional as F

_erf = np.vectorize(math.erf, otypes=[float])


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(0, x))


def _gelu(x: Array, approximate: str = "none") -> Array:
    if approximate == "tanh":
        return np.asarray(x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return np.asarray(x / 2 * (1 + _erf(x / math.sqrt(2))))


def _elu(x: Array, alpha: float = 1.0) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _hardsigmoid(x: Array) -> Array:
    return np.clip(x / 6 + 0.5, 0, 1)


def _softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True)) if x.size else x
    return np.asarray(e / e.sum(axis, keepdims=True))


def _large(rng: np.random.Generator) -> list[Sample]:
    return [sample(uniform(rng, (4, 300, 37), -8, 8)), sample(uniform(rng, (2, 24, 40, 31), -8, 8))]


def _along(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(uniform(rng, (3,))),
        sample(uniform(rng, (2, 5))),
        sample(uniform(rng, (2, 3, 2, 4)), axis=1),
        sample(uniform(rng, (2, 3, 2, 4)), axis=-1),
        sample(uniform(rng, (0, 3)), axis=-1),
        sample(uniform(rng, (1, 1))),
    ]


def _along_large(rng: np.random.Generator) -> list[Sample]:
    return [sample(uniform(rng, (300, 700), -9, 9)), sample(uniform(rng, (3, 8, 20, 70), -9, 9))]


def _over(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(uniform(rng, (2, 3))),
        sample(uniform(rng, (2, 3)), axis=0),
        sample(uniform(rng, (2, 3, 4)), axis=(0, 2), keepdims=True),
        sample(uniform(rng, (2, 0)), axis=0),
    ]


def _logsumexp(x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    return np.asarray(np.log(np.exp(x).sum(axis=axis, keepdims=keepdims)))


def _with_weight(rng: np.random.Generator) -> list[Sample]:
    x = uniform(rng, (2, 3, 2, 2))
    x = np.where(np.abs(x) < 0.1, 0.2, x)
    return [sample(x, uniform(rng, (3,))), sample(x, uniform(rng, (1,)))]


def _halved(rng: np.random.Generator) -> list[Sample]:
    return [sample(uniform(rng, (2, 6))), sample(uniform(rng, (4, 3)), axis=0)]


def _glu(x: Array, axis: int = -1) -> Array:
    a, b = np.split(x, 2, axis)
    return a * _sigmoid(b)


def _prelu(x: Array, w: Array) -> Array:
    return np.where(x > 0, x, x * w.reshape(-1, 1, 1))


def _scaled(alpha: float) -> Any:
    def samples(rng: np.random.Generator) -> list[Sample]:
        return [sample(uniform(rng, shape, 0.1, 2), alpha=alpha) for shape in SHAPES]

    return samples


ROWS = [
    unary(
        F.relu,
        lambda x: np.maximum(x, 0),
        corners=(0,),
        covers=("relu_backward",),
        large=_large,
    ),
    unary(
        F.relu6,
        lambda x: np.clip(x, 0, 6),
        *(-2, 8, (0, 6)),
        covers=("hardtanh", "hardtanh_backward"),
        large=_large,
    ),
    unary(F.leaky_relu, lambda x: np.where(x > 0, x, 0.01 * x), corners=(0,)),
    unary(F.hardtanh, lambda x: np.clip(x, -1, 1), corners=(-1, 1), name="hardtanh_default"),
    unary(F.hardsigmoid, _hardsigmoid, -4, 4, (-3, 3), half_ulp=None),
    unary(
        F.hardswish,
        lambda x: x * _hardsigmoid(x),
        *(-4, 4, (-3, 3)),
        covers=("hardswish_backward",),
        large=_large,
    ),
    unary(F.sigmoid, _sigmoid, large=_large),
    unary(F.softplus, _softplus, large=_large),
    unary(F.log_sigmoid, lambda x: -_softplus(-x)),
    unary(F.silu, lambda x: x * _sigmoid(x), covers=("silu_backward",), large=_large),
    unary(F.quick_gelu, lambda x: x * _sigmoid(1.702 * x), half_ulp=None),
    unary(F.mish, lambda x: x * np.tanh(_softplus(x)), half_ulp=None),
    unary(F.elu, _elu, corners=(0,), large=_large),
    Row(F.elu, _scaled(0.7), name="elu_alpha", reference=_elu),
    unary(
        F.selu,
        lambda x: 1.0507009873554805 * _elu(x, 1.6732632423543772),
        corners=(0,),
        half_ulp=None,
    ),
    unary(F.celu, _elu, corners=(0,), half_ulp=None),
    unary(F.softsign, lambda x: x / (1 + np.abs(x)), corners=(0,), half_ulp=None),
    unary(F.erf, _erf, large=_large),
    unary(F.gelu, _gelu, covers=("gelu", "gelu_backward"), large=_large),
    Row(
        F.gelu,
        lambda rng: [sample(uniform(rng, s, -4, 4), approximate="tanh") for s in SHAPES],
        name="gelu_tanh",
        reference=_gelu,
        keeps_layout=True,
        large=lambda rng: [sample(uniform(rng, (70, 300), -6, 6), approximate="tanh")],
        errors=((lambda: F.gelu(1.0, "sigmoid"), ValueError, "'none' or 'tanh'"),),
    ),
    Row(F.prelu, _with_weight, reference=_prelu, half_ulp=None, keeps_layout=True),
    Row(F.glu, _halved, reference=_glu, half_ulp=None),
    Row(
        F.softmax,
        _along,
        covers=("softmax", "softmax_backward"),
        reference=_softmax,
        large=_along_large,
        keeps_layout=True,
    ),
    Row(F.softmin, _along, reference=lambda x, axis=-1: _softmax(-x, axis), half_ulp=None),
    Row(
        F.log_softmax,
        _along,
        covers=("log_softmax", "log_softmax_backward"),
        reference=lambda x, axis=-1: np.log(_softmax(x, axis)),
        large=_along_large,
        keeps_layout=True,
    ),
    Row(F.logsumexp, _over, covers=("logsumexp",), reference=_logsumexp),
]

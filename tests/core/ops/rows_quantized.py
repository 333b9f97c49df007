"""Rows of core/ops/quantized.py: the weights are bytes, and get no gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from rows import Array, Row, Sample, sample, uniform

import bestiary as bt
import bestiary.core.nn.functional as F
from bestiary.core.errors import ConfigError, DtypeError, IndexRangeError, ShapeError
from bestiary.core.quantization import PACKED, pack, unpack


def _weight(rng: np.random.Generator, rows: int, columns: int, form: str) -> Array:
    packed: Array = pack(uniform(rng, (rows, columns)).astype(np.float32), form)
    return packed


def _products(rng: np.random.Generator) -> list[Sample]:
    def one(form: str, *shape: int, out: int = 5, bias: bool = False) -> Sample:
        weight = _weight(rng, out, shape[-1], form)
        add = uniform(rng, (out,)) if bias else None
        return sample(uniform(rng, shape), weight, add, form=form)

    return [
        one("q4_1", 2, 64, bias=True),
        one("int8", 2, 2, 40),  # rows filled up to whole blocks
        one("q8_0", 33),
        one("q4_0", 0, 32, bias=True),
        *(one(form, 1, 32) for form in PACKED),
        one("int8", 11, 32, bias=True),  # more rows than are read one by one
    ]


def _large(rng: np.random.Generator) -> list[Sample]:
    """Several blocks of a weight, with few rows and many."""
    return [
        sample(uniform(rng, (rows, 2048)), _weight(rng, 700, 2048, form), None, form=form)
        for rows in (1, 5, 40)
        for form in ("int8", "q4_1", "bfloat16")
    ]


def _product(x: Array, weight: Array, bias: Any, *, form: str) -> Array:
    numbers = unpack(np, weight, form, x.shape[-1]).astype(np.float64)
    return np.asarray(x @ numbers.T + (0 if bias is None else bias))


def _looked_up(ids: Any, weight: Any, *, form: str, features: int) -> Any:
    return F.quantized_embedding(ids, weight, form=form, features=features)


def _look_ups(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(ids, _weight(rng, 5, features, form), form=form, features=features)
        for ids in (rng.integers(0, 5, (2, 3)), np.zeros((0,), np.int64), np.array(4))
        for form, features in (("int8", 8), ("q8_0", 64), ("q4_1", 33), ("float16", 32))
    ]


_X = bt.zeros((2, 32))
_BYTES = bt.Tensor(pack(np.ones((3, 32), np.float32), "int8"))

ROWS = [
    Row(
        F.quantized_linear,
        _products,
        covers=("quantized_linear", "quantized_linear_input_grad"),
        reference=_product,
        large=_large,
        errors=(
            (lambda: F.quantized_linear(_X, _BYTES, form="q4_1"), ShapeError, "take 20 bytes"),
            (lambda: F.quantized_linear(_X, _BYTES, form="int3"), ConfigError, "no format"),
            (lambda: F.quantized_linear(_X, _X, form="int8"), DtypeError, "uint8.*got float32"),
            (
                lambda: F.quantized_linear(_X.astype(bt.int64), _BYTES, _X[0, :3], form="int8"),
                DtypeError,
                "int64",
            ),
            (
                lambda: F.quantized_linear(bt.zeros((2, 33)), _BYTES, form="int8"),
                ShapeError,
                "33 features",
            ),
        ),
    ),
    Row(
        _looked_up,
        _look_ups,
        name="quantized_embedding",
        covers=("quantized_embedding",),
        reference=lambda ids, weight, form, features: unpack(np, weight, form, features)[ids],
        order=0,
        dtypes=("float32",),
        errors=(
            (
                lambda: F.quantized_embedding(bt.asarray([3]), _BYTES, form="int8", features=32),
                IndexRangeError,
                "id 3.*3 entries",
            ),
            (
                lambda: F.quantized_embedding(_X, _BYTES, form="int8", features=32),
                DtypeError,
                "ids are integers",
            ),
            (
                lambda: F.quantized_embedding(bt.asarray([1]), _BYTES, form="int8", features=65),
                ShapeError,
                "rows of 65 numbers",
            ),
        ),
    ),
]

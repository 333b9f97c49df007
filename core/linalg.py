"""Linear algebra: the array API standard's linalg extension, batched over leading axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .ops.decompositions import cholesky, eigh, eigvalsh, matrix_rank, pinv, qr, svd, svdvals
from .ops.equations import det, inv, slogdet, solve
from .ops.linalg import (
    cross,
    diagonal,
    matmul,
    matrix_power,
    outer,
    tensordot,
    trace,
    vecdot,
)
from .ops.norms import matrix_norm, vector_norm
from .ops.shape import matrix_transpose
from .spelling import answering

__all__ = [
    "cholesky",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "inv",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "matrix_transpose",
    "outer",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "svd",
    "svdvals",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]

if not TYPE_CHECKING:  # type checkers know which names there are
    __getattr__ = answering("bestiary.linalg", __all__)

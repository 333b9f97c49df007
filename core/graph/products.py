"""Which products a program takes from the kernels here, and which from BLAS.

The kernels multiply by weights that were packed ahead. Measured on two cores of Zen 5 beside
OpenBLAS 0.3.31, for 16, 49, 128, 197 and 1,024 rows of 384 to 3,072 numbers: 3.3 to 3.8, 2.0,
1.3 to 1.4, 1.15 to 1.2 and 0.96 times as fast. And the threads of BLAS keep their cores for some
milliseconds after each product, waiting for the next: kernels that follow share the cores with
them, and convolutions take up to a third longer. So a whole graph goes one way or the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import native
from ..ops.native_conv import packed
from .record import Graph, Ref

_FEW_ROWS = 600  # in products of more, BLAS is as fast


def without_blas(graph: Graph) -> bool:
    """Whether most is computed by convolutions, and by products of few rows."""
    ours = blas = 0
    for call in graph.calls:
        kind, out = call.op.name.removesuffix("_fused"), call.results[0]
        if kind not in ("conv2d", "linear") or out is None or not isinstance(call.operands[1], Ref):
            continue
        size, weight = math.prod(graph.kinds[out.index][0]), graph.kinds[call.operands[1].index][0]
        work = size * math.prod(weight[1:])  # each number of a result is a sum of so many products
        if kind == "conv2d" or size < _FEW_ROWS * weight[0]:
            ours += work
        else:
            blas += work
    return ours > blas


def linear(
    weight: Any,
    bias: Any,
    shape: tuple[int, ...],
    clamp: native.Clamp,
    activation: str | None,
) -> Callable[..., Any]:
    """activation(x weight^T + bias + add), for a constant weight.

    Args:
        shape: of the result.
    """
    features = weight.shape[1]
    rows = math.prod(shape[:-1])
    panels = packed(weight, 1, keep=True)
    run = native.Convolution((1, 1, rows, features), panels, clamp=clamp)

    def by_convolution(x: Any, add: Any = None) -> Any:
        pixels = np.ascontiguousarray(x).reshape(1, 1, rows, features)
        other = None if add is None else np.ascontiguousarray(add).reshape(run.out_shape)
        out = run(pixels, bias, other)
        if activation is not None:
            native.finish(out, activation=activation)
        return out.reshape(shape)

    return by_convolution

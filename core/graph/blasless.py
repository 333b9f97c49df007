"""Products by the kernels here in place of BLAS, for networks that are mostly convolutions.

The threads of BLAS keep their cores for some milliseconds after each product, waiting for the
next. In a network that goes from products to convolutions and back, those of the kernels would
share the cores with them, and convolutions take up to a third longer (measured on two cores, with
the UNet of DDPM). A linear map is a convolution of one row of pixels, and attention is two of them
for each sample, grouped by heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import native
from .record import Call, Graph, Ref

_SCORES = 1 << 20  # of a block of queries, held at once


def mostly_convolutions(graph: Graph) -> bool:
    """Whether more is computed by convolutions than by linear maps and attention."""
    work = {"conv2d": 0, "linear": 0, "attention": 0}
    for call in graph.calls:
        kind, out = call.op.name.removesuffix("_fused"), call.results[0]
        if kind not in work or out is None:
            continue
        q, other = call.operands[:2]
        if not isinstance(q, Ref) or not isinstance(other, Ref):
            continue
        size, second = math.prod(graph.kinds[out.index][0]), graph.kinds[other.index][0]
        # Each number of a result is a sum of so many products.
        work[kind] += size * (2 * second[-2] if kind == "attention" else math.prod(second[1:]))
    return work["conv2d"] > work["linear"] + work["attention"]


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
    outputs, features = weight.shape
    rows = math.prod(shape[:-1])
    packed = native.pack_weight(np.ascontiguousarray(weight).reshape(outputs, features, 1, 1))
    run = native.Convolution((1, 1, rows, features), packed, clamp=clamp)

    def by_convolution(x: Any, add: Any = None) -> Any:
        pixels = np.ascontiguousarray(x).reshape(1, 1, rows, features)
        other = None if add is None else np.ascontiguousarray(add).reshape(run.out_shape)
        out = run(pixels, bias, other)
        if activation is not None:
            native.finish(out, activation=activation)
        return out.reshape(shape)

    return by_convolution


def attention(graph: Graph, call: Call) -> Callable[..., Any] | None:
    """softmax(q k^T scale) v of plain attention; None for masks, dropout or shared heads."""
    q, k, v, mask, key = call.operands
    refs = all(isinstance(x, Ref) for x in (q, k, v))
    if not refs or mask is not None or key is not None or call.constants["causal"]:
        return None
    shapes = [graph.kinds[x.index][0] for x in (q, k, v)]
    if len(shapes[0]) != 4 or len({shape[:2] for shape in shapes}) != 1:
        return None
    if any(0 in shape for shape in shapes):
        return None
    (b, heads, tokens, width), (_, _, sources, _), (_, _, _, features) = shapes
    scale = np.float32(call.constants["scale"])
    step = max(1, _SCORES // (heads * sources))

    def by_convolution(q: Any, k: Any, v: Any) -> tuple[Any, None]:
        queries = np.multiply(q.transpose(0, 2, 1, 3), scale, order="C")  # (B, T, N, D)
        out = np.empty((b, tokens, heads, features), np.float32)
        for i in range(b):
            by_key = native.pack_weight(_as_filters(k[i]), heads)
            if heads == 1:  # what is looked up is no copy
                by_value = native.pack_weight(_as_filters(v[i]), turned=True)
            else:
                by_value = native.pack_weight(_as_filters(v[i].transpose(0, 2, 1)), heads)
            for first in range(0, tokens, step):
                rows = queries[i, first : first + step].reshape(1, 1, -1, heads * width)
                scores = native.conv2d(rows, by_key)  # (1, 1, T, N S)
                by_head = scores.reshape(-1, sources)
                native.softmax(by_head, out=by_head)
                part = out[i, first : first + step].reshape(1, 1, -1, heads * features)
                native.conv2d(scores, by_value, out=part)
        return out.transpose(0, 2, 1, 3), None

    return by_convolution


def _as_filters(x: Any) -> Any:
    """(N, O, C) as filters of one pixel for N groups, (N O, C, 1, 1)."""
    n, o, c = x.shape
    return np.ascontiguousarray(x).reshape(n * o, c, 1, 1)

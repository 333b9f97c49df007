"""Rows of the operations that the passes of a graph make."""

from __future__ import annotations

from typing import Any

import numpy as np
from rows import Array, Row, Sample, sample
from rows_nn import conv2d_by_definition

from bestiary.core.graph.fused import chain, conv2d_fused, group_norm_fused, linear_fused

_ACTIVATIONS: dict[str, Any] = {
    "relu": lambda x: np.maximum(x, 0),
    "hardtanh": lambda x, low, high: np.clip(x, low, high),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def _finished(out: Array, add: Any, activation: Any) -> Array:
    out = out if add is None else out + add
    return out if activation is None else _ACTIVATIONS[activation[0]](out, **dict(activation[1]))


def _conv(
    x: Array,
    w: Array,
    b: Any,
    add: Any,
    *,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    activation: Any,
) -> Array:
    top, bottom, left, right = padding
    ends = ((top, bottom), (left, right))
    return _finished(conv2d_by_definition(x, w, b, stride, ends, dilation, groups), add, activation)


def _linear(x: Array, w: Array, b: Any, add: Any, *, activation: Any) -> Array:
    return _finished(x @ w.T + (0 if b is None else b), add, activation)


def _group_norm(
    x: Array, weight: Any, bias: Any, *, groups: int, eps: float, activation: Any
) -> Array:
    parts = x.reshape(len(x), groups, -1)
    centred = parts - parts.mean(axis=2, keepdims=True)
    out = (centred / np.sqrt((centred**2).mean(axis=2, keepdims=True) + eps)).reshape(x.shape)
    shape = (1, -1, *[1] * (x.ndim - 2))
    out = out if weight is None else out * weight.reshape(shape)
    return _finished(out if bias is None else out + bias.reshape(shape), None, activation)


_PLAIN: dict[str, Any] = {
    "stride": (1, 1),
    "padding": (1, 1, 1, 1),
    "dilation": (1, 1),
    "groups": 1,
}
_CLIP = ("hardtanh", (("high", 0.5), ("low", -0.25)))


def _images(rng: np.random.Generator) -> list[Sample]:
    x, w, b = (rng.uniform(-1, 1, s) for s in ((2, 3, 5, 4), (4, 3, 3, 3), (4,)))
    add = rng.uniform(-1, 1, (2, 4, 5, 4))
    return [
        sample(x, w, b, add, **_PLAIN, activation=("relu", ())),
        sample(x, w, None, None, **_PLAIN, activation=_CLIP),
        sample(x, w, b, add, **_PLAIN, activation=None),
        sample(x, w[:3, :1], b[:3], None, **{**_PLAIN, "groups": 3}, activation=("silu", ())),
    ]


def _rows(rng: np.random.Generator) -> list[Sample]:
    x, w, b = (rng.uniform(-1, 1, s) for s in ((2, 3, 5), (4, 5), (4,)))
    add = rng.uniform(-1, 1, (2, 3, 4))
    return [
        sample(x, w, b, add, activation=("silu", ())),
        sample(x[0], w, None, None, activation=("relu", ())),
        sample(x, w, b, None, activation=None),
    ]


def _maps(rng: np.random.Generator) -> list[Sample]:
    x, w, b = (rng.uniform(-1, 1, s) for s in ((2, 6, 5, 4), (6,), (6,)))
    return [
        sample(x, w, b, groups=3, eps=1e-5, activation=("silu", ())),
        sample(x[..., 0], None, None, groups=2, eps=1e-3, activation=None),
        sample(x, w, None, groups=1, eps=1e-5, activation=("relu", ())),
        sample(x, w, b, groups=6, eps=1e-5, activation=_CLIP),
    ]


def _chain(*xs: Array, steps: Any, wanted: Any, shape: Any) -> tuple[Array, ...]:
    assert [name for name, _ in steps] == ["multiply", "tanh", "subtract"]
    product = xs[0] * xs[1]
    values = (product, np.tanh(product), np.tanh(product) - 0.5)
    return tuple(np.broadcast_to(values[k], shape) for k in wanted)


_STEPS = (
    ("multiply", (("input", 0), ("input", 1))),
    ("tanh", (("step", 0),)),
    ("subtract", (("step", 1), ("number", 0.5))),
)


def _pairs(rng: np.random.Generator) -> list[Sample]:
    x, y = rng.uniform(-1, 1, (3, 4)), rng.uniform(-1, 1, 4)
    return [
        sample(x, y, steps=_STEPS, wanted=(2,), shape=(3, 4)),
        sample(x, x, steps=_STEPS, wanted=(0, 2), shape=(3, 4)),
    ]


ROWS = [
    Row(chain, _pairs, reference=_chain, order=0, half_ulp=None),
    Row(conv2d_fused, _images, reference=_conv, order=0, half_ulp=None),
    Row(group_norm_fused, _maps, reference=_group_norm, order=0, half_ulp=None),
    Row(linear_fused, _rows, reference=_linear, order=0, half_ulp=None),
]

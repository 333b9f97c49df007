"""The steps of a language model for one token of one text, prepared once and run many times.

A token is a few hundred calls of a few microseconds: what they work on is checked when a step is
prepared, and running it is one call of a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ShapeError
from .quantized import GROUP, share, stored_groups
from .runtime import GRAIN, KERNELS, Float32, Step, check, grain_for, run_prepared

Bytes = NDArray[np.uint8]

MAX_WIDTH = 256  # of a head: decode.h holds it on the stack
_MOST = 3  # weights in a product
_ACTIVATIONS = ("gelu", "gelu_tanh", "silu")
_UINT8 = np.dtype(np.uint8)


def run_steps(steps: Sequence[Step]) -> None:
    """Run prepared steps one after the other."""
    for step in steps:
        run_prepared(step)


def product_step(
    form: str, weights: Sequence[Bytes], x: Float32, bias: Float32 | None, out: Float32
) -> Step:
    """out = W x + bias, where W is one to three weights below one another.

    Args:
        form: of all of them: a format, or "float32": then the bytes are such numbers.

    Shape: weights (N, bytes), x (K,), bias and out (the sum of N,); K a multiple of 32.
    """
    check("product_step", "x", x, (None,))
    features = len(x)
    if not 1 <= len(weights) <= _MOST:
        raise ShapeError(f"product_step: 1 to {_MOST} weights, got {len(weights)}")
    for weight in weights:
        if form != "float32":
            groups = stored_groups("product_step", form, weight, features)
            continue
        check("product_step", "weight", weight, (None, 4 * features), _UINT8)
        groups = features // GROUP
        if features % GROUP:
            raise ShapeError(f"product_step: {features} features are no multiple of {GROUP}")
    starts = [0, *accumulate(len(weight) for weight in weights)]
    for name, vector in (("bias", bias), ("out", out)):
        if vector is not None:
            check("product_step", name, vector, (starts[-1],))
    stride = weights[0].shape[1]
    more = (*weights[1:], None, None)[: _MOST - 1]
    firsts = (*starts[1:-1], 0, 0)[: _MOST - 1]
    grain = share(starts[-1], stride)
    ints = (groups, stride, 1, starts[-1], *firsts)
    return (
        KERNELS[f"product_{form}"],
        (weights[0], x, bias, out, *more),
        ints,
        (),
        starts[-1],
        grain,
    )


def rms_norm_step(x: Float32, weight: Float32, eps: float, out: Float32) -> Step:
    """out = x / root mean square of x, times weight. Shape: (D,) all."""
    return _norm_step(x, weight, np.zeros(len(x), np.float32), eps, out, 0)


def layer_norm_step(x: Float32, weight: Float32, bias: Float32, eps: float, out: Float32) -> Step:
    """out = x less its mean, by its deviation, times weight, plus bias. Shape: (D,) all."""
    return _norm_step(x, weight, bias, eps, out, 1)


def _norm_step(
    x: Float32, weight: Float32, bias: Float32, eps: float, out: Float32, centre: int
) -> Step:
    check("norm_step", "x", x, (None,))
    for name, vector in (("weight", weight), ("bias", bias), ("out", out)):
        check("norm_step", name, vector, x.shape)
    spare = np.empty(1, np.float32), np.empty(1, np.float32)
    arrays = (x, weight, bias, out, *spare)
    return KERNELS["layer_norm"], arrays, (len(x), centre), (eps,), 1, 1


def activation_step(name: str, x: Float32, out: Float32) -> Step:
    """out = the activation of x: "gelu", "gelu_tanh", "silu". Shape: (D,) both."""
    if name not in _ACTIVATIONS:
        raise ConfigError(f"activation_step: {name!r} is none of {', '.join(_ACTIVATIONS)}")
    check("activation_step", "x", x, (None,))
    check("activation_step", "out", out, x.shape)
    return KERNELS[name], (x, out), (), (), len(x), GRAIN


def add_step(x: Float32, out: Float32) -> Step:
    """x is added to out. Shape: (D,) both."""
    check("add_step", "x", x, (None,))
    check("add_step", "out", out, x.shape)
    return KERNELS["added"], (x, out), (), (), len(x), GRAIN


def gated_step(gate_up: Float32, out: Float32) -> Step:
    """out = silu(gate) up. Shape: gate_up (2 D,), out (D,)."""
    check("gated_step", "out", out, (None,))
    check("gated_step", "gate_up", gate_up, (2 * len(out),))
    return KERNELS["gated"], (gate_up, out), (len(out),), (), len(out), GRAIN


class TokenAttention:
    """Attention of the newest token of a text, with rotary positions, on a cache.

    Args:
        qkv: where its queries, keys and values are, ((heads + 2 shared) W,).
        out: (heads W,).
        shared: heads of keys and values.
        width: of a head, a multiple of 16.
        query_norm, key_norm: weights of root-mean-square norms of queries and keys, (W,).
    """

    def __init__(
        self,
        qkv: Float32,
        out: Float32,
        *,
        shared: int,
        width: int,
        scale: float,
        query_norm: Float32 | None = None,
        key_norm: Float32 | None = None,
        eps: float = 0.0,
    ) -> None:
        heads = len(out) // max(width, 1)
        if width % 16 or not 0 < width <= MAX_WIDTH or shared < 1 or heads % shared:
            raise ConfigError(
                f"attention of a token: {heads} heads of width {width} that share {shared}: the "
                f"width is a multiple of 16 up to {MAX_WIDTH}, and heads share equally"
            )
        check("TokenAttention", "out", out, (heads * width,))
        check("TokenAttention", "qkv", qkv, ((heads + 2 * shared) * width,))
        for name, weight in (("query_norm", query_norm), ("key_norm", key_norm)):
            if weight is not None:
                check("TokenAttention", name, weight, (width,))
        self._qkv, self._out, self._norms = qkv, out, (query_norm, key_norm)
        self._heads, self._shared, self._width = heads, shared, width
        self._floats = (scale, eps)
        self._kernel = KERNELS["attend_token"]

    def __call__(
        self, cosines: Float32, sines: Float32, keys: Any, values: Any, at: int, first: int
    ) -> None:
        """Attend to the places `first` to `at`, where the new key and value are written.

        Shape: cosines, sines (W / 2,), keys, values (N, capacity, W).
        """
        shared, width = self._shared, self._width
        capacity = keys.shape[1]
        if keys.shape != values.shape or keys.shape != (shared, capacity, width):
            raise ShapeError(f"attention of a token: keys {keys.shape}, values {values.shape}")
        if not 0 <= first <= at < capacity or not len(cosines) == len(sines) == width // 2:
            raise ShapeError(f"attention of a token: places {first} to {at} of {capacity}")
        arrays = (self._qkv, cosines, sines, *self._norms, keys, values, self._out)
        ints = (self._heads // shared, shared, width, capacity, at, first)
        grain = grain_for(2 * width * (at + 1 - first))
        run_prepared((self._kernel, arrays, ints, self._floats, self._heads, grain))

"""Max pooling on channels-last memory. Arrays are float32 and C-contiguous; see conv.py."""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError
from .conv import Pair
from .runtime import Float32, check, get_num_threads, grain_for, lanes, output, run


def max_pool2d(
    x: Float32,
    size: Pair,
    kernel: Pair,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    out: Float32 | None = None,
) -> Float32:
    """The largest value of each window; `size` is the output's, windows may reach over the end.

    Shape: x (N, H, W, C) -> (N, *size, C).
    """
    check("max_pool2d", "x", x, (None, None, None, None))
    ints = _geometry(x.shape, size, kernel, stride, padding, dilation)
    n, c = x.shape[0], x.shape[3]
    out = output("max_pool2d", out, (n, *size, c))
    if out.size:
        cost = size[1] * c * kernel[0] * kernel[1]
        run("max_pool", (x, out), ints, (), n * size[0], grain_for(cost))
    return out


def max_pool2d_backward(
    g: Float32,
    x: Float32,
    y: Float32,
    kernel: Pair,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
) -> Float32:
    """Gradient of the input of `max_pool2d`, given its output: to the first of equal values.

    Shape: g, y (N, OH, OW, C), x (N, H, W, C) -> (N, H, W, C).
    """
    where = "max_pool2d_backward"
    check(where, "x", x, (None, None, None, None))
    check(where, "y", y, (x.shape[0], None, None, x.shape[3]))
    check(where, "g", g, y.shape)
    ints = _geometry(x.shape, (y.shape[1], y.shape[2]), kernel, stride, padding, dilation)
    dx = np.zeros(x.shape, np.float32)
    if y.size:
        vectors, n = -(-x.shape[3] // lanes()), x.shape[0]
        parts = min(vectors, -(-2 * get_num_threads() // n))  # samples apart, else channels too
        run("max_pool_backward", (g, x, y, dx), (*ints, parts), (), n * parts, 1)
    return dx


def _geometry(
    shape: tuple[int, ...], size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[int, ...]:
    """The numbers of `Conv` in native.h."""
    if min(*size, *kernel, *stride, *dilation) < 1 or min(padding) < 0:
        raise ConfigError(
            f"native.max_pool2d: size {size}, kernel {kernel}, stride {stride} and dilation "
            f"{dilation} must be at least 1, padding {padding} at least 0"
        )
    n, h, w, c = shape
    return n, h, w, c, *size, c, *kernel, *stride, padding[0], padding[1], *dilation, 1

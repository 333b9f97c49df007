"""Activation functions.

What dominates real models is a primitive with a fused gradient; the rest is built of them.
At points where a function has a corner, gradients are those of PyTorch: 0 for relu at 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ShapeError
from ..op import op
from ..spelling import spelled
from .elementwise import exp, minimum
from .trigonometry import tanh

if TYPE_CHECKING:
    from ..tensor import Tensor

_BLOCK = 16384  # elements: a few operands of this size stay in the second-level cache


def in_passes(xp: Any, into: Any, *arrays: Any) -> Any:
    """`into(xp, *arrays, out)` run in blocks, so that its passes stay in the cache.

    The result has the memory layout of the first array.
    """
    out = xp.empty_like(arrays[0])
    if xp is not np or out.size <= _BLOCK or any(a.strides != out.strides for a in arrays):
        into(xp, *arrays, out)
        return out
    flat = [a.ravel(order="K") for a in arrays]
    result = out.ravel(order="K")
    for start in range(0, out.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        into(xp, *(a[block] for a in flat), result[block])
    return out


# -- piecewise linear --------------------------------------------------------------------------


@op
def relu(xp: Any, x: Tensor) -> Tensor:
    """max(x, 0)."""
    return xp.maximum(x, 0)


@relu.backward
def _(g, out):
    return relu_backward(g, out)


@op
def relu_backward(xp: Any, grad: Tensor, y: Tensor) -> Tensor:
    """The gradient where the result of `relu` was positive, else 0."""
    return grad * (y > 0)


@relu_backward.backward
def _(g, y):
    return relu_backward(g, y), None


@op(name="leaky_relu")
def _leaky_relu(xp: Any, x: Tensor, *, slope: float) -> Tensor:
    out = x * slope
    return (xp.maximum if slope <= 1 else xp.minimum)(x, out, out=out if x.ndim else None)


@_leaky_relu.backward
def _(g, out, slope):
    return (g * (out > 0)) * (1 - slope) + g * slope


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where it is positive, else `negative_slope * x`."""
    if negative_slope > 0:
        return _leaky_relu(x, slope=float(negative_slope))
    return relu(x) * (1 - negative_slope) + x * negative_slope if negative_slope else relu(x)


@op(name="hardtanh")
def _hardtanh(xp: Any, x: Tensor, *, low: float, high: float) -> Tensor:
    return xp.clip(x, low, high)


@_hardtanh.backward
def _(g, out, low, high):
    return hardtanh_backward(g, out, low=low, high=high)


@op
def hardtanh_backward(xp: Any, grad: Tensor, y: Tensor, *, low: float, high: float) -> Tensor:
    """The gradient where the result of `hardtanh` was inside its range, else 0."""
    return grad * ((y > low) & (y < high))


@hardtanh_backward.backward
def _(g, y, low, high):
    return hardtanh_backward(g, y, low=low, high=high), None


def hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """x limited to a range; no gradient flows at its ends and outside."""
    return _hardtanh(x, low=float(min_val), high=float(max_val))


def relu6(x: Tensor) -> Tensor:
    """x limited to 0 ... 6."""
    return _hardtanh(x, low=0.0, high=6.0)


def hardsigmoid(x: Tensor) -> Tensor:
    """x / 6 + 1 / 2, limited to 0 ... 1."""
    return _hardtanh(x * (1 / 6) + 0.5, low=0.0, high=1.0)


def _hardswish_of(x: Tensor) -> Tensor:
    return x * hardsigmoid(x)


@op(composite=_hardswish_of)
def hardswish(xp: Any, x: Tensor) -> Tensor:
    """x * hardsigmoid(x). Source: Howard et al. 2019, "Searching for MobileNetV3"."""

    def into(xp: Any, x: Any, out: Any) -> None:
        xp.add(x, 3.0, out=out)
        xp.clip(out, 0.0, 6.0, out=out)
        out *= x
        out *= 1 / 6

    return in_passes(xp, into, x)


@hardswish.backward
def _(g, x):
    return hardswish_backward(g, x)


@op
def hardswish_backward(xp: Any, grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of `hardswish`."""

    def into(xp: Any, g: Any, x: Any, out: Any) -> None:
        # x / 3 + 1 / 2 between -3 and 3; clipping x at 1.5 gives the 1 above 3 in one pass less.
        xp.multiply(x, 1 / 3, out=out)
        out += 0.5
        above = x >= 3
        out *= (x > -3) & ~above
        out += above
        out *= g

    return in_passes(xp, into, grad, x)


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """x where it is positive, else `weight * x`, with one weight, or one for each channel.

    Shape: x (B, C, ...), weight (1,) or (C,).
    """
    if weight.size != 1:
        if x.ndim < 2 or x.shape[1] != weight.size:
            raise ShapeError(
                f"prelu: {weight.size} weights do not fit the channels (axis 1) of "
                f"{tuple(x.shape)}.",
                expected=weight.size,
                got=tuple(x.shape),
            )
        weight = weight.reshape((weight.size,) + (1,) * (x.ndim - 2))
    positive = relu(x)
    return positive + weight * (x - positive)


# -- smooth ------------------------------------------------------------------------------------


def _sigmoid_into(xp: Any, x: Any, out: Any) -> None:
    # exp of the negated argument, limited so that it cannot overflow: accurate in both tails.
    xp.maximum(x, -708.0 if out.dtype.itemsize == 8 else -87.0, out=out)
    xp.negative(out, out=out)
    xp.exp(out, out=out)
    out += 1
    xp.reciprocal(out, out=out)


@op(to_float=True)
def sigmoid(xp: Any, x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return in_passes(xp, _sigmoid_into, x)


@sigmoid.backward
def _(g, out):
    return g * (out * (1 - out))


def _softplus_into(xp: Any, x: Any, out: Any) -> None:
    xp.abs(x, out=out)
    xp.negative(out, out=out)
    xp.exp(out, out=out)
    xp.log1p(out, out=out)
    out += xp.maximum(x, 0)


@op(name="softplus", to_float=True)
def _softplus(xp: Any, x: Tensor) -> Tensor:
    return in_passes(xp, _softplus_into, x)


@_softplus.backward
def _(g, x):
    return g * sigmoid(x)


def softplus(x: Tensor, beta: float = 1.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta, exact for large arguments too."""
    return _softplus(x) if beta == 1 else _softplus(x * beta) * (1 / beta)


def log_sigmoid(x: Tensor) -> Tensor:
    """log(sigmoid(x)), without underflow."""
    return -_softplus(-x)


def _silu_of(x: Tensor) -> Tensor:
    return x * sigmoid(x)


@op(to_float=True, composite=_silu_of)
def silu(xp: Any, x: Tensor) -> Tensor:
    """x * sigmoid(x), also called swish."""

    def into(xp: Any, x: Any, out: Any) -> None:
        _sigmoid_into(xp, x, out)
        out *= x

    return in_passes(xp, into, x)


@silu.backward
def _(g, x):
    return silu_backward(g, x)


@op
def silu_backward(xp: Any, grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of `silu`."""

    def into(xp: Any, g: Any, x: Any, out: Any) -> None:
        _sigmoid_into(xp, x, out)
        slope = 1 - out
        slope *= x
        slope += 1
        out *= slope
        out *= g

    return in_passes(xp, into, grad, x)


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), an approximation of gelu that CLIP uses."""
    return x * sigmoid(x * 1.702)


def mish(x: Tensor) -> Tensor:
    """x * tanh(softplus(x)). Source: Misra 2019, "Mish"."""
    return x * tanh(_softplus(x))


@op(name="elu", to_float=True)
def _elu(xp: Any, x: Tensor, *, alpha: float) -> Tensor:
    def into(xp: Any, x: Any, out: Any) -> None:
        xp.minimum(x, 0, out=out)
        xp.expm1(out, out=out)
        out *= alpha
        out += xp.maximum(x, 0)

    return in_passes(xp, into, x)


@_elu.backward
def _(g, x, alpha):
    below = x <= 0
    return g * (x > 0) + (g * alpha) * exp(minimum(x, 0.0)) * below


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where it is positive, else `alpha * (exp(x) - 1)`."""
    return _elu(x, alpha=float(alpha))


def selu(x: Tensor) -> Tensor:
    """Scaled elu. Source: Klambauer et al. 2017, "Self-normalizing neural networks"."""
    return _elu(x, alpha=1.6732632423543772) * 1.0507009873554805


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where it is positive, else `alpha * (exp(x / alpha) - 1)`."""
    return _elu(x * (1 / alpha), alpha=1.0) * alpha


def softsign(x: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return x / (1 + abs(x))


@spelled
def glu(x: Tensor, axis: int = -1) -> Tensor:
    """The first half of an axis, times the sigmoid of the second.

    Raises:
        ShapeError: the axis has an odd size.
    """
    place = axis % x.ndim
    size = x.shape[place]
    if size % 2:
        raise ShapeError(f"glu: axis {axis} of {tuple(x.shape)} cannot be halved.", got=size)
    before = (slice(None),) * place
    return x[(*before, slice(0, size // 2))] * sigmoid(x[(*before, slice(size // 2, None))])

"""Activation functions.

What dominates real models is a primitive with a fused gradient; the rest is built of them.
At points where a function has a corner, gradients are those of PyTorch: 0 for relu at 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ShapeError
from ..op import op
from ..spelling import spelled
from .elementwise import exp, minimum, tanh

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
    return g * ((out > low) & (out < high))


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


# -- the error function ------------------------------------------------------------------------

# erf(x) = x P(x*x) / Q(x*x) for |x| < 3.92, where it becomes 1 in float32: relative error 2e-8
# before rounding. Weighted least squares fit of our own.
_P32 = (
    1.1283791461486472,
    0.19040583836249586,
    0.05274863553399957,
    0.003765589593714208,
    0.0002848820642159473,
    2.0500909730022068e-06,
)
_Q32 = (
    1.0,
    0.5020755216987056,
    0.11410884826431707,
    0.014969160702963315,
    0.001162528856466721,
    3.8091719985280364e-05,
)
# In float64: erf(x) / x as a polynomial in 2 x*x - 1 for |x| < 1, and above that
# exp(x*x) erfc(x) as one in 4 / (3 + x), brought to -1 ... 1. Chebyshev interpolation.
_NEAR64 = (
    0.9654687386698673,
    -0.1405360890227171,
    0.019852496688983708,
    -0.0022854855611440673,
    0.0002175171560415978,
    -1.75371694414921e-05,
    1.2233827383720745e-06,
    -7.511569160678145e-08,
    4.11580054145447e-09,
    -2.0352493920236875e-10,
    9.167689188119807e-12,
    -3.791093040150038e-13,
    1.4488212905007758e-14,
    -5.166061346551406e-16,
    1.713081554907914e-17,
)
_FAR64 = (
    0.20531371419116834,
    0.15529869480353642,
    0.05076019140471426,
    0.013207468697947334,
    0.0026255421551130073,
    0.0003592167235186804,
    2.2018105670688195e-05,
    -2.6496700309378185e-06,
    -6.36719840133501e-07,
    2.9888173073157264e-09,
    1.3408171680041214e-08,
    3.837391205702274e-10,
    -3.1557587413071733e-10,
    -9.521397851965309e-12,
    8.598576424704652e-12,
    1.426022492593326e-14,
    -2.5037040933309683e-13,
    9.744020965996668e-15,
    6.295281487516645e-15,
)
_END64 = 6.2  # erf is 1 from here


def _polynomial(coefficients: tuple[float, ...], x: Any) -> Any:
    result = x * coefficients[-1]
    for c in coefficients[-2:0:-1]:
        result += c
        result *= x
    result += coefficients[0]
    return result


def _erf_into(xp: Any, x: Any, out: Any) -> None:
    if out.dtype.itemsize == 8:
        size = xp.minimum(xp.abs(x), _END64)
        square = size * size
        near = size * _polynomial(_NEAR64, 2 * xp.minimum(square, 1.0) - 1)
        least, most = 4 / (3 + _END64), 1.0
        t = 4 / (3 + xp.maximum(size, 1.0))
        t = (t - (least + most) / 2) * (2 / (most - least))
        far = 1 - xp.exp(-square) * _polynomial(_FAR64, t)
        xp.copysign(xp.where(size < 1, near, far), x, out=out)
        return
    limited = xp.clip(x, -3.92, 3.92)
    square = limited * limited
    limited *= _polynomial(_P32, square)
    limited /= _polynomial(_Q32, square)
    xp.clip(limited, -1.0, 1.0, out=out)


@op(to_float=True)
def erf(xp: Any, x: Tensor) -> Tensor:
    """The error function."""
    return in_passes(xp, _erf_into, x if x.ndim else x.reshape(1)).reshape(x.shape)


@erf.backward
def _(g, x):
    return g * (exp(-(x * x)) * (2 / math.sqrt(math.pi)))


@erf.kernel("cuda")
def _(x: Any) -> Any:
    from cupyx.scipy.special import erf as cupy_erf

    return cupy_erf(x)


# -- gelu --------------------------------------------------------------------------------------

_SLOPE = math.sqrt(2 / math.pi)
_CUBIC = 0.044715
_FLAT = 30.0  # beyond it the curve is straight to the last digit, and powers might overflow


def _gelu_of(x: Tensor, *, approximate: str) -> Tensor:
    if approximate == "tanh":
        return x * 0.5 * (1 + tanh((x + (x * x * x) * _CUBIC) * _SLOPE))
    return x * 0.5 * (1 + erf(x * math.sqrt(0.5)))


@op(name="gelu", to_float=True, composite=_gelu_of)
def _gelu(xp: Any, x: Tensor, *, approximate: str) -> Tensor:
    if approximate != "tanh":
        out = erf(x * math.sqrt(0.5))
        out += 1
        out *= x
        out *= 0.5
        return out

    def into(xp: Any, x: Any, out: Any) -> None:
        near = xp.clip(x, -_FLAT, _FLAT)
        xp.multiply(near, near, out=out)
        out *= _CUBIC * _SLOPE
        out += _SLOPE
        out *= near
        xp.tanh(out, out=out)
        out += 1
        out *= x
        out *= 0.5

    return in_passes(xp, into, x)


@_gelu.backward
def _(g, x, approximate):
    return gelu_backward(g, x, approximate=approximate)


@op
def gelu_backward(xp: Any, grad: Tensor, x: Tensor, *, approximate: str) -> Tensor:
    """The gradient of `gelu`."""
    if approximate != "tanh":
        out = erf(x * math.sqrt(0.5))
        out += 1
        out *= 0.5
        near = xp.clip(x, -_FLAT, _FLAT)
        density = near * near
        density *= -0.5
        density = xp.exp(density)
        density *= near
        density *= 1 / math.sqrt(2 * math.pi)
        out += density
        out *= grad
        return out

    def into(xp: Any, g: Any, x: Any, out: Any) -> None:
        near = xp.clip(x, -_FLAT, _FLAT)
        square = near * near
        xp.multiply(square, _CUBIC * _SLOPE, out=out)
        out += _SLOPE
        out *= near
        xp.tanh(out, out=out)
        # 0.5 (1 + t) + 0.5 x (1 - t t) slope (1 + 3 cubic x x)
        rest = out * out
        rest -= 1
        square *= -3 * _CUBIC * _SLOPE
        square -= _SLOPE
        rest *= square
        rest *= near
        out += 1
        out += rest
        out *= 0.5
        out *= g

    return in_passes(xp, into, grad, x)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution's probability of less than x.

    Args:
        approximate: "none" for the exact function, "tanh" for the approximation of GPT-2.

    Source: Hendrycks and Gimpel 2016, "Gaussian error linear units".
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate is 'none' or 'tanh', got {approximate!r}")
    return _gelu(x, approximate=approximate)

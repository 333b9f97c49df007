"""The error function, and the Gaussian error linear unit that is made of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..op import op
from .activation import in_passes
from .elementwise import exp
from .trigonometry import tanh

if TYPE_CHECKING:
    from ..tensor import Tensor

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

"""Trigonometric and hyperbolic functions, and angle and length of vectors; angles in radians."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..op import op
from .elementwise import conj, sqrt, where

if TYPE_CHECKING:
    from ..tensor import Tensor


@op(to_float=True)
def sin(xp: Any, x: Tensor) -> Tensor:
    """Sine."""
    return xp.sin(x)


@sin.backward
def _(g, x):
    return g * conj(cos(x))


@op(to_float=True)
def cos(xp: Any, x: Tensor) -> Tensor:
    """Cosine."""
    return xp.cos(x)


@cos.backward
def _(g, x):
    return -g * conj(sin(x))


@op(to_float=True)
def tan(xp: Any, x: Tensor) -> Tensor:
    """Tangent."""
    return xp.tan(x)


@tan.backward
def _(g, out):
    return g * conj(out * out + 1)


@op(to_float=True)
def asin(xp: Any, x: Tensor) -> Tensor:
    """Inverse sine."""
    return xp.arcsin(x)


@asin.backward
def _(g, x):
    return g / conj(sqrt(1 - x * x))


@op(to_float=True)
def acos(xp: Any, x: Tensor) -> Tensor:
    """Inverse cosine."""
    return xp.arccos(x)


@acos.backward
def _(g, x):
    return -g / conj(sqrt(1 - x * x))


@op(to_float=True)
def atan(xp: Any, x: Tensor) -> Tensor:
    """Inverse tangent."""
    return xp.arctan(x)


@atan.backward
def _(g, x):
    return g / conj(x * x + 1)


@op(promote=True, to_float=True)
def atan2(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Angle of the point (x2, x1), in radians."""
    return xp.arctan2(x1, x2)


@atan2.backward
def _(g, x1, x2):
    size = x1 * x1 + x2 * x2
    scaled = g / where(size == 0, 1.0, size)
    return scaled * x2, -scaled * x1


@op(promote=True, to_float=True)
def hypot(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Length of the vector (x1, x2), without overflow on the way. Its gradient at 0 is 0."""
    return xp.hypot(x1, x2)


@hypot.backward
def _(g, x1, x2, out):
    scaled = g / where(out == 0, 1.0, out)
    return scaled * x1, scaled * x2


@op(to_float=True)
def sinh(xp: Any, x: Tensor) -> Tensor:
    """Hyperbolic sine."""
    return xp.sinh(x)


@sinh.backward
def _(g, x):
    return g * conj(cosh(x))


@op(to_float=True)
def cosh(xp: Any, x: Tensor) -> Tensor:
    """Hyperbolic cosine."""
    return xp.cosh(x)


@cosh.backward
def _(g, x):
    return g * conj(sinh(x))


@op(to_float=True)
def tanh(xp: Any, x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return xp.tanh(x)


@tanh.backward
def _(g, out):
    return g * conj(1 - out * out)


@op(to_float=True)
def asinh(xp: Any, x: Tensor) -> Tensor:
    """Inverse hyperbolic sine."""
    return xp.arcsinh(x)


@asinh.backward
def _(g, x):
    return g / conj(sqrt(x * x + 1))


@op(to_float=True)
def acosh(xp: Any, x: Tensor) -> Tensor:
    """Inverse hyperbolic cosine."""
    return xp.arccosh(x)


@acosh.backward
def _(g, x):
    return g / conj(sqrt(x - 1) * sqrt(x + 1))


@op(to_float=True)
def atanh(xp: Any, x: Tensor) -> Tensor:
    """Inverse hyperbolic tangent."""
    return xp.arctanh(x)


@atanh.backward
def _(g, x):
    return g / conj(1 - x * x)

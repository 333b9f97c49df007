"""Rounding, division with a remainder, signs and neighbours of numbers.

Rounding is flat everywhere, and its gradient 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..op import op
from .elementwise import sign, where, zeros_of

if TYPE_CHECKING:
    from ..tensor import Tensor


def _rounded(xp: Any, function: str, x: Any) -> Any:
    return x.copy(order="K") if x.dtype.kind in "biu" else getattr(xp, function)(x)


@op
def floor(xp: Any, x: Tensor) -> Tensor:
    """The largest whole number that is not larger."""
    return _rounded(xp, "floor", x)


@op
def ceil(xp: Any, x: Tensor) -> Tensor:
    """The smallest whole number that is not smaller."""
    return _rounded(xp, "ceil", x)


@op
def trunc(xp: Any, x: Tensor) -> Tensor:
    """The nearest whole number towards zero."""
    return _rounded(xp, "trunc", x)


@op
def round(xp: Any, x: Tensor) -> Tensor:
    """The nearest whole number; of two that are as near, the even one."""
    return _rounded(xp, "rint", x)


for _flat in (floor, ceil, trunc, round):
    _flat.backward(lambda g: zeros_of(g))


@op(promote=True)
def floor_divide(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """The quotient rounded towards minus infinity."""
    return xp.floor_divide(x1, x2)


@floor_divide.backward
def _(g):
    return zeros_of(g), zeros_of(g)


@op(promote=True)
def remainder(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """What floor division leaves; it has the sign of x2."""
    return xp.remainder(x1, x2)


@remainder.backward
def _(g, x1, x2, needs):
    return g, -g * floor_divide(x1, x2) if needs[1] else None


# -- signs and neighbours ---------------------------------------------------------------------


@op(promote=True, to_float=True)
def copysign(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """The magnitude of x1 with the sign of x2 (which -0.0 has too)."""
    return xp.copysign(x1, x2)


@copysign.backward
def _(g, x1, x2):
    return where(signbit(x2), -g, g) * sign(x1), zeros_of(g)


@op(promote=True, raw=True, differentiable=False)
def nextafter(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """The next number of the dtype after x1 towards x2."""
    return xp.nextafter(x1, x2)


@op(differentiable=False)
def signbit(xp: Any, x: Tensor) -> Tensor:
    """Whether the sign is negative, as it is of -0.0."""
    return xp.signbit(x)

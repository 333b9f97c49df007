"""Elementwise arithmetic and functions of the array API standard, each with its gradient.

Gradients at boundary points are PyTorch's: equal operands of `maximum` and `minimum` get half
each, `clip` passes the gradient at its limits, `abs` has gradient 0 at 0. Rounding functions and
`sign` have gradient 0 everywhere. Trigonometry, rounding and logic have files of their own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..op import op

if TYPE_CHECKING:
    from ..tensor import Tensor

_least, _greatest = min, max

# -- arithmetic --------------------------------------------------------------------------------


@op(promote=True)
def add(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Sum of two tensors."""
    return xp.add(x1, x2)


@add.backward
def _(g):
    return g, g


@op(promote=True)
def subtract(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Difference of two tensors."""
    return xp.subtract(x1, x2)


@subtract.backward
def _(g, needs):
    return g, -g if needs[1] else None


@op(promote=True)
def multiply(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Product of two tensors, elementwise."""
    return xp.multiply(x1, x2)


@multiply.backward
def _(g, x1, x2, needs):
    return g * conj(x2) if needs[0] else None, g * conj(x1) if needs[1] else None


@op(promote=True, to_float=True)
def divide(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Quotient; integers give the default float."""
    return xp.divide(x1, x2)


@divide.backward
def _(g, x1, x2, needs):
    quotient = g / conj(x2)
    return quotient, -quotient * conj(x1 / x2) if needs[1] else None


@op
def negative(xp: Any, x: Tensor) -> Tensor:
    """The negated tensor."""
    return xp.negative(x)


@negative.backward
def _(g):
    return -g


@op(name="conj")
def _conj(xp: Any, x: Tensor) -> Tensor:
    return xp.conj(x)


@_conj.backward
def _(g):
    return _conj(g)


def conj(x: Tensor) -> Tensor:
    """Complex conjugate; a real tensor or number is its own."""
    dtype = getattr(x, "dtype", None)
    if dtype is None:
        return x.conjugate()
    return _conj(x) if dtype.kind == "c" else x


@op
def real(xp: Any, x: Tensor) -> Tensor:
    """Real part."""
    return xp.real(x).copy(order="K")


@real.backward
def _(g):
    return g


@op
def imag(xp: Any, x: Tensor) -> Tensor:
    """Imaginary part; zeros of a real tensor."""
    return xp.imag(x).copy(order="K") if x.dtype.kind == "c" else xp.zeros_like(x)


@imag.backward
def _(g, x):
    return g * 1j if x.dtype.kind == "c" else None


@op(promote=True)
def pow(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """`x1` to the power `x2`. The gradient of 0**0 is 0, and of x**0 too."""
    return xp.power(x1, x2)


@pow.backward
def _(g, x1, x2, out, needs):
    first = second = None
    if needs[0]:
        if isinstance(x2, (int, float)):
            if x2 == 2:
                first = g * (2 * conj(x1))
            elif x2 == 0:
                first = g * 0
            else:
                first = g * conj(x2 * x1 ** (x2 - 1))
        else:
            safe = where((x1 == 0) & (x2 == 0), 1.0, x2 - 1)
            first = g * conj(x2 * x1**safe)
    if needs[1]:
        base = x1 if isinstance(x1, (int, float, complex)) else where(x1 == 0, 1.0, x1)
        logarithm = math.log(base) if isinstance(base, (int, float)) and base > 0 else log(base)
        second = g * conj(out * logarithm)
        if not isinstance(x1, (int, float, complex)):
            second = where(x1 == 0, 0.0, second)
    return first, second


# -- selection ---------------------------------------------------------------------------------


@op(promote=(1, 2))
def where(xp: Any, condition: Tensor, x1: Tensor, x2: Tensor) -> Tensor:
    """Elements of `x1` where the condition holds, else of `x2`."""
    return xp.where(condition, x1, x2)


@where.backward
def _(g, condition):
    return None, where(condition, g, 0.0), where(condition, 0.0, g)


def _tie(x1: Any, x2: Any, g: Any, first_wins: Any) -> tuple[Any, Any]:
    """Gradients of a selection between two operands; equal ones get half each."""
    equal = x1 == x2
    half = g * 0.5
    return (
        where(equal, half, where(first_wins, g, 0.0)),
        where(equal, half, where(first_wins, 0.0, g)),
    )


@op(promote=True)
def maximum(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """The larger of two values; NaN if either is."""
    return xp.maximum(x1, x2)


@maximum.backward
def _(g, x1, x2):
    return _tie(x1, x2, g, x1 > x2)


@op(promote=True)
def minimum(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """The smaller of two values; NaN if either is."""
    return xp.minimum(x1, x2)


@minimum.backward
def _(g, x1, x2):
    return _tie(x1, x2, g, x1 < x2)


@op(name="clip", promote=True)
def _clip(xp: Any, x: Tensor, min: Any = None, max: Any = None) -> Tensor:
    if min is None and max is None:
        return x.copy(order="K")
    return xp.clip(x, min, max)


@_clip.backward
def _(g, x, min, max, needs):
    below = False if min is None else x < min
    above = False if max is None else x > max
    if min is not None and max is not None:
        above = above | (min > max)  # the upper limit wins
        below = below & ~above
    outside = below | above
    return (
        where(outside, 0.0, g),
        where(below, g, 0.0) if needs[1] else None,
        where(above, g, 0.0) if needs[2] else None,
    )


def clip(x: Tensor, /, min: Any = None, max: Any = None) -> Tensor:
    """The values, those beyond a limit replaced by it; limits are numbers, tensors or None."""
    if x.dtype.kind in "iu":  # numbers beyond the dtype limit nothing
        limits = np.iinfo(x.dtype)
        if type(min) is int:
            min = None if min < limits.min else _least(min, int(limits.max))
        if type(max) is int:
            max = None if max > limits.max else _greatest(max, int(limits.min))
    return _clip(x, min, max)


# -- functions of one tensor ------------------------------------------------------------------


@op(raw=True, differentiable=False)
def zeros_of(xp: Any, x: Tensor, *, shape: tuple[int, ...] | None = None) -> Tensor:
    """Zeros in the place of a tensor: the gradient of a function that is flat everywhere."""
    return xp.zeros_like(x, shape=shape)


@op
def positive(xp: Any, x: Tensor) -> Tensor:
    """The tensor, copied."""
    return xp.positive(x)


@positive.backward
def _(g):
    return g


@op
def abs(xp: Any, x: Tensor) -> Tensor:
    """Absolute value, or modulus of a complex number."""
    return xp.abs(x)


@abs.backward
def _(g, x):
    return g * sign(x)


@op
def sign(xp: Any, x: Tensor) -> Tensor:
    """-1, 0 or 1; of a complex number the number over its modulus."""
    return xp.sign(x)


@sign.backward
def _(g, x, out):
    if x.dtype.kind == "c":
        size = abs(x)
        safe = where(size == 0, 1.0, size)
        inner = conj(g) * out
        return where(size == 0, 0.0, (g - out * real(inner)) / safe)
    return zeros_of(g)


@op(to_float=True)
def exp(xp: Any, x: Tensor) -> Tensor:
    """e to the power x."""
    return xp.exp(x)


@exp.backward
def _(g, out):
    return g * conj(out)


@op(to_float=True)
def expm1(xp: Any, x: Tensor) -> Tensor:
    """exp(x) - 1, accurate near 0."""
    return xp.expm1(x)


@expm1.backward
def _(g, out):
    return g * conj(out + 1)


@op(to_float=True)
def log(xp: Any, x: Tensor) -> Tensor:
    """Natural logarithm."""
    return xp.log(x)


@log.backward
def _(g, x):
    return g / conj(x)


@op(to_float=True)
def log1p(xp: Any, x: Tensor) -> Tensor:
    """log(1 + x), accurate near 0."""
    return xp.log1p(x)


@log1p.backward
def _(g, x):
    return g / conj(1 + x)


@op(to_float=True)
def log2(xp: Any, x: Tensor) -> Tensor:
    """Logarithm to base 2."""
    return xp.log2(x)


@log2.backward
def _(g, x):
    return g / conj(x * math.log(2))


@op(to_float=True)
def log10(xp: Any, x: Tensor) -> Tensor:
    """Logarithm to base 10."""
    return xp.log10(x)


@log10.backward
def _(g, x):
    return g / conj(x * math.log(10))


@op(to_float=True)
def sqrt(xp: Any, x: Tensor) -> Tensor:
    """Square root."""
    return xp.sqrt(x)


@sqrt.backward
def _(g, out):
    return g / conj(out * 2)


@op
def square(xp: Any, x: Tensor) -> Tensor:
    """x times x."""
    return xp.square(x)


@square.backward
def _(g, x):
    return g * conj(x * 2)


@op(to_float=True)
def reciprocal(xp: Any, x: Tensor) -> Tensor:
    """1 / x."""
    return xp.reciprocal(x)


@reciprocal.backward
def _(g, out):
    return -g * conj(out * out)


@op(promote=True, to_float=True)
def logaddexp(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """log(exp(x1) + exp(x2)), without overflow on the way."""
    return xp.logaddexp(x1, x2)


@logaddexp.backward
def _(g, x1, x2, out):
    # Both -inf: nothing moves the result, so the gradient is 0 and not NaN.
    safe = where(out == -math.inf, 0.0, out)
    return g * exp(x1 - safe), g * exp(x2 - safe)

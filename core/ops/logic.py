"""Comparisons, bits and truth values. None of them has a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..op import op
from .axes import Axis

if TYPE_CHECKING:
    from ..tensor import Tensor


# -- comparisons -------------------------------------------------------------------------------


@op(promote=True, differentiable=False)
def equal(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Whether elements are equal."""
    return xp.equal(x1, x2)


@op(promote=True, differentiable=False)
def not_equal(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Whether elements differ."""
    return xp.not_equal(x1, x2)


@op(promote=True, differentiable=False)
def less(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Whether x1 < x2."""
    return xp.less(x1, x2)


@op(promote=True, differentiable=False)
def less_equal(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Whether x1 <= x2."""
    return xp.less_equal(x1, x2)


@op(promote=True, differentiable=False)
def greater(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Whether x1 > x2."""
    return xp.greater(x1, x2)


@op(promote=True, differentiable=False)
def greater_equal(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Whether x1 >= x2."""
    return xp.greater_equal(x1, x2)


# -- bits -------------------------------------------------------------------------------------


@op(promote=True, differentiable=False)
def bitwise_and(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Bits set in both; logical and of booleans."""
    return xp.bitwise_and(x1, x2)


@op(promote=True, differentiable=False)
def bitwise_or(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Bits set in either; logical or of booleans."""
    return xp.bitwise_or(x1, x2)


@op(promote=True, differentiable=False)
def bitwise_xor(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Bits set in exactly one."""
    return xp.bitwise_xor(x1, x2)


@op(promote=True, differentiable=False)
def bitwise_left_shift(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Bits moved left by x2 places."""
    return xp.left_shift(x1, x2)


@op(promote=True, differentiable=False)
def bitwise_right_shift(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Bits moved right by x2 places, keeping the sign."""
    return xp.right_shift(x1, x2)


@op(differentiable=False)
def bitwise_invert(xp: Any, x: Tensor) -> Tensor:
    """Every bit flipped; logical not of booleans."""
    return xp.invert(x)


# -- truth values ------------------------------------------------------------------------------


@op(differentiable=False)
def logical_and(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Whether both are true (not 0)."""
    return xp.logical_and(x1, x2)


@op(differentiable=False)
def logical_or(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Whether one or both are true (not 0)."""
    return xp.logical_or(x1, x2)


@op(differentiable=False)
def logical_xor(xp: Any, x1: Tensor, x2: Tensor) -> Tensor:
    """Whether exactly one is true (not 0)."""
    return xp.logical_xor(x1, x2)


@op(differentiable=False)
def logical_not(xp: Any, x: Tensor) -> Tensor:
    """Whether it is false (0)."""
    return xp.logical_not(x)


@op(differentiable=False)
def isnan(xp: Any, x: Tensor) -> Tensor:
    """Whether elements are not a number."""
    return xp.isnan(x)


@op(differentiable=False)
def isinf(xp: Any, x: Tensor) -> Tensor:
    """Whether elements are plus or minus infinity."""
    return xp.isinf(x)


@op(differentiable=False)
def isfinite(xp: Any, x: Tensor) -> Tensor:
    """Whether elements are neither infinite nor NaN."""
    return xp.isfinite(x)


@op(differentiable=False)
def all(xp: Any, x: Tensor, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether every element over the axes is true (not 0)."""
    return xp.all(x, axis=axis, keepdims=keepdims)


@op(differentiable=False)
def any(xp: Any, x: Tensor, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether an element over the axes is true (not 0)."""
    return xp.any(x, axis=axis, keepdims=keepdims)


@op(promote=True, differentiable=False)
def isclose(
    xp: Any,
    x1: Tensor,
    x2: Tensor,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    equal_nan: bool = False,
) -> Tensor:
    """Whether elements differ by at most `atol + rtol * abs(x2)`; infinities equal themselves."""
    return xp.isclose(x1, x2, rtol=rtol, atol=atol, equal_nan=equal_nan)


def allclose(
    x1: Tensor,
    x2: Tensor,
    /,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    equal_nan: bool = False,
) -> bool:
    """Whether all elements are close; see `isclose`."""
    return bool(all(isclose(x1, x2, rtol=rtol, atol=atol, equal_nan=equal_nan)))

"""What `+`, `==`, `@`, `-x` and the like are for a tensor: one table of operations.

An operator takes tensors, arrays and numbers; for anything else it returns `NotImplemented`, so
that the other object has its turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .callers import drop_our_frames
from .devices import backend_of
from .foreign import no_tensor
from .operands import SCALARS
from .ops import elementwise, logic, rounding
from .ops.linalg import matmul

if TYPE_CHECKING:
    from .tensor import Tensor

_ARITHMETIC: dict[str, Callable[..., Any]] = {  # with a reflected form: `2 - x` is x.__rsub__(2)
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "truediv": elementwise.divide,
    "floordiv": rounding.floor_divide,
    "mod": rounding.remainder,
    "pow": elementwise.pow,
    "matmul": matmul,
    "and": logic.bitwise_and,
    "or": logic.bitwise_or,
    "xor": logic.bitwise_xor,
    "lshift": logic.bitwise_left_shift,
    "rshift": logic.bitwise_right_shift,
}
_COMPARISONS: dict[str, Callable[..., Any]] = {
    "eq": logic.equal,
    "ne": logic.not_equal,
    "lt": logic.less,
    "le": logic.less_equal,
    "gt": logic.greater,
    "ge": logic.greater_equal,
}
_NO_NUMBERS = (type(None), str, list, tuple, dict)
_UNARY: dict[str, Callable[..., Any]] = {
    "neg": elementwise.negative,
    "pos": elementwise.positive,
    "abs": elementwise.abs,
    "invert": logic.bitwise_invert,
}


def install_operators(tensor_class: type[Tensor]) -> None:
    """Give a tensor its operators."""

    def takes(other: Any) -> bool:
        return (
            isinstance(other, tensor_class)
            or type(other) in SCALARS
            or isinstance(other, (np.generic, np.ndarray))
            or backend_of(other) is not None
        )

    def binary(op: Callable[..., Any], name: str) -> Callable[..., Any]:
        def method(self: Tensor, other: Any) -> Any:
            try:
                if takes(other):
                    return op(self, other)
            except Exception as error:
                drop_our_frames(error)
                raise
            return refused(name, other)

        return method

    def reflected(op: Callable[..., Any], name: str) -> Callable[..., Any]:
        def method(self: Tensor, other: Any) -> Any:
            return op(other, self) if takes(other) else refused(name, other)

        return method

    def refused(name: str, other: Any) -> Any:
        """Other objects have their turn, but for those that have none in arithmetic."""
        if name in _ARITHMETIC and type(other) in _NO_NUMBERS:
            raise no_tensor(name, other)
        return NotImplemented

    def unary(op: Callable[..., Any]) -> Callable[..., Any]:
        def method(self: Tensor) -> Any:
            return op(self)

        return method

    for name, op in _ARITHMETIC.items():
        setattr(tensor_class, f"__{name}__", binary(op, name))
        setattr(tensor_class, f"__r{name}__", reflected(op, name))
    for name, op in _COMPARISONS.items():
        setattr(tensor_class, f"__{name}__", binary(op, name))
    for name, op in _UNARY.items():
        setattr(tensor_class, f"__{name}__", unary(op))


class Operators:
    """The operators for type checkers; `install_operators` makes them."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __rfloordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __rmod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __rand__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __ror__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __rxor__(self, other: Any) -> Tensor: ...
        def __lshift__(self, other: Any) -> Tensor: ...
        def __rshift__(self, other: Any) -> Tensor: ...
        def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __pos__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...

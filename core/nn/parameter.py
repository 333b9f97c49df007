"""The two kinds of tensor that a module owns."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ..creation import asarray
from ..devices import backend_of
from ..tensor import Tensor


class Parameter(Tensor):
    """A tensor that a module owns and an optimizer trains. Shares memory with an array given."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(_array_of(data))
        if requires_grad:
            self.requires_grad_()


class Buffer(Tensor):
    """A tensor that a module owns and no optimizer trains, such as a running mean.

    Args:
        persistent: whether `state_dict` holds it.
    """

    __slots__ = ("persistent",)

    def __init__(self, data: Any, persistent: bool = True) -> None:
        super().__init__(_array_of(data))
        self.persistent = persistent

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self)] = copied = type(self)(self.array.copy(), self.persistent)
        return copied

    def __reduce__(self) -> Any:
        return type(self), (np.ascontiguousarray(self.cpu().array), self.persistent)


def _array_of(data: Any) -> Any:
    if isinstance(data, Tensor):
        return data.array
    return data if backend_of(data) is not None else asarray(data).array

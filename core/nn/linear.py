"""Linear maps, and layers that only change the shape."""

from __future__ import annotations

import math
from typing import Any

from ..tensor import Tensor
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter


class Linear(Module):
    """`x @ weight.T + bias` over the last axis.

    Args:
        in_features, out_features: sizes of the last axis before and after.
        bias: whether to add one.

    Shape: (..., in_features) gives (..., out_features); weight (out_features, in_features).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.in_features = in_features
        self.out_features = out_features
        self.weight = init.parameter(out_features, in_features, device=device, dtype=dtype)
        self.bias: Parameter | None = None
        if bias:
            self.bias = init.parameter(out_features, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


class Identity(Module):
    """Its input, unchanged; any arguments are taken and ignored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def forward(self, input: Any) -> Any:
        return input


class Flatten(Module):
    """Joins axes: by default all but the first."""

    def __init__(self, start_axis: int = 1, end_axis: int = -1) -> None:
        self.start_axis, self.end_axis = start_axis, end_axis

    def forward(self, input: Tensor) -> Tensor:
        shape = input.shape
        start, end = self.start_axis % len(shape), self.end_axis % len(shape)
        joined = math.prod(shape[start : end + 1])
        return input.reshape(*shape[:start], joined, *shape[end + 1 :])

    def extra_repr(self) -> str:
        return f"start_axis={self.start_axis}, end_axis={self.end_axis}"


class Unflatten(Module):
    """Splits one axis into several: `Unflatten(1, (64, 6, 6))`."""

    def __init__(self, axis: int, unflattened_size: tuple[int, ...]) -> None:
        self.axis, self.unflattened_size = axis, tuple(unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        axis = self.axis % input.ndim
        return input.reshape(*input.shape[:axis], *self.unflattened_size, *input.shape[axis + 1 :])

    def extra_repr(self) -> str:
        return f"axis={self.axis}, unflattened_size={self.unflattened_size}"

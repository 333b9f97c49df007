"""Padding layers. Padding is a number, or numbers before and after each axis, the last first."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigError
from ..tensor import Tensor
from . import functional as F
from .module import Module


class _Pad(Module):
    axes = 0
    mode = "constant"

    def __init__(self, padding: int | Sequence[int]) -> None:
        sides = 2 * self.axes
        self.padding = (padding,) * sides if isinstance(padding, int) else tuple(padding)
        if len(self.padding) != sides:
            raise ConfigError(
                f"{type(self).__name__}: padding is a number or {sides} numbers, got {padding}",
                got=padding,
            )

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, mode=self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _Constant(_Pad):
    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, value=self.value)

    def extra_repr(self) -> str:
        return f"{self.padding}, value={self.value}"


class ConstantPad1d(_Constant):
    """Pads the last axis with a value."""

    axes = 1


class ConstantPad2d(_Constant):
    """Pads the last two axes with a value: (left, right, top, bottom)."""

    axes = 2


class ZeroPad1d(_Pad):
    """Pads the last axis with zeros."""

    axes = 1


class ZeroPad2d(_Pad):
    """Pads the last two axes with zeros: (left, right, top, bottom)."""

    axes = 2


class ReflectionPad1d(_Pad):
    """Pads the last axis with its mirror image, the edge not repeated."""

    axes = 1
    mode = "reflect"


class ReflectionPad2d(_Pad):
    """Pads the last two axes with their mirror images, edges not repeated."""

    axes = 2
    mode = "reflect"


class ReplicationPad1d(_Pad):
    """Pads the last axis by repeating its edges."""

    axes = 1
    mode = "replicate"


class ReplicationPad2d(_Pad):
    """Pads the last two axes by repeating their edges."""

    axes = 2
    mode = "replicate"


class CircularPad1d(_Pad):
    """Pads the last axis as if it were a ring."""

    axes = 1
    mode = "circular"


class CircularPad2d(_Pad):
    """Pads the last two axes as if they were rings."""

    axes = 2
    mode = "circular"

"""Pooling layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..tensor import Tensor
from . import functional as F
from .module import Module

Size = int | tuple[int, int]


class _MaxPool(Module):
    _pool: Callable[..., Tensor]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size: Any = kernel_size
        self.stride: Any = kernel_size if stride is None else stride
        self.padding: Any = padding
        self.dilation: Any = dilation
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        return self._pool(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest value of each window; arguments as for `MaxPool2d`.

    Shape: (B, C, L) gives (B, C, L').
    """

    _pool = staticmethod(F.max_pool1d)


class MaxPool2d(_MaxPool):
    """The largest value of each window.

    Args:
        kernel_size: size of the windows.
        stride: steps between them; the kernel size by default.
        padding: added around, as minus infinity.
        dilation: steps inside them.
        ceil_mode: keep a last window that is not full.

    Shape: (B, C, H, W) gives (B, C, H', W').
    """

    _pool = staticmethod(F.max_pool2d)


class _AvgPool(Module):
    _pool: Callable[..., Tensor]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size: Any = kernel_size
        self.stride: Any = kernel_size if stride is None else stride
        self.padding: Any = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return self._pool(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The mean of each window; arguments as for `AvgPool2d`.

    Shape: (B, C, L) gives (B, C, L').
    """

    _pool = staticmethod(F.avg_pool1d)


class AvgPool2d(_AvgPool):
    """The mean of each window.

    Args:
        kernel_size: size of the windows.
        stride: steps between them; the kernel size by default.
        padding: zeros added around.
        ceil_mode: keep a last window that is not full.
        count_include_pad: whether the zeros count.

    Shape: (B, C, H, W) gives (B, C, H', W').
    """

    _pool = staticmethod(F.avg_pool2d)


class _Adaptive(Module):
    _pool: Callable[..., Tensor]

    def __init__(self, output_size: Any) -> None:
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return self._pool(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_Adaptive):
    """The mean of as many windows as asked for. Shape: (B, C, L) gives (B, C, output_size)."""

    _pool = staticmethod(F.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_Adaptive):
    """The mean of as many windows as asked for; None keeps an axis.

    Shape: (B, C, H, W) gives (B, C, *output_size).
    """

    _pool = staticmethod(F.adaptive_avg_pool2d)


class AdaptiveMaxPool1d(_Adaptive):
    """The largest of as many windows as asked for. Shape: (B, C, L) gives (B, C, output_size)."""

    _pool = staticmethod(F.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_Adaptive):
    """The largest of as many windows as asked for; None keeps an axis.

    Shape: (B, C, H, W) gives (B, C, *output_size).
    """

    _pool = staticmethod(F.adaptive_max_pool2d)

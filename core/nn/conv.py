"""Convolutions and transposed convolutions of one and two axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ConfigError, ShapeError
from ..tensor import Tensor
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter

Size = int | Sequence[int]

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def sizes(value: Size, axes: int, name: str) -> tuple[int, ...]:
    """One number for each spatial axis."""
    found = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(found) != axes:
        raise ConfigError(f"{name} takes a number or {axes} of them, got {value}", got=value)
    return found


class _Conv(Module):
    """What convolutions of all kinds share. `axes` is the number of spatial axes."""

    axes = 0
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        output_padding: Size = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        name = type(self).__name__
        if in_channels % groups or out_channels % groups:
            raise ConfigError(
                f"{name}: groups={groups} must divide in_channels={in_channels} and "
                f"out_channels={out_channels}."
            )
        if padding_mode not in _PADDING_MODES:
            raise ConfigError(f"{name}: padding_mode is one of {_PADDING_MODES}", got=padding_mode)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size: Any = sizes(kernel_size, self.axes, "kernel_size")
        self.stride: Any = sizes(stride, self.axes, "stride")
        self.dilation: Any = sizes(dilation, self.axes, "dilation")
        if min(*self.kernel_size, *self.stride, *self.dilation) < 1:
            raise ConfigError(
                f"{name}: kernel_size, stride and dilation are 1 or more, got "
                f"{self.kernel_size}, {self.stride}, {self.dilation}.",
                got=(self.kernel_size, self.stride, self.dilation),
            )
        self.output_padding = sizes(output_padding, self.axes, "output_padding")
        self.groups = groups
        self.padding_mode = padding_mode
        self.padding: Any = self._read_padding(padding)
        first, second = out_channels, in_channels // groups
        if self.transposed:
            first, second = in_channels, out_channels // groups
        shape = (first, second, *self.kernel_size)
        self.weight = init.parameter(*shape, device=device, dtype=dtype)
        self.bias: Parameter | None = None
        if bias:
            self.bias = init.parameter(out_channels, device=device, dtype=dtype)
        self.reset_parameters()

    def _read_padding(self, padding: Size | str) -> str | tuple[int, ...]:
        if not isinstance(padding, str):
            return sizes(padding, self.axes, "padding")
        if padding not in ("same", "valid") or self.transposed:
            raise ConfigError(f"{type(self).__name__}: padding is a number, 'same' or 'valid'")
        if padding == "same" and any(s != 1 for s in self.stride):
            raise ConfigError(f"{type(self).__name__}: padding='same' needs a stride of 1")
        return padding

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        fan_in = self.weight.shape[1] * math.prod(self.kernel_size)
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def _padded(self, input: Tensor) -> tuple[Tensor, Any]:
        """The input, padded here where the convolution cannot, and what is left to pad."""
        if self.padding_mode == "zeros":
            return input, self.padding
        return F.pad(input, self._sides(), self.padding_mode), 0

    def _sides(self) -> tuple[int, ...]:
        """Padding before and after each axis, last axis first; "same" may add one more after."""
        sides: list[int] = []
        for i in reversed(range(self.axes)):
            if self.padding == "same":
                total = self.dilation[i] * (self.kernel_size[i] - 1)
                sides += [total // 2, total - total // 2]
            else:
                sides += [0, 0] if self.padding == "valid" else [int(self.padding[i])] * 2
        return tuple(sides)

    def extra_repr(self) -> str:
        parts = [
            f"{self.in_channels}, {self.out_channels}",
            f"kernel_size={self.kernel_size}",
            f"stride={self.stride}",
        ]
        zero, one = (0,) * self.axes, (1,) * self.axes
        for name, default in (
            ("padding", zero),
            ("output_padding", zero),
            ("dilation", one),
            ("groups", 1),
            ("padding_mode", "zeros"),
        ):
            if getattr(self, name) != default:
                parts.append(f"{name}={getattr(self, name)}")
        if self.bias is None:
            parts.append("bias=False")
        return ", ".join(parts)


class Conv1d(_Conv):
    """Convolution along one axis.

    Args:
        in_channels, out_channels: channels before and after.
        kernel_size, stride, dilation: numbers, or one for each axis.
        padding: numbers, "valid" (none) or "same" (the size is kept).
        groups: channels are split into so many parts that do not see each other.
        bias: whether to add one.
        padding_mode: "zeros", "reflect", "replicate" or "circular".

    Shape: (B, in_channels, L) gives (B, out_channels, L').
    """

    axes = 1

    def forward(self, input: Tensor) -> Tensor:
        x, padding = self._padded(input)
        return F.conv1d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv2d(_Conv):
    """Convolution over two axes.

    Args:
        in_channels, out_channels: channels before and after.
        kernel_size, stride, dilation: numbers, or one for each axis.
        padding: numbers, "valid" (none) or "same" (the size is kept).
        groups: channels are split into so many parts that do not see each other.
        bias: whether to add one.
        padding_mode: "zeros", "reflect", "replicate" or "circular".

    Shape: (B, in_channels, H, W) gives (B, out_channels, H', W').
    """

    axes = 2

    def forward(self, input: Tensor) -> Tensor:
        x, padding = self._padded(input)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class _ConvTranspose(_Conv):
    transposed = True
    _convolve: Callable[..., Tensor]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ConfigError(f"{type(self).__name__}: padding_mode is 'zeros'", got=padding_mode)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            output_padding=output_padding,
            device=device,
            dtype=dtype,
        )

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        return self._convolve(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self._extra(input, output_size),
            self.groups,
            self.dilation,
        )

    def _extra(self, input: Tensor, output_size: Sequence[int] | None) -> Any:
        """How much to add after each axis, so that the result has the size asked for."""
        if output_size is None:
            return self.output_padding
        wanted = tuple(output_size)[-self.axes :]
        extra = []
        for i, size in enumerate(wanted):
            least = (input.shape[i - self.axes] - 1) * self.stride[i] - 2 * int(self.padding[i])
            least += self.dilation[i] * (self.kernel_size[i] - 1) + 1
            if not least <= size < least + self.stride[i]:
                raise ShapeError(
                    f"{type(self).__name__}: output_size {size} cannot be had on axis {i}: it lies "
                    f"between {least} and {least + self.stride[i] - 1}.",
                    got=size,
                )
            extra.append(size - least)
        return tuple(extra)


class ConvTranspose1d(_ConvTranspose):
    """The gradient of a convolution along one axis, as a layer: it makes the axis longer.

    Shape: (B, in_channels, L) gives (B, out_channels, L'); weight (in, out / groups, K).
    """

    axes = 1
    _convolve = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """The gradient of a convolution over two axes, as a layer: it makes images larger.

    Shape: (B, in_channels, H, W) gives (B, out_channels, H', W'); weight (in, out / groups, K, K).
    """

    axes = 2
    _convolve = staticmethod(F.conv_transpose2d)

"""Pooling in one and two dimensions, as users call it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ShapeError
from .conv import Pair
from .convolution import pair
from .pool import _avg_pool2d, _max_pool2d, global_avg_pool
from .resampling import averaging_taps, resample
from .shape import concat, reshape

if TYPE_CHECKING:
    from ..tensor import Tensor


def _pool_length(n: int, stride: int, padding: int, reach: int, ceil: bool) -> int:
    room = n + 2 * padding - reach
    length = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (length - 1) * stride >= n + padding:
        length -= 1  # the last window must start inside the image or its left padding
    return length


def _geometry(
    where: str,
    x: Tensor,
    kernel_size: int | Pair,
    stride: int | Pair | None,
    padding: int | Pair,
    dilation: int | Pair,
    ceil_mode: bool,
) -> tuple[Pair, Pair, Pair, Pair, Pair]:
    """Output size, kernel, stride, padding and dilation, checked."""
    if x.ndim != 4:
        hint = "\nOne image? Add the batch axis: x[None]" if x.ndim == 3 else ""
        raise ShapeError(
            f"{where}: the input is (B, C, H, W), got {tuple(x.shape)}.{hint}", got=tuple(x.shape)
        )
    kernel = pair(kernel_size, "kernel_size")
    steps = kernel if stride is None else pair(stride, "stride")
    border, spread = pair(padding, "padding"), pair(dilation, "dilation")
    if min(*kernel, *steps, *spread) < 1 or min(border) < 0:
        raise ConfigError(
            f"{where}: kernel {kernel}, stride {steps} and dilation {spread} must be at least 1, "
            f"padding {border} at least 0."
        )
    size = []
    for n, k, s, p, d in zip(x.shape[2:], kernel, steps, border, spread, strict=True):
        if 2 * p > k:
            raise ConfigError(f"{where}: padding {border} exceeds half the kernel {kernel}.")
        length = _pool_length(n, s, p, d * (k - 1) + 1, ceil_mode)
        if length < 1:
            raise ShapeError(
                f"{where}: a window of {kernel} does not fit the image {tuple(x.shape)} with "
                f"padding {border}.",
                expected=kernel,
                got=tuple(x.shape),
            )
        size.append(length)
    return (size[0], size[1]), kernel, steps, border, spread


def max_pool2d(
    x: Tensor,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest value in each window; padding never wins.

    Args:
        stride: defaults to the kernel's size.
        ceil_mode: windows that hang over the end count too.

    Shape: x (B, C, H, W); the result is (B, C, OH, OW).
    """
    size, kernel, steps, border, spread = _geometry(
        "max_pool2d", x, kernel_size, stride, padding, dilation, ceil_mode
    )
    return _max_pool2d(x, size=size, kernel=kernel, stride=steps, padding=border, dilation=spread)


def avg_pool2d(
    x: Tensor,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window.

    Args:
        count_include_pad: padded zeros count as values.

    Shape: x (B, C, H, W); the result is (B, C, OH, OW).
    """
    size, kernel, steps, border, _ = _geometry(
        "avg_pool2d", x, kernel_size, stride, padding, 1, ceil_mode
    )
    return _avg_pool2d(
        x,
        size=size,
        kernel=kernel,
        stride=steps,
        padding=border,
        include_pad=bool(count_include_pad),
    )


def _lifted(where: str, x: Tensor) -> Tensor:
    if x.ndim != 3:
        raise ShapeError(
            f"{where}: the input is (B, C, L), got {tuple(x.shape)}.", got=tuple(x.shape)
        )
    return reshape(x, (x.shape[0], x.shape[1], 1, x.shape[2]))


def _lowered(x: Tensor) -> Tensor:
    return reshape(x, (x.shape[0], x.shape[1], x.shape[3]))


def max_pool1d(
    x: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest value in each window of (B, C, L)."""
    step = kernel_size if stride is None else stride
    image = _lifted("max_pool1d", x)
    return _lowered(
        max_pool2d(image, (1, kernel_size), (1, step), (0, padding), (1, dilation), ceil_mode)
    )


def avg_pool1d(
    x: Tensor,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of (B, C, L)."""
    step = kernel_size if stride is None else stride
    image = _lifted("avg_pool1d", x)
    return _lowered(
        avg_pool2d(image, (1, kernel_size), (1, step), (0, padding), ceil_mode, count_include_pad)
    )


def _target(x: Tensor, output_size: Any) -> Pair:
    wanted = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    rows, columns = (n if n is not None else x.shape[2 + i] for i, n in enumerate(wanted))
    return int(rows), int(columns)


def adaptive_avg_pool2d(x: Tensor, output_size: int | tuple[int | None, int | None]) -> Tensor:
    """Means of windows that divide the image into `output_size` parts; None keeps an axis.

    Shape: x (B, C, H, W); the result is (B, C, *output_size).
    """
    if x.ndim != 4:
        raise ShapeError(
            f"adaptive_avg_pool2d: the input is (B, C, H, W), got {tuple(x.shape)}.",
            got=tuple(x.shape),
        )
    size = _target(x, output_size)
    if size == (1, 1):
        return reshape(global_avg_pool(x), (x.shape[0], x.shape[1], 1, 1))
    for axis, n in ((2, size[0]), (3, size[1])):
        if x.shape[axis] != n:
            x = resample(x, taps=averaging_taps(x.shape[axis], n), axis=axis)
    return x


def adaptive_max_pool2d(x: Tensor, output_size: int | tuple[int | None, int | None]) -> Tensor:
    """Largest values of windows that divide the image into `output_size` parts.

    Shape: x (B, C, H, W); the result is (B, C, *output_size).
    """
    size = _target(x, output_size)
    if all(n % m == 0 for n, m in zip(x.shape[2:], size, strict=True)):
        return max_pool2d(x, (x.shape[2] // size[0], x.shape[3] // size[1]))
    for axis, n in ((2, size[0]), (3, size[1])):
        length = x.shape[axis]
        parts = []
        for i in range(n):
            start, stop = i * length // n, -(-(i + 1) * length // n)
            part = x[(slice(None),) * axis + (slice(start, stop),)]
            window = (part.shape[2], 1) if axis == 2 else (1, part.shape[3])
            parts.append(max_pool2d(part, window))
        x = concat(parts, axis=axis)
    return x


def adaptive_avg_pool1d(x: Tensor, output_size: int) -> Tensor:
    """Means of windows that divide (B, C, L) into `output_size` parts."""
    return _lowered(adaptive_avg_pool2d(_lifted("adaptive_avg_pool1d", x), (1, output_size)))


def adaptive_max_pool1d(x: Tensor, output_size: int) -> Tensor:
    """Largest values of windows that divide (B, C, L) into `output_size` parts."""
    return _lowered(adaptive_max_pool2d(_lifted("adaptive_max_pool1d", x), (1, output_size)))

"""Cutting images into patches, and putting patches together to images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ShapeError
from ..op import op
from .conv import Pair, kernel_reach, output_length
from .convolution import pair

if TYPE_CHECKING:
    from ..tensor import Tensor


@op(name="unfold")
def _unfold(
    xp: Any, x: Tensor, *, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    b, c, h, w = x.shape
    oh, ow = (
        output_length(n, k, s, 2 * p, d)
        for n, k, s, p, d in zip((h, w), kernel, stride, padding, dilation, strict=True)
    )
    out: Any = xp.zeros((b, c, *kernel, oh, ow), x.dtype)
    for i in range(kernel[0]):
        to_rows, rows = kernel_reach(h, oh, i * dilation[0] - padding[0], stride[0])
        for j in range(kernel[1]):
            to, place = kernel_reach(w, ow, j * dilation[1] - padding[1], stride[1])
            out[:, :, i, j, to_rows, to] = x[:, :, rows, place]
    return out.reshape(b, c * kernel[0] * kernel[1], oh * ow)


@_unfold.backward
def _(g, shapes, kernel, stride, padding, dilation):
    return _fold(
        g, size=shapes[0][2:], kernel=kernel, stride=stride, padding=padding, dilation=dilation
    )


@op(name="fold")
def _fold(
    xp: Any, x: Tensor, *, size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor:
    h, w = size
    oh, ow = (
        output_length(n, k, s, 2 * p, d)
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    b, c = x.shape[0], x.shape[1] // (kernel[0] * kernel[1])
    parts: Any = x.reshape(b, c, *kernel, oh, ow)
    out = xp.zeros((b, c, h, w), x.dtype)
    for i in range(kernel[0]):
        rows, into_rows = kernel_reach(h, oh, i * dilation[0] - padding[0], stride[0])
        for j in range(kernel[1]):
            place, into = kernel_reach(w, ow, j * dilation[1] - padding[1], stride[1])
            out[:, :, into_rows, into] += parts[:, :, i, j, rows, place]
    return out


@_fold.backward
def _(g, kernel, stride, padding, dilation):
    return _unfold(g, kernel=kernel, stride=stride, padding=padding, dilation=dilation)


def unfold(
    x: Tensor,
    kernel_size: int | Pair,
    dilation: int | Pair = 1,
    padding: int | Pair = 0,
    stride: int | Pair = 1,
) -> Tensor:
    """The patches of an image as columns: (B, C, H, W) gives (B, C * KH * KW, patches)."""
    kernel, steps = pair(kernel_size, "kernel_size"), pair(stride, "stride")
    border, spread = pair(padding, "padding"), pair(dilation, "dilation")
    if x.ndim != 4 or any(
        output_length(n, k, s, 2 * p, d) < 1
        for n, k, s, p, d in zip(x.shape[2:], kernel, steps, border, spread, strict=True)
    ):
        raise ShapeError(f"unfold: {kernel} patches do not fit {tuple(x.shape)}.")
    return _unfold(x, kernel=kernel, stride=steps, padding=border, dilation=spread)


def fold(
    x: Tensor,
    output_size: int | Pair,
    kernel_size: int | Pair,
    dilation: int | Pair = 1,
    padding: int | Pair = 0,
    stride: int | Pair = 1,
) -> Tensor:
    """Columns of patches summed into an image: the transpose of `unfold`."""
    size, kernel = pair(output_size, "output_size"), pair(kernel_size, "kernel_size")
    steps, border = pair(stride, "stride"), pair(padding, "padding")
    spread = pair(dilation, "dilation")
    lengths = [
        output_length(n, k, s, 2 * p, d)
        for n, k, s, p, d in zip(size, kernel, steps, border, spread, strict=True)
    ]
    expected = lengths[0] * lengths[1]
    if x.ndim != 3 or x.shape[1] % (kernel[0] * kernel[1]) or x.shape[2] != expected:
        raise ShapeError(
            f"fold: columns {tuple(x.shape)} are not (B, C * {kernel[0]} * {kernel[1]}, {expected})"
            f" for an image of {size}.",
            expected=expected,
            got=tuple(x.shape),
        )
    return _fold(x, size=size, kernel=kernel, stride=steps, padding=border, dilation=spread)

"""Convolution kernels on channels-last memory. Arrays are float32 and C-contiguous.

Images are (N, H, W, C): for a channels-last tensor of shape NCHW, that is
`x.transpose(0, 2, 3, 1)`, which is no copy. Common arguments: `kernel`, `stride` and `dilation`
are (vertical, horizontal), `padding` is (top, bottom, left, right) and fills with zeros; the
output has `(H + top + bottom - dilation * (kernel - 1) - 1) // stride + 1` rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError, ShapeError
from .rows import NO_CLAMP, Clamp
from .runtime import Float32, check, get_num_threads, grain_for, output, panel_width, run

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]
Shape4 = tuple[int, int, int, int]

_MAX_TAPS = 64  # native.h
_PIXELS = 96  # kernels.c: output pixels gathered at once
_SLICE = 256  # kernels.c: numbers gathered of each
_ITEMS = 16  # parts of a gradient that threads share
_PARTIALS = 64
_CACHED = 1 << 20  # numbers of weights that stay in a cache of all cores: measured
_LEAST_PANELS = 4  # of a range: pixels are gathered once for each


def output_size(
    where: str,
    height: int,
    width: int,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
) -> Pair:
    """Height and width of the output. Raises: ConfigError, ShapeError."""
    if min(*kernel, *stride, *dilation) < 1 or min(padding) < 0:
        raise ConfigError(
            f"native.{where}: kernel {kernel}, stride {stride} and dilation {dilation} must be at "
            f"least 1, padding {padding} at least 0"
        )
    oh = (height + padding[0] + padding[1] - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    ow = (width + padding[2] + padding[3] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1
    if oh < 1 or ow < 1:
        raise ShapeError(
            f"native.{where}: a kernel of {kernel} with dilation {dilation} does not fit an input "
            f"of {(height, width)} with padding {padding}",
            got=(height, width),
        )
    return oh, ow


def im2col(
    x: Float32,
    kernel: Pair,
    *,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    out: Float32 | None = None,
) -> Float32:
    """The patches of a convolution as rows of a matrix.

    Shape: x (N, H, W, C) -> (groups, N * OH * OW, KH * KW * C / groups), the last axis ordered
    (KH, KW, C / groups): the product with a weight of (KH * KW * C / groups, O) is the output.
    """
    check("im2col", "x", x, (None, None, None, None))
    ints = _geometry("im2col", x.shape, 0, kernel, stride, padding, dilation, groups)
    n, _, _, c, oh, ow = ints[:6]
    width = kernel[0] * kernel[1] * (c // groups)
    out = output("im2col", out, (groups, n * oh * ow, width))
    if out.size:
        run("im2col", (x, out), ints, (), n * oh, grain_for(ow * width * groups))
    return out


def col2im(
    columns: Float32,
    shape: Shape4,
    kernel: Pair,
    *,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    out: Float32 | None = None,
) -> Float32:
    """The transpose of `im2col`: patches are summed back into an image of `shape`.

    Shape: columns (groups, N * OH * OW, KH * KW * C / groups) -> (N, H, W, C) = `shape`.
    """
    ints = _geometry("col2im", shape, 0, kernel, stride, padding, dilation, groups)
    n, h, w, c, oh, ow = ints[:6]
    width = kernel[0] * kernel[1] * (c // groups)
    check("col2im", "columns", columns, (groups, n * oh * ow, width))
    out = output("col2im", out, shape)
    if out.size:
        cost = w * c * math.ceil(kernel[0] * kernel[1] / (stride[0] * stride[1]))
        run("col2im", (columns, out), ints, (), n * h, grain_for(cost))
    return out


def depthwise_conv2d(
    x: Float32,
    weight: Float32,
    bias: Float32 | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    clamp: Clamp = NO_CLAMP,
    out: Float32 | None = None,
) -> Float32:
    """Convolution with one filter for each channel, clamped (ReLU, ReLU6) in the same pass.

    Shape: x (N, H, W, C), weight (KH, KW, C), bias (C,) -> (N, OH, OW, C).
    Raises: ConfigError for kernels above 64 in either direction.
    """
    where = "depthwise_conv2d"
    check(where, "x", x, (None, None, None, None))
    check(where, "weight", weight, (None, None, x.shape[3]))
    kernel = _depthwise_kernel(where, weight.shape[:2])
    ints = _geometry(where, x.shape, x.shape[3], kernel, stride, padding, dilation, 1)
    n, _, _, c, oh, ow = ints[:6]
    if bias is not None:
        check(where, "bias", bias, (c,))
    out = output(where, out, (n, oh, ow, c))
    cost = ow * c * kernel[0] * kernel[1] // 4
    if out.size:
        run("depthwise", (x, weight, bias, out), ints, clamp, n * oh, grain_for(cost))
    return out


def depthwise_conv2d_input_grad(
    g: Float32,
    weight: Float32,
    shape: Shape4,
    *,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    out: Float32 | None = None,
) -> Float32:
    """Gradient of the input of `depthwise_conv2d`, which had `shape`.

    Shape: g (N, OH, OW, C), weight (KH, KW, C) -> (N, H, W, C) = `shape`.
    """
    where = "depthwise_conv2d_input_grad"
    check(where, "weight", weight, (None, None, shape[3]))
    kernel = _depthwise_kernel(where, weight.shape[:2])
    ints = _geometry(where, shape, shape[3], kernel, stride, padding, dilation, 1)
    n, h, w, c, oh, ow = ints[:6]
    check(where, "g", g, (n, oh, ow, c))
    out = output(where, out, shape)
    cost = w * c * kernel[0] * kernel[1] // (4 * stride[0] * stride[1])
    if out.size:
        run("depthwise_input_grad", (g, weight, out), ints, (), n * h, grain_for(cost))
    return out


def depthwise_conv2d_weight_grad(
    g: Float32,
    x: Float32,
    kernel: Pair,
    *,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
) -> Float32:
    """Gradient of the weight of `depthwise_conv2d`, summed in a fixed order.

    Shape: g (N, OH, OW, C), x (N, H, W, C) -> (KH, KW, C).
    """
    where = "depthwise_conv2d_weight_grad"
    check(where, "x", x, (None, None, None, None))
    kernel = _depthwise_kernel(where, kernel)
    ints = _geometry(where, x.shape, x.shape[3], kernel, stride, padding, dilation, 1)
    n, _, _, c, oh, ow = ints[:6]
    check(where, "g", g, (n, oh, ow, c))
    grain = max(-(-n * oh // _PARTIALS), grain_for(ow * c))
    partial = np.zeros((-(-n * oh // grain), *kernel, c), np.float32)
    if partial.size:
        run("depthwise_weight_grad", (g, x, partial), ints, (), n * oh, grain)
    total: Float32 = partial.sum(0, dtype=np.float64).astype(np.float32)
    return total


@dataclass(frozen=True)
class PackedWeight:
    """Weights of a convolution in the order in which the kernel reads them.

    `array` is (groups, panels, KH * KW * C / groups, width of a panel), zeros past the last
    channel. It fits the instruction set that was in use when it was packed.
    """

    array: Float32
    out_channels: int
    in_channels: int  # of a group
    kernel: Pair
    groups: int


def pack_weight(weight: Float32, groups: int = 1, *, turned: bool = False) -> PackedWeight:
    """Pack the weights of a convolution for `conv2d`.

    Args:
        weight: in C order or with channels-last memory, no copy is made.
        groups: of the convolution.
        turned: pack the filters of the transposed convolution: inputs and outputs exchanged, and
            turned by half a circle. Only for one group.

    Shape: (O, C / groups, KH, KW).
    """
    channels_last = weight.transpose(0, 2, 3, 1) if weight.ndim == 4 else weight
    stored = channels_last if channels_last.flags.c_contiguous else weight
    check("pack_weight", "weight", stored, (None, None, None, None))
    o, cg, kh, kw = weight.shape
    if groups < 1 or o % groups or min(weight.shape) == 0 or (turned and groups > 1):
        raise ShapeError(
            f"native.pack_weight: a weight of {weight.shape} does not divide into {groups} groups",
            got=weight.shape,
        )
    taps, width = kh * kw, panel_width()
    of_o, of_c, of_tap = (taps * cg, 1, cg) if stored is channels_last else (taps * cg, taps, 1)
    first = 0
    if turned:
        o, cg, of_o, of_c = cg, o, of_c, of_o
        first, of_tap = (taps - 1) * of_tap, -of_tap
    panels = -(-(o // groups) // width)
    out = np.empty((groups, panels, taps * cg, width), np.float32)
    ints = (o // groups, cg, taps, of_o, of_c, of_tap, panels, first)
    run("conv_pack", (stored, out), ints, (), groups * panels, grain_for(taps * cg * width))
    return PackedWeight(out, o, cg, (kh, kw), groups)


class Prepared:
    """A convolution of images of one shape that was worked out: subclasses say by which kernel."""

    __slots__ = ("_call", "_clamp", "_items", "_kernel", "_weight", "out_shape", "shape")

    shape: Shape4
    out_shape: Shape4
    _call: tuple[int, ...]
    _clamp: Clamp
    _items: int
    _kernel: str
    _weight: Float32

    def __call__(
        self,
        x: Float32,
        bias: Float32 | None = None,
        add: Float32 | None = None,
        out: Float32 | None = None,
    ) -> Float32:
        """The convolution, plus bias, plus `add`.

        Shape: x (N, H, W, C), bias (O,), add (N, OH, OW, O) -> (N, OH, OW, O).
        """
        check("conv2d", "x", x, self.shape)
        if bias is not None:
            check("conv2d", "bias", bias, self.out_shape[3:])
        if add is not None:
            check("conv2d", "add", add, self.out_shape)
        out = output("conv2d", out, self.out_shape)
        if out.size:
            arrays = (x, self._weight, bias, add, out)
            run(self._kernel, arrays, self._call, self._clamp, self._items, 1)
        return out


class Convolution(Prepared):
    """A convolution of images of one shape, worked out once: `Convolution(...)(x, bias, add)`.

    Args:
        shape: of the images, (N, H, W, C).
        clamp: of the result, in the same pass (ReLU).

    Raises: ShapeError also when the weight was packed for another instruction set.
    """

    __slots__ = ()

    def __init__(
        self,
        shape: Shape4,
        weight: PackedWeight,
        *,
        stride: Pair = (1, 1),
        padding: Padding = (0, 0, 0, 0),
        dilation: Pair = (1, 1),
        clamp: Clamp = NO_CLAMP,
    ) -> None:
        o, groups = weight.out_channels, weight.groups
        ints = _geometry("conv2d", shape, o, weight.kernel, stride, padding, dilation, groups)
        width = panel_width()
        panels = -(-(o // groups) // width)
        length = weight.kernel[0] * weight.kernel[1] * weight.in_channels
        check("conv2d", "weight", weight.array, (groups, panels, length, width))
        self.shape = shape
        self.out_shape = (shape[0], ints[4], ints[5], o)
        # Blocks of pixels, of even size; with few of them, ranges of panels are split too, and
        # those of large weights, which would be fetched from memory anew for each block.
        blocks = -(-math.prod(self.out_shape[:3]) // _PIXELS)
        ranges = min(panels, -(-4 * get_num_threads() // max(blocks * groups, 1)))
        if blocks > 1 and panels * length * width > _CACHED:
            ranges = max(ranges, -(-panels // max(_LEAST_PANELS, _CACHED // (length * width))))
        self._call, self._items = (*ints, blocks, ranges), groups * blocks * ranges
        self._weight, self._clamp, self._kernel = weight.array, clamp, "conv"


def conv2d(
    x: Float32,
    weight: PackedWeight,
    bias: Float32 | None = None,
    *,
    add: Float32 | None = None,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    clamp: Clamp = NO_CLAMP,
    out: Float32 | None = None,
) -> Float32:
    """Convolution, plus bias, plus `add` (a residual), clamped (ReLU) in the same pass.

    Shape: x (N, H, W, C), bias (O,), add (N, OH, OW, O) -> (N, OH, OW, O).
    Raises: ShapeError also when the weight was packed for another instruction set.
    """
    check("conv2d", "x", x, (None, None, None, weight.in_channels * weight.groups))
    place = Convolution(
        x.shape, weight, stride=stride, padding=padding, dilation=dilation, clamp=clamp
    )
    return place(x, bias, add, out)


def conv2d_weight_grad(
    g: Float32,
    x: Float32,
    kernel: Pair,
    *,
    stride: Pair = (1, 1),
    padding: Padding = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Float32:
    """Gradient of the weight of `conv2d`, summed in an order that only the shapes decide.

    Shape: g (N, OH, OW, O), x (N, H, W, C) -> (O, KH, KW, C / groups).
    """
    where = "conv2d_weight_grad"
    check(where, "x", x, (None, None, None, None))
    check(where, "g", g, (None, None, None, None))
    o = g.shape[3]
    if groups < 1 or o % groups:
        raise ShapeError(f"native.{where}: {o} channels do not divide into {groups} groups", got=o)
    ints = _geometry(where, x.shape, o, kernel, stride, padding, dilation, groups)
    n, _, _, c, oh, ow = ints[:6]
    check(where, "g", g, (n, oh, ow, o))
    length = kernel[0] * kernel[1] * (c // groups)
    panels = -(-length // panel_width())
    slices = -(-panels // (_SLICE // panel_width()))
    # With few slices, pixels are split as well, and the parts added up.
    ranges = max(1, min(-(-_ITEMS // (slices * groups)), n * oh * ow // _PIXELS))
    out = np.zeros((ranges, o, length), np.float32)
    if out.size and g.size:
        items = ranges * groups * slices
        run("conv_weight_grad", (g, x, out), (*ints, ranges, slices), (), items, 1)
    total: Float32 = out[0] if ranges == 1 else out.sum(0)
    return total.reshape(o, *kernel, c // groups)


def _geometry(
    where: str,
    shape: tuple[int, ...],
    out_channels: int,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> tuple[int, ...]:
    """The numbers of `Conv` in native.h, in its order."""
    n, h, w, c = shape
    if groups < 1 or c % groups:
        raise ShapeError(f"native.{where}: {c} channels do not divide into {groups} groups", got=c)
    oh, ow = output_size(where, h, w, kernel, stride, padding, dilation)
    return (
        *(n, h, w, c, oh, ow, out_channels, *kernel, *stride),
        *(padding[0], padding[2], *dilation, groups),
    )


def _depthwise_kernel(where: str, kernel: tuple[int, ...]) -> Pair:
    if max(kernel) > _MAX_TAPS:
        raise ConfigError(
            f"native.{where}: kernels go up to {_MAX_TAPS} x {_MAX_TAPS}, got {kernel}", got=kernel
        )
    return kernel[0], kernel[1]

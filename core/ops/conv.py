"""Convolution in two dimensions and its gradients.

Shapes are (B, C, H, W); results have channels-last memory. A convolution is a product of patches
with weights, worked on in blocks of output pixels that stay in the cache. Its two gradients are
operations of their own, and differentiable: the derivative of each of the three is made of the
other two. `padding` in the primitives is (top, bottom, left, right).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..op import op
from .normalization import channel_sum

if TYPE_CHECKING:
    from ..tensor import Tensor

Pair = tuple[int, int]
Padding = tuple[int, int, int, int]

_BLOCK = 1 << 20  # elements of the patches that are made at once
FEW_CHANNELS = 16  # below this, patches are cut from NCHW memory as it is


def output_length(n: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Output pixels along one axis; `padding` is that of both ends."""
    return (n + padding - dilation * (kernel - 1) - 1) // stride + 1


def _output_size(
    size: Any, kernel: Any, stride: Pair, padding: Padding, dilation: Pair
) -> tuple[int, int]:
    return (
        output_length(size[0], kernel[0], stride[0], padding[0] + padding[1], dilation[0]),
        output_length(size[1], kernel[1], stride[1], padding[2] + padding[3], dilation[1]),
    )


def _nhwc(x: Any) -> Any:
    return x.transpose(0, 2, 3, 1)


def _nchw(x: Any) -> Any:
    return x.transpose(0, 3, 1, 2)


def _weight_matrix(weight: Any) -> Any:
    """(O, C, KH, KW) as (O, KH * KW * C): a view where the memory is channels-last."""
    return _nhwc(weight).reshape(weight.shape[0], -1)


def _padded(xp: Any, x: Any, padding: Padding) -> Any:
    """(B, H, W, C) with zeros around it, C-contiguous."""
    top, bottom, left, right = padding
    if not any(padding):
        return x if x.flags.c_contiguous else xp.ascontiguousarray(x)
    b, h, w, c = x.shape
    out = xp.zeros((b, h + top + bottom, w + left + right, c), x.dtype)
    out[:, top : top + h, left : left + w] = x
    return out


def _windows(xp: Any, x: Any, kernel: Pair, stride: Pair, dilation: Pair, out: Pair) -> Any:
    """(B, H, W, C) as patches (B, OH, OW, KH, KW, C): a view where NumPy makes one."""
    b, _, _, c = x.shape
    if xp is not np:
        patches = xp.empty((b, *out, *kernel, c), x.dtype)
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                part = x[:, i * dilation[0] :: stride[0], j * dilation[1] :: stride[1]]
                patches[:, :, :, i, j] = part[:, : out[0], : out[1]]
        return patches
    sb, sh, sw, sc = x.strides
    return np.lib.stride_tricks.as_strided(
        x,
        (b, *out, *kernel, c),
        (sb, sh * stride[0], sw * stride[1], sh * dilation[0], sw * dilation[1], sc),
    )


def _blocks(xp: Any, b: int, rows: int, cost: int) -> Iterator[tuple[slice, slice]]:
    """Samples and output rows of each block: whole samples, or rows of one; `cost` is a row's."""
    if xp is not np:
        yield slice(0, b), slice(0, rows)
        return
    whole = _BLOCK // max(rows * cost, 1)
    if whole:
        for i in range(0, b, whole):
            yield slice(i, min(i + whole, b)), slice(0, rows)
        return
    step = max(_BLOCK // max(cost, 1), 1)
    for i in range(b):
        for start in range(0, rows, step):
            yield slice(i, i + 1), slice(start, min(start + step, rows))


def _is_pointwise(kernel: Any, padding: Padding) -> bool:
    return kernel[0] == kernel[1] == 1 and not any(padding)


def kernel_reach(n: int, length: int, offset: int, stride: int) -> tuple[slice, slice]:
    """Which outputs a kernel element at `offset` (padding taken off) serves, and what it reads."""
    first = max(-(offset // stride), 0) if offset < 0 else 0
    last = min((n - 1 - offset) // stride, length - 1)
    if last < first:
        return slice(0, 0), slice(0, 0)
    start = offset + first * stride
    return slice(first, last + 1), slice(start, offset + last * stride + 1, stride)


# -- forward -----------------------------------------------------------------------------------


@op(name="conv2d", same_float=True)
def _conv2d(
    xp: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Tensor:
    b, c, h, w = x.shape
    o, cg, kh, kw = weight.shape
    kernel = kh, kw
    oh, ow = _output_size((h, w), kernel, stride, padding, dilation)
    out = xp.empty((b, oh, ow, o), x.dtype)
    if cg == 1 and groups > 1:
        _depthwise(xp, x, weight, out, stride, padding, dilation)
    elif _is_pointwise(kernel, padding) and groups == 1:
        rows = _nhwc(x)[:, :: stride[0], :: stride[1]].reshape(-1, c)
        xp.matmul(rows, weight.reshape(o, c).T, out=out.reshape(-1, o))
    elif groups == 1 and c < FEW_CHANNELS and x.flags.c_contiguous:
        _conv2d_of_nchw(xp, x, weight, out, stride, padding, dilation)
    else:
        source = _padded(xp, _nhwc(x), padding)
        matrix = _weight_matrix(weight)
        og = o // groups
        for k in range(groups):
            part = source[..., k * cg : (k + 1) * cg]
            windows = _windows(xp, part, kernel, stride, dilation, (oh, ow))
            by = matrix[k * og : (k + 1) * og].T
            for samples, lines in _blocks(xp, b, oh, ow * by.shape[0]):
                patches = windows[samples, lines].reshape(-1, by.shape[0])
                place = out[samples, lines, :, k * og : (k + 1) * og]
                if groups == 1:
                    xp.matmul(patches, by, out=place.reshape(-1, o))
                else:
                    place[...] = xp.matmul(patches, by).reshape(place.shape)
    if bias is not None:
        out += bias
    return _nchw(out)


def _conv2d_of_nchw(
    xp: Any, x: Any, weight: Any, out: Any, stride: Pair, padding: Padding, dilation: Pair
) -> None:
    """Few channels: patches are cut along the rows of the image, which are contiguous."""
    o, c, kh, kw = weight.shape
    b, oh, ow, _ = out.shape
    source = x
    if any(padding):
        top, bottom, left, right = padding
        h, w = x.shape[2:]
        source = xp.zeros((b, c, h + top + bottom, w + left + right), x.dtype)
        source[:, :, top : top + h, left : left + w] = x
    windows = _windows(xp, _nhwc(source), (kh, kw), stride, dilation, (oh, ow))
    by = weight.reshape(o, -1).T
    for samples, lines in _blocks(xp, b, oh, ow * c * kh * kw):
        part = windows[samples, lines].transpose(5, 3, 4, 0, 1, 2)  # (C, KH, KW, b, oh, ow)
        columns = part.reshape(c * kh * kw, -1)
        xp.matmul(columns.T, by, out=out[samples, lines].reshape(-1, o))


def _taps(weight: Any) -> Any:
    """Depthwise weights (C * M, 1, KH, KW) as (KH, KW, C * M)."""
    return weight[:, 0].transpose(1, 2, 0)


def _depthwise(
    xp: Any, x: Any, weight: Any, out: Any, stride: Pair, padding: Padding, dilation: Pair
) -> None:
    """One filter, or a few, for each channel: a sum of shifted images."""
    taps = _taps(weight)
    kh, kw, o = taps.shape
    b, oh, ow, _ = out.shape
    source = _nhwc(x)
    h, w, c = source.shape[1:]
    out[...] = 0
    split = out.reshape(b, oh, ow, c, o // c)
    for i in range(kh):
        to_rows, from_rows = kernel_reach(h, oh, i * dilation[0] - padding[0], stride[0])
        for j in range(kw):
            to, place = kernel_reach(w, ow, j * dilation[1] - padding[2], stride[1])
            part = source[:, from_rows, place, :, None] * taps[i, j].reshape(c, -1)
            split[:, to_rows, to] += part


@_conv2d.backward
def _(g, x, weight, stride, padding, dilation, groups, needs):
    dx = dweight = None
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if needs[0]:
        dx = conv2d_input_grad(g, weight, None, shape=x.shape, **options)
    if needs[1]:
        dweight = conv2d_weight_grad(x, g, kernel=weight.shape[2:], **options)
    return dx, dweight, channel_sum(g) if needs[2] else None


# -- gradient of the input, which is also the transposed convolution -----------------------------


@op(same_float=True)
def conv2d_input_grad(
    xp: Any,
    y: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    shape: tuple[int, int, int, int],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Tensor:
    """The transpose of convolution: what `conv2d` of an input of `shape` sends back.

    Shape: y (B, O, OH, OW), weight (O, C / groups, KH, KW), bias (C,); the result is `shape`.
    """
    b, c, h, w = shape
    o, cg, kh, kw = weight.shape
    kernel = kh, kw
    oh, ow = y.shape[2:]
    source: Any = _nhwc(y)
    pointwise = _is_pointwise(kernel, padding) and groups == 1
    if pointwise and (oh, ow) == (h, w):
        out = xp.matmul(source.reshape(-1, o), weight.reshape(o, c)).reshape(b, h, w, c)
    else:
        out = xp.zeros((b, h, w, c), y.dtype)
        if pointwise:
            rows = xp.matmul(source.reshape(-1, o), weight.reshape(o, c))
            grid = out[:, :: stride[0], :: stride[1]]
            grid[:, :oh, :ow] = rows.reshape(b, oh, ow, c)
        elif cg == 1 and groups > 1:
            _depthwise_input_grad(source, weight, out, stride, padding, dilation)
        else:
            matrix, og = _weight_matrix(weight), o // groups
            for k in range(groups):
                by = matrix[k * og : (k + 1) * og]
                into = out[..., k * cg : (k + 1) * cg]
                for samples, lines in _blocks(xp, b, oh, ow * by.shape[1]):
                    part = source[samples, lines, :, k * og : (k + 1) * og].reshape(-1, og)
                    columns = xp.matmul(part, by).reshape(
                        samples.stop - samples.start, lines.stop - lines.start, ow, *kernel, cg
                    )
                    _add_patches(columns, into[samples], lines, stride, padding, dilation)
    if bias is not None:
        out += bias
    return _nchw(out)


def _add_patches(
    columns: Any, out: Any, lines: slice, stride: Pair, padding: Padding, dilation: Pair
) -> None:
    """Add patches (B, lines, OW, KH, KW, C) where they came from, in (B, H, W, C)."""
    _, h, w, _ = out.shape
    _, _, ow, kh, kw, _ = columns.shape
    for i in range(kh):
        offset = i * dilation[0] - padding[0]
        rows, into_rows = kernel_reach(h, lines.stop, offset, stride[0])
        if rows.stop <= lines.start:
            continue
        skipped = max(lines.start - rows.start, 0)
        rows = slice(max(rows.start, lines.start) - lines.start, rows.stop - lines.start)
        into_rows = slice(into_rows.start + skipped * stride[0], into_rows.stop, into_rows.step)
        for j in range(kw):
            place, into = kernel_reach(w, ow, j * dilation[1] - padding[2], stride[1])
            out[:, into_rows, into] += columns[:, rows, place, i, j]


def _depthwise_input_grad(
    y: Any, weight: Any, out: Any, stride: Pair, padding: Padding, dilation: Pair
) -> None:
    taps = _taps(weight)
    kh, kw, o = taps.shape
    b, oh, ow, _ = y.shape
    h, w, c = out.shape[1:]
    split = y.reshape(b, oh, ow, c, o // c)
    for i in range(kh):
        rows, into_rows = kernel_reach(h, oh, i * dilation[0] - padding[0], stride[0])
        for j in range(kw):
            place, into = kernel_reach(w, ow, j * dilation[1] - padding[2], stride[1])
            part = split[:, rows, place] * taps[i, j].reshape(c, -1)
            out[:, into_rows, into] += part[..., 0] if o == c else part.sum(-1)


def _cropped(y: Any, shape: tuple[int, ...]) -> Any:
    """Without the pixels that an output padding beyond the stride adds: they reach nothing."""
    return y if y.shape == shape else y[:, :, : shape[2], : shape[3]]


@conv2d_input_grad.backward
def _(g, y, weight, stride, padding, dilation, groups, needs):
    dy = dweight = None
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if needs[0]:
        dy = _cropped(_conv2d(g, weight, None, **options), y.shape)
    if needs[1]:
        dweight = conv2d_weight_grad(g, y, kernel=weight.shape[2:], **options)
    return dy, dweight, channel_sum(g) if needs[2] else None


# -- gradient of the weight --------------------------------------------------------------------


@op(same_float=True)
def conv2d_weight_grad(
    xp: Any,
    x: Tensor,
    y: Tensor,
    *,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Tensor:
    """The gradient of `conv2d` for its weight, given its input and the gradient `y`.

    Shape: x (B, C, H, W), y (B, O, OH, OW); the result is (O, C / groups, KH, KW), with
    channels-last memory.
    """
    b, c, _, _ = x.shape
    o, oh, ow = y.shape[1:]
    cg, og = c // groups, o // groups
    rows: Any = _nhwc(y)
    if cg == 1 and groups > 1:
        return _depthwise_weight_grad(xp, x, rows, kernel, stride, padding, dilation)
    if _is_pointwise(kernel, padding) and groups == 1:
        pixels = _nhwc(x)[:, :: stride[0], :: stride[1]]
        pixels = pixels[:, :oh, :ow].reshape(-1, c)
        return xp.matmul(rows.reshape(-1, o).T, pixels).reshape(o, c, 1, 1)
    source = _padded(xp, _nhwc(x), padding)
    width = kernel[0] * kernel[1] * cg
    out = xp.zeros((o, width), x.dtype)
    for k in range(groups):
        part = source[..., k * cg : (k + 1) * cg]
        windows = _windows(xp, part, kernel, stride, dilation, (oh, ow))
        for samples, lines in _blocks(xp, b, oh, ow * width):
            patches = windows[samples, lines].reshape(-1, width)
            by = rows[samples, lines, :, k * og : (k + 1) * og].reshape(-1, og)
            out[k * og : (k + 1) * og] += xp.matmul(by.T, patches)
    return _nchw(out.reshape(o, *kernel, cg))


def _depthwise_weight_grad(
    xp: Any, x: Any, y: Any, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> Any:
    source = _nhwc(x)
    b, h, w, c = source.shape
    _, oh, ow, o = y.shape
    split = y.reshape(b, oh, ow, c, o // c)
    taps = xp.zeros((*kernel, c, o // c), x.dtype)
    for i in range(kernel[0]):
        rows, from_rows = kernel_reach(h, oh, i * dilation[0] - padding[0], stride[0])
        for j in range(kernel[1]):
            place, into = kernel_reach(w, ow, j * dilation[1] - padding[2], stride[1])
            product = source[:, from_rows, into, :, None] * split[:, rows, place]
            taps[i, j] = product.sum((0, 1, 2))
    return taps.reshape(*kernel, o).transpose(2, 0, 1)[:, None]


@conv2d_weight_grad.backward
def _(g, x, y, stride, padding, dilation, groups, needs):
    dx = dy = None
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if needs[0]:
        dx = conv2d_input_grad(y, g, None, shape=x.shape, **options)
    if needs[1]:
        dy = _cropped(_conv2d(x, g, None, **options), y.shape)
    return dx, dy

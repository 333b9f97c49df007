"""The C kernels of convolution, and when each of the ways to convolve pays. See native_kernels."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from .. import native
from ..state import state, watch
from .conv import Padding, Pair, output_length

_BLOCK = 1 << 20  # elements of the patches that are made at once: they stay in the cache
_MOST_PATCHES = 1 << 24  # elements of the patches of one sample that may be made at once
_FEW_CHANNELS = 4
_F32 = np.dtype(np.float32)


def plain(*arrays: Any) -> bool:
    """Whether all are float32 and not empty."""
    return all(
        a is None or (isinstance(a, np.ndarray) and a.dtype is _F32 and a.size) for a in arrays
    )


def nhwc(x: Any) -> Any:
    """(B, C, H, W) as C-contiguous (B, H, W, C): a view where the memory is channels-last."""
    view = x.transpose(0, 2, 3, 1)
    if view.flags.c_contiguous:
        return view
    if x.shape[1] > _FEW_CHANNELS:
        return np.ascontiguousarray(view)
    out = np.empty(view.shape, x.dtype)  # pictures: plane by plane, three times as fast
    for c in range(x.shape[1]):
        out[..., c] = x[:, c]
    return out


def channels_last(x: Any) -> Any:
    """(B, C, ...) as C-contiguous (..., C); None where that would be a copy."""
    view = x if x.ndim == 2 else x.transpose(0, *range(2, x.ndim), 1)
    return view if view.flags.c_contiguous else None


def nchw(x: Any) -> Any:
    return x.transpose(0, 3, 1, 2)


def flat(v: Any) -> Any:
    """A weight or a bias as contiguous numbers."""
    return None if v is None else np.ascontiguousarray(v).reshape(-1)


# Packed weights of inference: weight array -> (writes seen, packed). Any operation that writes
# memory on purpose makes them stale.
_packed: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_packings: dict[int, tuple[int, native.PackedWeight]] = {}


def _packed_now(weight: Any, groups: int = 1, *, turned: bool = False) -> native.PackedWeight:
    if not (weight.flags.c_contiguous or weight.transpose(0, 2, 3, 1).flags.c_contiguous):
        weight = np.ascontiguousarray(weight)
    return native.pack_weight(weight, groups, turned=turned)


def packed(weight: Any, groups: int, *, keep: bool = False) -> native.PackedWeight:
    """The weights in panels; without gradients they are kept, and everybody has the same.

    Args:
        keep: also large ones, as compiled programs need them.
    """
    if state.grad_enabled:
        return _packed_now(weight, groups)
    key = id(weight)
    if _packed.get(key) is weight:
        writes, packing = _packings[key]
        fits = packing.groups == groups and packing.array.shape[3] == native.panel_width()
        if writes == watch.writes and fits:
            return packing
    packing = _packed_now(weight, groups)
    if weight.size >= _LARGE_WEIGHT and not keep and key not in _packed:
        return packing
    if key not in _packed:
        weakref.finalize(weight, _packings.pop, key, None)
    _packed[key] = weight
    _packings[key] = (watch.writes, packing)
    return packing


def depthwise_taps(weight: Any) -> Any:
    """Depthwise weights (C, 1, KH, KW) as C-contiguous (KH, KW, C)."""
    return np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0))


def is_depthwise(weight: Any, groups: int) -> bool:
    return groups > 1 and weight.shape[:2] == (groups, 1)


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Any:
    if not plain(x, weight, bias):
        return NotImplemented
    options: Any = {"stride": stride, "padding": padding, "dilation": dilation}
    if is_depthwise(weight, groups):
        if max(weight.shape[2:]) > _MOST_TAPS:
            return NotImplemented
        return nchw(native.depthwise_conv2d(nhwc(x), depthwise_taps(weight), flat(bias), **options))
    if groups == 1 and (state.grad_enabled or weight.size >= _LARGE_WEIGHT):
        size = _output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
        pixels = x.shape[0] * size[0] * size[1]
        if state.grad_enabled and pixels < _FEW_PIXELS:
            return _by_columns(x, weight, bias, size, options)
        here = _packed.get(id(weight)) is weight
        if not state.grad_enabled and pixels < _FEW_PIXELS and not here:
            return _by_rows(x, weight, bias, size, options)
    return nchw(native.conv2d(nhwc(x), packed(weight, groups), flat(bias), **options))


def _by_columns(x: Any, weight: Any, bias: Any, size: Pair, options: Any) -> Any:
    """Patches, and one plain product with them."""
    o = weight.shape[0]
    columns = native.im2col(nhwc(x), (weight.shape[2], weight.shape[3]), **options)[0]
    rows = columns @ nhwc(weight).reshape(o, -1).T
    if bias is not None:
        rows += bias
    return nchw(rows.reshape(x.shape[0], *size, o))


def _by_rows(x: Any, weight: Any, bias: Any, size: Pair, options: Any) -> Any:
    """Patches, and a plain product with the weights where they lie.

    Nothing is kept: weights in panels beside them would take their memory twice.
    """
    o, c, *taps = weight.shape
    rows = native.im2col(nhwc(x), tuple(taps), **options)[0]
    if weight.flags.c_contiguous:  # the patches, which are few, in the order of the weights
        if taps != [1, 1]:
            rows = rows.reshape(len(rows), -1, c).transpose(0, 2, 1).reshape(len(rows), -1)
        table = weight.reshape(o, -1)
    else:
        table = nhwc(weight).reshape(o, -1)
    out = rows @ table.T
    if bias is not None:
        out += bias
    return nchw(out.reshape(x.shape[0], *size, o))


_MOST_TAPS = 64  # of a depthwise kernel, along an axis
# Output pixels below which one use does not pay for packing weights.
_FEW_PIXELS = 256
# Numbers of a weight from which its panels are not kept: those of large UNets would be gigabytes,
# and few other networks have any. To pack one anew takes a part of the time of its use.
_LARGE_WEIGHT = 4_000_000


def _output_size(
    image: Any, kernel: Any, stride: Pair, padding: Padding, dilation: Pair
) -> tuple[int, int]:
    return (
        output_length(image[0], kernel[0], stride[0], padding[0] + padding[1], dilation[0]),
        output_length(image[1], kernel[1], stride[1], padding[2] + padding[3], dilation[1]),
    )


def conv2d_input_grad(
    y: Any,
    weight: Any,
    bias: Any = None,
    *,
    shape: tuple[int, int, int, int],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Any:
    if not plain(y, weight, bias) or 0 in shape:
        return NotImplemented
    b, c, h, w = shape
    o, _, kh, kw = weight.shape
    if _output_size((h, w), (kh, kw), stride, padding, dilation) != tuple(y.shape[2:]):
        return NotImplemented  # output padding beyond the stride
    place: Any = {"padding": padding, "dilation": dilation}
    if is_depthwise(weight, groups) and bias is None and max(kh, kw) <= _MOST_TAPS:
        out = native.depthwise_conv2d_input_grad(
            nhwc(y), depthwise_taps(weight), (b, h, w, c), stride=stride, **place
        )
        return nchw(out)
    if groups != 1 or b * y.shape[2] * y.shape[3] < _FEW_PIXELS:
        return NotImplemented
    reach = (dilation[0] * (kh - 1), dilation[1] * (kw - 1))
    mirrored = (
        reach[0] - padding[0],
        reach[0] - padding[1],
        reach[1] - padding[2],
        reach[1] - padding[3],
    )
    if stride == (1, 1) and min(mirrored) >= 0:
        packed = _packed_now(weight, turned=True)
        return nchw(native.conv2d(nhwc(y), packed, flat(bias), padding=mirrored, dilation=dilation))
    # Every output pixel's patch by a product, and the patches summed back into the image.
    packed = native.pack_weight(nhwc(weight).reshape(o, -1, 1, 1), turned=True)
    source = nhwc(y)
    patch = y.shape[2] * y.shape[3] * kh * kw * c
    if patch > _MOST_PATCHES:
        return NotImplemented  # the generic body takes a sample apart
    out = np.empty((b, h, w, c), np.float32)
    step = max(1, _BLOCK // patch)
    for i in range(0, b, step):
        part = out[i : i + step]
        columns = native.conv2d(source[i : i + step], packed).reshape(1, -1, kh * kw * c)
        native.col2im(columns, part.shape, (kh, kw), stride=stride, out=part, **place)
    if bias is not None:
        out += bias
    return nchw(out)


def conv2d_weight_grad(
    x: Any,
    y: Any,
    *,
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Any:
    if not plain(x, y):
        return NotImplemented
    c, o = x.shape[1], y.shape[1]
    kernel = (kernel[0], kernel[1])
    if _output_size(x.shape[2:], kernel, stride, padding, dilation) != tuple(y.shape[2:]):
        return NotImplemented
    if groups > 1 and c == o == groups:
        if max(kernel) > _MOST_TAPS:
            return NotImplemented
        taps = native.depthwise_conv2d_weight_grad(
            nhwc(y), nhwc(x), kernel, stride=stride, padding=padding, dilation=dilation
        )
        return taps.transpose(2, 0, 1)[:, None]
    out = native.conv2d_weight_grad(
        nhwc(y),
        nhwc(x),
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    return nchw(out)

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
    """Whether all are float32, not empty, and aligned, as vectors and the C compiler want them."""
    return all(
        a is None or (isinstance(a, np.ndarray) and a.dtype is _F32 and a.size and a.flags.aligned)
        for a in arrays
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
    if weight.ndim == 2:
        weight = weight[:, :, None, None]
    if not (weight.flags.c_contiguous or weight.transpose(0, 2, 3, 1).flags.c_contiguous):
        weight = np.ascontiguousarray(weight)
    return native.pack_weight(weight, groups, turned=turned)


def packed(weight: Any, groups: int, *, keep: bool = False) -> native.PackedWeight:
    """The weights in panels; without gradients they are kept, and everybody has the same.

    Args:
        weight: of a convolution, or of a linear map (O, C).
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


# As _packed and _packings, by weight and tile.
_transformed: weakref.WeakValueDictionary[tuple[int, int], Any] = weakref.WeakValueDictionary()
_transforms: dict[tuple[int, int], tuple[int, native.WinogradWeight]] = {}


def transformed(weight: Any, tile: int) -> native.WinogradWeight:
    """The weights for Winograd, kept as long as the weights are: everybody has the same."""
    key = (id(weight), tile)
    if _transformed.get(key) is weight:
        writes, made = _transforms[key]
        if writes == watch.writes and made.array.shape[3] == native.panel_width():
            return made
    made = native.winograd_weight(weight, tile)
    if key not in _transformed:
        weakref.finalize(weight, _transforms.pop, key, None)
    _transformed[key] = weight
    _transforms[key] = (watch.writes, made)
    return made


def winograd_tile(
    shape: tuple[int, ...],
    weight: Any,
    *,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> int:
    """Outputs along each axis of a tile where Winograd pays for constant weights, else 0.

    Milliseconds on two cores of Zen 5 with nothing in the cache: the implicit product, and tiles of
    2 x 2 and of 4 x 4:

    | images, channels in and out | implicit | 2 | 4 |
    |---|---|---|---|
    | 1 x 224 x 224, 64 to 64 | 11.5 | 4.95 | 3.75 |
    | 1 x 56 x 56, 256 to 256 | 10.2 | 3.83 | 3.06 |
    | 1 x 56 x 56, 24 to 24 | 0.178 | 0.144 | 0.123 |
    | 1 x 56 x 56, 8 to 64 | 0.158 | 0.149 | 0.170 |
    | 1 x 20 x 20, 256 to 256 | 1.14 | 0.580 | 0.557 |
    | 1 x 14 x 14, 256 to 256 | 1.07 | 0.546 | 0.609 |
    | 1 x 7 x 7, 512 to 512 | 1.17 | 0.556 | 0.976 |
    | 1 x 5 x 5, 256 to 256 | 0.143 | 0.103 | 0.194 |
    | 1 x 4 x 4, 512 to 512 | 0.310 | 0.329 | 0.401 |

    The weights are 16/9 or 36/9 of their size, and with few tiles to read them takes longest.
    Very large ones are left as they are.
    """
    usual = (*stride, *dilation, groups) == (1, 1, 1, 1, 1) and weight.shape[2:] == (3, 3)
    if not usual or weight.size >= _LARGE_WEIGHT:
        return 0
    n, _, height, width = shape
    oh, ow = _output_size((height, width), (3, 3), stride, padding, dilation)
    if n * -(-oh // 4) * -(-ow // 4) >= _TILES_OF_4:
        return 4
    return 2 if n * -(-oh // 2) * -(-ow // 2) >= _TILES_OF_2 else 0


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
    if groups == 1 and _sums_back(weight, stride, padding, dilation, x):
        size = _output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
        taps = weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)  # (KH, KW, O, C)
        panels = native.pack_weight(np.ascontiguousarray(taps).reshape(-1, x.shape[1], 1, 1))
        shape = (x.shape[0], *size, weight.shape[0])
        back = _mirrored(weight.shape[2:], padding, dilation)
        return _summed_back(x, panels, bias, shape, weight.shape[2:], (1, 1), back, dilation)
    return nchw(native.conv2d(nhwc(x), packed(weight, groups), flat(bias), **options))


def _sums_back(weight: Any, stride: Pair, padding: Padding, dilation: Pair, x: Any) -> bool:
    """Whether there are so few outputs that a panel of weights is mostly zeros.

    A pixel's share in all outputs around it is then a smaller product, and summing the shares is
    little beside it.
    """
    o, _, kh, kw = weight.shape
    width = native.panel_width()
    if stride != (1, 1) or min(_mirrored((kh, kw), padding, dilation)) < 0:
        return False
    pixels = x.shape[2] * x.shape[3]
    if x.shape[0] * pixels < _FEW_PIXELS or pixels * o * kh * kw > _MOST_PATCHES:
        return False
    return 2 * -(-o * kh * kw // width) < kh * kw * -(-o // width)


def _mirrored(kernel: Any, padding: Padding, dilation: Pair) -> Padding:
    """The padding of the transposed convolution, of stride 1."""
    reach = (dilation[0] * (kernel[0] - 1), dilation[1] * (kernel[1] - 1))
    top, bottom, left, right = padding
    return reach[0] - top, reach[0] - bottom, reach[1] - left, reach[1] - right


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

# Tiles below which to read the weights takes longer. See `winograd_tile`.
_TILES_OF_4, _TILES_OF_2 = 20, 9


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
    if is_depthwise(weight, groups) and bias is None and max(kh, kw) <= _MOST_TAPS:
        place: Any = {"stride": stride, "padding": padding, "dilation": dilation}
        out = native.depthwise_conv2d_input_grad(
            nhwc(y), depthwise_taps(weight), (b, h, w, c), **place
        )
        return nchw(out)
    if groups != 1 or b * y.shape[2] * y.shape[3] < _FEW_PIXELS:
        return NotImplemented
    mirrored = _mirrored((kh, kw), padding, dilation)
    if stride == (1, 1) and min(mirrored) >= 0:
        panels = _packed_now(weight, turned=True)
        return nchw(native.conv2d(nhwc(y), panels, flat(bias), padding=mirrored, dilation=dilation))
    if y.shape[2] * y.shape[3] * kh * kw * c > _MOST_PATCHES:
        return NotImplemented  # the generic body takes a sample apart
    panels = native.pack_weight(nhwc(weight).reshape(o, -1, 1, 1), turned=True)
    return _summed_back(y, panels, bias, (b, h, w, c), (kh, kw), stride, padding, dilation)


def _summed_back(
    y: Any,
    panels: native.PackedWeight,
    bias: Any,
    shape: tuple[int, int, int, int],
    kernel: Pair,
    stride: Pair,
    padding: Padding,
    dilation: Pair,
) -> Any:
    """Every pixel's patch of the result by a product, and the patches summed into it.

    Args:
        panels: of weights that give a patch, (KH, KW, C), of a pixel.
        shape: of the result, channels last.
    """
    source = nhwc(y)
    place: Any = {"stride": stride, "padding": padding, "dilation": dilation}
    out = np.empty(shape, np.float32)
    # Few samples at a time, so that their patches stay in the cache; with more weights than
    # patches, these are what is fetched less often.
    patch = source.shape[1] * source.shape[2] * panels.out_channels
    step = max(1, max(_BLOCK, panels.array.size) // patch)
    for i in range(0, len(out), step):
        part = out[i : i + step]
        columns = native.conv2d(source[i : i + step], panels)
        rows = columns.reshape(1, -1, panels.out_channels)
        native.col2im(rows, part.shape, kernel, out=part, **place)
        if bias is not None:
            part.reshape(-1, shape[2] * shape[3])[...] += np.tile(flat(bias), shape[2])
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

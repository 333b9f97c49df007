"""Convolution kernels against their definition, written out in float64."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bestiary.core import native
from bestiary.core.errors import ShapeError

Geometry = dict[str, Any]

# n, h, w, c, kernel, stride, padding (top, bottom, left, right), dilation
GEOMETRIES: list[tuple[int, int, int, int, tuple[int, int], Geometry]] = [
    (1, 1, 1, 1, (1, 1), {}),
    (2, 5, 7, 3, (3, 3), {"padding": (1, 1, 1, 1)}),
    (1, 9, 8, 16, (3, 3), {"stride": (2, 2), "padding": (0, 1, 0, 1)}),
    (1, 13, 40, 17, (3, 3), {"padding": (1, 1, 1, 1)}),
    (2, 11, 29, 33, (5, 3), {"stride": (2, 1), "padding": (2, 1, 0, 3)}),
    (1, 12, 12, 24, (5, 5), {"stride": (2, 2), "padding": (2, 2, 2, 2)}),
    (1, 10, 21, 40, (3, 3), {"dilation": (2, 3), "padding": (2, 2, 3, 3)}),
    (1, 7, 7, 20, (7, 7), {"padding": (3, 3, 3, 3)}),
    (2, 6, 5, 8, (2, 4), {"stride": (3, 2), "padding": (1, 0, 2, 1), "dilation": (2, 1)}),
    (1, 4, 4, 5, (1, 1), {"stride": (2, 3)}),
    (1, 3, 3, 64, (3, 3), {"padding": (4, 5, 6, 4)}),  # wholly padded rows and columns
    (1, 1, 30, 12, (1, 9), {"padding": (0, 0, 8, 0)}),  # causal
    (3, 8, 8, 2, (4, 4), {"stride": (4, 4)}),
    (0, 5, 5, 4, (3, 3), {}),
]
IDS = [f"{n}x{h}x{w}x{c}-k{k[0]}x{k[1]}-{i}" for i, (n, h, w, c, k, _) in enumerate(GEOMETRIES)]


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def patches(x: Any, kernel: tuple[int, int], geometry: Geometry) -> Any:
    """(N, OH, OW, KH, KW, C) in float64, by slicing the padded input."""
    (sh, sw), (dh, dw) = geometry.get("stride", (1, 1)), geometry.get("dilation", (1, 1))
    top, bottom, left, right = geometry.get("padding", (0, 0, 0, 0))
    x = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    oh = (x.shape[1] - dh * (kernel[0] - 1) - 1) // sh + 1
    ow = (x.shape[2] - dw * (kernel[1] - 1) - 1) // sw + 1
    out = np.empty((x.shape[0], oh, ow, *kernel, x.shape[3]))
    for i, j in itertools.product(range(kernel[0]), range(kernel[1])):
        rows = slice(i * dh, i * dh + (oh - 1) * sh + 1, sh)
        out[:, :, :, i, j] = x[:, rows, j * dw : j * dw + (ow - 1) * sw + 1 : sw]
    return out


def close(got: Any, want: Any, scale: float = 3.0) -> None:
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6 * scale)


@pytest.mark.parametrize("case", GEOMETRIES, ids=IDS)
@pytest.mark.parametrize("groups", [1, 2])
def test_im2col_and_back(isa: str, case: Any, groups: int) -> None:
    n, h, w, c, kernel, geometry = case
    c = c * groups
    x = normal(n, h, w, c)
    want = patches(x, kernel, geometry)
    pixels, taps = n * want.shape[1] * want.shape[2], kernel[0] * kernel[1]
    want = want.reshape(pixels, taps, groups, c // groups).transpose(2, 0, 1, 3)
    want = want.reshape(groups, pixels, taps * c // groups)
    got = native.im2col(x, kernel, groups=groups, **geometry)
    assert_array_equal(got, want.astype(np.float32))
    # The way back is the transpose: <columns, im2col(x)> = <col2im(columns), x>, and exactly the
    # scattered sum.
    columns = normal(*got.shape, seed=1)
    back = native.col2im(columns, (n, h, w, c), kernel, groups=groups, **geometry)
    index = np.arange(x.size, dtype=np.float32).reshape(x.shape) + 1  # 0 marks the padding
    at = native.im2col(index, kernel, groups=groups, **geometry).astype(np.int64)
    total = np.zeros(x.size + 1)
    np.add.at(total, at.ravel(), columns.ravel())
    close(back, total[1:].reshape(x.shape))


@pytest.mark.parametrize("case", GEOMETRIES, ids=IDS)
def test_depthwise_and_gradients(isa: str, case: Any) -> None:
    n, h, w, c, kernel, geometry = case
    x, weight, bias = normal(n, h, w, c), normal(*kernel, c), normal(c)
    cols = patches(x, kernel, geometry)
    want = np.einsum("nhwijc,ijc->nhwc", cols, weight.astype(np.float64))
    close(native.depthwise_conv2d(x, weight, **geometry), want)
    got = native.depthwise_conv2d(x, weight, bias, clamp=(0.0, 1.5), **geometry)
    close(got, np.clip(want + bias, 0, 1.5))
    g = normal(*got.shape, seed=2)
    dw = native.depthwise_conv2d_weight_grad(g, x, kernel, **geometry)
    close(dw, np.einsum("nhwijc,nhwc->ijc", cols, g.astype(np.float64)), 1 + g[..., 0].size ** 0.5)
    dx = native.depthwise_conv2d_input_grad(g, weight, x.shape, **geometry)
    # Through col2im, tested above.
    columns = g[:, :, :, None, None] * weight
    columns = columns.reshape(1, g.shape[0] * g.shape[1] * g.shape[2], weight.size)
    close(dx, native.col2im(columns, x.shape, kernel, **geometry))


@pytest.mark.parametrize("case", GEOMETRIES, ids=IDS)
@pytest.mark.parametrize("groups,out_channels", [(1, 1), (1, 37), (1, 64), (2, 24), (3, 99)])
def test_conv2d(isa: str, case: Any, groups: int, out_channels: int) -> None:
    n, h, w, c, kernel, geometry = case
    x, weight = normal(n, h, w, c * groups), normal(out_channels, c, *kernel)
    cols = patches(x, kernel, geometry)
    cols = cols.reshape(*cols.shape[:5], groups, c)
    grouped = weight.reshape(groups, -1, c, *kernel).astype(np.float64)
    want = np.einsum("nhwijgc,gocij->nhwgo", cols, grouped)
    want = want.reshape(*want.shape[:3], out_channels)
    packed = native.pack_weight(weight, groups)
    scale = (c * kernel[0] * kernel[1]) ** 0.5
    close(native.conv2d(x, packed, **geometry), want, scale)
    # Weights with channels-last memory pack to the same, without a copy.
    last = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert_array_equal(native.pack_weight(last, groups).array, packed.array)
    g = normal(*want.shape, seed=2)
    dw = native.conv2d_weight_grad(g, x, kernel, groups=groups, **geometry)
    parts = g.reshape(*g.shape[:3], groups, out_channels // groups).astype(np.float64)
    want_dw = np.einsum("nhwijgc,nhwgo->goijc", cols, parts).reshape(dw.shape)
    close(dw, want_dw, 1 + 2 * g[..., 0].size ** 0.5)
    bias, add = normal(out_channels), normal(*want.shape, seed=3)
    got = native.conv2d(x, packed, bias, add=add, clamp=(-0.5, 2.0), **geometry)
    close(got, np.clip(want + bias + add, -0.5, 2.0), scale)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 4)])
def test_turned_weights_make_the_transposed_convolution(isa: str, kernel: tuple[int, int]) -> None:
    weight = normal(37, 20, *kernel)
    turned = np.ascontiguousarray(weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1])
    want = native.pack_weight(turned)
    last = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for stored in (weight, last):
        got = native.pack_weight(stored, turned=True)
        assert (got.out_channels, got.in_channels, got.kernel) == (20, 37, kernel)
        assert_array_equal(got.array, want.array)
    with pytest.raises(ShapeError, match="groups"):
        native.pack_weight(weight, 37, turned=True)


def test_weight_grad_of_many_pixels(isa: str) -> None:
    """Several blocks, ranges of pixels and slices; more channels than one tile."""
    x, g = normal(2, 40, 31, 70), normal(2, 40, 31, 45, seed=1)
    geometry: Geometry = {"padding": (1, 1, 1, 1)}
    want = np.einsum("nhwijc,nhwo->oijc", patches(x, (3, 3), geometry), g.astype(np.float64))
    close(native.conv2d_weight_grad(g, x, (3, 3), **geometry), want, 100)
    with pytest.raises(ShapeError, match="groups"):
        native.conv2d_weight_grad(g, x, (3, 3), groups=2, **geometry)
    with pytest.raises(ShapeError, match="g must have shape"):
        native.conv2d_weight_grad(g[:1], x, (3, 3), **geometry)


def test_conv2d_long_sums(isa: str) -> None:
    """Several slices of k, tiles of all sizes, more than one block of pixels."""
    for size in (1, 5, 7, 13, 20):
        x, weight, bias = normal(1, size, size, 130), normal(70, 130, 3, 3), normal(70)
        geometry: Geometry = {"padding": (1, 1, 1, 1)}
        want = np.einsum(
            "nhwijc,ocij->nhwo", patches(x, (3, 3), geometry), weight.astype(np.float64)
        )
        got = native.conv2d(x, native.pack_weight(weight), bias, clamp=native.RELU, **geometry)
        close(got, np.maximum(want + bias, 0), 100)


@pytest.mark.parametrize("case", GEOMETRIES, ids=IDS)
def test_threads_change_nothing(isa: str, case: Any) -> None:
    n, h, w, c, kernel, geometry = case
    n, h, w = n * 3, h * 3, w * 2
    x, weight = normal(n, h, w, c), normal(*kernel, c)
    g = native.depthwise_conv2d(x, weight, **geometry)
    packed = native.pack_weight(normal(40, c, *kernel))

    def everything() -> list[Any]:
        columns = native.im2col(x, kernel, **geometry)
        return [
            columns,
            native.col2im(columns, x.shape, kernel, **geometry),
            native.depthwise_conv2d(x, weight, **geometry),
            native.depthwise_conv2d_input_grad(g, weight, x.shape, **geometry),
            native.depthwise_conv2d_weight_grad(g, x, kernel, **geometry),
            native.conv2d(x, packed, **geometry),
            native.conv2d_weight_grad(native.conv2d(x, packed, **geometry), x, kernel, **geometry),
        ]

    two = everything()
    for threads in (1, 5):
        native.set_num_threads(threads)
        for a, b in zip(two, everything(), strict=True):
            assert_array_equal(a, b)


def test_out_is_written_and_returned(isa: str) -> None:
    x, weight = normal(1, 4, 4, 18), normal(3, 3, 18)
    out = np.full((1, 2, 2, 18), np.nan, np.float32)
    assert native.depthwise_conv2d(x, weight, out=out) is out
    assert_array_equal(out, native.depthwise_conv2d(x, weight))
    packed = native.pack_weight(normal(18, 18, 3, 3))
    assert native.conv2d(x, packed, out=out) is out
    assert_array_equal(out, native.conv2d(x, packed))
    columns = np.full((1, 4, 162), np.nan, np.float32)
    assert native.im2col(x, (3, 3), out=columns) is columns
    image = np.full(x.shape, np.nan, np.float32)
    assert native.col2im(columns, x.shape, (3, 3), out=image) is image
    assert np.isfinite(image).all()


def test_nan_passes_the_clamp(isa: str) -> None:
    x = np.full((1, 3, 3, 20), np.nan, np.float32)
    assert np.isnan(native.depthwise_conv2d(x, normal(3, 3, 20), clamp=native.RELU)).all()
    packed = native.pack_weight(normal(20, 20, 3, 3))
    assert np.isnan(native.conv2d(x, packed, clamp=native.RELU)).all()

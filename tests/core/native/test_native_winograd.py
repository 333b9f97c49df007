"""Winograd's convolution against the definition in float64, and against itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import bestiary as bt
from bestiary import nn
from bestiary.core import native
from bestiary.core.errors import ConfigError, ShapeError
from bestiary.core.native import winograd
from bestiary.core.ops.native_conv import transformed, winograd_tile

pytestmark = pytest.mark.skipif(
    not native.info()["built"], reason="the native kernels are not built"
)
Padding = tuple[int, int, int, int]
TOLERANCE = {4: 2e-5, 2: 5e-6}  # of the largest result; 1e-4 is promised


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def direct(x: Any, weight: Any, padding: Padding) -> Any:
    """(N, OH, OW, O) in float64: nine shifted products."""
    top, bottom, left, right = padding
    x = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    oh, ow = x.shape[1] - 2, x.shape[2] - 2
    taps = weight.astype(np.float64).transpose(2, 3, 1, 0)
    return sum(x[:, i : i + oh, j : j + ow] @ taps[i, j] for i in range(3) for j in range(3))


def close(got: Any, want: Any, tile: int, scale: float) -> None:
    assert got.dtype == np.float32 and got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE[tile] * scale)


@settings(max_examples=40, deadline=None)
@given(
    tile=st.sampled_from([2, 4]),
    images=st.integers(1, 3),
    size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    channels=st.tuples(st.integers(1, 40), st.integers(1, 70)),
    padding=st.tuples(*[st.integers(0, 5)] * 4),
    ends=st.tuples(*[st.booleans()] * 3),
    name=st.sampled_from(["avx512", "avx2", "generic"]),
)
def test_any_shape(
    tile: int,
    images: int,
    size: tuple[int, int],
    channels: tuple[int, int],
    padding: Padding,
    ends: tuple[bool, bool, bool],
    name: str,
) -> None:
    facts = native.info()
    name = name if name in facts["isas"] else "generic"
    (h, w), (c, o), (has_bias, has_add, clamped) = size, channels, ends
    padding = (max(padding[0], 3 - h), padding[1], max(padding[2], 3 - w), padding[3])
    x, weight = normal(images, h, w, c), normal(o, c, 3, 3, seed=1)
    want = direct(x, weight, padding)
    scale = np.abs(want).max() + 1
    bias = normal(o, seed=2) if has_bias else None
    add = normal(*want.shape, seed=3) if has_add else None
    clamp = (-0.5, 2.0) if clamped else native.NO_CLAMP
    want = want + (0 if bias is None else bias) + (0 if add is None else add)
    want = np.clip(want, *clamp)
    try:
        native.set_isa(name)
        made = native.winograd_weight(weight, tile)
        found = []
        for threads in (1, 2):
            native.set_num_threads(threads)
            run = native.WinogradConvolution(x.shape, made, padding=padding, clamp=clamp)
            found.append(run(x, bias, add))
    finally:
        native.set_isa(facts["isa"])
        native.set_num_threads(facts["threads"])
    close(found[0], want, tile, scale)
    assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize(
    "shape,out_channels",
    [((2, 57, 43, 64), 64), ((1, 14, 14, 512), 100), ((1, 9, 10, 1300), 33), ((30, 7, 7, 33), 5)],
)
def test_many_blocks_and_channels(
    isa: str, tile: int, shape: tuple[int, ...], out_channels: int
) -> None:
    x, weight = normal(*shape), normal(out_channels, shape[3], 3, 3, seed=1)
    want = direct(x, weight, (1, 1, 1, 1))
    made = native.winograd_weight(weight, tile)
    run = native.WinogradConvolution(shape, made, padding=(1, 1, 1, 1))  # type: ignore[arg-type]
    got = run(x)
    close(got, want, tile, np.abs(want).max())
    native.set_num_threads(1)
    assert_array_equal(run(x), got)


def test_images_do_not_depend_on_the_batch(isa: str) -> None:
    x, made = normal(5, 13, 11, 20), native.winograd_weight(normal(40, 20, 3, 3))
    whole = native.WinogradConvolution(x.shape, made)(x)
    alone = native.WinogradConvolution((1, *x.shape[1:]), made)
    for image, want in zip(x, whole, strict=True):
        assert_array_equal(alone(image[None])[0], want)


def test_numbers_that_are_none_stay(isa: str) -> None:
    x = normal(1, 12, 12, 16)
    x[0, 5, 6, 3] = np.nan
    made = native.winograd_weight(normal(16, 16, 3, 3))
    got = native.WinogradConvolution(x.shape, made, padding=(1, 1, 1, 1), clamp=native.RELU)(x)
    assert np.isnan(got[0, 4:7, 5:8]).all()
    assert np.isfinite(got[0, :3]).all()


def test_bad_input() -> None:
    weight = normal(8, 8, 3, 3)
    with pytest.raises(ConfigError, match="tile is 2 or 4, got 3"):
        native.winograd_weight(weight, 3)
    with pytest.raises(ShapeError, match="3, 3"):
        native.winograd_weight(normal(8, 8, 1, 1))
    made = native.winograd_weight(weight)
    with pytest.raises(ShapeError, match="does not fit"):
        native.WinogradConvolution((1, 2, 2, 8), made)
    with pytest.raises(ShapeError, match="weight"):
        native.WinogradConvolution((1, 8, 8, 9), made)
    run = native.WinogradConvolution((1, 8, 8, 8), made)
    with pytest.raises(ShapeError, match="x must have shape"):
        run(normal(1, 8, 9, 8))
    with pytest.raises(ShapeError, match="bias"):
        run(normal(1, 8, 8, 8), normal(9))
    wide = winograd.WinogradWeight(np.zeros((36, 1, 40000, native.panel_width()), np.float32), 1, 4)
    with pytest.raises(ConfigError, match="40000 channels are too many"):
        native.WinogradConvolution((1, 8, 8, 40000), wide)


def test_the_rule() -> None:
    place: Any = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1)}
    weight = np.empty((8, 8, 3, 3), np.float32)

    def tile(side: int, weight: Any = weight, groups: int = 1, **other: Any) -> int:
        return winograd_tile((1, 8, side, side), weight, groups=groups, **{**place, **other})

    assert [tile(side) for side in (4, 5, 16, 17, 56)] == [0, 2, 2, 4, 4]
    assert tile(56, stride=(2, 1)) == tile(56, dilation=(1, 2)) == tile(56, groups=2) == 0
    assert tile(56, np.empty((8, 8, 3, 1), np.float32)) == 0
    assert tile(56, np.empty((700, 700, 3, 3), np.float32)) == 0  # four times its memory


def test_compiled_programs_use_it(watched: Any) -> None:
    bt.manual_seed(0)
    conv = nn.Conv2d(8, 24, 3, padding=1).eval()
    x = bt.tensor(normal(1, 8, 20, 20))
    fast = bt.compile(conv)
    with bt.inference_mode():
        for scale in (1.0, 3.0):  # weights that were written are transformed anew
            bt.assign(conv.weight, conv.weight * scale)
            want = direct(x.numpy().transpose(0, 2, 3, 1), conv.weight.array, (1, 1, 1, 1))
            for _ in range(2):
                watched.seen.clear()
                got = fast(x).numpy().transpose(0, 2, 3, 1)
                close(got, want + conv.bias.array, 4, np.abs(want).max())
            assert "winograd4" in watched.seen and "conv" not in watched.seen
        made = transformed(conv.weight.array, 4)
        assert transformed(conv.weight.array, 4) is made

"""Convolution by 3 x 3 with stride 1 in a quarter of the products (Winograd). See winograd.h.

For weights that stay as they are: they are transformed ahead, to 36/9 (tiles of 4 x 4) or 16/9
(2 x 2) of their size. Arrays as in `conv.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError, ShapeError
from .conv import Padding, Prepared, Shape4, output_size
from .rows import NO_CLAMP, Clamp
from .runtime import Float32, check, get_num_threads, panel_width

_SPACE = 1 << 20  # WINOGRAD in kernels.c: numbers of a block of tiles
_PIECE = 16
_ROWS = 12  # tiles that are multiplied at once
_BLOCK = 48  # tiles of a block
# a, b of winograd.h: the points are 0, a, -a, b, -b, infinity.
_A, _B = math.sqrt(0.5), math.sqrt(2.0)


@dataclass(frozen=True)
class WinogradWeight:
    """Weights as `WinogradConvolution` reads them.

    `array` is (spots, panels, C, width of a panel), zeros past the last channel. It fits the
    instruction set that was in use when it was made.
    """

    array: Float32
    out_channels: int
    tile: int  # outputs along each axis


def winograd_weight(weight: Float32, tile: int = 4) -> WinogradWeight:
    """Transform and pack the weights of a convolution by 3 x 3 for `WinogradConvolution`.

    Args:
        tile: outputs along each axis that are computed at once: 4, or 2 with a smaller error.

    Shape: (O, C, 3, 3).
    Raises: ConfigError for another tile; ShapeError.
    """
    if tile not in (2, 4):
        raise ConfigError(f"native.winograd_weight: tile is 2 or 4, got {tile}", got=tile)
    if weight.ndim != 4 or weight.shape[2:] != (3, 3) or 0 in weight.shape:
        raise ShapeError(
            f"native.winograd_weight: weight must have shape (O, C, 3, 3), got {weight.shape}",
            got=weight.shape,
        )
    o, c = weight.shape[:2]
    width, spots = panel_width(), (tile + 2) ** 2
    panels = -(-o // width)
    out = np.zeros((spots, panels, c, width), np.float32)
    matrix = np.kron(_points(tile), _points(tile))  # (spots, 9)
    for p in range(panels):  # a panel at a time stays in the cache
        part = weight[p * width : (p + 1) * width]
        taps = part.transpose(2, 3, 1, 0).reshape(9, -1).astype(np.float64)
        out[:, p, :, : len(part)] = (matrix @ taps).reshape(spots, c, len(part))
    return WinogradWeight(out, o, tile)


def _points(tile: int) -> Any:
    """What takes 3 weights to their values at the points, divided as winograd.h expects."""
    if tile == 2:
        rows = [(1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)]
        return np.array(rows, np.float64)
    a, b = _A, _B
    at_a, at_b = 2 * a**2 * (a**2 - b**2), 2 * b**2 * (b**2 - a**2)
    rows = [(1 / (a * b) ** 2, 0.0, 0.0)]
    rows += [(1 / at_a, s * a / at_a, a**2 / at_a) for s in (1, -1)]
    rows += [(1 / at_b, s * b / at_b, b**2 / at_b) for s in (1, -1)]
    return np.array([*rows, (0.0, 0.0, 1.0)], np.float64)


class WinogradConvolution(Prepared):
    """As `Convolution`, by 3 x 3 with stride 1: `WinogradConvolution(...)(x, bias, add)`.

    Args:
        shape: of the images, (N, H, W, C).
        clamp: of the result, in the same pass (ReLU).

    Raises: ShapeError also when the weight was made for another instruction set.
    """

    __slots__ = ()

    def __init__(
        self,
        shape: Shape4,
        weight: WinogradWeight,
        *,
        padding: Padding = (0, 0, 0, 0),
        clamp: Clamp = NO_CLAMP,
    ) -> None:
        n, h, w, c = shape
        o, tile, width = weight.out_channels, weight.tile, panel_width()
        spots, panels = (tile + 2) ** 2, -(-o // width)
        check("winograd", "weight", weight.array, (spots, panels, c, width))
        oh, ow = output_size("winograd", h, w, (3, 3), (1, 1), padding, (1, 1))
        self.shape, self.out_shape = shape, (n, oh, ow, o)
        tiles = n * -(-oh // tile) * -(-ow // tile)
        wide = -(-c // _PIECE) * _PIECE
        # Ranges of panels are split where there are few tiles, or very many channels.
        blocks = max(1, -(-tiles // _BLOCK))
        ranges = min(panels, -(-4 * get_num_threads() // blocks))
        while _space(spots, wide, tiles, blocks, -(-panels // ranges) * width) > _SPACE:
            if tiles > blocks * _ROWS:
                blocks += 1
            elif ranges < panels:
                ranges += 1
            else:
                raise ConfigError(f"native.winograd: {c} channels are too many", got=c)
        geometry = (n, h, w, c, oh, ow, o, 3, 3, 1, 1, padding[0], padding[2], 1, 1, 1)
        self._call, self._items = (*geometry, blocks, ranges), blocks * ranges
        self._weight, self._clamp, self._kernel = weight.array, clamp, f"winograd{tile}"


def _space(spots: int, inputs: int, tiles: int, blocks: int, outputs: int) -> int:
    """Numbers of the largest block: values of its inputs and products, as in winograd.h."""
    rows = math.ceil(math.ceil(tiles / blocks) / _ROWS) * _ROWS
    return spots * (rows * (inputs + outputs) + 32)

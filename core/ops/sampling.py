"""Sampling images at given points, as spatial transformers do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, ShapeError
from ..op import op
from .activation import hardtanh
from .elementwise import abs as absolute
from .linalg import matmul
from .rounding import floor, floor_divide, remainder, round
from .shape import expand_dims, matrix_transpose, permute_dims, reshape

if TYPE_CHECKING:
    from ..tensor import Tensor


def _reflected(place: Tensor, low: float, high: float) -> Tensor:
    """Coordinates reflected at both ends until they lie between them."""
    span = high - low
    if span == 0:
        return place * 0 + low
    distance = absolute(place - low)
    rest = remainder(distance, span)
    odd = remainder(floor_divide(distance, span), 2.0)
    return rest * (1 - odd * 2) + (odd * span + low)


def _coordinate(grid: Tensor, n: int, padding_mode: str, align: bool) -> Tensor:
    """-1 ... 1 as positions in an axis of n pixels."""
    place = (grid + 1) * ((n - 1) / 2) if align else ((grid + 1) * n - 1) * 0.5
    if padding_mode == "reflection":
        place = _reflected(place, 0.0, n - 1.0) if align else _reflected(place, -0.5, n - 0.5)
    if padding_mode != "zeros":
        place = hardtanh(place, 0.0, n - 1.0)
    return place


def grid_sample(
    x: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Tensor:
    """The values of images at the points of a grid.

    Args:
        grid: points (horizontal, vertical), -1 and 1 being the edges of the image.
        mode: "bilinear" or "nearest".
        padding_mode: what lies outside: "zeros", "border" or "reflection".
        align_corners: -1 and 1 are the centres of the outermost pixels, not their edges.

    Shape: x (B, C, H, W), grid (B, OH, OW, 2); the result is (B, C, OH, OW).
    Source: Jaderberg et al. 2015, "Spatial transformer networks".
    """
    if mode not in ("bilinear", "nearest"):
        raise ConfigError(f"grid_sample: modes are 'bilinear' and 'nearest', got {mode!r}")
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ConfigError(
            f"grid_sample: outside are 'zeros', 'border' or 'reflection', got {padding_mode!r}"
        )
    if x.ndim != 4 or grid.ndim != 4 or grid.shape[-1] != 2 or grid.shape[0] != x.shape[0]:
        raise ShapeError(
            f"grid_sample: needs x (B, C, H, W) and grid (B, OH, OW, 2), got {tuple(x.shape)} "
            f"and {tuple(grid.shape)}.",
            expected=(x.shape[0], "OH", "OW", 2),
            got=tuple(grid.shape),
        )
    h, w = x.shape[2:]
    column = _coordinate(grid[..., 0], w, padding_mode, align_corners)
    row = _coordinate(grid[..., 1], h, padding_mode, align_corners)
    pixels = permute_dims(x, (0, 2, 3, 1))
    if mode == "nearest":
        out = _pixel(pixels, round(row.detach()), round(column.detach()))
        return permute_dims(out, (0, 3, 1, 2))
    top, left = floor(row.detach()), floor(column.detach())
    down, right = row - top, column - left
    out = _pixel(pixels, top, left) * expand_dims((1 - down) * (1 - right), axis=-1)
    out = out + _pixel(pixels, top, left + 1) * expand_dims((1 - down) * right, axis=-1)
    out = out + _pixel(pixels, top + 1, left) * expand_dims(down * (1 - right), axis=-1)
    out = out + _pixel(pixels, top + 1, left + 1) * expand_dims(down * right, axis=-1)
    return permute_dims(out, (0, 3, 1, 2))


def _pixel(pixels: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """(B, H, W, C) at whole-number positions (B, OH, OW); 0 outside."""
    batch, rows, columns, inside = _places(pixels, row, column)
    return pixels[batch, rows, columns] * expand_dims(inside, axis=-1)


@op(name="grid_places", outputs=4, differentiable=False)
def _places(
    xp: Any, pixels: Tensor, row: Tensor, column: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Indices limited to the image, and 1 where they lay inside, else 0."""
    b, h, w, _ = pixels.shape
    inside = (row >= 0) & (row <= h - 1) & (column >= 0) & (column <= w - 1)
    rows = xp.clip(xp.nan_to_num(row), 0, h - 1).astype(np.int64)
    columns = xp.clip(xp.nan_to_num(column), 0, w - 1).astype(np.int64)
    return xp.arange(b).reshape(b, 1, 1), rows, columns, inside.astype(pixels.dtype)


@op(name="affine_points", differentiable=False)
def _affine_points(xp: Any, theta: Tensor, *, h: int, w: int, align: bool) -> Tensor:
    """The points (horizontal, vertical, 1) of an image, -1 ... 1, row by row."""

    def line(n: int) -> Any:
        end = 1.0 if align else 1 - 1 / n
        return xp.linspace(-end, end, n) if n > 1 else xp.zeros(1)

    points = xp.ones((h, w, 3), theta.dtype)
    points[..., 0] = line(w)
    points[..., 1] = line(h)[:, None]
    return points.reshape(h * w, 3)


def affine_grid(theta: Tensor, size: tuple[int, ...], align_corners: bool = False) -> Tensor:
    """The grid of an affine map, for `grid_sample`.

    Shape: theta (B, 2, 3), size (B, C, H, W); the result is (B, H, W, 2).
    """
    b, _, h, w = size
    if theta.shape != (b, 2, 3):
        raise ShapeError(
            f"affine_grid: theta is ({b}, 2, 3) for size {tuple(size)}, got {tuple(theta.shape)}.",
            expected=(b, 2, 3),
            got=tuple(theta.shape),
        )
    points = _affine_points(theta, h=h, w=w, align=align_corners)
    return reshape(matmul(points, matrix_transpose(theta)), (b, h, w, 2))

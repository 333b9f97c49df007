"""Sampling images at given points, as spatial transformers do.

Letters: B samples, C channels, H W the image, OH OW the points, N all points of all samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, ShapeError
from ..op import op
from .activation import hardtanh
from .elementwise import abs as absolute
from .indexing import TENSOR, scatter_add
from .linalg import matmul
from .rounding import floor, floor_divide, remainder, round
from .shape import expand_dims, matrix_transpose, permute_dims, reshape

if TYPE_CHECKING:
    from ..tensor import Tensor


# -- the primitive: values at points given in pixels -------------------------------------------


def _sample_of(x: Tensor, row: Tensor, column: Tensor, *, mode: str) -> Tensor:
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
    places, inside = _places(pixels, row, column)
    b, h, w, c = pixels.shape
    return reshape(pixels, (b * h * w, c))[places] * expand_dims(inside, axis=-1)


@op(name="grid_places", outputs=2, differentiable=False)
def _places(xp: Any, pixels: Tensor, row: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Where positions are among all pixels of (B, H, W, C), and 1 if inside the image, else 0."""
    place, inside = _place(xp, row, column, pixels.shape[1:3])
    return place, inside.astype(pixels.dtype)


def _place(xp: Any, row: Any, column: Any, size: Any) -> tuple[Any, Any]:
    """Numbers of pixels among those of all samples, the nearest for points outside; if inside."""
    h, w = size
    inside = (row >= 0) & (row <= h - 1) & (column >= 0) & (column <= w - 1)
    rows = xp.clip(xp.nan_to_num(row), 0, h - 1).astype(np.int64)
    columns = xp.clip(xp.nan_to_num(column), 0, w - 1).astype(np.int64)
    samples = xp.arange(len(row)).reshape(-1, 1, 1)
    return (samples * h + rows) * w + columns, inside


class _Corners:
    """The pixels around each point: one for the nearest, else four, each with its share."""

    def __init__(self, xp: Any, row: Any, column: Any, size: Any, mode: str) -> None:
        self.down: Any = None  # how far each point is below and right of its first pixel, (N,)
        self.right: Any = None
        if mode == "nearest":
            pairs, shares = [(xp.rint(row), xp.rint(column))], [xp.ones_like(row)]
        else:
            top, left = xp.floor(row), xp.floor(column)
            down, right = row - top, column - left
            pairs = [(top + i, left + j) for i in (0, 1) for j in (0, 1)]
            shares = [a * b for a in (1 - down, down) for b in (1 - right, right)]
            self.down, self.right = down.reshape(-1), right.reshape(-1)
        found = [_place(xp, *pair, size) for pair in pairs]
        self.places = [place.reshape(-1) for place, _ in found]
        self.inside = [inside.reshape(-1) for _, inside in found]
        self.shares = [
            (share.reshape(-1) * inside)[:, None]
            for share, inside in zip(shares, self.inside, strict=True)
        ]


def _pixel_rows(xp: Any, x: Any) -> Any:
    """(B, C, H, W) as (B * H * W, C): a view of channels-last memory."""
    return xp.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(-1, x.shape[1])


def _image(rows: Any, b: int, h: int, w: int) -> Any:
    """The inverse of `_pixel_rows`."""
    return rows.reshape(b, h, w, rows.shape[1]).transpose(0, 3, 1, 2)


@op(name="sample_at_points", promote=True, wide=True, composite=_sample_of)
def _sample(xp: Any, x: Tensor, row: Tensor, column: Tensor, *, mode: str) -> Tensor:
    """Values of (B, C, H, W) at points in pixels, row and column (B, OH, OW)."""
    corners = _Corners(xp, row, column, x.shape[2:], mode)
    pixels = _pixel_rows(xp, x)
    out: Any = None
    for place, share in zip(corners.places, corners.shares, strict=True):
        part = xp.take(pixels, place, axis=0)
        part *= share
        if out is None:
            out = part
        else:
            out += part
    return _image(out, *row.shape)


@_sample.backward
def _(g, x, row, column, mode, needs):
    return grid_sample_backward(g, x, row, column, mode=mode, needed=needs)


@op(outputs=3, wide=True)
def grid_sample_backward(
    xp: Any,
    grad: Tensor,
    x: Tensor,
    row: Tensor,
    column: Tensor,
    *,
    mode: str,
    needed: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of sampling for the image and for the points."""
    b, c, h, w = x.shape
    corners = _Corners(xp, row, column, (h, w), mode)
    gs = _pixel_rows(xp, grad)
    dx = drow = dcolumn = None
    if needed[0]:
        values = xp.concatenate([gs * share for share in corners.shares])
        places = xp.concatenate(corners.places)
        total: Any = scatter_add(values, places, layout=(TENSOR,), shape=(b * h * w, c))
        dx = _image(total, b, h, w)
    if mode != "nearest" and (needed[1] or needed[2]):
        pixels = _pixel_rows(xp, x)
        # How much more each of the four pixels would add to the loss, (N,) each.
        first, second, third, fourth = (
            xp.einsum("nc,nc->n", xp.take(pixels, place, axis=0), gs) * inside
            for place, inside in zip(corners.places, corners.inside, strict=True)
        )
        down, right = corners.down, corners.right
        drow = ((third - first) * (1 - right) + (fourth - second) * right).reshape(row.shape)
        dcolumn = ((second - first) * (1 - down) + (fourth - third) * down).reshape(row.shape)
    return dx, drow, dcolumn


# -- as users call it --------------------------------------------------------------------------


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
    return _sample(x, row, column, mode=mode)


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

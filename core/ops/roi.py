"""Cutting regions of feature maps out, resampled to one size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, IndexRangeError, ShapeError
from ..op import op
from .convolution import pair

if TYPE_CHECKING:
    from ..tensor import Tensor

Size = tuple[int, int]


def _weights(start: float, length: float, out: int, samples: int, n: int) -> tuple[int, Any]:
    """How an axis of n pixels is sampled: the first pixel used, and a matrix (out, used).

    Each of the `out` bins is the mean of `samples` points between two pixels. Points more than
    a pixel outside count as zero.
    """
    place = start + (np.arange(out * samples) + 0.5) * (length / (out * samples))
    inside = (place >= -1) & (place <= n)
    place = np.clip(place, 0, n - 1)
    first = np.minimum(np.floor(place).astype(np.int64), max(n - 2, 0))
    part = place - first
    low = int(first.min())
    width = min(int(first.max()) + 2, n) - low
    matrix = np.zeros((out * samples, width))
    rows = np.arange(out * samples)
    matrix[rows, first - low] += (1 - part) * inside
    matrix[rows, np.minimum(first - low + 1, width - 1)] += part * inside
    return low, matrix.reshape(out, samples, width).mean(axis=1)


def _regions(xp: Any, boxes: Any, shape: tuple[int, ...], settings: dict[str, Any]) -> Any:
    """For each box: the image, the rows and columns used, and the matrices that resample them."""
    size, scale = settings["size"], settings["scale"]
    offset = 0.5 if settings["aligned"] else 0.0
    for image, *edges in np.asarray(boxes.get() if hasattr(boxes, "get") else boxes, np.float64):
        x0, y0, x1, y1 = (edge * scale - offset for edge in edges)
        lengths = [y1 - y0, x1 - x0]
        if not settings["aligned"]:
            lengths = [max(length, 1.0) for length in lengths]
        found = []
        for start, length, out, n in zip((y0, x0), lengths, size, shape[2:], strict=True):
            count = settings["samples"] or max(int(np.ceil(length / out)), 1)
            low, matrix = _weights(start, length, out, count, n)
            found.append((slice(low, low + matrix.shape[1]), xp.asarray(matrix)))
        (rows, down), (columns, across) = found
        yield int(image), rows, columns, down, across


@op(name="roi_align", wide=True)
def _roi_align(
    xp: Any,
    x: Tensor,
    boxes: Tensor,
    *,
    size: Size,
    scale: float,
    samples: int,
    aligned: bool,
) -> Tensor:
    settings = {"size": size, "scale": scale, "samples": samples, "aligned": aligned}
    out: Any = xp.zeros((len(boxes), x.shape[1], *size), x.dtype)
    for i, region in enumerate(_regions(xp, boxes, x.shape, settings)):
        image, rows, columns, down, across = region
        part = x[image][:, rows, columns]
        out[i] = down.astype(x.dtype) @ part @ across.T.astype(x.dtype)
    return out


@_roi_align.backward
def _(g, shapes, boxes, size, scale, samples, aligned):
    settings = {"size": size, "scale": scale, "samples": samples, "aligned": aligned}
    return roi_spread(g, boxes, shape=shapes[0], **settings), None


@op(wide=True)
def roi_spread(
    xp: Any,
    x: Tensor,
    boxes: Tensor,
    *,
    shape: tuple[int, ...],
    size: Size,
    scale: float,
    samples: int,
    aligned: bool,
) -> Tensor:
    """The transpose of `roi_align`: what each region holds, added to where it was cut out."""
    settings = {"size": size, "scale": scale, "samples": samples, "aligned": aligned}
    out: Any = xp.zeros(shape, x.dtype)
    for i, region in enumerate(_regions(xp, boxes, shape, settings)):
        image, rows, columns, down, across = region
        part = down.T.astype(x.dtype) @ x[i] @ across.astype(x.dtype)
        out[image][:, rows, columns] += part
    return out


@roi_spread.backward
def _(g, boxes, size, scale, samples, aligned):
    settings = {"size": size, "scale": scale, "samples": samples, "aligned": aligned}
    return _roi_align(g, boxes, **settings), None


def roi_align(
    x: Tensor,
    boxes: Tensor,
    output_size: int | Size,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Regions of feature maps, each resampled to one size; gradients go to the maps.

    Args:
        boxes: (K, 5): the number of the image, then left, upper, right and lower edge.
        output_size: height and width of what is cut out.
        spatial_scale: what edges are multiplied by to count pixels of the map.
        sampling_ratio: points along each axis of a bin; as many as it has pixels unless positive.
        aligned: pixels are counted by their centres, half a pixel on; boxes are then taken as
            they are, and not made a pixel wide.

    Shape: x (B, C, H, W) -> (K, C, *output_size).
    Raises:
        ShapeError: other shapes.
        IndexRangeError: a box of an image that is not in the batch.
    Source: He et al. 2017, "Mask R-CNN", section 3.
    """
    if x.ndim != 4 or boxes.ndim != 2 or boxes.shape[1] != 5 or 0 in x.shape[2:]:
        raise ShapeError(
            f"roi_align: needs x (B, C, H, W) and boxes (K, 5), got {tuple(x.shape)} and "
            f"{tuple(boxes.shape)}.",
            expected=("K", 5),
            got=tuple(boxes.shape),
        )
    size = pair(output_size, "output_size")
    if min(size) < 1 or not spatial_scale > 0:
        raise ConfigError(f"roi_align: output_size={size}, spatial_scale={spatial_scale} are wrong")
    numbers = boxes.detach().cpu().array if hasattr(boxes, "detach") else np.asarray(boxes)
    wrong = (numbers[:, 0] < 0) | (numbers[:, 0] >= x.shape[0])
    if wrong.any() or not np.isfinite(numbers).all():
        place = int(np.flatnonzero(wrong | ~np.isfinite(numbers).all(axis=1))[0])
        raise IndexRangeError(
            f"roi_align: box {place} is {numbers[place].tolist()}: its first number is that of an "
            f"image, from 0 to {x.shape[0] - 1}, and all are finite.",
            index=place,
        )
    return _roi_align(
        x,
        boxes,
        size=size,
        scale=float(spatial_scale),
        samples=max(int(sampling_ratio), 0),
        aligned=bool(aligned),
    )

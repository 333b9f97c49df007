"""Anchors: boxes of fixed sizes at every place of a map, which a detector moves onto objects.

What detectors with anchors share: the anchors, how a box is written as a change of another one,
which object each box answers for, and which of them are trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core.errors import ConfigError
from ..core.ops.shape import permute_dims, reshape
from ..core.random import numpy_rng
from ..core.tensor import Tensor
from ..hub.configuration import real
from .boxes import Array, box_iou
from .transforms import Size

Weights = tuple[float, float, float, float]
UNIT: Weights = (1.0, 1.0, 1.0, 1.0)
#: A box grows at most so many times (as a logarithm) in one step.
LARGEST_STEP = math.log(1000 / 16)
NOTHING, BETWEEN = -1, -2  # of boxes without an object: background, and neither one nor the other


def check_ratios(what: str, ratios: Sequence[float]) -> None:
    """Raise unless there are shapes of anchors, none of them absurd.

    Raises:
        ConfigError: names the model and the ratio.
    """
    real(what, 0.01, 100, **{f"aspect_ratios[{i}]": ratio for i, ratio in enumerate(ratios)})
    if not ratios:
        raise ConfigError(f"{what}: aspect_ratios is empty")


def check_overlaps(what: str, config: Any, part: str = "") -> None:
    """Raise if what is background overlaps an object more than what is one.

    Args:
        part: before the names of the thresholds: "rpn_".
    """
    low, high = (getattr(config, f"{part}{kind}_iou_thresh") for kind in ("bg", "fg"))
    if low > high:
        raise ConfigError(f"{what}: {part}bg_iou_thresh={low} is above {part}fg_iou_thresh={high}")


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Array:
    """The anchors of one place, around zero, in whole pixels.

    Args:
        sizes: side lengths of the squares whose areas they have.
        ratios: of height to width.
    Shape:
        (ratios * sizes, 4), float32; all sizes of the first ratio first
    """
    side, ratio = np.asarray(sizes, np.float32), np.asarray(ratios, np.float32)
    tall = np.sqrt(ratio)
    height = (tall[:, None] * side).reshape(-1)
    width = ((1 / tall)[:, None] * side).reshape(-1)
    return np.round(np.stack([-width, -height, width, height], axis=1) / 2)


class Grid(NamedTuple):
    """Where anchors stand, in plain numbers: part of what a network gives, and compiled with it.

    Attributes:
        picture: height and width of the batch, with padding.
        places: rows and columns of each map.
    """

    picture: Size
    places: tuple[Size, ...]

    @classmethod
    def of(cls, pixel_values: Tensor, maps: Sequence[Tensor]) -> Grid:
        """Of a batch and its maps."""
        sizes = [(int(x.shape[2]), int(x.shape[3])) for x in (pixel_values, *maps)]
        return cls(sizes[0], tuple(sizes[1:]))

    def anchors(self, cells: Sequence[Array]) -> tuple[Array, list[int]]:
        """The anchors of all maps, one after the other, and where those of each end.

        Args:
            cells: the anchors of a place of each map.
        Shape:
            (P, 4), float32: left, upper, right and lower edge in pixels of the batch
        """
        found = [
            grid_anchors(own, places, self.picture)
            for own, places in zip(cells, self.places, strict=True)
        ]
        return np.concatenate(found), [0, *np.cumsum([len(a) for a in found]).tolist()]


def grid_anchors(cells: Array, places: Size, picture: Size) -> Array:
    """The anchors of a map: those of its first place, of the next in its row, ...

    Args:
        cells: of one place.
        places: rows and columns of the map.
        picture: height and width of the batch, with padding.
    Shape:
        (A, 4) -> (rows * columns * A, 4), float32
    """
    down, across = (max(side // count, 1) for side, count in zip(picture, places, strict=True))
    y, x = np.meshgrid(np.arange(places[0]) * down, np.arange(places[1]) * across, indexing="ij")
    shifts = np.stack([x, y, x, y], axis=-1).reshape(-1, 1, 4)
    return (shifts + cells).reshape(-1, 4).astype(np.float32)


def encode_boxes(boxes: Array, anchors: Array, weights: Weights = UNIT) -> Array:
    """What must be said to move anchors onto boxes: shifts in parts of the anchor, log sizes.

    Shape:
        (N, 4), (N, 4) -> (N, 4), float32
    Source: Ren et al. 2015, "Faster R-CNN", section 3.1.2.
    """
    (x, y, w, h), (x0, y0, w0, h0) = (_centred(np.asarray(b, np.float32)) for b in (boxes, anchors))
    said = [(x - x0) / w0, (y - y0) / h0, np.log(w / w0), np.log(h / h0)]
    return np.stack(said, axis=-1) * np.asarray(weights, np.float32)


def decode_boxes(said: Array, anchors: Array, weights: Weights = UNIT) -> Array:
    """Anchors moved as a network says: the reverse of `encode_boxes`.

    Shape:
        (..., 4), (..., 4) -> (..., 4), broadcast, float32
    """
    x0, y0, w0, h0 = _centred(np.asarray(anchors, np.float32))
    dx, dy, dw, dh = np.moveaxis(said / np.asarray(weights, np.float32), -1, 0)
    x, y = dx * w0 + x0, dy * h0 + y0
    w = np.exp(np.minimum(dw, np.float32(LARGEST_STEP))) * w0 / 2
    h = np.exp(np.minimum(dh, np.float32(LARGEST_STEP))) * h0 / 2
    return np.stack([x - w, y - h, x + w, y + h], axis=-1)


def _centred(boxes: Array) -> tuple[Array, Array, Array, Array]:
    w, h = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    half = np.float32(0.5)
    return boxes[..., 0] + half * w, boxes[..., 1] + half * h, w, h


def owners(boxes: Array, there: Array, high: float, low: float, rescue: bool = False) -> Array:
    """For each box, the object that it answers for.

    Args:
        boxes: anchors or proposals, (N, 4).
        there: the objects, (M, 4).
        high, low: a box whose best overlap is `high` or more has an object, one below `low` is
            background (`NOTHING`); what lies between is neither (`BETWEEN`).
        rescue: the boxes that overlap an object most have one all the same.
    Shape:
        (N,), int64
    """
    if not len(there) or not len(boxes):
        return np.full(len(boxes), NOTHING)
    overlaps = box_iou(np.asarray(there, np.float32), np.asarray(boxes, np.float32))
    best = overlaps.argmax(axis=0)
    value = overlaps[best, np.arange(len(boxes))]
    found = np.where(value >= high, best, np.where(value < low, NOTHING, BETWEEN))
    if rescue:
        most = overlaps.max(axis=1, keepdims=True)
        chosen = (overlaps == most).any(axis=0)
        found[chosen] = best[chosen]
    return found


def sampled(wanted: Array, other: Array, count: int, share: float) -> tuple[Array, Array]:
    """At most `count` of the boxes, drawn at random: `share` of them from those with an object.

    Args:
        wanted, other: numbers of the boxes with an object and of background.
    Returns:
        The chosen of both, in ascending order.
    """
    first = min(len(wanted), int(count * share))
    return _some(wanted, first), _some(other, min(len(other), count - first))


def _some(items: Array, count: int) -> Array:
    if count == len(items):
        return items
    return np.sort(numpy_rng().permutation(items)[:count])


def sides_above(boxes: Array, least: float) -> Array:
    """Which boxes have both sides at least so long."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return np.asarray((sides >= np.float32(least)).all(axis=-1))


def best_of(scores: Array, count: int) -> Array:
    """The numbers of the largest scores, the largest first."""
    return np.argsort(-scores, kind="stable")[:count]


def sigmoid(x: Array) -> Array:
    """Probabilities of logits, in their type."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -80, 80))))


def flat(x: Tensor, values: int) -> Tensor:
    """What a convolution says of each anchor, in the order of `grid_anchors`.

    Shape:
        (B, A * values, H, W) -> (B, H * W * A, values)
    """
    b, c, h, w = x.shape
    split = permute_dims(reshape(x, (b, c // values, values, h, w)), (0, 3, 4, 1, 2))
    return reshape(split, (b, h * w * (c // values), values))


def as_array(x: Tensor) -> Array:
    """The values of a tensor, wherever it is, in float32."""
    return np.asarray(x.detach().cpu().array, np.float32)


def like(array: Array, tensor: Tensor) -> Tensor:
    """An array on the device of a tensor, and floating values in its dtype."""
    kind = tensor.dtype if array.dtype.kind == "f" else None
    return Tensor(np.ascontiguousarray(array)).to(device=tensor.device, dtype=kind)

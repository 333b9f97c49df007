"""Boxes: formats, areas, overlaps, and which of many to keep.

A box is four numbers in the last axis, in one of these formats:

    xyxy     left, upper, right, lower edge; what every function here takes
    xywh     left and upper edge, width, height (COCO)
    cxcywh   centre, width, height (DETR, YOLO)

Functions of coordinates take arrays and tensors alike, and gradients flow through tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import ConfigError, ShapeError
from ..core.ops.elementwise import clip, maximum, minimum
from ..core.ops.shape import stack

Array = np.ndarray[Any, Any]
FORMATS = ("xyxy", "xywh", "cxcywh")
_SMALLEST = 1e-7  # areas below it count as this, so that no overlap is a division by zero


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of one picture: those that are there, or those that were found.

    Lists and arrays of any number type are taken; they become float64 and int64.

    Args:
        boxes: left, upper, right, lower edge in pixels, (N, 4).
        labels: class numbers, (N,).
        scores: of what was found, (N,).
        crowd: True where a box holds many objects that nobody counted, (N,).
        areas: of the objects, where it is not that of their boxes, (N,).
        outlines: of each object, the polygons around its parts, each (K, 2) of x and y in pixels;
            empty where they are not known.
        masks: whether each pixel of the picture belongs to the object, (N, H, W).
        parts: how probably each place of a grid over its box belongs to what was found, (N, h, w).
    """

    boxes: Any
    labels: Any
    scores: Any = None
    crowd: Any = None
    areas: Any = None
    outlines: Any = None
    masks: Any = None
    parts: Any = None

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, np.float64).reshape(-1, 4)
        check_boxes(boxes)
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "labels", np.asarray(self.labels, np.int64).reshape(-1))
        for name, kind in (("scores", np.float64), ("crowd", np.bool_), ("areas", np.float64)):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, np.asarray(value, kind).reshape(-1))
        if self.masks is not None:
            object.__setattr__(self, "masks", np.asarray(self.masks, np.bool_))
        if self.parts is not None:
            object.__setattr__(self, "parts", np.asarray(self.parts, np.float32))
        for name in ("labels", "scores", "crowd", "areas", "masks", "parts", "outlines"):
            value = getattr(self, name)
            axes = 3 if name in ("masks", "parts") else 1
            shape = (len(value),) if name == "outlines" and value is not None else np.shape(value)
            if value is not None and (len(shape) != axes or shape[0] != len(boxes)):
                raise ShapeError(
                    f"{len(boxes)} boxes, and {name} of shape {shape}: one for each box.",
                    expected=boxes.shape[:1],
                    got=shape,
                )

    def __len__(self) -> int:
        return len(self.boxes)


def check_boxes(boxes: Any, name: str = "boxes") -> None:
    """Raise unless the last axis has four numbers.

    Raises:
        ShapeError: it does not.
    """
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise ShapeError(
            f"{name} have four numbers in the last axis, got shape {tuple(boxes.shape)}.",
            expected=(..., 4),
            got=tuple(boxes.shape),
        )


def convert_boxes(boxes: Any, source: str, target: str) -> Any:
    """Boxes of one format in another.

    Shape:
        (..., 4), kept
    Raises:
        ConfigError: an unknown format.
    """
    check_boxes(boxes)
    for name in (source, target):
        if name not in FORMATS:
            raise ConfigError(f"there is no format of boxes {name!r}: {', '.join(FORMATS)}")
    if source == target:
        return boxes
    a, b, c, d = (boxes[..., i] for i in range(4))
    if source == "xywh":
        a, b, c, d = a, b, a + c, b + d
    elif source == "cxcywh":
        a, b, c, d = a - c * 0.5, b - d * 0.5, a + c * 0.5, b + d * 0.5
    if target == "xywh":
        a, b, c, d = a, b, c - a, d - b
    elif target == "cxcywh":
        a, b, c, d = (a + c) * 0.5, (b + d) * 0.5, c - a, d - b
    return _stack([a, b, c, d])


def clip_boxes(boxes: Any, height: float, width: float) -> Any:
    """Boxes cut off at the edges of a picture.

    Shape:
        (..., 4), kept
    """
    check_boxes(boxes)
    x0, y0, x1, y1 = (boxes[..., i] for i in range(4))
    cut = [clip(x0, 0, width), clip(y0, 0, height), clip(x1, 0, width), clip(y1, 0, height)]
    return _stack(cut)


def scale_boxes(boxes: Any, before: tuple[float, float], after: tuple[float, float]) -> Any:
    """Boxes of a picture of one (height, width) in the picture resized to another."""
    check_boxes(boxes)
    y, x = after[0] / before[0], after[1] / before[1]
    return _stack([boxes[..., i] * (x, y)[i % 2] for i in range(4)])


def box_area(boxes: Any) -> Any:
    """Areas; of a box whose edges are swapped, zero.

    Shape:
        (..., 4) -> (...)
    """
    check_boxes(boxes)
    width = maximum(boxes[..., 2] - boxes[..., 0], 0.0)
    return width * maximum(boxes[..., 3] - boxes[..., 1], 0.0)


def _overlap(a: Any, b: Any) -> tuple[Any, Any]:
    """Intersection and union of boxes whose shapes are broadcast."""
    low = [maximum(a[..., i], b[..., i]) for i in (0, 1)]
    high = [minimum(a[..., i], b[..., i]) for i in (2, 3)]
    inner = maximum(high[0] - low[0], 0.0) * maximum(high[1] - low[1], 0.0)
    return inner, box_area(a) + box_area(b) - inner


def paired_iou(a: Any, b: Any) -> Any:
    """Intersection over union of the boxes at the same places (shapes are broadcast).

    Shape:
        (..., 4), (..., 4) -> (...)
    """
    check_boxes(a)
    check_boxes(b)
    inner, union = _overlap(a, b)
    return inner / maximum(union, _SMALLEST)


def paired_giou(a: Any, b: Any) -> Any:
    """Generalised IoU of the boxes at the same places: from -1 (far apart) to 1 (equal).

    Shape:
        (..., 4), (..., 4) -> (...)
    Source: Rezatofighi et al. 2019, "Generalized intersection over union".
    """
    check_boxes(a)
    check_boxes(b)
    inner, union = _overlap(a, b)
    low = [minimum(a[..., i], b[..., i]) for i in (0, 1)]
    high = [maximum(a[..., i], b[..., i]) for i in (2, 3)]
    hull = maximum(high[0] - low[0], 0.0) * maximum(high[1] - low[1], 0.0)
    spare = (hull - union) / maximum(hull, _SMALLEST)
    return inner / maximum(union, _SMALLEST) - spare


def box_iou(a: Any, b: Any) -> Any:
    """Intersection over union of each box with each.

    Shape:
        (N, 4), (M, 4) -> (N, M)
    """
    return paired_iou(a[..., :, None, :], b[..., None, :, :])


def box_giou(a: Any, b: Any) -> Any:
    """Generalised IoU of each box with each.

    Shape:
        (N, 4), (M, 4) -> (N, M)
    """
    return paired_giou(a[..., :, None, :], b[..., None, :, :])


def nms(boxes: Array, scores: Array, iou_threshold: float = 0.5) -> Array:
    """Non-maximum suppression: the boxes that overlap no better one, best first.

    Args:
        iou_threshold: boxes that overlap a kept one by more than this are left out.
    Shape:
        (N, 4), (N,) -> (K,), int64
    Raises:
        ShapeError: not one score for each box.
    """
    boxes, scores = np.asarray(boxes), np.asarray(scores)
    check_boxes(boxes)
    if boxes.ndim != 2 or scores.shape != boxes.shape[:1]:
        raise ShapeError(
            f"nms: needs boxes (N, 4) and scores (N,), got {boxes.shape} and {scores.shape}.",
            expected=boxes.shape[:1],
            got=scores.shape,
        )
    if not 0 <= iou_threshold <= 1:
        raise ConfigError(f"nms: iou_threshold lies from 0 to 1, got {iou_threshold}")
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        order = rest[paired_iou(boxes[best], boxes[rest]) <= iou_threshold]
    return np.array(kept, np.int64)


def batched_nms(boxes: Array, scores: Array, groups: Array, iou_threshold: float = 0.5) -> Array:
    """Non-maximum suppression within each group, such as a class or a picture.

    Shape:
        (N, 4), (N,), (N,) -> (K,), int64, best first
    """
    boxes, scores, groups = np.asarray(boxes), np.asarray(scores), np.asarray(groups)
    if groups.shape != scores.shape:
        raise ShapeError(
            f"batched_nms: one group for each score is wanted, got {groups.shape} and "
            f"{scores.shape}.",
            expected=scores.shape,
            got=groups.shape,
        )
    kept = [np.zeros(0, np.int64)]
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        kept.append(own[nms(boxes[own], scores[own], iou_threshold)])
    joined = np.concatenate(kept)
    return joined[np.argsort(-scores[joined], kind="stable")]


def _stack(parts: list[Any]) -> Any:
    if isinstance(parts[0], np.ndarray | np.generic):
        return np.stack(parts, axis=-1)
    return stack(parts, axis=-1)

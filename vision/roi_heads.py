"""What is in a region of a picture, and where exactly: the second stage of Faster R-CNN.

Regions are cut out of the map whose places are of a fitting size (`pooled`), and looked at alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.shape import concat, reshape
from ..core.tensor import Tensor
from .anchors import (
    NOTHING,
    as_array,
    decode_boxes,
    encode_boxes,
    like,
    owners,
    sampled,
    sides_above,
)
from .boxes import Array, Boxes, batched_nms, box_area, clip_boxes
from .image_task import softmax
from .region_proposals import BETA
from .transforms import Size

WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of shifts and sizes, so that their errors weigh alike
SIDE = 7  # places along each side of a region
_SMALLEST = 1e-2  # sides of boxes in pixels
_SAMPLES = 2  # along each side of a place
_USUAL = 224  # a region of this side is cut out of the map with 16 pixels between its places


class Chosen(NamedTuple):
    """The regions of a picture that are trained on.

    Attributes:
        boxes: (K, 4).
        owner: the object that each answers for; any where it has none, (K,).
        labels: its class, counted from 1; 0 for background, (K,).
    """

    boxes: Array
    owner: Array
    labels: Array


def pooled(maps: Sequence[Tensor], boxes: Sequence[Array], picture: Size, side: int) -> Tensor:
    """Regions of all pictures, each cut out of the map that fits its size.

    Args:
        maps: the finest first, each with half the places of the one before, or as many.
        boxes: of each picture.
        picture: height and width of the batch, with padding.
    Shape:
        (B, C, H_i, W_i), (K_b, 4) for each -> (K, C, side, side), those of the first picture first
    Source: Lin et al. 2017, "Feature pyramid networks for object detection", equation 1.
    """
    steps = [round(math.log2(picture[0] / x.shape[2])) for x in maps]
    images = np.repeat(np.arange(len(boxes)), [len(b) for b in boxes])
    edges = np.concatenate(list(boxes)).astype(np.float32)
    size = np.maximum(np.sqrt(box_area(edges)), np.float32(1e-6))
    step = np.floor(4 + np.log2(size / np.float32(_USUAL)) + np.float32(1e-6))
    level = np.clip(step, steps[0], steps[-1]).astype(np.int64) - steps[0]
    rows = np.concatenate([images[:, None].astype(np.float32), edges], axis=1)
    parts, order = [], []
    for i, x in enumerate(maps):
        own = np.flatnonzero(level == i)
        if len(own):
            scale = 2.0 ** -steps[i]
            parts.append(F.roi_align(x, like(rows[own], x), side, scale, _SAMPLES))
            order.append(own)
    if not parts:
        return maps[0][:0, :, :1, :1] + like(np.zeros((0, 1, side, side), np.float32), maps[0])
    places = np.argsort(np.concatenate(order))
    return concat(parts, axis=0)[like(places, maps[0])]


class BoxHead(nn.Module):
    """Two linear layers over all places of a region."""

    def __init__(self, width: int, outputs: int) -> None:
        self.fc6 = nn.Linear(width * SIDE * SIDE, outputs)
        self.fc7 = nn.Linear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (K, C, side, side) -> (K, outputs)."""
        y = F.relu(self.fc6(reshape(x, (x.shape[0], math.prod(x.shape[1:])))))
        return F.relu(self.fc7(y))


class BoxPredictor(nn.Module):
    """For each region, logits of background and every class, and how its box moves for each."""

    def __init__(self, width: int, classes: int) -> None:
        self.cls_score = nn.Linear(width, classes + 1)
        self.bbox_pred = nn.Linear(width, 4 * (classes + 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shape: (K, C) -> (K, classes + 1), (K, classes + 1, 4)."""
        logits, deltas = self.cls_score(x), self.bbox_pred(x)
        return logits, reshape(deltas, (*logits.shape, 4))


class RoIHeads(nn.Module):
    """Names regions and moves their boxes.

    Args:
        config: with thresholds and numbers whose names begin with `box_`; see
            `faster_rcnn.Config`.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        self.box_head = BoxHead(config.out_channels, config.representation_size)
        self.box_predictor = BoxPredictor(config.representation_size, config.num_classes)

    def forward(
        self, maps: Sequence[Tensor], boxes: Sequence[Array], picture: Size
    ) -> tuple[Tensor, Tensor]:
        """Shape: see `pooled` -> (K, num_classes + 1), (K, num_classes + 1, 4)."""
        logits, deltas = self.box_predictor(self.box_head(pooled(maps, boxes, picture, SIDE)))
        return logits, deltas

    def found(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Array],
        picture: Size,
        sizes: Sequence[Size],
    ) -> list[Boxes]:
        """The best boxes of each picture, in pixels.

        Args:
            sizes: height and width of each picture, without padding.
        """
        if not sum(map(len, proposals)):
            return [Boxes([], [], scores=[]) for _ in proposals]
        logits, deltas = self(maps, proposals, picture)
        scores, said = softmax(as_array(logits))[:, 1:], as_array(deltas)[:, 1:]
        result, start = [], 0
        for boxes, size in zip(proposals, sizes, strict=True):
            end = start + len(boxes)
            result.append(self._best(boxes, scores[start:end], said[start:end], size))
            start = end
        return result

    def _best(self, proposals: Array, scores: Array, deltas: Array, size: Size) -> Boxes:
        config = self.config
        region, label = np.nonzero(scores > np.float32(config.box_score_thresh))
        score = scores[region, label]
        boxes = decode_boxes(deltas[region, label], proposals[region], WEIGHTS)
        boxes = clip_boxes(boxes, *size)
        fits = sides_above(boxes, _SMALLEST)
        boxes, label, score = boxes[fits], label[fits], score[fits]
        kept = batched_nms(boxes, score, label, config.box_nms_thresh)
        kept = kept[: config.box_detections_per_img]
        return Boxes(boxes[kept], label[kept], scores=score[kept])

    # -- training --------------------------------------------------------------------------

    def chosen(self, proposals: Sequence[Array], targets: Sequence[Boxes]) -> list[Chosen]:
        """Proposals and the objects themselves, drawn at random to be trained on."""
        config, result = self.config, []
        for boxes, there in zip(proposals, targets, strict=True):
            edges = there.boxes.astype(np.float32)
            boxes = np.concatenate([boxes, edges])
            owner = owners(boxes, edges, config.box_fg_iou_thresh, config.box_bg_iou_thresh)
            own, other = sampled(
                np.flatnonzero(owner >= 0),
                np.flatnonzero(owner == NOTHING),
                config.box_batch_size_per_image,
                config.box_positive_fraction,
            )
            both = np.concatenate([own, other])
            labels = np.zeros(len(both), np.int64)
            labels[: len(own)] = there.labels[owner[own]] + 1
            result.append(Chosen(boxes[both], owner[both], labels))
        return result

    def loss(
        self,
        maps: Sequence[Tensor],
        chosen: Sequence[Chosen],
        targets: Sequence[Boxes],
        picture: Size,
    ) -> tuple[Tensor, Tensor]:
        """The losses of classes and of boxes."""
        logits, deltas = self(maps, [c.boxes for c in chosen], picture)
        labels = np.concatenate([c.labels for c in chosen])
        loss_class = F.cross_entropy(logits, like(labels, logits))
        aims = np.concatenate(
            [
                encode_boxes(t.boxes[c.owner[c.labels > 0]], c.boxes[c.labels > 0], WEIGHTS)
                for c, t in zip(chosen, targets, strict=True)
            ]
        )
        own = np.flatnonzero(labels)
        said = deltas[like(own, deltas), like(labels[own], deltas)]
        loss_box = F.smooth_l1_loss(said, like(aims, said), reduction="sum", beta=BETA)
        return loss_class, loss_box / max(len(labels), 1)

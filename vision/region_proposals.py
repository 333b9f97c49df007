"""The region proposal network: where in a picture something may be, whatever it is.

Source: Ren et al. 2015, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal
Networks", section 3.1.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.shape import concat, reshape
from ..core.tensor import Tensor
from .anchors import (
    NOTHING,
    Grid,
    as_array,
    best_of,
    decode_boxes,
    encode_boxes,
    flat,
    like,
    owners,
    sampled,
    sides_above,
    sigmoid,
)
from .boxes import Array, Boxes, batched_nms, clip_boxes
from .transforms import Size

_SMALLEST = 1e-3  # sides of proposals in pixels
BETA = 1 / 9  # below this error of a box, its loss is quadratic


class Output(NamedTuple):
    """The maps of a batch, and what every anchor says.

    Attributes:
        maps: of the pyramid, the finest first.
        logits: of "something is here", (B, P).
        deltas: how the anchor moves; see `anchors.decode_boxes`, (B, P, 4).
        grid: where the anchors stand.
    """

    maps: list[Tensor]
    logits: Tensor
    deltas: Tensor
    grid: Grid


class Head(nn.Module):
    """A convolution that every map shares, and what it says of each anchor."""

    def __init__(self, width: int, anchors: int) -> None:
        self.conv = nn.Sequential(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()),
        )
        self.cls_logits = nn.Conv2d(width, anchors, 1)
        self.bbox_pred = nn.Conv2d(width, 4 * anchors, 1)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, std=0.01)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Shape: (B, C, H_i, W_i) for each -> (B, P), (B, P, 4)."""
        seen = [self.conv(x) for x in maps]
        logits = concat([flat(self.cls_logits(x), 1) for x in seen], axis=1)
        deltas = concat([flat(self.bbox_pred(x), 4) for x in seen], axis=1)
        return reshape(logits, logits.shape[:2]), deltas


class RegionProposals(nn.Module):
    """Anchors at every place of every map, moved onto what may be an object.

    Args:
        config: with `cells`, and with thresholds and numbers whose names begin with `rpn_`; see
            `faster_rcnn.Config`.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        self.head = Head(config.out_channels, len(config.cells[0]))

    def forward(self, pixel_values: Tensor, maps: list[Tensor]) -> Output:
        """Shape: (B, in_channels, H, W), (B, C, H_i, W_i) for each -> see `Output`."""
        logits, deltas = self.head(maps)
        return Output(maps, logits, deltas, Grid.of(pixel_values, maps))

    def proposals(self, output: Output, sizes: Sequence[Size], training: bool) -> list[Array]:
        """The boxes of each picture that are most likely to hold something, the likeliest first.

        Args:
            sizes: height and width of each picture, without padding.
            training: whether as many are kept as in training.
        Shape:
            (K, 4) for each picture, float32, in pixels
        """
        config = self.config
        kind = "train" if training else "test"
        before = getattr(config, f"rpn_pre_nms_top_n_{kind}")
        after = getattr(config, f"rpn_post_nms_top_n_{kind}")
        anchors, ends = output.grid.anchors(config.cells)
        result = []
        for logits, deltas, (height, width) in zip(
            as_array(output.logits), as_array(output.deltas), sizes, strict=True
        ):
            chosen = np.concatenate(
                [
                    start + best_of(logits[start:end], before)
                    for start, end in itertools.pairwise(ends)
                ]
            )
            boxes = decode_boxes(deltas[chosen], anchors[chosen])
            boxes, scores = clip_boxes(boxes, height, width), sigmoid(logits[chosen])
            fits = sides_above(boxes, _SMALLEST) & (scores >= np.float32(config.rpn_score_thresh))
            boxes, scores, levels = (
                boxes[fits],
                scores[fits],
                np.searchsorted(ends, chosen[fits], side="right"),
            )
            result.append(boxes[batched_nms(boxes, scores, levels, config.rpn_nms_thresh)[:after]])
        return result

    def loss(self, output: Output, targets: Sequence[Boxes]) -> tuple[Tensor, Tensor]:
        """The losses of "something is here" and of where, over anchors drawn at random.

        Args:
            targets: what is there, in pixels.
        """
        config, found = self.config, []
        anchors, _ = output.grid.anchors(config.cells)
        for i, there in enumerate(targets):
            edges = there.boxes.astype(np.float32)
            owner = owners(
                anchors,
                edges,
                config.rpn_fg_iou_thresh,
                config.rpn_bg_iou_thresh,
                rescue=True,
            )
            own, other = sampled(
                np.flatnonzero(owner >= 0),
                np.flatnonzero(owner == NOTHING),
                config.rpn_batch_size_per_image,
                config.rpn_positive_fraction,
            )
            aim = encode_boxes(edges[owner[own]], anchors[own])
            both = np.concatenate([own, other])
            found.append([np.full(len(both), i), both, np.arange(len(both)) < len(own), aim])
        image, place, wanted, aims = (np.concatenate(part) for part in zip(*found, strict=True))
        rows, columns = like(image, output.logits), like(place, output.logits)
        loss_object = F.binary_cross_entropy_with_logits(
            output.logits[rows, columns], like(wanted.astype(np.float32), output.logits)
        )
        rows, columns = like(image[wanted], output.logits), like(place[wanted], output.logits)
        deltas = output.deltas[rows, columns]
        loss_box = F.smooth_l1_loss(deltas, like(aims, deltas), reduction="sum", beta=BETA)
        return loss_object, loss_box / max(len(image), 1)

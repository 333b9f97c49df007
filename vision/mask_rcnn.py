"""Mask R-CNN. He et al. 2017, "Mask R-CNN".

Faster R-CNN with one head more: which places of a grid over each box belong to the object.
Weights: torchvision's maskrcnn_resnet50_fpn (BSD-3-Clause), whose names these are.
Deviations from the paper: those of `faster_rcnn`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core import nn
from ..core.errors import DataError
from ..core.nn import functional as F
from ..core.ops.shape import reshape
from ..core.state import no_grad
from ..core.tensor import Tensor
from ..hub.configuration import positive
from ..hub.registry import Entry, Layout, Metric, register
from . import faster_rcnn
from .anchors import as_array, like, sigmoid
from .boxes import Array, Boxes
from .faster_rcnn import FILES, PAGES, FasterRCNN
from .feature_pyramid import with_norm
from .region_proposals import Output
from .roi_heads import Chosen, RoIHeads, pooled
from .transforms import Size

SIDE = 14  # places along each side of a region; a mask has twice as many
_DEPTH = 4  # convolutions


@dataclass(frozen=True)
class Config(faster_rcnn.Config):
    """The defaults are Mask R-CNN R50-FPN; see `faster_rcnn.Config`.

    Args:
        mask_channels: of the head that finds masks.
    """

    mask_channels: int = 256

    what = "Mask R-CNN"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self.what, mask_channels=self.mask_channels)


class MaskHead(nn.Sequential):
    """Convolutions over all places of a region."""

    def __init__(self, inputs: int, width: int) -> None:
        layers = [
            nn.Sequential(nn.Conv2d(width if i else inputs, width, 3, padding=1), nn.ReLU())
            for i in range(_DEPTH)
        ]
        for layer in layers:
            _initialise(layer[0])
        super().__init__(*layers)


class MaskPredictor(nn.Module):
    """For each place of a region, at twice the resolution, logits of every class."""

    def __init__(self, width: int, classes: int) -> None:
        self.conv5_mask = nn.ConvTranspose2d(width, width, 2, 2)
        self.mask_fcn_logits = MaskLogits(width, classes + 1)
        _initialise(self.conv5_mask)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (K, C, side, side) -> (K, classes + 1, 2 * side, 2 * side)."""
        logits: Tensor = self.mask_fcn_logits(F.relu(self.conv5_mask(x)))
        return logits


class MaskLogits(nn.Conv2d):
    """The convolution that names classes."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes, 1)

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        _initialise(self)


def _initialise(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class Heads(RoIHeads):
    """Names regions, moves their boxes, and says which places belong to the object."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.mask_head = MaskHead(config.out_channels, config.mask_channels)
        self.mask_predictor = MaskPredictor(config.mask_channels, config.num_classes)

    def masks(
        self, maps: Sequence[Tensor], boxes: Sequence[Array], labels: Array, picture: Size
    ) -> Tensor:
        """Logits of the places of each box belonging to an object of its class.

        Args:
            labels: classes of the boxes of all pictures, counted from 1.
        Shape:
            see `pooled` -> (K, 2 * SIDE, 2 * SIDE)
        """
        said = self.mask_predictor(self.mask_head(pooled(maps, boxes, picture, SIDE)))
        rows = np.arange(len(labels))
        own: Tensor = said[like(rows, said), like(labels, said)]
        return own

    def found(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Array],
        picture: Size,
        sizes: Sequence[Size],
    ) -> list[Boxes]:
        """The best boxes of each picture, in pixels, with `parts`."""
        found = super().found(maps, proposals, picture, sizes)
        counts = [len(boxes) for boxes in found]
        empty = np.zeros((0, 2 * SIDE, 2 * SIDE), np.float32)
        if not sum(counts):
            return [replace(boxes, parts=empty) for boxes in found]
        labels = np.concatenate([boxes.labels for boxes in found]) + 1
        said = sigmoid(as_array(self.masks(maps, [b.boxes for b in found], labels, picture)))
        parts = np.split(said, np.cumsum(counts)[:-1])
        return [replace(boxes, parts=own) for boxes, own in zip(found, parts, strict=True)]

    def mask_loss(
        self,
        maps: Sequence[Tensor],
        chosen: Sequence[Chosen],
        targets: Sequence[Boxes],
        picture: Size,
    ) -> Tensor:
        """The loss of the masks of regions that have an object.

        Source: the paper, section 3: only the mask of the right class counts.
        """
        own = [np.flatnonzero(c.labels) for c in chosen]
        labels = np.concatenate([c.labels[rows] for c, rows in zip(chosen, own, strict=True)])
        if not len(labels):
            return like(np.zeros((), np.float32), maps[0])
        boxes = [c.boxes[rows] for c, rows in zip(chosen, own, strict=True)]
        said = self.masks(maps, boxes, labels, picture)
        aims = [
            _cut(there.masks, c.owner[rows], edges)
            for there, c, rows, edges in zip(targets, chosen, own, boxes, strict=True)
            if len(rows)
        ]
        return F.binary_cross_entropy_with_logits(said, like(np.concatenate(aims), said))


def _cut(masks: Array, owner: Array, boxes: Array) -> Array:
    """The masks of the objects that boxes have, as far as they lie in these.

    Shape:
        (N, H, W), (K,), (K, 4) -> (K, 2 * SIDE, 2 * SIDE), float32
    """
    rows = np.concatenate([owner[:, None].astype(np.float32), boxes], axis=1)
    with no_grad():
        found = F.roi_align(Tensor(masks[:, None].astype(np.float32)), Tensor(rows), 2 * SIDE)
    return as_array(reshape(found, (len(boxes), 2 * SIDE, 2 * SIDE)))


class MaskRCNN(FasterRCNN):
    """Faster R-CNN whose boxes come with masks."""

    heads = Heads
    finds_masks = True

    def region_losses(
        self, output: Output, chosen: Sequence[Chosen], targets: Sequence[Boxes]
    ) -> dict[str, Tensor]:
        """The losses of what is said of regions.

        Raises:
            DataError: an object has no mask.
        """
        for i, there in enumerate(targets):
            if len(there) and there.masks is None:
                raise DataError(
                    f"{self.config.what}: picture {i} of the batch has {len(there)} boxes without "
                    "masks: Boxes(..., masks=) of shape (N, H, W) are wanted.",
                    picture=i,
                )
        losses = super().region_losses(output, chosen, targets)
        heads: Any = self.roi_heads
        loss = heads.mask_loss(output.maps[:-1], chosen, targets, output.grid.picture)
        return {**losses, "mask": loss}


# -- published models --------------------------------------------------------------------------

#: Names that torchvision gave before its version 0.13, and gives its files still.
OLD_NAMES: dict[str, str | None] = {
    **faster_rcnn.OLD_NAMES,
    **{
        f"roi_heads.mask_head.mask_fcn{i + 1}.{kind}": f"roi_heads.mask_head.{i}.0.{kind}"
        for i in range(_DEPTH)
        for kind in ("weight", "bias")
    },
}


@register(
    "mask-rcnn",
    config=Config,
    task="object-detection",
    layouts={"native": Layout(rename=OLD_NAMES, detect=with_norm)},
    head=("roi_heads.box_predictor", "roi_heads.mask_predictor.mask_fcn_logits"),
    stem="backbone.body.conv1.weight",
    entries=[
        Entry(
            name="maskrcnn-resnet50-fpn",
            aliases=("mask-rcnn-r50",),
            sources=(),
            file=f"{FILES}maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth",
            config={"norm_eps": 0.0},  # these weights were trained without it
            license="BSD-3-Clause",
            commercial=True,
            parameters=44_401_393,
            metric=Metric(
                "box AP", 37.9, "COCO 2017 validation", 800, f"{PAGES}maskrcnn_resnet50_fpn.html"
            ),
            preprocess={"resize": "torchvision", "divisor": 32},
            labels="coco-90",
            paper="https://arxiv.org/abs/1703.06870",
            note="torchvision's file: bt.load('maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth')",
        )
    ],
)
def mask_rcnn(config: Config) -> MaskRCNN:
    """Mask R-CNN for object detection with masks."""
    return MaskRCNN(config)

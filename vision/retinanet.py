"""RetinaNet. Lin et al. 2017, "Focal Loss for Dense Object Detection".

Nine anchors at every place of five maps; each says of every class whether it is one, and how the
anchor has to move. A loss that turns away from what is easy lets all of them be trained at once.
Weights: torchvision's retinanet_resnet50_fpn (BSD-3-Clause), whose names these are.
Deviations from the paper, as in torchvision: boxes are trained with the absolute error, and those
without an object of overlap 0.5 are rescued if none overlaps it more; the coarser maps are
computed from the pyramid.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..core import nn
from ..core.errors import ConfigError
from ..core.nn import functional as F
from ..core.ops.reduction import sum as total
from ..core.ops.shape import concat
from ..core.tensor import Tensor
from ..hub.configuration import positive, real
from ..hub.registry import Entry, Layout, Metric, register
from .anchors import (
    BETWEEN,
    Grid,
    as_array,
    best_of,
    cell_anchors,
    check_overlaps,
    check_ratios,
    decode_boxes,
    encode_boxes,
    flat,
    like,
    owners,
    sigmoid,
)
from .boxes import Array, Boxes, batched_nms, clip_boxes
from .fcos import ClassHead
from .feature_pyramid import OLD_PYRAMID, TrunkConfig, resnet_trunk, with_norm
from .transforms import Size

Figures = dict[str, float]
LEVELS = 3  # maps of the ResNet that the pyramid sees


@dataclass(frozen=True)
class Config(TrunkConfig):
    """The defaults are RetinaNet-R50; names as the arguments of torchvision's class.

    Args:
        anchor_sizes: for each map of the pyramid, the side of the smallest square anchor.
        anchor_scales: anchors of each shape, from one size to nearly the double.
        aspect_ratios: of height to width.
        score_thresh: what is less probable is not found.
        nms_thresh: boxes of one class that overlap a better one by more are left out.
        detections_per_img: most boxes of a picture.
        topk_candidates: most boxes of a map that are compared.
        fg_iou_thresh, bg_iou_thresh: overlap from which an anchor has an object, and below which
            it is background, in training.
        num_classes: torchvision counts the background, its class 0, and never finds it.
    """

    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    anchor_scales: int = 3
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    score_thresh: float = 0.05
    nms_thresh: float = 0.5
    detections_per_img: int = 300
    topk_candidates: int = 1000
    fg_iou_thresh: float = 0.5
    bg_iou_thresh: float = 0.4

    what = "RetinaNet"

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = ("anchor_sizes", "anchor_scales", "detections_per_img", "topk_candidates")
        positive(self.what, **{key: getattr(self, key) for key in sizes})
        rates = ("score_thresh", "nms_thresh", "fg_iou_thresh", "bg_iou_thresh")
        real(self.what, **{key: getattr(self, key) for key in rates})
        check_ratios(self.what, self.aspect_ratios)
        check_overlaps(self.what, self)
        if len(self.anchor_sizes) != LEVELS + 2:
            raise ConfigError(
                f"{self.what}: anchor_sizes {self.anchor_sizes} are {LEVELS + 2}, one for each map"
            )

    @property
    def cells(self) -> list[Array]:
        """The anchors of a place of each map."""
        scales = [2 ** (i / self.anchor_scales) for i in range(self.anchor_scales)]
        return [
            cell_anchors([int(side * scale) for scale in scales], self.aspect_ratios)
            for side in self.anchor_sizes
        ]


class Output(NamedTuple):
    """What every anchor says, those of all maps one after the other.

    Attributes:
        logits: of every class, (B, P, N).
        deltas: how the anchor moves; see `anchors.decode_boxes`, (B, P, 4).
        grid: where the anchors stand.
    """

    logits: Tensor
    deltas: Tensor
    grid: Grid


def _tower(width: int) -> nn.Sequential:
    layers = [nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()) for _ in range(4)]
    for layer in layers:
        _small(layer[0])
    return nn.Sequential(*layers)


def _small(conv: nn.Conv2d) -> None:
    """Initial values that say next to nothing."""
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class ClassificationHead(nn.Module):
    """Logits of every class for each anchor."""

    def __init__(self, width: int, anchors: int, classes: int) -> None:
        self.classes = classes
        self.conv = _tower(width)
        self.cls_logits = ClassHead(width, anchors * classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Shape: (B, C, H_i, W_i) for each -> (B, P, classes)."""
        return concat([flat(self.cls_logits(self.conv(x)), self.classes) for x in maps], axis=1)


class RegressionHead(nn.Module):
    """How each anchor moves."""

    def __init__(self, width: int, anchors: int) -> None:
        self.conv = _tower(width)
        self.bbox_reg = nn.Conv2d(width, 4 * anchors, 3, padding=1)
        _small(self.bbox_reg)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Shape: (B, C, H_i, W_i) for each -> (B, P, 4)."""
        return concat([flat(self.bbox_reg(self.conv(x)), 4) for x in maps], axis=1)


class Head(nn.Module):
    """Two towers that every map shares."""

    def __init__(self, width: int, anchors: int, classes: int) -> None:
        self.classification_head = ClassificationHead(width, anchors, classes)
        self.regression_head = RegressionHead(width, anchors)


class RetinaNet(nn.Module):
    """A ResNet, a pyramid of five maps, and two heads that every map shares."""

    takes_mask = (
        False  # a picture is not padded for its neighbours, so it does not change with them
    )

    def __init__(self, config: Config) -> None:
        self.config = config
        self.backbone = resnet_trunk(config, LEVELS, coarser=True)
        per_place = config.anchor_scales * len(config.aspect_ratios)
        self.head = Head(config.out_channels, per_place, config.num_classes)

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> Output:
        """What every anchor says.

        Args:
            pixel_mask: not used.
        Shape:
            (B, in_channels, H, W) -> (B, P, num_classes), (B, P, 4)
        """
        maps = self.backbone(pixel_values)
        logits = self.head.classification_head(maps)
        deltas = self.head.regression_head(maps)
        return Output(logits, deltas, Grid.of(pixel_values, maps))

    def found(self, output: Output, sizes: Sequence[Size]) -> list[Boxes]:
        """The best boxes of each picture, in pixels.

        Args:
            sizes: height and width of each picture, without padding.
        """
        config = self.config
        anchors, ends = output.grid.anchors(config.cells)
        result = []
        for logits, deltas, (height, width) in zip(
            as_array(output.logits), as_array(output.deltas), sizes, strict=True
        ):
            places, labels, scores = [], [], []
            for start, end in itertools.pairwise(ends):
                score = sigmoid(logits[start:end]).reshape(-1)
                likely = np.flatnonzero(score > np.float32(config.score_thresh))
                best = likely[best_of(score[likely], config.topk_candidates)]
                place, label = np.divmod(best, config.num_classes)
                places.append(start + place)
                labels.append(label)
                scores.append(score[best])
            place, label, score = (np.concatenate(parts) for parts in (places, labels, scores))
            boxes = decode_boxes(deltas[place], anchors[place])
            boxes = clip_boxes(boxes, height, width)
            kept = batched_nms(boxes, score, label, config.nms_thresh)
            kept = kept[: config.detections_per_img]
            result.append(Boxes(boxes[kept], label[kept], scores=score[kept]))
        return result

    def loss(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None,
        targets: Sequence[Boxes],
        sizes: Sequence[Size],
    ) -> tuple[Tensor, Figures]:
        """The loss of a batch, and what it is made of.

        Args:
            targets: what is there, in pixels.
        Source: the paper, section 4.1; for boxes the absolute error instead of the smooth one.
        """
        output = self(pixel_values)
        config, classes, boxes = self.config, [], []
        anchors, _ = output.grid.anchors(config.cells)
        for i, there in enumerate(targets):
            edges = there.boxes.astype(np.float32)
            owner = owners(anchors, edges, config.fg_iou_thresh, config.bg_iou_thresh, rescue=True)
            own = np.flatnonzero(owner >= 0)
            wanted = np.zeros((len(owner), config.num_classes), np.float32)
            wanted[own, there.labels[owner[own]]] = 1
            counted = np.flatnonzero(owner != BETWEEN)
            logits = output.logits[i][like(counted, output.logits)]
            loss = total(F.sigmoid_focal_loss(logits, like(wanted[counted], logits)))
            classes.append(loss / max(len(own), 1))
            deltas = output.deltas[i][like(own, output.deltas)]
            aim = encode_boxes(edges[owner[own]], anchors[own])
            loss = F.l1_loss(deltas, like(aim, deltas), reduction="sum")
            boxes.append(loss / max(len(own), 1))
        loss_class, loss_box = (sum(parts[1:], parts[0]) / len(parts) for parts in (classes, boxes))
        return loss_class + loss_box, {"class": loss_class.item(), "box": loss_box.item()}


# -- published models --------------------------------------------------------------------------

_TOWERS = ("classification_head", "regression_head")
#: Names that torchvision gave before its version 0.13, and gives its files still.
OLD_NAMES: dict[str, str | None] = {
    **OLD_PYRAMID,
    **{
        f"head.{tower}.conv.{2 * i}.{kind}": f"head.{tower}.conv.{i}.0.{kind}"
        for tower in _TOWERS
        for i in range(4)
        for kind in ("weight", "bias")
    },
}
_PAGE = (
    "https://docs.pytorch.org/vision/stable/models/generated/"
    "torchvision.models.detection.retinanet_resnet50_fpn.html"
)


@register(
    "retinanet",
    config=Config,
    task="object-detection",
    layouts={"native": Layout(rename=OLD_NAMES, detect=with_norm)},
    head=("head.classification_head.cls_logits",),
    stem="backbone.body.conv1.weight",
    entries=[
        Entry(
            name="retinanet-resnet50-fpn",
            aliases=("retinanet-r50",),
            sources=(),
            file="https://download.pytorch.org/models/retinanet_resnet50_fpn_coco-eeacb38b.pth",
            config={"norm_eps": 0.0},  # these weights were trained without it
            license="BSD-3-Clause",
            commercial=True,
            parameters=34_014_999,
            metric=Metric("box AP", 36.4, "COCO 2017 validation", 800, _PAGE),
            preprocess={"resize": "torchvision", "divisor": 32},
            labels="coco-91",
            paper="https://arxiv.org/abs/1708.02002",
            note="torchvision's file: bt.load('retinanet_resnet50_fpn_coco-eeacb38b.pth')",
        )
    ],
)
def retinanet(config: Config) -> RetinaNet:
    """RetinaNet for object detection."""
    return RetinaNet(config)

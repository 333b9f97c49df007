"""Faster R-CNN with a feature pyramid. Ren et al. 2015, "Faster R-CNN"; Lin et al. 2017, "FPN".

A first network proposes regions where something may be, a second one looks at each of them alone.
Weights: torchvision's fasterrcnn_resnet50_fpn (BSD-3-Clause), whose names these are.
Deviations from the papers, as in torchvision: the coarsest map is every other place of the one
above it; regions are sampled at two points along each side of a place. Unlike torchvision, classes
are counted without the background, and how many pixels lie between the places of a map is known
and not estimated, which differs for pictures of less than about 80 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..core import nn
from ..core.errors import ConfigError
from ..core.state import inference_mode
from ..core.tensor import Tensor
from ..hub.configuration import positive, real
from ..hub.registry import Entry, Layout, Metric, register
from .anchors import cell_anchors, check_overlaps, check_ratios
from .boxes import Array, Boxes
from .feature_pyramid import (
    OLD_PYRAMID,
    PyramidConfig,
    PyramidTrunk,
    TrunkConfig,
    resnet_trunk,
    with_norm,
)
from .region_proposals import Output, RegionProposals
from .roi_heads import Chosen, RoIHeads
from .transforms import Size

Figures = dict[str, float]
LEVELS = 4  # maps of the ResNet that the pyramid sees

_NUMBERS = (
    "anchor_sizes", "rpn_pre_nms_top_n_train", "rpn_pre_nms_top_n_test",
    "rpn_post_nms_top_n_train", "rpn_post_nms_top_n_test", "rpn_batch_size_per_image",
    "representation_size", "box_detections_per_img", "box_batch_size_per_image",
)  # fmt: skip
_RATES = (
    "rpn_nms_thresh", "rpn_fg_iou_thresh", "rpn_bg_iou_thresh", "rpn_positive_fraction",
    "rpn_score_thresh", "box_score_thresh", "box_nms_thresh", "box_fg_iou_thresh",
    "box_bg_iou_thresh", "box_positive_fraction",
)  # fmt: skip


@dataclass(frozen=True)
class RegionConfig(PyramidConfig):
    """What is looked for in regions; names as the arguments of torchvision's class.

    Args:
        anchor_sizes: sides of square anchors.
        aspect_ratios: of height to width.
        rpn_pre_nms_top_n_train, rpn_pre_nms_top_n_test: proposals of a map that are compared.
        rpn_post_nms_top_n_train, rpn_post_nms_top_n_test: proposals of a picture that are kept.
        rpn_nms_thresh: proposals that overlap a better one by more are left out.
        rpn_fg_iou_thresh, rpn_bg_iou_thresh: overlap from which an anchor has an object, and below
            which it is background, in training.
        rpn_batch_size_per_image, rpn_positive_fraction: anchors trained on, and at most how many
            of them with an object.
        rpn_score_thresh: of proposals.
        representation_size: features of a region.
        box_score_thresh: what is less probable is not found.
        box_nms_thresh: boxes of one class that overlap a better one by more are left out.
        box_detections_per_img: most boxes of a picture.
        box_fg_iou_thresh, box_bg_iou_thresh, box_batch_size_per_image, box_positive_fraction: of
            regions, as of anchors.
        num_classes: without the background.
    """

    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_pre_nms_top_n_train: int = 2000
    rpn_pre_nms_top_n_test: int = 1000
    rpn_post_nms_top_n_train: int = 2000
    rpn_post_nms_top_n_test: int = 1000
    rpn_nms_thresh: float = 0.7
    rpn_fg_iou_thresh: float = 0.7
    rpn_bg_iou_thresh: float = 0.3
    rpn_batch_size_per_image: int = 256
    rpn_positive_fraction: float = 0.5
    rpn_score_thresh: float = 0.0
    representation_size: int = 1024
    box_score_thresh: float = 0.05
    box_nms_thresh: float = 0.5
    box_detections_per_img: int = 100
    box_fg_iou_thresh: float = 0.5
    box_bg_iou_thresh: float = 0.5
    box_batch_size_per_image: int = 512
    box_positive_fraction: float = 0.25
    num_classes: int = 90

    what = "Faster R-CNN"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self.what, **{key: getattr(self, key) for key in _NUMBERS})
        real(self.what, **{key: getattr(self, key) for key in _RATES})
        check_ratios(self.what, self.aspect_ratios)
        for part in ("rpn_", "box_"):
            check_overlaps(self.what, self, part)

    @property
    def cells(self) -> list[Array]:
        """The anchors of a place of each map: one size for each."""
        return [cell_anchors([side], self.aspect_ratios) for side in self.anchor_sizes]


@dataclass(frozen=True)
class Config(RegionConfig, TrunkConfig):
    """The defaults are Faster R-CNN R50-FPN; see `RegionConfig` and `TrunkConfig`.

    Args:
        anchor_sizes: one for each map of the pyramid.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.anchor_sizes) != LEVELS + 1:
            raise ConfigError(
                f"{self.what}: anchor_sizes {self.anchor_sizes} are {LEVELS + 1}, one for each map"
            )


class FasterRCNN(nn.Module):
    """A trunk with a pyramid of maps, a network that proposes regions, one that names them."""

    heads: type[RoIHeads] = RoIHeads

    takes_mask = (
        False  # a picture is not padded for its neighbours, so it does not change with them
    )

    def __init__(self, config: Any) -> None:
        self.config = config
        self.backbone = self.trunk(config)
        self.rpn = RegionProposals(config)
        self.roi_heads = self.heads(config)

    def trunk(self, config: Any) -> PyramidTrunk:
        """What gives the maps."""
        return resnet_trunk(config, LEVELS, coarser=False)

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> Output:
        """The maps, and what every anchor says; `found` goes on from there.

        Args:
            pixel_mask: not used.
        Shape:
            (B, in_channels, H, W) -> see `region_proposals.Output`
        """
        maps = self.backbone(pixel_values)
        output: Output = self.rpn(pixel_values, maps)
        return output

    def found(self, output: Output, sizes: Sequence[Size]) -> list[Boxes]:
        """The best boxes of each picture, in pixels.

        Args:
            sizes: height and width of each picture, without padding.
        """
        proposals = self.rpn.proposals(output, sizes, training=False)
        with inference_mode():
            return self.roi_heads.found(output.maps[:-1], proposals, output.grid.picture, sizes)

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
            sizes: height and width of each picture, without padding.
        """
        output = self(pixel_values)
        losses = dict(zip(("object", "proposal"), self.rpn.loss(output, targets), strict=True))
        proposals = self.rpn.proposals(output, sizes, training=True)
        chosen = self.roi_heads.chosen(proposals, targets)
        losses |= self.region_losses(output, chosen, targets)
        first, *others = losses.values()
        return sum(others, first), {name: loss.item() for name, loss in losses.items()}

    def region_losses(
        self, output: Output, chosen: Sequence[Chosen], targets: Sequence[Boxes]
    ) -> dict[str, Tensor]:
        """The losses of what is said of regions."""
        found = self.roi_heads.loss(output.maps[:-1], chosen, targets, output.grid.picture)
        return dict(zip(("class", "box"), found, strict=True))


# -- published models --------------------------------------------------------------------------

#: Names that torchvision gave before its version 0.13, and gives its files still.
OLD_NAMES: dict[str, str | None] = {
    **OLD_PYRAMID,
    **{f"rpn.head.conv.{kind}": f"rpn.head.conv.0.0.{kind}" for kind in ("weight", "bias")},
}
PAGES = "https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.detection."
FILES = "https://download.pytorch.org/models/"


@register(
    "faster-rcnn",
    config=Config,
    task="object-detection",
    layouts={"native": Layout(rename=OLD_NAMES, detect=with_norm)},
    head=("roi_heads.box_predictor",),
    stem="backbone.body.conv1.weight",
    entries=[
        Entry(
            name="fasterrcnn-resnet50-fpn",
            aliases=("faster-rcnn-r50",),
            sources=(),
            file=f"{FILES}fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
            config={"norm_eps": 0.0},  # these weights were trained without it
            license="BSD-3-Clause",
            commercial=True,
            parameters=41_755_286,
            metric=Metric(
                "box AP", 37.0, "COCO 2017 validation", 800, f"{PAGES}fasterrcnn_resnet50_fpn.html"
            ),
            preprocess={"resize": "torchvision", "divisor": 32},
            labels="coco-90",
            paper="https://arxiv.org/abs/1506.01497",
            note="torchvision's file: bt.load('fasterrcnn_resnet50_fpn_coco-258fb6c6.pth')",
        )
    ],
)
def faster_rcnn(config: Config) -> FasterRCNN:
    """Faster R-CNN for object detection."""
    return FasterRCNN(config)

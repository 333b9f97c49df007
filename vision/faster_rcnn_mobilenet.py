"""Faster R-CNN on MobileNetV3-Large with a feature pyramid, for small machines.

Papers: those of `faster_rcnn` and `mobilenet_v3`.
Weights: torchvision's fasterrcnn_mobilenet_v3_large_fpn and ..._320_fpn (BSD-3-Clause).
As in torchvision, the pyramid sees two maps of one resolution, a 32nd of the picture's, and every
map has anchors of all sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.tensor import Tensor
from ..hub.configuration import real
from ..hub.registry import Entry, Layout, Metric, register
from . import mobilenet_v3
from .anchors import cell_anchors
from .boxes import Array
from .faster_rcnn import FILES, OLD_NAMES, PAGES, FasterRCNN, RegionConfig
from .feature_pyramid import PyramidTrunk, with_norm

MAPS = 3


@dataclass(frozen=True)
class Config(RegionConfig):
    """The defaults are torchvision's; see `faster_rcnn.RegionConfig`.

    Args:
        width: multiplies channels; see `mobilenet_v3.Config`.
        anchor_sizes: of every map.
    """

    width: float = 1.0
    rpn_score_thresh: float = 0.05

    what = "Faster R-CNN (MobileNetV3)"

    def __post_init__(self) -> None:
        super().__post_init__()
        real(self.what, 0.01, 10, width=self.width)

    @property
    def cells(self) -> list[Array]:
        """The anchors of a place of each map: of all sizes."""
        return [cell_anchors(self.anchor_sizes, self.aspect_ratios)] * MAPS


class Body(mobilenet_v3.MobileNetV3):
    """MobileNetV3-Large without its head."""

    def __init__(self, config: Config) -> None:
        super().__init__(
            mobilenet_v3.Config(
                size="large", width=config.width, in_channels=config.in_channels, num_classes=0
            )
        )
        del self.conv_head

    @property
    def channels(self) -> tuple[int, int]:
        """Of the two maps."""
        blocks: Any = self.blocks
        return blocks[5][0].conv_pwl.weight.shape[0], blocks[6][0].conv.weight.shape[0]

    def feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """What the first block of the last stage gives, and the last convolution.

        Shape:
            (B, in_channels, H, W) -> (B, C_1, H / 32, W / 32), (B, C_2, H / 32, W / 32), rounded up
        """
        blocks: Any = self.blocks
        x: Tensor = self.act(self.bn1(self.conv_stem(pixel_values)))
        for stage in blocks[:5]:
            x = stage(x)
        first, *others = blocks[5]
        x = fine = first(x)
        for block in others:
            x = block(x)
        return fine, blocks[6](x)


class MobileFasterRCNN(FasterRCNN):
    """Faster R-CNN on a MobileNetV3."""

    def trunk(self, config: Config) -> PyramidTrunk:
        """What gives the maps."""
        body = Body(config)
        return PyramidTrunk(config, body, body.channels, coarser=False)


# -- published models --------------------------------------------------------------------------

_STAGES = (1, 2, 3, 4, 2, 3)  # blocks; torchvision numbers them through
_SQUEEZED = (2, 4, 5)  # stages with squeeze-and-excite


def _renamed() -> dict[str, Any]:
    """torchvision's names of the network -> ours."""
    table = {
        "backbone.body.0.0.{rest}": "backbone.body.conv_stem.{rest}",
        "backbone.body.0.1.{rest}": "backbone.body.bn1.{rest}",
        "backbone.body.16.0.{rest}": "backbone.body.blocks.6.0.conv.{rest}",
        "backbone.body.16.1.{rest}": "backbone.body.blocks.6.0.bn1.{rest}",
    }
    places = [(stage, i) for stage, count in enumerate(_STAGES) for i in range(count)]
    for number, (stage, i) in enumerate(places, start=1):
        old, new = f"backbone.body.{number}.block.", f"backbone.body.blocks.{stage}.{i}."
        parts = [("conv_dw", "bn1"), ("conv_pw", "bn2")]
        if stage:
            parts = [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")]
        for j, (conv, norm) in enumerate(parts):
            place = j + 1 if stage in _SQUEEZED and j == 2 else j
            table[f"{old}{place}.0.{{rest}}"] = f"{new}{conv}.{{rest}}"
            table[f"{old}{place}.1.{{rest}}"] = f"{new}{norm}.{{rest}}"
        if stage in _SQUEEZED:
            table[f"{old}2.fc1.{{rest}}"] = f"{new}se.conv_reduce.{{rest}}"
            table[f"{old}2.fc2.{{rest}}"] = f"{new}se.conv_expand.{{rest}}"
    return table


RENAME = {**_renamed(), **OLD_NAMES}
_SMALL = {"rpn_pre_nms_top_n_test": 150, "rpn_post_nms_top_n_test": 150}


def _entry(name: str, file: str, ap: float, size: int, limits: dict[str, int], **own: Any) -> Entry:
    page = f"{PAGES}{name.replace('-', '_')}.html"
    return Entry(
        name=name,
        sources=(),
        file=FILES + file,
        config=own,
        license="BSD-3-Clause",
        commercial=True,
        parameters=19_386_354,
        metric=Metric("box AP", ap, "COCO 2017 validation", size, page),
        preprocess={"resize": "torchvision", "divisor": 32, **limits},
        labels="coco-90",
        paper="https://arxiv.org/abs/1506.01497",
        note=f"torchvision's file: bt.load('{file}')",
    )


@register(
    "faster-rcnn-mobilenet",
    config=Config,
    task="object-detection",
    layouts={"native": Layout(rename=RENAME, detect=with_norm)},
    head=("roi_heads.box_predictor",),
    stem="backbone.body.conv_stem.weight",
    entries=[
        _entry(
            "fasterrcnn-mobilenet-v3-large-fpn",
            "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth",
            32.8,
            800,
            {},
        ),
        _entry(
            "fasterrcnn-mobilenet-v3-large-320-fpn",
            "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth",
            22.8,
            320,
            {"shortest": 320, "longest": 640},
            **_SMALL,
        ),
    ],
)
def faster_rcnn_mobilenet(config: Config) -> MobileFasterRCNN:
    """Faster R-CNN on MobileNetV3 for object detection."""
    return MobileFasterRCNN(config)

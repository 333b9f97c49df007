"""DeepLabV3+ on MobileNetV2. Chen et al. 2018, "Encoder-Decoder with Atrous Separable Convolution".

Weights: google/deeplabv3_mobilenet_v2_1.0_513; any repository of MobileNetV2ForSemanticSegmentation
in the layout of transformers loads by its id. Deviation from the paper: as published for mobile
phones, the head has neither dilated convolutions nor a decoder, only a 1x1 convolution beside the
mean over all places.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.shape import broadcast_to, concat
from ..core.tensor import Tensor
from ..hub.configuration import number_of_labels, positive
from ..hub.registry import Entry, Hub, Layout, register
from . import mobilenet_v2, timm
from .mobile_blocks import initialise

NAME = "DeepLab on MobileNetV2"
WIDTH = 256  # of the head, whatever the trunk's
_CLASS = "MobileNetV2ForSemanticSegmentation"


@dataclass(frozen=True)
class Config(mobilenet_v2.Config):
    """The fields of `mobilenet_v2.Config`; the defaults are the published size."""

    same_padding: bool = True
    eps: float = timm.TF_EPS
    dropout: float = 0.8
    first_skip: bool = False
    output_stride: int = 8
    num_classes: int = 21

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self) is Config:
            positive(NAME, num_classes=self.num_classes)


class ConvNorm(nn.Module):
    """A 1x1 convolution, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.convolution = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.normalization = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.normalization(self.convolution(x)))
        return y


class Head(nn.Module):
    """What is at a place beside what is in the whole picture."""

    def __init__(self, inputs: int, config: Config) -> None:
        self.conv_pool = ConvNorm(inputs, WIDTH)
        self.conv_aspp = ConvNorm(inputs, WIDTH)
        self.conv_projection = ConvNorm(2 * WIDTH, WIDTH)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(WIDTH, config.num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        whole: Tensor = self.conv_pool(F.adaptive_avg_pool2d(x, 1))
        here: Tensor = self.conv_aspp(x)
        both = concat([broadcast_to(whole, here.shape), here], axis=1)
        logits: Tensor = self.classifier(self.dropout(self.conv_projection(both)))
        return logits


class DeepLab(nn.Module):
    """MobileNetV2, dilated in its last stages, with a head for every place."""

    def __init__(self, config: Config) -> None:
        self.config = config
        # The last convolution of the trunk serves its classifier; published files have it too.
        values = {k: getattr(config, k) for k in mobilenet_v2.Config.__dataclass_fields__}
        self.trunk = mobilenet_v2.MobileNetV2(replace(mobilenet_v2.Config(**values), num_classes=0))
        channels = self.trunk.conv_head.weight.shape[1]
        self.segmentation_head = Head(channels, config)
        initialise(self.segmentation_head)
        self.segmentation_head.classifier.reset_parameters()  # by fan-out, logits would be large

    def feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """The last map of each resolution of the trunk, the finest first."""
        return self.trunk.feature_maps(pixel_values)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits of every class, at a lower resolution.

        Shape:
            (B, in_channels, H, W) -> (B, num_classes, H / output_stride, W / output_stride)
        """
        logits: Tensor = self.segmentation_head(self.feature_maps(pixel_values)[-1])
        return logits


# -- published layouts --------------------------------------------------------------------------

TRANSFORMERS: dict[str, Any] = {
    old: f"trunk.{new}"
    for old, new in mobilenet_v2.TRANSFORMERS.items()
    if old.startswith("mobilenet_v2.")
}
TRANSFORMERS["segmentation_head.classifier.convolution.{rest}"] = (
    "segmentation_head.classifier.{rest}"
)


def from_transformers(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of transformers says."""
    plain = {**published, "architectures": ["MobileNetV2Model"]}
    trunk = mobilenet_v2.from_transformers(plain)
    values = {k: getattr(trunk, k) for k in mobilenet_v2.Config.__dataclass_fields__}
    return Config(**{**values, "num_classes": number_of_labels(published)})


_PUBLISHED = Entry(
    name="deeplabv3-mobilenet-v2",
    aliases=("deeplabv3_mobilenet_v2_1.0_513",),
    sources=(Hub("google/deeplabv3_mobilenet_v2_1.0_513"),),
    config={},
    layout="transformers",
    license="other",  # as the page of Google's other MobileNetV2 says
    parameters=2_525_717,
    paper="https://arxiv.org/abs/1802.02611",
    note="21 classes of Pascal VOC, of which the first is the background",
)


@register(
    "deeplab-mobilenet-v2",
    config=Config,
    task="image-segmentation",
    layouts={"transformers": Layout(rename=TRANSFORMERS, config=from_transformers)},
    classes=(_CLASS,),
    head=("segmentation_head.classifier",),
    stem="trunk.conv_stem.weight",
    entries=[_PUBLISHED],
)
def deeplab_mobilenet_v2(config: Config) -> DeepLab:
    """DeepLabV3+ on MobileNetV2 for semantic segmentation."""
    return DeepLab(config)

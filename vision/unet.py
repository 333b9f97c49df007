"""U-Net. Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Segmentation".

To be trained on pictures of one's own: `bt.load("unet", weights=False).finetune(data)`.
Deviations from the paper: convolutions are padded, so that the output is as large as the picture;
they are followed by batch norm; the way up resizes bilinearly where the paper's convolution learns
to, which needs no sides that are multiples of a power of two; half the channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.shape import concat
from ..core.tensor import Tensor
from ..hub.configuration import positive, real
from ..hub.registry import Bundled, Entry, Metric, register
from .inputs import check_images

NAME = "U-Net"
_PAPER = "https://arxiv.org/abs/1505.04597"


@dataclass(frozen=True)
class Config:
    """The defaults are a network of 7.2 million parameters.

    Args:
        widths: channels at each resolution, the full one first; each is half the one before.
        dropout: at the lowest resolution.
        in_channels, num_classes: of the pictures and of the head.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    dropout: float = 0.0
    in_channels: int = 3
    num_classes: int = 2

    def __post_init__(self) -> None:
        positive(NAME, widths=self.widths, in_channels=self.in_channels)
        positive(NAME, num_classes=self.num_classes)
        real(NAME, dropout=self.dropout)


class DoubleConv(nn.Module):
    """Two 3x3 convolutions, each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn1(self.conv1(x)))
        x = self.act(self.bn2(self.conv2(x)))
        return x


class Up(nn.Module):
    """A coarse map, resized and halved in channels, beside the finer one of the way down."""

    def __init__(self, coarse: int, fine: int) -> None:
        self.reduce = nn.Conv2d(coarse, fine, 1, bias=False)
        self.conv = DoubleConv(2 * fine, fine)

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        # The 1x1 convolution gives the same before as after resizing, for a quarter of the work.
        x = F.interpolate(
            self.reduce(x), size=finer.shape[2:], mode="bilinear", align_corners=False
        )
        y: Tensor = self.conv(concat([finer, x], axis=1))
        return y


class UNet(nn.Module):
    """Down to a coarse map and up again, past the maps of the way down."""

    def __init__(self, config: Config) -> None:
        self.config = config
        widths = config.widths
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        inputs = (config.in_channels, *widths[:-1])
        self.down = nn.ModuleList([DoubleConv(a, b) for a, b in zip(inputs, widths, strict=True)])
        self.dropout = nn.Dropout2d(config.dropout)
        self.up = nn.ModuleList(
            [Up(b, a) for a, b in zip(widths[-2::-1], widths[:0:-1], strict=True)]
        )
        self.head = nn.Conv2d(widths[0], config.num_classes, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise for training from scratch, as He et al. 2015 do."""
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        self.head.reset_parameters()

    def feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """The maps of the way up, the finest first, with the coarsest of all at the end.

        Shape:
            (B, in_channels, H, W) -> each (B, widths[i], H / 2**i, W / 2**i), rounded up
        """
        check_images(pixel_values, self.config.in_channels)
        x, seen = pixel_values, []
        for i, block in enumerate(self.down):
            x = block(self.pool(x) if i else x)
            seen.append(x)
        x = self.dropout(seen.pop())
        maps = [x]
        for up in self.up:
            x = up(x, seen.pop())
            maps.append(x)
        return tuple(maps[::-1])

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits of every class, for every pixel.

        Shape:
            (B, in_channels, H, W) -> (B, num_classes, H, W)
        """
        logits: Tensor = self.head(self.feature_maps(pixel_values)[0])
        return logits


def _preprocess(side: int) -> dict[str, Any]:
    """The whole picture, stretched."""
    return {
        "size": (side, side),
        "resize": (side, side),
        "fit": "exact",
        "crop": False,
        "resample": "bilinear",
    }


# Name, widths, side of the pictures, parameters (counted).
_PUBLISHED = (
    ("unet", (32, 64, 128, 256, 512), 256, 7_240_354),
    ("unet-small", (16, 32, 64, 128), 128, 450_386),
)


def _entry(name: str, widths: tuple[int, ...], side: int, parameters: int) -> Entry:
    return Entry(
        name=name,
        sources=(),
        config={"widths": widths},
        license="Apache-2.0",
        commercial=True,
        parameters=parameters,
        preprocess=_preprocess(side),
        paper=_PAPER,
        note="untrained: for pictures and masks of yours",
    )


_SHAPES = Entry(
    name="unet-shapes",
    sources=(Bundled("vision/assets/unet-shapes"),),
    config={"widths": (8, 16, 32, 64, 128), "num_classes": 4},
    license="Apache-2.0",
    commercial=True,
    parameters=453_820,
    preprocess=_preprocess(96),
    metric=Metric(
        "% mean IoU", 95.3, "write_masks(100, size=128, seed=99)", 96, "docs/segmentation.md"
    ),
    paper=_PAPER,
    note="circles, squares and triangles; trained by this library, see docs/segmentation.md",
)


@register(
    "unet",
    config=Config,
    task="image-segmentation",
    head=("head",),
    stem="down.0.conv1.weight",
    entries=[*(_entry(*row) for row in _PUBLISHED), _SHAPES],
)
def unet(config: Config) -> UNet:
    """U-Net for semantic segmentation."""
    return UNet(config)

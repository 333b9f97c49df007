"""A small residual network for 32 x 32 pictures, made for training on a CPU in about an hour.

Few and wide layers: matrix products of 64 channels and more keep a CPU's arithmetic busy, thin
and deep networks (ResNet-20 has 16 channels) do not. After D. Page's ResNet-9 ("How to Train Your
ResNet", 2018) and K. Jordan's airbench (2024): pooling comes before the norm, where there is a
quarter of the numbers left, and the head takes the maximum over all places.

Weights: trained by this library on CIFAR-10 with docs/examples/cifar10.py, and shipped with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core import nn
from ..core.errors import ConfigError
from ..core.tensor import Tensor
from ..hub.configuration import positive, real
from ..hub.registry import Bundled, Entry, Metric, register
from .inputs import check_images

# Mean and standard deviation of the 50,000 training pictures, computed.
MEAN = (0.49140, 0.48216, 0.44653)
STD = (0.24703, 0.24349, 0.26159)


@dataclass(frozen=True)
class Config:
    """Sizes; the defaults are those of the bundled network.

    Args:
        stem: channels of the first convolution.
        widths: channels of each stage; each stage halves the resolution.
        residual: convolutions in the residual branch of each stage.
        scale: multiplies the logits; below 1 it softens the first steps of training.
        in_channels, num_classes: of the pictures and of the head.
    """

    stem: int = 32
    widths: tuple[int, ...] = (64, 128, 192)
    residual: tuple[int, ...] = (1, 1, 1)
    scale: float = 0.125
    in_channels: int = 3
    num_classes: int = 10

    def __post_init__(self) -> None:
        positive(
            "CifarResNet",
            stem=self.stem,
            widths=self.widths,
            residual=self.residual,
            in_channels=self.in_channels,
            num_classes=self.num_classes,
        )
        real("CifarResNet", 1e-6, 1e6, scale=self.scale)
        if len(self.widths) != len(self.residual):
            raise ConfigError(
                f"CifarResNet: widths {self.widths} and residual {self.residual} have one number "
                "for each stage."
            )


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    """3x3 without bias, keeping the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


class Stage(nn.Module):
    """A convolution to more channels, half the resolution, and a residual branch."""

    def __init__(self, inputs: int, outputs: int, residual: int) -> None:
        self.conv = conv(inputs, outputs)
        self.pool = nn.MaxPool2d(2)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.branch = nn.ModuleList(
            nn.ModuleDict({"conv": conv(outputs, outputs), "norm": nn.BatchNorm2d(outputs)})
            for _ in range(residual)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.pool(self.conv(x))))
        y = x
        for i, layer in enumerate(self.branch):
            y = layer["norm"](layer["conv"](y if i == 0 else self.relu(y)))
        x = self.relu(x + y)
        return x


class CifarResNet(nn.Module):
    """Stem, stages, maximum over all places, linear head."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.conv = conv(config.in_channels, config.stem)
        self.norm = nn.BatchNorm2d(config.stem)
        self.relu = nn.ReLU()
        inputs = (config.stem, *config.widths)
        self.stages = nn.ModuleList(
            Stage(*sizes) for sizes in zip(inputs[:-1], config.widths, config.residual, strict=True)
        )
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Linear(inputs[-1], config.num_classes, bias=False)

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """The last feature map.

        Shape:
            (B, in_channels, H, W) -> (B, widths[-1], H / 8, W / 8) with three stages
        """
        check_images(pixel_values, self.config.in_channels, smallest=2 ** len(self.config.widths))
        x: Tensor = self.relu(self.norm(self.conv(pixel_values)))
        for stage in self.stages:
            x = stage(x)
        return x

    def embed(self, pixel_values: Tensor) -> Tensor:
        """What the head sees: the maximum over all places.

        Shape:
            (B, in_channels, H, W) -> (B, widths[-1])
        """
        x: Tensor = self.pool(self.forward_features(pixel_values))
        return x.reshape(x.shape[:2]) * self.config.scale

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits of every class.

        Shape:
            (B, in_channels, H, W) -> (B, num_classes)
        """
        logits: Tensor = self.fc(self.embed(pixel_values))
        return logits


@register(
    "cifar-resnet",
    config=Config,
    task="image-classification",
    head=("fc",),
    stem="conv.weight",
    entries=(
        Entry(
            name="resnet-cifar10",
            aliases=("cifar10-resnet",),
            sources=(Bundled("vision/assets/resnet-cifar10"),),
            license="Apache-2.0",
            commercial=True,
            parameters=833_824,
            preprocess={
                "size": (32, 32),
                "resize": 32,
                "resample": "bicubic",
                "mean": MEAN,
                "std": STD,
            },
            labels="cifar-10",
            metric=Metric(
                "% top-1", 92.58, "the CIFAR-10 test set", 32, "docs/examples/cifar10.json"
            ),
            note="trained by this library with docs/examples/cifar10.py",
        ),
        Entry(
            name="resnet-fashion",
            sources=(Bundled("vision/assets/resnet-fashion"),),
            config={"stem": 24, "widths": (48, 96, 128), "in_channels": 1},
            license="Apache-2.0",
            commercial=True,
            parameters=416_200,
            preprocess={
                "size": (28, 28),
                "resize": 28,
                "resample": "bicubic",
                "mean": (0.28604,),
                "std": (0.35302,),
            },
            labels="fashion-mnist",
            metric=Metric(
                "% top-1", 92.5, "the Fashion-MNIST test set", 28, "docs/examples/fashion.json"
            ),
            note="trained by this library with docs/examples/fashion.py",
        ),
    ),
)
def cifar_resnet(config: Config) -> CifarResNet:
    """A small residual network for 32 x 32 pictures."""
    return CifarResNet(config)

"""SqueezeNet. Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters".

Weights: torchvision's (BSD-3-Clause), whose names these are. No hub or wheel carries them; a file
of torchvision loads with `module.load_state_dict(bt.weights.load("squeezenet1_1-b8a52dc0.pth"))`.
Version 1.1, by the same authors, strides earlier and computes less. Deviation from the paper: none.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core import nn
from ..core.errors import ConfigError
from ..core.ops.shape import concat
from ..core.tensor import Tensor
from ..hub.configuration import expect, natural, positive, real
from ..hub.registry import Entry, Metric, register
from .inputs import check_images

NAME = "SqueezeNet"
# Kernel of the stem, and the fire modules before which the size is halved.
VERSIONS = {"1.0": (7, (3, 7)), "1.1": (3, (2, 4))}


@dataclass(frozen=True)
class Config:
    """The defaults are SqueezeNet 1.1.

    Args:
        version: "1.0" or "1.1": kernel of the stem, and where the size is halved.
        stem_size: channels of the stem.
        squeeze_sizes: channels inside each fire module; it gives eight times as many.
        dropout: before the head.
        in_channels, num_classes: of the pictures and of the head; no classes, no head.
    """

    version: str = "1.1"
    stem_size: int = 64
    squeeze_sizes: tuple[int, ...] = (16, 16, 32, 32, 48, 48, 64, 64)
    dropout: float = 0.5
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        sizes = ("stem_size", "squeeze_sizes", "in_channels")
        positive(NAME, **{key: getattr(self, key) for key in sizes})
        natural(NAME, num_classes=self.num_classes)
        real(NAME, dropout=self.dropout)
        expect({"version": self.version}, NAME, version=tuple(VERSIONS))
        if not isinstance(self.squeeze_sizes, tuple):
            raise ConfigError(f"{NAME}: squeeze_sizes={self.squeeze_sizes!r} is no list")


class Fire(nn.Module):
    """1x1 to few channels, then 1x1 and 3x3 beside each other to more."""

    def __init__(self, inputs: int, squeeze: int) -> None:
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, 4 * squeeze, 1)
        self.expand3x3 = nn.Conv2d(squeeze, 4 * squeeze, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.squeeze(x))
        result: Tensor = self.relu(concat([self.expand1x1(y), self.expand3x3(y)], axis=1))
        return result


class Classifier(nn.Sequential):
    """Logits of each place, positive ones only, and their mean; of means, they are of these."""

    def __init__(self, inputs: int, config: Config) -> None:
        super().__init__(
            nn.Dropout(config.dropout),
            nn.Conv2d(inputs, config.num_classes, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Narrow normal weights, as in the paper."""
        nn.init.normal_(self[1].weight, std=0.01)
        nn.init.zeros_(self[1].bias)

    def forward(self, input: Tensor) -> Tensor:
        x = input if input.ndim == 4 else input.reshape((*input.shape, 1, 1))
        logits: Tensor = super().forward(x)
        return logits.reshape(logits.shape[:2])


class SqueezeNet(nn.Module):
    """A stem, fire modules, a convolutional head."""

    def __init__(self, config: Config) -> None:
        self.config = config
        kernel, halved = VERSIONS[config.version]
        layers: list[nn.Module] = [
            nn.Conv2d(config.in_channels, config.stem_size, kernel, stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        ]
        inputs = config.stem_size
        for i, squeeze in enumerate(config.squeeze_sizes):
            if i in halved:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            layers.append(Fire(inputs, squeeze))
            inputs = 8 * squeeze
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.reset_parameters()
        self.classifier: nn.Module | None = None
        if config.num_classes:
            self.classifier = Classifier(inputs, config)

    def reset_parameters(self) -> None:
        """Initialise the trunk for training from scratch: He's."""
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """The last feature map.

        Shape:
            (B, in_channels, H, W) -> (B, C, about H / 16, W / 16)
        """
        return self.feature_maps(pixel_values)[-1]

    def feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """The maps before each halving, and the last.

        Shape:
            (B, in_channels, H, W) -> each (B, C, about H / 2, W / 2), then / 4, / 8, / 16
        """
        smallest = 21 if self.config.version == "1.0" else 17
        check_images(pixel_values, self.config.in_channels, smallest)
        x, maps = pixel_values, []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
            x = layer(x)
        return (*maps, x)

    def embed(self, pixel_values: Tensor) -> Tensor:
        """The mean of the features over all places; the head sees them before the mean.

        Shape:
            (B, in_channels, H, W) -> (B, C)
        """
        x: Tensor = self.avgpool(self.forward_features(pixel_values))
        return x.reshape(x.shape[:2])

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits of every class, or what `embed` gives where there is no head.

        Shape:
            (B, in_channels, H, W) -> (B, num_classes)
        """
        if self.classifier is None:
            return self.embed(pixel_values)
        logits: Tensor = self.classifier(self.forward_features(pixel_values))
        return logits


def _entry(version: str, parameters: int, top1: float) -> Entry:
    theirs = f"squeezenet{version.replace('.', '_')}"
    source = f"https://pytorch.org/vision/stable/models/generated/torchvision.models.{theirs}.html"
    return Entry(
        name=theirs.replace("_", "-"),
        aliases=(f"squeezenet-{version}", f"squeezenet{version}"),
        sources=(),
        config={"version": version, "stem_size": 96 if version == "1.0" else 64},
        license="BSD-3-Clause",
        commercial=True,
        parameters=parameters,
        metric=Metric("% top-1", top1, "ImageNet-1k validation", 224, source),
        # torchvision's presets: 256 pixels, bilinear
        preprocess={"size": (224, 224), "resize": 256, "resample": "bilinear"},
        labels="imagenet-1k",
        paper="https://arxiv.org/abs/1602.07360",
        note="torchvision's file: model.module.load_state_dict(bt.weights.load(FILE))",
    )


# Version, parameters (counted), top-1 of torchvision's weights.
_PUBLISHED = (("1.0", 1_248_424, 58.092), ("1.1", 1_235_496, 58.178))


@register(
    "squeezenet",
    config=Config,
    task="image-classification",
    head=("classifier",),
    stem="features.0.weight",
    entries=[_entry(*row) for row in _PUBLISHED],
)
def squeezenet(config: Config) -> SqueezeNet:
    """SqueezeNet for image classification."""
    return SqueezeNet(config)

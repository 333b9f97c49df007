"""VGG. Simonyan and Zisserman 2014, "Very Deep Convolutional Networks".

Weights: timm/vgg16.tv_in1k and its kin (BSD-3-Clause, torchvision's). Names are torchvision's; its
files load with `module.load_state_dict(bt.weights.load("vgg16-397923af.pth"))`. With `_bn`, batch
norm follows each convolution. Pictures of other sizes are pooled to 7 x 7 places, as torchvision
does it. Deviation from the paper: none else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core import nn
from ..core.errors import ConfigError
from ..core.tensor import Tensor
from ..hub.configuration import flags, natural, positive, real
from ..hub.registry import Layout, register
from ..hub.rename import Transform
from . import timm
from .inputs import check_images

NAME = "VGG"
PLACES = 7  # rows and columns of the feature map that the classifier sees


@dataclass(frozen=True)
class Config:
    """The defaults are VGG-16.

    Args:
        depths, hidden_sizes: convolutions and channels of each stage; the size is halved after it.
        batch_norm: whether it follows each convolution.
        classifier_size: of the two hidden layers of the classifier.
        dropout: in the classifier.
        in_channels, num_classes: of the pictures and of the head; no classes, no head.
    """

    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    hidden_sizes: tuple[int, ...] = (64, 128, 256, 512, 512)
    batch_norm: bool = False
    classifier_size: int = 4096
    dropout: float = 0.5
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        sizes = ("depths", "hidden_sizes", "classifier_size", "in_channels")
        positive(NAME, **{key: getattr(self, key) for key in sizes})
        natural(NAME, num_classes=self.num_classes)
        flags(NAME, batch_norm=self.batch_norm)
        real(NAME, dropout=self.dropout)
        if len(self.depths) != len(self.hidden_sizes):
            raise ConfigError(
                f"{NAME}: depths {self.depths} and hidden_sizes {self.hidden_sizes} have one "
                "number for each stage."
            )


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each halved by maxima, and three linear layers."""

    def __init__(self, config: Config) -> None:
        self.config = config
        layers: list[nn.Module] = []
        inputs = config.in_channels
        for depth, channels in zip(config.depths, config.hidden_sizes, strict=True):
            for _ in range(depth):
                layers.append(nn.Conv2d(inputs, channels, 3, padding=1))
                if config.batch_norm:
                    layers.append(nn.BatchNorm2d(channels))
                layers.append(nn.ReLU())
                inputs = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(PLACES)
        hidden = config.classifier_size
        head = nn.Linear(hidden, config.num_classes) if config.num_classes else nn.Identity()
        self.classifier = nn.Sequential(
            nn.Linear(inputs * PLACES * PLACES, hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            head,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise for training from scratch: He's for convolutions, narrow linear layers."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
            else:
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """The last feature map.

        Shape:
            (B, in_channels, H, W) -> (B, hidden_sizes[-1], H / 32, W / 32)
        """
        return self.feature_maps(pixel_values)[-1]

    def feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """The maps before each halving, and the last.

        Shape:
            (B, in_channels, H, W) -> each (B, C, H, W), then / 2, / 4, / 8, / 16, / 32
        """
        check_images(pixel_values, self.config.in_channels, 1 << len(self.config.depths))
        x, maps = pixel_values, []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                maps.append(x)
            x = layer(x)
        return (*maps, x)

    def embed(self, pixel_values: Tensor) -> Tensor:
        """What the last layer sees, before dropout.

        Shape:
            (B, in_channels, H, W) -> (B, classifier_size)
        """
        x: Tensor = self.avgpool(self.forward_features(pixel_values))
        x = x.reshape((x.shape[0], -1))
        for layer in list(self.classifier)[:5]:
            x = layer(x)
        return x

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits of every class, or what `embed` gives where there is no head.

        Shape:
            (B, in_channels, H, W) -> (B, num_classes)
        """
        x = self.embed(pixel_values)
        for layer in list(self.classifier)[5:]:
            x = layer(x)
        return x


# -- published layouts --------------------------------------------------------------------------

SIZES: dict[str, dict[str, Any]] = {
    "vgg11": {"depths": (1, 1, 2, 2, 2)},
    "vgg13": {"depths": (2, 2, 2, 2, 2)},
    "vgg16": {},
    "vgg19": {"depths": (2, 2, 4, 4, 4)},
}
SIZES |= {f"{size}_bn": {**config, "batch_norm": True} for size, config in SIZES.items()}


def _matrix(name: str) -> Transform:
    """timm keeps the hidden layers as convolutions over all places."""
    return Transform(name, lambda array: array.reshape((array.shape[0], -1)))


TIMM: dict[str, Any] = {
    "pre_logits.fc1.weight": _matrix("classifier.0.weight"),
    "pre_logits.fc1.bias": "classifier.0.bias",
    "pre_logits.fc2.weight": _matrix("classifier.3.weight"),
    "pre_logits.fc2.bias": "classifier.3.bias",
    "head.fc.{rest}": "classifier.6.{rest}",
}


def from_timm(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of timm says: a size by name, with changes to it."""
    args, ends = timm.arguments(published, NAME, "drop_rate")
    size = SIZES[str(published["architecture"])]
    return Config(**size, **ends, dropout=args.get("drop_rate", 0.0))


# Architecture, parameters (counted), top-1 at 224 pixels.
_PUBLISHED = (
    ("vgg11", 132_863_336, 69.050),
    ("vgg11_bn", 132_868_840, 70.374),
    ("vgg13", 133_047_848, 69.950),
    ("vgg13_bn", 133_053_736, 71.560),
    ("vgg16", 138_357_544, 71.594),
    ("vgg16_bn", 138_365_992, 73.354),
    ("vgg19", 143_667_240, 72.400),
    ("vgg19_bn", 143_678_248, 74.230),
)


@register(
    "vgg",
    config=Config,
    task="image-classification",
    layouts={"timm": Layout(rename=TIMM, config=from_timm)},
    architectures=tuple(SIZES),
    head=("classifier.6",),
    stem="features.0.weight",
    entries=[
        timm.entry(
            name,
            "tv_in1k",
            parameters,
            top1,
            resample="bilinear",
            config=SIZES[name],
            paper="https://arxiv.org/abs/1409.1556",
            license="BSD-3-Clause",
        )
        for name, parameters, top1 in _PUBLISHED
    ],
)
def vgg(config: Config) -> VGG:
    """VGG for image classification."""
    return VGG(config)

"""Feature pyramids: maps of several resolutions, each told what the coarser ones see.

`PyramidTrunk` is the trunk of torchvision's detectors, with the names that it has there.
Source: Lin et al. 2017, "Feature pyramid networks for object detection".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core import nn
from ..core.errors import ConfigError
from ..core.nn import functional as F
from ..core.tensor import Tensor
from ..hub.configuration import expect, positive, real
from . import resnet
from .frozen_norm import FrozenBatchNorm2d, freeze_batch_norms
from .inputs import check_images


def top_down(inner: Any, outer: Any, maps: Sequence[Tensor]) -> list[Tensor]:
    """Each map through its inner part, with the coarser ones added, through its outer part.

    Args:
        inner, outer: as many modules as there are maps, the finest first.
    Shape:
        (B, C_i, H_i, W_i) for each -> (B, width, H_i, W_i), the finest first
    """
    found: list[Tensor] = []
    above: Tensor | None = None
    for first, last, x in reversed(list(zip(inner, outer, maps, strict=True))):
        y: Tensor = first(x)
        if above is not None:
            y = y + F.interpolate(above, size=y.shape[2:], mode="nearest")
        found.insert(0, last(y))
        above = y
    return found


@dataclass(frozen=True)
class PyramidConfig:
    """What detectors with a pyramid share.

    Args:
        norm: of the network below it. "frozen": statistics, weights and biases of batch norms are
            never trained; "batch".
        norm_eps: of batch norms.
        out_channels: of the maps of the pyramid.
        in_channels, num_classes: of the pictures and of the head.
    """

    norm: str = "frozen"
    norm_eps: float = 1e-5
    out_channels: int = 256
    in_channels: int = 3
    num_classes: int = 91

    what = "detector"  # of errors

    def __post_init__(self) -> None:
        sizes = ("out_channels", "in_channels", "num_classes")
        positive(self.what, **{key: getattr(self, key) for key in sizes})
        real(self.what, norm_eps=self.norm_eps)
        expect({"norm": self.norm}, self.what, norm=("frozen", "batch"))


@dataclass(frozen=True)
class TrunkConfig(PyramidConfig):
    """With a ResNet below the pyramid; the defaults are those of ResNet-50.

    Args:
        depths, hidden_sizes, layer_type, embedding_size: of the ResNet; see `resnet.Config`.
    """

    depths: tuple[int, ...] = (3, 4, 6, 3)
    hidden_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    layer_type: str = "bottleneck"
    embedding_size: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.resnet.depths) != 4:
            raise ConfigError(f"{self.what}: depths {self.depths} are of a ResNet of four stages")

    @property
    def resnet(self) -> resnet.Config:
        """Of the ResNet."""
        return resnet.trunk_of(self)


class CoarserMaps(nn.Module):
    """Two more maps below a pyramid, each of half the resolution."""

    def __init__(self, width: int) -> None:
        self.p6 = nn.Conv2d(width, width, 3, 2, 1)
        self.p7 = nn.Conv2d(width, width, 3, 2, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Shape: (B, C, H, W) -> (B, C, H / 2, W / 2), (B, C, H / 4, W / 4)."""
        p6 = self.p6(x)
        return [p6, self.p7(F.relu(p6))]


class FeaturePyramid(nn.Module):
    """A pyramid with coarser maps below it: two of convolutions, or one of every other place."""

    def __init__(self, inputs: Sequence[int], width: int, coarser: bool) -> None:
        self.inner_blocks = [nn.Sequential(nn.Conv2d(n, width, 1)) for n in inputs]
        self.layer_blocks = [nn.Sequential(nn.Conv2d(width, width, 3, padding=1)) for _ in inputs]
        self.extra_blocks = CoarserMaps(width) if coarser else None
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_uniform_(part.weight, a=1)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Shape: (B, C_i, H_i, W_i) for each -> (B, width, H_i, W_i), and of the coarser ones."""
        found = top_down(self.inner_blocks, self.layer_blocks, maps)
        if self.extra_blocks is None:
            return [*found, found[-1][:, :, ::2, ::2]]
        return [*found, *self.extra_blocks(found[-1])]


class PyramidTrunk(nn.Module):
    """A network that gives maps, and a pyramid over the last of them.

    Args:
        body: with `feature_maps`.
        inputs: channels of its last maps, which the pyramid sees.
        coarser: see `FeaturePyramid`.
    """

    def __init__(
        self, config: PyramidConfig, body: nn.Module, inputs: Sequence[int], coarser: bool
    ) -> None:
        self.levels, self.channels = len(inputs), config.in_channels
        self.body: Any = body
        if config.norm == "frozen":
            freeze_batch_norms(body)
        for part in body.modules():
            if isinstance(part, nn.BatchNorm2d | FrozenBatchNorm2d):
                part.eps = config.norm_eps
        self.fpn = FeaturePyramid(inputs, config.out_channels, coarser)

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """Shape: (B, in_channels, H, W) -> (B, out_channels, H_i, W_i), the finest first."""
        check_images(pixel_values, self.channels)
        maps: list[Tensor] = self.fpn(self.body.feature_maps(pixel_values)[-self.levels :])
        return maps


def resnet_trunk(config: TrunkConfig, levels: int, coarser: bool) -> PyramidTrunk:
    """A ResNet and a pyramid over its last maps."""
    body = resnet.ResNet(config.resnet)
    del body.fc
    return PyramidTrunk(config, body, config.hidden_sizes[-levels:], coarser)


#: Names that torchvision gave before its version 0.13, and gives its files still.
OLD_PYRAMID: dict[str, str | None] = {
    f"backbone.fpn.{part}.{{}}.{kind}": f"backbone.fpn.{part}.{{}}.0.{kind}"
    for part in ("inner_blocks", "layer_blocks")
    for kind in ("weight", "bias")
}


def with_norm(config: PyramidConfig, names: Collection[str]) -> PyramidConfig:
    """A configuration whose batch norms are of the kind that a file is of."""
    learning = any(name.endswith(".num_batches_tracked") for name in names)
    return replace(config, norm="batch" if learning else "frozen")

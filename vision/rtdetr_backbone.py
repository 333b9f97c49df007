"""The ResNet of RT-DETR ("vd"): a stem of three convolutions, shortcuts that average.

ResNet-D of He et al. 2019, "Bag of Tricks for Image Classification with Convolutional Neural
Networks".
"""

from __future__ import annotations

from ..core import nn
from ..core.tensor import Tensor
from .frozen_norm import freeze_batch_norms


class ConvNorm(nn.Module):
    """A convolution that keeps the size (but for its stride), batch norm, an activation.

    Shape:
        (B, inputs, H, W) -> (B, outputs, H / stride, W / stride)
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        act: nn.Module | None = None,
        eps: float = 1e-5,
    ) -> None:
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=eps)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return x if self.act is None else self.act(x)


class Block(nn.Module):
    """Convolutions, and the input added back.

    Args:
        bottleneck: 1x1 to a quarter of the channels, 3x3 and 1x1 back, instead of two 3x3.
        first: the first block of a stage; unless a bottleneck, its shortcut is a convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, bottleneck: bool, first: bool
    ) -> None:
        relu = nn.ReLU()
        self.act = relu
        if bottleneck:
            width = outputs // 4
            self.layer = nn.Sequential(
                ConvNorm(inputs, width, 1, act=relu),
                ConvNorm(width, width, 3, stride, act=relu),
                ConvNorm(width, outputs, 1),
            )
            averages, projects = stride == 2, stride == 2 or inputs != outputs
        else:
            self.layer = nn.Sequential(
                ConvNorm(inputs, outputs, 3, stride, act=relu), ConvNorm(outputs, outputs, 3)
            )
            averages, projects = inputs != outputs, first
        self.shortcut: nn.Module | None = None
        if averages:
            pool = nn.AvgPool2d(2, 2, ceil_mode=True)
            self.shortcut = nn.Sequential(pool, ConvNorm(inputs, outputs, 1))
        elif projects:
            self.shortcut = ConvNorm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        same: Tensor = x if self.shortcut is None else self.shortcut(x)
        out: Tensor = self.act(self.layer(x) + same)
        return out


class ResNetD(nn.Module):
    """The trunk: maps of every stage.

    Args:
        freeze: its batch norms never learn.
    """

    def __init__(
        self,
        *,
        depths: tuple[int, ...],
        hidden_sizes: tuple[int, ...],
        layer_type: str,
        embedding_size: int,
        in_channels: int,
        freeze: bool,
    ) -> None:
        half, relu = embedding_size // 2, nn.ReLU()
        self.stem = nn.Sequential(
            ConvNorm(in_channels, half, 3, 2, act=relu),
            ConvNorm(half, half, 3, act=relu),
            ConvNorm(half, embedding_size, 3, act=relu),
        )
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.stages = nn.ModuleList([])
        bottleneck, inputs = layer_type == "bottleneck", embedding_size
        for i, (depth, outputs) in enumerate(zip(depths, hidden_sizes, strict=True)):
            blocks = []
            for j in range(depth):
                stride = 2 if i and not j else 1
                block = Block(inputs, outputs, stride, bottleneck=bottleneck, first=not j)
                blocks.append(block)
                inputs = outputs
            self.stages.append(nn.Sequential(*blocks))
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        if freeze:
            freeze_batch_norms(self)

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """Shape: (B, in_channels, H, W) -> (B, hidden_sizes[i], H / (4 * 2**i), ...) for each."""
        x: Tensor = self.pool(self.stem(pixel_values))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

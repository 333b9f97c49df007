"""The network that MobileNetV2, MobileNetV3 and EfficientNet are, each with its table of stages."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..core import nn
from ..core.errors import ConfigError
from ..core.tensor import Tensor
from ..hub.configuration import flags, natural, positive, real
from .inputs import check_images
from .mobile_blocks import BLOCKS, Place, Row, Style, initialise

Table = tuple[tuple[Row, ...], ...]


def deepened(stage: tuple[Row, ...], factor: float) -> tuple[Row, ...]:
    """A stage with `factor` times the blocks, rounded up, shared out among its rows.

    The last rows get theirs first: so a single block that begins a stage stays single longest.
    """
    blocks = sum(row.repeats for row in stage)
    wanted = math.ceil(blocks * factor)
    result: list[Row] = []
    for row in reversed(stage):
        repeats = max(1, round(row.repeats / blocks * wanted))
        result.append(replace(row, repeats=repeats))
        blocks, wanted = blocks - row.repeats, wanted - repeats
    return tuple(reversed(result))


def scaled(table: Table, depth: float | tuple[float, ...], fixed_ends: bool = False) -> Table:
    """A table with more blocks in each stage; `fixed_ends`: but for the first and the last.

    Raises:
        ConfigError: there are not as many factors as stages.
    """
    factors = depth if isinstance(depth, tuple) else (depth,) * len(table)
    if len(factors) != len(table):
        raise ConfigError(f"depth has {len(factors)} factors for {len(table)} stages", got=depth)
    if fixed_ends:
        factors = (1.0, *factors[1:-1], 1.0)
    return tuple(deepened(stage, f) for stage, f in zip(table, factors, strict=True))


@dataclass(frozen=True)
class MobileConfig:
    """What the configurations of these networks share.

    Args:
        width: multiplies channels, which are then rounded to multiples of 8.
        depth: multiplies the blocks of each stage, rounded up; or a factor for each stage.
        same_padding: TensorFlow's padding: at a stride, the surplus goes last.
        eps: of batch norm; TensorFlow's is 1e-3.
        dropout: before the head.
        drop_path: towards the last block; the others have less, in proportion to their number.
        in_channels, num_classes: of the pictures and of the head; no classes, no head.
    """

    width: float = 1.0
    depth: float | tuple[float, ...] = 1.0
    same_padding: bool = False
    eps: float = 1e-5
    dropout: float = 0.0
    drop_path: float = 0.0
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        what = type(self).__module__.rpartition(".")[2]
        depths = self.depth if isinstance(self.depth, tuple) else (self.depth,)
        real(what, 0.01, 10, width=self.width, **{f"depth[{i}]": d for i, d in enumerate(depths)})
        real(what, eps=self.eps, dropout=self.dropout, drop_path=self.drop_path)
        flags(what, same_padding=self.same_padding)
        positive(what, in_channels=self.in_channels)
        natural(what, num_classes=self.num_classes)


class MobileNetwork(nn.Module):
    """A strided stem, stages `blocks` of a table, a 1x1 convolution, a linear head `classifier`.

    Args:
        stem, features: channels of the stem and of the last convolution.
        late: whether the last convolution comes after the mean over all places: with a bias and
            no norm.
        output_stride: how many times smaller than the picture the feature map gets at most; where
            a stride is left out for that, later blocks dilate.
    """

    def __init__(
        self,
        config: MobileConfig,
        table: Table,
        style: Style,
        *,
        stem: int,
        features: int,
        late: bool = False,
        output_stride: int = 32,
    ) -> None:
        self.config, self.late = config, late
        self.conv_stem = style.conv(config.in_channels, stem, 3, 2)
        self.bn1 = style.norm(stem)
        self.act = style.act()
        stages, reductions = _stages(table, stem, style, config.drop_path, output_stride)
        self.blocks = nn.Sequential(*stages)
        # whether a stage is the last of its resolution, from a quarter of the picture's on
        self.ends = [
            a > 2 and a != b for a, b in zip(reductions, [*reductions[1:], 0], strict=True)
        ]
        channels = style.channels(table[-1][-1].channels)
        if late:
            self.conv_head = nn.Conv2d(channels, features, 1)
        else:
            self.conv_head = style.conv(channels, features, 1)
            self.bn2 = style.norm(features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier: nn.Linear | nn.Identity = nn.Identity()
        if config.num_classes:
            self.classifier = nn.Linear(features, config.num_classes)
        initialise(self)

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """The last feature map.

        Shape:
            (B, in_channels, H, W) -> (B, C, H / 32, W / 32), rounded up
        """
        x = self.feature_maps(pixel_values)[-1]
        if not self.late:
            x = self.act(self.bn2(self.conv_head(x)))
        return x

    def feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """The last map of each resolution, before the last convolution.

        Shape:
            (B, in_channels, H, W) -> each (B, C, H / 4, W / 4), then / 8, / 16, / 32, rounded up
        """
        check_images(pixel_values, self.config.in_channels)
        x: Tensor = self.act(self.bn1(self.conv_stem(pixel_values)))
        maps = []
        for stage, ends in zip(self.blocks, self.ends, strict=True):
            x = stage(x)
            if ends:
                maps.append(x)
        return tuple(maps)

    def embed(self, pixel_values: Tensor) -> Tensor:
        """What the head sees, before dropout: the mean over all places.

        Shape:
            (B, in_channels, H, W) -> (B, features)
        """
        x: Tensor = self.avgpool(self.forward_features(pixel_values))
        if self.late:
            x = self.act(self.conv_head(x))
        return x.reshape(x.shape[:2])

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits of every class, or what `embed` gives where there is no head.

        Shape:
            (B, in_channels, H, W) -> (B, num_classes)
        """
        logits: Tensor = self.classifier(self.dropout(self.embed(pixel_values)))
        return logits


def _stages(
    table: Table, inputs: int, style: Style, drop_path: float, output_stride: int
) -> tuple[list[nn.Sequential], list[int]]:
    """The stages of a table, and how many times smaller than the picture the map is after each."""
    total = sum(row.repeats for stage in table for row in stage)
    number, reduced, dilation = 0, 2, 1
    stages, reductions = [], []
    for stage in table:
        blocks: list[nn.Module] = []
        for row in stage:
            for i in range(row.repeats):
                stride, wider = row.stride if i == 0 else 1, 1
                if reduced * stride > output_stride:
                    stride, wider = 1, stride
                outputs = style.channels(row.channels)
                rate = drop_path * number / total
                place = Place(row, style, inputs, outputs, stride, dilation, rate)
                blocks.append(BLOCKS[row.kind](place))
                inputs, number = outputs, number + 1
                reduced, dilation = reduced * stride, dilation * wider
        stages.append(nn.Sequential(*blocks))
        reductions.append(reduced)
    return stages, reductions

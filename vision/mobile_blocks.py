"""What MobileNetV2, MobileNetV3 and EfficientNet are built of: blocks, and tables of stages.

Sandler et al. 2018 (inverted residuals), Howard et al. 2019 (squeeze-and-excite in them),
Gupta and Tan 2019 (fused ones). Weights are named as timm names them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core import nn
from ..core.nn import functional as F
from ..core.tensor import Tensor

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
}


@dataclass(frozen=True)
class Row:
    """Blocks of one kind, one after another; a stage is one row or several.

    Args:
        kind: a key of `BLOCKS`.
        repeats: how many; the first has the stride.
        kernel, stride: of the convolution that sees neighbours.
        expansion: how many times wider than its input a block is inside.
        channels: that each block gives.
        squeeze: channels inside squeeze-and-excite, as a part of the block's; 0 for none.
        activation: another than the network's.
        skip: whether the input is added where shapes permit.
    """

    kind: str
    repeats: int
    kernel: int
    stride: int
    expansion: float
    channels: int
    squeeze: float = 0.0
    activation: str | None = None
    skip: bool = True


@dataclass(frozen=True)
class Style:
    """What all blocks of a network share.

    Args:
        activation: a key of `ACTIVATIONS`.
        same_padding: TensorFlow's padding: at a stride, the surplus goes last.
        eps: of batch norm.
        width: multiplies the channels of rows, which are then rounded to multiples of 8.
        round_limit: see `round_channels`.
        hard_squeeze: squeeze-and-excite of MobileNetV3: ReLU inside, a piecewise linear gate, its
            size a part of the expanded channels (else of the block's input) in multiples of 8.
    """

    activation: str
    same_padding: bool = False
    eps: float = 1e-5
    width: float = 1.0
    round_limit: float = 0.9
    hard_squeeze: bool = False

    def channels(self, channels: int) -> int:
        """Of a row, scaled and rounded."""
        return round_channels(channels * self.width, limit=self.round_limit)

    def act(self, name: str | None = None) -> nn.Module:
        """A new activation."""
        return ACTIVATIONS[name or self.activation]()

    def norm(self, channels: int) -> nn.BatchNorm2d:
        """A new batch norm."""
        return nn.BatchNorm2d(channels, eps=self.eps)

    def conv(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
    ) -> nn.Conv2d:
        """A new convolution without bias that keeps the size, but for its stride."""
        if self.same_padding and stride > 1:
            return Conv2dSame(inputs, outputs, kernel, stride, groups, dilation)
        padding = dilation * (kernel - 1) // 2
        return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)


def round_channels(channels: float, limit: float = 0.9) -> int:
    """The nearest multiple of 8, at least 8, and not below `limit` times the number."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < limit * channels else rounded


class Conv2dSame(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's "same": the surplus goes last.

    With a stride the padding depends on the input's size, and may be uneven.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__(
            inputs, outputs, kernel, stride, dilation=dilation, groups=groups, bias=False
        )

    def forward(self, input: Tensor) -> Tensor:
        padding = tuple(self._sides_of(side) for side in input.shape[2:])
        return F.conv2d(
            input, self.weight, None, self.stride, padding, self.dilation, groups=self.groups
        )

    def _sides_of(self, side: int) -> tuple[int, int]:
        """Padding before and after an axis of this length."""
        reach, stride = self.dilation[0] * (self.kernel_size[0] - 1) + 1, self.stride[0]
        outputs = -(-side // stride)
        total = max((outputs - 1) * stride + reach - side, 0)
        return total // 2, total - total // 2


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole picture has of them.

    Source: Hu et al. 2017, "Squeeze-and-Excitation Networks".
    """

    def __init__(self, channels: int, reduced: int, act: nn.Module, gate: nn.Module) -> None:
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.act1 = act
        self.conv_expand = nn.Conv2d(reduced, channels, 1)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.act1(self.conv_reduce(F.adaptive_avg_pool2d(x, 1)))
        weight = self.gate(self.conv_expand(weight))
        return x * weight


@dataclass(frozen=True)
class Place:
    """Where a block stands in its network: what it is built of."""

    row: Row
    style: Style
    inputs: int
    outputs: int
    stride: int
    dilation: int
    drop_path: float

    @property
    def width(self) -> int:
        """Channels inside the block, where it expands."""
        return round_channels(self.inputs * self.row.expansion)

    def spatial(self, inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
        """The convolution that sees neighbours, and strides."""
        return self.style.conv(
            inputs, outputs, self.row.kernel, self.stride, groups, dilation=self.dilation
        )

    def squeeze_excite(self, width: int) -> nn.Module:
        """Squeeze-and-excite of so many channels, or nothing."""
        part = self.row.squeeze
        if not part:
            return nn.Identity()
        if self.style.hard_squeeze:
            return SqueezeExcite(width, round_channels(width * part), nn.ReLU(), nn.Hardsigmoid())
        # The parentheses are the reference's order of rounding: 0.25 / 6 is not exact.
        reduced = round(width * (part / self.row.expansion))
        return SqueezeExcite(width, reduced, self.style.act(self.row.activation), nn.Sigmoid())


class Block(nn.Module):
    """What all blocks share: an activation, and the input that is added where shapes permit."""

    def __init__(self, place: Place) -> None:
        self.act = place.style.act(place.row.activation)
        self.adds = place.row.skip and place.stride == 1 and place.inputs == place.outputs
        self.drop_path = nn.DropPath(place.drop_path)

    def added(self, y: Tensor, x: Tensor) -> Tensor:
        """The result of the block."""
        result: Tensor = self.drop_path(y) + x if self.adds else y
        return result


class ConvBlock(Block):
    """One convolution."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.conv = place.spatial(place.inputs, place.outputs)
        self.bn1 = place.style.norm(place.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.added(self.act(self.bn1(self.conv(x))), x)


class Separable(Block):
    """Depthwise, then 1x1: an inverted residual that does not expand."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.conv_dw = place.spatial(place.inputs, place.inputs, groups=place.inputs)
        self.bn1 = place.style.norm(place.inputs)
        self.se = place.squeeze_excite(place.inputs)
        self.conv_pw = place.style.conv(place.inputs, place.outputs, 1)
        self.bn2 = place.style.norm(place.outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.se(self.act(self.bn1(self.conv_dw(x))))
        return self.added(self.bn2(self.conv_pw(y)), x)


class InvertedResidual(Block):
    """1x1 to more channels, depthwise, 1x1 to few."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        width = place.width
        self.conv_pw = place.style.conv(place.inputs, width, 1)
        self.bn1 = place.style.norm(width)
        self.conv_dw = place.spatial(width, width, groups=width)
        self.bn2 = place.style.norm(width)
        self.se = place.squeeze_excite(width)
        self.conv_pwl = place.style.conv(width, place.outputs, 1)
        self.bn3 = place.style.norm(place.outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn1(self.conv_pw(x)))
        y = self.se(self.act(self.bn2(self.conv_dw(y))))
        return self.added(self.bn3(self.conv_pwl(y)), x)


class FusedResidual(Block):
    """One full convolution to more channels in place of 1x1 and depthwise, then 1x1 to few."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.conv_exp = place.spatial(place.inputs, place.width)
        self.bn1 = place.style.norm(place.width)
        self.se = place.squeeze_excite(place.width)
        self.conv_pwl = place.style.conv(place.width, place.outputs, 1)
        self.bn2 = place.style.norm(place.outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.se(self.act(self.bn1(self.conv_exp(x))))
        return self.added(self.bn2(self.conv_pwl(y)), x)


BLOCKS: dict[str, type[Block]] = {
    "conv": ConvBlock,
    "separable": Separable,
    "inverted": InvertedResidual,
    "fused": FusedResidual,
}


def initialise(module: nn.Module) -> None:
    """For training from scratch: He's initialisation, by the fan-out of each filter.

    Source: TensorFlow's EfficientNet, `conv_kernel_initializer`.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            # a depthwise filter has one output: torch counts the outputs of all groups together
            mode = "fan_in" if part.weight.shape[1] == 1 else "fan_out"
            nn.init.kaiming_normal_(part.weight, mode=mode, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)

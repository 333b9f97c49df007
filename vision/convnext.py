"""ConvNeXt. Liu et al. 2022, "A ConvNet for the 2020s"; Woo et al. 2023, "ConvNeXt V2".

Weights: timm/convnext_atto.d2_in1k, ..., timm/convnext_base.fb_in1k (Apache-2.0), and V2's
(CC-BY-NC, no commercial use); any repository in the layout of timm or transformers
(facebook/convnext-tiny-224) loads by its id. Names are timm's, but 1x1 convolutions are kept as the
linear maps that they are. Deviation from the papers: none.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core import nn
from ..core.errors import ConfigError
from ..core.nn.parameter import Parameter
from ..core.ops.norms import vector_norm
from ..core.ops.reduction import mean
from ..core.ops.shape import permute_dims
from ..core.tensor import Tensor
from ..hub.configuration import expect, flags, natural, positive, real
from ..hub.registry import Layout, register
from . import timm
from .convnext_layouts import (
    ARCHITECTURES,
    NAME,
    TIMM,
    TRANSFORMERS,
    from_timm,
    from_transformers,
)
from .inputs import check_images
from .mobile_blocks import round_channels
from .transformer import ACTIVATIONS

STEMS = ("patch", "overlap", "overlap_act", "overlap_tiered")


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are ConvNeXt-T.

    Args:
        depths, hidden_sizes: blocks and channels of each stage.
        kernel_sizes: of the depthwise convolutions of each stage.
        patch_size: of the stem "patch".
        stem_type: "patch": one convolution; "overlap": two strided 3x3 convolutions, "_act": with
            an activation between them, "_tiered": the first half as wide.
        hidden_act: a name of `transformer.ACTIVATIONS`.
        layer_scale: whether branches are scaled for each channel (not in V2).
        use_grn: global response normalisation in each block (V2).
        conv_bias: whether convolutions have a bias.
        head_norm_first: whether the norm comes before the mean over all places.
        head_hidden_size: of a linear map and GELU before the head; 0 for none.
        layer_norm_eps, head_norm_eps: of all norms, and of that of the head.
        dropout, drop_path_rate: before the head; of the last block, the others have less.
        in_channels, num_classes: of the pictures and of the head; no classes, no head.
    """

    depths: tuple[int, ...] = (3, 3, 9, 3)
    hidden_sizes: tuple[int, ...] = (96, 192, 384, 768)
    kernel_sizes: tuple[int, ...] = (7, 7, 7, 7)
    patch_size: int = 4
    stem_type: str = "patch"
    hidden_act: str = "gelu"
    layer_scale: bool = True
    use_grn: bool = False
    conv_bias: bool = True
    head_norm_first: bool = False
    head_hidden_size: int = 0
    layer_norm_eps: float = 1e-6
    head_norm_eps: float = 1e-6
    dropout: float = 0.0
    drop_path_rate: float = 0.0
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        lists = ("depths", "hidden_sizes", "kernel_sizes")
        positive(NAME, **{key: getattr(self, key) for key in (*lists, "patch_size", "in_channels")})
        natural(NAME, num_classes=self.num_classes, head_hidden_size=self.head_hidden_size)
        rates = ("layer_norm_eps", "head_norm_eps", "dropout", "drop_path_rate")
        real(NAME, **{key: getattr(self, key) for key in rates})
        switches = ("layer_scale", "use_grn", "conv_bias", "head_norm_first")
        flags(NAME, **{key: getattr(self, key) for key in switches})
        own = {"stem_type": self.stem_type, "hidden_act": self.hidden_act}
        expect(own, NAME, stem_type=STEMS, hidden_act=tuple(ACTIVATIONS))
        counts = {len(getattr(self, key)) for key in lists}
        if len(counts) > 1 or (self.head_norm_first and self.head_hidden_size):
            raise ConfigError(
                f"{NAME}: depths {self.depths}, hidden_sizes {self.hidden_sizes} and kernel_sizes "
                f"{self.kernel_sizes} have one number for each stage; head_norm_first and "
                "head_hidden_size exclude each other."
            )


class LayerNorm2d(nn.LayerNorm):
    """Normalises the channels of each place. Shape: (B, C, H, W), kept."""

    def forward(self, input: Tensor) -> Tensor:
        return permute_dims(super().forward(permute_dims(input, (0, 2, 3, 1))), (0, 3, 1, 2))


class GlobalResponseNorm(nn.Module):
    """Channels made to compete: scaled by their norm over all places, compared with the others'.

    Shape:
        (B, H, W, C), kept
    """

    def __init__(self, channels: int) -> None:
        self.weight = nn.init.parameter(channels)
        self.bias = nn.init.parameter(channels)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        norm = vector_norm(x, axis=(1, 2), keepdims=True)
        ratio = norm / (mean(norm, axis=-1, keepdims=True) + 1e-6)
        return x + (x * ratio * self.weight + self.bias)


class Mlp(nn.Module):
    """Two linear maps over the channels of each place."""

    def __init__(self, channels: int, config: Config) -> None:
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.act = ACTIVATIONS[config.hidden_act]()
        self.grn = GlobalResponseNorm(4 * channels) if config.use_grn else nn.Identity()
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(self.grn(self.act(self.fc1(x))))
        return y


class Block(nn.Module):
    """Depthwise convolution, norm, MLP; the input is added."""

    def __init__(self, channels: int, kernel: int, drop_path: float, config: Config) -> None:
        self.gamma: Parameter | None = None
        if config.layer_scale:
            self.gamma = nn.init.parameter(channels)
            nn.init.constant_(self.gamma, 1e-6)
        self.conv_dw = nn.Conv2d(
            channels, channels, kernel, padding=kernel // 2, groups=channels, bias=config.conv_bias
        )
        self.norm = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.mlp = Mlp(channels, config)
        self.drop_path = nn.DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = permute_dims(self.conv_dw(x), (0, 2, 3, 1))  # (B, H, W, C)
        y = self.mlp(self.norm(y))
        if self.gamma is not None:
            y = y * self.gamma
        result: Tensor = x + self.drop_path(permute_dims(y, (0, 3, 1, 2)))
        return result


class Stage(nn.Module):
    """Blocks of one resolution, after halving that of the stage before."""

    def __init__(self, index: int, inputs: int, rates: list[float], config: Config) -> None:
        channels, kernel = config.hidden_sizes[index], config.kernel_sizes[index]
        self.downsample: nn.Module = nn.Identity()
        if index or inputs != channels:
            size = 2 if index else 1
            self.downsample = nn.Sequential(
                LayerNorm2d(inputs, eps=config.layer_norm_eps),
                nn.Conv2d(inputs, channels, size, stride=size, bias=config.conv_bias),
            )
        self.blocks = nn.Sequential(*(Block(channels, kernel, rate, config) for rate in rates))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.blocks(self.downsample(x))
        return y


class Hidden(nn.Module):
    """A linear map and an activation before the head."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.fc = nn.Linear(inputs, outputs)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.fc(x))
        return y


class Head(nn.Module):
    """Mean over all places, norm, perhaps a hidden layer, a linear map `fc`."""

    def __init__(self, config: Config) -> None:
        channels, hidden = config.hidden_sizes[-1], config.head_hidden_size
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.norm: nn.Module = nn.Identity()
        if not config.head_norm_first:
            self.norm = nn.LayerNorm(channels, eps=config.head_norm_eps)
        self.pre_logits = Hidden(channels, hidden) if hidden else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.fc: nn.Module = nn.Identity()
        if config.num_classes:
            self.fc = nn.Linear(hidden or channels, config.num_classes)

    def embed(self, x: Tensor) -> Tensor:
        """All but the last map. Shape: (B, C, H, W) -> (B, D)."""
        pooled: Tensor = self.avgpool(x)
        y: Tensor = self.pre_logits(self.norm(pooled.reshape(pooled.shape[:2])))
        return y

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.dropout(self.embed(x)))
        return y


def stem(config: Config) -> nn.Sequential:
    """A quarter of the resolution, or a `patch_size`-th."""
    channels, bias = config.hidden_sizes[0], config.conv_bias
    norm = LayerNorm2d(channels, eps=config.layer_norm_eps)
    patch = config.patch_size
    if config.stem_type == "patch":
        conv = nn.Conv2d(config.in_channels, channels, patch, stride=patch, bias=bias)
        return nn.Sequential(conv, norm)
    middle = round_channels(channels // 2) if config.stem_type == "overlap_tiered" else channels
    first = nn.Conv2d(config.in_channels, middle, 3, stride=2, padding=1, bias=bias)
    second = nn.Conv2d(middle, channels, 3, stride=2, padding=1, bias=bias)
    if config.stem_type == "overlap_act":
        return nn.Sequential(first, ACTIVATIONS[config.hidden_act](), second, norm)
    return nn.Sequential(first, second, norm)


class ConvNeXt(nn.Module):
    """A stem, stages of blocks, a linear head `head.fc`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.stem = stem(config)
        total = max(sum(config.depths) - 1, 1)
        stages, first, inputs = [], 0, config.hidden_sizes[0]
        for i, depth in enumerate(config.depths):
            rates = [config.drop_path_rate * j / total for j in range(first, first + depth)]
            stages.append(Stage(i, inputs, rates, config))
            first, inputs = first + depth, config.hidden_sizes[i]
        self.stages = nn.Sequential(*stages)
        self.norm_pre: nn.Module = nn.Identity()
        if config.head_norm_first:
            self.norm_pre = LayerNorm2d(inputs, eps=config.layer_norm_eps)
        self.head = Head(config)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise for training from scratch: narrow normal weights, as in the paper."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """The last feature map.

        Shape:
            (B, in_channels, H, W) -> (B, hidden_sizes[-1], H / 32, W / 32)
        """
        x: Tensor = self.norm_pre(self.feature_maps(pixel_values)[-1])
        return x

    def feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """The map after each stage.

        Shape:
            (B, in_channels, H, W) -> each (B, C, H / 4, W / 4), then / 8, / 16, / 32
        """
        config = self.config
        patch = config.patch_size if config.stem_type == "patch" else 1
        check_images(pixel_values, config.in_channels, patch << (len(config.depths) - 1))
        x: Tensor = self.stem(pixel_values)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)

    def embed(self, pixel_values: Tensor) -> Tensor:
        """What the head sees, before dropout: the normalised mean over all places.

        Shape:
            (B, in_channels, H, W) -> (B, hidden_sizes[-1])
        """
        return self.head.embed(self.forward_features(pixel_values))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits of every class, or what `embed` gives where there is no head.

        Shape:
            (B, in_channels, H, W) -> (B, num_classes)
        """
        logits: Tensor = self.head(self.forward_features(pixel_values))
        return logits


_PAPER, _PAPER_V2 = "https://arxiv.org/abs/2201.03545", "https://arxiv.org/abs/2301.00808"
# Architecture, weights, parameters (counted), top-1; crop.
_PUBLISHED = (
    ("convnext_atto", "d2_in1k", 3_695_520, 75.672, 0.875),
    ("convnext_femto", "d1_in1k", 5_217_784, 77.498, 0.875),
    ("convnext_pico", "d1_in1k", 9_045_672, 79.516, 0.875),
    ("convnext_nano", "d1h_in1k", 15_593_560, 80.762, 0.95),
    ("convnext_tiny", "fb_in1k", 28_589_128, 82.066, 0.875),
    ("convnext_small", "fb_in1k", 50_223_688, 83.144, 0.875),
    ("convnext_base", "fb_in1k", 88_591_464, 83.838, 0.875),
)
_PUBLISHED_V2 = (
    ("convnextv2_atto", "fcmae_ft_in1k", 3_708_400, 76.644),
    ("convnextv2_femto", "fcmae_ft_in1k", 5_233_240, 78.476),
    ("convnextv2_pico", "fcmae_ft_in1k", 9_066_280, 80.304),
    ("convnextv2_nano", "fcmae_ft_in1k", 15_623_800, 81.856),
    ("convnextv2_tiny", "fcmae_ft_in1k", 28_635_496, 82.948),
    ("convnextv2_base", "fcmae_ft_in1k", 88_717_800, 84.890),
)


@register(
    "convnext",
    config=Config,
    task="image-classification",
    layouts={
        "timm": Layout(rename=TIMM, config=lambda published: Config(**from_timm(published))),
        "transformers": Layout(
            rename=TRANSFORMERS, config=lambda published: Config(**from_transformers(published))
        ),
    },
    model_types=("convnext", "convnextv2"),
    architectures=tuple(ARCHITECTURES),
    head=("head.fc",),
    stem="stem.0.weight",
    entries=[
        *(
            timm.entry(*row[:4], crop=row[4], config=ARCHITECTURES[row[0]], paper=_PAPER)
            for row in _PUBLISHED
        ),
        *(
            timm.entry(
                *row,
                config=ARCHITECTURES[row[0]],
                paper=_PAPER_V2,
                license="CC-BY-NC-4.0",
                commercial=False,
            )
            for row in _PUBLISHED_V2
        ),
    ],
)
def convnext(config: Config) -> ConvNeXt:
    """ConvNeXt for image classification."""
    return ConvNeXt(config)

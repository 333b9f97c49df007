"""Depth Anything V2. Yang et al. 2024, "Depth Anything V2".

DINOv2 with the decoder of DPT (Ranftl et al. 2021, "Vision Transformers for Dense Prediction").
Weights: depth-anything/Depth-Anything-V2-Small-hf (Apache-2.0), -Base-hf and -Large-hf (CC-BY-NC),
those for metres, and those of the first version; any repository in the layout of transformers loads
by its id. Deviation from the paper: none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..core import nn
from ..core.errors import ConfigError
from ..core.nn import functional as F
from ..core.tensor import Tensor
from ..hub.configuration import (
    TRANSFORMERS_COMMON,
    TRANSFORMERS_DUMPED,
    as_pair,
    as_tuple,
    expect,
    flags,
    positive,
    real,
)
from ..hub.configuration import refuse_unknown as refuse
from ..hub.registry import Bundled, Entry, Hub, Layout, Metric, register
from . import dinov2, vit
from .vit_layouts import JOIN as VIT_JOIN
from .vit_layouts import TRANSFORMERS as VIT

NAME = "Depth Anything"
_CLASS = "DepthAnythingForDepthEstimation"
_FACTORS = (4, 2, 1, 0.5)


@dataclass(frozen=True)
class Config:
    """The defaults are the small network.

    Args:
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: of the blocks.
        patch_size: height and width of a patch.
        positions: height and width of the pictures that positions are stored for.
        layers: blocks, counted from 1, whose maps are used.
        reassemble_factors: how much larger, or smaller, these maps become: 4, 2, 1 or 0.5.
        neck_hidden_sizes: their channels then.
        fusion_hidden_size: of the decoder.
        head_hidden_size: of the last convolutions.
        metric: whether the answer is in metres, up to `max_depth`; otherwise larger is nearer.
        in_channels: of the pictures.
    """

    hidden_size: int = 384
    num_hidden_layers: int = 12
    num_attention_heads: int = 6
    intermediate_size: int = 1536
    patch_size: tuple[int, int] = (14, 14)
    positions: tuple[int, int] = (518, 518)
    layer_norm_eps: float = 1e-6
    layers: tuple[int, ...] = (3, 6, 9, 12)
    reassemble_factors: tuple[float, ...] = _FACTORS
    neck_hidden_sizes: tuple[int, ...] = (48, 96, 192, 384)
    fusion_hidden_size: int = 64
    head_hidden_size: int = 32
    metric: bool = False
    max_depth: float = 1.0
    in_channels: int = 3

    def __post_init__(self) -> None:
        positive(NAME, layers=self.layers, neck_hidden_sizes=self.neck_hidden_sizes)
        positive(NAME, fusion_hidden_size=self.fusion_hidden_size, head=self.head_hidden_size)
        real(NAME, 1e-3, 1e5, max_depth=self.max_depth)
        flags(NAME, metric=self.metric)
        counts = {len(self.layers), len(self.reassemble_factors), len(self.neck_hidden_sizes)}
        rising = list(self.layers) == sorted(set(self.layers))
        if len(counts) != 1 or not rising or self.layers[-1] > self.num_hidden_layers:
            raise ConfigError(
                f"{NAME}: layers {self.layers} are numbers of the {self.num_hidden_layers} blocks, "
                "rising; reassemble_factors and neck_hidden_sizes have one value for each"
            )
        for factor in self.reassemble_factors:
            expect({"factor": factor}, NAME, factor=_FACTORS)

    @property
    def trunk(self) -> dinov2.Config:
        """The configuration of DINOv2."""
        shared = set(dinov2.Config.__dataclass_fields__) & set(self.__dataclass_fields__)
        values = {name: getattr(self, name) for name in shared}
        return dinov2.Config(**values, image_size=self.positions)


class Reassemble(nn.Module):
    """A map of the trunk with other channels, larger or smaller."""

    def __init__(self, inputs: int, outputs: int, factor: float) -> None:
        self.projection = nn.Conv2d(inputs, outputs, 1)
        self.resize: nn.Module = nn.Identity()
        if factor > 1:
            self.resize = nn.ConvTranspose2d(outputs, outputs, int(factor), stride=int(factor))
        elif factor < 1:
            self.resize = nn.Conv2d(outputs, outputs, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.resize(self.projection(x))
        return y


class Residual(nn.Module):
    """Two convolutions, each after ReLU, added to what comes in."""

    def __init__(self, width: int) -> None:
        self.convolution1 = nn.Conv2d(width, width, 3, padding=1)
        self.convolution2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution2(F.relu(self.convolution1(F.relu(x))))
        return y + x


class Fusion(nn.Module):
    """What came from coarser maps, with the next finer one, at a higher resolution."""

    def __init__(self, width: int) -> None:
        self.projection = nn.Conv2d(width, width, 1)
        self.residual_layer1 = Residual(width)  # of the finer map: the coarsest level has none
        self.residual_layer2 = Residual(width)

    def forward(self, x: Tensor, finer: Tensor | None, size: tuple[int, int]) -> Tensor:
        if finer is not None:
            x = x + self.residual_layer1(_resized(finer, x.shape[2:], False))
        y: Tensor = self.projection(_resized(self.residual_layer2(x), size, True))
        return y


def _resized(x: Tensor, size: tuple[int, ...], align_corners: bool) -> Tensor:
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


class Neck(nn.Module):
    """Maps of several depths of the trunk, at several resolutions, joined from coarse to fine."""

    def __init__(self, config: Config) -> None:
        width, sizes = config.fusion_hidden_size, config.neck_hidden_sizes
        self.reassemble = nn.ModuleList(
            [
                Reassemble(config.hidden_size, outputs, factor)
                for outputs, factor in zip(sizes, config.reassemble_factors, strict=True)
            ]
        )
        self.convs = nn.ModuleList([nn.Conv2d(n, width, 3, padding=1, bias=False) for n in sizes])
        self.fusion = nn.ModuleList([Fusion(width) for _ in sizes])

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        levels = [
            conv(part(x)) for conv, part, x in zip(self.convs, self.reassemble, maps, strict=True)
        ][::-1]
        x: Tensor = levels[0]
        finer: Tensor | None = None
        for i, fusion in enumerate(self.fusion):
            last = i + 1 == len(levels)
            height, width = x.shape[2:] if last else levels[i + 1].shape[2:]
            x = fusion(x, finer, (2 * height, 2 * width) if last else (height, width))
            finer = None if last else levels[i + 1]
        return x


class Head(nn.Module):
    """Convolutions, the second at the resolution of the picture."""

    def __init__(self, config: Config) -> None:
        width = config.fusion_hidden_size
        self.conv1 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(width // 2, config.head_hidden_size, 3, padding=1)
        self.conv3 = nn.Conv2d(config.head_hidden_size, 1, 1)
        self.metric, self.max_depth = config.metric, config.max_depth

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        y: Tensor = _resized(self.conv1(x), size, True)
        y = self.conv3(F.relu(self.conv2(y)))[:, 0]
        depth: Tensor = (F.sigmoid(y) if self.metric else F.relu(y)) * self.max_depth
        return depth


class DepthAnything(nn.Module):
    """DINOv2, and a decoder of convolutions."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.backbone = vit.ViT(config.trunk)
        self.neck = Neck(config)
        self.head = Head(config)

    def feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """The maps of the trunk that the decoder sees."""
        layers = {number - 1 for number in self.config.layers}
        return self.backbone.feature_maps(pixel_values, layers)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Depth of every pixel: in metres, or (the larger the nearer) without a unit.

        Shape:
            (B, in_channels, H, W) -> (B, H, W), sides cut to multiples of the patch size
        """
        maps = self.feature_maps(pixel_values)
        height, width = self.config.patch_size
        rows, columns = maps[0].shape[2:]
        depth: Tensor = self.head(self.neck(maps), (rows * height, columns * width))
        return depth


# -- published layouts --------------------------------------------------------------------------

TRANSFORMERS: dict[str, Any] = {
    "neck.reassemble_stage.layers.{}.{rest}": "neck.reassemble.{}.{rest}",
    "neck.fusion_stage.layers.{}.{rest}": "neck.fusion.{}.{rest}",
}
for _old, _new in VIT.items():
    if not _old.startswith(("vit.", "deit.", "dinov2")):
        TRANSFORMERS[f"backbone.{_old}"] = None if _new is None else f"backbone.{_new}"
JOIN = {
    f"backbone.{new}": tuple(f"backbone.{part}" for part in parts)
    for new, parts in VIT_JOIN.items()
}


def from_transformers(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of transformers says."""
    same = {"reassemble_factors", "neck_hidden_sizes", "fusion_hidden_size", "head_hidden_size"}
    other = {"backbone", "backbone_config", "backbone_kwargs", "use_pretrained_backbone"}
    other |= {"use_timm_backbone", "patch_size", "reassemble_hidden_size", "head_in_index"}
    other |= {"depth_estimation_type", "max_depth"}
    refuse(published, same | other | TRANSFORMERS_COMMON, NAME)
    expect(published, NAME, depth_estimation_type=("relative", "metric"), head_in_index=(-1,))
    expect(published, NAME, backbone=(None,), use_timm_backbone=(False,))
    inner = published.get("backbone_config")
    if not isinstance(inner, dict):
        raise ConfigError(f"{NAME}: backbone_config={inner!r} is no configuration", got=inner)
    expect(inner, NAME, model_type=("dinov2",), apply_layernorm=(True,), use_swiglu_ffn=(False,))
    expect(inner, NAME, hidden_act=("gelu",), qkv_bias=(True,), reshape_hidden_states=(False,))
    # Nested configurations leave out what is the default of transformers.
    trunk = dinov2.from_transformers(
        {
            "model_type": "dinov2",
            **{k: v for k, v in inner.items() if k not in _TRUNK_ONLY},
            "architectures": ["Dinov2Model"],
        }
    )
    expect(published, NAME, reassemble_hidden_size=(trunk.hidden_size,))
    patch = as_pair(NAME, "patch_size", published.get("patch_size", 14))
    expect({"patch_size": patch}, NAME, patch_size=(trunk.patch_size,))
    given: dict[str, Any] = {k: published[k] for k in same & set(published)}
    for key in ("reassemble_factors", "neck_hidden_sizes"):
        if key in given:
            given[key] = as_tuple(NAME, key, given[key])
    metric = published.get("depth_estimation_type") == "metric"
    indices = inner.get("out_indices") or _stages(inner.get("out_features"))
    return Config(
        hidden_size=trunk.hidden_size,
        num_hidden_layers=trunk.num_hidden_layers,
        num_attention_heads=trunk.num_attention_heads,
        intermediate_size=trunk.intermediate_size,
        patch_size=trunk.patch_size,
        positions=trunk.image_size,
        layer_norm_eps=trunk.layer_norm_eps,
        in_channels=trunk.in_channels,
        layers=as_tuple(NAME, "out_indices", indices),
        metric=metric,
        max_depth=float(published.get("max_depth") or 1),
        **given,
    )


_TRUNK_ONLY = TRANSFORMERS_DUMPED | {
    "add_cross_attention",
    "apply_layernorm",
    "cross_attention_hidden_size",
    "is_decoder",
    "is_encoder_decoder",
    "out_features",
    "out_indices",
    "stage_names",
}


def _stages(names: Any) -> list[int]:
    """The numbers in "stage3", "stage6", ..."""
    return [int(str(name).removeprefix("stage")) for name in names or ()]


_BASE: dict[str, Any] = {
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "neck_hidden_sizes": (96, 192, 384, 768),
    "fusion_hidden_size": 128,
}
_SMALL = Entry(
    name="depth-anything-v2-small",
    aliases=("Depth-Anything-V2-Small-hf",),
    sources=(Hub("depth-anything/Depth-Anything-V2-Small-hf"),),
    layout="transformers",
    license="Apache-2.0",
    commercial=True,
    parameters=24_784_705,
    paper="https://arxiv.org/abs/2406.09414",
    note="relative depth: the larger the nearer",
)
_LARGER = replace(
    _SMALL,
    name="depth-anything-v2-base",
    aliases=("Depth-Anything-V2-Base-hf",),
    sources=(Hub("depth-anything/Depth-Anything-V2-Base-hf"),),
    config=_BASE,
    license="CC-BY-NC-4.0",
    commercial=False,
    parameters=97_470_017,
)
_BALLS = Entry(
    name="depth-balls",
    sources=(Bundled("vision/assets/depth-balls"),),
    config=None,  # as saved
    license="Apache-2.0",
    commercial=True,
    parameters=395_953,
    metric=Metric("% mean relative error", 8.05, "ball_scenes(100, seed=99)", 112, "docs/depth.md"),
    paper="https://arxiv.org/abs/2406.09414",
    note="balls on a tiled floor, in metres; trained by this library, see docs/examples/depth.py",
)


@register(
    "depth-anything",
    config=Config,
    task="depth-estimation",
    layouts={
        "transformers": Layout(rename=TRANSFORMERS, join=JOIN, config=from_transformers),
    },
    model_types=("depth_anything",),
    stem="backbone.patch_embed.proj.weight",
    entries=(_SMALL, _LARGER, _BALLS),
)
def depth_anything(config: Config) -> DepthAnything:
    """Depth Anything V2 for depth from one picture."""
    return DepthAnything(config)

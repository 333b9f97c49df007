"""Swin transformer. Liu et al. 2021, "Hierarchical Vision Transformer using Shifted Windows".

Weights: timm/swin_tiny_patch4_window7_224.ms_in1k, ... (MIT); any repository in the layout of timm
or of transformers (microsoft/swin-tiny-patch4-window7-224) loads by its id.
Deviation from the paper: none; pictures of any size are taken and padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import nn
from ..core.errors import ConfigError
from ..core.ops.padding import pad
from ..core.ops.reduction import mean
from ..core.ops.shape import permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import (
    TIMM_COMMON,
    TRANSFORMERS_COMMON,
    as_pair,
    as_tuple,
    expect,
    flags,
    natural,
    number_of_labels,
    positive,
    real,
    refuse_unknown,
)
from ..hub.registry import Entry, Hub, Layout, Metric, register
from .inputs import check_images
from .swin_windows import Block, PatchMerging, WindowAttention
from .transformer import ACTIVATIONS, Size, initialise
from .vit import ImageFeatures
from .vit_layouts import JOIN, class_of

NAME = "Swin"
MAX_STAGES = 8


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are Swin-T.

    Args:
        embed_dim: width of the first stage; each later one is twice as wide.
        depths, num_heads: blocks and heads of each stage.
        window_size: rows and columns of the windows within which tokens attend to each other.
        patch_size: height and width of a patch.
        hidden_act: a name of `transformer.ACTIVATIONS`.
        roll_first: what is done first where windows do not fill a map: shifting, as timm does,
            which also shifts one axis alone; or padding, as transformers does.
        in_channels, num_classes: of the pictures and of the head; no classes, no head.
    """

    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    patch_size: Size = (4, 4)
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    drop_path_rate: float = 0.1
    roll_first: bool = True
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        sizes = ("embed_dim", "depths", "num_heads", "window_size", "in_channels")
        positive(NAME, **{key: getattr(self, key) for key in sizes})
        natural(NAME, num_classes=self.num_classes)
        rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate")
        real(NAME, **{key: getattr(self, key) for key in (*rates, "layer_norm_eps")})
        real(NAME, 0.01, 100, mlp_ratio=self.mlp_ratio)
        flags(NAME, qkv_bias=self.qkv_bias, roll_first=self.roll_first)
        expect({"hidden_act": self.hidden_act}, NAME, hidden_act=tuple(ACTIVATIONS))
        as_pair(NAME, "patch_size", self.patch_size)
        if len(self.depths) != len(self.num_heads) or len(self.depths) > MAX_STAGES:
            raise ConfigError(
                f"{NAME}: depths {self.depths} and num_heads {self.num_heads} have one number for "
                f"each stage, of which there are at most {MAX_STAGES}."
            )
        widths = [self.embed_dim * 2**i for i in range(len(self.depths))]
        if any(width % heads for width, heads in zip(widths, self.num_heads, strict=True)):
            raise ConfigError(
                f"{NAME}: the widths {widths} of the stages must be multiples of their "
                f"num_heads={self.num_heads}."
            )


class Stage(nn.Module):
    """Blocks at one resolution, after the merging that leads to it."""

    def __init__(self, number: int, rates: list[float], config: Config) -> None:
        width, heads = config.embed_dim * 2**number, config.num_heads[number]
        self.downsample = PatchMerging(width // 2) if number else None
        shifts = (0, config.window_size // 2)
        self.blocks = nn.ModuleList(
            Block(width, heads, config, shifts[i % 2], rate) for i, rate in enumerate(rates)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            x = self.downsample(x)
        for block in self.blocks:
            x = block(x)
        return x


class PatchEmbed(nn.Module):
    """Each patch as a vector, normalised; pictures are padded to whole patches."""

    def __init__(self, config: Config) -> None:
        self.patch = config.patch_size
        self.proj = nn.Conv2d(config.in_channels, config.embed_dim, self.patch, stride=self.patch)
        self.norm = nn.LayerNorm(config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Shape: (B, C, H, W) -> (B, H / patch, W / patch, D), rounded up."""
        tall, wide = (-n % p for n, p in zip(x.shape[2:], self.patch, strict=True))
        x = pad(x, ((0, 0), (0, 0), (0, tall), (0, wide))) if tall or wide else x
        out: Tensor = self.norm(permute_dims(self.proj(x), (0, 2, 3, 1)))
        return out


class Swin(nn.Module):
    """Patches, stages `layers` of blocks, a layer norm, the mean of all places, a linear `head`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.drop = nn.Dropout(config.hidden_dropout_prob)
        rates = np.linspace(0, config.drop_path_rate, sum(config.depths)).tolist()
        self.layers = nn.ModuleList()
        for i, depth in enumerate(config.depths):
            self.layers.append(Stage(i, rates[:depth], config))
            rates = rates[depth:]
        width = config.embed_dim * 2 ** (len(config.depths) - 1)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.head = nn.Linear(width, config.num_classes) if config.num_classes else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values for training from scratch."""
        initialise(self)
        for module in self.modules():
            if isinstance(module, WindowAttention):
                nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)

    def feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """What each stage gives, the finest first; the last is normalised.

        Shape:
            (B, in_channels, H, W) -> (B, embed_dim * 2**i, H / (patch * 2**i), ...), rounded up
        """
        check_images(pixel_values, self.config.in_channels)
        x: Tensor = self.drop(self.patch_embed(pixel_values))
        maps = []
        for stage in self.layers:
            x = stage(x)
            maps.append(x)
        maps[-1] = self.norm(x)
        return tuple(permute_dims(part, (0, 3, 1, 2)) for part in maps)

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """The last feature map.

        Shape:
            (B, in_channels, H, W) -> (B, D, H / 32, W / 32), rounded up, for patches of 4
        """
        return self.feature_maps(pixel_values)[-1]

    def forward_tokens(self, pixel_values: Tensor) -> Tensor:
        """The last feature map, row by row. Shape: (B, in_channels, H, W) -> (B, T, D)."""
        x = permute_dims(self.forward_features(pixel_values), (0, 2, 3, 1))
        return reshape(x, (x.shape[0], -1, x.shape[3]))

    def embed(self, pixel_values: Tensor) -> Tensor:
        """What the head sees: the mean over all places. Shape: (B, in_channels, H, W) -> (B, D)."""
        return mean(self.forward_tokens(pixel_values), axis=1)

    def forward(self, pixel_values: Tensor) -> Tensor | ImageFeatures:
        """Logits of every class; without a head, all tokens and their mean.

        Shape:
            (B, in_channels, H, W) -> (B, num_classes)
        """
        tokens = self.forward_tokens(pixel_values)
        pooled = mean(tokens, axis=1)
        return ImageFeatures(tokens, pooled) if self.head is None else self.head(pooled)


# -- published layouts -------------------------------------------------------------------------

# Width of the first stage, depths, heads.
SIZES: dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]] = {
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
_ARGS = {
    "depths", "drop_path_rate", "embed_dim", "global_pool", "img_size", "in_chans", "mlp_ratio",
    "num_classes", "num_heads", "patch_size", "qkv_bias", "window_size",
}  # fmt: skip

# Files of before 2023, Microsoft's own too, hold buffers that follow from the size of the windows.
TIMM: dict[str, str | None] = {
    "head.fc.{rest}": "head.{rest}",
    "layers.{}.blocks.{}.attn_mask": None,
    "layers.{}.blocks.{}.attn.relative_position_index": None,
}


def move_merging(state: dict[str, Any], old: Config, new: Config) -> tuple[str, ...]:
    """Those files count a merging to the stage before it: move it to the one that it leads to."""
    if any(name.startswith("layers.0.downsample.") for name in state):
        for i in reversed(range(len(new.depths) - 1)):
            before, after = f"layers.{i}.downsample.", f"layers.{i + 1}.downsample."
            for name in [name for name in state if name.startswith(before)]:
                state[name.replace(before, after)] = state.pop(name)
    return ()


def from_timm(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of timm says: a size by name, with changes to it."""
    refuse_unknown(published, TIMM_COMMON, NAME)
    args = published.get("model_args") or {}
    refuse_unknown(args, _ARGS, f"{NAME} (model_args)")
    for place in (published, args):
        expect(place, NAME, global_pool=("avg",))
    _, size, patch, window, _ = str(published["architecture"]).split("_")
    width, depths, heads = SIZES[size]
    input_size = published.get("pretrained_cfg", {}).get("input_size") or (3,)
    return Config(
        embed_dim=args.get("embed_dim", width),
        depths=as_tuple(NAME, "depths", args.get("depths", depths)),
        num_heads=as_tuple(NAME, "num_heads", args.get("num_heads", heads)),
        window_size=args.get("window_size", int(window.removeprefix("window"))),
        patch_size=as_pair(
            NAME, "patch_size", args.get("patch_size", int(patch.removeprefix("patch")))
        ),
        mlp_ratio=args.get("mlp_ratio", 4.0),
        qkv_bias=args.get("qkv_bias", True),
        drop_path_rate=args.get("drop_path_rate", 0.1),
        in_channels=args.get("in_chans", input_size[0]),
        num_classes=published.get("num_classes", 1000),
    )


# Files name tensors as transformers 4 did; those of transformers 5 differ while a model runs, and
# are understood as well. Models without a head have no prefix. Their merging ends a stage.
TRANSFORMERS: dict[str, str | None] = {"classifier.{rest}": "head.{rest}"}
for _prefix in ("", "swin."):
    TRANSFORMERS |= {
        f"{_prefix}embeddings.patch_embeddings.projection.{{rest}}": "patch_embed.proj.{rest}",
        f"{_prefix}embeddings.norm.{{rest}}": "patch_embed.norm.{rest}",
        f"{_prefix}embeddings.mask_token": None,  # of the pretraining
        f"{_prefix}layernorm.{{rest}}": "norm.{rest}",
    }
    for _i in range(MAX_STAGES):
        _old = f"{_prefix}encoder.layers.{_i}.downsample."
        TRANSFORMERS[_old + "{rest}"] = f"layers.{_i + 1}.downsample.{{rest}}"
    for _theirs, _ours in (
        ("attention.self.query.{rest}", "attn.q.{rest}"),
        ("attention.self.key.{rest}", "attn.k.{rest}"),
        ("attention.self.value.{rest}", "attn.v.{rest}"),
        ("attention.self.relative_position_index", None),  # follows from the window
        (
            "attention.self.relative_position_bias_table",
            "attn.relative_position_bias_table",
        ),
        ("attention.output.dense.{rest}", "attn.proj.{rest}"),
        ("attention.q_proj.{rest}", "attn.q.{rest}"),
        ("attention.k_proj.{rest}", "attn.k.{rest}"),
        ("attention.v_proj.{rest}", "attn.v.{rest}"),
        ("attention.o_proj.{rest}", "attn.proj.{rest}"),
        (
            "attention.relative_position_bias.relative_position_bias_table",
            "attn.relative_position_bias_table",
        ),
        ("intermediate.dense.{rest}", "mlp.fc1.{rest}"),
        ("output.dense.{rest}", "mlp.fc2.{rest}"),
        ("layernorm_before.{rest}", "norm1.{rest}"),
        ("layernorm_after.{rest}", "norm2.{rest}"),
        ("{rest}", "{rest}"),
    ):
        TRANSFORMERS[f"{_prefix}encoder.layers.{{}}.blocks.{{}}.{_theirs}"] = (
            _ours and f"layers.{{}}.blocks.{{}}.{_ours}"
        )

_SAME = {
    "attention_probs_dropout_prob", "depths", "drop_path_rate", "embed_dim", "hidden_act",
    "hidden_dropout_prob", "layer_norm_eps", "mlp_ratio", "num_heads", "patch_size", "qkv_bias",
    "window_size",
}  # fmt: skip
# What follows from the others, or is of the pretraining.
_OTHER = {
    "encoder_stride", "hidden_size", "image_size", "num_channels", "num_layers", "path_norm",
    "use_absolute_embeddings",
}  # fmt: skip


def from_transformers(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of transformers says."""
    refuse_unknown(published, _SAME | _OTHER | TRANSFORMERS_COMMON, NAME)
    expect(published, NAME, use_absolute_embeddings=(False,), path_norm=(True,))
    known = ("SwinForImageClassification", "SwinModel")
    head = class_of(published, known, known[0]) == known[0]
    given = {key: published[key] for key in _SAME & set(published)}
    for key in ("depths", "num_heads"):
        if key in given:
            given[key] = as_tuple(NAME, key, given[key])
    if "patch_size" in given:
        given["patch_size"] = as_pair(NAME, "patch_size", given["patch_size"])
    return Config(
        **given,
        roll_first=False,
        in_channels=published.get("num_channels", 3),
        num_classes=number_of_labels(published) if head else 0,
    )


_RESULTS = (
    "https://github.com/huggingface/pytorch-image-models/blob/"
    "aa4b5850c1543fa488abf260f18390eda46cf85d/results/results-imagenet.csv"
)
# Size, window, pixels, parameters (counted), top-1 at these pixels (the file above).
_PUBLISHED = (
    ("tiny", 7, 224, 28_288_354, 81.388),
    ("small", 7, 224, 49_606_258, 83.228),
    ("base", 7, 224, 87_768_224, 83.604),
    ("base", 12, 384, 87_903_584, 84.478),
)


def _entry(size: str, window: int, pixels: int, parameters: int, top1: float) -> Entry:
    width, depths, heads = SIZES[size]
    name = f"swin-{size}-patch4-window{window}-{pixels}"
    timm = f"{name.replace('-', '_')}.ms_in1k"
    return Entry(
        name=name,
        aliases=(timm,),
        sources=(Hub(f"timm/{timm}"), Hub(f"microsoft/{name}")),
        config={
            "embed_dim": width,
            "depths": depths,
            "num_heads": heads,
            "window_size": window,
        },
        layout="timm",
        license="MIT",
        commercial=True,
        parameters=parameters,
        metric=Metric("% top-1", top1, "ImageNet-1k validation", pixels, _RESULTS),
        # timm 1.0.31, default configurations of these weights; the licence as well
        preprocess={
            "size": (pixels, pixels),
            "resize": 248 if pixels == 224 else pixels,
            "resample": "bicubic",
        },
        labels="imagenet-1k",
        paper="https://arxiv.org/abs/2103.14030",
    )


@register(
    "swin",
    config=Config,
    task="image-classification",
    layouts={
        "timm": Layout(rename=TIMM, config=from_timm),
        "transformers": Layout(
            rename=TRANSFORMERS,
            join={
                f"layers.{{}}.{old}": tuple(f"layers.{{}}.{p}" for p in parts)
                for old, parts in JOIN.items()
            },
            config=from_transformers,
        ),
    },
    model_types=("swin",),
    architectures=(r"swin_(tiny|small|base|large)_patch4_window\d+_\d+",),
    head=("head",),
    stem="patch_embed.proj.weight",
    fit=move_merging,
    entries=[_entry(*row) for row in _PUBLISHED],
)
def swin(config: Config) -> Swin:
    """Swin transformer for image classification."""
    return Swin(config)

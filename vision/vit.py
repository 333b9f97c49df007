"""Vision transformer. Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words".

Also DeiT (Touvron et al. 2020) with its distillation token, and DeiT III.
Weights: timm/vit_*.augreg_in21k_ft_in1k, timm/deit_*.fb_in1k (Apache-2.0); any repository in the
layout of timm or of transformers (google/vit-base-patch16-224) loads by its id.
Deviation from the paper: none; pictures of any size are taken, tables of positions are resized.

Longer than other models, since one class serves ViT, DeiT, DeiT III and DINOv2 (dinov2.py).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..core import nn
from ..core.errors import ConfigError
from ..core.nn import functional as F
from ..core.ops.reduction import mean
from ..core.ops.shape import broadcast_to, concat, permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import as_pair, expect, flags, natural, positive, real
from ..hub.registry import Entry, Hub, Layout, Metric, register
from .inputs import check_images
from .transformer import (
    ACTIVATIONS,
    Attention,
    Block,
    Mlp,
    PatchEmbed,
    Size,
    SwiGLU,
    initialise,
    resize_entry,
    resized_positions,
)
from .vit_layouts import JOIN, SIZES, TIMM, TRANSFORMERS, from_timm, from_transformers, with_pooler


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are ViT-B/16.

    Args:
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: of the blocks.
        patch_size, image_size: height and width of a patch, and of the pictures of the training.
        hidden_act: a name of `transformer.ACTIVATIONS`.
        pooling: what the head sees: "token", the class token; "mean", the mean of the patches;
            "both", these two beside each other.
        distillation: "none"; "token", as DeiT has it beside the class token; "head", where that
            token has a head of its own, whose logits are averaged with those of the other.
        pooler: whether a linear map and tanh follow the class token (models without a head).
        layer_scale, swiglu: see `transformer.LayerScale` and `transformer.SwiGLU`.
        registers: tokens that take part and are not used (Darcet et al. 2023).
        positioned: how many of the tokens before the patches have positions as well.
        antialias: see `transformer.resized_positions`.
        in_channels, num_classes: of the pictures and of the head; no classes, no head.
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    patch_size: Size = (16, 16)
    image_size: Size = (224, 224)
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    drop_path_rate: float = 0.0
    pooling: str = "token"
    distillation: str = "none"
    pooler: bool = False
    layer_scale: bool = False
    swiglu: bool = False
    registers: int = 0
    positioned: int = 1
    antialias: bool = True
    in_channels: int = 3
    num_classes: int = 1000

    def __post_init__(self) -> None:
        sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        positive(NAME, **{key: getattr(self, key) for key in (*sizes, "in_channels")})
        counts = ("num_classes", "registers", "positioned")
        natural(NAME, **{key: getattr(self, key) for key in counts})
        rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate")
        real(NAME, **{key: getattr(self, key) for key in (*rates, "layer_norm_eps")})
        switches = ("qkv_bias", "pooler", "layer_scale", "swiglu", "antialias")
        flags(NAME, **{key: getattr(self, key) for key in switches})
        for key, wanted in CHOICES.items():
            expect({key: getattr(self, key)}, NAME, **{key: wanted})
        image, patch = (as_pair(NAME, k, getattr(self, k)) for k in ("image_size", "patch_size"))
        if (
            self.hidden_size % self.num_attention_heads
            or image[0] < patch[0]
            or image[1] < patch[1]
        ):
            raise ConfigError(
                f"{NAME}: hidden_size={self.hidden_size} must be a multiple of "
                f"num_attention_heads={self.num_attention_heads}, and image_size={image} at least "
                f"patch_size={patch}."
            )

    @property
    def grid(self) -> Size:
        """Rows and columns of patches that the table of positions is for."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def prefix(self) -> int:
        """How many tokens come before the patches."""
        return 1 + (self.distillation != "none") + self.registers


NAME = "ViT"
CHOICES = {
    "pooling": ("token", "mean", "both"),
    "distillation": ("none", "token", "head"),
    "hidden_act": tuple(ACTIVATIONS),
}


class ImageFeatures(NamedTuple):
    """What a model without a head gives: every token, and what stands for the whole picture."""

    last_hidden_state: Tensor
    pooler_output: Tensor


class TwoHeads(nn.Linear):
    """The class token's logits and the distillation token's, averaged."""

    def __init__(self, width: int, num_classes: int) -> None:
        self.distillation = nn.Linear(width, num_classes)
        super().__init__(width, num_classes)

    def reset_parameters(self) -> None:
        """Draw new initial values for both."""
        super().reset_parameters()
        self.distillation.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """Shape: (B, 2 * width) -> (B, num_classes)."""
        token, distilled = input[:, : self.in_features], input[:, self.in_features :]
        logits: Tensor = (super().forward(token) + self.distillation(distilled)) / 2
        return logits


class Pooler(nn.Module):
    """A linear map and tanh, as transformers puts after the class token."""

    def __init__(self, width: int) -> None:
        self.dense = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.tanh(self.dense(x))


class ViT(nn.Module):
    """Patches and a class token through `blocks`, a layer norm, a linear `head`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        width = config.hidden_size
        self.cls_token = nn.init.parameter(1, 1, width)
        self.dist_token = nn.init.parameter(1, 1, width) if config.distillation != "none" else None
        self.reg_token = nn.init.parameter(1, config.registers, width) if config.registers else None
        rows, columns = config.grid
        self.pos_embed = nn.init.parameter(1, config.positioned + rows * columns, width)
        self.patch_embed = PatchEmbed(config.in_channels, width, config.patch_size)
        self.drop = nn.Dropout(config.hidden_dropout_prob)
        self.blocks = nn.ModuleList(_block(config, i) for i in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.pooler = Pooler(width) if config.pooler else None
        self.head: nn.Linear | None = None
        if config.num_classes and config.distillation == "head":
            self.head = TwoHeads(width, config.num_classes)
        elif config.num_classes:
            self.head = nn.Linear(width * (1 + (config.pooling == "both")), config.num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values for training from scratch."""
        initialise(self)
        for table in (self.cls_token, self.dist_token, self.reg_token, self.pos_embed):
            if table is not None:
                nn.init.trunc_normal_(table, std=0.02)

    def forward_tokens(self, pixel_values: Tensor) -> Tensor:
        """The tokens after the last block and norm (no norm where their mean is normalised).

        Shape:
            (B, in_channels, H, W) -> (B, prefix + patches, hidden_size)
        """
        x, _ = self._embedded(pixel_values)
        for block in self.blocks:
            x = block(x)
        return self._normed(x)

    def _normed(self, tokens: Tensor) -> Tensor:
        normed: Tensor = tokens if self.config.pooling == "mean" else self.norm(tokens)
        return normed

    def _embedded(self, pixel_values: Tensor) -> tuple[Tensor, Size]:
        """Tokens with their positions, and rows and columns of patches."""
        config = self.config
        check_images(pixel_values, config.in_channels, max(config.patch_size))
        x, grid = self.patch_embed(pixel_values)
        count = config.positioned
        positions = resized_positions(
            self.pos_embed, config.grid, grid, prefix=count, antialias=config.antialias
        )
        tokens = [t for t in (self.cls_token, self.dist_token, self.reg_token) if t is not None]
        prefix = concat(tokens, axis=1) if len(tokens) > 1 else tokens[0]
        if count:
            first = prefix[:, :count] + positions[:, :count]
            prefix = concat([first, prefix[:, count:]], axis=1)
        prefix = broadcast_to(prefix, (x.shape[0], *prefix.shape[1:]))
        return self.drop(concat([prefix, x + positions[:, count:]], axis=1)), grid

    def _map(self, tokens: Tensor, grid: Size) -> Tensor:
        """The patches among the tokens as a map."""
        patches = permute_dims(tokens[:, self.config.prefix :], (0, 2, 1))
        return reshape(patches, (*patches.shape[:2], *grid))

    def feature_maps(
        self, pixel_values: Tensor, layers: Collection[int] | None = None
    ) -> tuple[Tensor, ...]:
        """Maps after some of the blocks, normalised as the last is.

        Args:
            layers: numbers of blocks from 0; unless given, a quarter, half, three quarters of them
                and the last.
        Shape:
            (B, in_channels, H, W) -> (B, hidden_size, H // patch, W // patch) for each
        """
        count = len(self.blocks)
        wanted = {count * n // 4 - 1 for n in (1, 2, 3, 4)} if layers is None else set(layers)
        x, grid = self._embedded(pixel_values)
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in wanted:
                maps.append(self._map(self._normed(x), grid))
        return tuple(maps)

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """The last feature map.

        Shape:
            (B, in_channels, H, W) -> (B, hidden_size, H // patch, W // patch)
        """
        return self.feature_maps(pixel_values, {len(self.blocks) - 1})[0]

    def pooled(self, tokens: Tensor) -> Tensor:
        """What stands for the whole picture, of what `forward_tokens` gives."""
        config = self.config
        if config.pooling == "mean":
            normed: Tensor = self.norm(mean(tokens[:, config.prefix :], axis=1))
            return normed
        token = tokens[:, 0]
        if config.pooling == "both":
            return concat([token, mean(tokens[:, config.prefix :], axis=1)], axis=1)
        if config.distillation == "head":
            return concat([token, tokens[:, 1]], axis=1)
        return token if self.pooler is None else self.pooler(token)

    def embed(self, pixel_values: Tensor) -> Tensor:
        """What the head sees.

        Shape:
            (B, in_channels, H, W) -> (B, hidden_size), twice as wide for two tokens
        """
        return self.pooled(self.forward_tokens(pixel_values))

    def forward(self, pixel_values: Tensor) -> Tensor | ImageFeatures:
        """Logits of every class; without a head, all tokens and what stands for the picture.

        Shape:
            (B, in_channels, H, W) -> (B, num_classes)
        """
        tokens = self.forward_tokens(pixel_values)
        pooled = self.pooled(tokens)
        return ImageFeatures(tokens, pooled) if self.head is None else self.head(pooled)


def _block(config: Config, number: int) -> Block:
    width, count = config.hidden_size, config.num_hidden_layers
    mlp: nn.Module = SwiGLU(width, config.intermediate_size)
    if not config.swiglu:
        mlp = Mlp(width, config.intermediate_size, config.hidden_act, config.hidden_dropout_prob)
    return Block(
        width,
        Attention(
            width,
            config.num_attention_heads,
            bias=config.qkv_bias,
            dropout=config.attention_probs_dropout_prob,
        ),
        mlp,
        eps=config.layer_norm_eps,
        layer_scale=config.layer_scale,
        dropout=config.hidden_dropout_prob,
        drop_path=config.drop_path_rate * number / max(count - 1, 1),
    )


def fit_positions(state: dict[str, Any], old: Config, new: Config) -> tuple[str, ...]:
    """Resize the table of positions of a file for pictures of another size."""
    how: dict[str, Any] = {"prefix": new.positioned, "antialias": new.antialias}
    return resize_entry(state, "pos_embed", old.grid, new.grid, **how)


# -- published models ------------------------------------------------------------------------

_RESULTS = (
    "https://github.com/huggingface/pytorch-image-models/blob/"
    "aa4b5850c1543fa488abf260f18390eda46cf85d/results/results-imagenet.csv"
)
_VIT = "https://arxiv.org/abs/2010.11929"
_DEIT = "https://arxiv.org/abs/2012.12877"
_HALF = (0.5, 0.5, 0.5)
# Name, size, patch, pixels, tag, parameters (counted), top-1 at these pixels (the file above).
_PUBLISHED = (
    ("vit-tiny-patch16-224", "tiny", 16, 224, "augreg_in21k_ft_in1k", 5_717_416, 75.452),
    ("vit-tiny-patch16-384", "tiny", 16, 384, "augreg_in21k_ft_in1k", 5_790_376, 78.438),
    ("vit-small-patch32-224", "small", 32, 224, "augreg_in21k_ft_in1k", 22_878_952, 76.010),
    ("vit-small-patch16-224", "small", 16, 224, "augreg_in21k_ft_in1k", 22_050_664, 81.402),
    ("vit-small-patch16-384", "small", 16, 384, "augreg_in21k_ft_in1k", 22_196_584, 83.814),
    ("vit-base-patch32-224", "base", 32, 224, "augreg_in21k_ft_in1k", 88_224_232, 80.732),
    ("vit-base-patch16-224", "base", 16, 224, "augreg_in21k_ft_in1k", 86_567_656, 84.534),
    ("vit-base-patch16-384", "base", 16, 384, "augreg_in21k_ft_in1k", 86_859_496, 86.010),
    ("vit-large-patch16-224", "large", 16, 224, "augreg_in21k_ft_in1k", 304_326_632, 85.856),
    ("deit-tiny-patch16-224", "tiny", 16, 224, "fb_in1k", 5_717_416, 72.190),
    ("deit-small-patch16-224", "small", 16, 224, "fb_in1k", 22_050_664, 79.856),
    ("deit-base-patch16-224", "base", 16, 224, "fb_in1k", 86_567_656, 81.980),
    ("deit-tiny-distilled-patch16-224", "tiny", 16, 224, "fb_in1k", 5_910_800, 74.538),
    ("deit-small-distilled-patch16-224", "small", 16, 224, "fb_in1k", 22_436_432, 81.204),
    ("deit-base-distilled-patch16-224", "base", 16, 224, "fb_in1k", 87_338_192, 83.384),
)


def _entry(
    name: str, size: str, patch: int, pixels: int, tag: str, parameters: int, top1: float
) -> Entry:
    width, depth, heads = SIZES[size]
    config: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "patch_size": (patch, patch),
        "image_size": (pixels, pixels),
    }
    if "distilled" in name:
        config |= {"distillation": "head", "positioned": 2}
    # timm 1.0.31, default configurations of these weights
    preprocess: dict[str, Any] = {"size": (pixels, pixels), "resample": "bicubic"}
    preprocess["resize"] = 248 if pixels == 224 else pixels
    if name.startswith("vit"):
        preprocess |= {"mean": _HALF, "std": _HALF}
    original = name.replace("-", "_")
    return Entry(
        name=name,
        aliases=(f"{original}.{tag}",),
        sources=(Hub(f"timm/{original}.{tag}"),),
        config=config,
        layout="timm",
        license="Apache-2.0",
        commercial=True,
        parameters=parameters,
        metric=Metric("% top-1", top1, "ImageNet-1k validation", pixels, _RESULTS),
        preprocess=preprocess,
        labels="imagenet-1k",
        paper=_VIT if name.startswith("vit") else _DEIT,
        note="pretrained on ImageNet-21k (https://arxiv.org/abs/2106.10270)"
        if name.startswith("vit")
        else None,
    )


@register(
    "vit",
    config=Config,
    task="image-classification",
    layouts={
        "timm": Layout(rename=TIMM, config=lambda p: Config(**from_timm(p))),
        "transformers": Layout(
            rename=TRANSFORMERS,
            join=JOIN,
            config=lambda p: Config(**from_transformers(p)),
            detect=with_pooler,
        ),
    },
    model_types=("vit", "deit"),
    architectures=(
        r"vit_(tiny|small|base|large|huge)_patch\d+_\d+",
        r"deit_(tiny|small|base)(_distilled)?_patch\d+_\d+",
        r"deit3_(small|medium|base|large|huge)_patch\d+_\d+",
    ),
    head=("head",),
    stem="patch_embed.proj.weight",
    fit=fit_positions,
    entries=[_entry(*row) for row in _PUBLISHED],
)
def vit(config: Config) -> ViT:
    """Vision transformer for image classification: ViT, DeiT, DeiT III."""
    return ViT(config)

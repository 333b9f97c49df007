"""SegFormer. Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation".

Weights: nvidia/segformer-b0-finetuned-ade-512-512, ..., nvidia/segformer-b5-finetuned-ade-640-640,
and those trained on Cityscapes (NVIDIA, not for commercial use); any repository in the layout of
transformers loads by its id. Deviation from the paper's code: layer norms have eps 1e-5, not 1e-6,
as transformers runs these weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core import nn
from ..core.errors import ConfigError
from ..core.nn import functional as F
from ..core.ops.shape import concat, permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import (
    TRANSFORMERS_COMMON,
    as_tuple,
    expect,
    number_of_labels,
    positive,
    real,
    refuse_unknown,
)
from ..hub.registry import Entry, Hub, Layout, register
from .inputs import check_images
from .transformer import ACTIVATIONS, initialise
from .vit_layouts import class_of

NAME = "SegFormer"
_LISTS = (
    "depths", "sr_ratios", "hidden_sizes", "patch_sizes", "strides", "num_attention_heads",
    "mlp_ratios",
)  # fmt: skip
_RATES = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob",
    "drop_path_rate",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are SegFormer-B0.

    Args:
        depths: blocks in each stage.
        sr_ratios: how many times fewer rows and columns of keys than of queries, in each stage.
        hidden_sizes: channels of each stage.
        patch_sizes, strides: of the convolution in front of each stage.
        num_attention_heads: in each stage.
        mlp_ratios: how many times wider than its input an MLP is inside, in each stage.
        hidden_act: a name of `transformer.ACTIVATIONS`.
        decoder_hidden_size: channels of the decoder.
        in_channels, num_classes: of the pictures and of the head.
    """

    depths: tuple[int, ...] = (2, 2, 2, 2)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)
    hidden_sizes: tuple[int, ...] = (32, 64, 160, 256)
    patch_sizes: tuple[int, ...] = (7, 3, 3, 3)
    strides: tuple[int, ...] = (4, 2, 2, 2)
    num_attention_heads: tuple[int, ...] = (1, 2, 5, 8)
    mlp_ratios: tuple[float, ...] = (4, 4, 4, 4)
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout_prob: float = 0.1
    drop_path_rate: float = 0.1
    decoder_hidden_size: int = 256
    in_channels: int = 3
    num_classes: int = 150

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in _LISTS if name != "mlp_ratios"}
        sizes = {"decoder_hidden_size": self.decoder_hidden_size, "in_channels": self.in_channels}
        positive(NAME, **counts, **sizes, num_classes=self.num_classes)
        real(NAME, 0.01, 100, **{f"mlp_ratios[{i}]": r for i, r in enumerate(self.mlp_ratios)})
        real(NAME, **{name: getattr(self, name) for name in _RATES})
        expect({"hidden_act": self.hidden_act}, NAME, hidden_act=tuple(ACTIVATIONS))
        if len({len(getattr(self, name)) for name in _LISTS}) != 1:
            raise ConfigError(f"{NAME}: {', '.join(_LISTS)} have one value for each stage")
        for width, heads in zip(self.hidden_sizes, self.num_attention_heads, strict=True):
            if width % heads:
                raise ConfigError(f"{NAME}: {width} channels do not divide into {heads} heads")


def to_tokens(x: Tensor) -> Tensor:
    """(B, D, H, W) -> (B, H * W, D)."""
    b, d, h, w = x.shape
    return permute_dims(reshape(x, (b, d, h * w)), (0, 2, 1))


def to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """(B, H * W, D) -> (B, D, H, W)."""
    b, _, d = tokens.shape
    return permute_dims(reshape(tokens, (b, height, width, d)), (0, 3, 1, 2))


class PatchEmbed(nn.Module):
    """A strided convolution whose patches overlap, and a layer norm."""

    def __init__(self, inputs: int, width: int, patch: int, stride: int) -> None:
        self.proj = nn.Conv2d(inputs, width, patch, stride, padding=patch // 2)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        """(B, C, H, W) -> (B, T, D), and the rows and columns that they make up."""
        x = self.proj(x)
        return self.layer_norm(to_tokens(x)), x.shape[2], x.shape[3]


class Attention(nn.Module):
    """Self-attention to fewer places than there are: those of a strided convolution."""

    def __init__(self, width: int, heads: int, reduction: int, dropout: float) -> None:
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.dense = nn.Linear(width, width)
        self.sr: nn.Conv2d | None = None
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, stride=reduction)
            self.layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        b, t, d = x.shape
        seen = x
        if self.sr is not None:
            seen = self.layer_norm(to_tokens(self.sr(to_map(x, height, width))))
        q, k, v = (
            permute_dims(reshape(part, (b, -1, self.heads, d // self.heads)), (0, 2, 1, 3))
            for part in (self.query(x), self.key(seen), self.value(seen))
        )  # (B, N, T, D / N) each
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        out: Tensor = self.dense(reshape(permute_dims(y, (0, 2, 1, 3)), (b, t, d)))
        return out


class MixMlp(nn.Module):
    """Two linear maps with a depthwise convolution between them, which tells places apart."""

    def __init__(self, width: int, hidden: int, act: str, dropout: float) -> None:
        self.dense1 = nn.Linear(width, hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = ACTIVATIONS[act]()
        self.dense2 = nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        y: Tensor = to_tokens(self.dwconv(to_map(self.dense1(x), height, width)))
        y = self.drop(self.dense2(self.drop(self.act(y))))
        return y


class Block(nn.Module):
    """Attention and an MLP, each after a layer norm and added to what comes in."""

    def __init__(self, config: Config, stage: int, drop_path: float) -> None:
        width, dropout = config.hidden_sizes[stage], config.hidden_dropout_prob
        self.layer_norm_1 = nn.LayerNorm(width)
        self.attention = Attention(
            width,
            config.num_attention_heads[stage],
            config.sr_ratios[stage],
            config.attention_probs_dropout_prob,
        )
        self.layer_norm_2 = nn.LayerNorm(width)
        hidden = int(width * config.mlp_ratios[stage])
        self.mlp = MixMlp(width, hidden, config.hidden_act, dropout)
        self.drop = nn.Dropout(dropout)
        self.drop_path = nn.DropPath(drop_path)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        y: Tensor = self.drop(self.attention(self.layer_norm_1(x), height, width))
        x = x + self.drop_path(y)
        x = x + self.drop_path(self.mlp(self.layer_norm_2(x), height, width))
        return x


class Encoder(nn.Module):
    """The stages, each at a lower resolution than the one before."""

    def __init__(self, config: Config) -> None:
        inputs = (config.in_channels, *config.hidden_sizes[:-1])
        parts = zip(inputs, config.hidden_sizes, config.patch_sizes, config.strides, strict=True)
        self.patch_embeddings = nn.ModuleList([PatchEmbed(*part) for part in parts])
        total, number = sum(config.depths), 0
        stages = []
        for stage, depth in enumerate(config.depths):
            numbers = range(number, number + depth)
            rates = [config.drop_path_rate * i / max(total - 1, 1) for i in numbers]
            stages.append(nn.ModuleList([Block(config, stage, rate) for rate in rates]))
            number += depth
        self.block = nn.ModuleList(stages)
        self.layer_norm = nn.ModuleList([nn.LayerNorm(width) for width in config.hidden_sizes])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for embed, blocks, norm in zip(
            self.patch_embeddings, self.block, self.layer_norm, strict=True
        ):
            tokens, height, width = embed(x)
            for block in blocks:
                tokens = block(tokens, height, width)
            x = to_map(norm(tokens), height, width)
            maps.append(x)
        return tuple(maps)


class DecodeHead(nn.Module):
    """All stages at one width and at the resolution of the first; one convolution joins them."""

    def __init__(self, config: Config) -> None:
        width = config.decoder_hidden_size
        self.linear_c = nn.ModuleList([nn.Linear(inputs, width) for inputs in config.hidden_sizes])
        self.linear_fuse = nn.Conv2d(width * len(config.hidden_sizes), width, 1, bias=False)
        self.batch_norm = nn.BatchNorm2d(width)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = nn.Conv2d(width, config.num_classes, 1)

    def embed(self, maps: tuple[Tensor, ...]) -> Tensor:
        """What the classifier sees."""
        size = maps[0].shape[2:]
        same = []
        for x, linear in zip(maps, self.linear_c, strict=True):
            x = to_map(linear(to_tokens(x)), *x.shape[2:])
            same.append(F.interpolate(x, size=size, mode="bilinear", align_corners=False))
        fused: Tensor = self.activation(
            self.batch_norm(self.linear_fuse(concat(same[::-1], axis=1)))
        )
        return fused

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        logits: Tensor = self.classifier(self.dropout(self.embed(maps)))
        return logits


class SegFormer(nn.Module):
    """A transformer that gives maps of four resolutions, and a decoder of linear maps."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.encoder = Encoder(config)
        self.decode_head = DecodeHead(config)
        initialise(self)

    def feature_maps(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """What each stage gives, the finest first.

        Shape:
            (B, in_channels, H, W) -> each (B, hidden_sizes[i], H / (4 * 2**i), W / (4 * 2**i))
        """
        check_images(pixel_values, self.config.in_channels)
        maps: tuple[Tensor, ...] = self.encoder(pixel_values)
        return maps

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits of every class, at a quarter of the resolution.

        Shape:
            (B, in_channels, H, W) -> (B, num_classes, H / 4, W / 4)
        """
        logits: Tensor = self.decode_head(self.feature_maps(pixel_values))
        return logits


# -- published layouts --------------------------------------------------------------------------

_B = "encoder.block.{}.{}."
TRANSFORMERS: dict[str, str] = {
    f"segformer.{_B}attention.output.dense.{{rest}}": f"{_B}attention.dense.{{rest}}",
    f"segformer.{_B}attention.self.{{rest}}": f"{_B}attention.{{rest}}",
    f"segformer.{_B}mlp.dwconv.dwconv.{{rest}}": f"{_B}mlp.dwconv.{{rest}}",
    "decode_head.linear_c.{}.proj.{rest}": "decode_head.linear_c.{}.{rest}",
    "segformer.encoder.{rest}": "encoder.{rest}",
}


def from_transformers(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of transformers says."""
    same = {*_LISTS, *_RATES, "hidden_act", "decoder_hidden_size"}
    # layer_norm_eps is read by no layer of transformers' model either.
    passed = {"num_channels", "num_encoder_blocks", "layer_norm_eps", "image_size"}
    passed |= {"downsampling_rates", "semantic_loss_ignore_index", "reshape_last_stage"}
    refuse_unknown(published, same | passed | TRANSFORMERS_COMMON, NAME)
    expect(published, NAME, reshape_last_stage=(True,))
    class_of(published, ("SegformerForSemanticSegmentation",), "SegformerForSemanticSegmentation")
    given: dict[str, Any] = {key: published[key] for key in same & set(published)}
    for key in set(_LISTS) & set(given):
        given[key] = as_tuple(NAME, key, given[key])
    config = Config(
        **given,
        in_channels=published.get("num_channels", 3),
        num_classes=number_of_labels(published),
    )
    stages = len(config.depths)
    expect(published, NAME, num_encoder_blocks=(stages,))
    return config


def to_transformers(config: Config) -> dict[str, Any]:
    """The config.json of transformers for a configuration: what `from_transformers` reads."""
    same = (*_LISTS, *_RATES, "hidden_act", "decoder_hidden_size")
    values = {key: getattr(config, key) for key in same}
    return {
        "architectures": ["SegformerForSemanticSegmentation"],
        "model_type": "segformer",
        **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()},
        "num_channels": config.in_channels,
        "num_encoder_blocks": len(config.depths),
        "id2label": {str(i): f"class {i}" for i in range(config.num_classes)},
    }


_LARGE: dict[str, Any] = {"hidden_sizes": (64, 128, 320, 512)}
SIZES: dict[str, dict[str, Any]] = {
    "b0": {},
    "b1": _LARGE,
    "b2": _LARGE | {"depths": (3, 4, 6, 3), "decoder_hidden_size": 768},
    "b3": _LARGE | {"depths": (3, 4, 18, 3), "decoder_hidden_size": 768},
    "b4": _LARGE | {"depths": (3, 8, 27, 3), "decoder_hidden_size": 768},
    "b5": _LARGE | {"depths": (3, 6, 40, 3), "decoder_hidden_size": 768},
}
# Size, side of the pictures, parameters (counted).
_PUBLISHED = (
    ("b0", 512, 3_752_694),
    ("b1", 512, 13_715_798),
    ("b2", 512, 27_461_974),
    ("b3", 512, 47_337_814),
    ("b4", 512, 64_108_374),
    ("b5", 640, 84_708_694),
)


def _entry(size: str, side: int, parameters: int) -> Entry:
    name = f"segformer-{size}-finetuned-ade-{side}-{side}"
    return Entry(
        name=f"segformer-{size}",
        aliases=(name,),
        sources=(Hub(f"nvidia/{name}"),),
        config=SIZES[size],
        layout="transformers",
        license="NVIDIA Source Code License for SegFormer (non-commercial)",
        commercial=False,
        parameters=parameters,
        # transformers 5.23, defaults of SegformerImageProcessor; the side is part of the name
        preprocess={
            "size": (side, side),
            "resize": (side, side),
            "fit": "exact",
            "crop": False,
            "resample": "bilinear",
            "rounding": "transformers",
        },
        paper="https://arxiv.org/abs/2105.15203",
        note="150 classes of ADE20K; for research or evaluation only, as its repository says",
    )


@register(
    "segformer",
    config=Config,
    task="image-segmentation",
    layouts={
        "transformers": Layout(
            rename=TRANSFORMERS, config=from_transformers, publish=to_transformers
        )
    },
    model_types=("segformer",),
    head=("decode_head.classifier",),
    stem="encoder.patch_embeddings.0.proj.weight",
    entries=[_entry(*row) for row in _PUBLISHED],
)
def segformer(config: Config) -> SegFormer:
    """SegFormer for semantic segmentation."""
    return SegFormer(config)

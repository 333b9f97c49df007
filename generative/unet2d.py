"""UNet of DDPM. Ho et al. 2020, "Denoising Diffusion Probabilistic Models".

Weights: google/ddpm-cifar10-32, google/ddpm-cat-256 (Apache-2.0), ...; any repository in the layout
of diffusers whose unet is a `UNet2DModel` loads by its id. Deviation from the paper: none; class
labels and `scale_shift` are those of Dhariwal and Nichol 2021.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ..core import nn
from ..core.creation import asarray
from ..core.errors import ConfigError, DtypeError, IndexRangeError, ShapeError
from ..core.tensor import Tensor
from ..hub.configuration import (
    as_pair,
    as_tuple,
    expect,
    flags,
    natural,
    positive,
    real,
    refuse_unknown,
)
from ..hub.registry import Bundled, Entry, Hub, Layout, register
from .blocks import (
    ACTIVATIONS,
    DownBlock2D,
    MakeAttention,
    MidBlock2D,
    Resnet,
    UpBlock2D,
    picture_attention,
)
from .embeddings import TimestepEmbedding, Timesteps, batch_of_times

NAME = "UNet2D"
_DOWN = ("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D")
_UP = ("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D")


@dataclass(frozen=True)
class Config:
    """Field names as in diffusers' config.json; the defaults are those of ddpm-cifar10-32.

    Args:
        sample_size: rows and columns that it was trained for; others work where they can be halved
            often enough.
        block_out_channels: of each level, the finest first.
        down_block_types, up_block_types: of each level, on the way down and on the way up.
        layers_per_block: ResNet blocks of a level on the way down; one more on the way up.
        attention_head_dim: features of a head; None for one head of all.
        norm_num_groups, norm_eps: of the group norms.
        downsample_padding: 0 pads below and to the right only.
        downsample_type, upsample_type: "conv" or "resnet", of levels with attention.
        resnet_time_scale_shift: "default" or "scale_shift", see `blocks.Resnet`.
        mid_block: whether the coarsest level has blocks in the middle; with `add_attention`,
            attention between them, after a norm of `attn_norm_num_groups`.
        class_embed_type, num_class_embeds: None and a number for a table of classes; "timestep" for
            numbers embedded as times are; "identity" for vectors.
    """

    sample_size: tuple[int, int] = (32, 32)
    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: bool = False
    freq_shift: float = 1
    flip_sin_to_cos: bool = False
    time_embedding_dim: int | None = None
    block_out_channels: tuple[int, ...] = (128, 256, 256, 256)
    down_block_types: tuple[str, ...] = (
        "DownBlock2D",
        "AttnDownBlock2D",
        "DownBlock2D",
        "DownBlock2D",
    )
    up_block_types: tuple[str, ...] = ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    layers_per_block: int = 2
    mid_block: bool = True
    mid_block_scale_factor: float = 1.0
    downsample_padding: int = 0
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    dropout: float = 0.0
    act_fn: str = "silu"
    attention_head_dim: int | None = None
    norm_num_groups: int = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-6
    resnet_time_scale_shift: str = "default"
    add_attention: bool = True
    class_embed_type: str | None = None
    num_class_embeds: int | None = None

    def __post_init__(self) -> None:
        sizes = "sample_size in_channels out_channels block_out_channels layers_per_block"
        positive(NAME, **{key: getattr(self, key) for key in (*sizes.split(), "norm_num_groups")})
        natural(NAME, downsample_padding=self.downsample_padding)
        optional = "time_embedding_dim attention_head_dim attn_norm_num_groups num_class_embeds"
        for key in optional.split():
            if getattr(self, key) is not None:
                positive(NAME, **{key: getattr(self, key)})
        real(NAME, dropout=self.dropout, norm_eps=self.norm_eps, freq_shift=self.freq_shift)
        real(NAME, 1e-3, 1e3, mid_block_scale_factor=self.mid_block_scale_factor)
        switches = "center_input_sample flip_sin_to_cos mid_block add_attention"
        flags(NAME, **{key: getattr(self, key) for key in switches.split()})
        choices: dict[str, tuple[Any, ...]] = {
            "act_fn": tuple(ACTIVATIONS),
            "downsample_type": ("conv", "resnet"),
            "upsample_type": ("conv", "resnet"),
            "resnet_time_scale_shift": ("default", "scale_shift"),
            "class_embed_type": (None, "timestep", "identity"),
        }
        expect({key: getattr(self, key) for key in choices}, NAME, **choices)
        for key, known in (("down_block_types", _DOWN), ("up_block_types", _UP)):
            for kind in getattr(self, key):
                expect({key: kind}, NAME, **{key: known})
        levels = len(self.block_out_channels)
        if not len(self.down_block_types) == len(self.up_block_types) == levels:
            raise ConfigError(
                f"{NAME}: block_out_channels={self.block_out_channels} has {levels} levels, "
                f"down_block_types {len(self.down_block_types)} and up_block_types "
                f"{len(self.up_block_types)}: one for each level is wanted.",
                expected=levels,
            )
        if any(width % self.norm_num_groups for width in self.block_out_channels):
            raise ConfigError(
                f"{NAME}: block_out_channels={self.block_out_channels} must be multiples of "
                f"norm_num_groups={self.norm_num_groups}.",
                expected=self.norm_num_groups,
                got=self.block_out_channels,
            )


class UNet2DModel(nn.Module):
    """Predicts the noise of a noisy picture: down, through the middle, up with skips from the down.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H, W); H and W multiples of
        2 ** (levels - 1)
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        channels, first = config.block_out_channels, config.block_out_channels[0]
        width = config.time_embedding_dim or 4 * first
        self.conv_in = nn.Conv2d(config.in_channels, first, 3, padding=1)
        self.time_proj = Timesteps(first, config.flip_sin_to_cos, config.freq_shift)
        self.time_embedding = TimestepEmbedding(first, width)
        self.class_embedding: nn.Module | None = None
        if config.class_embed_type == "timestep":
            self.class_embedding = TimestepEmbedding(first, width)
        elif config.class_embed_type == "identity":
            self.class_embedding = nn.Identity()
        elif config.num_class_embeds is not None:
            self.class_embedding = nn.Embedding(config.num_class_embeds, width)
        common = Resnet(
            width,
            config.norm_num_groups,
            config.norm_eps,
            config.act_fn,
            config.dropout,
            config.resnet_time_scale_shift,
        )
        make = _attention(config, common, config.norm_num_groups)
        self.down_blocks = nn.ModuleList()
        for i, kind in enumerate(config.down_block_types):
            last = i == len(channels) - 1
            block = DownBlock2D(
                channels[max(i - 1, 0)],
                channels[i],
                config.layers_per_block,
                common,
                attention=make if kind == "AttnDownBlock2D" else None,
                downsample=None if last else _resizing(kind, config.downsample_type),
                padding=config.downsample_padding,
            )
            self.down_blocks.append(block)
        self.mid_block = _middle(config, common) if config.mid_block else None
        self.up_blocks = nn.ModuleList()
        upwards = channels[::-1]
        for i, kind in enumerate(config.up_block_types):
            last = i == len(channels) - 1
            up = UpBlock2D(
                upwards[max(i - 1, 0)],
                upwards[i],
                upwards[min(i + 1, len(channels) - 1)],
                config.layers_per_block + 1,
                common,
                attention=make if kind == "AttnUpBlock2D" else None,
                upsample=None if last else _resizing(kind, config.upsample_type),
            )
            self.up_blocks.append(up)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, first, eps=config.norm_eps)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(first, config.out_channels, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Any, class_labels: Any = None) -> Tensor:
        """What the network was trained to predict: the noise, as a rule.

        Args:
            timestep: how noisy the samples are: one number, or one for each.
            class_labels: (B,) whole numbers, for models of classes.

        Raises:
            ShapeError: another number of channels, or a size that cannot be halved often enough.
            ConfigError: class labels are missing, or the model has no classes.
            IndexRangeError: a class that it does not have.
        """
        config = self.config
        check_sample(NAME, sample, config.in_channels, 2 ** (len(config.block_out_channels) - 1))
        if config.center_input_sample:
            sample = 2 * sample - 1
        times = batch_of_times(NAME, timestep, sample)
        temb: Tensor = self.time_embedding(self.time_proj(times).astype(sample.dtype))
        if self.class_embedding is None:
            if class_labels is not None:
                raise ConfigError(f"{NAME}: class_labels are given and the model has no classes.")
        else:
            temb = temb + self._classes(class_labels, sample)
        x: Tensor = self.conv_in(sample)
        skips = [x]
        for block in self.down_blocks:
            x, outputs = block(x, temb)
            skips += outputs
        if self.mid_block is not None:
            x = self.mid_block(x, temb)
        for block in self.up_blocks:
            x = block(x, skips, temb)
        out: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        return out

    def _classes(self, labels: Any, sample: Tensor) -> Tensor:
        if labels is None:
            raise ConfigError(
                f"{NAME}: the model is conditioned on classes: give class_labels, of shape "
                f"({sample.shape[0]},)."
            )
        labels = labels if isinstance(labels, Tensor) else asarray(labels, device=sample.device)
        if labels.shape[:1] != sample.shape[:1]:
            raise ShapeError(
                f"{NAME}: {sample.shape[0]} samples and class_labels of shape "
                f"{tuple(labels.shape)}: one label for each is wanted.",
                expected=(sample.shape[0],),
                got=tuple(labels.shape),
            )
        if self.config.class_embed_type == "timestep":
            labels = self.time_proj(labels).astype(sample.dtype)
        elif self.config.class_embed_type is None:
            check_labels(NAME, labels, self.config.num_class_embeds or 0)
        assert self.class_embedding is not None
        out: Tensor = self.class_embedding(labels)
        return out


def check_sample(what: str, sample: Tensor, channels: int, multiple: int) -> None:
    """Raise unless these are samples (B, channels, H, W) of a size that can be halved.

    Raises:
        ShapeError: says which size would do.
    """
    shape = tuple(sample.shape)
    if sample.ndim != 4 or shape[1] != channels or 0 in shape:
        raise ShapeError(
            f"{what}: samples of shape (B, {channels}, H, W) are wanted, got {shape}.",
            expected=(None, channels, None, None),
            got=shape,
        )
    if shape[2] % multiple or shape[3] % multiple:
        near = tuple(max(round(n / multiple), 1) * multiple for n in shape[2:])
        raise ShapeError(
            f"{what}: {shape[2]} x {shape[3]} cannot be halved {multiple.bit_length() - 1} times: "
            f"rows and columns must be multiples of {multiple}.\nNearest: {near[0]} x {near[1]}",
            expected=near,
            got=shape[2:],
        )


def check_labels(what: str, labels: Tensor, classes: int) -> None:
    """Raise unless these are classes from 0 to below `classes`."""
    if labels.dtype.kind not in "iu":
        raise DtypeError(f"{what}: class labels are whole numbers, not {labels.dtype}")
    values = labels.array
    if type(values) is not np.ndarray:  # on another device: embedding says it there
        return
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < classes:
        bad = int(values.min()) if values.min() < 0 else int(values.max())
        raise IndexRangeError(
            f"{what}: class {bad} is outside its {classes} classes (0 to {classes - 1}).",
            got=bad,
            size=classes,
        )


def _resizing(kind: str, wanted: str) -> str:
    """How a level changes size: as its name says, or as configured where it has attention."""
    if kind.startswith("Resnet"):
        return "resnet"
    return wanted if kind.startswith("Attn") else "conv"


def _attention(config: Config, common: Resnet, groups: int | None) -> MakeAttention:
    def make(channels: int, layer: int) -> nn.Module:
        return picture_attention(channels, config.attention_head_dim, common, groups)

    return make


def _middle(config: Config, common: Resnet) -> MidBlock2D:
    common = replace(common, scale=config.mid_block_scale_factor)
    groups = config.attn_norm_num_groups
    if groups is None and config.resnet_time_scale_shift == "default":
        groups = config.norm_num_groups
    make: MakeAttention | None = (
        _attention(config, common, groups) if config.add_attention else None
    )
    return MidBlock2D(config.block_out_channels[-1], common, make)


# -- published layout --------------------------------------------------------------------------

# Files of 2022 name the parts of attention otherwise, as google/ddpm-* do.
OLD_ATTENTION: dict[str, str | None] = {
    f"{{path}}.attentions.{{}}.{old}.{{rest}}": f"{{path}}.attentions.{{}}.{new}.{{rest}}"
    for old, new in (
        ("query", "to_q"),
        ("key", "to_k"),
        ("value", "to_v"),
        ("proj_attn", "to_out.0"),
    )
}
_TUPLES = {"block_out_channels", "down_block_types", "up_block_types"}
_SAME = {f.name for f in fields(Config)} - {"sample_size", "mid_block"}
#: What diffusers writes into every config.json, and names of classes, which ours keep there.
DIFFUSERS_COMMON = {"_class_name", "_diffusers_version", "_name_or_path", "id2label", "label2id"}
# What diffusers takes where a file does not say, and ddpm-cifar10-32 has otherwise.
_DEFAULTS: dict[str, Any] = {
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ("DownBlock2D", *["AttnDownBlock2D"] * 3),
    "up_block_types": (*["AttnUpBlock2D"] * 3, "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "downsample_padding": 1,
    "attention_head_dim": 8,
    "norm_eps": 1e-5,
}


def from_diffusers(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of diffusers says."""
    other = {"sample_size", "mid_block_type", "time_embedding_type", "num_train_timesteps"}
    refuse_unknown(published, _SAME | other | DIFFUSERS_COMMON, NAME)
    expect(
        published,
        NAME,
        time_embedding_type=("positional",),
        mid_block_type=("UNetMidBlock2D", None),
    )
    given = _DEFAULTS | {key: published[key] for key in _SAME & set(published)}
    for key in _TUPLES:
        given[key] = as_tuple(NAME, key, given[key])
    size = published.get("sample_size")
    if size is not None:
        given["sample_size"] = as_pair(NAME, "sample_size", size)
    given["mid_block"] = published.get("mid_block_type", "UNetMidBlock2D") is not None
    return Config(**given)


def to_diffusers(config: Config) -> dict[str, Any]:
    """A config.json of diffusers for a Config: the reverse of `from_diffusers`."""
    height, width = config.sample_size
    published: dict[str, Any] = {"_class_name": "UNet2DModel"}
    published |= {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in ((key, getattr(config, key)) for key in sorted(_SAME))
    }
    published["sample_size"] = height if height == width else [height, width]
    published["mid_block_type"] = "UNetMidBlock2D" if config.mid_block else None
    published["time_embedding_type"] = "positional"
    return published


_FACES: dict[str, Any] = {
    "sample_size": (256, 256),
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "down_block_types": (*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4),
}

_FASHION: dict[str, Any] = {
    "sample_size": (28, 28),
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (32, 64, 96),
    "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "downsample_padding": 1,
    "num_class_embeds": 11,
}


def _entry(name: str, config: dict[str, Any], parameters: int) -> Entry:
    return Entry(
        name=name,
        sources=(Hub(f"google/{name}"),),
        config=config,
        layout="diffusers",
        license="Apache-2.0",
        commercial=True,
        parameters=parameters,
        paper="https://arxiv.org/abs/2006.11239",
    )


@register(
    "unet2d",
    config=Config,
    task="unconditional-image-generation",
    layouts={
        "diffusers": Layout(rename=OLD_ATTENTION, config=from_diffusers, publish=to_diffusers)
    },
    class_names=("UNet2DModel",),
    entries=[
        _entry("ddpm-cifar10-32", {}, 35_746_307),
        _entry("ddpm-cat-256", _FACES, 113_673_219),
        Entry(
            name="ddpm-fashion",
            sources=(Bundled("generative/assets/ddpm-fashion"),),
            config=_FASHION,
            layout="diffusers",
            license="Apache-2.0",
            commercial=True,
            parameters=1_806_529,
            paper="https://arxiv.org/abs/2006.11239",
            note="trained by this library on Fashion-MNIST with docs/examples/fashion.py",
        ),
    ],
)
def unet2d(config: Config) -> UNet2DModel:
    """UNet that predicts the noise of pictures."""
    return UNet2DModel(config)

"""DiT: a transformer that predicts the noise of latents, conditioned on a class.

Peebles and Xie 2022, "Scalable diffusion models with transformers".
Weights: facebook/DiT-XL-2-256 (CC-BY-NC-4.0); any folder that diffusers saved loads. Attributes
are named as diffusers names them; as there, every block has an embedding of time and class of its
own, which the paper's blocks share. Deviation from the paper: none other.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..core import nn
from ..core.creation import asarray
from ..core.errors import ConfigError, ShapeError
from ..core.nn import functional as F
from ..core.ops.manipulation import split
from ..core.ops.shape import expand_dims, permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import expect, flags, positive, real, refuse_unknown
from ..hub.registry import Layout, register
from .blocks import Attention, as_tokens
from .embeddings import TimestepEmbedding, Timesteps, batch_of_times
from .unet2d import DIFFUSERS_COMMON, check_labels, check_sample

NAME = "DiT"
_WAVES = 256  # of a time, before the first linear map
_EPS = 1e-6


@dataclass(frozen=True)
class Config:
    """Field names as in diffusers' config.json; the defaults are DiT-XL/2's for 256 pixels.

    Args:
        sample_size: rows and columns of the latents of the training; others are taken too.
        num_attention_heads, attention_head_dim: their product is the width.
        num_layers: blocks.
        patch_size: rows and columns of a patch of latents, which is a token.
        num_embeds_ada_norm: classes; one more number stands for none of them.
        out_channels: twice `in_channels` where variances are learned.
        norm_eps: of the norm before the MLP.
        interpolation_scale: positions are divided by it; None as `sample_size` says.
    """

    sample_size: int = 32
    in_channels: int = 4
    out_channels: int = 8
    num_attention_heads: int = 16
    attention_head_dim: int = 72
    num_layers: int = 28
    patch_size: int = 2
    num_embeds_ada_norm: int = 1000
    attention_bias: bool = True
    dropout: float = 0.0
    norm_eps: float = 1e-5
    interpolation_scale: float | None = None

    def __post_init__(self) -> None:
        sizes = "sample_size in_channels out_channels num_attention_heads attention_head_dim"
        sizes += " num_layers patch_size num_embeds_ada_norm"
        positive(NAME, **{key: getattr(self, key) for key in sizes.split()})
        real(NAME, dropout=self.dropout, norm_eps=self.norm_eps)
        if self.interpolation_scale is not None:
            real(NAME, 1e-3, 1e3, interpolation_scale=self.interpolation_scale)
        flags(NAME, attention_bias=self.attention_bias)
        if self.width % 4:
            raise ConfigError(
                f"{NAME}: {self.num_attention_heads} heads of {self.attention_head_dim} features: "
                "the width must be a multiple of 4, for positions in two directions.",
                got=self.width,
            )

    @property
    def width(self) -> int:
        """Features of a token."""
        return self.num_attention_heads * self.attention_head_dim


def positions(width: int, rows: int, columns: int, base: int, scale: float) -> Any:
    """Sines and cosines of places, those of the column before those of the row.

    Args:
        base: the grid is stretched as if it had so many rows and columns.

    Shape: (rows * columns, width)
    """
    frequencies = 10_000.0 ** -(np.arange(width // 4) / (width // 4))
    y = np.arange(rows) * (base / rows / scale)
    x = np.arange(columns) * (base / columns / scale)
    parts = []
    for places in np.meshgrid(x, y):
        angles = places.reshape(-1, 1) * frequencies
        parts += [np.sin(angles), np.cos(angles)]
    return np.concatenate(parts, axis=1).astype(np.float32)


class PatchEmbed(nn.Module):
    """Patches as tokens, with their places. Shape: (B, C, H, W) -> (B, H W / patch**2, D)."""

    def __init__(self, config: Config) -> None:
        patch = config.patch_size
        self.width, self.base = config.width, config.sample_size // patch
        self.scale = config.interpolation_scale or max(config.sample_size // 64, 1)
        self.proj = nn.Conv2d(config.in_channels, config.width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(x)
        table = positions(self.width, x.shape[2], x.shape[3], self.base, self.scale)
        return as_tokens(x) + asarray(table, device=x.device).astype(x.dtype)


class LabelEmbedding(nn.Module):
    """A vector for each class, and one for none of them."""

    def __init__(self, classes: int, width: int) -> None:
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, labels: Tensor) -> Tensor:
        out: Tensor = self.embedding_table(labels)
        return out


class TimeAndLabel(nn.Module):
    """The vector of a time plus that of a class. Shape: (B,) and (B,) -> (B, D)."""

    def __init__(self, classes: int, width: int) -> None:
        self.time_proj = Timesteps(_WAVES, True, 1)
        self.timestep_embedder = TimestepEmbedding(_WAVES, width)
        self.class_embedder = LabelEmbedding(classes, width)

    def forward(self, times: Tensor, labels: Tensor) -> Tensor:
        table = self.class_embedder.embedding_table.weight
        waves = self.time_proj(times).astype(table.dtype)
        out: Tensor = self.timestep_embedder(waves) + self.class_embedder(labels)
        return out


class AdaLayerNormZero(nn.Module):
    """A norm whose shift and scale, and gates of a block, follow from time and class."""

    def __init__(self, classes: int, width: int) -> None:
        self.emb = TimeAndLabel(classes, width)
        self.silu = nn.SiLU()
        self.linear = nn.Linear(width, 6 * width)
        self.norm = nn.LayerNorm(width, eps=_EPS, elementwise_affine=False)

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The tokens for the attention; its gate; shift, scale and gate of the MLP."""
        every = self.linear(self.silu(self.emb(times, labels)))
        shift, scale, *rest = split(expand_dims(every, axis=1), 6, axis=2)
        return self.norm(x) * (1 + scale) + shift, list(rest)


class Gelu(nn.Module):
    """A linear map, then GELU by its tanh approximation."""

    def __init__(self, width: int, hidden: int) -> None:
        self.proj = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class Mlp(nn.Module):
    """Shape: (B, T, D), kept."""

    def __init__(self, width: int, dropout: float) -> None:
        hidden = 4 * width
        self.net = nn.ModuleList(
            [Gelu(width, hidden), nn.Dropout(dropout), nn.Linear(hidden, width)]
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


class Block(nn.Module):
    """Attention and an MLP, each shifted, scaled and gated by time and class."""

    def __init__(self, config: Config) -> None:
        width = config.width
        self.norm1 = AdaLayerNormZero(config.num_embeds_ada_norm, width)
        self.attn1 = Attention(
            width,
            config.num_attention_heads,
            config.attention_head_dim,
            bias=config.attention_bias,
            dropout=config.dropout,
        )
        self.norm3 = nn.LayerNorm(width, eps=config.norm_eps, elementwise_affine=False)
        self.ff = Mlp(width, config.dropout)

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        normed, (gate, shift, scale, gate_mlp) = self.norm1(x, times, labels)
        x = x + gate * self.attn1(normed)
        out: Tensor = x + gate_mlp * self.ff(self.norm3(x) * (1 + scale) + shift)
        return out


class DiT(nn.Module):
    """Predicts the noise of latents of a class, and the variance of a step.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H, W); H and W multiples of `patch_size`
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        width = config.width
        self.pos_embed = PatchEmbed(config)
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm_out = nn.LayerNorm(width, eps=_EPS, elementwise_affine=False)
        self.proj_out_1 = nn.Linear(width, 2 * width)
        self.proj_out_2 = nn.Linear(width, config.patch_size**2 * config.out_channels)

    def forward(self, hidden_states: Tensor, timestep: Any, class_labels: Any) -> Tensor:
        """The noise, and behind it what the variance follows from.

        Args:
            timestep: how noisy the latents are: one number, or one for each.
            class_labels: (B,) whole numbers; `num_embeds_ada_norm` stands for no class.

        Raises:
            ShapeError: another number of channels or labels, or a size that is no whole patches.
            IndexRangeError: a class that it does not have.
        """
        config, patch = self.config, self.config.patch_size
        check_sample(NAME, hidden_states, config.in_channels, patch)
        times = batch_of_times(NAME, timestep, hidden_states)
        labels = asarray(class_labels, device=hidden_states.device)
        if tuple(labels.shape) != (hidden_states.shape[0],):
            raise ShapeError(
                f"{NAME}: {hidden_states.shape[0]} samples and class_labels of shape "
                f"{tuple(labels.shape)}: one label for each is wanted.",
                expected=(hidden_states.shape[0],),
                got=tuple(labels.shape),
            )
        check_labels(NAME, labels, config.num_embeds_ada_norm + 1)
        x: Tensor = self.pos_embed(hidden_states)
        for block in self.transformer_blocks:
            x = block(x, times, labels)
        condition = self.transformer_blocks[0].norm1.emb(times, labels)
        both = expand_dims(self.proj_out_1(F.silu(condition)), axis=1)
        shift, scale = split(both, 2, axis=2)
        x = self.proj_out_2(self.norm_out(x) * (1 + scale) + shift)
        b, _, height, width = hidden_states.shape
        rows, columns = height // patch, width // patch
        x = reshape(x, (b, rows, columns, patch, patch, config.out_channels))
        x = permute_dims(x, (0, 5, 1, 3, 2, 4))
        return reshape(x, (b, config.out_channels, height, width))


# -- published layout --------------------------------------------------------------------------

_READ = {f.name for f in fields(Config)}
# What this kind of transformer always has; missing keys are so as well.
_FIXED: dict[str, tuple[Any, ...]] = {
    "activation_fn": ("gelu-approximate",),
    "attention_type": ("default",),
    "caption_channels": (None,),
    "cross_attention_dim": (None,),
    "double_self_attention": (False,),
    "norm_elementwise_affine": (False,),
    "norm_type": ("ada_norm_zero",),
    "num_vector_embeds": (None,),
    "only_cross_attention": (False,),
    "use_additional_conditions": (None, False),
    "use_linear_projection": (False,),
}
_IGNORED = {"norm_num_groups", "upcast_attention"}


def from_diffusers(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of diffusers says."""
    refuse_unknown(published, _READ | set(_FIXED) | _IGNORED | DIFFUSERS_COMMON, NAME)
    expect(published, NAME, **_FIXED)
    given = {key: published[key] for key in _READ & set(published)}
    if given.get("out_channels", 0) is None:
        given["out_channels"] = given.get("in_channels", Config.in_channels)
    return Config(**given)


def to_diffusers(config: Config) -> dict[str, Any]:
    """A config.json of diffusers for a Config: the reverse of `from_diffusers`."""
    fixed = {key: values[0] for key, values in _FIXED.items()}
    own = {key: getattr(config, key) for key in sorted(_READ)}
    return {"_class_name": "DiTTransformer2DModel", **fixed, **own}


@register(
    "dit",
    config=Config,
    task="pipeline-part",
    layouts={
        "diffusers": Layout(
            rename={"pos_embed.pos_embed": None}, config=from_diffusers, publish=to_diffusers
        )
    },
    class_names=("Transformer2DModel", "DiTTransformer2DModel"),
)
def dit(config: Config) -> DiT:
    """Transformer over latents, conditioned on classes."""
    return DiT(config)

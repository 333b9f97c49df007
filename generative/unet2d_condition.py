"""UNet2DCondition: a UNet that predicts the noise of latents, conditioned on a text.

Rombach et al. 2022, "High-resolution image synthesis with latent diffusion models"; the further
conditions of SDXL are of Podell et al. 2023, the guidance as an input of Luo et al. 2023, "Latent
consistency models". Weights: the `unet` folder of Stable Diffusion 1, 2 and XL (OpenRAIL); any
folder that diffusers saved loads. Attributes are named as diffusers names them. Deviations from
the papers: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ..core import nn
from ..core.creation import asarray
from ..core.errors import ConfigError, ShapeError
from ..core.ops.shape import concat, reshape
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
from ..hub.registry import Layout, register
from .blocks import ACTIVATIONS, DownBlock2D, MakeAttention, MidBlock2D, Resnet, UpBlock2D
from .embeddings import TimestepEmbedding, Timesteps, batch_of_times
from .transformer_2d import Transformer2D
from .unet2d import DIFFUSERS_COMMON, check_sample

NAME = "UNet2DCondition"
_DOWN = ("CrossAttnDownBlock2D", "DownBlock2D")
_UP = ("CrossAttnUpBlock2D", "UpBlock2D")
_LEVELS = ("attention_head_dim", "transformer_layers_per_block", "layers_per_block")


@dataclass(frozen=True)
class Config:
    """Field names as in diffusers' config.json; the defaults are Stable Diffusion 1.5's.

    Args:
        sample_size: rows and columns of the latents of the training; others are taken too.
        freq_shift, flip_sin_to_cos: see `embeddings.Timesteps`.
        block_out_channels: of each level, the finest first; each but the last halves the latents.
        layers_per_block: ResNet blocks of each level on the way down; one more on the way up.
        cross_attention_dim: features of the text's tokens.
        attention_head_dim: the number of heads of each level. Published files call it so.
        transformer_layers_per_block: of each level with attention, and of the middle.
        only_cross_attention: both attentions of a block look at the text.
        use_linear_projection: since Stable Diffusion 2, see `transformer_2d.Transformer2D`.
        addition_embed_type: "text_time" for SDXL's conditions, whose vectors have
            `projection_class_embeddings_input_dim` features together and
            `addition_time_embed_dim` for each number.
        time_cond_proj_dim: features of the guidance, where it is an input.
    """

    sample_size: tuple[int, int] = (64, 64)
    in_channels: int = 4
    out_channels: int = 4
    center_input_sample: bool = False
    flip_sin_to_cos: bool = True
    freq_shift: float = 0
    down_block_types: tuple[str, ...] = (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D")
    up_block_types: tuple[str, ...] = ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3)
    only_cross_attention: bool = False
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: tuple[int, ...] = (2, 2, 2, 2)
    downsample_padding: int = 1
    mid_block: bool = True
    mid_block_scale_factor: float = 1.0
    dropout: float = 0.0
    act_fn: str = "silu"
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int = 768
    transformer_layers_per_block: tuple[int, ...] = (1, 1, 1, 1)
    attention_head_dim: tuple[int, ...] = (8, 8, 8, 8)
    use_linear_projection: bool = False
    addition_embed_type: str | None = None
    addition_time_embed_dim: int | None = None
    projection_class_embeddings_input_dim: int | None = None
    resnet_time_scale_shift: str = "default"
    time_embedding_dim: int | None = None
    time_cond_proj_dim: int | None = None

    def __post_init__(self) -> None:
        sizes = "sample_size in_channels out_channels block_out_channels norm_num_groups"
        sizes += " cross_attention_dim"
        positive(NAME, **{key: getattr(self, key) for key in (*sizes.split(), *_LEVELS)})
        optional = "addition_time_embed_dim projection_class_embeddings_input_dim "
        optional += "time_embedding_dim time_cond_proj_dim"
        for key in optional.split():
            if getattr(self, key) is not None:
                positive(NAME, **{key: getattr(self, key)})
        natural(NAME, downsample_padding=self.downsample_padding)
        real(NAME, dropout=self.dropout, norm_eps=self.norm_eps, freq_shift=self.freq_shift)
        real(NAME, 1e-3, 1e3, mid_block_scale_factor=self.mid_block_scale_factor)
        switches = "center_input_sample flip_sin_to_cos only_cross_attention mid_block "
        switches += "use_linear_projection"
        flags(NAME, **{key: getattr(self, key) for key in switches.split()})
        choices: dict[str, tuple[Any, ...]] = {
            "act_fn": tuple(ACTIVATIONS),
            "resnet_time_scale_shift": ("default", "scale_shift"),
            "addition_embed_type": (None, "text_time"),
        }
        expect({key: getattr(self, key) for key in choices}, NAME, **choices)
        self._check_levels()

    def _check_levels(self) -> None:
        for key, known in (("down_block_types", _DOWN), ("up_block_types", _UP)):
            for kind in getattr(self, key):
                expect({key: kind}, NAME, **{key: known})
        levels = len(self.block_out_channels)
        for key in ("down_block_types", "up_block_types", *_LEVELS):
            if len(getattr(self, key)) != levels:
                raise ConfigError(
                    f"{NAME}: {key}={getattr(self, key)} must have one value for each of the "
                    f"{levels} levels of block_out_channels.",
                    expected=levels,
                    got=getattr(self, key),
                )
        for width, heads in zip(self.block_out_channels, self.attention_head_dim, strict=True):
            if width % self.norm_num_groups or width % heads:
                raise ConfigError(
                    f"{NAME}: {width} channels must be a multiple of norm_num_groups="
                    f"{self.norm_num_groups} and of the {heads} heads (attention_head_dim).",
                    got=width,
                )
        needed = (self.addition_time_embed_dim, self.projection_class_embeddings_input_dim)
        if self.addition_embed_type is not None and None in needed:
            raise ConfigError(
                f"{NAME}: addition_embed_type={self.addition_embed_type!r} needs "
                "addition_time_embed_dim and projection_class_embeddings_input_dim."
            )


class UNet2DConditionModel(nn.Module):
    """Predicts the noise of noisy latents, given the tokens of a text.

    Shape:
        (B, in_channels, H, W), (B, S, cross_attention_dim) -> (B, out_channels, H, W)
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        channels, first = config.block_out_channels, config.block_out_channels[0]
        width = config.time_embedding_dim or 4 * first
        self.conv_in = nn.Conv2d(config.in_channels, first, 3, padding=1)
        self.time_proj = Timesteps(first, config.flip_sin_to_cos, config.freq_shift)
        self.time_embedding = TimestepEmbedding(first, width, config.time_cond_proj_dim)
        if config.addition_embed_type is not None:
            size = config.addition_time_embed_dim or 0
            self.add_time_proj = Timesteps(size, config.flip_sin_to_cos, config.freq_shift)
            features = config.projection_class_embeddings_input_dim or 0
            self.add_embedding = TimestepEmbedding(features, width)
        common = Resnet(
            width,
            config.norm_num_groups,
            config.norm_eps,
            config.act_fn,
            config.dropout,
            config.resnet_time_scale_shift,
        )
        self.down_blocks = nn.ModuleList(
            DownBlock2D(
                channels[max(i - 1, 0)],
                channels[i],
                config.layers_per_block[i],
                common,
                attention=_attention(config, i) if kind.startswith("Cross") else None,
                downsample="conv" if i < len(channels) - 1 else None,
                padding=config.downsample_padding,
            )
            for i, kind in enumerate(config.down_block_types)
        )
        self.mid_block = None
        if config.mid_block:
            scaled = replace(common, scale=config.mid_block_scale_factor)
            middle = _attention(config, len(channels) - 1, only_cross=False)
            self.mid_block = MidBlock2D(channels[-1], scaled, middle)
        self.up_blocks = nn.ModuleList()
        for i, kind in enumerate(config.up_block_types):
            level = len(channels) - 1 - i
            up = UpBlock2D(
                channels[min(level + 1, len(channels) - 1)],
                channels[level],
                channels[max(level - 1, 0)],
                config.layers_per_block[level] + 1,
                common,
                attention=_attention(config, level) if kind.startswith("Cross") else None,
                upsample="conv" if level else None,
            )
            self.up_blocks.append(up)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, first, eps=config.norm_eps)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(first, config.out_channels, 3, padding=1)

    def forward(
        self,
        sample: Tensor,
        timestep: Any,
        encoder_hidden_states: Tensor,
        *,
        timestep_cond: Tensor | None = None,
        added_cond_kwargs: Mapping[str, Tensor] | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """What the network was trained to predict: the noise, as a rule.

        Args:
            timestep: how noisy the samples are: one number, or one for each.
            encoder_hidden_states: the tokens of a text for each sample.
            timestep_cond: (B, time_cond_proj_dim) of the guidance, for distilled models.
            added_cond_kwargs: for SDXL, `text_embeds` (B, D) and `time_ids` (B, N).
            encoder_attention_mask: (B, S), True for tokens to look at.

        Raises:
            ShapeError: another number of channels or features, or texts for other samples.
            ConfigError: conditions are missing, or the model has no use for them.
        """
        config = self.config
        check_sample(NAME, sample, config.in_channels, 1)
        self._check_text(sample, encoder_hidden_states)
        if config.center_input_sample:
            sample = 2 * sample - 1
        times = batch_of_times(NAME, timestep, sample)
        if timestep_cond is not None and config.time_cond_proj_dim is None:
            raise ConfigError(f"{NAME}: timestep_cond is given and the model has no use for it.")
        temb = self.time_embedding(self.time_proj(times).astype(sample.dtype), timestep_cond)
        temb = self._with_additions(temb, added_cond_kwargs)
        mask = None
        if encoder_attention_mask is not None:
            mask = encoder_attention_mask.astype(bool)[:, None, None]
        context = encoder_hidden_states
        x: Tensor = self.conv_in(sample)
        skips = [x]
        for block in self.down_blocks:
            x, outputs = block(x, temb, context, mask)
            skips += outputs
        if self.mid_block is not None:
            x = self.mid_block(x, temb, context, mask)
        whole = 2 ** (len(config.block_out_channels) - 1)
        odd = sample.shape[2] % whole or sample.shape[3] % whole
        for i, block in enumerate(self.up_blocks):
            size = None
            if odd and i < len(self.up_blocks) - 1:  # as large as the skips of the next level
                rows, columns = skips[-len(block.resnets) - 1].shape[2:]
                size = rows, columns
            x = block(x, skips, temb, context, mask, size)
        out: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        return out

    def _with_additions(self, temb: Tensor, added: Mapping[str, Tensor] | None) -> Tensor:
        """The vector of the time with SDXL's conditions, where the model has them."""
        if self.config.addition_embed_type is None:
            if added is not None:
                raise ConfigError(f"{NAME}: added_cond_kwargs are given and the model has none.")
            return temb
        wanted = ("text_embeds", "time_ids")
        if added is None or any(key not in added for key in wanted):
            raise ConfigError(f"{NAME}: the model needs added_cond_kwargs with {wanted}.")
        text, numbers = (asarray(added[key], device=temb.device) for key in wanted)
        waves = self.add_time_proj(reshape(numbers, (-1,))).astype(temb.dtype)
        together = concat([text, reshape(waves, (text.shape[0], -1))], axis=1)
        features = self.config.projection_class_embeddings_input_dim
        if together.shape != (temb.shape[0], features):
            raise ShapeError(
                f"{NAME}: text_embeds {tuple(text.shape)} and time_ids {tuple(numbers.shape)} make "
                f"{tuple(together.shape)}; {(temb.shape[0], features)} is wanted.",
                expected=(temb.shape[0], features),
                got=tuple(together.shape),
            )
        out: Tensor = temb + self.add_embedding(together)
        return out

    def _check_text(self, sample: Tensor, text: Tensor) -> None:
        wanted = (sample.shape[0], None, self.config.cross_attention_dim)
        shape = tuple(text.shape)
        if len(shape) != 3 or shape[0] != wanted[0] or shape[2] != wanted[2] or not shape[1]:
            raise ShapeError(
                f"{NAME}: encoder_hidden_states {shape}: the tokens of a text for each sample are "
                f"wanted, of shape ({wanted[0]}, S, {wanted[2]}).\n"
                "Is the text encoder of another model?",
                expected=wanted,
                got=shape,
            )


def _attention(config: Config, level: int, only_cross: bool | None = None) -> MakeAttention:
    """Makes the transformers of a level."""
    heads = config.attention_head_dim[level]

    def make(channels: int, layer: int) -> nn.Module:
        return Transformer2D(
            channels,
            heads,
            channels // heads,
            layers=config.transformer_layers_per_block[level],
            context=config.cross_attention_dim,
            groups=config.norm_num_groups,
            linear=config.use_linear_projection,
            only_cross=config.only_cross_attention if only_cross is None else only_cross,
            dropout=config.dropout,
        )

    return make


# -- published layout --------------------------------------------------------------------------

_TUPLES = ("block_out_channels", "down_block_types", "up_block_types")
_READ = {f.name for f in fields(Config)} - {"sample_size", "mid_block", *_LEVELS}
# What other models of the class have. Those of the first line change nothing here.
_IGNORED = {"upcast_attention", "addition_embed_type_num_heads"}
_FIXED: dict[str, tuple[Any, ...]] = {
    "attention_type": ("default",),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", None),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "resnet_out_scale_factor": (1.0,),
    "resnet_skip_time_act": (False,),
    "reverse_transformer_layers_per_block": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}
# Where a file does not say; Config has Stable Diffusion 1.5's.
_DEFAULTS: dict[str, Any] = {"cross_attention_dim": 1280}
_OF_LEVELS = {"attention_head_dim": 8, "transformer_layers_per_block": 1, "layers_per_block": 2}


def from_diffusers(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of diffusers says."""
    other = {"sample_size", *_LEVELS, *_IGNORED}
    refuse_unknown(published, _READ | other | set(_FIXED) | DIFFUSERS_COMMON, NAME)
    expect(published, NAME, **_FIXED)
    given = _DEFAULTS | {key: published[key] for key in _READ & set(published)}
    for key in _TUPLES:
        given[key] = as_tuple(NAME, key, given.get(key, getattr(Config, key)))
    levels = len(given["block_out_channels"])
    for key, default in _OF_LEVELS.items():
        value = published.get(key, default)
        given[key] = as_tuple(NAME, key, [value] * levels if isinstance(value, int) else value)
    size = published.get("sample_size")
    if size is not None:
        given["sample_size"] = as_pair(NAME, "sample_size", size)
    given["mid_block"] = published.get("mid_block_type", "UNetMidBlock2DCrossAttn") is not None
    return Config(**given)


def to_diffusers(config: Config) -> dict[str, Any]:
    """A config.json of diffusers for a Config: the reverse of `from_diffusers`."""
    published: dict[str, Any] = {"_class_name": "UNet2DConditionModel"}
    for key in (*sorted(_READ), *_LEVELS):
        value = getattr(config, key)
        published[key] = list(value) if isinstance(value, tuple) else value
    for key in _LEVELS:
        if len(set(published[key])) == 1:
            published[key] = published[key][0]
    height, width = config.sample_size
    published["sample_size"] = height if height == width else [height, width]
    published["mid_block_type"] = "UNetMidBlock2DCrossAttn" if config.mid_block else None
    return published


@register(
    "unet2d-condition",
    config=Config,
    task="pipeline-part",
    layouts={"diffusers": Layout(config=from_diffusers, publish=to_diffusers)},
    class_names=("UNet2DConditionModel",),
)
def unet2d_condition(config: Config) -> UNet2DConditionModel:
    """UNet over latents, conditioned on texts."""
    return UNet2DConditionModel(config)

"""AutoencoderKL: pictures to latents an eighth as high and wide, and back.

Rombach et al. 2022, "High-resolution image synthesis with latent diffusion models".
Weights: stabilityai/sd-vae-ft-mse (MIT), and the `vae` folder of Stable Diffusion; any folder that
diffusers saved loads. Attributes are named as diffusers names them. Deviations from the paper:
none; only the encoder and decoder are here, not the critic they were trained with.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from ..core import nn
from ..core.errors import ConfigError
from ..core.ops.elementwise import clip, exp
from ..core.ops.manipulation import split
from ..core.tensor import Tensor
from ..hub.configuration import (
    as_pair,
    as_tuple,
    expect,
    flags,
    positive,
    real,
    refuse_unknown,
)
from ..hub.registry import Entry, Hub, Layout, register
from .blocks import (
    ACTIVATIONS,
    DownBlock2D,
    MidBlock2D,
    Resnet,
    ResnetBlock2D,
    Upsample2D,
    picture_attention,
)
from .schedulers.predictions import Generators, drawn
from .unet2d import DIFFUSERS_COMMON, OLD_ATTENTION, check_sample

NAME = "AutoencoderKL"
_EPS = 1e-6


@dataclass(frozen=True)
class Config:
    """Field names as in diffusers' config.json; the defaults are Stable Diffusion 1.5's.

    Args:
        sample_size: rows and columns of the pictures of the training; others are taken too.
        block_out_channels: of each level, the finest first; each but the last halves the picture.
        layers_per_block: ResNet blocks of a level of the encoder; the decoder has one more.
        scaling_factor, shift_factor: latents z are diffused as (z - shift) * scale.
        latents_mean, latents_std: of each channel, where there is no shift for all of them.
        use_quant_conv, use_post_quant_conv: a convolution of one pixel on the latents' side.
        mid_block_add_attention: between the ResNet blocks of the coarsest level.
    """

    sample_size: tuple[int, int] = (512, 512)
    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    act_fn: str = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    latents_mean: tuple[float, ...] | None = None
    latents_std: tuple[float, ...] | None = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def __post_init__(self) -> None:
        sizes = "sample_size in_channels out_channels block_out_channels layers_per_block"
        sizes += " latent_channels norm_num_groups"
        positive(NAME, **{key: getattr(self, key) for key in sizes.split()})
        real(NAME, 1e-6, 1e6, scaling_factor=self.scaling_factor)
        if self.shift_factor is not None:
            real(NAME, -1e6, 1e6, shift_factor=self.shift_factor)
        switches = "use_quant_conv use_post_quant_conv mid_block_add_attention"
        flags(NAME, **{key: getattr(self, key) for key in switches.split()})
        expect({"act_fn": self.act_fn}, NAME, act_fn=tuple(ACTIVATIONS))
        if any(width % self.norm_num_groups for width in self.block_out_channels):
            raise ConfigError(
                f"{NAME}: block_out_channels={self.block_out_channels} must be multiples of "
                f"norm_num_groups={self.norm_num_groups}.",
                expected=self.norm_num_groups,
                got=self.block_out_channels,
            )

    @property
    def factor(self) -> int:
        """How many pixels, in each direction, one place of the latents stands for."""
        return int(2 ** (len(self.block_out_channels) - 1))


class UpDecoderBlock2D(nn.Module):
    """ResNet blocks, then twice the size. Shape: (B, in, H, W) -> (B, out, 2 H, 2 W)."""

    def __init__(
        self, in_channels: int, out_channels: int, layers: int, common: Resnet, upsample: bool
    ) -> None:
        widths = [in_channels, *[out_channels] * (layers - 1)]
        self.resnets = nn.ModuleList(ResnetBlock2D(w, out_channels, common) for w in widths)
        self.upsamplers = nn.ModuleList([Upsample2D(out_channels)]) if upsample else None

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.upsamplers is None else self.upsamplers[0](x)


def _common(config: Config) -> Resnet:
    return Resnet(None, config.norm_num_groups, _EPS, config.act_fn)


def _middle(config: Config) -> MidBlock2D:
    common = _common(config)

    def attention(channels: int, layer: int) -> nn.Module:
        return picture_attention(channels, None, common, config.norm_num_groups)

    make = attention if config.mid_block_add_attention else None
    return MidBlock2D(config.block_out_channels[-1], common, make)


class Encoder(nn.Module):
    """Shape: (B, in_channels, H, W) -> (B, 2 latent_channels, H / factor, W / factor)."""

    def __init__(self, config: Config) -> None:
        channels, common = config.block_out_channels, _common(config)
        self.conv_in = nn.Conv2d(config.in_channels, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownBlock2D(
                channels[max(i - 1, 0)],
                width,
                config.layers_per_block,
                common,
                downsample="conv" if i < len(channels) - 1 else None,
                padding=0,
            )
            for i, width in enumerate(channels)
        )
        self.mid_block = _middle(config)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, channels[-1], eps=_EPS)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(channels[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x, _ = block(x)
        out: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(self.mid_block(x))))
        return out


class Decoder(nn.Module):
    """Shape: (B, latent_channels, H, W) -> (B, out_channels, factor H, factor W)."""

    def __init__(self, config: Config) -> None:
        channels, common = config.block_out_channels[::-1], _common(config)
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], 3, padding=1)
        self.mid_block = _middle(config)
        self.up_blocks = nn.ModuleList(
            UpDecoderBlock2D(
                channels[max(i - 1, 0)],
                width,
                config.layers_per_block + 1,
                common,
                upsample=i < len(channels) - 1,
            )
            for i, width in enumerate(channels)
        )
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, channels[-1], eps=_EPS)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(channels[-1], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        out: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(x)))
        return out


class Latents(NamedTuple):
    """A normal distribution of latents: what the encoder says of a picture."""

    mean: Tensor
    deviation: Tensor

    def sample(self, generator: Generators = None, noise: Tensor | None = None) -> Tensor:
        """Latents drawn from it."""
        return self.mean + self.deviation * drawn(self.mean, generator, noise)


class AutoencoderKL(nn.Module):
    """An encoder of pictures to distributions of latents, and a decoder.

    Shape:
        pictures (B, in_channels, H, W) from -1 to 1, H and W multiples of `config.factor`
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        width = config.latent_channels
        self.quant_conv = nn.Conv2d(2 * width, 2 * width, 1) if config.use_quant_conv else None
        self.post_quant_conv = nn.Conv2d(width, width, 1) if config.use_post_quant_conv else None

    def encode(self, sample: Tensor) -> Latents:
        """The distribution of a picture's latents, not scaled yet.

        Raises:
            ShapeError: another number of channels, or a size that cannot be halved often enough.
        """
        check_sample(NAME, sample, self.config.in_channels, self.config.factor)
        moments: Tensor = self.encoder(sample)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean, log_variance = split(moments, 2, axis=1)
        return Latents(mean, exp(0.5 * clip(log_variance, -30.0, 20.0)))

    def decode(self, latents: Tensor) -> Tensor:
        """The picture of latents that are not scaled any more.

        Raises:
            ShapeError: another number of channels.
        """
        check_sample(f"{NAME}.decode", latents, self.config.latent_channels, 1)
        if self.post_quant_conv is not None:
            latents = self.post_quant_conv(latents)
        out: Tensor = self.decoder(latents)
        return out

    def forward(self, sample: Tensor) -> Tensor:
        """The picture of the most likely latents of a picture."""
        return self.decode(self.encode(sample).mean)


# -- published layout --------------------------------------------------------------------------

_READ = {f.name for f in fields(Config)}
# Where half precision is too coarse; what the pictures were in training with half the memory.
_IGNORED = {"force_upcast", "sample_size", "use_tiling", "use_slicing"}
_BLOCKS = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}
_DEFAULTS: dict[str, Any] = {"block_out_channels": (64,), "layers_per_block": 1}


def from_diffusers(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of diffusers says."""
    refuse_unknown(published, _READ | _IGNORED | set(_BLOCKS) | DIFFUSERS_COMMON, NAME)
    given = _DEFAULTS | {key: published[key] for key in _READ & set(published)}
    for key in ("block_out_channels", "latents_mean", "latents_std"):
        if given.get(key) is not None:
            given[key] = as_tuple(NAME, key, given[key])
    given["sample_size"] = as_pair(NAME, "sample_size", published.get("sample_size", 32))
    for key, kind in _BLOCKS.items():
        kinds = as_tuple(NAME, key, published.get(key, (kind,)))
        if len(kinds) != len(given["block_out_channels"]) or set(kinds) != {kind}:
            raise ConfigError(
                f"{NAME}: {key}={kinds}: {len(given['block_out_channels'])} times {kind!r} is "
                "what is supported.",
                key=key,
                got=kinds,
            )
    return Config(**given)


def to_diffusers(config: Config) -> dict[str, Any]:
    """A config.json of diffusers for a Config: the reverse of `from_diffusers`."""
    published: dict[str, Any] = {"_class_name": NAME}
    for key in sorted(_READ):
        value = getattr(config, key)
        published[key] = list(value) if isinstance(value, tuple) else value
    height, width = config.sample_size
    published["sample_size"] = height if height == width else [height, width]
    for key, kind in _BLOCKS.items():
        published[key] = [kind] * len(config.block_out_channels)
    return published


@register(
    "autoencoder-kl",
    config=Config,
    task="image-autoencoding",
    layouts={
        "diffusers": Layout(rename=OLD_ATTENTION, config=from_diffusers, publish=to_diffusers)
    },
    class_names=(NAME,),
    entries=[
        Entry(
            name="sd-vae-ft-mse",
            sources=(Hub("stabilityai/sd-vae-ft-mse"),),
            layout="diffusers",
            license="MIT",
            commercial=True,
            parameters=83_653_863,  # counted
            paper="https://arxiv.org/abs/2112.10752",
        )
    ],
)
def autoencoder_kl(config: Config) -> AutoencoderKL:
    """Autoencoder of latent diffusion."""
    return AutoencoderKL(config)

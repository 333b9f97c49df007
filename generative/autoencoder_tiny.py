"""AutoencoderTiny (TAESD): a small stand-in for the autoencoder of a diffusion model, for previews.

Distilled from Stable Diffusion's autoencoder by Ollin Boer Bohan; there is no paper.
Weights: madebyollin/taesd (MIT); any folder that diffusers saved loads. Attributes are named as
diffusers names them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..core import nn
from ..core.errors import ConfigError
from ..core.ops.elementwise import clip
from ..core.ops.rounding import round
from ..core.ops.trigonometry import tanh
from ..core.tensor import Tensor
from ..hub.configuration import as_tuple, expect, natural, positive, real, refuse_unknown
from ..hub.registry import Entry, Hub, Layout, register
from .blocks import ACTIVATIONS
from .unet2d import DIFFUSERS_COMMON, check_sample

NAME = "AutoencoderTiny"


@dataclass(frozen=True)
class Config:
    """Field names as in diffusers' config.json; the defaults are taesd's.

    Args:
        encoder_block_out_channels: of each level of the encoder; each but the first halves the
            picture.
        decoder_block_out_channels: of each level of the decoder; each but the last enlarges it.
        num_encoder_blocks, num_decoder_blocks: blocks of each level.
        upsampling_scaling_factor: by how much a level enlarges.
        latent_magnitude, latent_shift: latents from -magnitude to magnitude become numbers from
            0 to 1, see `AutoencoderTiny.scaled`.
        scaling_factor: latents are diffused times this.
    """

    in_channels: int = 3
    out_channels: int = 3
    encoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    decoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    act_fn: str = "relu"
    latent_channels: int = 4
    upsampling_scaling_factor: int = 2
    num_encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    num_decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    latent_magnitude: float = 3.0
    latent_shift: float = 0.5
    scaling_factor: float = 1.0
    shift_factor: float = 0.0

    def __post_init__(self) -> None:
        sizes = "in_channels out_channels latent_channels upsampling_scaling_factor"
        sizes += " encoder_block_out_channels decoder_block_out_channels"
        positive(NAME, **{key: getattr(self, key) for key in sizes.split()})
        for part in ("encoder", "decoder"):
            blocks = getattr(self, f"num_{part}_blocks")
            widths = getattr(self, f"{part}_block_out_channels")
            for count in blocks:
                natural(NAME, **{f"num_{part}_blocks": count})
            if len(blocks) != len(widths):
                raise ConfigError(
                    f"{NAME}: num_{part}_blocks={blocks} and {part}_block_out_channels={widths} "
                    "need one number for each level.",
                    expected=len(widths),
                    got=len(blocks),
                )
        real(NAME, 1e-6, 1e6, scaling_factor=self.scaling_factor)
        real(NAME, 1e-6, 1e6, latent_magnitude=self.latent_magnitude)
        real(NAME, -1e6, 1e6, latent_shift=self.latent_shift, shift_factor=self.shift_factor)
        expect({"act_fn": self.act_fn}, NAME, act_fn=tuple(ACTIVATIONS))

    @property
    def factor(self) -> int:
        """How many pixels, in each direction, one place of the latents stands for."""
        return int(2 ** (len(self.encoder_block_out_channels) - 1))


class Block(nn.Module):
    """Three convolutions, added to what comes in. Shape: (B, in, H, W) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, act_fn: str) -> None:
        act = ACTIVATIONS[act_fn]
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            act(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            act(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.skip = (
            nn.Conv2d(in_channels, out_channels, 1, bias=False)
            if in_channels != out_channels
            else nn.Identity()
        )
        self.fuse = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fuse(self.conv(x) + self.skip(x))
        return out


class Encoder(nn.Module):
    """Shape: (B, in_channels, H, W) -> (B, latent_channels, H / factor, W / factor)."""

    def __init__(self, config: Config) -> None:
        layers: list[nn.Module] = []
        widths = config.encoder_block_out_channels
        for i, (width, count) in enumerate(zip(widths, config.num_encoder_blocks, strict=True)):
            if i == 0:
                layers.append(nn.Conv2d(config.in_channels, width, 3, padding=1))
            else:
                layers.append(nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False))
            layers += [Block(width, width, config.act_fn) for _ in range(count)]
        layers.append(nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers((x + 1) / 2)
        return out


class Decoder(nn.Module):
    """Shape: (B, latent_channels, H, W) -> (B, out_channels, factor H, factor W)."""

    def __init__(self, config: Config) -> None:
        widths = config.decoder_block_out_channels
        act = ACTIVATIONS[config.act_fn]
        layers: list[nn.Module] = [nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)]
        layers.append(act())
        for i, (width, count) in enumerate(zip(widths, config.num_decoder_blocks, strict=True)):
            layers += [Block(width, width, config.act_fn) for _ in range(count)]
            last = i == len(widths) - 1
            if not last:
                layers.append(nn.Upsample(scale_factor=float(config.upsampling_scaling_factor)))
            out = config.out_channels if last else width
            layers.append(nn.Conv2d(width, out, 3, padding=1, bias=last))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(tanh(x / 3) * 3) * 2 - 1
        return out


class AutoencoderTiny(nn.Module):
    """An encoder and a decoder of few convolutions.

    Shape:
        pictures (B, in_channels, H, W) from -1 to 1, H and W multiples of `config.factor`
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, sample: Tensor) -> Tensor:
        """The latents of pictures."""
        check_sample(NAME, sample, self.config.in_channels, self.config.factor)
        out: Tensor = self.encoder(sample)
        return out

    def decode(self, latents: Tensor) -> Tensor:
        """The pictures of latents."""
        check_sample(f"{NAME}.decode", latents, self.config.latent_channels, 1)
        out: Tensor = self.decoder(latents)
        return out

    def scaled(self, latents: Tensor) -> Tensor:
        """Latents as numbers from 0 to 1, to be stored as pictures."""
        config = self.config
        return clip(latents / (2 * config.latent_magnitude) + config.latent_shift, 0.0, 1.0)

    def unscaled(self, numbers: Tensor) -> Tensor:
        """The reverse of `scaled`."""
        return (numbers - self.config.latent_shift) * (2 * self.config.latent_magnitude)

    def forward(self, sample: Tensor) -> Tensor:
        """Pictures, through latents as coarse as eight bits, as they are stored."""
        numbers = round(self.scaled(self.encode(sample)) * 255.0) / 255.0
        return self.decode(self.unscaled(numbers))


# -- published layout --------------------------------------------------------------------------

_READ = {f.name for f in fields(Config)}
_TUPLES = sorted(key for key in _READ if key.endswith(("_out_channels", "_blocks")))


def from_diffusers(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of diffusers says."""
    other = {"block_out_channels", "force_upcast", "upsample_fn"}
    refuse_unknown(published, _READ | other | DIFFUSERS_COMMON, NAME)
    expect(published, NAME, upsample_fn=("nearest",))
    given = {key: published[key] for key in _READ & set(published)}
    for key in _TUPLES:
        if key in given:
            given[key] = as_tuple(NAME, key, given[key])
    return Config(**given)


def to_diffusers(config: Config) -> dict[str, Any]:
    """A config.json of diffusers for a Config: the reverse of `from_diffusers`."""
    values = {key: getattr(config, key) for key in sorted(_READ)}
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
    return {"_class_name": NAME, **plain}


@register(
    "autoencoder-tiny",
    config=Config,
    task="image-autoencoding",
    layouts={"diffusers": Layout(config=from_diffusers, publish=to_diffusers)},
    class_names=(NAME,),
    entries=[
        Entry(
            name="taesd",
            sources=(Hub("madebyollin/taesd"),),
            layout="diffusers",
            license="MIT",
            commercial=True,
            parameters=2_445_063,  # counted
        )
    ],
)
def autoencoder_tiny(config: Config) -> AutoencoderTiny:
    """Small autoencoder for previews."""
    return AutoencoderTiny(config)

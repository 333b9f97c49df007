"""RealNVP. Dinh et al. 2017, "Density estimation using Real NVP".

A stack of invertible steps between pictures and normal numbers: each leaves half of the numbers as
they are and scales and shifts the other half by what a network says of the first. The likelihood of
a picture is exact. Deviations: no batch norm between steps, and one split into scales per halving.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core import nn
from ..core.nn import functional as F
from ..core.nn.parameter import Buffer, Parameter
from ..core.ops.elementwise import exp, log, square
from ..core.ops.manipulation import split
from ..core.ops.reduction import mean, sum
from ..core.ops.shape import reshape
from ..core.ops.trigonometry import tanh
from ..core.random import numpy_rng
from ..core.tensor import Tensor
from ..hub.configuration import positive
from ..hub.registry import register
from .small import GeneratorConfig, check_latents, check_pictures, checked_classes

_MARGIN = 0.05  # keeps the logits of black and white pixels finite, as in the paper


@dataclass(frozen=True)
class Config(GeneratorConfig):
    """See `small.GeneratorConfig`; `latent_size` is what the picture has: every number of it.

    Args:
        couplings: invertible steps of each kind, of each of the two scales.
    """

    width: int = 32
    couplings: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("realnvp", couplings=self.couplings)
        object.__setattr__(self, "latent_size", self.channels * self.size**2)


class Between(nn.Module):
    """What a coupling learns: scales and shifts of one half from the other, and the class."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.label = nn.Embedding(classes, width) if classes else None
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(1, width)
        self.last = nn.Conv2d(width, 2 * channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)  # the coupling begins as the identity
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)
        self.scale = Parameter(np.ones((1, channels, 1, 1), np.float32))

    def forward(self, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        y = self.first(x)
        if self.label is not None:
            known = self.label(labels)
            y = y + reshape(known, (*known.shape, 1, 1))
        y = y + self.middle(F.relu(self.norm(y)))
        logs, shifts = split(self.last(F.relu(y)), 2, axis=1)
        return self.scale * tanh(logs), shifts


class Coupling(nn.Module):
    """Scale and shift the numbers that a mask hides, as those that it shows say.

    Args:
        mask: 1 where numbers stay, (1, C, H, W).
    """

    def __init__(self, mask: np.ndarray, width: int, classes: int) -> None:
        self.mask = Buffer(mask.astype(np.float32))
        self.between = Between(mask.shape[1], width, classes)

    def forward(self, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Shape: (B, C, H, W) -> the same, and the log-determinant (B,)"""
        logs, shifts = self.between(x * self.mask, labels)
        free = 1 - self.mask
        logs = logs * free
        return x * exp(logs) + shifts * free, sum(logs, axis=(1, 2, 3))

    def inverse(self, y: Tensor, labels: Tensor | None) -> Tensor:
        """What `forward` made this of."""
        logs, shifts = self.between(y * self.mask, labels)
        free = 1 - self.mask
        out: Tensor = (y - shifts * free) * exp(-logs * free)
        return out


class RealNVP(nn.Module):
    """Couplings with chessboard masks, then with masks of channels at half the rows.

    Called with latents it makes pictures, as every generator here.

    Shape:
        latents (B, channels * size * size) <-> pictures (B, channels, size, size)
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        size, channels, classes = config.size, config.channels, config.num_classes
        board = (np.indices((size, size)).sum(axis=0) % 2)[None, None]
        fine = np.broadcast_to(board, (1, channels, size, size))
        half = (1, 4 * channels, size // 2, size // 2)
        coarse = np.broadcast_to((np.arange(4 * channels) % 2)[None, :, None, None], half)
        self.fine, self.coarse = nn.ModuleList(), nn.ModuleList()
        for i in range(2 * config.couplings):
            self.fine.append(Coupling(np.abs(fine - i % 2), config.width, classes))
            self.coarse.append(Coupling(np.abs(coarse - i % 2), 2 * config.width, classes))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Pictures from -1 to 1."""
        check_latents("RealNVP", latents, self.config.latent_size)
        return 2 * _pixels(self.to_logits(latents, labels)) - 1

    def to_logits(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """The logits of pixels that latents stand for: `to_latents` backwards."""
        c = self.config
        labels = checked_classes("RealNVP", labels, latents.shape[0], c.num_classes)
        y = reshape(latents, (latents.shape[0], 4 * c.channels, c.size // 2, c.size // 2))
        for coupling in list(self.coarse)[::-1]:
            y = coupling.inverse(y, labels)
        y = F.pixel_shuffle(y, 2)
        for coupling in list(self.fine)[::-1]:
            y = coupling.inverse(y, labels)
        return y

    def to_latents(self, logits: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latents of logits of pixels, and the log-determinant of the Jacobian.

        Shape:
            (B, channels, size, size) -> (B, channels * size * size), (B,)
        """
        check_pictures("RealNVP", logits, self.config.channels, self.config.size)
        labels = checked_classes("RealNVP", labels, logits.shape[0], self.config.num_classes)
        total: Tensor | None = None
        x = logits
        for i, coupling in enumerate([*self.fine, *self.coarse]):
            if i == len(self.fine):
                x = F.pixel_unshuffle(x, 2)
            x, determinant = coupling(x, labels)
            total = determinant if total is None else total + determinant
        assert total is not None
        return reshape(x, (x.shape[0], -1)), total

    def log_likelihood(
        self, x: Tensor, labels: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """The logarithm of the density of pictures of 256 levels, (B,), in nats.

        Args:
            noise: where within its level each pixel lies, from 0 to 1; drawn unless given.
        """
        check_pictures("RealNVP", x, self.config.channels, self.config.size)
        if noise is None:
            drawn = numpy_rng().random(x.shape, dtype=np.float32)
            noise = Tensor(drawn).to(x.device)
        levels = (x + 1) * 127.5  # 0 to 255
        share = (levels + noise) / 256
        kept = _MARGIN + (1 - 2 * _MARGIN) * share
        logits = log(kept) - log(1 - kept)
        latents, determinant = self.to_latents(logits, labels)
        normal = -0.5 * sum(square(latents) + math.log(2 * math.pi), axis=1)
        # The change of variables from levels to logits.
        inner = math.log((1 - 2 * _MARGIN) / 256) - log(kept) - log(1 - kept)
        return normal + determinant + sum(inner, axis=(1, 2, 3))

    def loss(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Mapping[str, float]]:
        """The negative log-likelihood in bits for each number of a picture."""
        bits = -mean(self.log_likelihood(x, labels)) / (math.prod(x.shape[1:]) * math.log(2))
        return bits, {"bits": float(bits.item())}


def _pixels(logits: Tensor) -> Tensor:
    """Shares of white, from 0 to 1, of logits."""
    return (F.sigmoid(logits) - _MARGIN) / (1 - 2 * _MARGIN)


@register("realnvp", config=Config, task="unconditional-image-generation")
def realnvp(config: Config) -> RealNVP:
    """Normalising flow between pictures and normal numbers."""
    return RealNVP(config)

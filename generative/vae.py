"""Variational autoencoder. Kingma and Welling 2014, "Auto-encoding variational Bayes".

The deviation of the pixels is learned too, as one number (Rybkin et al. 2021), which balances the
two parts of the loss without a weight to choose. With `num_classes` encoder and decoder are told
the label (Sohn et al. 2015).

Weights: vae-fashion, trained by this library on Fashion-MNIST with docs/examples/fashion.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core import nn
from ..core.nn import functional as F
from ..core.nn.parameter import Parameter
from ..core.ops.elementwise import clip, exp, square
from ..core.ops.manipulation import split
from ..core.ops.reduction import mean, sum
from ..core.ops.shape import concat, reshape
from ..core.ops.trigonometry import tanh
from ..core.random import numpy_rng
from ..core.tensor import Tensor
from ..hub.registry import Bundled, Entry, register
from .small import GeneratorConfig, check_latents, check_pictures, checked_classes

_LEAST_LOG_VARIANCE, _MOST_LOG_VARIANCE = -12.0, 8.0


@dataclass(frozen=True)
class Config(GeneratorConfig):
    """See `small.GeneratorConfig`."""

    latent_size: int = 32
    width: int = 32


class VAE(nn.Module):
    """Encoder to a normal distribution of latents, decoder from latents to pixels.

    Called with latents it decodes, as every generator here.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        widths, classes = config.widths[::-1], config.num_classes
        self.down = nn.ModuleList()
        channels = config.channels
        for width in widths:
            self.down.append(nn.Conv2d(channels, width, 4, 2, 1))
            channels = width
        features = channels * config.coarse**2
        self.to_latents = nn.Linear(features + classes, 2 * config.latent_size)
        self.from_latents = nn.Linear(config.latent_size + classes, features)
        self.up = nn.ModuleList()
        for width in [*widths[-2::-1], widths[0]]:
            self.up.append(nn.ConvTranspose2d(channels, width, 4, 2, 1))
            channels = width
        self.last = nn.Conv2d(channels, config.channels, 3, padding=1)
        self.log_sigma = Parameter(np.zeros((), np.float32))  # of a pixel

    def encode(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of each latent.

        Shape:
            (B, channels, size, size) -> twice (B, latent_size)
        """
        check_pictures("VAE", x, self.config.channels, self.config.size)
        for conv in self.down:
            x = F.relu(conv(x))
        flat = self._labelled(reshape(x, (x.shape[0], -1)), labels)
        means, logs = split(self.to_latents(flat), 2, axis=1)
        return means, clip(logs, _LEAST_LOG_VARIANCE, _MOST_LOG_VARIANCE)

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Pictures from -1 to 1.

        Shape:
            (B, latent_size) -> (B, channels, size, size)
        """
        check_latents("VAE", latents, self.config.latent_size)
        coarse = self.config.coarse
        x = F.relu(self.from_latents(self._labelled(latents, labels)))
        x = reshape(x, (latents.shape[0], -1, coarse, coarse))
        for conv in self.up:
            x = F.relu(conv(x))
        out: Tensor = tanh(self.last(x))
        return out

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.decode(latents, labels)

    def _labelled(self, x: Tensor, labels: Tensor | None) -> Tensor:
        labels = checked_classes("VAE", labels, x.shape[0], self.config.num_classes)
        if labels is None:
            return x
        known = F.one_hot(labels, self.config.num_classes).astype(x.dtype)
        return concat([x, known], axis=1)

    def loss(
        self, x: Tensor, labels: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Mapping[str, float]]:
        """The negative evidence lower bound in nats for a pixel, and its two parts.

        Args:
            noise: what the latents are drawn with, (B, latent_size); drawn unless given.
        """
        means, logs = self.encode(x, labels)
        if noise is None:
            drawn = numpy_rng().standard_normal(means.shape, dtype=np.float32)
            noise = Tensor(drawn).to(means.device)
        made = self.decode(means + exp(0.5 * logs) * noise, labels)
        pixels = math.prod(x.shape[1:])
        error = mean(square(made - x))
        variance = exp(2 * self.log_sigma)
        nats = 0.5 * error / variance + self.log_sigma + 0.5 * math.log(2 * math.pi)
        # KL of N(mean, exp(log)) from N(0, 1), summed over the latents.
        divergence = mean(0.5 * sum(square(means) + exp(logs) - 1 - logs, axis=1))
        loss = nats + divergence / pixels
        return loss, {"error": float(error.item()), "kl": float(divergence.item())}


@register(
    "vae",
    config=Config,
    task="unconditional-image-generation",
    entries=[
        Entry(
            name="vae-fashion",
            sources=(Bundled("generative/assets/vae-fashion"),),
            config={"size": 28, "channels": 1, "latent_size": 16, "width": 32},
            license="Apache-2.0",
            commercial=True,
            parameters=236_578,
            note="trained by this library on Fashion-MNIST with docs/examples/fashion.py",
        ),
    ],
)
def vae(config: Config) -> VAE:
    """Variational autoencoder."""
    return VAE(config)

"""WGAN-GP. Gulrajani et al. 2017, "Improved training of Wasserstein GANs".

The critic estimates how far made pictures are from real ones; its slope is held near 1 between
them by a penalty on the norm of its gradient, which is itself differentiated: a gradient of second
order. The networks are residual ones, with layer norms in the critic, since a penalty for each
picture and norms over a batch do not go together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import nn
from ..core.autograd import grad
from ..core.nn import functional as F
from ..core.ops.elementwise import sqrt, square
from ..core.ops.reduction import mean, sum
from ..core.ops.shape import concat, reshape
from ..core.ops.trigonometry import tanh
from ..core.random import numpy_rng
from ..core.tensor import Tensor
from ..hub.registry import register
from .small import (
    GeneratorConfig,
    Players,
    PlayerSettings,
    check_latents,
    check_pictures,
    checked_classes,
)

PENALTY = 10.0


@dataclass(frozen=True)
class Config(GeneratorConfig):
    """See `small.GeneratorConfig`."""


class Up(nn.Module):
    """Twice the rows and columns, two convolutions, and a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.interpolate(F.relu(self.norm1(x)), scale_factor=2.0))
        y = self.conv2(F.relu(self.norm2(y)))
        out: Tensor = y + self.shortcut(F.interpolate(x, scale_factor=2.0))
        return out


class Down(nn.Module):
    """Two convolutions and a shortcut, then half the rows and columns.

    Args:
        normed: whether each convolution sees normalised features.
        wrap: what each convolution is passed through when it is made.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        normed: bool,
        wrap: Callable[[nn.Module], nn.Module] = lambda layer: layer,
    ) -> None:
        self.norm1 = nn.GroupNorm(1, inputs) if normed else nn.Identity()
        self.norm2 = nn.GroupNorm(1, outputs) if normed else nn.Identity()
        self.conv1 = wrap(nn.Conv2d(inputs, outputs, 3, padding=1))
        self.conv2 = wrap(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = wrap(nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.leaky_relu(self.norm1(x), 0.2))
        y = self.conv2(F.leaky_relu(self.norm2(y), 0.2))
        return F.avg_pool2d(y, 2) + F.avg_pool2d(self.shortcut(x), 2)


class Generator(nn.Module):
    """Residual blocks, each of which doubles rows and columns; tanh at the end.

    Shape:
        latents (B, latent_size), labels (B,) -> (B, channels, size, size) from -1 to 1
    """

    def __init__(self, config: GeneratorConfig) -> None:
        self.config = config
        classes, widths = config.num_classes, config.widths
        self.embedding = nn.Embedding(classes, config.latent_size) if classes else None
        inputs = config.latent_size * (2 if classes else 1)
        self.first = nn.Linear(inputs, widths[0] * config.coarse**2)
        self.blocks = nn.ModuleList(
            Up(a, b) for a, b in zip([widths[0], *widths[:-1]], widths, strict=True)
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.last = nn.Conv2d(widths[-1], config.channels, 3, padding=1)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        config = self.config
        check_latents("WGAN-GP", latents, config.latent_size)
        labels = checked_classes("WGAN-GP", labels, latents.shape[0], config.num_classes)
        x = latents
        if self.embedding is not None:
            x = concat([x, self.embedding(labels)], axis=1)
        x = reshape(self.first(x), (x.shape[0], config.widths[0], config.coarse, config.coarse))
        for block in self.blocks:
            x = block(x)
        out: Tensor = tanh(self.last(F.relu(self.norm(x))))
        return out


class Critic(nn.Module):
    """Residual blocks, each of which halves rows and columns; the mean over all places; one score.

    Shape:
        pictures (B, channels, size, size), labels (B,) -> (B,)
    """

    normed = True

    def __init__(self, config: GeneratorConfig) -> None:
        self.config = config
        widths, classes = config.widths[::-1], config.num_classes
        self.first = self.wrapped(nn.Conv2d(config.channels, widths[0], 3, padding=1))
        self.blocks = nn.ModuleList(
            Down(a, b, normed=self.normed, wrap=self.wrapped)
            for a, b in zip([widths[0], *widths[:-1]], widths, strict=True)
        )
        self.score = self.wrapped(nn.Linear(widths[-1], 1))
        self.embedding = self.wrapped(nn.Embedding(classes, widths[-1])) if classes else None

    @staticmethod
    def wrapped(layer: nn.Module) -> nn.Module:
        """A layer as the critic has it."""
        return layer

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        config = self.config
        check_pictures("the critic", x, config.channels, config.size)
        labels = checked_classes("the critic", labels, x.shape[0], config.num_classes)
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        x = sum(F.leaky_relu(x, 0.2), axis=(2, 3)) / config.coarse**2
        scores: Tensor = reshape(self.score(x), (-1,))
        if self.embedding is not None:
            scores = scores + sum(self.embedding(labels) * x, axis=1)
        return scores


def gradient_penalty(
    critic: Callable[..., Tensor],
    real: Tensor,
    fake: Tensor,
    labels: Tensor | None = None,
    shares: Tensor | None = None,
) -> Tensor:
    """The mean of (|gradient| - 1)^2 at places between real and made pictures.

    Its own gradient, with respect to the critic's parameters, is one of second order.

    Args:
        shares: how much of each real picture is in the mix, (B,); drawn unless given.
    """
    count = real.shape[0]
    if shares is None:
        shares = Tensor(numpy_rng().random(count, dtype=np.float32)).to(real.device)
    share = reshape(shares, (count, *[1] * (real.ndim - 1)))
    between = (share * real + (1 - share) * fake).detach().requires_grad_(True)
    given = (between,) if labels is None else (between, labels)
    (slope,) = grad(sum(critic(*given)), [between], create_graph=True)
    assert slope is not None
    flat = reshape(slope, (count, -1))
    norms = sqrt(sum(square(flat), axis=1) + 1e-12)
    return mean(square(norms - 1))


class WGANGP(Players):
    """The two players: the critic learns five times as often as the generator.

    `WGANGP(Config(size=28, channels=1)).update(pictures)` is one step of the critic.
    """

    settings = PlayerSettings(lr=1e-4, critic_lr=1e-4, betas=(0.0, 0.9), critic_steps=5)
    generator_class = Generator
    critic_class = Critic

    def critic_loss(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        """How much higher made pictures are scored than real ones, and the penalty."""
        distance = mean(self.critic(fake, labels)) - mean(self.critic(real, labels))
        return distance + PENALTY * gradient_penalty(self.critic, real, fake, labels)

    def generator_loss(self, fake: Tensor, labels: Tensor | None) -> Tensor:
        """Minus the score of what was made."""
        return -mean(self.critic(fake, labels))


@register("wgan-gp", config=Config, task="unconditional-image-generation")
def wgan_gp(config: Any) -> Generator:
    """Generator of WGAN-GP, with labels if it has classes."""
    return Generator(config)

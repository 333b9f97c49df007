"""DCGAN. Radford et al. 2016, "Unsupervised representation learning with deep convolutional GANs".

With `num_classes` it is a conditional GAN (Mirza and Osindero 2014): the label is embedded beside
the latents, and the critic's score gains the product of its features with the label's (the
projection of Miyato and Koyama 2018, in place of a label map).

Weights: dcgan-fashion, trained by this library on Fashion-MNIST with docs/examples/fashion.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.reduction import mean, sum
from ..core.ops.shape import concat, reshape
from ..core.ops.trigonometry import tanh
from ..core.tensor import Tensor
from ..hub.registry import Bundled, Entry, register
from .small import (
    GeneratorConfig,
    Players,
    check_latents,
    check_pictures,
    checked_classes,
    normal_weights,
)


@dataclass(frozen=True)
class Config(GeneratorConfig):
    """See `small.GeneratorConfig`."""


class Generator(nn.Module):
    """Transposed convolutions, each of which doubles rows and columns; tanh at the end.

    Shape:
        latents (B, latent_size), labels (B,) -> (B, channels, size, size) from -1 to 1
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        classes, widths = config.num_classes, config.widths
        self.embedding = nn.Embedding(classes, config.latent_size) if classes else None
        inputs = config.latent_size * (2 if classes else 1)
        self.first = nn.ConvTranspose2d(inputs, 2 * widths[0], config.coarse, bias=False)
        self.first_norm = nn.BatchNorm2d(2 * widths[0])
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        channels = 2 * widths[0]
        for width in widths:
            self.convs.append(nn.ConvTranspose2d(channels, width, 4, 2, 1, bias=False))
            self.norms.append(nn.BatchNorm2d(width))
            channels = width
        self.last = nn.Conv2d(channels, config.channels, 3, padding=1)
        normal_weights(self)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        config = self.config
        check_latents("DCGAN", latents, config.latent_size)
        labels = checked_classes("DCGAN", labels, latents.shape[0], config.num_classes)
        x = latents
        if self.embedding is not None:
            x = concat([x, self.embedding(labels)], axis=1)
        x = F.relu(self.first_norm(self.first(reshape(x, (*x.shape, 1, 1)))))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        out: Tensor = tanh(self.last(x))
        return out


class Critic(nn.Module):
    """Convolutions, each of which halves rows and columns; one score.

    Shape:
        pictures (B, channels, size, size), labels (B,) -> (B,)
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        widths = config.widths[::-1]
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        channels = config.channels
        for i, width in enumerate(widths):
            self.convs.append(nn.Conv2d(channels, width, 4, 2, 1, bias=i == 0))
            self.norms.append(nn.BatchNorm2d(width) if i else nn.Identity())
            channels = width
        features = channels * config.coarse**2
        self.score = nn.Linear(features, 1)
        classes = config.num_classes
        self.embedding = nn.Embedding(classes, features) if classes else None
        normal_weights(self)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        config = self.config
        check_pictures("DCGAN's critic", x, config.channels, config.size)
        labels = checked_classes("DCGAN's critic", labels, x.shape[0], config.num_classes)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), 0.2)
        x = reshape(x, (x.shape[0], -1))
        scores: Tensor = reshape(self.score(x), (-1,))
        if self.embedding is not None:
            scores = scores + sum(self.embedding(labels) * x, axis=1)
        return scores


class DCGAN(Players):
    """The two players: the critic tells real from made, the generator wants to be taken for real.

    `DCGAN(Config(size=28, channels=1)).update(pictures)` is one step.
    """

    generator_class = Generator
    critic_class = Critic

    def critic_loss(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        """-log D(real) - log(1 - D(fake)), D being the sigmoid of a score."""
        real_loss = mean(F.softplus(-self.critic(real, labels)))
        return real_loss + mean(F.softplus(self.critic(fake, labels)))

    def generator_loss(self, fake: Tensor, labels: Tensor | None) -> Tensor:
        """-log D(fake): the loss "that does not saturate" of Goodfellow et al. 2014."""
        return mean(F.softplus(-self.critic(fake, labels)))


@register(
    "dcgan",
    config=Config,
    task="unconditional-image-generation",
    entries=[
        Entry(
            name="dcgan-fashion",
            sources=(Bundled("generative/assets/dcgan-fashion"),),
            config={"size": 28, "channels": 1, "latent_size": 64, "width": 32, "num_classes": 10},
            license="Apache-2.0",
            commercial=True,
            parameters=968_033,
            note="trained by this library on Fashion-MNIST with docs/examples/fashion.py",
        ),
    ],
)
def dcgan(config: Config) -> Generator:
    """Generator of DCGAN, with labels if it has classes."""
    return Generator(config)

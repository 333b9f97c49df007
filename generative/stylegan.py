"""A compact StyleGAN2. Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN".

Latents pass through a mapping network; each convolution's weights are scaled by the style of that
picture and normalised again ("demodulation"); noise is added to each map; every resolution adds its
own RGB to the picture. Deviations: one convolution for a resolution, nearest-neighbour scaling
without a blur, no path-length regularisation; R1 is applied every 16 steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import nn
from ..core.autograd import grad
from ..core.nn import functional as F
from ..core.nn.parameter import Parameter
from ..core.ops.elementwise import sqrt, square
from ..core.ops.reduction import mean, sum
from ..core.ops.shape import broadcast_to, concat, reshape
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

R1_WEIGHT, R1_EVERY = 1.0, 16
_GROUP = 4  # pictures whose deviation the critic is told


@dataclass(frozen=True)
class Config(GeneratorConfig):
    """See `small.GeneratorConfig`.

    Args:
        mapping_layers: of the network that turns latents into styles.
    """

    mapping_layers: int = 4


class EqualLinear(nn.Module):
    """Linear, its weights drawn from N(0, 1) and scaled when used, so that all learn alike fast.

    Args:
        rate: its learning rate as a part of the others'.
    """

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, rate: float = 1.0) -> None:
        rng = numpy_rng()
        self.weight = Parameter(rng.standard_normal((outputs, inputs), dtype=np.float32) / rate)
        self.bias = Parameter(np.full(outputs, bias, np.float32))
        self.scale, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualConv(nn.Module):
    """Convolution that keeps the size, scaled as `EqualLinear` is."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        shape = (outputs, inputs, kernel, kernel)
        self.weight = Parameter(numpy_rng().standard_normal(shape, dtype=np.float32))
        self.bias = Parameter(np.zeros(outputs, np.float32))
        self.scale, self.padding = 1 / math.sqrt(inputs * kernel**2), kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)
        return out


class StyledConv(nn.Module):
    """Convolution whose input channels are scaled by the style of each picture.

    Scaling maps before and after is the same as scaling weights for each picture, and needs one
    convolution for the batch.

    Args:
        demodulate: bring every output channel back to variance one.
    """

    def __init__(
        self, inputs: int, outputs: int, style: int, kernel: int = 3, demodulate: bool = True
    ) -> None:
        shape = (outputs, inputs, kernel, kernel)
        self.weight = Parameter(numpy_rng().standard_normal(shape, dtype=np.float32))
        self.bias = Parameter(np.zeros(outputs, np.float32))
        self.to_style = EqualLinear(style, inputs, bias=1.0)
        self.noise_strength = Parameter(np.zeros((), np.float32)) if demodulate else None
        self.scale, self.padding = 1 / math.sqrt(inputs * kernel**2), kernel // 2
        self.demodulate = demodulate

    def forward(self, x: Tensor, style: Tensor, noise: Tensor | None = None) -> Tensor:
        """Shape: (B, inputs, H, W), (B, style) -> (B, outputs, H, W); noise (B, 1, H, W)"""
        weight, scales = self.weight * self.scale, self.to_style(style)
        y = F.conv2d(x * reshape(scales, (*scales.shape, 1, 1)), weight, padding=self.padding)
        if self.demodulate:
            # The variance that each output channel gets from unit inputs, for each picture.
            power = square(scales) @ sum(square(weight), axis=(2, 3)).T
            factor = 1 / sqrt(power + 1e-8)
            y = y * reshape(factor, (*factor.shape, 1, 1))
        if noise is not None and self.noise_strength is not None:
            y = y + self.noise_strength * noise
        return y + reshape(self.bias, (1, -1, 1, 1))


class Generator(nn.Module):
    """Mapping network, a learned constant, a styled convolution for each resolution.

    Shape:
        latents (B, latent_size), labels (B,) -> (B, channels, size, size)
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        size, widths, classes = config.latent_size, config.widths, config.num_classes
        self.embedding = nn.Embedding(classes, size) if classes else None
        inputs = [size * (2 if classes else 1), *[size] * (config.mapping_layers - 1)]
        self.mapping = nn.ModuleList(EqualLinear(n, size, rate=0.01) for n in inputs)
        shape = (1, widths[0], config.coarse, config.coarse)
        self.constant = Parameter(numpy_rng().standard_normal(shape, dtype=np.float32))
        channels = [widths[0], *widths]
        pairs = list(zip([widths[0], *channels[:-1]], channels, strict=True))
        self.convs = nn.ModuleList(StyledConv(a, b, size) for a, b in pairs)
        self.to_rgb = nn.ModuleList(
            StyledConv(b, config.channels, size, kernel=1, demodulate=False) for b in channels
        )

    def styles(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """What each picture's convolutions are scaled by. Shape: (B, latent_size), kept"""
        check_latents("StyleGAN", latents, self.config.latent_size)
        labels = checked_classes("StyleGAN", labels, latents.shape[0], self.config.num_classes)
        x = _unit(latents)
        if self.embedding is not None:
            x = concat([x, _unit(self.embedding(labels))], axis=1)
        for layer in self.mapping:
            x = _active(layer(x))
        return x

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        styles = self.styles(latents, labels)
        count = latents.shape[0]
        x: Tensor = broadcast_to(self.constant, (count, *self.constant.shape[1:]))
        picture: Tensor | None = None
        for i, (conv, to_rgb) in enumerate(zip(self.convs, self.to_rgb, strict=True)):
            if i:
                x = F.interpolate(x, scale_factor=2.0)
            noise = None
            if self.training:  # without noise a latent is always the same picture
                values = numpy_rng().standard_normal((count, 1, *x.shape[2:]), dtype=np.float32)
                noise = Tensor(values).to(x.device)
            x = _active(conv(x, styles, noise))
            added = to_rgb(x, styles)
            if picture is None:
                picture = added
            else:
                picture = F.interpolate(picture, scale_factor=2.0) + added
        assert picture is not None
        return picture


class Critic(nn.Module):
    """Residual blocks that halve the size; the deviation within small groups; one score.

    Shape:
        pictures (B, channels, size, size), labels (B,) -> (B,)
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        widths = config.widths[::-1]
        self.first = EqualConv(config.channels, widths[0], 1)
        pairs = list(zip(widths, [*widths[1:], widths[-1]], strict=True))
        self.convs = nn.ModuleList(EqualConv(a, b) for a, b in pairs)
        self.shortcuts = nn.ModuleList(EqualConv(a, b, 1) for a, b in pairs)
        self.last = EqualConv(widths[-1] + 1, widths[-1])
        features = widths[-1] * config.coarse**2
        self.hidden = EqualLinear(features, widths[-1])
        self.score = EqualLinear(widths[-1], config.num_classes or 1)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        config = self.config
        check_pictures("StyleGAN's critic", x, config.channels, config.size)
        labels = checked_classes("StyleGAN's critic", labels, x.shape[0], config.num_classes)
        x = _active(self.first(x))
        for conv, shortcut in zip(self.convs, self.shortcuts, strict=True):
            y = F.avg_pool2d(_active(conv(x)), 2)
            x = (y + F.avg_pool2d(shortcut(x), 2)) / math.sqrt(2)
        x = _active(self.last(concat([x, _group_deviation(x)], axis=1)))
        x = _active(self.hidden(reshape(x, (x.shape[0], -1))))
        scores: Tensor = self.score(x)
        if labels is None:
            return reshape(scores, (-1,))
        return sum(scores * F.one_hot(labels, config.num_classes).astype(x.dtype), axis=1)


class StyleGAN(Players):
    """The two players: DCGAN's losses, and R1 every 16 steps.

    R1 (Mescheder et al. 2018) is a penalty on the critic's slope at real pictures.
    """

    settings = PlayerSettings(lr=1e-3, critic_lr=1e-3, betas=(0.0, 0.99))
    generator_class = Generator
    critic_class = Critic

    def critic_loss(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        """-log D(real) - log(1 - D(fake)), and R1 now and then, so much the heavier."""
        loss = mean(F.softplus(-self.critic(real, labels)))
        loss = loss + mean(F.softplus(self.critic(fake, labels)))
        if self.step % R1_EVERY == 0:
            loss = loss + 0.5 * R1_WEIGHT * R1_EVERY * slope_at(self.critic, real, labels)
        return loss

    def generator_loss(self, fake: Tensor, labels: Tensor | None) -> Tensor:
        """-log D(fake)."""
        return mean(F.softplus(-self.critic(fake, labels)))


def slope_at(critic: Any, real: Tensor, labels: Tensor | None = None) -> Tensor:
    """The mean squared norm of the critic's gradient at pictures: R1."""
    place = real.detach().requires_grad_(True)
    (slope,) = grad(sum(critic(place, labels)), [place], create_graph=True)
    assert slope is not None
    return sum(square(slope)) / real.shape[0]


def _unit(x: Tensor) -> Tensor:
    """Vectors of mean square one."""
    return x / sqrt(mean(square(x), axis=1, keepdims=True) + 1e-8)


def _active(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the variance."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def _group_deviation(x: Tensor) -> Tensor:
    """How much pictures differ within groups of four, as one more map.

    Shape:
        (B, C, H, W) -> (B, 1, H, W)
    """
    count, channels, height, width = x.shape
    group = next(n for n in range(min(_GROUP, count), 0, -1) if count % n == 0)
    parts = reshape(x, (group, count // group, channels, height, width))
    centred = parts - mean(parts, axis=0, keepdims=True)
    deviation = sqrt(mean(square(centred), axis=0) + 1e-8)
    means = mean(deviation, axis=(1, 2, 3))  # (B / group,)
    spread = broadcast_to(
        reshape(means, (1, -1, 1, 1, 1)), (group, count // group, 1, height, width)
    )
    return reshape(spread, (count, 1, height, width))


@register("stylegan", config=Config, task="unconditional-image-generation")
def stylegan(config: Config) -> Generator:
    """Generator of a compact StyleGAN2, with labels if it has classes."""
    return Generator(config)

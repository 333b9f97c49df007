"""SNGAN. Miyato et al. 2018, "Spectral normalization for generative adversarial networks".

Every layer of the critic is divided by its largest singular value, which bounds the critic's slope;
the loss is the hinge loss of Lim and Ye 2017. With classes, the critic is the projection
discriminator of Miyato and Koyama 2018. The networks are WGAN-GP's residual ones, without norms in
the critic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.reduction import mean
from ..core.tensor import Tensor
from ..hub.registry import register
from . import wgan_gp
from .small import GeneratorConfig, Players, PlayerSettings
from .wgan_gp import Generator


@dataclass(frozen=True)
class Config(GeneratorConfig):
    """See `small.GeneratorConfig`."""


class Critic(wgan_gp.Critic):
    """WGAN-GP's, every layer divided by its largest singular value."""

    normed = False

    @staticmethod
    def wrapped(layer: nn.Module) -> nn.Module:
        """A layer with its spectral norm."""
        return nn.spectral_norm(layer)


class SNGAN(Players):
    """The two players, with the hinge loss.

    `SNGAN(Config(size=28, channels=1)).update(pictures)` is one step of the critic.
    """

    settings = PlayerSettings(lr=2e-4, critic_lr=2e-4, betas=(0.0, 0.9), critic_steps=5)
    generator_class = Generator
    critic_class = Critic

    def critic_loss(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        """Real pictures are to score above 1, made ones below -1; beyond, nothing is gained."""
        short = mean(F.relu(1 - self.critic(real, labels)))
        return short + mean(F.relu(1 + self.critic(fake, labels)))

    def generator_loss(self, fake: Tensor, labels: Tensor | None) -> Tensor:
        """Minus the score of what was made."""
        return -mean(self.critic(fake, labels))


@register("sngan", config=Config, task="unconditional-image-generation")
def sngan(config: Any) -> Generator:
    """Generator of SNGAN, with labels if it has classes."""
    return Generator(config)

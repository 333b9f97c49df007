"""What the small generators share: sizes, first weights, checks, and two players in one update.

DCGAN, WGAN-GP, SNGAN and StyleGAN differ in their networks and losses, which are in their own
files; how a step of each is taken is the same and is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..core import nn, optim
from ..core.errors import ConfigError, DataError, ShapeError
from ..core.nn import init
from ..core.random import numpy_rng
from ..core.state import no_grad
from ..core.tensor import Tensor
from ..core.training.turn import Turn
from ..hub.configuration import natural, positive
from .unet2d import check_labels

_SMALLEST = 4  # rows and columns that the first block of a generator makes


def halvings(what: str, size: int) -> tuple[int, int]:
    """Rows of the coarsest map, and how often they are doubled to reach a size.

    Raises:
        ConfigError: the size cannot be halved even once to 4 rows or more.
    """
    positive(what, size=size)
    coarse, count = size, 0
    while coarse % 2 == 0 and coarse // 2 >= _SMALLEST:
        coarse, count = coarse // 2, count + 1
    if not count or coarse > 4 * _SMALLEST:
        raise ConfigError(
            f"{what}: size={size} cannot be halved down to {_SMALLEST} to {4 * _SMALLEST} rows.\n"
            "Sizes that can: 16, 28, 32, 48, 64, 96, 128",
            got=size,
        )
    return coarse, count


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes of a generator of pictures and its critic.

    Args:
        size: rows and columns of a picture.
        channels: 1 for grey pictures, 3 for RGB.
        latent_size: random numbers that a picture is made of.
        width: channels of the finest maps; coarser ones have more.
        max_width: channels of the coarsest maps at most.
        num_classes: 0 for pictures of one kind; else the label is part of the input of both.
    """

    size: int = 32
    channels: int = 3
    latent_size: int = 64
    width: int = 64
    max_width: int = 512
    num_classes: int = 0

    def __post_init__(self) -> None:
        what = type(self).__module__.rpartition(".")[2]
        names = "size channels latent_size width max_width"
        positive(what, **{name: getattr(self, name) for name in names.split()})
        natural(what, num_classes=self.num_classes)
        halvings(what, self.size)

    @property
    def coarse(self) -> int:
        """Rows and columns of the coarsest maps."""
        return halvings("size", self.size)[0]

    @property
    def widths(self) -> list[int]:
        """Channels of the maps, the coarsest first; one more than there are doublings."""
        count = halvings("size", self.size)[1]
        return [min(self.width * 2**i, self.max_width) for i in range(count - 1, -1, -1)]


def normal_weights(module: nn.Module, std: float = 0.02) -> None:
    """Draw weights as DCGAN does: normal with deviation 0.02, norms around 1, biases 0."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Embedding)):
            init.normal_(part.weight, 0.0, std)
        elif isinstance(part, nn.BatchNorm2d) and part.weight is not None:
            init.normal_(part.weight, 1.0, std)
        if getattr(part, "bias", None) is not None:
            init.zeros_(part.bias)


def check_latents(what: str, latents: Tensor, size: int) -> None:
    """Raise unless these are latents (B, size)."""
    if latents.ndim != 2 or latents.shape[1] != size or not latents.shape[0]:
        raise ShapeError(
            f"{what}: latents of shape (B, {size}) are wanted, got {tuple(latents.shape)}.",
            expected=(None, size),
            got=tuple(latents.shape),
        )


def check_pictures(what: str, x: Tensor, channels: int, size: int) -> None:
    """Raise unless these are pictures (B, channels, size, size)."""
    shape = tuple(x.shape)
    if len(shape) != 4 or shape[1:] != (channels, size, size) or not shape[0]:
        raise ShapeError(
            f"{what}: pictures of shape (B, {channels}, {size}, {size}) are wanted, got {shape}.",
            expected=(None, channels, size, size),
            got=shape,
        )


def checked_classes(what: str, labels: Tensor | None, count: int, classes: int) -> Tensor | None:
    """The labels of a batch, where the network has classes.

    Raises:
        ConfigError: labels are missing, or given to a network without classes.
        ShapeError, DtypeError, IndexRangeError: not one class for each.
    """
    if not classes:
        if labels is not None:
            raise ConfigError(f"{what}: labels are given and it was built with num_classes=0.")
        return None
    if labels is None:
        raise ConfigError(f"{what}: it makes {classes} classes: give labels of shape ({count},).")
    if tuple(labels.shape) != (count,):
        raise ShapeError(
            f"{what}: {count} samples and labels of shape {tuple(labels.shape)}.",
            expected=(count,),
            got=tuple(labels.shape),
        )
    check_labels(what, labels, classes)
    return labels


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Operations on the module's parameters record no gradients of these meanwhile."""
    learning = [p for p in module.parameters() if p.requires_grad]
    for p in learning:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in learning:
            p.requires_grad_()


@dataclass(frozen=True)
class PlayerSettings:
    """How two players are trained.

    Args:
        lr, critic_lr: learning rates of Adam.
        betas: of Adam.
        critic_steps: updates of the critic for each of the generator.
    """

    lr: float = 2e-4
    critic_lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    critic_steps: int = 1


class Players:
    """A generator and its critic, and one step of both: the base of every GAN here.

    A subclass says what the networks are and what each player loses.

    Attributes:
        generator: latents (B, latent_size), labels -> pictures from -1 to 1.
        critic: pictures, labels -> a score of each, high for real ones, (B,).
        both: the two networks as one module, by these names.
    """

    settings: ClassVar[PlayerSettings] = PlayerSettings()
    generator_class: ClassVar[Callable[..., nn.Module]]
    critic_class: ClassVar[Callable[..., nn.Module]]

    def __init__(self, config: Any, settings: PlayerSettings | None = None) -> None:
        self.config = config
        self.chosen = settings or self.settings
        self.generator = type(self).generator_class(config)
        self.critic = type(self).critic_class(config)
        betas = self.chosen.betas
        self.generator_optimizer = optim.Adam(
            self.generator.parameters(), lr=self.chosen.lr, betas=betas
        )
        self.critic_optimizer = optim.Adam(
            self.critic.parameters(), lr=self.chosen.critic_lr, betas=betas
        )
        self.step = 0
        self.both = nn.ModuleDict({"generator": self.generator, "critic": self.critic})
        optimizers = self.critic_optimizer, self.generator_optimizer
        losses = self._lost_by_critic, self._lost_by_generator
        self.turns = {
            name: Turn(self.both, optimizer, loss, whose=name, optimizers=optimizers)
            for name, optimizer, loss in zip(
                ("critic", "generator"), optimizers, losses, strict=True
            )
        }

    def critic_loss(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
        """What the critic loses on real and made pictures."""
        raise TypeError(f"{type(self).__name__} must say what its critic loses")

    def generator_loss(self, fake: Tensor, labels: Tensor | None) -> Tensor:
        """What the generator loses on what it made."""
        raise TypeError(f"{type(self).__name__} must say what its generator loses")

    def update(self, real: Tensor, labels: Tensor | None = None) -> dict[str, float]:
        """One step: the critic learns from a batch; every few times the generator learns too.

        Raises:
            DataError: the pictures hold NaN.
            GradError: a loss or gradients are not finite; says where that began.
            OutOfMemoryError: says what took the memory.
        """
        if not np.isfinite(real.cpu().array).all():
            raise DataError("a batch of pictures holds NaN or infinity")
        labels = checked_classes(
            type(self).__name__, labels, real.shape[0], self.config.num_classes
        )
        learn = (self.step + 1) % self.chosen.critic_steps == 0
        names = ("critic", "generator") if learn else ("critic",)
        figures = {}
        for name in names:
            turn = self.turns[name]
            turn.step = self.step
            figures[name] = float(turn((real, labels)).item())
        self.step += 1
        return figures

    def play(self, real: Tensor, labels: Tensor | None = None, *, learn: bool = True) -> Any:
        """What `update` does, unchecked: `bt.compile(players.play)` is possible where no numbers
        are drawn, that is with `latents` of one's own.

        Args:
            learn: whether it is the generator's turn too.

        Returns:
            The loss of the critic, and that of the generator if it learnt.
        """
        lost = self._lost_by_critic((real, labels))
        lost.backward()
        self.critic_optimizer.step()
        self.critic_optimizer.zero_grad()
        if not learn:
            return (lost,)
        loss = self._lost_by_generator((real, labels))
        loss.backward()
        self.generator_optimizer.step()
        self.generator_optimizer.zero_grad()
        return lost, loss

    def _lost_by_critic(self, batch: tuple[Tensor, Tensor | None]) -> Tensor:
        real, labels = batch
        with no_grad():
            fake = self.generator(self.latents(real.shape[0]), labels)
        return self.critic_loss(real, fake.detach(), labels)

    def _lost_by_generator(self, batch: tuple[Tensor, Tensor | None]) -> Tensor:
        real, labels = batch
        made = self.generator(self.latents(real.shape[0]), labels)
        with frozen(self.critic):  # whose own gradients nobody needs now
            return self.generator_loss(made, labels)

    def extra_state(self) -> dict[str, Any]:
        """What a resumed training needs besides networks, optimizers and `step`."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what `extra_state` gave."""

    def latents(self, count: int) -> Tensor:
        """Random latents (count, latent_size)."""
        values = numpy_rng().standard_normal((count, self.config.latent_size), dtype=np.float32)
        return Tensor(values).to(self.generator.device)

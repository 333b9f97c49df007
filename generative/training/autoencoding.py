"""Training networks that make pictures of latents and know their loss: `vae` and `realnvp`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from ...core.insight.runs.writer import Run
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...hub.configuration import flags, positive
from ..tasks.direct import DirectGenerator
from .alarms import alarm_of
from .own_loss import Array, CommonSettings, OwnLoss
from .pictures import Pictures

_ADVICE = "The latents count for little: a lower learning rate may help."

# Recipe -> module of its network, and the network's name there.
NETWORKS = {"vae": ("vae", "VAE"), "realnvp": ("realnvp", "RealNVP")}


@dataclass(frozen=True)
class Settings(CommonSettings):
    """Every setting of the recipes: those of `CommonSettings`, and the network's.

    Args:
        latent_size: random numbers that a picture is made of, where the network lets one choose.
        width: channels of the finest maps.
        conditional: tell the network the class, where pictures have one.
    """

    latent_size: int = 32
    width: int = 32
    conditional: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("the recipe", latent_size=self.latent_size, width=self.width)
        flags("the recipe", conditional=self.conditional)


class Autoencoding(OwnLoss):
    """A VAE or flow in training: `Autoencoding(pictures, kind="vae", out=folder).fit()`.

    See `OwnLoss` for attributes and arguments.
    """

    def __init__(
        self,
        pictures: Pictures,
        settings: Settings | None = None,
        *,
        kind: str = "vae",
        out: str | Path,
        device: str = "cpu",
        quiet: bool = False,
        run: Run | None = None,
    ) -> None:
        s = settings or Settings()
        if kind not in NETWORKS:
            raise ConfigError(f"{kind!r} is none of {', '.join(NETWORKS)}", got=kind)
        self.conditional = s.conditional and pictures.labels is not None
        self.classes = pictures.classes if self.conditional else ()
        super().__init__(pictures, s, kind=kind, out=out, device=device, quiet=quiet, run=run)

    def network(self, channels: int, size: int) -> Any:
        """The VAE or flow."""
        file = importlib.import_module(f"...{NETWORKS[self.kind][0]}", __name__)
        config = file.Config(
            size=size,
            channels=channels,
            latent_size=self.settings.latent_size,
            width=self.settings.width,
            num_classes=len(self.classes),
        )
        return getattr(file, NETWORKS[self.kind][1])(config)

    def prepare(self, rng: np.random.Generator) -> None:
        """Draw the latents of the grids, and choose what they are compared with."""
        shape = (self.settings.samples, self.config.latent_size)
        self._latents = rng.standard_normal(shape, dtype=np.float32)
        self._alarm = alarm_of(self.pictures, self.settings.samples, rng, _ADVICE)

    def loss(self, module: Any, batch: tuple[Tensor, Tensor | None]) -> Any:
        """The loss of a batch, and its parts."""
        x, labels = batch
        device = module.device
        known = labels.to(device) if labels is not None and self.conditional else None
        return module.loss(x.to(device), known)

    def columns(self) -> int | None:
        """The classes beside each other, if they are not too many."""
        return len(self.classes) if 0 < len(self.classes) <= 20 else None

    def samples(self, module: Any) -> Array:
        """The pictures of the grid: the same latents and the same classes every time."""
        given = [Tensor(self._latents).to(module.device)]
        if self.classes:
            labels = np.arange(len(self._latents)) % len(self.classes)
            given.append(Tensor(labels).to(module.device))
        with inference_mode():
            return np.asarray(module(*given).cpu().numpy())

    def figures(self, module: Any) -> dict[str, float]:
        """How various the grid is, beside as many real pictures."""
        return {"variety": self._alarm(self.samples(module), self.trainer.step)}

    def generator(self) -> DirectGenerator:
        """The network as the task that makes pictures."""
        return DirectGenerator(
            self.module,
            config=self.config,
            card=self.card(DirectGenerator.task),
            labels=self.classes or None,
            architecture=self.kind,
        )

"""Training networks whose loss is their own, on pictures: the recipes `vae` and `realnvp`."""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core import optim, random
from ...core.errors import ConfigError
from ...core.insight.runs.writer import Run
from ...core.nn import Module
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...core.training.log import TrainingLog
from ...hub.card import Card
from ...hub.configuration import flags, positive, real
from ..tasks.direct import DirectGenerator
from .grids import save_grid
from .log import GRID, recorded
from .loop import trainer_of
from .pictures import Batches, Pictures
from .settings import check_counts

Array = np.ndarray[Any, Any]

# Recipe -> module of its network, and the network's name there.
NETWORKS = {"vae": ("vae", "VAE"), "realnvp": ("realnvp", "RealNVP")}


@dataclass(frozen=True)
class Settings:
    """Every setting of the recipes, with its unit.

    Args:
        size: rows and columns; None for those of the pictures.
        latent_size: random numbers that a picture is made of, where the network lets one choose.
        width: channels of the finest maps.
        conditional: tell the network the class, where pictures have one.
        flip: mirror pictures half of the time.
        epochs, steps: when to stop: after so many passes, or after so many batches if not 0.
        batch_size: pictures in a step.
        lr, warmup, cooldown: the highest learning rate of Adam, the steps in which it rises, and
            the share of all steps in which it falls to nothing.
        clip: the largest norm of all gradients together.
        ema: how much of the averaged weights is kept in a step.
        samples: pictures of the grid after each epoch.
        save_every: steps between checkpoints besides those of each epoch.
        seed: of everything random.
        limit: use only so many pictures; 0 for all.
    """

    size: int | None = None
    latent_size: int = 32
    width: int = 32
    conditional: bool = True
    flip: bool = False
    epochs: int = 30
    steps: int = 0
    batch_size: int = 64
    lr: float = 1e-3
    warmup: int = 100
    cooldown: float = 0.3
    clip: float = 10.0
    ema: float = 0.999
    samples: int = 40
    save_every: int = 500
    seed: int = 0
    limit: int = 0

    def __post_init__(self) -> None:
        what = "the recipe"
        counts = "latent_size width epochs batch_size samples save_every"
        positive(what, **{key: getattr(self, key) for key in counts.split()})
        check_counts(what, steps=self.steps, seed=self.seed, limit=self.limit, warmup=self.warmup)
        real(what, ema=self.ema, lr=self.lr, cooldown=self.cooldown)
        real(what, 1e-6, 1e9, clip=self.clip)
        flags(what, conditional=self.conditional, flip=self.flip)


class Autoencoding:
    """A VAE or flow in training: `Autoencoding(pictures, kind="vae", out=folder).fit()`.

    Attributes:
        module: the network.
        trainer: the loop; `trainer.history` holds the figures.

    Args:
        run: what figures and grids go into; one in `out` unless given.
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
        self.settings = s = settings or Settings()
        if kind not in NETWORKS:
            raise ConfigError(f"{kind!r} is none of {', '.join(NETWORKS)}", got=kind)
        self.kind, self.out, self.pictures, self.run = kind, Path(out), pictures, run
        self._log: Run | None = None
        file = importlib.import_module(f"...{NETWORKS[kind][0]}", __name__)
        random.manual_seed(s.seed)
        channels, height, width = pictures.shape
        if height != width:
            raise ConfigError(
                f"{kind}: pictures of {width} x {height} pixels are not square. Give a size.",
                got=(height, width),
            )
        self.conditional = s.conditional and pictures.labels is not None
        self.classes = pictures.classes if self.conditional else ()
        self.config = file.Config(
            size=height,
            channels=channels,
            latent_size=s.latent_size,
            width=s.width,
            num_classes=len(self.classes),
        )
        self.module = getattr(file, NETWORKS[kind][1])(self.config).to(device=device)
        batches = Batches(pictures, s.batch_size, seed=s.seed, flip=s.flip)
        self.steps = s.steps or s.epochs * len(batches)
        optimizer = optim.Adam(self.module.parameters(), lr=s.lr)
        self.ema = optim.EMA(self.module, decay=s.ema, warmup=True)
        rng = np.random.default_rng(s.seed)
        shape = (s.samples, self.config.latent_size)
        self._latents = rng.standard_normal(shape, dtype=np.float32)
        self.trainer = trainer_of(
            self.module,
            optimizer,
            self._loss,
            batches,
            s,
            steps=self.steps,
            out=self.out,
            evaluate=self._evaluate,
            ema=self.ema,
            quiet=quiet,
        )

    def fit(self, resume: str | None = None) -> DirectGenerator:
        """Train, then save the averaged network as `out/model`; returns it.

        Args:
            resume: "auto" goes on from the newest checkpoint in `out`, bit for bit.
        """
        source = self.pictures.source
        with recorded(self.run, self.out, self.kind, source, self.settings, self.module) as log:
            self._log, self.trainer.log = log, TrainingLog(log)
            self.trainer.fit(resume=resume)
            self.ema.copy_to(self.module)
            self.module.eval()
            made = self.generator()
            made.save(self.out / "model")
            self._show(self.module, "last")
        self._log = self.trainer.log = None
        return made

    def _loss(self, module: Any, batch: tuple[Tensor, Tensor | None]) -> Any:
        x, labels = batch
        device = module.device
        known = labels.to(device) if labels is not None and self.conditional else None
        return module.loss(x.to(device), known)

    def _evaluate(self, module: Module) -> dict[str, float]:
        self._show(module, f"epoch-{self.trainer.epoch:03d}")
        return {}

    def _show(self, module: Module, name: str) -> None:
        columns = len(self.classes) if 0 < len(self.classes) <= 20 else None
        path = save_grid(self.samples(module), self.out / "samples" / f"{name}.png", columns)
        if self._log is not None:
            self._log.image(GRID, path, self.trainer.step)

    def samples(self, module: Module) -> Array:
        """The pictures of the grid: the same latents and the same classes every time."""
        given = [Tensor(self._latents).to(module.device)]
        if self.classes:
            labels = np.arange(len(self._latents)) % len(self.classes)
            given.append(Tensor(labels).to(module.device))
        with inference_mode():
            return np.asarray(module(*given).cpu().numpy())

    def generator(self) -> DirectGenerator:
        """The network as the task that makes pictures."""
        card = Card(
            name=self.out.resolve().name,
            architecture=self.kind,
            task=DirectGenerator.task,
            parameters=sum(p.size for p in self.module.parameters()),
            training={
                "data": f"{self.pictures.source}, {len(self.pictures):,} pictures",
                **asdict(self.settings),
            },
        )
        return DirectGenerator(
            self.module,
            config=self.config,
            card=card,
            labels=self.classes or None,
            architecture=self.kind,
        )

"""The training that networks with a loss of their own share: `vae`, `realnvp`, `vqvae`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...core import optim, random
from ...core.errors import ConfigError
from ...core.insight.runs.writer import Run
from ...core.nn import Module
from ...core.tensor import Tensor
from ...core.training.log import TrainingLog
from ...hub.card import Card
from ...hub.configuration import flags, positive, real
from .grids import save_grid
from .log import GRID, recorded
from .loop import trainer_of
from .pictures import Batches, Pictures
from .settings import check_counts

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class CommonSettings:
    """The settings that do not depend on the network, with their units.

    Args:
        size: rows and columns; None for those of the pictures.
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
        counts = "epochs batch_size samples save_every"
        positive(what, **{key: getattr(self, key) for key in counts.split()})
        check_counts(what, steps=self.steps, seed=self.seed, limit=self.limit, warmup=self.warmup)
        real(what, ema=self.ema, lr=self.lr, cooldown=self.cooldown)
        real(what, 1e-6, 1e9, clip=self.clip)
        flags(what, flip=self.flip)


class OwnLoss(ABC):
    """Such a network in training; a subclass says which, and what its grid shows.

    Attributes:
        module: the network.
        trainer: the loop; `trainer.history` holds the figures.
        last: the figures of the finished network.

    Args:
        kind: the recipe.
        out: the folder of the result.
        run: what figures and grids go into; one in `out` unless given.
    """

    buffers: ClassVar[str] = "copy"  # what the average does with them, see `optim.EMA`

    def __init__(
        self,
        pictures: Pictures,
        settings: Any,
        *,
        kind: str,
        out: str | Path,
        device: str,
        quiet: bool,
        run: Run | None,
    ) -> None:
        self.settings = s = settings
        self.kind, self.out, self.pictures, self.run = kind, Path(out), pictures, run
        self._log: Run | None = None
        random.manual_seed(s.seed)
        channels, height, width = pictures.shape
        if height != width:
            raise ConfigError(
                f"{kind}: pictures of {width} x {height} pixels are not square. Give a size.",
                got=(height, width),
            )
        module = self.network(channels, height)
        self.module, self.config = module.to(device=device), module.config
        batches = Batches(pictures, s.batch_size, seed=s.seed, flip=s.flip)
        self.steps = s.steps or s.epochs * len(batches)
        optimizer = optim.Adam(self.module.parameters(), lr=s.lr)
        self.ema = optim.EMA(self.module, decay=s.ema, warmup=True, buffers=self.buffers)
        self.prepare(np.random.default_rng(s.seed))
        self.last: dict[str, float] = {}
        self.trainer = trainer_of(
            self.module,
            optimizer,
            self.loss,
            batches,
            s,
            steps=self.steps,
            out=self.out,
            evaluate=self._evaluate,
            ema=self.ema,
            quiet=quiet,
        )

    # -- what a subclass says ----------------------------------------------------------------------

    @abstractmethod
    def network(self, channels: int, size: int) -> Any:
        """The network, with its `config`."""

    @abstractmethod
    def prepare(self, rng: np.random.Generator) -> None:
        """Choose what the grids show, once for all of them."""

    @abstractmethod
    def samples(self, module: Any) -> Array:
        """The pictures of the grid."""

    @abstractmethod
    def generator(self) -> Any:
        """The network as its task."""

    def columns(self) -> int | None:
        """Pictures in a row of the grid; None for about as many as rows."""
        return None

    def figures(self, module: Any) -> dict[str, float]:
        """What is measured after each epoch, on the averaged network."""
        return {}

    def loss(self, module: Any, batch: tuple[Tensor, Tensor | None]) -> Any:
        """The loss of a batch, and figures."""
        return module.loss(batch[0].to(module.device))

    # -- the training ------------------------------------------------------------------------------

    def fit(self, resume: str | None = None) -> Any:
        """Train, then save the averaged network as `out/model`; returns its task.

        Args:
            resume: "auto" goes on from the newest checkpoint in `out`, bit for bit.

        Raises:
            GradError: the loss became infinite or NaN; says at which operation.
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
            self.last = {**self.trainer.last, **self.figures(self.module)}
        self._log = self.trainer.log = None
        return made

    def _evaluate(self, module: Module) -> dict[str, float]:
        self._show(module, f"epoch-{self.trainer.epoch:03d}")
        return self.figures(module)

    def _show(self, module: Module, name: str) -> None:
        path = self.out / "samples" / f"{name}.png"
        save_grid(self.samples(module), path, self.columns())
        if self._log is not None:
            self._log.image(GRID, path, self.trainer.step)

    def card(self, task: str) -> Card:
        """The facts of the result."""
        return Card(
            name=self.out.resolve().name,
            architecture=self.kind,
            task=task,
            parameters=sum(p.size for p in self.module.parameters()),
            training={
                "data": f"{self.pictures.source}, {len(self.pictures):,} pictures",
                **asdict(self.settings),
            },
        )

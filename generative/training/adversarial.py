"""Training two players on pictures: the recipes `dcgan`, `wgan-gp`, `sngan` and `stylegan`."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...core import optim, random
from ...core.errors import ConfigError
from ...core.insight.progress import progress
from ...core.insight.runs.writer import Run
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...core.training.log import LEAST, Histograms
from ...core.training.state import packed, unpacked
from ...core.training.store import CheckpointStore
from ...core.training.turn import Turn
from ...hub.card import Card
from ...hub.configuration import flags, positive, real
from ..small import Players, PlayerSettings
from ..tasks.direct import DirectGenerator
from .alarms import alarm_of
from .grids import save_grid
from .log import GRID, recorded
from .pictures import Batches, Pictures
from .settings import check_counts

Array = np.ndarray[Any, Any]

# Recipe -> module of its networks, and the class of its two players.
PLAYERS = {
    "dcgan": ("dcgan", "DCGAN"),
    "wgan-gp": ("wgan_gp", "WGANGP"),
    "sngan": ("sngan", "SNGAN"),
    "stylegan": ("stylegan", "StyleGAN"),
}


@dataclass(frozen=True)
class Settings:
    """Every setting of the recipes, with its unit.

    Args:
        size: rows and columns; None for those of the pictures.
        latent_size: random numbers that a picture is made of.
        width: channels of the finest maps.
        conditional: tell both players the class, where pictures have one.
        flip: mirror pictures half of the time.
        epochs, steps: when to stop: after so many passes, or after so many batches if not 0.
        batch_size: pictures in a step.
        lr: of both players; 0 for what the recipe's paper has.
        ema: how much of the averaged generator is kept in a step.
        samples: pictures of the grid after each epoch.
        save_every: steps between checkpoints besides those of each epoch.
        seed: of everything random.
        limit: use only so many pictures; 0 for all.
    """

    size: int | None = None
    latent_size: int = 64
    width: int = 64
    conditional: bool = True
    flip: bool = False
    epochs: int = 50
    steps: int = 0
    batch_size: int = 64
    lr: float = 0.0
    ema: float = 0.999
    samples: int = 40
    save_every: int = 500
    seed: int = 0
    limit: int = 0

    def __post_init__(self) -> None:
        what = "the recipe"
        counts = "latent_size width epochs batch_size samples save_every"
        positive(what, **{key: getattr(self, key) for key in counts.split()})
        check_counts(what, steps=self.steps, seed=self.seed, limit=self.limit)
        real(what, ema=self.ema, lr=self.lr)
        flags(what, conditional=self.conditional, flip=self.flip)


def players_of(kind: str) -> tuple[type[Any], type[Players]]:
    """The Config and the players of a recipe.

    Raises:
        ConfigError: there is no such recipe.
    """
    if kind not in PLAYERS:
        raise ConfigError(f"{kind!r} is none of the GANs: {', '.join(PLAYERS)}", got=kind)
    file, name = PLAYERS[kind]
    module = importlib.import_module(f"...{file}", __name__)
    return module.Config, getattr(module, name)


class Adversarial:
    """A GAN in training: `Adversarial(pictures, kind="dcgan", out=folder).fit()`.

    Attributes:
        players: generator and critic.
        history: figures of the logged steps and of the epochs.
        steps: how many there are in all.

    Args:
        run: what figures and grids go into; one in `out` unless given.
    """

    def __init__(
        self,
        pictures: Pictures,
        settings: Settings | None = None,
        *,
        kind: str = "dcgan",
        out: str | Path,
        device: str = "cpu",
        quiet: bool = False,
        run: Run | None = None,
    ) -> None:
        self.settings = s = settings or Settings()
        self.kind, self.out, self.pictures, self.quiet = kind, Path(out), pictures, quiet
        self.run = run
        self._log: Run | None = None
        self._histograms: Histograms | None = None
        self._next = 0.0  # when figures of steps are due again
        config_class, players_class = players_of(kind)
        random.manual_seed(s.seed)
        channels, height, width = pictures.shape
        if height != width:
            raise ConfigError(
                f"{kind}: pictures of {width} x {height} pixels are not square. Give a size.",
                got=(height, width),
            )
        self.conditional = s.conditional and pictures.labels is not None
        self.classes = pictures.classes if self.conditional else ()
        self.config = config_class(
            size=height,
            channels=channels,
            latent_size=s.latent_size,
            width=s.width,
            num_classes=len(self.classes),
        )
        chosen = players_class.settings
        if s.lr:
            chosen = PlayerSettings(**(asdict(chosen) | {"lr": s.lr, "critic_lr": s.lr}))
        self.players = players_class(self.config, chosen)
        self.players.generator.to(device=device)
        self.players.critic.to(device=device)
        self.device = device
        self.batches = Batches(pictures, s.batch_size, seed=s.seed, flip=s.flip)
        self.steps = s.steps or s.epochs * len(self.batches)
        self.ema = optim.EMA(self.players.generator, decay=s.ema, warmup=True, buffers="average")
        rng = np.random.default_rng(s.seed)
        self._latents = rng.standard_normal((s.samples, s.latent_size), dtype=np.float32)
        self._alarm = alarm_of(pictures, s.samples, rng)
        self.store = CheckpointStore(self.out / "checkpoints")
        self.history: dict[str, list[dict[str, float]]] = {"steps": [], "epochs": []}

    def fit(self, resume: str | None = None) -> DirectGenerator:
        """Train, then save the averaged generator as `out/model`; returns it.

        Args:
            resume: "auto" goes on from the newest checkpoint in `out`, bit for bit.

        Raises:
            GradError: a loss or gradients became infinite or NaN; says at which operation.
            OutOfMemoryError: says what took the memory, and the batch that fits.
        """
        if resume is not None:
            self._resume(resume)
        source, generator = self.pictures.source, self.players.generator
        both = self.players.both
        with recorded(self.run, self.out, self.kind, source, self.settings, both) as self._log:
            self._histograms = Histograms(self._log)
            self._train()
            self.ema.copy_to(generator)
            generator.eval()
            made = self.generator()
            made.save(self.out / "model")
        self._log = self._histograms = None
        return made

    def _train(self) -> None:
        while self.players.step < self.steps:
            begun, last = time.perf_counter(), {}
            self.players.generator.train()
            self.players.critic.train()
            shown = False if self.quiet else None
            with progress(
                total=len(self.batches),
                what=self.kind,
                unit="batches",
                enabled=shown,
            ) as bar:
                for x, labels in self.batches:
                    last = self._step(x, labels)
                    bar.update(1, note=", ".join(f"{k} {v:.3f}" for k, v in last.items()))
                    if self.players.step >= self.steps:
                        break
            self._end_epoch(last, time.perf_counter() - begun)

    def _step(self, x: Tensor, labels: Tensor | None) -> dict[str, float]:
        labels = labels.to(self.device) if labels is not None and self.conditional else None
        with self._looked_at():
            figures = self.players.update(x.to(self.device), labels)
        step = self.players.step
        self.ema.update()
        now = time.monotonic()
        if self._log is not None and (now >= self._next or step == 1 or step % 20 == 0):
            self._next = now + LEAST
            self._log.scalars({f"train/{name}": v for name, v in figures.items()}, step)
        if step % 20 == 0:
            self.history["steps"].append({"step": step, **figures})
        if step % self.settings.save_every == 0 and step < self.steps:
            self._save()
        return figures

    @contextmanager
    def _looked_at(self) -> Iterator[None]:
        """The run is told the shapes of the first turn of both, where the time of the next one
        goes, and the gradients of the first step of each epoch."""
        log, before, every = self._log, self.players.step, self.players.chosen.critic_steps
        with ExitStack() as stack:
            if log is not None and before == every - 1:
                stack.enter_context(log.shapes(self.players.both))
            if log is not None and before == 2 * every - 1:
                stack.enter_context(log.profiled())
            if self._histograms is not None and before % len(self.batches) == every - 1:
                for name, turn in self.players.turns.items():
                    turn.look = partial(self._gradients, name)
            try:
                yield
            finally:
                for turn in self.players.turns.values():
                    turn.look = None

    def _gradients(self, player: str, turn: Turn) -> None:
        """Of the player whose turn it is; the other one's are of no use to it."""
        assert self._histograms is not None
        named = ((name, p.grad) for name, p in getattr(self.players, player).named_parameters())
        self._histograms.write(f"gradients/{player}", named, turn.step + 1)

    def _end_epoch(self, last: dict[str, float], seconds: float) -> None:
        samples = self.samples()
        columns = len(self.classes) if 0 < len(self.classes) <= 20 else None
        name = f"step-{self.players.step:06d}.png"
        path = save_grid(samples, self.out / "samples" / name, columns)
        row = {
            "step": self.players.step,
            **last,
            "variety": self._alarm(samples, self.players.step),
        }
        self.history["epochs"].append(row)
        if self._log is not None:
            self._log.scalar("evaluation/variety", row["variety"], self.players.step)
            self._log.image(GRID, path, self.players.step)
        if self._histograms is not None:
            parameters = self.players.both.named_parameters()
            self._histograms.write("parameters", parameters, self.players.step)
        self._save()
        if not self.quiet:
            said = ", ".join(f"{k} {v:.3f}" for k, v in row.items() if k != "step")
            print(f"step {self.players.step}: {said}, {seconds:.1f} s", file=sys.stderr, flush=True)

    def samples(self) -> Array:
        """The pictures of the grid: the same latents and the same classes every time."""
        module = self.ema.module
        given = [Tensor(self._latents).to(self.device)]
        if self.classes:
            labels = np.arange(len(self._latents)) % len(self.classes)
            given.append(Tensor(labels).to(self.device))
        with inference_mode():
            return np.asarray(module(*given).cpu().numpy())

    def generator(self) -> DirectGenerator:
        """The generator as the task that makes pictures."""
        card = Card(
            name=self.out.resolve().name,
            architecture=self.kind,
            task=DirectGenerator.task,
            parameters=sum(p.size for p in self.players.generator.parameters()),
            training={
                "data": f"{self.pictures.source}, {len(self.pictures):,} pictures",
                **asdict(self.settings),
            },
        )
        return DirectGenerator(
            self.players.generator,
            config=self.config,
            card=card,
            labels=self.classes or None,
            architecture=self.kind,
        )

    # -- saving and resuming ---------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        p = self.players
        return {
            "step": p.step,
            "generator": dict(p.generator.state_dict()),
            "critic": dict(p.critic.state_dict()),
            "generator_optimizer": p.generator_optimizer.state_dict(),
            "critic_optimizer": p.critic_optimizer.state_dict(),
            "players": p.extra_state(),
            "ema": self.ema.state_dict(),
            "batches": self.batches.state_dict(),
            "random": random.get_state(),
            "history": self.history,
        }

    def _save(self) -> None:
        layout, tensors = packed(self._state())
        self.store.save(self.players.step, tensors, {"state": layout})

    def _resume(self, resume: str) -> None:
        if resume != "auto":
            raise ConfigError(f"resume={resume!r}: 'auto' or nothing", got=resume)
        found = self.store.newest()
        if found is None:
            return
        state, p = unpacked(found.state["state"], found.tensors), self.players
        p.step = int(state["step"])
        p.generator.load_state_dict(state["generator"])
        p.critic.load_state_dict(state["critic"])
        p.generator_optimizer.load_state_dict(state["generator_optimizer"])
        p.critic_optimizer.load_state_dict(state["critic_optimizer"])
        p.load_extra_state(state["players"])
        self.ema.load_state_dict(state["ema"])
        self.batches.load_state_dict(state["batches"])
        random.set_state(state["random"])
        self.history = state["history"]
        if not self.quiet:
            print(f"resumed at step {p.step}, from {found.folder.name}", file=sys.stderr)

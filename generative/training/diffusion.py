"""Training a diffusion model on pictures: the recipe `ddpm`.

A picture is mixed with noise, as much of it as a random timestep says, and the network learns to
tell what was mixed in. Source: Ho et al. 2020, "Denoising diffusion probabilistic models"; the
cosine schedule of Nichol and Dhariwal 2021; min-SNR weighting of Hang et al. 2023; labels that are
now and then left out, for guidance, of Ho and Salimans 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core import optim, random
from ...core.errors import ConfigError
from ...core.insight.runs.writer import Run
from ...core.nn import Module
from ...core.ops.reduction import mean
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...core.training.log import TrainingLog
from ...hub.card import Card
from ...hub.configuration import choice, positive, real
from ..pipelines.ddpm import sample
from ..schedulers import DDIMScheduler, Scheduler
from ..tasks.image_generator import ImageGenerator
from ..unet2d import Config, UNet2DModel
from .alarms import alarm_of
from .grids import save_grid
from .log import GRID, recorded
from .loop import trainer_of
from .pictures import Batches, Pictures
from .settings import check_counts

Array = np.ndarray[Any, Any]
_ADVICE = "A lower learning rate, or more and other pictures, may help."
_BINS = 10  # of the loss by timestep
_BETAS = {"cosine": "squaredcos_cap_v2", "linear": "linear"}


@dataclass(frozen=True)
class Settings:
    """Every setting of the recipe, with its unit.

    Args:
        size: rows and columns; None for those of the pictures.
        channels: of each level of the UNet, the finest first; a level has half the rows and columns
            of the one before.
        layers: ResNet blocks of a level.
        attention: levels of at most so many rows have attention.
        dropout: share of the features that a block leaves out while it learns.
        timesteps: how finely the walk from picture to noise is divided.
        schedule: "cosine" or "linear": how noise grows along it.
        prediction: "epsilon" (the noise), "v_prediction" or "sample": what the network learns.
        min_snr: largest signal-to-noise ratio that counts in the loss; 0 weighs every timestep
            alike, as the DDPM paper does.
        drop_label: share of the labels that are left out while it learns, so that guidance works.
        flip: mirror pictures half of the time.
        epochs, steps: when to stop: after so many passes, or after so many batches if not 0.
        batch_size: pictures in a step.
        lr: the highest learning rate: it rises for `warmup` steps, stays, and falls in a straight
            line to nothing in the last part of all steps, `cooldown`. Before that part a training
            can still be made longer.
        weight_decay, clip: of AdamW; the largest norm of all gradients together.
        ema: how much of the averaged weights is kept in a step.
        precision: "float32", or "bfloat16" and "float16" on a GPU; "auto" chooses.
        samples, sample_steps: pictures of the grid after each epoch, and steps to make them.
        save_every: steps between checkpoints besides those of each epoch.
        seed: of everything random.
        limit: use only so many pictures; 0 for all.
    """

    size: int | None = None
    channels: tuple[int, ...] = (64, 128, 128)
    layers: int = 2
    attention: int = 8
    dropout: float = 0.0
    timesteps: int = 1000
    schedule: str = "cosine"
    prediction: str = "v_prediction"
    min_snr: float = 5.0
    drop_label: float = 0.1
    flip: bool = False
    epochs: int = 50
    steps: int = 0
    batch_size: int = 64
    lr: float = 3e-4
    warmup: int = 200
    cooldown: float = 0.3
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    precision: str = "auto"
    samples: int = 40
    sample_steps: int = 25
    save_every: int = 500
    seed: int = 0
    limit: int = 0

    def __post_init__(self) -> None:
        what = "ddpm"
        counts = "channels layers timesteps epochs batch_size samples sample_steps save_every"
        positive(what, **{key: getattr(self, key) for key in counts.split()})
        seeds = {"seed": self.seed, "limit": self.limit}
        check_counts(what, steps=self.steps, warmup=self.warmup, **seeds)
        shares = "dropout drop_label ema cooldown"
        real(what, 0.0, 1.0, **{key: getattr(self, key) for key in shares.split()})
        real(what, 1e-8, 1.0, lr=self.lr)
        real(what, 0.0, 1e6, min_snr=self.min_snr, weight_decay=self.weight_decay)
        real(what, 1e-6, 1e9, clip=self.clip)
        choice(what, self.schedule, _BETAS, "schedule")
        choice(what, self.prediction, ("epsilon", "v_prediction", "sample"), "prediction")
        if self.sample_steps > self.timesteps:
            raise ConfigError(
                f"{what}: sample_steps={self.sample_steps} of {self.timesteps} timesteps",
                got=self.sample_steps,
                expected=self.timesteps,
            )

    @property
    def noise(self) -> dict[str, Any]:
        """Options of the scheduler."""
        return {
            "num_train_timesteps": self.timesteps,
            "beta_schedule": _BETAS[self.schedule],
            "prediction_type": self.prediction,
            "timestep_spacing": "trailing",
        }


def network(settings: Settings, shape: tuple[int, int, int], classes: int = 0) -> UNet2DModel:
    """The UNet of these settings for pictures (C, H, W), with one class more for "any".

    Raises:
        ShapeError: the size cannot be halved often enough.
    """
    channels, height, width = shape
    levels = len(settings.channels)
    small = [-(-max(height, width) // 2**i) <= settings.attention for i in range(levels)]
    groups = min(8, *(n & -n for n in settings.channels))
    config = Config(
        sample_size=(height, width),
        in_channels=channels,
        out_channels=channels,
        block_out_channels=settings.channels,
        down_block_types=tuple("AttnDownBlock2D" if s else "DownBlock2D" for s in small),
        up_block_types=tuple("AttnUpBlock2D" if s else "UpBlock2D" for s in small[::-1]),
        layers_per_block=settings.layers,
        dropout=settings.dropout,
        norm_num_groups=groups,
        attention_head_dim=None,
        flip_sin_to_cos=True,
        freq_shift=0,
        downsample_padding=1,
        num_class_embeds=classes + 1 if classes else None,
    )
    return UNet2DModel(config)


def weights(kind: str, signal: Array, min_snr: float) -> Array:
    """How much each timestep counts: min(SNR, min_snr) as a weight of the clean sample's error.

    Args:
        kind: what the network predicts.
        signal: share of the signal's power at each timestep.

    Source: Hang et al. 2023, "Efficient diffusion training via min-SNR weighting strategy".
    """
    if not min_snr:
        return np.ones_like(signal)
    snr = signal / np.maximum(1 - signal, 1e-12)
    kept = np.minimum(snr, min_snr)
    # The error of the noise is SNR times that of the clean sample; of v, SNR + 1 times.
    divisor = {"epsilon": np.maximum(snr, 1e-12), "v_prediction": snr + 1, "sample": 1.0}[kind]
    return np.asarray(kept / divisor)


class DiffusionLoss:
    """The loss of a batch at random timesteps, spread evenly over all of them.

    Args:
        scheduler: how noise grows, and what the network predicts.
        no_class: the label that stands for any class; None for models without classes.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        min_snr: float = 5.0,
        no_class: int | None = None,
        drop_label: float = 0.1,
    ) -> None:
        self.scheduler, self.no_class, self.drop_label = scheduler, no_class, drop_label
        self.kind = scheduler.config.prediction_type
        self.signal = np.asarray(scheduler.signal, np.float64)
        self.weights = weights(self.kind, self.signal, min_snr)

    def __call__(
        self, module: Module, batch: tuple[Tensor, Tensor | None]
    ) -> tuple[Tensor, Mapping[str, float]]:
        x, labels = batch
        rng, count = random.numpy_rng(), x.shape[0]
        times = self.times(count)
        noise = rng.standard_normal(x.shape, dtype=np.float32)
        classes = None
        if self.no_class is not None and labels is not None:
            dropped = rng.random(count) < self.drop_label
            classes = np.where(dropped, self.no_class, labels.numpy())
        errors = self.errors(module, x.numpy(), noise, times, classes)
        return self.weighted(errors, times), {}

    def times(self, count: int) -> Array:
        """Timesteps of a batch: one out of each of `count` equal parts of all.

        The loss varies less with them than with any.
        """
        rng = random.numpy_rng()
        spread = (rng.permutation(count) + rng.random(count)) / count
        return np.asarray((spread * len(self.signal)).astype(np.int64))

    def weighted(self, errors: Tensor, times: Array) -> Tensor:
        """The mean of the errors, each with the weight of its timestep."""
        factor = Tensor(self.weights[times].astype(np.float32)).to(errors.device)
        return mean(errors * factor)

    def errors(
        self, module: Module, clean: Array, noise: Array, times: Array, beside: Array | None
    ) -> Tensor:
        """The mean squared error of each sample, (B,), unweighted.

        Args:
            beside: what the network is told beside the time: classes (B,), contexts (B, T, D).
        """
        signal = np.sqrt(self.signal[times]).astype(np.float32)[:, None, None, None]
        sigma = np.sqrt(1 - self.signal[times]).astype(np.float32)[:, None, None, None]
        wanted = noise
        if self.kind == "v_prediction":
            wanted = signal * noise - sigma * clean
        elif self.kind == "sample":
            wanted = clean
        device = module.device
        given = [Tensor(signal * clean + sigma * noise), Tensor(times.astype(np.float32))]
        if beside is not None:
            given.append(Tensor(beside))
        difference = module(*(part.to(device) for part in given)) - Tensor(wanted).to(device)
        return mean(difference * difference, axis=(1, 2, 3))


class LossByTimestep:
    """The unweighted loss in ten parts of the walk, on the same pictures and noise every time."""

    def __init__(self, loss: DiffusionLoss, pictures: Pictures, count: int = 32) -> None:
        rng = np.random.default_rng(0)
        chosen = rng.choice(len(pictures), min(count, len(pictures)), replace=False)
        self.loss, self.clean = loss, pictures.scaled(chosen)
        drawn: Any = rng.standard_normal(self.clean.shape, dtype=np.float32)
        self.noise: Array = drawn
        self.labels = None if loss.no_class is None else pictures.labels
        if self.labels is not None:
            self.labels = self.labels[chosen]

    def __call__(self, module: Module) -> dict[str, float]:
        """Figures `loss t=50` and so on, for the middle of each part."""
        size, found = len(self.loss.signal), {}
        for i in range(_BINS):
            t = (2 * i + 1) * size // (2 * _BINS)
            times = np.full(len(self.clean), t)
            with inference_mode():
                errors = self.loss.errors(module, self.clean, self.noise, times, self.labels)
            found[f"loss t={t}"] = float(errors.numpy().mean())
        return found


class Diffusion:
    """A diffusion model in training: `Diffusion(pictures, out=folder).fit()`.

    Attributes:
        module: the network.
        trainer: the loop; `trainer.history` holds the figures.
        steps: how many there are in all.

    Args:
        run: what figures and grids go into; one in `out` unless given.
    """

    def __init__(
        self,
        pictures: Pictures,
        settings: Settings | None = None,
        *,
        out: str | Path,
        device: str = "cpu",
        quiet: bool = False,
        run: Run | None = None,
    ) -> None:
        self.settings = s = settings or Settings()
        self.out, self.pictures, self.run = Path(out), pictures, run
        random.manual_seed(s.seed)
        classes = len(pictures.classes) if pictures.labels is not None else 0
        self.module = network(s, pictures.shape, classes).to(device=device)
        self.scheduler = DDIMScheduler(**s.noise)
        self.no_class = classes or None
        self.loss = DiffusionLoss(
            self.scheduler, min_snr=s.min_snr, no_class=self.no_class, drop_label=s.drop_label
        )
        batches = Batches(pictures, s.batch_size, seed=s.seed, flip=s.flip)
        self.steps = s.steps or s.epochs * len(batches)
        optimizer = optim.AdamW(
            self.module.parameters(), lr=s.lr, betas=(0.9, 0.99), weight_decay=s.weight_decay
        )
        self.ema = optim.EMA(self.module, decay=s.ema, warmup=True)
        self._log: Run | None = None
        self._by_timestep = LossByTimestep(self.loss, pictures)
        self._alarm = alarm_of(pictures, s.samples, np.random.default_rng(s.seed), _ADVICE)
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
            precision=s.precision,
            quiet=quiet,
        )

    def fit(self, resume: str | None = None) -> ImageGenerator:
        """Train, then save the averaged model as `out/model`; returns it.

        Args:
            resume: "auto" goes on from the newest checkpoint in `out`.
        """
        source = self.pictures.source
        with recorded(self.run, self.out, "ddpm", source, self.settings, self.module) as log:
            self._log, self.trainer.log = log, TrainingLog(log)
            self.trainer.fit(resume=resume)
            self.ema.copy_to(self.module)
            self.module.eval()
            made = self.generator()
            made.save(self.out / "model")
            self._show(self.module, "last")
        self._log = self.trainer.log = None
        return made

    def generator(self) -> ImageGenerator:
        """The network as the task that makes pictures."""
        s = self.settings
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(s).items()}
        card = Card(
            name=self.out.resolve().name,
            architecture="unet2d",
            task=ImageGenerator.task,
            parameters=sum(p.size for p in self.module.parameters()),
            training={"data": f"{self.pictures.source}, {len(self.pictures):,} pictures", **plain},
        )
        return ImageGenerator(
            self.module,
            config=self.module.config,
            card=card,
            scheduler=self.scheduler,
            labels=self.pictures.classes if self.no_class else None,
            defaults={"steps": s.sample_steps},
        )

    @property
    def _columns(self) -> int | None:
        return self.no_class if self.no_class and self.no_class <= 20 else None

    def samples(self, module: Module) -> Array:
        """The pictures of the grid: the same noise and the same classes every time."""
        s = self.settings
        self.scheduler.set_timesteps(s.sample_steps)
        seeds = list(range(s.samples))
        classes = [i % self.no_class for i in seeds] if self.no_class else None
        like = next(module.parameters())
        made = sample(module, self.scheduler, self.pictures.shape, seeds, like, classes=classes)
        return np.asarray(made.cpu().numpy())

    def _evaluate(self, module: Module) -> dict[str, float]:
        made = self._show(module, f"epoch-{self.trainer.epoch:03d}")
        return self._by_timestep(module) | {"variety": self._alarm(made, self.trainer.step)}

    def _show(self, module: Module, name: str) -> Array:
        made = self.samples(module)
        path = save_grid(made, self.out / "samples" / f"{name}.png", self._columns)
        if self._log is not None:
            self._log.image(GRID, path, self.trainer.step)
        return made

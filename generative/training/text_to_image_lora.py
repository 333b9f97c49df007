"""Teaching a text-to-image model a style or a thing: the recipe `text-to-image-lora`.

The networks stay as they are; small matrices beside the projections of the UNet's attention learn
(core/nn/lora.py). What the autoencoder and the text encoder make of pictures and captions never
changes, so it is computed once. Source: Hu et al. 2021, "LoRA"; the loss is that of the recipe
`ddpm`, on latents (Rombach et al. 2022).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core import nn, optim, random
from ...core.errors import ConfigError
from ...core.insight.runs.writer import Run
from ...core.nn.lora import adapters
from ...core.paths import atomic
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...core.training.log import TrainingLog
from ...core.weights.safetensors import save_file
from ...hub.configuration import flags, positive, real
from ..schedulers import Scheduler
from ..tasks.text_to_image import TextToImage
from .captions import Captioned
from .diffusion import DiffusionLoss
from .grids import save_grid
from .latents import Cached, CachedBatches, cache
from .log import GRID, recorded
from .loop import trainer_of
from .settings import check_counts

Array = np.ndarray[Any, Any]
FILE = "pytorch_lora_weights.safetensors"
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")  # of the UNet's attention
_LEARNED = ("epsilon", "v_prediction", "sample")
# What an adapter's matrices are called in files of diffusers.
_STORED = {"lora_A": "lora.down", "lora_B": "lora.up"}


@dataclass(frozen=True)
class Settings:
    """Every setting of the recipe, with its unit.

    Args:
        model: name or path of the model that learns; of no use where it is given as an object.
        caption: of pictures that have none.
        size: rows and columns of the pictures; those that the model was trained with unless given.
            The middle of each picture is taken.
        rank, alpha, dropout: of the adapters, see `nn.LoRA`; alpha 0 is as large as the rank.
        flip: mirror pictures half of the time.
        drop_caption: share of the captions that are left out while it learns, as in the training
            of models that are guided.
        min_snr: largest signal-to-noise ratio that counts in the loss; 0 weighs every timestep
            alike.
        epochs, steps: when to stop: after so many passes, or after so many batches if not 0.
        batch_size: pictures in a step.
        lr, warmup, cooldown: the highest learning rate of AdamW, the steps in which it rises, and
            the share of all steps in which it falls to nothing.
        weight_decay, clip: of AdamW; the largest norm of all gradients together.
        precision: "float32", or "bfloat16" and "float16" on a GPU; "auto" chooses.
        samples: pictures of the grid, before the first step and after each so many epochs
            (`sample_every`); 0 for none.
        prompt: what they show; the first captions unless given.
        sample_steps, guidance: of these pictures.
        truncate: leave out what is too long for the text encoder, in place of an error.
        save_every: steps between checkpoints besides those of each epoch.
        seed: of everything random.
        limit: use only so many pictures; 0 for all.
    """

    model: str = ""
    caption: str = ""
    size: int | None = None
    rank: int = 8
    alpha: float = 0.0
    dropout: float = 0.0
    flip: bool = False
    drop_caption: float = 0.1
    min_snr: float = 5.0
    epochs: int = 100
    steps: int = 0
    batch_size: int = 1
    lr: float = 1e-4
    warmup: int = 20
    cooldown: float = 0.3
    weight_decay: float = 0.01
    clip: float = 1.0
    precision: str = "auto"
    samples: int = 4
    sample_every: int = 10
    prompt: str = ""
    sample_steps: int = 20
    guidance: float = 7.5
    truncate: bool = False
    save_every: int = 500
    seed: int = 0
    limit: int = 0

    def __post_init__(self) -> None:
        what = "text-to-image-lora"
        counts = "rank epochs batch_size sample_every sample_steps save_every"
        positive(what, **{key: getattr(self, key) for key in counts.split()})
        none = "steps warmup samples seed limit"
        check_counts(what, **{key: getattr(self, key) for key in none.split()})
        shares = "dropout drop_caption cooldown"
        real(what, 0.0, 1.0, **{key: getattr(self, key) for key in shares.split()})
        real(what, 1e-8, 1.0, lr=self.lr)
        large = "alpha min_snr weight_decay guidance"
        real(what, 0.0, 1e6, **{key: getattr(self, key) for key in large.split()})
        real(what, 1e-6, 1e9, clip=self.clip)
        flags(what, flip=self.flip, truncate=self.truncate)

    @property
    def lora(self) -> nn.LoRA:
        """The adapters."""
        alpha = self.alpha or float(self.rank)
        return nn.LoRA(self.rank, alpha, dropout=self.dropout, targets=TARGETS)


class LatentLoss(DiffusionLoss):
    """The loss of a batch of latents at random timesteps, told their captions."""

    def __init__(
        self, scheduler: Scheduler, cached: Cached, *, min_snr: float, drop_caption: float
    ) -> None:
        super().__init__(scheduler, min_snr=min_snr, drop_label=drop_caption)
        self.contexts = cached.contexts
        mean, deviation = cached.means[0], cached.deviations[0]
        rng = np.random.default_rng(0)
        chosen = rng.choice(len(cached), min(8, len(cached)), replace=False)
        drawn: Any = rng.standard_normal((2, *mean[chosen].shape), dtype=np.float32)
        self._shown = mean[chosen] + deviation[chosen] * drawn[0]
        self._noise: Array = drawn[1]
        self._told = self.contexts[cached.captions[chosen]]

    def __call__(self, module: nn.Module, batch: Any) -> tuple[Tensor, Mapping[str, float]]:
        mean, deviation, captions = (part.numpy() for part in batch)
        rng = random.numpy_rng()
        times = self.times(len(mean))
        drawn: Any = rng.standard_normal((2, *mean.shape), dtype=np.float32)
        clean: Array = mean + deviation * drawn[0]
        told = np.where(rng.random(len(mean)) < self.drop_label, 0, captions)
        errors = self.errors(module, clean, drawn[1], times, self.contexts[told])
        return self.weighted(errors, times), {}

    def measured(self, module: nn.Module) -> dict[str, float]:
        """The unweighted loss early, midway and late in the walk, on the same noise every time."""
        size, found = len(self.signal), {}
        for t in (size // 10, size // 2, size * 9 // 10):
            errors = []
            for i in range(len(self._shown)):
                part = slice(i, i + 1)
                given = self._shown[part], self._noise[part], np.array([t]), self._told[part]
                with inference_mode():
                    errors.append(self.errors(module, *given).item())
            found[f"loss t={t}"] = float(np.mean(errors))
        return found


class Adapted(nn.Module):
    """The adapters of a network as a module of their own: checkpoints hold nothing else."""

    def __init__(self, network: nn.Module) -> None:
        layers = {path.replace(".", "/"): layer for path, layer in adapters(network)}
        self.lora_A = {path: layer.lora_A for path, layer in layers.items()}
        self.lora_B = {path: layer.lora_B for path, layer in layers.items()}

        def held() -> nn.Module:
            return network

        self._network: Callable[[], nn.Module] = held  # out of the tree

    def train(self, mode: bool = True) -> Adapted:
        """Set training behaviour of the adapters, and of what they stand beside."""
        self._network().train(mode)
        super().train(mode)
        return self

    def forward(self, *given: Any) -> Tensor:
        out: Tensor = self._network()(*given)
        return out


class TextToImageLoRA:
    """A model in training: `TextToImageLoRA(model, read_captions(folder), out=folder).fit()`.

    Attributes:
        model: what is adapted; it draws with the adapter once the training is done.
        trainer: the loop; `trainer.history` holds the figures.
        steps: how many there are in all.

    Args:
        run: what figures and grids go into; one in `out` unless given.

    Raises:
        ConfigError: the model is none of texts and pictures, or its weights are halves.
        DataError: a caption that is too long, or a picture that cannot be read.
    """

    def __init__(
        self,
        model: TextToImage,
        pictures: Captioned,
        settings: Settings | None = None,
        *,
        out: str | Path,
        quiet: bool = False,
        run: Run | None = None,
    ) -> None:
        self.settings = s = settings or Settings()
        self.model, self.pictures, self.out, self.run = model, pictures, Path(out), run
        _check(model)
        self.size = _size(model, s.size)
        random.manual_seed(s.seed)
        model.module.requires_grad_(False).eval()
        cached = cache(model, pictures, self.size, flip=s.flip, truncate=s.truncate, quiet=quiet)
        self.layers = nn.add_lora(model.module.unet, s.lora)
        self.adapted = Adapted(model.module.unet)
        self.loss = LatentLoss(
            model.scheduler, cached, min_snr=s.min_snr, drop_caption=s.drop_caption
        )
        batches = CachedBatches(cached, s.batch_size, seed=s.seed, flip=s.flip)
        self.steps = s.steps or s.epochs * len(batches)
        optimizer = optim.AdamW(self.adapted.parameters(), lr=s.lr, weight_decay=s.weight_decay)
        self.trainer = trainer_of(
            self.adapted,
            optimizer,
            self.loss,
            batches,
            s,
            steps=self.steps,
            out=self.out,
            evaluate=self._evaluate,
            precision=s.precision,
            quiet=quiet,
        )
        self._log: Run | None = None

    def fit(self, resume: str | None = None) -> TextToImage:
        """Train, then write the adapter into `out`; returns the model with it in effect.

        Args:
            resume: "auto" goes on from the newest checkpoint in `out`, bit for bit.
        """
        about = self.pictures.source, self.settings, self.adapted
        compiled, self.model.compile = self.model.compile, False
        try:
            with recorded(self.run, self.out, "text-to-image-lora", *about) as self._log:
                self.trainer.log = TrainingLog(self._log)
                if resume is None or self.trainer.store is None or not self.trainer.store.steps():
                    self._show("before")
                self.trainer.fit(resume=resume)
                self.save()
                self._show("last")
        finally:
            self.model.compile, self._log = compiled, None
            nn.remove_lora(self.model.module.unet)
        name = self.out.resolve().name
        if name in self.model.adapters.said():
            self.model.unload_lora(name)
        return self.model.load_lora(self.out, name=name)

    # -- what is shown and kept ------------------------------------------------------------------

    def samples(self) -> Array | None:
        """The pictures of the grid: the same seeds and texts every time."""
        s = self.settings
        if not s.samples:
            return None
        texts = [s.prompt] if s.prompt else list(dict.fromkeys(self.pictures.captions))
        prompts = [texts[i % len(texts)] for i in range(s.samples)]
        with inference_mode():
            made = self.model(
                prompts,
                seed=s.seed,
                steps=s.sample_steps,
                guidance=s.guidance,
                size=self.size,
                truncate=True,
                output="array",
            )
        return np.asarray(made)

    def _show(self, name: str) -> None:
        training = self.adapted.training
        self.adapted.eval()
        made = self.samples()
        self.adapted.train(training)
        if made is not None:
            path = save_grid(made, self.out / "samples" / f"{name}.png")
            if self._log is not None:
                self._log.image(GRID, path, self.trainer.step)

    def _evaluate(self, module: nn.Module) -> dict[str, float]:
        if self.trainer.epoch % self.settings.sample_every == 0:
            self._show(f"epoch-{self.trainer.epoch:04d}")
        return self.loss.measured(module)

    def save(self, folder: str | Path | None = None) -> Path:
        """Write the adapter as it is now, in diffusers' layout; returns the file.

        The factor alpha / rank is in the matrices: whatever reads them adds their product.
        """
        target = Path(folder or self.out)
        target.mkdir(parents=True, exist_ok=True)
        arrays = {}
        for path, layer in adapters(self.model.module.unet):
            parts = {"lora_A": layer.lora_A.weight, "lora_B": layer.lora_B.weight * layer.scale}
            for name, weight in parts.items():
                key = f"unet.{path}.{_STORED[name]}.weight"
                arrays[key] = np.asarray(weight.detach().cpu().numpy(), np.float32)
        save_file(arrays, target / FILE, metadata={"format": "pt"})
        with atomic(target / "README.md") as part:
            part.write_text(self._card(), encoding="utf-8")
        return target / FILE

    def _card(self) -> str:
        source = self.model.card.source or self.model.card.name
        said = {**asdict(self.settings), "pictures": len(self.pictures), "of": self.pictures.source}
        lines = ["---", f"base_model: {json.dumps(source)}", "library_name: diffusers"]
        lines += ["tags:", "- text-to-image", "- lora", "---", "", "# A LoRA adapter", ""]
        lines += [f"For {source}, trained by bestiary.", ""]
        lines += [f"- {key}: {' '.join(str(value).split())}" for key, value in said.items()]
        return "\n".join(lines) + "\n"


def _check(model: Any) -> None:
    """Raise unless the model can learn so."""
    if not isinstance(model, TextToImage):
        name = getattr(getattr(model, "card", None), "name", repr(model))
        raise ConfigError(
            f"{name} makes no pictures of texts, so captions cannot teach it.\n"
            "Models that do: bestiary list --task text-to-image"
        )
    config = model.module.unet.config
    if config.in_channels != model.module.vae.config.latent_channels:
        raise ConfigError(f"{model.card.name} paints into pictures, which this recipe does not.")
    if config.addition_embed_type is not None:
        raise ConfigError(f"{model.card.name} has two text encoders; this recipe teaches one.")
    if config.time_cond_proj_dim is not None:
        raise ConfigError(f"{model.card.name} is distilled; adapt the model that it came from.")
    kind = getattr(model.scheduler.config, "prediction_type", None)
    if kind not in _LEARNED:
        raise ConfigError(
            f"{model.card.name} predicts {kind!r}; {', '.join(_LEARNED)} can be learnt here.",
            got=kind,
        )
    if str(model.module.unet.dtype) != "float32":
        raise ConfigError(
            f"the weights of {model.card.name} are {model.module.unet.dtype}: load them as "
            'float32. On a GPU precision="bfloat16" is as fast.',
            got=str(model.module.unet.dtype),
        )
    if model.adapters.said():
        raise ConfigError(
            f"{model.card.name} has adapters in effect: model.unload_lora() or model.merge_lora() "
            "first."
        )


def _size(model: TextToImage, size: int | None) -> tuple[int, int]:
    """Rows and columns, checked."""
    pair: tuple[int, int] = model._pair(size, None)
    return pair

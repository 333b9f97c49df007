"""Pictures out of noise, of any kind or of a class: the task of `UNet2DModel`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import numpy as np

from ...core.errors import ConfigError, DataError
from ...core.graph.compiled import Compiled
from ...core.insight.progress import progress
from ...core.nn import Module
from ...core.paths import atomic
from ...core.tensor import Tensor
from ...hub.card import Card
from ...hub.filling import Report
from ...hub.loading import Loaded
from ...hub.repository import read_json
from ..pipelines.ddpm import sample
from ..pipelines.sampling import (
    Callback,
    check_count,
    check_noise,
    check_settings,
    seeds_of,
    to_pictures,
)
from ..schedulers import SCHEDULERS, SHORT, DDPMScheduler, Scheduler, scheduler_of
from ..unet2d import check_sample

BATCH = 16
STEPS = 50  # where neither the call nor the model says; DDPM takes all of its training
SCHEDULER_FILE = "scheduler_config.json"
DEFAULTS_FILE = "generation_config.json"
_DEFAULTS = {"steps", "guidance"}
_EAGER_CALLS = 2  # of one shape, before it pays to compile


class ImageGenerator:
    """Makes pictures: `model(16, label="sneaker", seed=0)`.

    Attributes:
        module: the network.
        scheduler: how noise becomes a picture; None where the folder has none.
        labels: names of the classes; None for models of one kind of picture.
        defaults: `steps` and `guidance`, where the model says them.
        card: licence, origin, results.
        report: what loading did with each tensor.
        compile: whether the network is compiled once it was called a few times.
    """

    task = "unconditional-image-generation"

    def __init__(
        self,
        module: Module,
        *,
        config: Any,
        card: Card,
        scheduler: Scheduler | None = None,
        labels: Sequence[str] | None = None,
        defaults: dict[str, Any] | None = None,
        report: Report | None = None,
        architecture: str = "unet2d",
    ) -> None:
        self.module, self.config, self.card = module, config, card
        self.scheduler = scheduler
        self.labels = None if labels is None else list(labels)
        self.defaults = dict(defaults or {})
        self.report = report or Report()
        self.architecture = architecture
        self.compile = True
        self._program: Compiled | None = None

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> Self:
        """The task of what `bt.load` has loaded: a pipeline, or its network alone."""
        if hasattr(loaded.config, "latent_size"):  # one pass makes a picture, without a scheduler
            from .direct import DirectGenerator

            return DirectGenerator.from_loaded(loaded)  # type: ignore[return-value]
        unet = loaded.parts.get("unet", loaded)
        settings = loaded.scheduler
        beside = None if loaded.folder is None else loaded.folder / SCHEDULER_FILE
        if settings is None and beside is not None and beside.is_file():
            settings = read_json(beside)
        labels = loaded.labels if isinstance(loaded.labels, list) else unet.labels
        return cls(
            unet.module,
            config=unet.config,
            card=loaded.card,
            scheduler=None if settings is None else scheduler_of(settings),
            labels=labels if isinstance(labels, list) else None,
            defaults=_defaults(loaded),
            report=loaded.report,
            architecture=unet.architecture.name,
        )

    # -- pictures ------------------------------------------------------------------------------

    def __call__(
        self,
        count: int = 1,
        *,
        label: int | str | Sequence[int | str] | None = None,
        seed: int | Sequence[int] | None = None,
        steps: int | None = None,
        scheduler: str | Scheduler | None = None,
        guidance: float | None = None,
        size: int | tuple[int, int] | None = None,
        noise: Any = None,
        callback: Callback | None = None,
        batch_size: int = BATCH,
        output: str = "pictures",
        **settings: Any,
    ) -> Any:
        """New pictures.

        Args:
            count: how many.
            label: the class of all of them, or of each: a name or a number. Models of classes
                take the classes by turns where none is given.
            seed: of the first picture; the second has seed + 1, and so on. Or one for each. A
                seed gives the same picture alone and in any batch.
            steps: how many steps from noise to picture; fewer are faster and coarser.
            scheduler: another one, such as "ddim" or "dpm++" (`generative.schedulers.SHORT`).
            guidance: above 1 follows the class more closely, at twice the cost, where the model
                was trained for it.
            size: rows and columns, where not those of the training.
            noise: what to begin with, (count, C, H, W), in place of what the seeds give.
            callback: called after each step with a `SamplingStep`; its `pictures()` are previews.
            batch_size: how many are made at a time.
            output: "pictures" (Pillow) or "array" (count, C, H, W) from -1 to 1.
            settings: of the scheduler's `step`: `eta=` of DDIM.

        Raises:
            ConfigError: a number, scheduler or size that makes no sense.
            DataError: a label that the model does not have.
        """
        count = check_count(count)
        if output not in ("pictures", "array"):
            raise ConfigError(f"output={output!r} is neither 'pictures' nor 'array'", got=output)
        if type(batch_size) is not int or batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1", got=batch_size)
        seeds = seeds_of(count, seed)
        classes = self._classes(label, seeds)
        guidance = self._guidance(guidance)
        walked = self._walked(scheduler)
        check_settings(walked, settings)
        steps = self._steps(walked) if steps is None else steps
        shape = (self.config.in_channels, *self._size(size))
        like = next(self.module.parameters())
        if noise is not None:
            noise = noise if isinstance(noise, Tensor) else Tensor(np.asarray(noise))
            check_noise(noise, (count, *shape))
            noise = noise.to(device=like.device, dtype=like.dtype)
        made: list[Any] = []
        walked.set_timesteps(steps)
        total = len(walked.timesteps) * -(-count // batch_size)
        with progress(total=total, what="sampling", unit="steps") as bar:
            for first in range(0, count, batch_size):
                part = slice(first, first + batch_size)
                walked.set_timesteps(steps)
                samples = sample(
                    self._network(),
                    walked,
                    shape,
                    seeds[part],
                    like,
                    classes=None if classes is None else classes[part],
                    no_class=self._no_class,
                    guidance=guidance,
                    noise=None if noise is None else noise[part],
                    callback=callback,
                    bar=bar,
                    **settings,
                )
                made += list(samples.cpu().numpy()) if output == "array" else to_pictures(samples)
        return np.stack(made) if output == "array" else made

    def _network(self) -> Any:
        if not self.compile:
            return self.module
        if self._program is None or self._program.function is not self.module:
            self._program = Compiled(self.module, after=_EAGER_CALLS, quiet=True)
        return self._program

    def _walked(self, scheduler: str | Scheduler | None) -> Scheduler:
        if isinstance(scheduler, Scheduler):
            return scheduler
        if self.scheduler is None:
            if scheduler is None:
                raise ConfigError(
                    f"{self.card.name} came without {SCHEDULER_FILE}, so how its noise was added "
                    "is not known.\nIf it was as DDPM's is: model(..., scheduler='ddpm')"
                )
            return scheduler_of(scheduler)
        if scheduler is None:
            return scheduler_of(self.scheduler)
        kind = SCHEDULERS.get(SHORT.get(scheduler, scheduler))
        return scheduler_of(scheduler) if kind is None else kind.from_config(self.scheduler)

    def _steps(self, scheduler: Scheduler) -> int:
        if "steps" in self.defaults:
            return int(self.defaults["steps"])
        train = int(scheduler.config.num_train_timesteps)
        return train if isinstance(scheduler, DDPMScheduler) else min(STEPS, train)

    def _guidance(self, guidance: float | None) -> float:
        value = self.defaults.get("guidance", 1.0) if guidance is None else guidance
        if type(value) not in (int, float) or not 0 <= value <= 1000:
            raise ConfigError(f"guidance={value!r}: a number from 0 is wanted", got=value)
        if value != 1 and self._no_class is None:
            raise ConfigError(
                f"{self.card.name} was not trained for guidance: it has no label for any class.",
                got=value,
            )
        return float(value)

    def _size(self, size: int | tuple[int, int] | None) -> tuple[int, int]:
        pair = self.config.sample_size if size is None else size
        pair = (pair, pair) if isinstance(pair, int) else tuple(pair)
        if len(pair) != 2 or not all(type(n) is int and 1 <= n <= 65_536 for n in pair):
            raise ConfigError(f"size={size!r} is neither a number nor (height, width)", got=size)
        levels = len(self.config.block_out_channels)
        channels = self.config.in_channels
        shaped = Tensor(np.broadcast_to(np.float32(0), (1, channels, *pair)))
        check_sample(self.card.name, shaped, channels, 2 ** (levels - 1))
        return pair

    # -- classes -------------------------------------------------------------------------------

    @property
    def num_classes(self) -> int:
        """How many classes there are to choose from; 0 for models of one kind of picture."""
        if self.config.class_embed_type is not None:
            return 0
        return len(self.labels) if self.labels else int(self.config.num_class_embeds or 0)

    @property
    def _no_class(self) -> int | None:
        """The label behind the last class, which stands for any, where there is one."""
        known, all_of_them = self.num_classes, self.config.num_class_embeds or 0
        return known if self.labels and all_of_them == known + 1 else None

    def _classes(self, label: Any, seeds: Sequence[int]) -> list[int] | None:
        if not self.num_classes:
            if label is not None:
                raise DataError(
                    f"{self.card.name} makes one kind of picture and has no labels; got {label!r}.",
                    got=label,
                )
            return None
        if label is None:
            return [seed % self.num_classes for seed in seeds]
        if isinstance(label, (str, int, np.integer)):
            return [self._class(label)] * len(seeds)
        labels = list(label)
        if len(labels) != len(seeds):
            raise DataError(
                f"{len(labels)} labels for {len(seeds)} pictures", expected=len(seeds), got=labels
            )
        return [self._class(one) for one in labels]

    def _class(self, label: Any) -> int:
        names = self.labels or []
        if isinstance(label, str):
            folded = [name.casefold() for name in names]
            if label.casefold() in folded:
                return folded.index(label.casefold())
            near = get_close_matches(label.casefold(), folded, 3, 0.5)
            raise DataError(
                f"{self.card.name} has no label {label!r}.\n"
                + (f"Nearest: {', '.join(near)}\n" if near else "")
                + (f"Labels: {', '.join(names[:20])}" if names else "Its classes have no names.")
                + (f", ... ({len(names)})" if len(names) > 20 else ""),
                got=label,
            )
        if isinstance(label, (bool, float)) or not 0 <= int(label) < self.num_classes:
            raise DataError(
                f"{self.card.name} has no class {label!r}: they are numbered 0 to "
                f"{self.num_classes - 1}.",
                got=label,
            )
        return int(label)

    # -- the model -----------------------------------------------------------------------------

    def _repr_html_(self) -> str:
        from ...core.insight.notebook import task_html

        return task_html(self)

    @property
    def device(self) -> Any:
        """Where the network is."""
        return self.module.device

    def to(self, device: Any) -> Self:
        """Move the network to a device: `model.to("cuda")`."""
        self.module.to(device=device)
        return self

    def save(self, folder: str | Path, *, dtype: Any = None) -> Path:
        """Write a folder that `bt.load(folder)` opens again, and diffusers too.

        Args:
            dtype: of the stored weights, such as "float16"; as they are unless given.
        """
        from ...hub.saving import save_model

        target = save_model(
            folder,
            self.module,
            architecture=self.architecture,
            config=self.config,
            card=self.card,
            labels=self.labels,
            dtype=dtype,
        )
        index: dict[str, Any] = {"_class_name": "DDIMPipeline"}
        if self.scheduler is not None:
            name = type(self.scheduler).__name__
            if isinstance(self.scheduler, DDPMScheduler):
                index["_class_name"] = "DDPMPipeline"
            index["scheduler"] = ["diffusers", name]
            _write(target / SCHEDULER_FILE, self.scheduler.to_config())
        if self.defaults:
            _write(target / DEFAULTS_FILE, self.defaults)
        _write(target / "model_index.json", {**index, "unet": ["diffusers", "UNet2DModel"]})
        return target

    def __repr__(self) -> str:
        height, width = self.config.sample_size
        classes = f", {self.num_classes} classes" if self.num_classes else ""
        walked = "no scheduler" if self.scheduler is None else type(self.scheduler).__name__
        return (
            f"ImageGenerator({self.card.name!r}, {height} x {width} pixels{classes}, "
            f"{walked}, on {self.device})"
        )


def _defaults(loaded: Loaded) -> dict[str, Any]:
    """How many steps and how much guidance the model's own file, or its entry, says."""
    said: dict[str, Any] = dict(loaded.preprocess or {})
    path = None if loaded.folder is None else loaded.folder / DEFAULTS_FILE
    if path is not None and path.is_file():
        said |= read_json(path)
    return {key: value for key, value in said.items() if key in _DEFAULTS}


def _write(path: Path, value: dict[str, Any]) -> None:
    with atomic(path) as part:
        part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

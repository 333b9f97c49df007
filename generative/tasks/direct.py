"""Pictures out of random latents in one pass: the task of GANs, VAEs and flows."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import numpy as np

from ...core.errors import ConfigError, DataError
from ...core.nn import Module
from ...core.state import inference_mode
from ...core.tensor import Tensor
from ...hub.card import Card
from ...hub.configuration import real
from ...hub.filling import Report
from ...hub.loading import Loaded
from ..pipelines.sampling import (
    check_count,
    check_finite,
    check_noise,
    first_noise,
    generators_of,
    seeds_of,
    to_pictures,
)

BATCH = 64


class DirectGenerator:
    """Makes pictures: `model(16, label="sneaker", seed=0)`.

    Attributes:
        module: the network, from latents to pictures.
        labels: names of the classes; None for models of one kind of picture.
        card: licence, origin, results.
        report: what loading did with each tensor.
    """

    task = "unconditional-image-generation"

    def __init__(
        self,
        module: Module,
        *,
        config: Any,
        card: Card,
        labels: Sequence[str] | None = None,
        report: Report | None = None,
        architecture: str = "dcgan",
    ) -> None:
        self.module, self.config, self.card = module, config, card
        self.labels = None if labels is None else list(labels)
        self.report = report or Report()
        self.architecture = architecture
        self.compile = False  # one pass is soon done

    @classmethod
    def from_loaded(cls, loaded: Loaded) -> Self:
        """The task of what `bt.load` has loaded."""
        return cls(
            loaded.module,
            config=loaded.config,
            card=loaded.card,
            labels=loaded.labels if isinstance(loaded.labels, list) else None,
            report=loaded.report,
            architecture=loaded.architecture.name,
        )

    def __call__(
        self,
        count: int = 1,
        *,
        label: int | str | Sequence[int | str] | None = None,
        seed: int | Sequence[int] | None = None,
        truncation: float = 1.0,
        latents: Any = None,
        batch_size: int = BATCH,
        output: str = "pictures",
    ) -> Any:
        """New pictures.

        Args:
            count: how many.
            label: the class of all of them, or of each: a name or a number. Models of classes
                take the classes by turns where none is given.
            seed: of the first picture; the second has seed + 1, and so on. Or one for each.
            truncation: below 1, latents nearer to their mean: more typical pictures, less various.
            latents: what to make pictures of, (count, latent_size), in place of the seeds'.
            batch_size: how many are made at a time.
            output: "pictures" (Pillow) or "array" (count, C, H, W) from -1 to 1.

        Raises:
            ConfigError: a number that makes no sense.
            DataError: a label that the model does not have.
        """
        count = check_count(count)
        if output not in ("pictures", "array"):
            raise ConfigError(f"output={output!r} is neither 'pictures' nor 'array'", got=output)
        if type(batch_size) is not int or batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1", got=batch_size)
        real(self.card.name, truncation=truncation)
        seeds = seeds_of(count, seed)
        classes = self._classes(label, seeds)
        shape = (self.config.latent_size,)
        like = next(self.module.parameters())
        if latents is not None:
            latents = latents if isinstance(latents, Tensor) else Tensor(np.asarray(latents))
            check_noise(latents, (count, *shape))
            latents = latents.to(device=like.device, dtype=like.dtype)
        made: list[Any] = []
        for first in range(0, count, batch_size):
            part = slice(first, first + batch_size)
            if latents is None:
                z = first_noise(shape, generators_of(seeds[part], like.device), like)
            else:
                z = latents[part]
            given = [z * truncation]
            if classes is not None:
                given.append(Tensor(np.array(classes[part], np.int64)).to(device=like.device))
            with inference_mode():
                samples = self.module(*given)
            check_finite(samples)
            made += list(samples.cpu().numpy()) if output == "array" else to_pictures(samples)
        return np.stack(made) if output == "array" else made

    def _classes(self, label: Any, seeds: Sequence[int]) -> list[int] | None:
        known = int(self.config.num_classes)
        if not known:
            if label is not None:
                raise DataError(
                    f"{self.card.name} makes one kind of picture and has no labels; got {label!r}.",
                    got=label,
                )
            return None
        if label is None:
            return [seed % known for seed in seeds]
        if isinstance(label, (str, int, np.integer)):
            return [self._class(label)] * len(seeds)
        labels = list(label)
        if len(labels) != len(seeds):
            raise DataError(
                f"{len(labels)} labels for {len(seeds)} pictures", expected=len(seeds), got=labels
            )
        return [self._class(one) for one in labels]

    def _class(self, label: Any) -> int:
        names = [name.casefold() for name in self.labels or []]
        if isinstance(label, str):
            if label.casefold() in names:
                return names.index(label.casefold())
            near = get_close_matches(label.casefold(), names, 3, 0.5)
            raise DataError(
                f"{self.card.name} has no label {label!r}.\n"
                + (f"Nearest: {', '.join(near)}\n" if near else "")
                + (f"Labels: {', '.join(self.labels or [])}" if names else "They have no names."),
                got=label,
            )
        known = int(self.config.num_classes)
        if isinstance(label, (bool, float)) or not 0 <= int(label) < known:
            raise DataError(
                f"{self.card.name} has no class {label!r}: they are numbered 0 to {known - 1}.",
                got=label,
            )
        return int(label)

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
        """Write a folder that `bt.load(folder)` opens again."""
        from ...hub.saving import save_model

        return save_model(
            folder,
            self.module,
            architecture=self.architecture,
            config=self.config,
            card=self.card,
            labels=self.labels,
            dtype=dtype,
        )

    def __repr__(self) -> str:
        size, classes = self.config.size, self.config.num_classes
        return (
            f"DirectGenerator({self.card.name!r}, {self.architecture}, {size} x {size} pixels"
            + (f", {classes} classes" if classes else "")
            + f", on {self.device})"
        )

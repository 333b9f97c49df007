"""Pictures of a class, by a transformer over latents: the task of DiT's pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from ...core.errors import ConfigError, DataError
from ...core.insight.progress import progress
from ...core.tensor import Tensor
from ...hub.loading import Loaded
from ..pipelines.estimates import (
    Cost,
    refuse_too_large,
    transformer_memory,
    transformer_operations,
)
from ..pipelines.latent import Condition, Guidance, guided
from ..pipelines.sampling import (
    Callback,
    check_count,
    check_settings,
    first_noise,
    generators_of,
    seeds_of,
    walk,
)
from ..schedulers import Scheduler
from .latent import LatentTask, check_output

STEPS, GUIDANCE = 50, 4.0
_SHOWN = 12


class ClassToImage(LatentTask):
    """Makes pictures of a class: `model(4, label="golden retriever", seed=0)`.

    Attributes:
        module, scheduler, card, report, slicing, tiling, compile: see `LatentTask`.
        labels: the names of each class, by its number.
    """

    task = "class-conditional-image-generation"
    network = "transformer"

    def __init__(
        self, *args: Any, labels: Mapping[int, Sequence[str]] | None = None, **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        self.labels = {number: list(names) for number, names in (labels or {}).items()}

    @classmethod
    def _arguments(cls, loaded: Loaded) -> dict[str, Any]:
        table = loaded.published.get("id2label")
        labels: dict[int, list[str]] = {}
        for number, names in table.items() if isinstance(table, dict) else ():
            try:
                labels[int(number)] = [name.strip() for name in str(names).split(",")]
            except ValueError:
                raise ConfigError(f"id2label: {number!r} is no number of a class") from None
        return {**super()._arguments(loaded), "labels": labels}

    def __call__(
        self,
        count: int = 1,
        *,
        label: int | str | Sequence[int | str] | None = None,
        seed: int | Sequence[int] | None = None,
        steps: int | None = None,
        guidance: float = GUIDANCE,
        scheduler: str | Scheduler | None = None,
        size: int | tuple[int, int] | None = None,
        latents: Any = None,
        callback: Callback | None = None,
        batch_size: int = 1,
        output: str = "pictures",
        **settings: Any,
    ) -> Any:
        """New pictures.

        Args:
            count: how many.
            label: the class of all of them, or of each: a name or a number; from the seeds where
                none is given.
            seed: of the first picture; the second has seed + 1, and so on. Or one for each.
            steps: from noise to picture; 50 unless given.
            guidance: how closely the class is followed; 1 takes half the time.
            scheduler: another one, such as "dpm++" (`generative.schedulers.SHORT`).
            size: height and width; that of the training unless given.
            latents: noise to begin with, in place of what the seeds give.
            callback: called after each step with a `LatentStep`; its `pictures()` are previews.
            batch_size: pictures that are made at a time.
            output: "pictures" (Pillow), "array" (B, 3, H, W) from -1 to 1, or "latents".
            settings: of the scheduler's `step`: `eta=` of DDIM.

        Raises:
            DataError: a label that the model does not have; names the nearest.
            ConfigError, ShapeError: numbers and sizes that make no sense.
            DeviceError: more memory is needed than there is.
        """
        check_output(output)
        count = check_count(count)
        if type(batch_size) is not int or batch_size < 1:
            raise ConfigError(f"batch_size={batch_size} must be at least 1", got=batch_size)
        how = Guidance(guidance)
        seeds = seeds_of(count, seed)
        classes = self._classes(label, seeds)
        walked = self._walked(scheduler)
        check_settings(walked, settings)
        steps = STEPS if steps is None else steps
        walked.set_timesteps(steps)
        network = self.module.transformer
        config, like = network.config, next(network.parameters())
        side = config.sample_size * self.factor
        pair = self._size(size, (side, side))
        shape = (config.in_channels, pair[0] // self.factor, pair[1] // self.factor)
        start = self._given_latents(latents, (count, *shape), like)
        cost = self._costs(count, pair, len(walked.timesteps), how.scale != 1, batch_size)
        refuse_too_large(f"{self.card.name} at {pair[0]} x {pair[1]}", cost, self.device)
        said = self._said(walked, pair, steps=steps, guidance=guidance, **settings)
        made: list[Any] = []
        total = len(walked.timesteps) * -(-count // batch_size)
        with progress(total=total, what="sampling", unit="steps") as bar:
            for first in range(0, count, batch_size):
                part = slice(first, first + batch_size)
                walked.set_timesteps(steps)
                generators = generators_of(seeds[part], like.device)
                noise = first_noise(shape, generators, like) if start is None else start[part]
                sample = walk(
                    self._predict(walked, how, classes[part]),
                    walked,
                    noise * walked.init_noise_sigma,
                    generators=generators,
                    callback=self._told(callback),
                    bar=bar,
                    **settings,
                )
                each = [
                    {**said, "label": one, "seed": number}
                    for one, number in zip(classes[part], seeds[part], strict=True)
                ]
                made += self._output(sample, output, each)
        return made if output == "pictures" else np.stack(made)

    def _predict(self, scheduler: Scheduler, how: Guidance, classes: Sequence[int]) -> Any:
        network, config = self._network(), self.module.transformer.config
        learned = str(getattr(scheduler.config, "variance_type", "")).startswith("learned")

        def numbers(values: Sequence[int]) -> Condition:
            return (Tensor(np.array(values, np.int64)).to(device=self.device),)

        wanted = numbers(classes)
        nothing = numbers([config.num_embeds_ada_norm] * len(classes))

        def ask(values: Tensor, t: float, condition: Condition) -> Tensor:
            times = Tensor(np.full(values.shape[0], t, np.float32)).to(device=values.device)
            said: Tensor = network(values, times, condition[0])
            # The variance, where the scheduler has its own, is not needed.
            return said if learned else said[:, : config.in_channels]

        def predict(values: Tensor, t: float) -> Tensor:
            return guided(ask, values, t, wanted, nothing, how, slicing=self.slicing)

        return predict

    def _multiple(self) -> int:
        return self.factor * int(self.module.transformer.config.patch_size)

    # -- classes -------------------------------------------------------------------------------

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return int(self.module.transformer.config.num_embeds_ada_norm)

    def _classes(self, label: Any, seeds: Sequence[int]) -> list[int]:
        if label is None:
            return [seed % self.num_classes for seed in seeds]
        if not isinstance(label, (list, tuple)):
            return [self._class(label)] * len(seeds)
        labels = list(label)
        if len(labels) != len(seeds):
            raise DataError(
                f"{len(labels)} labels for {len(seeds)} pictures", expected=len(seeds), got=labels
            )
        return [self._class(one) for one in labels]

    def _class(self, label: Any) -> int:
        if isinstance(label, str):
            known = {n.casefold(): i for i, names in self.labels.items() for n in names}
            if label.casefold() in known:
                return known[label.casefold()]
            near = get_close_matches(label.casefold(), known, 3, 0.5)
            some = ", ".join(list(known)[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
            raise DataError(
                f"{self.card.name} has no label {label!r}.\n"
                + (f"Nearest: {', '.join(near)}\n" if near else "")
                + (f"Labels: {some}" if known else "Its classes have no names: give a number."),
                got=label,
            )
        if not isinstance(label, (int, np.integer)) or isinstance(label, bool):
            raise DataError(f"{label!r} is neither a name nor a number of a class", got=label)
        if not 0 <= int(label) < self.num_classes:
            raise DataError(
                f"{self.card.name} has no class {label}: they are numbered 0 to "
                f"{self.num_classes - 1}.",
                got=label,
            )
        return int(label)

    # -- cost and saving -----------------------------------------------------------------------

    def cost(
        self,
        count: int = 1,
        *,
        size: int | tuple[int, int] | None = None,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        batch_size: int = 1,
    ) -> Cost:
        """What a call with these settings will need: operations, time and memory."""
        side = self.module.transformer.config.sample_size * self.factor
        pair = self._size(size, (side, side))
        return self._costs(count, pair, steps, guidance != 1, batch_size)

    def _costs(
        self, total: int, size: tuple[int, int], calls: int, doubled: bool, batch_size: int
    ) -> Cost:
        network = self.module.transformer
        rows, columns = (n // self.factor for n in size)
        times = 2 if doubled else 1
        batch = 1 if self.slicing else times * min(batch_size, total)
        operations = transformer_operations(network, rows, columns) * times * calls * total
        memory = transformer_memory(network, rows, columns, batch)
        return self._cost(operations, memory, total, rows, columns)

    def _index(self) -> dict[str, Any]:
        table = {str(number): ", ".join(names) for number, names in self.labels.items()}
        return {"id2label": table} if table else {}

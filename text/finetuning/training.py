"""What all ways of fine-tuning a model of texts share: rates, adapters, batches, the loop."""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...core import nn, optim
from ...core.errors import ConfigError
from ...core.insight.charts import line_chart, save_chart
from ...core.insight.runs.writer import logged
from ...core.nn.quantized import check_trainable
from ...core.tensor import Tensor
from ...core.training import History, Trainer
from ...hub.card import Card
from ...hub.registry import Architecture, architecture_by_name
from ..tasks.base import TextTask
from ..tokens.tokenizer import Tokenizer

Array = np.ndarray[Any, Any]
Say = Callable[[str], None]
_TOKENIZER = "tokenizer_config.json"
SORTED = 32  # batches among which texts are put in order of length


@dataclass(frozen=True)
class Settings:
    """How to train; each way of fine-tuning has defaults of its own.

    Args:
        epochs: passes over the data.
        batch_size: texts in a step.
        lr: the highest learning rate.
        warmup: share of the steps in which the rate rises; it falls to nothing afterwards.
        weight_decay: of AdamW, on matrices only.
        clip: largest norm of all gradients together.
        max_length: the most tokens of a text; None for what the network reads.
        held_out: share of the data that is kept for measuring.
        lora: rank of adapters that learn in place of the weights; 0: the weights learn.
        lora_alpha: what adapters add is multiplied by lora_alpha / lora; 2 lora unless given.
        lora_dropout: of what adapters see.
        lora_targets: layers that get one, by the ends of their names; all linear ones unless given.
        seed: of everything random.
    """

    epochs: int = 3
    batch_size: int = 16
    lr: float = 5e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    max_length: int | None = None
    held_out: float = 0.2
    lora: int = 0
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] | str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ConfigError(
                f"epochs={self.epochs} and batch_size={self.batch_size} are at least 1"
            )
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"lr={self.lr} is a number above 0", got=self.lr)
        if not (0 < self.held_out < 1 and 0 <= self.warmup < 1):
            raise ConfigError(f"held_out={self.held_out} and warmup={self.warmup} are shares")
        if self.max_length is not None and self.max_length < 3:
            raise ConfigError(f"max_length={self.max_length} has no room for a text")
        if self.lora < 0:
            raise ConfigError(f"lora={self.lora} is a rank, or 0 for none", got=self.lora)
        details = (self.lora_alpha, self.lora_targets, self.lora_dropout)
        if not self.lora and details != (None, None, 0.0):
            raise ConfigError(
                "lora_alpha, lora_dropout and lora_targets are for lora= of 1 or more"
            )

    def adapters(self, heads: Sequence[str], excluded: Sequence[str]) -> nn.LoRA:
        """The adapters that are asked for.

        Args:
            heads: modules that are trained whole.
            excluded: modules that get none.
        """
        return nn.LoRA(
            rank=self.lora,
            alpha=self.lora_alpha,
            dropout=self.lora_dropout,
            targets=self.lora_targets or "all-linear",
            heads=tuple(heads),
            excluded=tuple(excluded),
        )


def speaker(quiet: bool) -> Say:
    """Prints lines on the error output, or nothing."""

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    return say


def architecture_of(task: TextTask) -> Architecture:
    """The architecture of a task's network.

    Raises:
        ConfigError: it is none that is registered.
    """
    found = architecture_by_name(task.architecture)
    if found is None:
        raise ConfigError(f"{task.architecture} is no architecture that is known here")
    return found


def copied(task: TextTask, settings: Settings, *, excluded: Sequence[str] = ()) -> Any:
    """A copy of a task whose network can be trained without changing the task.

    With adapters the copy shares the weights, which stay as they are; without, it has its own.

    Args:
        excluded: modules that get no adapter.
    Raises:
        ConfigError: the weights have few bits, and no adapters are asked for; or the network has
            adapters already.
    """
    new = copy.copy(task)
    if settings.lora:
        memo: dict[int, Any] = {id(p): p for p in task.module.parameters()}
        memo |= {id(b): b for b in task.module.buffers()}
        new.module = copy.deepcopy(task.module, memo)
        how = settings.adapters((), excluded)
        nn.add_lora(new.module, how)
        new.adapter = how
    else:
        check_trainable(task.module, "fine-tuning")
        new.module = copy.deepcopy(task.module)
    new.card = Card(
        name=f"{task.card.name}-finetuned",
        architecture=task.architecture,
        task=task.task,
        license=task.card.license,
        commercial=task.card.commercial,
        source=task.card.source,
        training={"from": task.card.name},
    )
    return new


def decayed_apart(
    module: nn.Module, rate_of: Callable[[str], float], weight_decay: float
) -> list[dict[str, Any]]:
    """Groups of parameters for an optimizer: norms and biases are not decayed.

    Args:
        rate_of: the learning rate of a parameter by its name.
    """
    groups: dict[tuple[float, bool], list[Any]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((rate_of(name), parameter.ndim > 1), []).append(parameter)
    return [
        {"params": parameters, "lr": lr, "weight_decay": weight_decay if matrix else 0.0}
        for (lr, matrix), parameters in groups.items()
    ]


@dataclass
class Job:
    """One training: what learns, from what, and how it is measured.

    Args:
        task: the new task.
        batches: sized and iterable once an epoch.
        loss: of the network and a batch.
        groups: parameters with their rates.
        measure: figures of the held-out part.
        confusion: labels and counts of the last measure, (N, N), rows true; None without classes.
        facts: of the data, for the card.
    """

    task: Any
    batches: Any
    loss: Callable[[Any, Any], Tensor]
    groups: list[dict[str, Any]]
    measure: Callable[[], Mapping[str, float]]
    facts: dict[str, Any]
    confusion: Callable[[], tuple[Sequence[str], Any]] | None = None


def fit(
    job: Job, settings: Settings, *, out: str | Path | None, source: Any, quiet: bool
) -> Mapping[str, float]:
    """Train and measure; writes the model, its card and charts. Returns the figures.

    Args:
        source: the file that was learnt from.
    """
    start, new, module = time.perf_counter(), job.task, job.task.module
    optimizer = optim.AdamW(job.groups, lr=settings.lr)
    steps = settings.epochs * len(job.batches)
    rising = max(1, round(settings.warmup * steps))

    def rate(step: int) -> float:
        return min((step + 1) / rising, max(0.0, (steps - step) / max(steps - rising, 1)))

    figures: dict[str, float] = {}

    def evaluate(_: nn.Module) -> Mapping[str, float]:
        figures.update(job.measure())
        if run is not None and job.confusion is not None:
            labels, counts = job.confusion()
            run.confusion("held-out", counts, labels, trainer.step)
        return figures

    module.train()
    try:
        with logged(out, {"model": new.card.training["from"], **vars(settings)}, module) as run:
            trainer = Trainer(
                module,
                optimizer,
                job.loss,
                job.batches,
                epochs=settings.epochs,
                schedule=optim.LambdaLR(optimizer, rate),
                clip_norm=settings.clip,
                evaluate=evaluate,
                run=run,
                quiet=quiet,
            )
            history = trainer.fit()
    finally:
        module.eval()
        module.requires_grad_(True)
    _describe(new, job, settings, figures, time.perf_counter() - start, source)
    if out is not None:
        new.save(out)
        _draw(history, figures, Path(out))
        speaker(quiet)(f"saved in {out}; load it with bt.load({str(out)!r})")
    return figures


def _describe(
    new: Any,
    job: Job,
    settings: Settings,
    figures: Mapping[str, float],
    seconds: float,
    source: Any,
) -> None:
    new.card.training.update(
        {
            "data": Path(source).name,
            **job.facts,
            **{f"{name} on the held-out part": f"{v:.4g}" for name, v in figures.items()},
            "seconds": round(seconds, 1),
            "recipe": ", ".join(f"{k} {v}" for k, v in vars(settings).items()),
        }
    )
    new.card.results = [
        {
            "name": name,
            "value": round(value, 4),
            "dataset": Path(source).name,
            "split": "the held-out part",
        }
        for name, value in figures.items()
    ]


def _draw(history: History, figures: Mapping[str, float], folder: Path) -> None:
    lines = {"training loss": history.column("loss")}
    lines |= {f"held-out {name}": history.column(name) for name in figures}
    save_chart(line_chart(lines, title="Fine-tuning"), folder / "learning_curve.png")


class Batches:
    """Numbers of rows of like length, in another order each epoch, made into arrays.

    Args:
        lengths: of the rows, in tokens.
        chosen: numbers of the rows to learn from.
        size: rows in a batch.
        made: arrays of a batch from numbers of rows.
    """

    def __init__(
        self, lengths: Array, chosen: Array, size: int, seed: int, made: Callable[[Array], Any]
    ) -> None:
        self._lengths, self._chosen, self._size, self._seed = lengths, chosen, size, seed
        self._made = made
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self._chosen) // self._size)

    def __iter__(self) -> Iterator[Any]:
        rng = np.random.default_rng((self._seed, self.epoch))
        self.epoch += 1
        order, size = rng.permutation(self._chosen), self._size
        batches: list[Array] = []
        for start in range(0, len(order), SORTED * size):
            part = order[start : start + SORTED * size]
            part = part[np.argsort(self._lengths[part], kind="stable")]
            batches += [part[i : i + size] for i in range(0, len(part), size)]
        for i in rng.permutation(len(batches)):
            yield self._made(batches[i])


def padded(rows: Sequence[Array], fill: int = 0) -> tuple[Array, Array]:
    """Rows of unequal length as one array, filled at the right, and where they are real.

    Shape:
        (B, T), whole numbers, and (B, T), bool
    """
    longest = max(len(row) for row in rows)
    ids = np.full((len(rows), longest), fill, np.int64)
    mask = np.zeros((len(rows), longest), bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = True
    return ids, mask


def halves(count: int, share: float, seed: int) -> tuple[Array, Array]:
    """Numbers to learn from and to measure, at random, at least one of each."""
    order = np.random.default_rng(seed).permutation(count)
    held = min(max(1, round(share * count)), count - 1)
    return np.sort(order[held:]), np.sort(order[:held])


def shorter(tokenizer: Tokenizer | None, length: int | None) -> Tokenizer | None:
    """A tokenizer that cuts texts to what was trained on, so that it is used so too."""
    if tokenizer is None or length is None:
        return tokenizer
    same = copy.copy(tokenizer)
    same.max_length = length if tokenizer.max_length is None else min(length, tokenizer.max_length)
    if _TOKENIZER in same.files:  # as it is saved
        told = json.loads(same.files[_TOKENIZER])
        told["model_max_length"] = same.max_length
        same.files = {**same.files, _TOKENIZER: json.dumps(told, indent=2).encode()}
    return same


def changed(settings: Settings | None, default: Settings, changes: Mapping[str, Any]) -> Any:
    """Settings with single ones changed by name.

    Raises:
        ConfigError: there is no setting of a name.
    """
    known = vars(settings or default)
    wrong = sorted(changes.keys() - known)
    if wrong:
        raise ConfigError(
            f"there is no setting {wrong[0]!r}; there are: {', '.join(known)}", got=wrong[0]
        )
    return replace(settings or default, **changes)

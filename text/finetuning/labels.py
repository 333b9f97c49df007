"""Fine-tuning an encoder on one's own labelled texts.

All layers learn together at a low rate, or adapters beside them; the new head at a higher one.
Texts are read once, and those of like length go through the network together.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core import nn, random
from ...core.data.text_files import read_csv, read_jsonl
from ...core.errors import ConfigError, DataError
from ...core.nn import functional as F
from ...core.paths import check_folder
from ...core.tensor import Tensor
from ...hub.card import Card
from ...hub.filling import with_new_head
from ..tasks.classifier import TextClassifier
from ..tasks.encoder_task import EncoderTask
from .training import (
    Array,
    Batches,
    Job,
    Settings,
    architecture_of,
    changed,
    decayed_apart,
    fit,
    padded,
    shorter,
    speaker,
)


@dataclass(frozen=True)
class Recipe(Settings):
    """How to fine-tune on labels: `Settings`, and

    Args:
        head_lr: the highest learning rate of the new head.
        freeze: "trunk" lets the head alone learn.
    """

    head_lr: float = 1e-3
    freeze: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.head_lr < math.inf:
            raise ConfigError(f"head_lr={self.head_lr} is a number above 0", got=self.head_lr)
        if self.freeze not in (None, "trunk"):
            raise ConfigError(f"freeze is 'trunk' or None, got {self.freeze!r}", got=self.freeze)
        if self.freeze and self.lora:
            raise ConfigError("freeze='trunk' lets the head alone learn: no lora= beside it")


@dataclass(frozen=True)
class LabelledTexts:
    """Texts, and the number of the label of each."""

    texts: list[str]
    targets: Array
    labels: list[str]


def labelled_texts(source: str | Path, text: str = "text", label: str = "label") -> LabelledTexts:
    """The texts and labels of a CSV file with a header, or of a JSONL file of objects.

    Args:
        text, label: names of the columns or fields.
    Raises:
        DataError: no such columns, an empty text or label, a broken line; names it. Fewer than two
            labels, or a label that fewer than two texts have.
    """
    path = Path(source)
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        rows = ((f"line {i}", row) for i, row in enumerate(read_jsonl(path), 1))
    else:
        rows = ((f"row {i}", row) for i, row in enumerate(read_csv(path), 1))
    texts, names = [], []
    for place, row in rows:
        if not isinstance(row, dict) or text not in row or label not in row:
            has = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise DataError(
                f"{path}, {place}: {text!r} and {label!r} are wanted, and it has {has}.",
                file=str(path),
            )
        content, name = row[text], row[label]
        if not isinstance(content, str) or not content.strip():
            raise DataError(f"{path}, {place}: the text is empty", file=str(path))
        if name is None or not str(name).strip():
            raise DataError(f"{path}, {place}: the label is empty", file=str(path))
        texts.append(content)
        names.append(str(name).strip())
    counts = Counter(names)
    few = sorted(name for name, n in counts.items() if n < 2)
    if len(counts) < 2 or few:
        raise DataError(
            f"{path} has {len(counts)} labels in {len(texts)} texts; two labels with two texts "
            "each, one to learn from and one to measure, are the least."
            + (f"\nFewer have: {', '.join(few[:8])}" if few else ""),
            file=str(path),
        )
    labels = sorted(counts)
    number = {name: i for i, name in enumerate(labels)}
    return LabelledTexts(texts, np.array([number[n] for n in names], np.int64), labels)


def finetune(
    task: EncoderTask,
    source: str | Path,
    *,
    out: str | Path | None = None,
    recipe: Recipe | None = None,
    quiet: bool = False,
    text: str = "text",
    label: str = "label",
    **changes: Any,
) -> TextClassifier:
    """Teach an encoder labels of yours; the given task is left as it was.

    Args:
        source: a CSV or JSONL file; see `labelled_texts`.
        out: folder for the model (for its adapter alone, with `lora=`), its card, its learning
            curve and the log of the run.
        recipe: how to train; single settings may be given by name: `epochs=5`.
        quiet: print nothing.

    Returns:
        A new task with the new labels. `task.card.training` says how it went.

    Raises:
        DataError: the texts cannot be used; names the line.
        ConfigError: settings that make no sense, or a network without such a head.
    """
    how: Recipe = changed(recipe, Recipe(), changes)
    found = labelled_texts(source, text, label)
    if out is not None:
        check_folder(Path(out))
    train, held = _split(found.targets, how)
    say = speaker(quiet)
    counts = np.bincount(found.targets)
    shown = ", ".join(f"{n} {c}" for n, c in zip(found.labels[:12], counts, strict=False))
    say(f"{len(found.texts)} texts, {len(found.labels)} labels: {shown}")
    say(f"{len(train)} to train on, {len(held)} held out")
    random.manual_seed(how.seed)
    new, heads = _new_task(task, found, how)
    rows = _encoded(new, found.texts)
    kept, targets = [found.texts[i] for i in held], found.targets

    def made(chosen: Array) -> tuple[Array, Array, Array]:
        return (*padded([rows[i] for i in chosen]), targets[chosen])

    def loss(module: nn.Module, batch: tuple[Array, Array, Array]) -> Tensor:
        ids, mask, wanted = (Tensor(part).to(device=new.device) for part in batch)
        return F.cross_entropy(module(ids, None if batch[1].all() else mask), wanted)

    classes = len(found.labels)
    matrix = np.zeros((classes, classes), np.int64)

    def measure() -> dict[str, float]:
        best = new.scores(kept, batch_size=2 * how.batch_size).argmax(axis=1)
        matrix[...] = 0
        np.add.at(matrix, (targets[held], best), 1)
        return {"accuracy": float((best == targets[held]).mean())}

    def rate_of(name: str) -> float:
        return how.head_lr if name.startswith(heads) else how.lr

    figures = fit(
        Job(
            new,
            Batches(np.array([len(r) for r in rows]), train, how.batch_size, how.seed, made),
            loss,
            decayed_apart(new.module, rate_of, how.weight_decay),
            measure,
            {"texts": f"{len(train)} trained on, {len(held)} held out"},
            lambda: (found.labels, matrix),
        ),
        how,
        out=out,
        source=source,
        quiet=quiet,
    )
    say(f"held-out accuracy {100 * figures['accuracy']:.1f} % ({len(held)} texts)")
    return new


def _split(targets: Array, recipe: Recipe) -> tuple[Array, Array]:
    """Numbers of texts to learn from and to measure: a share of each label, at least one."""
    rng = np.random.default_rng(recipe.seed)
    held: list[int] = []
    for target in np.unique(targets):
        mine = rng.permutation(np.flatnonzero(targets == target))
        held += mine[: min(max(1, round(recipe.held_out * len(mine))), len(mine) - 1)].tolist()
    chosen = np.array(sorted(held))
    return np.setdiff1d(np.arange(len(targets)), chosen), chosen


def _new_task(
    task: EncoderTask, found: LabelledTexts, recipe: Recipe
) -> tuple[TextClassifier, tuple[str, ...]]:
    """The classifier that learns, and what names of parameters of its head begin with."""
    architecture = architecture_of(task)
    if not architecture.head:
        raise ConfigError(f"{task.architecture} has no head that could be replaced")
    module, config = with_new_head(
        architecture, task.config, task.module, len(found.labels), "text-classification"
    )
    module.to(device=task.device)
    parts = {name for name, _ in module.named_modules()}
    heads = [part for part in (*architecture.head, *architecture.fresh) if part in parts]
    adapter = None
    if recipe.lora:
        adapter = recipe.adapters(heads, ())
        nn.add_lora(module, adapter)
    names = tuple(f"{head}." for head in heads)
    if recipe.freeze == "trunk":
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name.startswith(names))
    new = TextClassifier(
        module,
        architecture=task.architecture,
        config=config,
        tokenizer=shorter(task.tokenizer, recipe.max_length),
        card=Card(
            name=f"{task.card.name}-finetuned",
            architecture=task.architecture,
            task="text-classification",
            license=task.card.license,
            commercial=task.card.commercial,
            source=task.card.source,
            training={"from": task.card.name},
        ),
        labels=found.labels,
    )
    new.adapter, new.loaded_as = adapter, task.loaded_as
    return new, names


def _encoded(task: TextClassifier, texts: list[str]) -> list[Array]:
    """The tokens of each text, without padding."""
    encoded = task._need_tokenizer()(texts, max_length=task.max_length)
    return [ids[mask] for ids, mask in zip(encoded.ids, encoded.mask, strict=True)]

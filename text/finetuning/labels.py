"""Fine-tuning an encoder on one's own labelled texts.

All layers learn together at a low rate, which rises for a short while and then falls to nothing.
Texts are read once, and those of like length go through the network together.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core import optim, random
from ..core.data.text_files import read_csv, read_jsonl
from ..core.errors import ConfigError, DataError
from ..core.insight.charts import line_chart, save_chart
from ..core.nn import functional as F
from ..core.paths import check_folder
from ..core.tensor import Tensor
from ..core.training import Trainer
from ..hub.card import Card
from ..hub.filling import with_new_head
from ..hub.registry import architecture_by_name
from .tasks.classifier import TextClassifier
from .tasks.encoder_task import EncoderTask

Array = np.ndarray[Any, Any]
_SORTED = 32  # batches among which texts are put in order of length


@dataclass(frozen=True)
class Recipe:
    """How to fine-tune.

    Args:
        epochs: passes over the texts.
        batch_size: texts in a step.
        lr: the highest learning rate of the trunk; `head_lr` that of the new head.
        warmup: share of the steps in which the rates rise.
        weight_decay: of AdamW, on matrices only.
        clip: largest norm of all gradients together.
        max_length: the most tokens of a text; None for what the network reads.
        held_out: share of each label kept for measuring.
        freeze: "trunk" lets the head alone learn.
        seed: of everything random.
    """

    epochs: int = 3
    batch_size: int = 16
    lr: float = 5e-5
    head_lr: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    max_length: int | None = None
    held_out: float = 0.2
    freeze: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ConfigError("epochs >= 1 and batch_size >= 2 are needed")
        if not (0 < self.lr < math.inf and 0 < self.head_lr < math.inf):
            raise ConfigError(f"learning rates are above 0, got {self.lr} and {self.head_lr}")
        if not (0 < self.held_out < 1 and 0 <= self.warmup < 1):
            raise ConfigError(f"held_out={self.held_out} and warmup={self.warmup} are shares")
        if self.max_length is not None and self.max_length < 3:
            raise ConfigError(f"max_length={self.max_length} has no room for a text")
        if self.freeze not in (None, "trunk"):
            raise ConfigError(f"freeze is 'trunk' or None, got {self.freeze!r}", got=self.freeze)


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
        out: folder for the model, its card and the learning curve.
        recipe: how to train; single settings may be given by name: `epochs=5`.
        quiet: print nothing.

    Returns:
        A new task with the new labels. `task.card.training` says how it went.

    Raises:
        DataError: the texts cannot be used; names the line.
        ConfigError: settings that make no sense, or a network without such a head.
    """
    recipe = replace(recipe or Recipe(), **changes)
    start = time.perf_counter()
    found = labelled_texts(source, text, label)
    if out is not None:
        check_folder(Path(out))
    train, held = _split(found.targets, recipe)

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    counts = np.bincount(found.targets)
    shown = ", ".join(f"{n} {c}" for n, c in zip(found.labels[:12], counts, strict=False))
    say(f"{len(found.texts)} texts, {len(found.labels)} labels: {shown}")
    say(f"{len(train)} to train on, {len(held)} held out")
    random.manual_seed(recipe.seed)
    new = _new_task(task, found)
    rows = _encoded(new, found.texts, recipe)
    batches = _Batches(rows, found.targets, train, recipe)
    module = new.module
    module.train()

    def loss_of(_: Any, batch: tuple[Array, Array, Array]) -> Tensor:
        ids, mask, targets = (Tensor(part).to(device=new.device) for part in batch)
        return F.cross_entropy(module(ids, None if batch[1].all() else mask), targets)

    optimizer = _optimizer(new, recipe)
    steps = recipe.epochs * len(batches)
    rising = max(1, round(recipe.warmup * steps))

    def rate(step: int) -> float:
        return min((step + 1) / rising, max(0.0, (steps - step) / max(steps - rising, 1)))

    kept = [found.texts[i] for i in held]
    trainer = Trainer(
        module,
        optimizer,
        loss_of,
        batches,
        epochs=recipe.epochs,
        schedule=optim.LambdaLR(optimizer, rate),
        clip_norm=recipe.clip,
        evaluate=lambda _: {"accuracy": _accuracy(new, kept, found.targets[held], recipe)},
        quiet=quiet,
    )
    history = trainer.fit()
    module.eval()
    module.requires_grad_(True)
    accuracy = _accuracy(new, kept, found.targets[held], recipe)
    new.card.training.update(
        {
            "data": Path(source).name,
            "texts": f"{len(train)} trained on, {len(held)} held out",
            "accuracy on the held-out texts": f"{100 * accuracy:.1f} %",
            "seconds": round(time.perf_counter() - start, 1),
            "recipe": ", ".join(f"{k} {v}" for k, v in vars(recipe).items()),
        }
    )
    new.card.results = [
        {
            "name": "accuracy",
            "value": round(accuracy, 4),
            "dataset": Path(source).name,
            "split": f"{len(held)} held-out texts",
        }
    ]
    say(f"held-out accuracy {100 * accuracy:.1f} % ({len(held)} texts)")
    if out is not None:
        new.save(out)
        figures = {
            "training loss": history.column("loss"),
            "held-out accuracy": history.column("accuracy"),
        }
        save_chart(line_chart(figures, title="Fine-tuning"), Path(out) / "learning_curve.png")
        say(f"saved in {out}; load it with bt.load({str(out)!r})")
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


def _new_task(task: EncoderTask, found: LabelledTexts) -> TextClassifier:
    architecture = architecture_by_name(task.architecture)
    if architecture is None or not architecture.head:
        raise ConfigError(f"{task.architecture} has no head that could be replaced")
    module, config = with_new_head(
        architecture, task.config, task.module, len(found.labels), "text-classification"
    )
    module.to(device=task.device)
    card = Card(
        name=f"{task.card.name}-finetuned",
        architecture=task.architecture,
        task="text-classification",
        license=task.card.license,
        commercial=task.card.commercial,
        source=task.card.source,
        training={"from": task.card.name},
    )
    return TextClassifier(
        module,
        architecture=task.architecture,
        config=config,
        tokenizer=task.tokenizer,
        card=card,
        labels=found.labels,
    )


def _optimizer(task: TextClassifier, recipe: Recipe) -> optim.AdamW:
    """Two rates, and no decay of norms and biases."""
    architecture = architecture_by_name(task.architecture)
    assert architecture is not None
    parts = tuple(f"{part}." for part in (*architecture.head, *architecture.fresh))
    groups: dict[tuple[bool, bool], list[Any]] = {}
    for name, parameter in task.module.named_parameters():
        new = name.startswith(parts)
        if recipe.freeze == "trunk" and not new:
            parameter.requires_grad_(False)
            continue
        groups.setdefault((new, parameter.ndim > 1), []).append(parameter)
    return optim.AdamW(
        [
            {
                "params": parameters,
                "lr": recipe.head_lr if new else recipe.lr,
                "weight_decay": recipe.weight_decay if matrix else 0.0,
            }
            for (new, matrix), parameters in groups.items()
        ]
    )


def _encoded(task: TextClassifier, texts: list[str], recipe: Recipe) -> list[Array]:
    """The tokens of each text, without padding."""
    tokenizer = task._need_tokenizer()
    room = min(task.max_length, recipe.max_length or task.max_length)
    encoded = tokenizer(texts, max_length=room)
    return [ids[mask] for ids, mask in zip(encoded.ids, encoded.mask, strict=True)]


class _Batches:
    """Batches of texts of like length, in another order each epoch: ids, mask, targets."""

    def __init__(self, rows: list[Array], targets: Array, chosen: Array, recipe: Recipe) -> None:
        self._rows, self._targets, self._chosen, self._recipe = rows, targets, chosen, recipe
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self._chosen) // self._recipe.batch_size)

    def __iter__(self) -> Iterator[tuple[Array, Array, Array]]:
        rng = np.random.default_rng((self._recipe.seed, self.epoch))
        self.epoch += 1
        order, size = rng.permutation(self._chosen), self._recipe.batch_size
        batches: list[Array] = []
        for start in range(0, len(order), _SORTED * size):
            part = order[start : start + _SORTED * size]
            part = part[np.argsort([len(self._rows[i]) for i in part], kind="stable")]
            batches += [part[i : i + size] for i in range(0, len(part), size)]
        for i in rng.permutation(len(batches)):
            yield self._padded(batches[i])

    def _padded(self, chosen: Array) -> tuple[Array, Array, Array]:
        longest = max(len(self._rows[i]) for i in chosen)
        ids = np.zeros((len(chosen), longest), np.int64)
        mask = np.zeros((len(chosen), longest), bool)
        for row, i in enumerate(chosen):
            ids[row, : len(self._rows[i])] = self._rows[i]
            mask[row, : len(self._rows[i])] = True
        return ids, mask, self._targets[chosen]


def _accuracy(task: TextClassifier, texts: list[str], targets: Array, recipe: Recipe) -> float:
    best = task.scores(texts, batch_size=2 * recipe.batch_size).argmax(axis=1)
    return float((best == targets).mean())

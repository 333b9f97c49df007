"""Fine-tuning an embedder on pairs of texts that belong together.

Within a batch, each first text is to find its own second one among all (van den Oord et al. 2018);
pairs with a score are taught by the cosine instead (Reimers and Gurevych 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core import nn, random
from ...core.creation import arange
from ...core.data.text_files import read_csv, read_jsonl
from ...core.errors import ConfigError, DataError
from ...core.nn import functional as F
from ...core.ops.elementwise import sqrt
from ...core.ops.reduction import sum as total
from ...core.paths import check_folder
from ...core.tensor import Tensor
from .training import (
    Array,
    Batches,
    Job,
    Settings,
    changed,
    copied,
    decayed_apart,
    fit,
    halves,
    padded,
    shorter,
    speaker,
)

if TYPE_CHECKING:
    from ..tasks.embedder import Embedder

_POOLED = ("mean", "cls", "mean-sqrt", "last")  # ways of pooling that learn here


@dataclass(frozen=True)
class Recipe(Settings):
    """How to fine-tune an embedder: `Settings`, and

    Args:
        temperature: divides the cosines: the smaller, the more the nearest wrong text counts.
    """

    epochs: int = 1
    batch_size: int = 32
    lr: float = 2e-5
    held_out: float = 0.1
    temperature: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 2:
            raise ConfigError("batch_size is 2 at least: each pair learns from the others")
        if not self.temperature > 0:
            raise ConfigError(f"temperature={self.temperature} is above 0", got=self.temperature)


@dataclass(frozen=True)
class Pairs:
    """Pairs of texts, and how alike each is, from 0 to 1, where that is told."""

    first: list[str]
    second: list[str]
    scores: Array | None


def read_pairs(
    source: str | Path, names: tuple[str, str] = ("first", "second"), score: str = "score"
) -> Pairs:
    """The pairs of a CSV or JSONL file.

    Args:
        names: of the columns or fields of the two texts.
        score: of the one that says how alike they are, if there is one; any range is brought to 0
            to 1.
    Raises:
        DataError: no such columns, empty texts, a score that is no number; names the line.
    """
    path = Path(source)
    lines = path.suffix.lower() in (".jsonl", ".ndjson")
    first: list[str] = []
    second: list[str] = []
    scores: list[float] = []
    for number, row in enumerate(read_jsonl(path) if lines else read_csv(path), 1):
        where = f"{path}, {'line' if lines else 'row'} {number}"
        if not isinstance(row, dict) or not set(names) <= row.keys():
            has = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise DataError(
                f"{where}: {names[0]!r} and {names[1]!r} are wanted, and it has {has}",
                file=str(path),
            )
        texts = [row[name] for name in names]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise DataError(f"{where}: a text is empty", file=str(path))
        first.append(texts[0])
        second.append(texts[1])
        if score in row:
            try:
                scores.append(float(row[score]))
            except (TypeError, ValueError):
                raise DataError(
                    f"{where}: the score {row[score]!r} is no number", file=str(path)
                ) from None
    if len(first) < 3:
        raise DataError(f"{path} holds {len(first)} pairs: three are the least", file=str(path))
    if scores and len(scores) != len(first):
        raise DataError(f"{path}: some rows have a {score!r}, and others none", file=str(path))
    return Pairs(first, second, _to_one(scores, path) if scores else None)


def has_pairs(source: str | Path, names: tuple[str, str] | None = None) -> bool:
    """Whether the first row of a file is a pair of texts, by the names of its columns."""
    path = Path(source)
    lines = path.suffix.lower() in (".jsonl", ".ndjson")
    row = next(iter(read_jsonl(path) if lines else read_csv(path)), None)
    return isinstance(row, dict) and set(names or ("first", "second")) <= row.keys()


def _to_one(scores: list[float], path: Path) -> Array:
    values = np.array(scores, np.float32)
    low, high = values.min(), values.max()
    if not np.isfinite(values).all() or low == high:
        raise DataError(f"{path}: the scores are all alike or not finite", file=str(path))
    if low >= 0 and high <= 1:
        return values
    return np.asarray((values - low) / (high - low), np.float32)


def finetune(
    task: Embedder,
    source: str | Path,
    *,
    out: str | Path | None = None,
    recipe: Recipe | None = None,
    quiet: bool = False,
    names: tuple[str, str] = ("first", "second"),
    score: str = "score",
    **changes: Any,
) -> Embedder:
    """Teach an embedder which texts belong together; the given task is left as it was.

    Args:
        source: a CSV or JSONL file of pairs; see `read_pairs`.
        out: folder for the model (for its adapter alone, with `lora=`), its card, its learning
            curve and the log of the run.
        recipe: how to train; single settings may be given by name: `epochs=2`.
        quiet: print nothing.

    Returns:
        A new task. `task.card.training` says how often the right text was the nearest among the
        held-out pairs, before and after; with scores, how well cosines correlate with them.

    Raises:
        DataError: the pairs cannot be used; names the line.
        ConfigError: settings that make no sense, or a way of pooling that cannot learn here.
    """
    how: Recipe = changed(recipe, Recipe(), changes)
    modes = task.pooling.modes
    if len(modes) != 1 or modes[0] not in _POOLED or task.pooling.dense:
        raise ConfigError(
            f"{task.card.name} pools by {', '.join(modes)}"
            f"{' and linear maps' if task.pooling.dense else ''}; what learns here is one of "
            f"{', '.join(_POOLED)} alone"
        )
    found = read_pairs(source, names, score)
    if out is not None:
        check_folder(Path(out))
    train, held = halves(len(found.first), how.held_out, how.seed)
    say = speaker(quiet)
    say(f"{len(train)} pairs to learn from, {len(held)} held out")
    random.manual_seed(how.seed)
    new: Embedder = copied(task, how)
    new.tokenizer = shorter(task.tokenizer, how.max_length)
    tokenizer = new._need_tokenizer()
    sides = []
    for texts in (found.first, found.second):
        encoded = tokenizer(texts, max_length=new.max_length)
        sides.append([i[m] for i, m in zip(encoded.ids, encoded.mask, strict=True)])

    def made(chosen: Array) -> tuple[Any, Any, Array | None]:
        return (
            padded([sides[0][i] for i in chosen]),
            padded([sides[1][i] for i in chosen]),
            None if found.scores is None else found.scores[chosen],
        )

    def loss(module: nn.Module, batch: tuple[Any, Any, Array | None]) -> Tensor:
        a, b = (_vectors(module, part, modes[0], new.device) for part in batch[:2])
        if batch[2] is not None:
            return F.mse_loss(total(a * b, axis=-1), Tensor(batch[2]).to(device=new.device))
        near = a @ b.T / how.temperature
        return F.cross_entropy(near, arange(len(a), device=new.device))

    def measure() -> dict[str, float]:
        a, b = (
            new.encode([texts[i] for i in held], batch_size=how.batch_size)
            for texts in (found.first, found.second)
        )
        a, b = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (a, b))
        if found.scores is not None:
            return {"rank correlation": _spearman((a * b).sum(1), found.scores[held])}
        return {"accuracy": float(((a @ b.T).argmax(1) == np.arange(len(a))).mean())}

    ((name, before),) = measure().items()
    say(f"{name} on the held-out pairs before: {before:.3f}")
    lengths = np.array([max(len(x), len(y)) for x, y in zip(*sides, strict=True)])
    figures = fit(
        Job(
            new,
            Batches(lengths, train, how.batch_size, how.seed, made),
            loss,
            decayed_apart(new.module, lambda _: how.lr, how.weight_decay),
            measure,
            {
                "pairs": f"{len(train)} learnt from, {len(held)} held out",
                f"{name} before": f"{before:.4g}",
            },
        ),
        how,
        out=out,
        source=source,
        quiet=quiet,
    )
    say(f"{name} on the held-out pairs after: {figures[name]:.3f}")
    return new


def _vectors(module: Any, part: tuple[Array, Array], mode: str, device: Any) -> Tensor:
    """Vectors of length 1. Shape: (B, T) -> (B, D)."""
    ids, mask = part
    real = Tensor(mask).to(device=device)
    found = module(Tensor(ids).to(device=device), None if mask.all() else real)
    tokens = found if isinstance(found, Tensor) else found.last_hidden_state
    if mode == "cls":
        pooled = tokens[:, 0]
    elif mode == "last":
        last = Tensor(mask.sum(1) - 1).to(device=device)
        pooled = tokens[arange(len(ids), device=device), last]
    else:  # means of any kind: their length is changed in the end
        pooled = total(tokens * real[..., None].astype(tokens.dtype), axis=1)
    length = sqrt(total(pooled * pooled, axis=-1, keepdims=True) + 1e-12)
    return pooled / length


def _spearman(a: Array, b: Array) -> float:
    """The correlation of ranks, ties at their mean."""
    ranks = []
    for values in (a, b):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        ranks.append((ends - (counts - 1) / 2)[inverse])
    x, y = (r - r.mean() for r in ranks)
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / size) if size else 0.0

"""Fine-tuning a causal language model: on plain text, or on conversations of which it learns the
answers.

Plain text is cut into windows that lie side by side, so that no token is padding. A conversation is
a row of its own; its template is asked where each answer begins and ends, and the loss counts the
tokens of answers alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core import nn, random
from ...core.data.text_files import read_csv, read_jsonl
from ...core.errors import ConfigError, DataError
from ...core.insight.progress import progress
from ...core.nn import functional as F
from ...core.paths import check_folder
from ...core.state import inference_mode
from ...core.tensor import Tensor
from .training import (
    Array,
    Batches,
    Job,
    Settings,
    architecture_of,
    changed,
    copied,
    decayed_apart,
    fit,
    halves,
    padded,
    speaker,
)

if TYPE_CHECKING:
    from ..tasks.generator import TextGenerator

_IGNORED = -100
_LENGTH = 256  # tokens of a row unless told otherwise


@dataclass(frozen=True)
class Recipe(Settings):
    """How to fine-tune a language model: `Settings`, and

    Args:
        freeze: "trunk" lets the map to the vocabulary alone learn, where it is not the table of
            vectors itself.
    """

    epochs: int = 1
    batch_size: int = 4
    lr: float = 5e-5
    held_out: float = 0.1
    freeze: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.freeze not in (None, "trunk"):
            raise ConfigError(f"freeze is 'trunk' or None, got {self.freeze!r}", got=self.freeze)
        if self.freeze and self.lora:
            raise ConfigError("freeze='trunk' lets the head alone learn: no lora= beside it")


@dataclass(frozen=True)
class Rows:
    """Texts as tokens.

    Attributes:
        ids: of each row.
        learnt: which of them the loss counts, as what is to be said.
        chats: whether the rows are conversations.
    """

    ids: list[Array]
    learnt: list[Array]
    chats: bool


def finetune(
    task: TextGenerator,
    source: str | Path,
    *,
    out: str | Path | None = None,
    recipe: Recipe | None = None,
    quiet: bool = False,
    text: str = "text",
    **changes: Any,
) -> TextGenerator:
    """Let a language model learn on from texts or conversations; the given task is left as it was.

    Args:
        source: a .txt or .md file; a CSV or JSONL file of texts; or a JSONL file whose objects have
            `messages` (a conversation), or `prompt` and `completion`.
        out: folder for the model (for its adapter alone, with `lora=`), its card, its learning
            curve and the log of the run.
        recipe: how to train; single settings may be given by name: `epochs=2`, `lora=8`.
        quiet: print nothing.
        text: name of the column or field of texts.

    Returns:
        A new task. `task.card.training` says how it went: perplexity before and after.

    Raises:
        DataError: the file cannot be used; names the line.
        ConfigError: settings that make no sense; conversations for a model without a template.
    """
    how: Recipe = changed(recipe, Recipe(), changes)
    length = min(how.max_length or _LENGTH, task.context or how.max_length or _LENGTH)
    rows = read_rows(task, source, length, text)
    if out is not None:
        check_folder(Path(out))
    if len(rows.ids) < 2:
        raise DataError(
            f"{source} gives {len(rows.ids)} rows of {length} tokens: one to learn from and one to "
            "measure are the least. Shorter rows: max_length=",
            file=str(source),
        )
    say = speaker(quiet)
    train, held = _split(rows, how)
    what = "conversations" if rows.chats else f"windows of {length} tokens"
    tokens = sum(len(rows.ids[i]) for i in train)
    say(f"{len(train)} {what} to learn from ({tokens:,} tokens), {len(held)} held out")
    random.manual_seed(how.seed)
    heads = architecture_of(task).head
    new: TextGenerator = copied(task, how, excluded=heads)
    _freeze(new.module, how, heads)

    def made(chosen: Array) -> tuple[Array, Array, Array]:
        return _batch([rows.ids[i] for i in chosen], [rows.learnt[i] for i in chosen])

    def loss(module: nn.Module, batch: tuple[Array, Array, Array]) -> Tensor:
        return _loss(module, batch, new.device)

    def measure() -> dict[str, float]:
        batches = [made(held[i : i + how.batch_size]) for i in range(0, len(held), how.batch_size)]
        return {"perplexity": _perplexity(new.module, batches, new.device, quiet)}

    before = measure()["perplexity"]
    say(f"perplexity of the held-out part before: {before:.4g}")
    figures = fit(
        Job(
            new,
            Batches(np.array([len(r) for r in rows.ids]), train, how.batch_size, how.seed, made),
            loss,
            decayed_apart(new.module, lambda _: how.lr, how.weight_decay),
            measure,
            {
                "rows": f"{len(train)} {what} learnt from, {len(held)} held out",
                "perplexity before": f"{before:.4g}",
            },
        ),
        how,
        out=out,
        source=source,
        quiet=quiet,
    )
    say(f"perplexity of the held-out part after: {figures['perplexity']:.4g}")
    return new


def evaluate(
    task: TextGenerator,
    source: str | Path,
    *,
    max_length: int | None = None,
    batch_size: int = 4,
    text: str = "text",
) -> dict[str, float]:
    """How well a model foretells texts or answers: `{"perplexity", "nats", "tokens"}`.

    Args:
        source: as for `finetune`; all of it is measured.
        max_length: tokens of a row.
    """
    length = min(max_length or _LENGTH, task.context or max_length or _LENGTH)
    rows = read_rows(task, source, length, text)
    if not rows.ids:
        raise DataError(f"{source} holds no row of {length} tokens", file=str(source))
    batches = [
        _batch(rows.ids[i : i + batch_size], rows.learnt[i : i + batch_size])
        for i in range(0, len(rows.ids), batch_size)
    ]
    perplexity = _perplexity(task.module, batches, task.device, False)
    tokens = sum(int(one[1:].sum()) for one in rows.learnt)
    return {"perplexity": perplexity, "nats": math.log(perplexity), "tokens": tokens}


# -- texts to rows -----------------------------------------------------------------------------


def read_rows(task: TextGenerator, source: str | Path, length: int, text: str = "text") -> Rows:
    """The rows of a file for a model.

    Args:
        length: tokens of a row at most.
    Raises:
        DataError: the file cannot be used; names the line.
    """
    path = Path(source)
    kind = path.suffix.lower()
    if kind in (".txt", ".md"):
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read as UTF-8: {error}", file=str(path)) from None
        return _windows(task, [content], length, path)
    if kind == ".csv":
        texts = [_field(row, text, path, i) for i, row in enumerate(read_csv(path), 1)]
        return _windows(task, texts, length, path)
    if kind not in (".jsonl", ".ndjson"):
        raise DataError(
            f"{path}: texts are .txt, .md, .csv or .jsonl, and conversations .jsonl", file=str(path)
        )
    objects = list(read_jsonl(path))
    talks = [isinstance(row, dict) and ("messages" in row or "prompt" in row) for row in objects]
    if any(talks):
        if not all(talks):
            number = talks.index(False) + 1
            raise DataError(
                f"{path}, line {number} has no messages, and other lines have", file=str(path)
            )
        return _conversations(task, objects, length, path)
    return _windows(
        task, [_field(row, text, path, i) for i, row in enumerate(objects, 1)], length, path
    )


def _field(row: Any, name: str, path: Path, number: int) -> str:
    if not isinstance(row, dict) or not isinstance(row.get(name), str) or not row[name].strip():
        has = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise DataError(
            f"{path}, line {number}: a text {name!r} is wanted, and it has {has}", file=str(path)
        )
    return str(row[name])


def _windows(task: TextGenerator, texts: Sequence[str], length: int, path: Path) -> Rows:
    """Texts one after the other, with the token that ends texts between, cut into windows."""
    tokenizer = task._need_tokenizer()
    between = [tokenizer.eos] if tokenizer.eos is not None else []
    parts: list[int] = []
    for content in texts:
        parts += [*tokenizer.encode(content, special=False), *between]
    if len(parts) < 4:
        raise DataError(f"{path} holds {len(parts)} tokens: too few to learn from", file=str(path))
    ids = np.array(parts, np.int64)
    if len(ids) < 2 * length:  # little text: two windows, whatever is asked for
        length = max(2, len(ids) // 2)
    rows = [ids[i : i + length] for i in range(0, len(ids) - length + 1, length)]
    return Rows(rows, [np.ones(length, bool)] * len(rows), chats=False)


def _conversations(
    task: TextGenerator, objects: Sequence[dict[str, Any]], length: int, path: Path
) -> Rows:
    ids: list[Array] = []
    learnt: list[Array] = []
    with progress(objects, total=len(objects), what="reading", unit="conversations") as bar:
        for number, row in enumerate(objects, 1):
            where = f"{path}, line {number}"
            tokens, answers = _conversation(task, row, where)
            tokens, answers = tokens[:length], answers[:length]
            if answers[1:].any():  # else the answers lie beyond the length
                ids.append(tokens)
                learnt.append(answers)
            bar.update(1)
    if not ids:
        raise DataError(
            f"{path}: in no conversation an answer begins within {length} tokens: max_length=",
            file=str(path),
        )
    return Rows(ids, learnt, chats=True)


def _conversation(task: TextGenerator, row: dict[str, Any], where: str) -> tuple[Array, Array]:
    """The tokens of a conversation, and which belong to answers."""
    tokenizer = task._need_tokenizer()
    if "messages" not in row:
        said, answer = row.get("prompt"), row.get("completion")
        if not isinstance(said, str) or not isinstance(answer, str) or not answer:
            raise DataError(f"{where}: prompt and completion are wanted, both texts")
        if tokenizer.chat is None:
            content, spans = said + answer, [(len(said), len(said) + len(answer))]
            return _marked(task, content, spans, ends=True)
        row = {"messages": [{"role": "user", "content": said},
                            {"role": "assistant", "content": answer}]}  # fmt: skip
    messages = row["messages"]
    if not isinstance(messages, list) or not any(
        isinstance(m, dict) and m.get("role") == "assistant" for m in messages
    ):
        raise DataError(f"{where}: messages are a list in which an assistant says something")
    if tokenizer.chat is None:
        raise ConfigError(task._no_template(), model=task.card.name)
    content = tokenizer.chat.render(messages, add_generation_prompt=False)
    spans = []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            start = tokenizer.chat.render(messages[:i], add_generation_prompt=True) if i else ""
            end = tokenizer.chat.render(messages[: i + 1], add_generation_prompt=False)
            if not (content.startswith(start) and content.startswith(end.rstrip())):
                raise DataError(
                    f"{where}: the template of {task.card.name} changes what was said earlier when "
                    "something follows, so that answers cannot be told apart"
                )
            spans.append((len(start), len(end)))
    return _marked(task, content, spans, ends=False)


def _marked(
    task: TextGenerator, content: str, spans: Sequence[tuple[int, int]], *, ends: bool
) -> tuple[Array, Array]:
    """The tokens of a text, and which lie in the spans.

    Args:
        ends: put the token that ends texts behind, which is learnt too.
    """
    tokenizer = task._need_tokenizer()
    told = tokenizer.spans(content)
    plain = tokenizer.encode(content, special=False)
    ids, offsets = list(told.ids), list(told.offsets)
    extra = len(ids) - len(plain)  # what stands around a text is in a template already
    if extra and ids[-len(plain) :] == plain:
        ids, offsets = ids[extra:], offsets[extra:]
    elif extra and ids[: len(plain)] == plain:
        ids, offsets = ids[: len(plain)], offsets[: len(plain)]
    learnt = [any(a <= begin and end <= b for a, b in spans) for begin, end in offsets]
    if ends and tokenizer.eos is not None:
        ids, learnt = [*ids, tokenizer.eos], [*learnt, True]
    return np.array(ids, np.int64), np.array(learnt, bool)


# -- learning ----------------------------------------------------------------------------------


def _split(rows: Rows, recipe: Recipe) -> tuple[Array, Array]:
    """Numbers of rows; of a text its end is held out, since neighbours are too much alike."""
    count = len(rows.ids)
    if rows.chats:
        return halves(count, recipe.held_out, recipe.seed)
    held = min(max(1, round(recipe.held_out * count)), count - 1)
    return np.arange(count - held), np.arange(count - held, count)


def _freeze(module: nn.Module, recipe: Recipe, heads: Sequence[str]) -> None:
    if recipe.freeze is None:
        return
    names = tuple(f"{head}." for head in heads)
    chosen = {name for name, _ in module.named_parameters() if name.startswith(names)}
    if not chosen:
        raise ConfigError(
            "freeze='trunk' leaves nothing to learn: the map to the vocabulary is the table of "
            "vectors itself. Adapters learn beside frozen weights: lora=8"
        )
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in chosen)


def _batch(ids: Sequence[Array], learnt: Sequence[Array]) -> tuple[Array, Array, Array]:
    """Tokens, where they are real, and what each place should say next."""
    tokens, mask = padded(ids)
    counted, _ = padded([one.astype(np.int64) for one in learnt])
    wanted = np.full(tokens.shape, _IGNORED, np.int64)
    wanted[:, :-1] = np.where(counted[:, 1:] > 0, tokens[:, 1:], _IGNORED)
    return tokens, mask, wanted


def _loss(module: Any, batch: tuple[Array, Array, Array], device: Any) -> Tensor:
    tokens, mask, wanted = batch
    ids = Tensor(tokens).to(device=device)
    logits = module(ids, None if mask.all() else Tensor(mask).to(device=device))
    flat = logits.reshape(-1, logits.shape[-1])
    goal = Tensor(wanted.reshape(-1)).to(device=device)
    return F.cross_entropy(flat, goal, ignore_index=_IGNORED)


def _perplexity(module: Any, batches: Sequence[Any], device: Any, quiet: bool) -> float:
    """exp of the mean loss of all tokens that count."""
    total = count = 0.0
    training = module.training
    module.eval()
    with progress(
        total=len(batches), what="measuring", unit="batches", enabled=False if quiet else None
    ) as bar, inference_mode():  # fmt: skip
        for batch in batches:
            tokens = int((batch[2] != _IGNORED).sum())
            total += float(_loss(module, batch, device).item()) * tokens
            count += tokens
            bar.update(1)
    module.train(training)
    return float(np.exp(min(total / max(count, 1), 700)))

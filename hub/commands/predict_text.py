"""`bestiary predict` with models that read texts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import ConfigError, DataError
from .answers import Answers, complain

if TYPE_CHECKING:
    from .predict import Asked

_SHOWN = 6  # numbers of a vector


def predict_text(model: Any, inputs: tuple[str, ...], asked: Asked) -> int:
    """What a model says of texts; 1 if one of them could not be used.

    An input is a text, `@FILE` for the lines of a file, or `-` for those of the standard input.

    Raises:
        ConfigError: it is for something else.
    """
    asked.refuse("reads texts", "labels", "threshold", "draw", "masks", "explain", "coco")
    if model.task not in _RUN:
        other = {"text-generation": "\nTo continue a text: bestiary generate, bestiary chat"}
        raise ConfigError(
            f"{asked.name} is for {model.task}, which predict does not run."
            + other.get(model.task, ""),
            task=model.task,
        )
    if model.task != "question-answering":
        asked.refuse("asks nothing", "context")
    failed = 0
    with Answers(asked.as_json, asked.csv, ("input", *_COLUMNS[model.task])) as answers:
        for text in _texts(inputs):
            try:
                found = _RUN[model.task](model, text, asked)
            except DataError as error:
                failed += 1
                complain(error)
                continue
            rows = [{"input": text, **row} for row in _rows(found)]
            answers.add(text, found, _lines(found), rows)
    return 1 if failed else 0


def _texts(inputs: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for given in inputs:
        if given == "-":
            found += [line.rstrip("\n") for line in sys.stdin if line.strip()]
        elif given.startswith("@"):
            found += [line for line in _content(given[1:]).splitlines() if line.strip()]
        else:
            found.append(given)
    return found


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} could not be read as UTF-8 text: {error}") from error


def _classified(model: Any, text: str, asked: Asked) -> Any:
    return model(text, top=asked.top or 5)


def _named(model: Any, text: str, asked: Asked) -> Any:
    return model(text)


def _answered(model: Any, text: str, asked: Asked) -> Any:
    if asked.context is None:
        raise click.UsageError(
            f"{asked.name} finds answers in a text: --context 'the text', or --context @FILE"
        )
    context = _content(asked.context[1:]) if asked.context.startswith("@") else asked.context
    found = model(text, context, top=asked.top or 1)
    return found if isinstance(found, list) else [found]


def _embedded(model: Any, text: str, asked: Asked) -> Any:
    return [float(x) for x in model.encode(text)]


def _rewritten(model: Any, text: str, asked: Asked) -> Any:
    return [{"text": model(text)}]


_RUN: dict[str, Any] = {
    "feature-extraction": _embedded,
    "fill-mask": _classified,
    "question-answering": _answered,
    "text-classification": _classified,
    "text2text-generation": _rewritten,
    "token-classification": _named,
}


_COLUMNS: dict[str, tuple[str, ...]] = {
    "feature-extraction": ("vector",),
    "fill-mask": ("token", "id", "score", "text"),
    "question-answering": ("answer", "score", "start", "end"),
    "text-classification": ("label", "score"),
    "text2text-generation": ("text",),
    "token-classification": ("label", "score", "text", "start", "end"),
}


def _flat(answer: Any) -> list[dict[str, Any]]:
    """The answers of all gaps of a text, one after the other."""
    if answer and isinstance(answer[0], list):
        return [one for gap in answer for one in gap]
    return list(answer)


def _lines(answer: Any) -> list[str]:
    if answer and isinstance(answer[0], float):
        more = ", ..." if len(answer) > _SHOWN else ""
        return [f"{len(answer)} numbers: {', '.join(f'{x:.4f}' for x in answer[:_SHOWN])}{more}"]
    return [_line(one) for one in _flat(answer)] or ["nothing"]


def _line(one: dict[str, Any]) -> str:
    score = f"{one['score']:6.1%}  " if "score" in one else ""
    label = one.get("label") or one.get("token") or one.get("answer") or ""
    said = one.get("text", "")
    place = f"  {one['start']} to {one['end']}" if "start" in one else ""
    return f"{score}{label}{'  ' if label and said else ''}{said}{place}"


def _rows(answer: Any) -> list[dict[str, Any]]:
    if answer and isinstance(answer[0], float):
        return [{"vector": " ".join(f"{x:.8g}" for x in answer)}]
    return _flat(answer)

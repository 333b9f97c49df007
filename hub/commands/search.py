"""`bestiary search`: texts that mean what a query means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ...core.errors import ConfigError
from ..loading import load
from .output import json_option, print_json

_MODEL = "all-minilm-l6-v2"
_PROMPTS = {"query": ("query", "search_query"), "passage": ("passage", "document")}


@click.command("search")
@click.argument("texts", metavar="FILE", type=click.Path(exists=True, path_type=Path))
@click.argument("query")
@click.option("--model", default=_MODEL, show_default=True, help="An embedder, by name or path.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="Answers.")
@click.option("--field", help="Column of a CSV file, or field of a JSONL file.")
@click.option(
    "--index",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that keeps the vectors: made at the first search, used by the next ones.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1.")
@json_option
def search_command(
    texts: Path,
    query: str,
    model: str,
    top: int,
    field: str | None,
    index: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Find what means most nearly the same as QUERY in FILE.

    FILE is a text file, whose lines are searched, a CSV or JSONL file, or a folder with .txt and
    .md files, whose paragraphs are. Long texts are cut into passages.
    """
    from ...text.search import Index, passages

    embedder = load(model, device=device)
    if embedder.task != "feature-extraction":
        raise ConfigError(f"{model} is for {embedder.task}, and search needs an embedder of texts")
    rows, places = passages(texts, field)
    found = Index.load(index) if index is not None and (index / "texts.json").is_file() else None
    if found is not None and (found.texts != rows or found.model != embedder.card.name):
        click.echo(f"{index} is of other texts or another model, and made anew", err=True)
        found = None
    if found is None:
        made = embedder.index(rows, prompt_name=_prompt(embedder, "passage"))
        found = Index(rows, made.vectors, made.model, places)
        if index is not None:
            found.save(index)
    answers = embedder.search(query, found, top=top, prompt_name=_prompt(embedder, "query"))
    if as_json:
        print_json(answers)
        return
    for answer in answers:
        click.echo(f"{answer['score']:6.3f}  {answer['place']}  {answer['text']}")


def _prompt(embedder: Any, role: str) -> str | None:
    """The name of the model's own prompt for queries or for what is searched, if it has one."""
    return next((name for name in _PROMPTS[role] if name in embedder.pooling.prompts), None)

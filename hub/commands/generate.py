"""`bestiary generate`: what a language model makes of a prompt."""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

import click

from ...core.errors import ConfigError, DataError
from ..loading import load
from .output import json_option, print_json


@click.command("generate")
@click.argument("name")
@click.argument("prompt")
@click.option("--max-new-tokens", type=click.IntRange(1), help="The most tokens of the answer.")
@click.option("--temperature", type=click.FloatRange(0), help="0 takes the best token each time.")
@click.option("--top-k", type=click.IntRange(0), help="Draw from the K best tokens.")
@click.option("--top-p", type=float, help="Draw from the tokens that hold this share.")
@click.option("--min-p", type=float, help="Draw from tokens this share as probable as the best.")
@click.option("--repetition-penalty", type=float, help="Above 1: against what was said before.")
@click.option("--seed", type=click.IntRange(0), help="For draws that repeat themselves.")
@click.option("--stop", multiple=True, help="A string that ends the answer; may be repeated.")
@click.option("--choices", help="The answer is one of these: 'yes,no'.")
@click.option(
    "--schema",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with a JSON schema that the answer follows.",
)
@click.option("--beams", type=click.IntRange(1), help="Beam search over so many candidates.")
@click.option("--draft", help="A smaller model of the same vocabulary, to be faster.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1.")
@click.option("--dtype", help="Of the weights: int8, int4, bfloat16, float32, ...")
@json_option
def generate_command(
    name: str,
    prompt: str,
    stop: tuple[str, ...],
    choices: str | None,
    schema: Path | None,
    beams: int | None,
    draft: str | None,
    device: str,
    dtype: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Continue PROMPT with the language model NAME; `-` reads the prompt from standard input.

    The answer is printed as it is written, without the prompt.
    """
    options = {key: value for key, value in settings.items() if value is not None}
    if stop:
        options["stop"] = stop
    if beams is not None:
        options["num_beams"] = beams
    if choices is not None:
        options["choices"] = [word.strip() for word in choices.split(",") if word.strip()]
    if schema is not None:
        options["schema"] = _read(schema)
    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt
    model = generator(name, device, dtype)
    if draft is not None:
        options["draft"] = generator(draft, device, dtype)
    if as_json:
        found = model.generate(text, details=True, **options)
        print_json(found.to_dict())
    elif (beams or 1) > 1:
        click.echo(model.generate(text, **options))
    else:
        for piece in model.stream(text, **options):
            show(piece)
        click.echo()


def generator(name: str, device: str, dtype: str | None = None) -> Any:
    """A language model.

    Raises:
        ConfigError: it is for something else.
        DtypeError: weights cannot be of such a type.
    """
    model = load(name, device=device, dtype=dtype)
    if model.task != "text-generation":
        raise ConfigError(
            f"{name} is for {model.task} and does not continue texts.\n"
            "Models that do: bestiary list --task text-generation",
            task=model.task,
        )
    return model


def show(piece: str) -> None:
    """Write a piece of an answer at once; to a terminal without characters that steer it."""
    if sys.stdout.isatty():
        piece = "".join(c for c in piece if c in "\n\t" or unicodedata.category(c) != "Cc")
    sys.stdout.write(piece)
    sys.stdout.flush()


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}", path=str(path)) from error

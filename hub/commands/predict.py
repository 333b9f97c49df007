"""`bestiary predict`: what a model says of pictures."""

from __future__ import annotations

from pathlib import Path

import click

from ...core.errors import ConfigError
from ..loading import load
from .output import json_option, print_json


@click.command("predict")
@click.argument("name")
@click.argument("inputs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="Answers each.")
@click.option("--labels", help="For models like CLIP: the words to choose from, 'a cat,a dog'.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1.")
@json_option
def predict_command(
    name: str, inputs: tuple[Path, ...], top: int, labels: str | None, device: str, as_json: bool
) -> None:
    """Run the model NAME on pictures, or on folders of them."""
    model = load(name, device=device)
    settings: dict[str, object] = {"top": top}
    if model.task == "zero-shot-image-classification":
        words = [word.strip() for word in (labels or "").split(",") if word.strip()]
        if not words:
            raise click.UsageError(f"{name} chooses from words of yours: --labels 'a cat,a dog'")
        settings["labels"] = words
    elif model.task != "image-classification":
        raise ConfigError(f"{name} is for {model.task}, which predict does not run yet")
    elif labels is not None:
        raise click.UsageError(f"{name} has labels of its own; --labels is for models like CLIP")
    answers: dict[str, list[dict[str, object]]] = {}
    for path in inputs:
        found = model(path, **settings)
        answers.update(found if path.is_dir() else {str(path): found})
    if as_json:
        print_json(answers)
        return
    for path_name, found in answers.items():
        click.echo(path_name)
        for answer in found:
            click.echo(f"  {answer['score']:6.1%}  {answer['label']}")

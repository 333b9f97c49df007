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
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1.")
@json_option
def predict_command(
    name: str, inputs: tuple[Path, ...], top: int, device: str, as_json: bool
) -> None:
    """Run the model NAME on pictures, or on folders of them."""
    model = load(name, device=device)
    if model.task != "image-classification":
        raise ConfigError(f"{name} is for {model.task}, which predict does not run yet")
    answers: dict[str, list[dict[str, object]]] = {}
    for path in inputs:
        answers.update(model(path, top=top) if path.is_dir() else {str(path): model(path, top=top)})
    if as_json:
        print_json(answers)
        return
    for path_name, found in answers.items():
        click.echo(path_name)
        for answer in found:
            click.echo(f"  {answer['score']:6.1%}  {answer['label']}")

"""`bestiary evaluate`: how good a model is on labelled pictures, known boxes or masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from ...core.errors import ConfigError, DataError
from ..loading import load
from .output import json_option, print_json


@click.command("evaluate")
@click.argument("name")
@click.argument("data", type=click.Path(exists=True, path_type=Path), required=False)
@click.option("--episodes", type=click.IntRange(1), default=20, help="Agents: how many to play.")
@click.option("--env", help="Agents: an environment; the agent's own unless given.")
@click.option("--device", default="cpu", show_default=True)
@json_option
def evaluate_command(
    name: str, data: Path | None, episodes: int, env: str | None, device: str, as_json: bool
) -> None:
    """Measure the model NAME on DATA, labelled as for `finetune`.

    Where DATA has a split, only its held-out part is used. The classes must be the model's. An
    agent needs no DATA: it plays.
    """
    from ...vision.labelled import HELD_OUT, labelled_pictures

    model = load(name, device=device)
    if hasattr(model, "play"):
        played = model.play(env, episodes)
        if as_json:
            print_json(played.to_dict())
        else:
            click.echo(str(played))
        return
    if data is None:
        raise click.UsageError(f"evaluate {name}: on which DATA?")
    if env is not None:
        raise click.UsageError(f"evaluate {name}: --env is for agents, and this is none")
    if model.task == "text-classification":
        measured = model.evaluate(data)
        if as_json:
            print_json(measured)
            return
        click.echo(f"accuracy {measured['accuracy']:.1%} ({measured['texts']} texts)")
        for label, share in measured["labels"].items():
            click.echo(f"  {share:6.1%}  {label}")
        return
    if model.task == "text-generation":
        told = model.evaluate(data)
        if as_json:
            print_json(told)
        else:
            click.echo(
                f"perplexity {told['perplexity']:.4g}, {told['nats']:.4g} nats a token "
                f"({told['tokens']:,} tokens)"
            )
        return
    if model.task in ("object-detection", "image-segmentation"):
        found_there = model.evaluate(data)
        if as_json:
            print_json(found_there.to_dict())
        else:
            click.echo(str(found_there))
        return
    if model.task != "image-classification":
        raise ConfigError(f"{name} is for {model.task}, which evaluate does not measure yet")
    found = labelled_pictures(data)
    unknown = [label for label in found.labels if label not in model.labels]
    if unknown:
        raise DataError(
            f"{data} has classes that the model does not know: {_listed(unknown, 5)}.\n"
            f"The model's: {_listed(model.labels, 8)}",
            labels=unknown,
        )
    chosen = [i for i, s in enumerate(found.splits) if s == HELD_OUT] if found.splits else None
    numbers = range(len(found.paths)) if chosen is None else chosen
    report = model.evaluate(
        [found.paths[i] for i in numbers], [found.labels[found.targets[i]] for i in numbers]
    )
    if as_json:
        print_json(report.to_dict())
        return
    click.echo(str(report))
    for true, predicted, count in report.mistakes():
        often = "once" if count == 1 else f"{count} times"
        click.echo(f"most confused: {true!r} taken for {predicted!r}, {often}")


def _listed(labels: Sequence[str], count: int) -> str:
    """The first few, in quotation marks: names like 'tench, Tinca tinca' hold commas."""
    return ", ".join(map(repr, labels[:count])) + (", ..." if len(labels) > count else "")

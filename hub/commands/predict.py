"""`bestiary predict`: what a model says of pictures, texts or recordings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from ..loading import domain_of, load
from .output import json_option


@dataclass(frozen=True)
class Asked:
    """What was asked for on the command line; None where an option was not given."""

    name: str
    top: int | None
    labels: list[str] | None
    threshold: float | None
    draw: Path | None
    masks: Path | None
    explain: Path | None
    coco: Path | None
    csv: Path | None
    context: str | None
    point: list[tuple[float, ...]] | None
    box: tuple[float, ...] | None
    as_json: bool

    def refuse(self, why: str, *options: str) -> None:
        """Stop if one of the options was given, which this model has no use for.

        Raises:
            UsageError: names the model and the option.
        """
        for option in options:
            if getattr(self, option) is not None:
                raise click.UsageError(f"{self.name} {why}: no --{option}")


class _Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers with commas between them, as many as there are names."""

    def __init__(self, *names: str) -> None:
        self.name = ",".join(names)
        self._count = len(names)

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            found = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            found = ()
        if len(found) != self._count:
            self.fail(f"{value!r} is not {self.name} in pixels", param, ctx)
        return found


_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("predict")
@click.argument("name")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--top", type=click.IntRange(1), help="Answers for each input; 5 unless given.")
@click.option("--labels", help="For models like CLIP: the words to choose from, 'a cat,a dog'.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="Detectors: least score, 0.5.")
@click.option("--csv", type=_FILE, help="File for the answers as rows with a header.")
@click.option("--coco", type=_FILE, help="Detectors: file for COCO JSON.")
@click.option(
    "--draw", type=_FOLDER, help="Folder for pictures of what was found: boxes, classes, depths."
)
@click.option("--masks", type=_FOLDER, help="Folder for PNGs of classes, or of each mask.")
@click.option(
    "--point",
    type=_Numbers("X", "Y"),
    multiple=True,
    help="For models like SAM: a point on the thing whose mask is wanted; may be repeated.",
)
@click.option(
    "--box",
    type=_Numbers("LEFT", "UPPER", "RIGHT", "LOWER"),
    help="For models like SAM: edges around the thing.",
)
@click.option(
    "--explain",
    type=_FOLDER,
    help="Classifiers: folder for pictures of where the first answer was seen.",
)
@click.option("--context", help="To answer questions: the text, or @FILE, where answers stand.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1.")
@json_option
def predict_command(
    name: str,
    inputs: tuple[str, ...],
    top: int | None,
    labels: str | None,
    threshold: float | None,
    csv: Path | None,
    coco: Path | None,
    draw: Path | None,
    masks: Path | None,
    explain: Path | None,
    context: str | None,
    point: tuple[tuple[float, ...], ...],
    box: tuple[float, ...] | None,
    device: str,
    as_json: bool,
) -> int:
    """Run the model NAME on INPUTs: pictures or folders of them for models that see; for those that
    read, texts, @FILE for the lines of a file, or - for those of the standard input.

    Answers are printed as they come. An input that cannot be read is named on the error output and
    does not stop the others; the exit code is 1 then.
    """
    words = None if labels is None else [w.strip() for w in labels.split(",") if w.strip()]
    points = list(point) or None
    asked = Asked(
        name, top, words, threshold, draw, masks, explain, coco, csv, context, points, box, as_json
    )
    model = load(name, device=device)
    if domain_of(model.task) == "vision":
        from .predict_pictures import predict_pictures

        return predict_pictures(model, inputs, asked)
    from .predict_text import predict_text

    return predict_text(model, inputs, asked)

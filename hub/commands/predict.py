"""`bestiary predict`: what a model says of pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ...core.errors import ConfigError
from ...core.paths import atomic
from ..loading import load
from .output import json_option, print_json


@click.command("predict")
@click.argument("name")
@click.argument("inputs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--top", default=5, show_default=True, type=click.IntRange(1), help="Answers each.")
@click.option("--labels", help="For models like CLIP: the words to choose from, 'a cat,a dog'.")
@click.option("--threshold", type=click.FloatRange(0, 1), help="Detectors: least score, 0.5.")
@click.option(
    "--draw",
    type=click.Path(path_type=Path),
    help="Folder for pictures of what was found: boxes, classes, depths.",
)
@click.option(
    "--masks", type=click.Path(path_type=Path), help="Segmenters: folder for PNGs of classes."
)
@click.option(
    "--explain",
    type=click.Path(path_type=Path),
    help="Classifiers: folder for pictures of where the first answer was seen.",
)
@click.option("--coco", type=click.Path(path_type=Path), help="Detectors: file for COCO JSON.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1.")
@json_option
def predict_command(
    name: str,
    inputs: tuple[Path, ...],
    top: int,
    labels: str | None,
    threshold: float | None,
    draw: Path | None,
    masks: Path | None,
    explain: Path | None,
    coco: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Run the model NAME on pictures, or on folders of them."""
    model = load(name, device=device)
    settings: dict[str, object] = {"top": top}
    detector = model.task == "object-detection"
    if explain is not None and model.task != "image-classification":
        raise click.UsageError(f"{name} is for {model.task}, and classifiers explain: no --explain")
    if model.task == "image-segmentation":
        if labels is not None or threshold is not None or coco is not None:
            raise click.UsageError(f"{name} gives classes: no --labels, --threshold or --coco")
        return _segment(model, inputs, top, draw, masks, as_json)
    if masks is not None:
        raise click.UsageError(f"{name} gives no classes of pixels: no --masks")
    if model.task == "depth-estimation":
        if labels is not None or threshold is not None or coco is not None:
            raise click.UsageError(f"{name} gives depths: no --labels, --threshold or --coco")
        return _measure(model, inputs, draw, as_json)
    if not detector and (threshold is not None or draw is not None or coco is not None):
        raise click.UsageError(f"{name} finds no boxes: no --threshold, --draw or --coco")
    if detector:
        settings = {} if threshold is None else {"threshold": threshold}
    elif model.task == "zero-shot-image-classification":
        words = [word.strip() for word in (labels or "").split(",") if word.strip()]
        if not words:
            raise click.UsageError(f"{name} chooses from words of yours: --labels 'a cat,a dog'")
        settings["labels"] = words
    elif model.task != "image-classification":
        raise ConfigError(f"{name} is for {model.task}, which predict does not run yet")
    elif labels is not None:
        raise click.UsageError(f"{name} has labels of its own; --labels is for models like CLIP")
    answers: dict[str, list[dict[str, Any]]] = {}
    for path in inputs:
        found = model(path, **settings)
        answers.update(found if path.is_dir() else {str(path): found})
    if draw is not None:
        _draw(model, answers, draw)
    if explain is not None:
        _explain(model, answers, explain)
    if coco is not None:
        _write_coco(model, answers, coco)
    if as_json:
        print_json(answers)
        return
    for path_name, found in answers.items():
        click.echo(path_name)
        for answer in found:
            box = "  " + " ".join(f"{edge:g}" for edge in answer["box"]) if detector else ""
            click.echo(f"  {answer['score']:6.1%}  {answer['label']}{box}")


def _segment(
    model: Any,
    inputs: tuple[Path, ...],
    top: int,
    draw: Path | None,
    masks: Path | None,
    as_json: bool,
) -> None:
    """The largest classes of each picture; one picture at a time, since class maps are large."""
    files = _files(inputs)
    names = dict(zip(files, _names(files), strict=True))
    for folder in (draw, masks):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    shares: dict[str, list[dict[str, Any]]] = {}
    for path, found in zip(files, model(iter(files)), strict=True):
        if masks is not None:
            found.save(masks / f"{names[path]}.png")
        if draw is not None:
            model.draw(path, found).save(draw / f"{names[path]}.png")
        shares[str(path)] = found.shares
        if not as_json:
            click.echo(str(path))
            for row in found.shares[:top]:
                click.echo(f"  {row['share']:6.1%}  {row['label']}")
    if as_json:
        print_json(shares)


def _measure(model: Any, inputs: tuple[Path, ...], draw: Path | None, as_json: bool) -> None:
    """The range of depths in each picture; drawn, they are grey pictures of 16 bits."""
    files = _files(inputs)
    ranges: dict[str, dict[str, Any]] = {}
    for path, name, found in zip(files, _names(files), model(iter(files)), strict=True):
        if draw is not None:
            found.save(draw / f"{name}.png")
        low, high = float(found.values.min()), float(found.values.max())
        ranges[str(path)] = {"least": low, "most": high, "metres": found.metric}
        if not as_json:
            click.echo(f"{path}\n  {low:.3g} to {high:.3g}{' m' if found.metric else ''}")
    if as_json:
        print_json(ranges)


def _files(inputs: tuple[Path, ...]) -> list[Path]:
    """The pictures given, and those in folders given, each once."""
    from ...vision.image_task import image_files

    given = [f for path in inputs for f in (image_files(path) if path.is_dir() else [path])]
    return list(dict.fromkeys(given))


def _names(paths: Sequence[str | Path]) -> list[str]:
    """A name without ending for what is made of each; of two of one name, the later numbered."""
    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        stem = name = Path(path).stem
        while name in taken:
            name = f"{stem}-{len(taken)}"
        taken.add(name)
        names.append(name)
    return names


def _draw(model: Any, answers: Mapping[str, Any], folder: Path) -> None:
    """Every picture with its boxes, under its own name."""
    folder.mkdir(parents=True, exist_ok=True)
    for (path, found), name in zip(answers.items(), _names(list(answers)), strict=True):
        model.draw(path, found).save(folder / f"{name}.png")


def _explain(model: Any, answers: Mapping[str, Any], folder: Path) -> None:
    """Where each picture's first answer was seen, drawn over it, under its own name."""
    folder.mkdir(parents=True, exist_ok=True)
    names = _names(list(answers))
    for explanation, name in zip(model.explain(iter(answers)), names, strict=True):
        explanation.draw().save(folder / f"{name}.png")


def _write_coco(model: Any, answers: Mapping[str, Any], path: Path) -> None:
    from ...vision.detector import coco_json

    with atomic(path) as part:
        part.write_text(json.dumps(coco_json(dict(answers), model.labels)), encoding="utf-8")

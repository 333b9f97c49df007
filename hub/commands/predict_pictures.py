"""`bestiary predict` with models that see: the answers of each task in words, rows and pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import BestiaryError, ConfigError
from ...core.paths import atomic
from .answers import Answers, complain

if TYPE_CHECKING:
    from .predict import Asked

_BOX = ("left", "upper", "right", "lower")


@dataclass(frozen=True)
class Shown:
    """How the answers of one task are shown.

    Attributes:
        columns: of the CSV file, after the path.
        told: the answer as JSON.
        lines: what is told, for people.
        rows: what is told, as rows of the CSV file without the path.
        settings: of the call.
        write: makes the pictures that were asked for, from a path, an answer and a name.
    """

    columns: tuple[str, ...]
    told: Callable[[Any], Any]
    lines: Callable[[Any], list[str]]
    rows: Callable[[Any], list[dict[str, Any]]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    write: Callable[[Path, Any, str], None] | None = None


def predict_pictures(model: Any, inputs: tuple[str, ...], asked: Asked) -> int:
    """What a model says of pictures; 1 if one of them could not be read.

    Raises:
        UsageError: an option that the model has no use for, or an input that is not there.
        ConfigError: the model gives vectors.
    """
    asked.refuse("sees", "context")
    if model.task != "mask-generation":
        asked.refuse("is not asked by points and boxes", "point", "box")
    if model.task not in _TASKS:
        raise ConfigError(f"{asked.name} is for {model.task}, which predict does not run")
    shown = _TASKS[model.task](model, asked)
    files, failed = _files(inputs)
    for folder in (asked.draw, asked.masks, asked.explain):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def unreadable(path: Path, error: Exception) -> None:
        failed.append(path)
        complain(error, path)

    names = dict(zip(files, _names(files), strict=True))
    answers = Answers(asked.as_json, asked.csv, ("path", *shown.columns))
    with answers:
        for path, answer in model.each(files, unreadable=unreadable, **shown.settings):
            if shown.write is not None:
                shown.write(path, answer, names[path])
            told = shown.told(answer)
            rows = [{"path": str(path), **row} for row in shown.rows(told)]
            answers.add(str(path), told, shown.lines(told), rows)
        if asked.coco is not None:
            _write_coco(answers.found, model.labels, asked.coco)
    return 1 if failed else 0


# -- tasks -------------------------------------------------------------------------------------


def _classifier(model: Any, asked: Asked) -> Shown:
    asked.refuse("finds no boxes", "threshold", "draw", "coco")
    asked.refuse("gives no classes of pixels", "masks")
    settings: dict[str, Any] = {"top": asked.top or 5}
    if model.task == "zero-shot-image-classification":
        asked.refuse(f"is for {model.task}, and classifiers explain", "explain")
        if not asked.labels:
            raise click.UsageError(
                f"{asked.name} chooses from words of yours: --labels 'a cat,a dog'"
            )
        settings["labels"] = asked.labels
    else:
        asked.refuse("has labels of its own, and --labels is for models like CLIP", "labels")

    def write(path: Path, _: Any, name: str) -> None:
        model.explain(path).draw().save(asked.explain / f"{name}.png")  # type: ignore[operator]

    def lines(told: Any) -> list[str]:
        return [f"{row['score']:6.1%}  {row['label']}" for row in told]

    return Shown(
        ("label", "score"), _same, lines, _same, settings, write if asked.explain else None
    )


def _detector(model: Any, asked: Asked) -> Shown:
    from ...vision.instance_masks import as_json
    from ...vision.masks import mask_image

    asked.refuse(f"is for {model.task}, and classifiers explain", "explain")
    if not getattr(model.module, "finds_masks", False):
        asked.refuse("finds boxes and no masks", "masks")
    asked.refuse("tells all that it finds", "top")
    asked.refuse("has labels of its own, and --labels is for models like CLIP", "labels")

    def write(path: Path, found: Any, name: str) -> None:
        if asked.draw is not None:
            model.draw(path, found).save(asked.draw / f"{name}.png")
        if asked.masks is not None:
            for i, row in enumerate(found, start=1):
                mask_image(row["mask"]).save(asked.masks / f"{name}-{i}.png")

    def told(found: Any) -> Any:
        return [as_json(row) for row in found]

    def lines(told: Any) -> list[str]:
        return [
            f"{row['score']:6.1%}  {row['label']}  " + " ".join(f"{x:g}" for x in row["box"])
            for row in told
        ]

    def rows(told: Any) -> list[dict[str, Any]]:
        return [
            {
                "label": row["label"],
                "score": row["score"],
                **dict(zip(_BOX, row["box"], strict=True)),
            }
            for row in told
        ]

    settings = {} if asked.threshold is None else {"threshold": asked.threshold}
    wanted = asked.masks is not None or asked.draw is not None
    columns = ("label", "score", *_BOX)
    return Shown(columns, told, lines, rows, settings, write if wanted else None)


def _segmenter(model: Any, asked: Asked) -> Shown:
    asked.refuse(f"is for {model.task}, and classifiers explain", "explain")
    asked.refuse("gives classes of pixels", "labels", "threshold", "coco")

    def write(path: Path, found: Any, name: str) -> None:
        if asked.masks is not None:
            found.save(asked.masks / f"{name}.png")
        if asked.draw is not None:
            model.draw(path, found).save(asked.draw / f"{name}.png")

    def told(found: Any) -> Any:
        return found.shares

    def lines(shares: Any) -> list[str]:
        return [f"{row['share']:6.1%}  {row['label']}" for row in shares[: asked.top or 5]]

    wanted = asked.masks is not None or asked.draw is not None
    return Shown(("label", "share"), told, lines, _same, write=write if wanted else None)


def _depth_estimator(model: Any, asked: Asked) -> Shown:
    asked.refuse(f"is for {model.task}, and classifiers explain", "explain")
    asked.refuse("gives no classes of pixels", "masks")
    asked.refuse("gives depths", "labels", "threshold", "coco", "top")

    def write(_: Path, found: Any, name: str) -> None:
        found.save(asked.draw / f"{name}.png")  # type: ignore[operator]

    def told(found: Any) -> Any:
        low, high = float(found.values.min()), float(found.values.max())
        return {"least": low, "most": high, "metres": found.metric}

    def lines(told: Any) -> list[str]:
        return [f"{told['least']:.3g} to {told['most']:.3g}{' m' if told['metres'] else ''}"]

    def rows(told: Any) -> list[dict[str, Any]]:
        return [{**told, "metres": str(told["metres"]).lower()}]

    return Shown(
        ("least", "most", "metres"), told, lines, rows, write=write if asked.draw else None
    )


def _mask_generator(model: Any, asked: Asked) -> Shown:
    asked.refuse(f"is for {model.task}, and classifiers explain", "explain")
    asked.refuse("gives masks without names", "labels", "coco")
    settings: dict[str, Any] = {}
    if asked.point is not None or asked.box is not None:
        asked.refuse("answers every prompt", "threshold")
        settings = {"points": asked.point, "box": asked.box}
    elif asked.threshold is not None:
        settings = {"least_score": asked.threshold}

    def write(path: Path, found: Any, name: str) -> None:
        found = found[: asked.top]
        if asked.masks is not None:
            for i, one in enumerate(found):
                one.save(asked.masks / f"{name}-{i + 1}.png")
        if asked.draw is not None:
            # Several answers to one prompt lie over each other: the best is drawn.
            model.draw(path, found[:1] if settings.keys() & {"points"} else found).save(
                asked.draw / f"{name}.png"
            )

    def told(found: Any) -> Any:
        return [
            {"score": one.score, "share": one.share, "box": list(one.box)}
            for one in found[: asked.top]
        ]

    def lines(told: Any) -> list[str]:
        return [
            f"{row['score']:.3f}  {row['share']:6.1%} of the picture  "
            + " ".join(str(x) for x in row["box"])
            for row in told
        ]

    def rows(told: Any) -> list[dict[str, Any]]:
        return [
            {
                "score": row["score"],
                "share": row["share"],
                **dict(zip(_BOX, row["box"], strict=True)),
            }
            for row in told
        ]

    wanted = asked.masks is not None or asked.draw is not None
    columns = ("score", "share", *_BOX)
    return Shown(columns, told, lines, rows, settings, write if wanted else None)


def _same(told: Any) -> Any:
    return told


_TASKS: dict[str, Callable[[Any, Asked], Shown]] = {
    "depth-estimation": _depth_estimator,
    "image-classification": _classifier,
    "image-segmentation": _segmenter,
    "mask-generation": _mask_generator,
    "object-detection": _detector,
    "zero-shot-image-classification": _classifier,
}


# -- files -------------------------------------------------------------------------------------


def _files(inputs: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The pictures given, and those in folders given, each once; and the folders without any."""
    from ...vision.image_task import image_files

    given: list[Path] = []
    empty: list[Path] = []
    for path in map(Path, inputs):
        if not path.exists():
            raise click.UsageError(f"there is no picture or folder {str(path)!r}")
        if not path.is_dir():
            given.append(path)
            continue
        try:
            given += image_files(path)
        except BestiaryError as error:
            complain(error)
            empty.append(path)
    return list(dict.fromkeys(given)), empty


def _names(paths: Sequence[Path]) -> list[str]:
    """A name without ending for what is made of each; of two of one name, the later numbered."""
    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        stem = name = path.stem
        while name in taken:
            name = f"{stem}-{len(taken)}"
        taken.add(name)
        names.append(name)
    return names


def _write_coco(found: dict[str, Any], labels: Sequence[str], path: Path) -> None:
    from ...vision.detector import coco_json

    with atomic(path) as part:
        part.write_text(json.dumps(coco_json(found, labels)), encoding="utf-8")

"""Pictures and their boxes, from the files that annotation tools write.

data/instances.json and the pictures        COCO
data/annotations/instances_*.json           COCO, split by name
data/train/_annotations.coco.json           COCO, split by folder
data/Annotations/*.xml, data/JPEGImages/    VOC, split by ImageSets/Main
data/*.xml beside the pictures              VOC
data/data.yaml, data/images/, data/labels/  YOLO
data/classes.txt, data/*.txt, pictures      YOLO
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.data.images import EXTENSIONS
from ..core.errors import ConfigError, DataError
from .annotations import (
    Annotated,
    Drawn,
    read_coco,
    read_voc,
    read_yolo,
    read_yolo_settings,
)
from .boxes import Array, Boxes, clip_boxes
from .labelled import HELD_OUT, TRAIN

_HELD_NAMES = ("val", "valid", "validation", "test")


@dataclass(frozen=True, eq=False)
class DetectionData:
    """Pictures and what is in them.

    Attributes:
        paths: the files.
        targets: the boxes of each, in pixels.
        labels: names of the classes, numbered from 0.
        splits: "train" or "held out" for each; empty where the data has no split.
        source: one line on where they are from.
        skipped: boxes that were left out, and why.
    """

    paths: list[Path]
    targets: list[Boxes]
    labels: list[str]
    splits: list[str]
    source: str
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def counts(self) -> Array:
        """Boxes of each class."""
        empty = np.zeros(0, np.int64)
        ids = np.concatenate([empty, *(t.labels for t in self.targets)])
        return np.bincount(ids, minlength=len(self.labels))

    def part(self, chosen: Sequence[int] | Array) -> DetectionData:
        """Some of the pictures."""
        rows = [int(i) for i in chosen]
        return replace(
            self,
            paths=[self.paths[i] for i in rows],
            targets=[self.targets[i] for i in rows],
            splits=[self.splits[i] for i in rows] if self.splits else [],
        )

    def measured(self) -> DetectionData:
        """The held-out part, or all where there is no split."""
        held = [i for i, split in enumerate(self.splits) if split == HELD_OUT]
        return self.part(held) if held else self

    def with_labels(self, labels: Sequence[str]) -> DetectionData:
        """The same with classes numbered as a model does.

        Raises:
            DataError: the model does not know a class.
        """
        missing = [name for name in self.labels if name not in labels]
        if missing:
            raise DataError(
                f"the model has no class {', '.join(missing[:6])}.\n"
                f"Its classes: {', '.join(labels[:12])}{', ...' if len(labels) > 12 else ''}\n"
                "Teach it yours: model.finetune(data)",
                labels=missing,
            )
        order = np.array([list(labels).index(name) for name in self.labels], np.int64)
        targets = [replace(t, labels=order[t.labels]) for t in self.targets]
        return replace(self, targets=targets, labels=list(labels))


def detection_data(data: str | Path, *, bad_boxes: str = "raise") -> DetectionData:
    """Read what a file or a folder says; every picture and every box is looked at once.

    Args:
        data: a COCO JSON file, or a folder in one of the forms above.
        bad_boxes: of boxes without area or outside their picture: "raise", or "skip".
    Raises:
        DataError: no such data, a damaged file, a missing picture, a box that cannot be.
    """
    if bad_boxes not in ("raise", "skip"):
        raise ConfigError(f"bad_boxes is 'raise' or 'skip', got {bad_boxes!r}", got=bad_boxes)
    path = Path(data).expanduser()
    if path.is_file() and path.suffix.lower() == ".json":
        rows, labels = read_coco(path, _picture_folders(path))
        return _checked([(rows, "")], labels, f"COCO, {path}", bad_boxes)
    if path.is_file() and path.suffix.lower() in (".yaml", ".yml"):
        return _yolo(path.parent, bad_boxes, path)
    if not path.is_dir():
        raise DataError(f"there is no folder or COCO JSON file {path}", path=str(path))
    return _of_folder(path, bad_boxes)


def _of_folder(folder: Path, bad_boxes: str) -> DetectionData:
    found = sorted(folder.glob("*.json")) + sorted(folder.glob("annotations/*.json"))
    found += sorted(folder.glob("*/_annotations.coco.json"))
    if found:
        return _coco(folder, found, bad_boxes)
    if (folder / "Annotations").is_dir() or any(folder.glob("*.xml")):
        return _voc(folder, bad_boxes)
    settings = next((f for f in (folder / "data.yaml", folder / "data.yml") if f.is_file()), None)
    if settings or any((f / "classes.txt").is_file() for f in (folder, folder / "labels")):
        return _yolo(folder, bad_boxes, settings)
    holds = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
    raise DataError(
        f"{folder} holds no boxes: neither COCO JSON, nor VOC XML, nor YOLO text.\n"
        f"It holds: {holds}\n"
        "YOLO text needs the names of its classes: data.yaml (names: [cat, dog]) or classes.txt",
        folder=str(folder),
    )


# -- the three kinds ---------------------------------------------------------------------------


def _split_of(name: str) -> str:
    """Which part a file or folder holds, by its name."""
    words = re.split(r"[^a-z]+", name.lower())
    if any(word in _HELD_NAMES for word in words):
        return HELD_OUT
    return TRAIN if "train" in words else ""


def _picture_folders(path: Path) -> list[Path]:
    """Where the pictures of a COCO JSON file may be."""
    root = path.parent.parent if path.parent.name == "annotations" else path.parent
    stem = path.stem.removeprefix("instances_")
    return [root, root / "images", root / stem, root / "images" / stem, path.parent / "images"]


def _coco(folder: Path, files: list[Path], bad_boxes: str) -> DetectionData:
    by_name = [(file, _split_of(f"{file.parent.name}/{file.stem}")) for file in files]
    if len(files) > 1:
        by_name = [(file, split) for file, split in by_name if split]
        names = ("train", "val", "valid", "validation")  # a test part often has no boxes
        kept = [
            (f, s) for f, s in by_name if set(re.split(r"[^a-z]+", str(f).lower())) & set(names)
        ]
        by_name = kept or by_name
    if not by_name:
        raise DataError(
            f"{folder} holds several JSON files: {', '.join(f.name for f in files[:6])}.\n"
            "Name the one that is meant: bt.vision.detection_data('data/instances.json')",
            folder=str(folder),
        )
    parts, labels = [], []
    for file, split in by_name:
        rows, own = read_coco(file, _picture_folders(file))
        parts.append((rows, split))
        labels += [name for name in own if name not in labels]
    files_read = ", ".join(str(file.relative_to(folder)) for file, _ in by_name)
    return _checked(parts, labels, f"COCO, {folder}: {files_read}", bad_boxes)


def _voc(folder: Path, bad_boxes: str) -> DetectionData:
    annotations = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    pictures = folder / "JPEGImages" if (folder / "JPEGImages").is_dir() else annotations
    splits: dict[str, str] = {}
    for name, split in (("train", TRAIN), ("val", HELD_OUT)):
        listed = folder / "ImageSets" / "Main" / f"{name}.txt"
        if listed.is_file():
            words = (line.split() for line in listed.read_text("utf-8").splitlines())
            splits.update({line[0]: split for line in words if line})
    by_stem = {file.stem: file for file in _pictures(pictures)}
    parts: dict[str, list[Annotated]] = {}
    for file in sorted(annotations.glob("*.xml")):
        if splits and file.stem not in splits:
            continue
        if file.stem not in by_stem:
            raise DataError(
                f"{file} has no picture: {pictures / file.stem}.jpg is not there", file=str(file)
            )
        parts.setdefault(splits.get(file.stem, ""), []).append(read_voc(file, by_stem[file.stem]))
    rows = [(part, split) for split, part in parts.items()]
    labels = sorted({box.label for part, _ in rows for row in part for box in row.boxes})
    return _checked(rows, labels, f"VOC, {folder}", bad_boxes)


def _yolo(folder: Path, bad_boxes: str, settings: Path | None) -> DetectionData:
    parts: list[tuple[list[Annotated], str]] = []
    places = []
    if settings is not None:
        said = read_yolo_settings(settings)
        labels = said["names"]
        root = folder / said.get("path", ".")
        root = root if root.is_dir() else folder
        places = [
            (root / said[k], s) for k, s in (("train", TRAIN), ("val", HELD_OUT)) if k in said
        ]
        places = [(place, split) for place, split in places if place.is_dir()]
    else:
        listed = next(f for f in (folder, folder / "labels") if (f / "classes.txt").is_file())
        lines = (listed / "classes.txt").read_text("utf-8").splitlines()
        labels = [line.strip() for line in lines if line.strip()]
    if not places:
        images = folder / "images" if (folder / "images").is_dir() else folder
        places = [(images, "")]
        if (images / "train").is_dir():
            held = [images / name for name in _HELD_NAMES if (images / name).is_dir()]
            places = [(images / "train", TRAIN), *((place, HELD_OUT) for place in held[:1])]
    for place, split in places:
        rows = [read_yolo(_text_of(file), file, labels) for file in _pictures(place)]
        parts.append((rows, split))
    return _checked(parts, labels, f"YOLO, {folder}", bad_boxes)


def _text_of(picture: Path) -> Path:
    """The text beside a picture, or in `labels` where the picture is in `images`."""
    parts = list(picture.parts)
    for i in reversed(range(len(parts) - 1)):
        if parts[i] == "images":
            parts[i] = "labels"
            return Path(*parts).with_suffix(".txt")
    return picture.with_suffix(".txt")


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.rglob("*") if f.suffix.lower() in EXTENSIONS and f.is_file())


# -- what they say together --------------------------------------------------------------------


def _checked(
    parts: Sequence[tuple[list[Annotated], str]], labels: list[str], source: str, bad_boxes: str
) -> DetectionData:
    rows = [(row, split) for part, split in parts for row in part]
    if not rows:
        raise DataError(f"{source}: there are no pictures", source=source)
    bad: list[str] = []
    targets = [_boxes(row, labels, bad) for row, _ in rows]
    if bad and bad_boxes == "raise":
        more = f"\n  ... and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise DataError(
            f"{len(bad)} boxes cannot be:\n  " + "\n  ".join(bad[:5]) + more + "\n"
            'Correct them, or leave them out: detection_data(..., bad_boxes="skip")',
            boxes=bad,
        )
    if not any(len(t) for t in targets) or not labels:
        raise DataError(f"{source}: {len(rows)} pictures and not a single box", source=source)
    splits = [split for _, split in rows]
    if not all(splits) or len(set(splits)) < 2:
        splits = []
    return DetectionData([row.path for row, _ in rows], targets, labels, splits, source, tuple(bad))


def _boxes(row: Annotated, labels: list[str], bad: list[str]) -> Boxes:
    """The boxes of a picture, cut off at its edges; what then has no area goes to `bad`."""
    height, width = row.size
    kept: list[tuple[Drawn, Any]] = []
    for drawn in row.boxes:
        x0, y0, x1, y1 = cut = clip_boxes(np.array(drawn.box), height, width)
        if x1 > x0 and y1 > y0:
            kept.append((drawn, cut))
            continue
        edges = " ".join(f"{edge:g}" for edge in drawn.box)
        why = "has no area"
        if drawn.box[2] > drawn.box[0] and drawn.box[3] > drawn.box[1]:
            why = f"lies outside the picture of {width} x {height} pixels"
        bad.append(f"{drawn.place}: the box {edges} (edges) of a {drawn.label} {why}")
    areas = [d.area if d.area is not None else (c[2] - c[0]) * (c[3] - c[1]) for d, c in kept]
    return Boxes(
        [cut for _, cut in kept],
        [labels.index(drawn.label) for drawn, _ in kept],
        crowd=[drawn.crowd for drawn, _ in kept],
        areas=areas,
        outlines=[tuple(map(np.array, drawn.outline)) for drawn, _ in kept],
    )

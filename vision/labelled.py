"""Labelled pictures: a folder for each class, with or without splits, or a CSV file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.data import ImageFolder, ImageTable
from ..core.errors import DataError

TRAIN, HELD_OUT = "train", "held out"
_TABLES = ("", ".csv", ".tsv", ".txt", ".gz")


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures and their classes.

    Attributes:
        paths: the files.
        targets: the class number of each, (N,).
        labels: names of the classes.
        splits: "train" or "held out" for each; empty where the data has no split.
        source: one line on where they are from.
    """

    paths: list[Path]
    targets: np.ndarray[Any, Any]
    labels: list[str]
    splits: list[str]
    source: str

    @property
    def counts(self) -> np.ndarray[Any, Any]:
        """Pictures of each class."""
        return np.bincount(self.targets, minlength=len(self.labels))


def labelled_pictures(data: str | Path) -> LabelledPictures:
    """Read what a folder or a CSV file says.

    A folder holds a folder for each class; or `train` and `val` (or `test`) folders which do. A
    CSV file has the columns path and label; paths count from its own folder.

    Raises:
        DataError: no such data, a class folder without pictures, fewer than two classes, a bad
            line.
    """
    path = Path(data).expanduser()
    example = "Each needs a folder of its own: cat/1.jpg, dog/2.jpg"
    if path.is_dir():
        found = _of_folder(path)
    elif path.is_file():
        if path.suffix.lower() not in _TABLES:
            raise DataError(
                f"{path} is neither a folder nor a CSV file.\n"
                "Give a folder with a folder of pictures for each class, or a table with the "
                "columns path and label.",
                path=str(path),
            )
        table = ImageTable(path)
        example = "Each line needs a path and a label: 1.jpg,cat"
        found = _of_samples([(table, "")], table.classes, f"{path}: {len(table)} lines")
    else:
        raise DataError(f"there is no folder or CSV file {path}", path=str(path))
    if len(found.labels) < 2:
        raise DataError(
            f"{path} holds one class, {found.labels[0]!r}, and two or more are needed.\n{example}",
            labels=found.labels,
        )
    return found


def _of_folder(folder: Path) -> LabelledPictures:
    parts = ImageFolder.splits(folder)
    if "train" not in parts:
        only = _filled(ImageFolder(folder, parts[0] if parts else None))
        return _of_samples([(only, "")], only.classes, f"{folder}: folders for each class")
    train = _filled(ImageFolder(folder, "train"))
    others = [part for part in ("val", "test") if part in parts]
    if not others:
        return _of_samples([(train, "")], train.classes, f"{folder}: only a training part")
    held = ImageFolder(folder, others[0], classes=train.classes)
    source = f"{folder}: folders for each class, split into train and {others[0]}"
    return _of_samples([(train, TRAIN), (held, HELD_OUT)], train.classes, source)


def _filled(data: ImageFolder) -> ImageFolder:
    """The same, if every class has pictures to learn from."""
    empty = [name for name, count in data.counts.items() if not count]
    if empty:
        part = f"{data.root}, {data.split}" if data.split else str(data.root)
        raise DataError(
            f"{part}: {len(empty)} of {len(data.classes)} folders hold no pictures: "
            f"{', '.join(empty[:8])}{', ...' if len(empty) > 8 else ''}\n"
            "Each folder is a class. Remove these, or put pictures into them.",
            labels=empty,
        )
    return data


def _of_samples(
    parts: list[tuple[ImageFolder | ImageTable, str]], labels: list[str], source: str
) -> LabelledPictures:
    rows = [(Path(p), label, split) for data, split in parts for p, label in data.samples]
    splits = [split for _, _, split in rows]
    return LabelledPictures(
        [path for path, _, _ in rows],
        np.array([label for _, label, _ in rows], np.int64),
        list(labels),
        splits if any(splits) else [],
        source,
    )


def stratified(
    targets: np.ndarray[Any, Any], share: float, seed: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Numbers of the samples to train on and to hold out; every class gives its share.

    A class with a single sample is trained on, not held out.
    """
    rng = np.random.default_rng(seed)
    train, held = [], []
    for label in np.unique(targets):
        own = rng.permutation(np.flatnonzero(targets == label))
        count = min(max(round(share * len(own)), 1), len(own) - 1)
        held.append(own[:count])
        train.append(own[count:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(held))


def folds(targets: np.ndarray[Any, Any], count: int, seed: int) -> list[np.ndarray[Any, Any]]:
    """`count` parts of the samples, each with every class's share."""
    rng = np.random.default_rng(seed)
    place = np.empty(len(targets), np.int64)
    start = 0
    for label in np.unique(targets):
        own = rng.permutation(np.flatnonzero(targets == label))
        place[own] = (start + np.arange(len(own))) % count
        start += len(own)  # so that small classes do not all fill the first parts
    return [np.flatnonzero(place == k) for k in range(count)]

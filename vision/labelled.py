"""Labelled pictures on disk: a folder for each class, with or without splits, or a CSV file."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import DataError
from .tasks import image_files

TRAIN, HELD_OUT = "train", "held out"
_SPLITS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": HELD_OUT,
    "valid": HELD_OUT,
    "validation": HELD_OUT,
    "test": HELD_OUT,
}
_PATH_COLUMNS = ("path", "file", "filename", "image", "picture")
_LABEL_COLUMNS = ("label", "class", "category", "target")
_MAX_LINE = 1 << 16


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures and their classes.

    Attributes:
        paths: the files.
        targets: the class number of each, (N,).
        labels: names of the classes, sorted.
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
    CSV file has columns `path` and `label` (paths count from its own folder), and may have
    `split`.

    Raises:
        DataError: no such data, a class without pictures, fewer than two classes, a bad line.
    """
    path = Path(data).expanduser()
    if path.is_dir():
        found = _of_folder(path)
    elif path.is_file():
        found = _of_csv(path)
    else:
        raise DataError(f"there is no folder or CSV file {path}", path=str(path))
    if len(found.labels) < 2:
        raise DataError(
            f"{path} holds {len(found.labels)} class: {', '.join(found.labels) or 'none'}.\n"
            "Two or more are needed, each in a folder of its own: data/cat/1.jpg, data/dog/2.jpg",
            labels=found.labels,
        )
    return found


def _of_folder(folder: Path) -> LabelledPictures:
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    splits = {p: _SPLITS[p.name.lower()] for p in inside if p.name.lower() in _SPLITS}
    if TRAIN not in splits.values():
        splits = {}
    rows: list[tuple[Path, str, str]] = []
    for top, split in splits.items() or [(folder, "")]:
        for each in sorted(p for p in top.iterdir() if p.is_dir() and not p.name.startswith(".")):
            rows += [(picture, each.name, split) for picture in image_files(each)]
    if not rows:
        raise DataError(
            f"{folder} holds no folders of pictures.\n"
            "Make one for each class: data/cat/1.jpg, data/dog/2.jpg",
            path=str(folder),
        )
    what = "folders for each class" + (f", split into {_named(splits)}" if splits else "")
    return _of_rows(rows, f"{folder}: {what}")


def _named(splits: dict[Path, str]) -> str:
    return " and ".join(p.name for p in splits)


def _of_csv(path: Path) -> LabelledPictures:
    rows: list[tuple[Path, str, str]] = []
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(_bounded(file, path))
        header = [name.strip().lower() for name in next(lines, [])]
        where, what, split = _columns(header, path)
        for number, line in enumerate(lines, 2):
            if not line:
                continue
            if len(line) <= max(where, what):
                raise DataError(
                    f"{path}, line {number}: {len(line)} columns, {max(where, what) + 1} needed",
                    line=number,
                )
            picture = path.parent / line[where].strip()
            if not picture.is_file():
                raise DataError(f"{path}, line {number}: there is no file {picture}", line=number)
            label = line[what].strip()
            if not label:
                raise DataError(f"{path}, line {number}: the label is empty", line=number)
            named = line[split].strip().lower() if split is not None and split < len(line) else ""
            if named and named not in _SPLITS:
                raise DataError(
                    f"{path}, line {number}: the split {named!r} is none of {', '.join(_SPLITS)}",
                    line=number,
                )
            rows.append((picture, label, _SPLITS.get(named, "")))
    if any(row[2] for row in rows) and not all(row[2] for row in rows):
        raise DataError(f"{path}: some lines name a split and some do not")
    return _of_rows(rows, f"{path}: {len(rows)} lines")


def _bounded(file: Any, path: Path) -> Any:
    number = 0
    while line := file.readline(_MAX_LINE):
        number += 1
        if len(line) == _MAX_LINE:
            raise DataError(
                f"{path}, line {number}: longer than {_MAX_LINE} characters", line=number
            )
        yield line


def _columns(header: list[str], path: Path) -> tuple[int, int, int | None]:
    where = next((header.index(n) for n in _PATH_COLUMNS if n in header), None)
    what = next((header.index(n) for n in _LABEL_COLUMNS if n in header), None)
    if where is None or what is None:
        raise DataError(
            f"{path}: the first line must name the columns path and label, it is: "
            f"{','.join(header)[:100]}",
            header=header,
        )
    return where, what, header.index("split") if "split" in header else None


def _of_rows(rows: list[tuple[Path, str, str]], source: str) -> LabelledPictures:
    labels = sorted({label for _, label, _ in rows}, key=_natural)
    numbers = {label: i for i, label in enumerate(labels)}
    splits = [split for _, _, split in rows]
    return LabelledPictures(
        [path for path, _, _ in rows],
        np.array([numbers[label] for _, label, _ in rows], np.int64),
        labels,
        splits if any(splits) else [],
        source,
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """Names in the order that people expect: 2 before 10."""
    parts = re.findall(r"\d+|\D+", name.lower())
    return [(int(p), "") if p.isdigit() else (-1, p) for p in parts]


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

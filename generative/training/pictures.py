"""Pictures to train on, all of them in memory, and their batches.

What a recipe calls DATA is a folder of pictures (with a folder for each class, or without), idx
files as MNIST has them, or the name of a data set that `bt.data.load` knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.data import ImageFolder, load, read_idx, read_image
from ...core.data.catalogue import list_sets
from ...core.data.images import EXTENSIONS, from_array
from ...core.errors import ConfigError, DataError
from ...core.insight.progress import progress
from ...core.tensor import Tensor
from ..pipelines.pictures import middle_square

Array = np.ndarray[Any, Any]
_LARGEST = 1024  # pixels: the recipes' networks see whole pictures


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size.

    Attributes:
        values: bytes (N, C, H, W), C being 1 for grey ones and 3 for others.
        labels: the class of each, (N,) int64; None without classes.
        classes: the name of each label.
        source: where they are from, for messages and cards.
    """

    values: Array
    labels: Array | None
    classes: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns."""
        _, channels, height, width = self.values.shape
        return channels, height, width

    def scaled(self, chosen: Any = slice(None)) -> Array:
        """Some of them as float32 (B, C, H, W) from -1 to 1."""
        return as_samples(self.values[chosen])

    def first(self, count: int | None) -> Pictures:
        """Only so many of them; all for None or 0."""
        if not count:
            return self
        labels = None if self.labels is None else self.labels[:count]
        return Pictures(self.values[:count], labels, self.classes, self.source)


def as_samples(values: Array) -> Array:
    """Bytes as float32 from -1 to 1."""
    return np.multiply(values, np.float32(2 / 255), dtype=np.float32) - np.float32(1)


def read_pictures(
    data: str | Path,
    size: int | None = None,
    *,
    split: str = "train",
    grey: bool = False,
    labels: bool = True,
) -> Pictures:
    """The pictures of a folder, of idx files, or of a named data set.

    Args:
        data: a folder of pictures, with or without a folder for each class; a folder with idx files
            of MNIST's names, or one such file of pictures; or a name such as "fashion-mnist".
        size: rows and columns: the shorter side is scaled to it and the middle kept. None keeps the
            size that the pictures have, which must then be one.
        split: "train" or "test", of named sets and of MNIST's idx files.
        grey: without colours.
        labels: False forgets the classes.

    Raises:
        DataError: no pictures there, or of several sizes; names the folder.
        ConfigError: a size that makes no sense.
    """
    if size is not None and (type(size) is not int or not 4 <= size <= _LARGEST):
        raise ConfigError(f"size={size!r}: pixels, from 4 to {_LARGEST}, are wanted", got=size)
    path = Path(data)
    if path.is_dir() or path.is_file():
        found = _of_path(path, size, split, grey)
    elif str(data) in {info.name for info in list_sets()}:
        whole = load(str(data), split)
        found = Pictures(
            _sized(whole.images, size, grey), whole.labels, tuple(whole.classes), str(data)
        )
    else:
        names = ", ".join(info.name for info in list_sets())
        raise DataError(
            f"{data} is neither a folder or file that is there, nor the name of a data set.\n"
            f"Data sets: {names}",
            file=str(data),
        )
    if not len(found):
        raise DataError(f"{data}: there are no pictures", file=str(data))
    return found if labels else Pictures(found.values, None, (), found.source)


def _of_path(path: Path, size: int | None, split: str, grey: bool) -> Pictures:
    if path.is_file():
        return Pictures(_sized(_idx_pictures(path), size, grey), None, (), path.name)
    stem = "train" if split == "train" else "t10k"
    images = _one(path, f"{stem}-images*ubyte*")
    if images is not None:
        values = _sized(_idx_pictures(images), size, grey)
        file = _one(path, f"{stem}-labels*ubyte*")
        if file is None:
            return Pictures(values, None, (), path.name)
        labels = read_idx(file).astype(np.int64)
        if labels.shape != (len(values),):
            raise DataError(
                f"{file}: {labels.shape} labels for {len(values)} pictures",
                file=str(file),
                expected=len(values),
                got=labels.shape,
            )
        classes = tuple(str(n) for n in range(int(labels.max(initial=0)) + 1))
        return Pictures(values, labels, classes, path.name)
    flat = sorted(p for p in path.iterdir() if p.suffix.lower() in EXTENSIONS)
    if flat:
        return Pictures(_read_all([str(p) for p in flat], size, grey), None, (), path.name)
    folder = ImageFolder(path)
    values = _read_all([file for file, _ in folder.samples], size, grey)
    return Pictures(values, folder.labels, tuple(folder.classes), path.name)


def _one(folder: Path, pattern: str) -> Path | None:
    return next(iter(sorted(folder.glob(pattern))), None)


def _idx_pictures(path: Path) -> Array:
    values = read_idx(path)
    if values.ndim not in (3, 4) or values.dtype != np.uint8 or 0 in values.shape:
        raise DataError(
            f"{path} holds {values.dtype} numbers of shape {values.shape}, not pictures: bytes "
            "(N, H, W) or (N, H, W, 3) are wanted.",
            file=str(path),
            got=values.shape,
        )
    return values


def _read_all(files: Sequence[str], size: int | None, grey: bool) -> Array:
    rows: list[Array] = []
    for file in progress(files, what="reading pictures", unit="pictures"):
        row = np.asarray(middle_square(read_image(file), size, grey))
        if rows and row.shape != rows[0].shape:
            raise DataError(
                f"{file} is {row.shape[1]} x {row.shape[0]} pixels and {files[0]} "
                f"{rows[0].shape[1]} x {rows[0].shape[0]}: networks here learn one size.\n"
                "Give the size to scale to: --size 32",
                file=file,
                expected=rows[0].shape,
                got=row.shape,
            )
        rows.append(row)
    return _channels_first(np.stack(rows))


def _sized(images: Array, size: int | None, grey: bool) -> Array:
    """Bytes (N, H, W) or (N, H, W, 3) as (N, C, size, size)."""
    if (size is not None and images.shape[1:3] != (size, size)) or (grey and images.ndim == 4):
        images = np.stack([np.asarray(middle_square(from_array(i), size, grey)) for i in images])
    return _channels_first(images)


def _channels_first(images: Array) -> Array:
    return (
        images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    )


class Batches:
    """Batches in an order that depends on the seed and the epoch only; a training can go on inside.

    A batch is a pair: samples (B, C, H, W) from -1 to 1, and labels (B,) or None. The last,
    incomplete one of an epoch is left out.

    Args:
        pictures: `Pictures`; subclasses take what else has a length.
        flip: mirror each picture half of the time.
    """

    def __init__(
        self, pictures: Any, batch_size: int, *, seed: int = 0, flip: bool = False
    ) -> None:
        if type(batch_size) is not int or batch_size < 1:
            raise ConfigError(f"batch_size={batch_size!r} must be at least 1", got=batch_size)
        if batch_size > len(pictures):
            raise DataError(
                f"{len(pictures)} pictures are less than one batch of {batch_size}.\n"
                f"Give more, or smaller batches: batch_size={max(len(pictures) // 4, 1)}",
                expected=batch_size,
                got=len(pictures),
            )
        self.pictures, self.batch_size, self.seed, self.flip = pictures, batch_size, seed, flip
        self.epoch, self.position = 0, 0

    def __len__(self) -> int:
        return len(self.pictures) // self.batch_size

    def __iter__(self) -> Iterator[Any]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.pictures))
        mirrored = (rng.random(len(order)) < 0.5) & self.flip
        while self.position < len(self):
            first = self.position * self.batch_size
            part = slice(first, first + self.batch_size)
            self.position += 1
            yield self._batch(order[part], mirrored[part])
        self.epoch, self.position = self.epoch + 1, 0

    def _batch(self, chosen: Array, mirrored: Array) -> Any:
        """The pictures of these numbers, some of them mirrored."""
        values, labels = self.pictures.scaled(chosen), self.pictures.labels
        values[mirrored] = values[mirrored][..., ::-1]
        return Tensor(values), None if labels is None else Tensor(labels[chosen])

    def state_dict(self) -> dict[str, Any]:
        """Which batch comes next."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"])

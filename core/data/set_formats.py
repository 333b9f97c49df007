"""The files in which the named data sets come, as arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..insight.progress import progress
from .catalogue import SetInfo
from .idx import read_idx
from .images import read_image

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]  # "train-images", "train-labels", "test-images", "test-labels"

_IDX_FOLDERS = ("", "raw", "MNIST/raw", "FashionMNIST/raw", "data", "package/data")
_CIFAR_FOLDERS = ("", "cifar-10-batches-bin", "package")
IDX_NAMES = {
    "train-images": "train-images{}idx3-ubyte",
    "train-labels": "train-labels{}idx1-ubyte",
    "test-images": "t10k-images{}idx3-ubyte",
    "test-labels": "t10k-labels{}idx1-ubyte",
}


def idx_files(folder: Path, split: str) -> tuple[Array, Array] | None:
    """Images and labels in the idx files of a folder; None if it has none."""
    for below in _IDX_FOLDERS:
        paths = []
        for what in ("images", "labels"):
            pattern = IDX_NAMES[f"{split}-{what}"]
            names = [pattern.format(mark) + end for mark in "-." for end in ("", ".gz")]
            paths += [folder / below / n for n in names if (folder / below / n).is_file()][:1]
        if len(paths) == 2:
            return read_idx(paths[0]), read_idx(paths[1])
    return None


def cifar_files(folder: Path, split: str) -> tuple[Array, Array] | None:
    """Images and labels of CIFAR-10 in a folder, in either form; None if it has neither."""
    batches = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    for below in _CIFAR_FOLDERS:
        place = folder / below
        if all((place / f"{name}.bin").is_file() for name in batches):
            return _cifar_binary([place / f"{name}.bin" for name in batches])
        labels = place / f"{split}_lables.json"
        if labels.is_file() and all((place / f"{name}.png").is_file() for name in batches):
            pngs = [(place / f"{name}.png").read_bytes() for name in batches]
            images = _cifar_pngs(pngs)
            return images, _cifar_labels(labels.read_bytes(), len(images))
    return None


def _cifar_binary(paths: Sequence[Path]) -> tuple[Array, Array]:
    """The authors' binary version: a label and then 32 x 32 pixels, channel after channel."""
    rows = []
    for path in paths:
        content = np.fromfile(path, np.uint8)
        if content.size == 0 or content.size % 3073:
            raise DataError(
                f"{path} is damaged: {content.size:,} bytes are not whole rows of 3,073",
                file=str(path),
            )
        rows.append(content.reshape(-1, 3073))
    everything = np.concatenate(rows)
    pixels = everything[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), everything[:, 0].copy()


def convert(info: SetInfo, files: Mapping[str, bytes]) -> Arrays:
    """The arrays in the files of a package."""
    if info.name != "cifar10":
        return {what: read_idx(content) for what, content in files.items()}
    result: Arrays = {}
    for split, batches in (("train", range(1, 6)), ("test", range(1))):
        names = [f"{split}-{number}" for number in batches]
        shown = progress(names, what=f"decoding {info.title}, {split}", unit="files")
        result[f"{split}-images"] = _cifar_pngs([files[name] for name in shown])
        result[f"{split}-labels"] = _cifar_labels(files[f"{split}-labels"], info.counts[split])
    return result


def _cifar_pngs(contents: Sequence[bytes]) -> Array:
    """Pictures of 1,024 columns: a row of one holds the pixels of one image, row after row."""
    images = []
    for content in contents:
        pixels = np.asarray(read_image(content))
        if pixels.shape[1:] != (1024, 3):
            raise DataError(f"a CIFAR-10 picture is 1024 wide, this one is {pixels.shape}")
        images.append(pixels.reshape(-1, 32, 32, 3))
    return np.concatenate(images)


def _cifar_labels(content: bytes, count: int) -> Array:
    try:
        values = json.loads(content)
    except ValueError as error:
        raise DataError(f"the labels of CIFAR-10 are no JSON: {error}") from None
    right = isinstance(values, list) and len(values) == count
    if not right or not all(type(value) is int and 0 <= value < 10 for value in values):
        raise DataError(f"the labels of CIFAR-10 are not {count:,} numbers from 0 to 9")
    return np.asarray(values, dtype=np.uint8)

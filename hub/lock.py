"""Lock files: names pinned to commits and hashes, so that a deployment loads these bytes or none.

    {
      "bestiary-lock": 1,
      "models": {
        "org/name": {
          "source": "hub",
          "repo": "org/name",
          "commit": "0123456789abcdef0123456789abcdef01234567",
          "files": {
            "config.json": "sha256:...",

One fact a line and sorted, so that a change is read as a diff of these lines.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import HubError
from ..core.paths import atomic
from .cache import COMMIT, check_name
from .registry import Entry, Hub, Installed, Source, Wheel, find
from .sources import Obtained

DEFAULT = "bestiary.lock"
VARIABLE = "BESTIARY_LOCK"
FORMAT = 1
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
# What pins each kind of source, besides the hashes of its files.
_PINS: dict[str, tuple[str, ...]] = {
    "hub": ("repo", "commit"),
    "wheel": ("distribution", "version"),
    "installed": ("distribution", "version"),
    "bundled": (),
    "folder": (),
}


@dataclass(frozen=True)
class Locked:
    """One model of a lock file; `pins` are those of its kind of source."""

    source: str
    pins: Mapping[str, str]
    files: Mapping[str, str]  # name -> sha256, in hexadecimal

    @property
    def commit(self) -> str | None:
        """Of a hub repository."""
        return self.pins.get("commit")

    def to_dict(self) -> dict[str, Any]:
        """As it is written."""
        files = {name: f"sha256:{digest}" for name, digest in sorted(self.files.items())}
        return {"source": self.source, **self.pins, "files": files}


class Lock(Mapping[str, Locked]):
    """What a lock file says; a mapping from the names of models.

    Args:
        path: the file; it need not exist if `models` are given.
    """

    def __init__(self, path: Path, models: Mapping[str, Locked] | None = None) -> None:
        self.path = path
        self._models = dict(_read(path) if models is None else models)

    def __getitem__(self, name: str) -> Locked:
        known = self._models.get(self._key(name))
        if known is None:
            listed = ", ".join(sorted(self._models)[:6]) or "nothing"
            raise HubError(
                f"{name} is not in the lock file {self.path}, so it is not loaded.\n"
                f"The file names: {listed}{', ...' if len(self._models) > 6 else ''}.\n"
                f"To add it: bestiary lock {name} -o {self.path}",
                name=name,
                path=str(self.path),
                reason="locked",
            )
        return known

    def __contains__(self, name: object) -> bool:
        return self._key(str(name)) in self._models

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._models))

    def __len__(self) -> int:
        return len(self._models)

    def _key(self, name: str) -> str:
        """Aliases and spellings of a curated name are one; folders are seen from the file."""
        if name in self._models:
            return name
        folder = Path(name).expanduser()
        if folder.is_dir():
            return _beside(self.path, folder)
        found = find(name) if "/" not in name else None
        return found[1].name if found is not None else name

    def sources(self, entry: Entry) -> tuple[Source, ...]:
        """Those of an entry's sources that are the locked one.

        Raises:
            HubError: none is; the registry has changed since.
        """
        locked = self[entry.name]
        found = tuple(s for s in entry.sources if _fits(s, locked))
        if not found:
            raise HubError(
                f"{entry.name} is locked to {_shown(locked)}, which is no source of it now.\n"
                f"Lock it anew: bestiary lock {entry.name} -o {self.path}",
                name=entry.name,
                reason="locked",
            )
        return found

    def check(self, found: Obtained) -> None:
        """Compare files with what is locked, before any is read.

        Raises:
            HubError: another commit, a file more, less or of other contents; names the first.
        """
        locked = self[found.name]
        new = locked_of(found)
        if new == locked:
            return
        problems = [
            f"{key} {locked.pins.get(key)} is locked, {new.pins.get(key)} is here"
            for key in _PINS[locked.source]
            if locked.pins.get(key) != new.pins.get(key)
        ]
        if locked.source != new.source:
            problems.append(f"the source {locked.source} is locked, {new.source} is here")
        for name in sorted({*locked.files, *new.files}):
            wanted, got = locked.files.get(name), new.files.get(name)
            if wanted != got:
                problems.append(
                    f"{name}: sha256 {wanted or 'none'} is locked, {got or 'no such file'} is here"
                )
        raise HubError(
            f"{found.name} is not what the lock file {self.path} says; nothing was loaded.\n  "
            + "\n  ".join(problems[:4])
            + (f"\n  and {len(problems) - 4} more" if len(problems) > 4 else "")
            + "\nIf the change is wanted: bestiary lock "
            + found.name,
            name=found.name,
            problems=problems,
            reason="locked",
        )

    def with_model(self, found: Obtained) -> Lock:
        """The same with a model pinned to what it is now."""
        name = _beside(self.path, found.path) if found.kind == "folder" else found.name
        return Lock(self.path, {**self._models, name: locked_of(found)})

    def text(self) -> str:
        """As it is written."""
        models = {name: self._models[name].to_dict() for name in self}
        return json.dumps({"bestiary-lock": FORMAT, "models": models}, indent=2) + "\n"

    def save(self) -> Path:
        """Write the file: whole, or not at all."""
        with atomic(self.path) as part:
            part.write_text(self.text(), encoding="utf-8")
        return self.path


def locked_of(found: Obtained) -> Locked:
    """What is pinned of files on this machine."""
    pins: dict[str, str] = {}
    if isinstance(found.source, Hub):
        pins = {"repo": found.source.repo, "commit": found.commit or ""}
    elif isinstance(found.source, Wheel | Installed):
        pins = {"distribution": found.source.distribution, "version": found.source.version}
    return Locked(found.kind, pins, found.sha256())


def in_force(asked: bool | str | Path = False) -> Lock | None:
    """The lock that loading must obey: as asked, else what the environment or a command says.

    Args:
        asked: a lock file; True for the one of the environment, else `bestiary.lock` here.

    Raises:
        HubError: there is no such file, or it is damaged.
    """
    if isinstance(asked, str | Path):
        return Lock(Path(asked).expanduser())
    chosen = _required or os.environ.get(VARIABLE)
    if chosen:
        return Lock(Path(chosen).expanduser())
    return Lock(Path(DEFAULT)) if asked else None


_required: Path | None = None


def require(path: Path | None) -> None:
    """From now on load only what a lock file names; None ends this."""
    global _required
    _required = path


def read(path: Path) -> Lock:
    """The lock file at a path; an empty one if there is none.

    Raises:
        HubError: it is damaged.
    """
    return Lock(path) if path.exists() else Lock(path, {})


# -- reading ---------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Locked]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HubError(
            f"there is no lock file {path}.\nMake one: bestiary lock NAME... -o {path}",
            path=str(path),
            reason="locked",
        ) from None
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"it is no JSON ({str(error)[:100]})") from None
    if not isinstance(found, dict) or found.get("bestiary-lock") != FORMAT:
        raise _damaged(path, f'it has no "bestiary-lock": {FORMAT}')
    models = found.get("models")
    if not isinstance(models, dict):
        raise _damaged(path, 'it has no "models"')
    return {name: _locked(path, name, value) for name, value in models.items()}


def _locked(path: Path, name: str, value: Any) -> Locked:
    if not isinstance(value, dict) or value.get("source") not in _PINS:
        raise _damaged(path, f"the source of {name!r} is none of {', '.join(_PINS)}")
    wanted = _PINS[value["source"]]
    pins = {key: value.get(key) for key in wanted}
    files = value.get("files")
    if not all(isinstance(pin, str) and pin for pin in pins.values()):
        raise _damaged(path, f"{name!r} lacks one of: {', '.join(wanted)}")
    if "commit" in pins and not COMMIT.fullmatch(str(pins["commit"])):
        raise _damaged(path, f"the commit of {name!r} is none: {pins['commit']!r}")
    if not isinstance(files, dict) or not files:
        raise _damaged(path, f"{name!r} has no files")
    for file, digest in files.items():
        check_name(file)
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise _damaged(path, f"{name!r}: {file!r} has no sha256")
    hashes = {file: digest.removeprefix("sha256:") for file, digest in files.items()}
    return Locked(value["source"], {k: str(v) for k, v in pins.items()}, hashes)


def _damaged(path: Path, problem: str) -> HubError:
    return HubError(
        f"{path} is no lock file that can be used: {problem}.\n"
        f"Make it anew: bestiary lock NAME... -o {path}",
        path=str(path),
        reason="locked",
    )


def _fits(source: Source, locked: Locked) -> bool:
    if source.kind != locked.source:
        return False
    given = dataclasses.asdict(source)
    return all(given[key] == value for key, value in locked.pins.items() if key in given)


def _shown(locked: Locked) -> str:
    return " ".join([locked.source, *locked.pins.values()])


def _beside(lock: Path, folder: Path) -> str:
    """A folder as it is named in a lock file: seen from where the file lies."""
    inside = os.path.relpath(folder.expanduser().resolve(), lock.resolve().parent)
    name = Path(inside).as_posix()
    return name if name.startswith("..") else f"./{name}"


def from_here(lock: Path, name: str) -> str:
    """A name of a lock file as it is seen from the working directory."""
    return str(lock.parent / name) if name.startswith(".") else name

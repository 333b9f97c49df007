"""From a pack into the cache: `bestiary unpack`. See `hub.packing` for the format."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import HubError
from ..core.insight.progress import Progress, progress
from ..core.paths import atomic, flush_folder, home
from .cache import Storage, algorithm_of, new_hash
from .lock import Lock
from .packing import Packed, PackedModel, contents, refused, sound
from .settings import current
from .transfer import disk_full, free_bytes

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Unpacked:
    """Where a model of a pack is now."""

    name: str
    kind: str  # hub, wheel or folder
    path: Path
    files: int
    size: int


def unpack(path: Path, folder: Path | None = None, *, lock: Lock | None = None) -> list[Unpacked]:
    """Put the models of a pack where `bt.load` finds them.

    Those of the hub and of wheels go into the cache, under the names that they had; a folder that
    was packed goes into `folder`. What is there and equal is left alone.

    Args:
        folder: for packed folders; the working directory unless given.
        lock: refuse what it does not name, commit and hashes included.

    Raises:
        HubError: the pack is damaged, or made to do harm; there is no room; a folder of that name
            exists and is another; the lock says otherwise.
    """
    models = contents(path)
    for model in models:
        if lock is not None:
            _obey(model, lock, path)
    needed = sum(file.size for model in models for file in model.files)
    places = {current().cache_dir, home(), folder or Path()}
    for place in places:
        if needed > free_bytes(place.absolute()):
            raise disk_full(place.absolute(), needed, path.name)
    with (
        zipfile.ZipFile(path) as archive,
        progress(total=needed, what=f"unpacking {path.name}", unit="B") as bar,
        contextlib.ExitStack() as stack,
    ):
        unpacker = _Unpacker(archive, path, bar, folder or Path())
        finish = [stack.enter_context(unpacker.model(model)) for model in models]
        # Every hash was right: only now are the models seen.
        return [step() for step in finish]


def _obey(model: PackedModel, lock: Lock, path: Path) -> None:
    locked = lock[model.name]
    pins = {key: model.source.get(key) for key in locked.pins}
    if locked.source != model.kind or pins != dict(locked.pins):
        raise refused(
            path,
            f"it holds {model.name} from {model.kind} {' '.join(map(str, pins.values()))}, and "
            f"{lock.path} names {locked.source} {' '.join(locked.pins.values())}",
        )
    for file in model.files:
        if file.name not in locked.files:
            raise refused(path, f"{model.name}: {file.name} is not in {lock.path}")
        if file.sha256 != locked.files[file.name]:
            raise refused(path, f"{model.name}: {file.name} is another than {lock.path} names")


class _Unpacker:
    """Writes the files of one pack; each model is a context whose result makes it visible."""

    def __init__(
        self, archive: zipfile.ZipFile, path: Path, bar: Progress[Any], folder: Path
    ) -> None:
        self.archive = archive
        self.path = path
        self.bar = bar
        self.folder = folder

    def model(self, model: PackedModel) -> Any:
        if model.kind == "hub":
            return self._hub(model)
        return self._wheel(model) if model.kind == "wheel" else self._folder(model)

    def _result(self, model: PackedModel, path: Path) -> Unpacked:
        size = sum(file.size for file in model.files)
        return Unpacked(model.name, model.kind, path, len(model.files), size)

    @contextlib.contextmanager
    def _hub(self, model: PackedModel) -> Iterator[Any]:
        """Blobs are named by their hash, so that they may lie there before the model does."""
        storage = Storage(str(model.source["repo"]))
        commit = str(model.source["commit"])
        listed = storage.listing(commit)
        for file in model.files:
            known = listed.get(file.name) if listed is not None else None
            if known is not None and known.digest not in (None, file.digest):
                raise refused(
                    self.path,
                    f"{model.name}: the hub listed {file.name} as {known.digest}, and the pack "
                    f"holds {file.digest}",
                )
            self._blob(storage, file)

        def finish() -> Unpacked:
            for file in model.files:
                storage.link(commit, file.name, file.digest)
            storage.keep_ref(str(model.source["revision"]), commit)
            return self._result(model, storage.snapshot(commit))

        yield finish

    @contextlib.contextmanager
    def _wheel(self, model: PackedModel) -> Iterator[Any]:
        """Each file appears only if its hash is right, and the model is there with the last."""
        for file in model.files:
            target = home() / file.member
            if sound(target, file):
                self.bar.update(file.size)
            else:
                self._write(file, target)
        several = len(model.files) > 1
        found = home() / "/".join(model.files[0].member.split("/")[: 2 if several else 3])
        yield lambda: self._result(model, found)

    @contextlib.contextmanager
    def _folder(self, model: PackedModel) -> Iterator[Any]:
        target = self.folder / model.name
        if target.exists() or target.is_symlink():
            if not all(sound(target / f.name, f) for f in model.files):
                raise HubError(
                    f"{target} exists and is not what {self.path.name} holds.\n"
                    "Unpack into another folder: bestiary unpack ... --to FOLDER",
                    path=str(target),
                )
            self.bar.update(sum(f.size for f in model.files))
            yield lambda: self._result(model, target)
            return
        new = self.folder / f".unpacking-{secrets.token_hex(8)}"
        new.mkdir(parents=True)
        try:
            for file in model.files:
                self._write(file, new / file.name)

            def finish() -> Unpacked:
                os.rename(new, target)
                return self._result(model, target)

            yield finish
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _blob(self, storage: Storage, file: Packed) -> None:
        """A file of the cache; downloads of the same content wait for it, and the other way round.

        What a killed process leaves has the name that a download goes on from.
        """
        from huggingface_hub import utils

        exported: Any = utils  # it does not say what it exports
        blob, part = storage.blob(file.digest), storage.partial(file.digest)
        lock = storage.lock(file.digest)
        lock.parent.mkdir(parents=True, exist_ok=True)
        blob.parent.mkdir(parents=True, exist_ok=True)
        with exported.WeakFileLock(lock):
            if sound(blob, file):
                self.bar.update(file.size)
            else:
                try:
                    self._copy(file, part)
                except HubError:
                    part.unlink(missing_ok=True)
                    raise
                os.replace(part, blob)
                flush_folder(blob.parent)
            storage.keep_record(blob, file.digest)

    def _write(self, file: Packed, target: Path) -> None:
        """A member as a file, which appears only if the hash is right."""
        with atomic(target) as part:
            self._copy(file, part)

    def _copy(self, file: Packed, target: Path) -> None:
        """The bytes of a member, hashed on the way.

        Raises:
            HubError: they are other than listed.
        """
        wanted = {"sha256": file.sha256, algorithm_of(file.digest) or "": file.digest}
        hashes = {name: new_hash(name, file.size) for name in wanted}
        try:
            with self.archive.open(file.member) as source, open(target, "wb") as out:
                while block := source.read(_BLOCK):
                    for digest in hashes.values():
                        digest.update(block)
                    out.write(block)
                    self.bar.update(len(block))
                out.flush()
                os.fsync(out.fileno())
        except (zipfile.BadZipFile, EOFError) as error:
            raise refused(self.path, f"{file.member}: {error}") from None
        for name, expected in wanted.items():
            got = hashes[name].hexdigest()
            if got != expected:
                raise refused(
                    self.path,
                    f"the {name} of {file.member} is {got} instead of {expected}",
                    expected=expected,
                    got=got,
                )

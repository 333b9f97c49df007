"""Where the library keeps what it fetched, and how it writes files that must not be half there."""

from __future__ import annotations

import errno
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ConfigError


def home() -> Path:
    """The library's folder: `BESTIARY_HOME`, else the platform's cache folder + `bestiary`."""
    chosen = os.environ.get("BESTIARY_HOME")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "bestiary"


@contextmanager
def atomic(target: Path) -> Iterator[Path]:
    """A temporary file beside `target` that takes its place when the block ends well.

    The file and its folder are flushed to disk first, so that after a crash there is the old
    file, the new one, or none: never a part.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not mkstemp, whose files only the owner can read: the mode follows the umask. And not the
    # target's name, to which nothing can be added when it is as long as a name may be.
    part = target.parent / f".{secrets.token_hex(8)}.part"
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        if target.is_dir():
            raise IsADirectoryError(
                errno.EISDIR, "this is a folder; name a file in it", str(target)
            )
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, target)
        flush_folder(target.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def flush_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    if sys.platform == "win32":  # folders cannot be opened there; a rename is durable enough
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_folder(folder: Path) -> None:
    """Make the folder of the result, and see that files can be written there.

    Called before the training, so that its hours are not lost to a folder.

    Raises:
        ConfigError: nothing can be saved there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(
            f"nothing can be saved in {folder}: {error.strerror}.\n"
            "Name another folder: out='my-model', or -o my-model on the command line.",
            folder=str(folder),
        ) from None


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

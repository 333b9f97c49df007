"""Where the library keeps what it fetched, and how it writes files that must not be half there."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        _apply_umask(part)
        os.replace(part, target)
        flush_folder(target.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _apply_umask(path: Path) -> None:
    # mkstemp makes files that only the owner can read; others follow the umask.
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def flush_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system can."""
    if sys.platform == "win32":  # folders cannot be opened there; a rename is durable enough
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

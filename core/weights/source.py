"""Files as the readers of weights use them: read while they stay the same, or mapped."""

from __future__ import annotations

import difflib
import errno
import math
import mmap
import os
import stat
import threading
import weakref
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..dtypes import DType
from ..errors import WeightsError

Array = NDArray[Any]
FilePath = str | os.PathLike[str]

_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".index.json")


class TensorInfo(NamedTuple):
    """What a file says of a tensor without reading its values."""

    dtype: DType
    shape: tuple[int, ...]


class LazyWeights(Mapping[str, Array]):
    """The tensors of a file by name; each is read when it is asked for, nothing before.

    A read-only mapping. `file[name]` reads anew each time; keep the array, not the file.
    """

    path: str
    metadata: dict[str, Any]

    @abstractmethod
    def info(self, name: str) -> TensorInfo:
        """The dtype and shape of a tensor; reads no values."""

    @abstractmethod
    def __contains__(self, name: object) -> bool: ...

    def infos(self) -> dict[str, TensorInfo]:
        """The dtype and shape of every tensor; reads no values."""
        return {name: self.info(name) for name in self}

    def close(self) -> None:
        """Release the file. Arrays that were read stay valid."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # A mapping would compare by value, which would read both files whole.
    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, {len(self)} tensors)"


class FileWeights(LazyWeights):
    """Those of one file: a subclass fills `_entries`, in the order of the file."""

    _source: Source
    _entries: Mapping[str, Any]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def close(self) -> None:
        """Release the file. Arrays that were read, or mapped, stay valid."""
        self._source.close()


def quoted(name: object, limit: int = 80) -> str:
    """A name from a file, made safe for a message: escaped, and cut when it is very long."""
    text = name if isinstance(name, str) else str(type(name).__name__)
    return repr(text) if len(text) <= limit else f"{text[:limit]!r}... ({len(text):,} characters)"


def _not_there(path: str) -> FileNotFoundError:
    """The error of the system, with what there is: it keeps its number and its file name."""
    folder, name = os.path.split(os.path.abspath(path))
    if not os.path.isdir(folder):
        there = f"nor is there a folder {quoted(folder)}"
    else:
        try:
            names = sorted(os.listdir(folder))
        except OSError:  # a folder that cannot be read
            names = []
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        near += [n for n in names if n.endswith(_ENDINGS) and n not in near][: 3 - len(near)]
        listed = ", ".join(quoted(n) for n in near)
        there = f"its folder has {listed}" if near else "its folder has no weights"
    return FileNotFoundError(errno.ENOENT, f"{os.strerror(errno.ENOENT)}; {there}", path)


class Source:
    """An open regular file that notices when somebody changes it.

    Size and modification time are compared with those at opening around every read, so that
    the bytes of two versions never mix. (A change of the same size within one tick of the file
    system's clock cannot be seen.)

    Raises:
        WeightsError: not a regular file.
        OSError: it does not exist or cannot be read.
    """

    def __init__(self, path: FilePath) -> None:
        self.path = os.fspath(path)
        # Before opening: to open a pipe would wait for a writer.
        try:
            mode = os.stat(self.path).st_mode
        except FileNotFoundError:
            raise _not_there(self.path) from None
        if not stat.S_ISREG(mode):
            raise WeightsError(
                f"{self.path}: not a regular file, so no weights can be read from it.",
                path=self.path,
            )
        self._handle = open(self.path, "rb", buffering=0)  # noqa: SIM115 (closed by the finalizer)
        self._finalizer = weakref.finalize(self, self._handle.close)
        self._lock = threading.Lock()
        self._stamp = self._look()
        self.size = self._stamp[0]
        self._map: Array | None = None

    def _look(self) -> tuple[int, int]:
        found = os.fstat(self._handle.fileno())
        return found.st_size, found.st_mtime_ns

    def check(self) -> None:
        """Raise WeightsError if the file is no longer as it was when it was opened."""
        now = self._look()
        if now != self._stamp:
            what = (
                f"it had {self._stamp[0]:,} bytes when it was opened and has {now[0]:,} now"
                if now[0] != self._stamp[0]
                else f"its {now[0]:,} bytes were written again after it was opened"
            )
            raise WeightsError(
                f"{self.path}: the file changed while it was being read: {what}.\n"
                "Another program (a download, a training run) is writing it. "
                "Load it again once that is done.",
                path=self.path,
                expected=self._stamp[0],
                got=now[0],
            )

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill `view` with the bytes from `offset` on."""
        with self._lock:
            self.check()
            self._handle.seek(offset)
            done = 0
            while done < len(view):  # one call reads 2 GiB at most on Linux
                count = self._handle.readinto(view[done:])
                if not count:
                    break
                done += count
            self.check()
        if done < len(view):
            raise WeightsError(
                f"{self.path}: the file ends too early: wanted {len(view):,} bytes from byte "
                f"{offset:,} on, found {done:,}.",
                path=self.path,
                expected=offset + len(view),
                got=offset + done,
            )

    def read(self, offset: int, count: int) -> bytes:
        """The bytes `offset` to `offset + count`, or fewer where the file ends."""
        count = max(0, min(count, self.size - offset))
        buffer = bytearray(count)
        if count:  # else the offset may be anything
            self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def array(self, offset: int, shape: tuple[int, ...], dtype: DType) -> Array:
        """The elements from byte `offset` on, in memory of their own."""
        result = np.empty(shape, dtype)
        if result.size:
            self.read_into(result.reshape(-1).view(np.uint8).data, offset)
        return result

    def mapped(self, offset: int, shape: tuple[int, ...], dtype: DType) -> Array:
        """As `array`, without a copy: writes to it stay in memory (copy on write).

        Only for files that nobody truncates: access beyond a shortened end kills the process.
        Elements that lie across their natural alignment are copied, as products of such
        arrays are several times slower.
        """
        if self._map is None:
            with self._lock:
                self.check()
                memory = mmap.mmap(self._handle.fileno(), 0, access=mmap.ACCESS_COPY)
            self._map = np.frombuffer(memory, np.uint8)
        raw = self._map[offset : offset + math.prod(shape) * dtype.itemsize]
        # A mapping begins on a page, so the offset alone tells the alignment.
        if offset % dtype.alignment:
            raw = raw.copy()
        return raw.view(dtype).reshape(shape)

    def close(self) -> None:
        """Close the file; mapped arrays stay valid."""
        self._finalizer()
        self._map = None

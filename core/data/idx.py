"""The idx format of MNIST: a short header, then the numbers."""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import DataError

_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_MAX_AXES = 8
_GZIP_RATIO = 1032  # deflate cannot pack tighter
_CHUNK = 1 << 20


def read_idx(source: str | os.PathLike[str] | bytes) -> np.ndarray[Any, Any]:
    """The array of an idx file, plain or gzipped, in the machine's byte order.

    The header is checked against the size of the file before anything is allocated.

    Raises:
        DataError: not an idx file, damaged, or of another length than its header says.
    """
    if isinstance(source, bytes):
        return _read(io.BytesIO(source), len(source), "the idx data")
    path = Path(source)
    try:
        with open(path, "rb") as file:
            return _read(file, os.fstat(file.fileno()).st_size, str(path))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", file=str(path)) from None


def _read(file: BinaryIO, size: int, label: str) -> np.ndarray[Any, Any]:
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not packed:
        return _parse(file, size, size, label)
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            return _parse(unpacked, None, size * _GZIP_RATIO, label)  # type: ignore[arg-type]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{label} is a damaged gzip file: {error}", file=label) from error


def _parse(file: BinaryIO, size: int | None, limit: int, label: str) -> np.ndarray[Any, Any]:
    """`size` is that of the file, where it is known; `limit` what it can hold at most."""
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES:
        raise DataError(
            f"{label} is not an idx file: it begins with {head.hex(' ') or 'nothing'}, and one "
            "begins with 00 00, a type (08, 09, 0b to 0e) and the number of axes.",
            file=label,
        )
    axes = head[3]
    if not 1 <= axes <= _MAX_AXES:
        raise DataError(f"{label} has {axes} axes; idx files have 1 to {_MAX_AXES}", file=label)
    raw = file.read(4 * axes)
    if len(raw) < 4 * axes:
        raise DataError(f"{label} ends inside its header", file=label)
    shape = tuple(int.from_bytes(raw[4 * i : 4 * i + 4], "big") for i in range(axes))
    dtype = np.dtype(_DTYPES[head[2]])
    header, wanted = 4 + 4 * axes, math.prod(shape) * dtype.itemsize
    if (size is not None and header + wanted != size) or wanted > limit:
        has = f"the file has {size:,}" if size is not None else "the file cannot hold that many"
        raise DataError(
            f"{label} does not fit its header: shape {shape} of {dtype.itemsize}-byte numbers "
            f"needs {header + wanted:,} bytes and {has}.\nWas it cut off? Copy it again.",
            file=label,
            expected=header + wanted,
            got=size,
        )
    data = bytearray(wanted)
    view, filled = memoryview(data), 0
    while filled < wanted:
        count = file.readinto(view[filled : filled + _CHUNK])  # type: ignore[attr-defined]
        if not count:
            raise DataError(
                f"{label} is cut off: its header promises {wanted:,} bytes of data and "
                f"{filled:,} are there",
                file=label,
                expected=wanted,
                got=filled,
            )
        filled += count
    if file.read(1):
        raise DataError(f"{label} goes on after the {wanted:,} bytes of its array", file=label)
    array = np.frombuffer(data, dtype).reshape(shape)
    return array if dtype.itemsize == 1 else array.astype(dtype.newbyteorder("="))

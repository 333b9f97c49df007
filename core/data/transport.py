"""Values between the loader and its worker processes, by multiprocessing's own means.

Arrays travel as they are, beside the pickled rest, and arrive without a second copy.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any


def pack(value: Any) -> list[Any]:
    """A value as a list of buffers: the pickled value, then the arrays in it."""
    buffers: list[Any] = []
    out = io.BytesIO()
    ForkingPickler(out, 5, True, buffers.append).dump(value)
    return [out.getbuffer(), *(buffer.raw() for buffer in buffers)]


def send(connection: Connection, parts: list[Any]) -> None:
    """Send what `pack` returned."""
    sizes = [memoryview(part).nbytes for part in parts]
    connection.send_bytes(struct.pack(f"<{len(sizes)}Q", *sizes))
    for part, size in zip(parts, sizes, strict=True):
        if size:
            connection.send_bytes(part)


def receive_parts(connection: Connection) -> list[bytearray]:
    """What `pack` returned on the other side.

    Raises:
        EOFError: the other side has ended.
    """
    header = connection.recv_bytes()
    parts = []
    for size in struct.unpack(f"<{len(header) // 8}Q", header):
        part = bytearray(size)
        if size:
            connection.recv_bytes_into(part)
        parts.append(part)
    return parts


def unpack(parts: list[bytearray]) -> Any:
    """The value; the arrays in it can be written to."""
    loads: Callable[..., Any] = ForkingPickler.loads
    return loads(parts[0], buffers=parts[1:])


def receive(connection: Connection) -> Any:
    """Receive a value."""
    return unpack(receive_parts(connection))

"""The little of protocol buffers that event files and ONNX need: fields by number.

Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from .errors import DataError

VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5  # wire types
_DOUBLE, _FLOAT = struct.Struct("<d"), struct.Struct("<f")


def varint(value: int) -> bytes:
    """A whole number, seven bits a byte; negative ones in ten bytes, as of 64 bits."""
    if 0 <= value < 128:
        return bytes((value,))
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def whole(field: int, value: int) -> bytes:
    """A field with a whole number."""
    return varint(field << 3 | VARINT) + varint(value)


def double(field: int, value: float) -> bytes:
    """A field with a number of 64 bits."""
    return varint(field << 3 | EIGHT) + _DOUBLE.pack(value)


def single(field: int, value: float) -> bytes:
    """A field with a number of 32 bits."""
    return varint(field << 3 | FOUR) + _FLOAT.pack(value)


def blob(field: int, data: bytes) -> bytes:
    """A field with bytes, text in UTF-8, a message or packed numbers."""
    return varint(field << 3 | BYTES) + varint(len(data)) + data


def read_varint(data: bytes | memoryview, place: int) -> tuple[int, int]:
    """A whole number, and where it ends.

    Raises:
        DataError: it has no end.
    """
    value = shift = 0
    while place < len(data) and shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, place
        shift += 7
    raise DataError("a number in a message has no end")


def fields(data: bytes | memoryview) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field: a whole number, or bytes of the other types.

    Raises:
        DataError: it is no message.
    """
    place = 0
    while place < len(data):
        key, place = read_varint(data, place)
        kind = key & 7
        if kind == VARINT:
            value, place = read_varint(data, place)
            yield key >> 3, kind, value
            continue
        if kind == BYTES:
            length, place = read_varint(data, place)
        elif kind in (EIGHT, FOUR):
            length = 8 if kind == EIGHT else 4
        else:
            raise DataError(f"a message has a field of wire type {kind}, which is none")
        if place + length > len(data):
            raise DataError("a field of a message reaches beyond its end")
        yield key >> 3, kind, data[place : place + length]
        place += length


def signed(value: int) -> int:
    """A whole number of 64 bits with its sign."""
    return value - (1 << 64) if value >= 1 << 63 else value


def as_double(data: int | bytes) -> float:
    """The number of a field of 64 bits."""
    if not isinstance(data, bytes) or len(data) != 8:
        raise DataError("a message has a number of another size")
    return float(_DOUBLE.unpack(data)[0])


def as_single(data: int | bytes) -> float:
    """The number of a field of 32 bits."""
    if not isinstance(data, bytes) or len(data) != 4:
        raise DataError("a message has a number of another size")
    return float(_FLOAT.unpack(data)[0])


def as_bytes(data: int | bytes) -> bytes:
    """What a field of bytes holds."""
    if not isinstance(data, bytes):
        raise DataError("a message has a number where bytes are due")
    return data

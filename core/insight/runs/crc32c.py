"""CRC-32C, the checksum of event files, fast enough in NumPy for pictures and for long logs.

Source: RFC 3720, appendix B.4 (polynomial 0x1EDC6F41, reflected).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_POLYNOMIAL = 0x82F63B78
_SHORT = 256  # bytes up to which the plain loop is faster
_CHUNK = 256
_ONES = np.uint32(0xFFFFFFFF)


@cache
def _table() -> Array:
    value = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        value = np.where(value & 1, (value >> 1) ^ np.uint32(_POLYNOMIAL), value >> 1)
    return value


@cache
def _plain_table() -> list[int]:
    return [int(v) for v in _table()]


@cache
def _skip() -> Array:
    """What `_CHUNK` zero bytes make of each byte of a register, (4, 256)."""
    registers = np.arange(256, dtype=np.uint32)[None] << np.array([[0], [8], [16], [24]], np.uint32)
    table = _table()
    for _ in range(_CHUNK):
        registers = table[registers & 255] ^ (registers >> 8)
    return registers


def crc32c(data: bytes | memoryview) -> int:
    """The checksum of some bytes."""
    if len(data) <= _SHORT:
        table, crc = _plain_table(), 0xFFFFFFFF
        for byte in data:
            crc = table[(crc ^ byte) & 255] ^ (crc >> 8)
        return crc ^ 0xFFFFFFFF
    return _long(data)


def rows(data: Array) -> Array:
    """The checksum of each row. Shape: (N, L), uint8 -> (N,), uint32."""
    table = _table()
    crc = np.full(len(data), _ONES, np.uint32)
    for column in np.ascontiguousarray(data.T):
        crc = table[(crc ^ column) & 255] ^ (crc >> 8)
    return crc ^ _ONES


def _long(data: bytes | memoryview) -> int:
    """Chunks side by side, then joined: a register is linear in what went through it."""
    values = np.frombuffer(data, np.uint8)
    count = -(-len(values) // _CHUNK)
    padded = np.zeros(count * _CHUNK, np.uint8)
    padded[-len(values) :] = values
    # Zeros in front change a register of zeros not at all; the initial ones go into the data.
    padded[-len(values) : -len(values) + 4] ^= 255
    table = _table()
    registers = np.zeros(count, np.uint32)
    for column in np.ascontiguousarray(padded.reshape(count, _CHUNK).T):
        registers = table[(registers ^ column) & 255] ^ (registers >> 8)
    a, b, c, d = (row.tolist() for row in _skip())
    crc = 0
    for register in registers.tolist():
        crc = a[crc & 255] ^ b[crc >> 8 & 255] ^ c[crc >> 16 & 255] ^ d[crc >> 24] ^ register
    return crc ^ 0xFFFFFFFF

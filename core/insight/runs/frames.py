"""Records with a length and checksums: how event files are framed.

A record is its length (8 bytes, little-endian), the masked CRC-32C of these 8 bytes, the data,
and the masked CRC-32C of the data. Source: TensorFlow, "TFRecord and tf.train.Example".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from .crc32c import crc32c, rows

HEADER, FOOTER = 12, 4  # bytes around the data
_MASK = 0xA282EAD8
_LONGEST_GROUP, _PAUSE = 32, 64  # records
_LENGTH = struct.Struct("<Q")
_CHECK = struct.Struct("<I")


def masked(crc: int) -> int:
    """A checksum as it is stored: turned and shifted, since checksums of checksums are weak."""
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


@lru_cache(maxsize=1024)
def _header(length: int) -> bytes:
    size = _LENGTH.pack(length)
    return size + _CHECK.pack(masked(crc32c(size)))


def frame(data: bytes) -> bytes:
    """A record of some data."""
    return b"".join((_header(len(data)), data, _CHECK.pack(masked(crc32c(data)))))


@dataclass
class Found:
    """The records of a part of a file.

    Attributes:
        firsts, lengths: first byte and length of the data of each sound record, in the order of
            the file, (N,) each.
        end: where the next record begins, or the incomplete last one.
        problems: what could not be read, with its place.
    """

    firsts: Any
    lengths: Any
    end: int = 0
    problems: list[str] = field(default_factory=list)


def find_records(data: bytes, *, base: int = 0) -> Found:
    """The sound records of some bytes. Damaged ones are named and passed over.

    A record that reaches beyond the end is left for later: its file may still be written.

    Args:
        base: where in the file the bytes begin, for what is said of problems.
    """
    problems: list[str] = []
    firsts: list[int] = []
    lengths: list[int] = []
    parts: list[tuple[Any, Any]] = []  # the same of what came before
    known: dict[bytes, int] = {}  # headers whose checksum is right -> the length that they tell
    values = np.frombuffer(data, np.uint8)
    seen: dict[bytes, int] = {}  # headers -> the last record that had them
    patience = 0
    place, size = 0, len(data)
    while place + HEADER <= size:
        head = data[place : place + HEADER]
        length = known.get(head)
        if length is None:
            (length,) = _LENGTH.unpack_from(head)
            if head != _header(length):
                after = _next_header(data, place + 1)
                if after is None:  # nothing sound follows, as far as the file goes
                    problems.append(f"byte {base + place}: no record begins there")
                    place = size
                    break
                problems.append(f"bytes {base + place} to {base + after}: no records")
                place = after
                continue
            known[head] = length
        after = place + HEADER + length + FOOTER
        if after > size:
            break
        # Training logs the same few numbers at every step: groups of records that repeat.
        group = len(firsts) - seen.get(head, -size)
        seen[head] = len(firsts)
        if group <= _LONGEST_GROUP and len(firsts) >= patience:
            more = _repeated(values, place, lengths[-group:])
            if len(more):
                again = np.tile(np.array(lengths[-group:], np.int64), len(more) // group)
                parts += [(firsts, lengths), (more, again)]
                place = int(more[-1] + again[-1]) + FOOTER
                firsts, lengths, patience = [], [], 0
                seen.clear()
                continue
            patience = len(firsts) + _PAUSE
        firsts.append(place + HEADER)
        lengths.append(length)
        place = after
    parts.append((firsts, lengths))
    all_firsts, all_lengths = (
        np.concatenate([np.asarray(x, np.int64) for x in part]) for part in zip(*parts, strict=True)
    )
    found = Found(all_firsts, all_lengths, place, problems)
    sound = _sound(data, found)
    for i in np.flatnonzero(~sound):
        first, length = int(found.firsts[i]), int(found.lengths[i])
        problems.append(f"byte {base + first}: a record of {length} bytes is damaged")
    found.firsts, found.lengths = found.firsts[sound], found.lengths[sound]
    return found


def _repeated(values: Any, place: int, lengths: list[int]) -> Any:
    """First bytes of the data of the records from a place on that have the headers of the group
    before it, again and again; whole groups alone."""
    period = sum(lengths) + len(lengths) * (HEADER + FOOTER)
    starts = np.cumsum([0, *(n + HEADER + FOOTER for n in lengths[:-1])])
    count = (len(values) - place) // period
    if count == 0:
        return starts[:0]
    rows_ = values[place - period : place + count * period].reshape(-1, period)
    headers = (starts[:, None] + np.arange(HEADER)).reshape(-1)
    group, found = rows_[0, headers], 0
    for first in range(1, count + 1, 1024):
        same = (rows_[first : first + 1024, headers] == group).all(axis=1)
        if not same.all():
            found += int(same.argmin())
            break
        found += len(same)
    return (place + HEADER + starts + period * np.arange(found)[:, None]).reshape(-1)


def _next_header(data: bytes, start: int) -> int | None:
    """Where the next length with its checksum stands."""
    block = 1 << 16
    values = np.frombuffer(data, np.uint8)
    for first in range(start, max(len(values) - HEADER + 1, start), block):
        part = values[first : first + block + HEADER - 1]
        if len(part) < HEADER:
            return None
        windows = np.lib.stride_tricks.sliding_window_view(part, HEADER)
        stored = np.ascontiguousarray(windows[:, 8:]).view("<u4")[:, 0]
        crc = rows(windows[:, :8])
        wanted = (crc >> 15 | crc << np.uint32(17)) + np.uint32(_MASK)
        places = np.flatnonzero(stored == wanted)
        if len(places):
            return first + int(places[0])
    return None


def by_length(lengths: Any) -> Iterator[tuple[int, Any]]:
    """Each length, and the numbers of the records that have it, ascending."""
    order = np.argsort(lengths, kind="stable")
    different, starts = np.unique(lengths[order], return_index=True)
    for length, chosen in zip(different, np.split(order, starts[1:]), strict=True):
        yield int(length), chosen


def _sound(data: bytes, found: Found) -> Any:
    """Whether the checksum of each record is right; those of one length are computed together."""
    sound = np.zeros(len(found.firsts), bool)
    if not len(sound):
        return sound
    values = np.frombuffer(data, np.uint8)
    for length, chosen in by_length(found.lengths):
        if len(chosen) < 4 or length > 4096:
            for i in chosen:
                first = int(found.firsts[i])
                (stored,) = _CHECK.unpack_from(data, first + length)
                sound[i] = masked(crc32c(data[first : first + length])) == stored
            continue
        for start in range(0, len(chosen), 65536):
            some = chosen[start : start + 65536]
            block = gather(values, found.firsts[some], length + FOOTER)
            crc = rows(block[:, :length])
            stored = np.ascontiguousarray(block[:, length:]).view("<u4")[:, 0]
            sound[some] = (crc >> 15 | crc << np.uint32(17)) + np.uint32(_MASK) == stored
    return sound


def gather(values: Any, firsts: Any, length: int) -> Any:
    """Rows of `length` bytes from each place on. Shape: (N,) -> (N, length)."""
    if len(values) < length:
        return np.empty((0, length), np.uint8)
    return np.lib.stride_tricks.sliding_window_view(values, length)[firsts]

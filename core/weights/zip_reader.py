"""The directory of a zip archive whose members are stored plainly, as torch writes them.

Members are found by the central directory alone and read in place. Compressed, encrypted,
overlapping and misnamed members are refused: torch.save makes none, and the attacks known from
zip files (a small file that unpacks to a huge one, names that climb out of a folder) need them.

Source: PKWARE APPNOTE 6.3, sections 4.3.6 to 4.5.3.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..errors import WeightsError
from .source import Source, quoted

MAX_MEMBERS = 65_535
MAX_DIRECTORY_BYTES = 32_000_000

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


class Member(NamedTuple):
    """One file of the archive; `header` is the position of its local header."""

    name: str
    header: int
    size: int


class _Directory(NamedTuple):
    members: int
    size: int
    offset: int


def refused(source: Source, problem: str, **facts: object) -> WeightsError:
    """The error for an archive that torch.save did not make."""
    return WeightsError(
        f"{source.path}: refused as a torch checkpoint ({source.size:,} bytes).\n{problem}\n"
        "torch.save writes no such archive. Fetch the file again, or save it again with torch.",
        path=source.path,
        **facts,
    )


def read_directory(source: Source) -> dict[str, Member]:
    """The members of the archive by name.

    Raises:
        WeightsError: truncated, damaged, over a cap, or with members that torch never writes.
    """
    directory = _find_directory(source)
    if directory.members > MAX_MEMBERS or directory.size > MAX_DIRECTORY_BYTES:
        raise refused(
            source,
            f"Its directory lists {directory.members:,} members in {directory.size:,} bytes; the "
            f"limits are {MAX_MEMBERS:,} and {MAX_DIRECTORY_BYTES:,}.",
            expected=MAX_MEMBERS,
            got=directory.members,
        )
    raw = source.read(directory.offset, directory.size)
    members: dict[str, Member] = {}
    position = 0
    for _ in range(directory.members):
        member, position = _entry(source, raw, position)
        if member.name in members:
            raise refused(source, f"Two members are named {quoted(member.name)}.")
        members[member.name] = member
    if position != len(raw):
        raise refused(source, "Its directory is longer than its entries.")
    _refuse_overlaps(source, members, directory.offset)
    return members


def _find_directory(source: Source) -> _Directory:
    """Read the end record, which is the last thing in the file, and its 64-bit extension."""
    tail_start = max(0, source.size - _END.size - 0xFFFF)
    tail = source.read(tail_start, source.size - tail_start)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise refused(
            source,
            "It is a zip archive without an end record: it is truncated.",
            got=source.size,
        )
    _, disk, first_disk, here, count, size, offset, comment = _END.unpack_from(tail, at)
    if disk or first_disk or here != count or at + _END.size + comment != len(tail):
        raise refused(source, "Its end record is damaged.")
    end = tail_start + at
    locator = source.read(max(0, end - _END64_LOCATOR.size), _END64_LOCATOR.size)
    if locator[:4] == b"PK\x06\x07" and len(locator) == _END64_LOCATOR.size:
        end = _END64_LOCATOR.unpack(locator)[2]
        record = source.read(end, _END64.size)
        if record[:4] != b"PK\x06\x06" or len(record) < _END64.size:
            raise refused(source, "Its 64-bit end record is damaged.")
        count, size, offset = _END64.unpack(record)[7:]
    # Nothing may hide before the archive or between its directory and its end.
    if offset + size != end:
        raise refused(
            source,
            f"Its directory should end at byte {end:,}, where the end record begins; "
            f"by its own numbers it ends at byte {offset + size:,}.",
            expected=end,
            got=offset + size,
        )
    return _Directory(count, size, offset)


def _entry(source: Source, raw: bytes, position: int) -> tuple[Member, int]:
    if len(raw) - position < _ENTRY.size or raw[position : position + 4] != b"PK\x01\x02":
        raise refused(source, "Its directory is damaged.")
    found = _ENTRY.unpack_from(raw, position)
    flags, method, packed, size = found[3], found[4], found[8], found[9]
    name_length, extra_length, comment_length, header = found[10], found[11], found[12], found[16]
    name_start = position + _ENTRY.size
    extra_start = name_start + name_length
    position = extra_start + extra_length + comment_length
    if position > len(raw):
        raise refused(source, "Its directory is damaged.")
    name = _checked_name(source, raw[name_start:extra_start])
    extra = raw[extra_start : extra_start + extra_length]
    size, packed, header = _widen(source, extra, [size, packed, header])
    if flags & 1:
        raise refused(source, f"The member {quoted(name)} is encrypted.")
    if method or size != packed:
        raise refused(
            source,
            f"The member {quoted(name)} is compressed: {packed:,} bytes unpack to {size:,}.",
            member=name,
            expected=packed,
            got=size,
        )
    return Member(name, header, size), position


def _checked_name(source: Source, raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise refused(source, f"The member name {raw[:40]!r} is not UTF-8.") from None
    parts = name.removesuffix("/").split("/")
    if "\\" in name or "\0" in name or ":" in parts[0] or not {"", ".", ".."}.isdisjoint(parts):
        raise refused(source, f"The member name {quoted(name)} is not a plain path.", member=name)
    return name


def _widen(source: Source, extra: bytes, values: list[int]) -> list[int]:
    """Take from the 64-bit extra field the values that do not fit into 32 bits."""
    if 0xFFFFFFFF not in values:
        return values
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4
        if kind == 1:
            wide = [index for index, value in enumerate(values) if value == 0xFFFFFFFF]
            if 8 * len(wide) <= min(length, len(extra) - position):
                found = struct.unpack_from(f"<{len(wide)}Q", extra, position)
                for index, value in zip(wide, found, strict=True):
                    values[index] = value
                return values
        position += length
    raise refused(source, "A 64-bit size in its directory is missing.")


def _refuse_overlaps(source: Source, members: dict[str, Member], end: int) -> None:
    """Members that share bytes make a small file look like a large one."""
    ordered = sorted(members.values(), key=lambda member: member.header)
    limits = [*(member.header for member in ordered[1:]), end]
    for member, limit in zip(ordered, limits, strict=False):
        least = member.header + _LOCAL.size + len(member.name.encode()) + member.size
        if least > limit:
            raise refused(
                source,
                f"The member {quoted(member.name)} of {member.size:,} bytes reaches into the next.",
                member=member.name,
                expected=limit,
                got=least,
            )


def data_offset(source: Source, member: Member) -> int:
    """Where the bytes of a member begin, by its local header, which must agree on the name."""
    raw = source.read(member.header, _LOCAL.size)
    if len(raw) < _LOCAL.size or raw[:4] != b"PK\x03\x04":
        raise refused(source, f"The local header of {quoted(member.name)} is damaged.")
    *_, name_length, extra_length = _LOCAL.unpack(raw)
    start = member.header + _LOCAL.size
    if source.read(start, name_length) != member.name.encode():
        raise refused(source, f"The member {quoted(member.name)} has another name in its header.")
    position = int(start + name_length + extra_length)
    if position + member.size > source.size:
        raise refused(source, f"The member {quoted(member.name)} reaches beyond the end.")
    return position

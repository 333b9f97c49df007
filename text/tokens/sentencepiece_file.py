"""SentencePiece's `.model` files: a protobuf message, read without that library.

Source: the message's definition, sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...core.errors import DataError

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2


@dataclass
class PieceModel:
    """What a file holds: the pieces in the order of their ids, and how a text is prepared."""

    pieces: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    kind: int = UNIGRAM
    byte_fallback: bool = False
    ids: dict[str, int] = field(default_factory=dict)  # "unk", "bos", "eos", "pad"; -1 = none
    charsmap: bytes = b""
    dummy_prefix: bool = True
    one_space: bool = True
    escape: bool = True


def read_piece_model(path: Path, content: bytes) -> PieceModel:
    """Read a `.model` file.

    Raises:
        DataError: it is damaged, or of a kind that is not read; names it.
    """
    model = PieceModel(ids={"unk": 0, "bos": 1, "eos": 2, "pad": -1})
    try:
        for number, value in _fields(content):
            if number == 1 and isinstance(value, bytes):
                _piece(model, value)
            elif number == 2 and isinstance(value, bytes):
                _trainer(model, value)
            elif number == 3 and isinstance(value, bytes):
                _normalizer(model, value)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no SentencePiece model: {error}", path=str(path)) from None
    if not model.pieces or len(set(model.pieces)) != len(model.pieces):
        raise DataError(
            f"{path} is no SentencePiece model: it has no pieces, or one twice", path=str(path)
        )
    if model.kind not in (UNIGRAM, BPE):
        raise DataError(
            f"{path} is a SentencePiece model of kind {model.kind}; unigram (1) and byte pairs (2) "
            "are read.",
            path=str(path),
        )
    return model


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        value: int | float | bytes
        if wire == 0:
            value, place = _varint(data, place)
        elif wire == 2:
            size, place = _varint(data, place)
            if place + size > len(data):
                raise IndexError("a field is longer than the file")
            value, place = data[place : place + size], place + size
        elif wire in (1, 5):
            form, size = ("<d", 8) if wire == 1 else ("<f", 4)
            value, place = struct.unpack_from(form, data, place)[0], place + size
        else:
            raise IndexError(f"a field of wire type {wire}")
        yield number, value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if not byte & 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise IndexError("a number of more than 64 bits")


def _piece(model: PieceModel, data: bytes) -> None:
    piece, score, kind = "", 0.0, NORMAL
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            piece = value.decode("utf-8")
        elif number == 2 and isinstance(value, float):
            score = value
        elif number == 3 and isinstance(value, int):
            kind = value
    model.pieces.append(piece)
    model.scores.append(score)
    model.types.append(kind)


def _trainer(model: PieceModel, data: bytes) -> None:
    names = {40: "unk", 41: "bos", 42: "eos", 43: "pad"}
    for number, value in _fields(data):
        if not isinstance(value, int):
            continue
        if number == 3:
            model.kind = value
        elif number == 35:
            model.byte_fallback = bool(value)
        elif number in names:
            model.ids[names[number]] = value - (1 << 64) if value >> 63 else value


def _normalizer(model: PieceModel, data: bytes) -> None:
    for number, value in _fields(data):
        if number == 2 and isinstance(value, bytes):
            model.charsmap = value
        elif number == 3:
            model.dummy_prefix = bool(value)
        elif number == 4:
            model.one_space = bool(value)
        elif number == 5:
            model.escape = bool(value)


class CharsMap:
    """Replacements of beginnings of texts, the longest that fits; a double-array trie of bytes.

    Source: Yata, darts-clone: the layout of its units.
    """

    def __init__(self, blob: bytes) -> None:
        self._units: tuple[int, ...] = ()
        self._texts = b""
        if blob:
            try:
                size = struct.unpack_from("<I", blob)[0]
                self._units = struct.unpack_from(f"<{size // 4}I", blob, 4)
            except (struct.error, MemoryError) as error:
                raise DataError(f"the table of characters is damaged: {error}") from None
            self._texts = blob[4 + size :]

    def longest(self, data: bytes, start: int) -> tuple[int, str] | None:
        """How many bytes from `start` are replaced, and by what."""
        units = self._units
        found: tuple[int, int] | None = None
        if not units:
            return None
        node = _offset(units[0])
        for place in range(start, len(data)):
            node ^= data[place]
            if node >= len(units):
                break
            unit = units[node]
            if unit & 0x800000FF != data[place]:
                break
            node ^= _offset(unit)
            if unit >> 8 & 1 and node < len(units):
                found = place + 1 - start, units[node] & 0x7FFFFFFF
        if found is None:
            return None
        end = self._texts.find(b"\0", found[1])
        text = self._texts[found[1] : end if end >= 0 else None]
        return found[0], text.decode("utf-8", "replace")


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)

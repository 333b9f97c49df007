"""The header of a GGUF file: metadata of typed values, then names, shapes and places of tensors.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3. Nothing is
taken on trust: every count is compared with the bytes that are left before anything is made for
it, and tensors must follow each other without gap or overlap, as writers make them.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

import numpy as np

from ..dtypes import (
    DType,
    bfloat16,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)
from ..errors import WeightsError
from ..quantization import FORMATS, Format
from .source import Source, quoted

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_HEADER_BYTES = 128 << 20  # vocabularies are inside
_MAX_NAME = 65_535
_MAX_DIMENSIONS = 4
_MAX_DEPTH = 4  # of lists in lists
_ALIGNMENT = "general.alignment"
_CHUNK = 4 << 20

_NUMBERS: dict[int, DType] = {
    0: uint8,
    1: int8,
    2: uint16,
    3: int16,
    4: uint32,
    5: int32,
    6: float32,
    10: uint64,
    11: int64,
    12: float64,
}
_BOOL, _TEXT, _LIST = 7, 8, 9

# Tensors of plain numbers, and of formats with blocks, by their number in a file.
PLAIN: dict[int, DType] = {
    0: float32,
    1: float16,
    24: int8,
    25: int16,
    26: int32,
    27: int64,
    28: float64,
    30: bfloat16,
}
BLOCKS: dict[int, Format] = {
    2: FORMATS["q4_0"],
    3: FORMATS["q4_1"],
    6: FORMATS["q5_0"],
    7: FORMATS["q5_1"],
    8: FORMATS["q8_0"],
    12: FORMATS["q4_k"],
    13: FORMATS["q5_k"],
    14: FORMATS["q6_k"],
}
# Formats that exist and are not read, for the message.
_OTHERS = {
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
}


class Entry(NamedTuple):
    """One tensor; `start` counts bytes from the beginning of the data."""

    kind: DType | Format
    shape: tuple[int, ...]
    start: int
    nbytes: int


class Header(NamedTuple):
    """A validated header; the data begins at byte `data_start` of the file."""

    version: int
    metadata: dict[str, Any]
    tensors: dict[str, Entry]
    data_start: int


def invalid(where: str, problem: str, **facts: Any) -> WeightsError:
    """The error for a file that breaks the rules of the format."""
    return WeightsError(
        f"{where}: not a valid GGUF file.\n{problem}\n"
        "The file is damaged, or was not written by a GGUF writer. Fetch or convert it again.",
        path=where,
        **facts,
    )


class _Reader:
    """Bytes of a header from its beginning on, fetched as they are needed."""

    def __init__(self, source: Source, cap: int) -> None:
        self.source, self.cap, self.at = source, cap, 0
        self.where = source.path
        self._bytes = b""

    def need(self, count: int) -> int:
        """The place of the next `count` bytes, which are read if they were not."""
        start, stop = self.at, self.at + count
        if stop > len(self._bytes):
            if stop > self.source.size:
                raise invalid(
                    self.where,
                    f"Its header goes on to byte {_number(stop)}; the file has "
                    f"{self.source.size:,} bytes.",
                    expected=stop,
                    got=self.source.size,
                )
            if stop > self.cap:
                raise WeightsError(
                    f"{self.where}: its header has more than {self.cap:,} bytes, the limit.\n"
                    "No published model comes near it. If you trust the file, raise the limit:\n"
                    "    GgufFile(path, max_header_bytes=...)",
                    path=self.where,
                    expected=self.cap,
                    got=stop,
                )
            size = len(self._bytes)
            wanted = max(stop - size, min(_CHUNK, self.cap - size))
            self._bytes += self.source.read(size, wanted)
        self.at = stop
        return start

    def left(self) -> int:
        """Bytes of the file behind this place."""
        return self.source.size - self.at

    def u32(self) -> int:
        """A whole number of four bytes."""
        start = self.need(4)  # which may put other bytes in the place of those there are
        value: int = _U32.unpack_from(self._bytes, start)[0]
        return value

    def u64(self) -> int:
        """A whole number of eight bytes."""
        start = self.need(8)
        value: int = _U64.unpack_from(self._bytes, start)[0]
        return value

    def count(self, each: int, what: str) -> int:
        """A number of things that take at least `each` bytes, of which so many must be left."""
        value = self.u64()
        if value * each > self.left():
            raise invalid(
                self.where,
                f"It promises {_number(value)} {what}; {self.left():,} bytes follow.",
                expected=value,
                got=self.left(),
            )
        return value

    def text(self, what: str, longest: int | None = None) -> str:
        """A length, then UTF-8."""
        count = self.count(1, f"bytes of {what}")
        if longest is not None and count > longest:
            raise invalid(self.where, f"{what} has {count:,} bytes, more than {longest:,}.")
        start = self.need(count)
        try:
            return self._bytes[start : start + count].decode()
        except UnicodeDecodeError:
            raise invalid(self.where, f"{what} is not UTF-8.") from None

    def numbers(self, dtype: DType, count: int) -> Any:
        """An array of numbers."""
        start = self.need(count * dtype.itemsize)
        found = np.frombuffer(self._bytes, dtype.newbyteorder("<"), count, start)
        return found.astype(dtype)

    def value(self, kind: int, key: str, depth: int = 0) -> Any:
        """A value of the metadata: a number, a truth value, a text, or a list of one of them."""
        if kind in _NUMBERS:
            return self.numbers(_NUMBERS[kind], 1)[0].item()
        if kind == _BOOL:
            return bool(self.truths(1, key)[0])
        if kind == _TEXT:
            return self.text(f"the value of {quoted(key)}")
        if kind == _LIST and depth < _MAX_DEPTH:
            return self.list(key, depth)
        what = f"a list in {depth} lists" if kind == _LIST else f"of the type {kind}"
        raise invalid(self.where, f"The value of {quoted(key)} is {what}.", name=key)

    def list(self, key: str, depth: int) -> Any:
        """A list of values of one type: an array of numbers, else a list."""
        kind = self.u32()
        what = f"values of {quoted(key)}"
        if kind in _NUMBERS:
            return self.numbers(_NUMBERS[kind], self.count(_NUMBERS[kind].itemsize, what))
        if kind == _BOOL:
            return self.truths(self.count(1, what), key)
        if kind == _TEXT:
            return [self.text(what) for _ in range(self.count(8, what))]
        return [self.value(kind, key, depth + 1) for _ in range(self.count(12, what))]

    def truths(self, count: int, key: str) -> Any:
        """Bytes that are 0 or 1."""
        found = self.numbers(uint8, count)
        if found.size and found.max() > 1:
            raise invalid(self.where, f"A truth value of {quoted(key)} is {found.max()}.", name=key)
        return found.astype(bool)


_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


def read_header(source: Source, cap: int = MAX_HEADER_BYTES) -> Header:
    """The validated header of an open file.

    Raises:
        WeightsError: it breaks the rules, is over the cap, or has tensors of another format.
    """
    reader, where = _Reader(source, cap), source.path
    if source.size < 24 or source.read(0, 4) != MAGIC:
        raise invalid(where, f"It has {source.size:,} bytes and does not begin with GGUF.")
    reader.need(4)
    version = reader.u32()
    if version not in VERSIONS:
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in (1, *VERSIONS)
        what = "is for big-endian machines" if swapped else f"has version {version}"
        raise WeightsError(
            f"{where}: this GGUF file {what}; versions 2 and 3, little-endian, are read.\n"
            "Convert it with a recent llama.cpp.",
            path=where,
            got=version,
        )
    tensors = reader.count(24, "tensors")
    pairs = reader.count(13, "values of metadata")
    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        key = reader.text("a key of the metadata", _MAX_NAME)
        if key in metadata:
            raise invalid(where, f"The key {quoted(key)} appears twice.", name=key)
        metadata[key] = reader.value(reader.u32(), key)
    infos = _infos(reader, tensors)
    alignment = _alignment(where, metadata)
    start = -(-reader.at // alignment) * alignment
    _check_places(where, infos, alignment, source.size - start)
    return Header(version, metadata, infos, start)


def _alignment(where: str, metadata: dict[str, Any]) -> int:
    value = metadata.get(_ALIGNMENT, 32)
    if type(value) is not int or not 1 <= value <= 1 << 20 or value & (value - 1):
        raise invalid(where, f"{_ALIGNMENT} is {value!r:.40}, not a power of 2.", got=value)
    return value


def _infos(reader: _Reader, count: int) -> dict[str, Entry]:
    where, infos = reader.where, dict[str, Entry]()
    for _ in range(count):
        name = reader.text("the name of a tensor", _MAX_NAME)
        if name in infos:
            raise invalid(where, f"There are two tensors {quoted(name)}.", tensor=name)
        dimensions = reader.u32()
        if dimensions > _MAX_DIMENSIONS:
            raise invalid(
                where,
                f"The tensor {quoted(name)} has {dimensions:,} axes; {_MAX_DIMENSIONS} at most.",
                tensor=name,
                got=dimensions,
            )
        shape = tuple(reader.u64() for _ in range(dimensions))[::-1]
        kind = _kind(where, name, reader.u32())
        infos[name] = Entry(kind, shape, reader.u64(), _size(where, name, kind, shape))
    return infos


def _kind(where: str, name: str, number: int) -> DType | Format:
    found: DType | Format | None = PLAIN.get(number) or BLOCKS.get(number)
    if found is not None:
        return found
    if number in _OTHERS:
        raise WeightsError(
            f"{where}: the tensor {quoted(name)} is in the format {_OTHERS[number]}, which is not "
            "supported.\nThere are: F32, F16, BF16, "
            + ", ".join(form.name.upper() for form in BLOCKS.values())
            + ".\nTake a file of the model in one of these.",
            path=where,
            tensor=name,
            got=_OTHERS[number],
        )
    raise invalid(
        where,
        f"The tensor {quoted(name)} has the type {number}, which does not exist.",
        tensor=name,
        got=number,
    )


def _size(where: str, name: str, kind: DType | Format, shape: tuple[int, ...]) -> int:
    count = math.prod(size for size in shape if size)  # one of no size hides the others
    if count >= 1 << 60:
        raise invalid(
            where, f"The tensor {quoted(name)} has a shape that no array can have.", tensor=name
        )
    if not isinstance(kind, Format):
        return math.prod(shape) * kind.itemsize
    if not shape or shape[-1] % kind.block:
        raise invalid(
            where,
            f"The tensor {quoted(name)} of shape {shape} is no whole number of blocks of "
            f"{kind.block}.",
            tensor=name,
        )
    return math.prod(shape) // kind.block * kind.bytes


def _check_places(where: str, infos: dict[str, Entry], alignment: int, size: int) -> None:
    """The tensors fill the data: each begins where the one before ends, and is aligned."""
    cursor, end = 0, 0
    for _, _, name in sorted((e.start, e.start + e.nbytes, n) for n, e in infos.items()):
        entry = infos[name]
        if entry.start != cursor:
            what = "overlaps the one before" if entry.start < cursor else "leaves a gap"
            raise invalid(
                where,
                f"The tensor {quoted(name)} begins at byte {_number(entry.start)} of the data, not "
                f"at {cursor:,}: it {what}.",
                tensor=name,
                expected=cursor,
                got=entry.start,
            )
        end = entry.start + entry.nbytes
        cursor = -(-end // alignment) * alignment
    if not end <= max(size, 0) <= max(cursor, alignment):
        raise invalid(
            where,
            f"Its tensors take {end:,} bytes; the file has {max(size, 0):,} for them.",
            expected=end,
            got=size,
        )


def _number(value: int) -> str:
    return f"{value:,}" if value < 2**63 else "2**63 or more"

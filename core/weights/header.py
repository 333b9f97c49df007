"""The header of a safetensors file: eight bytes of length, then JSON, then the data.

Source: https://github.com/huggingface/safetensors, "Format". Stricter than the published
readers where they let through what no writer makes: duplicate names, a header that does not
begin with `{`, unknown fields, shapes that no array can have.
"""

from __future__ import annotations

import gc
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

from ..dtypes import (
    DType,
    bfloat16,
    bool_,
    complex64,
    float8_e4m3fn,
    float8_e5m2,
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
from .source import quoted

MAX_HEADER_BYTES = 25_000_000
MAX_DIMENSIONS = 64  # NumPy's limit
LENGTH_BYTES = 8

# In the order of the published writer, which sorts tensors by it, the last first: every
# tensor then begins at a multiple of its item size.
DTYPES: dict[str, DType] = {
    "BOOL": bool_,
    "U8": uint8,
    "I8": int8,
    "F8_E5M2": float8_e5m2,
    "F8_E4M3": float8_e4m3fn,
    "I16": int16,
    "U16": uint16,
    "F16": float16,
    "BF16": bfloat16,
    "I32": int32,
    "U32": uint32,
    "F32": float32,
    "C64": complex64,
    "F64": float64,
    "I64": int64,
    "U64": uint64,
}
NAMES: dict[DType, str] = {dtype: name for name, dtype in DTYPES.items()}
RANK: dict[DType, int] = {dtype: rank for rank, dtype in enumerate(DTYPES.values())}

# Types of the format that this library does not compute with.
FOREIGN = frozenset({"F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"})


class Entry(NamedTuple):
    """One tensor of a header; `start` and `end` count bytes from the beginning of the data."""

    dtype: DType
    shape: tuple[int, ...]
    start: int
    end: int


class Header(NamedTuple):
    """A validated header; the data begins at byte `data_start` of the file."""

    tensors: dict[str, Entry]
    metadata: dict[str, str]
    data_start: int


class _Fault(Exception):
    """What is wrong with a header; becomes a WeightsError that names the file."""

    def __init__(self, problem: str, **facts: Any) -> None:
        super().__init__(problem)
        self.facts = facts


def invalid(where: str, problem: str, **facts: Any) -> WeightsError:
    """The error for a file that breaks the rules of the format."""
    return WeightsError(
        f"{where}: not a valid safetensors file.\n{problem}\n"
        "The file is damaged, or was not written by a safetensors writer. Fetch or save it again.",
        path=where,
        **facts,
    )


def header_length(prefix: bytes, file_size: int, where: str, cap: int = MAX_HEADER_BYTES) -> int:
    """The length of the header from the first eight bytes, checked before anything is read.

    Raises:
        WeightsError: zero, beyond the end of the file, or over the cap.
    """
    if len(prefix) < LENGTH_BYTES:
        raise invalid(
            where,
            f"It has {file_size} bytes; the length of the header alone takes {LENGTH_BYTES}.",
            expected=LENGTH_BYTES,
            got=file_size,
        )
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    available = file_size - LENGTH_BYTES
    if length > available:
        raise invalid(
            where,
            f"Its first 8 bytes promise a header of {length:,} bytes; {available:,} follow.",
            expected=length,
            got=available,
        )
    if length > cap:
        raise WeightsError(
            f"{where}: its header has {length:,} bytes, more than the limit of {cap:,}.\n"
            "No published model comes near it. If you trust the file, raise the limit:\n"
            f"    SafetensorsFile(path, max_header_bytes={length})",
            path=where,
            expected=cap,
            got=length,
        )
    if length < 2:
        raise invalid(where, f"Its header has {length} bytes; the shortest is {{}}.", got=length)
    return length


def parse_header(raw: bytes, data_bytes: int, where: str) -> Header:
    """Parse and validate the JSON of a header that `data_bytes` bytes of data follow.

    Raises:
        WeightsError: it breaks a rule of the format, or the data is longer or shorter.
    """
    try:
        tensors = _parse(raw)
        metadata = _metadata(tensors.pop("__metadata__", None))
        if b"\\u" in raw:
            _refuse_surrogates(tensors, metadata)
        end = _check_entries(tensors)
    except _Fault as fault:
        raise invalid(where, str(fault), **fault.facts) from None
    if end != data_bytes:
        start = LENGTH_BYTES + len(raw)
        kind = (
            f"It is truncated: {_number(end - data_bytes)} bytes are missing."
            if data_bytes < end
            else f"{data_bytes - end:,} bytes follow the last tensor."
        )
        raise invalid(
            where,
            f"Its header describes a file of {_number(start + end)} bytes; it has "
            f"{start + data_bytes:,}. {kind}",
            expected=start + end,
            got=start + data_bytes,
        )
    return Header(tensors, metadata, LENGTH_BYTES + len(raw))


def _parse(raw: bytes) -> dict[str, Any]:
    if raw[:1] != b"{":
        raise _Fault(f"Its header begins with {raw[:12]!r}, not with '{{'.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Fault(f"Its header is not UTF-8 (byte {error.start:,}).") from None
    # A minus sign makes no sense anywhere but inside a string; json reads -0 as 0.
    parse_int = _natural if "-" in text else None
    try:
        with _collector_paused(len(text) > 1_000_000):
            found = json.loads(
                text,
                object_pairs_hook=_object,
                parse_constant=_no_number,
                parse_float=_no_number,
                parse_int=parse_int,
            )
    except RecursionError:
        raise _Fault("Its header is nested deeper than any header needs to be.") from None
    except ValueError as error:
        raise _Fault(f"Its header is not JSON: {str(error)[:200]}.") from None
    if not isinstance(found, dict):
        raise _Fault("Its header describes one tensor without a name.")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Entry:
    """An object of the header; one that looks like a tensor becomes an Entry at once.

    (Files with 200,000 tensors exist; dictionaries would take four times the memory.)
    """
    if len(pairs) == 3:
        (one, dtype), (two, shape), (three, offsets) = pairs
        if one != "dtype" or two != "shape" or three != "data_offsets":  # another order, or others
            fields = dict(pairs)
            dtype, shape, offsets = map(fields.get, ("dtype", "shape", "data_offsets"))
        if type(shape) is list and type(offsets) is list and len(offsets) == 2:
            known = DTYPES.get(dtype) if type(dtype) is str else None
            if known is not None:
                # As Entry(...), but twice as fast; this line runs for every tensor.
                return tuple.__new__(Entry, (known, tuple(shape), offsets[0], offsets[1]))
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _Fault(f"The name {quoted(twice)} appears twice in one object.", name=twice)
    return found


def _natural(digits: str) -> int:
    if digits[0] == "-":
        raise _Fault(f"The number {digits[:40]} is negative.")
    return int(digits)


def _no_number(text: str) -> NoReturn:
    raise _Fault(f"{text[:40]} is not a whole number.")


@contextmanager
def _collector_paused(pause: bool) -> Iterator[None]:
    """Long headers make so many objects that the garbage collector takes half of the time."""
    if not pause or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _metadata(found: Any) -> dict[str, str]:
    if found is None:
        return {}
    if type(found) is not dict or not all(type(value) is str for value in found.values()):
        raise _Fault("Its __metadata__ is not a table of texts.")
    return found


def _refuse_surrogates(tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    try:
        for name in (*tensors, *metadata, *metadata.values()):
            name.encode()
    except UnicodeEncodeError:
        raise _Fault("Its header holds half of a surrogate pair, which is no character.") from None


def _check_entries(tensors: Mapping[str, Any]) -> int:
    """Check every tensor, and that they fill the data without gap or overlap; the data's length."""
    cursor, in_order = 0, True
    for name, entry in tensors.items():
        if type(entry) is not Entry:
            raise _malformed(name, entry)
        dtype, shape, start, end = entry
        whole = type(start) is int and type(end) is int
        for size in shape:  # a loop is the fastest way for one to four sizes
            whole = whole and type(size) is int
        if not whole:
            raise _Fault(
                f"The tensor {quoted(name)} has a shape or offsets that are not whole numbers.",
                tensor=name,
            )
        # Before the product below, which a hostile shape makes expensive.
        if len(shape) > MAX_DIMENSIONS or (0 in shape and len(shape) > 1):
            _check_representable(name, entry)
        if math.prod(shape) * dtype.itemsize != end - start:
            raise _wrong_size(name, entry)
        in_order = in_order and start == cursor
        cursor = end
    return cursor if in_order else _check_order(tensors)


def _check_order(tensors: Mapping[str, Entry]) -> int:
    """As above for tensors that the header lists in another order than that of the data."""
    cursor, before = 0, ""
    for start, end, name in sorted((e.start, e.end, n) for n, e in tensors.items()):
        if start != cursor:
            what = "overlaps" if start < cursor else "leaves a gap after"
            after = f"the tensor {quoted(before)}" if before else "the beginning of the data"
            raise _Fault(
                f"The tensor {quoted(name)} begins at byte {_number(start)} and {what} "
                f"{after}, which ends at byte {_number(cursor)}.",
                tensor=name,
                expected=cursor,
                got=start,
            )
        cursor, before = end, name
    return cursor


def _malformed(name: str, entry: Any) -> _Fault:
    title = f"The tensor {quoted(name)}"
    if type(entry) is not dict:
        return _Fault(f"{title} is described by a {type(entry).__name__}.", tensor=name)
    fields = ["data_offsets", "dtype", "shape"]
    if sorted(entry) != fields:
        listed = ", ".join(quoted(field, 20) for field in sorted(entry)[:6]) or "nothing"
        return _Fault(f"{title} has the fields {listed}, not {', '.join(fields)}.", tensor=name)
    dtype = entry["dtype"]
    if type(dtype) is str and dtype not in DTYPES:
        why = "is of the format, but not of this library" if dtype in FOREIGN else "does not exist"
        return _Fault(
            f"{title} has the dtype {quoted(dtype, 20)}, which {why}. "
            f"There are: {', '.join(DTYPES)}.",
            tensor=name,
            got=dtype,
        )
    return _Fault(f"{title} has a dtype, shape or offsets of the wrong kind.", tensor=name)


def _wrong_size(name: str, entry: Entry) -> _Fault:
    dtype, shape, start, end = entry
    if end < start:
        return _Fault(
            f"The tensor {quoted(name)} ends at byte {_number(end)} of the data, before it "
            f"begins at byte {_number(start)}.",
            tensor=name,
        )
    needed = math.prod(shape) * dtype.itemsize
    return _Fault(
        f"The tensor {quoted(name)} of shape {_sizes(shape)} and dtype {dtype} needs "
        f"{_number(needed)} bytes; its offsets give it {_number(end - start)}.",
        tensor=name,
        expected=needed,
        got=end - start,
    )


def _check_representable(name: str, entry: Entry) -> None:
    """Refuse shapes that NumPy refuses, among them empty ones such as (0, 2**62)."""
    dtype, shape, *_ = entry
    if len(shape) <= MAX_DIMENSIONS:
        elements = math.prod(size for size in shape if size)
        if elements * dtype.itemsize < 2**63:
            return
    raise _Fault(
        f"The tensor {quoted(name)} has the shape {_sizes(shape)} of {len(shape)} dimensions, "
        "which no array can have.",
        tensor=name,
        got=len(shape),
    )


def _sizes(shape: tuple[int, ...]) -> str:
    listed = [_number(size) for size in shape[:8]] + ["..."] * (len(shape) > 8)
    return f"({', '.join(listed)})"


def _number(value: int) -> str:
    """Hostile headers hold numbers of thousands of digits."""
    return f"{value:,}" if value < 2**80 else "more than 2**80"


def format_header(entries: Mapping[str, Entry], metadata: Mapping[str, str] | None) -> bytes:
    """The bytes of a header with its length, padded so that the data begins at a multiple of 8."""
    table: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    for name, (dtype, shape, start, end) in entries.items():
        table[name] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": (start, end)}
    raw = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % LENGTH_BYTES)
    return len(raw).to_bytes(LENGTH_BYTES, "little") + raw

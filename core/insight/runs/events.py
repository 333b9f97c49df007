"""TensorBoard's events: one message for each thing that a run logs.

Source: TensorFlow, event.proto, summary.proto, histogram.proto; TensorBoard, the plugins `text`
and `hparams`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ... import wire
from ...errors import DataError

VERSION = b"brain.Event:2"
HYPERPARAMETERS = "_hparams_/session_start_info"
_START = struct.Struct("<Bd")
_VALUE = struct.Struct("<Bf")
_STRING = 7  # DT_STRING
_CONFUSION = "bestiary_confusion"  # the name of the kind, as plugins of TensorBoard have one
MOST_CLASSES = 1000  # of a confusion matrix


@dataclass(frozen=True, eq=False)
class Histogram:
    """How values are spread.

    Attributes:
        edges: of the bins, (N + 1,).
        counts: values in each bin, (N,).
    """

    edges: Any
    counts: Any

    @classmethod
    def of(cls, values: Any, bins: int = 40) -> Histogram:
        """Of an array; values that are not finite are left out."""
        flat = np.asarray(values).ravel().astype(np.float64, copy=False)
        finite = np.isfinite(flat)
        flat = flat if finite.all() else flat[finite]
        if not flat.size:
            return cls(np.zeros(2), np.zeros(1))
        low, high = float(flat.min()), float(flat.max())
        if low == high:  # one bin, as wide as numbers of this size allow
            width = max(abs(low) * 1e-6, 1e-12)
            return cls(np.array([low - width, low + width]), np.array([float(flat.size)]))
        counts, edges = np.histogram(flat, bins, (low, high))
        return cls(edges, counts.astype(np.float64))


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often each class was taken for each.

    Attributes:
        labels: the names of the classes.
        counts: (N, N) whole numbers, rows true, columns predicted.
    """

    labels: tuple[str, ...]
    counts: Any


@dataclass(frozen=True)
class Value:
    """One thing that was logged.

    Attributes:
        kind: "scalar", "histogram", "image", "text", "confusion" or "hyperparameters".
        content: a float, a `Histogram`, the bytes of a picture, a string, a `Confusion` or a dict.
    """

    tag: str
    kind: str
    content: Any


@dataclass(frozen=True)
class Event:
    """What was logged at one time, in seconds since 1970, and one step."""

    time: float
    step: int
    values: tuple[Value, ...]


# -- writing ----------------------------------------------------------------------------------


def _event(time: float, step: int, rest: bytes) -> bytes:
    return b"".join((_START.pack(9, time), b"\x10", wire.varint(step), rest))


def version(time: float) -> bytes:
    """The first event of a file."""
    return _START.pack(9, time) + wire.blob(3, VERSION)


@lru_cache(maxsize=4096)
def _scalar_head(tag: str) -> bytes:
    """Everything of a scalar's summary before the number."""
    name = wire.blob(1, tag.encode())
    inside = wire.varint(1 << 3 | wire.BYTES) + wire.varint(len(name) + 5) + name
    return wire.varint(5 << 3 | wire.BYTES) + wire.varint(len(inside) + 5) + inside


def scalar(time: float, step: int, tag: str, value: float) -> bytes:
    """An event with a number."""
    return b"".join(
        (
            _START.pack(9, time),
            b"\x10",
            wire.varint(step),
            _scalar_head(tag),
            _VALUE.pack(2 << 3 | wire.FOUR, value),
        )
    )


def _summary(tag: str, content: bytes) -> bytes:
    return wire.blob(5, wire.blob(1, wire.blob(1, tag.encode()) + content))


def histogram(time: float, step: int, tag: str, values: Any) -> bytes:
    """An event with a histogram of an array."""
    found = Histogram.of(values)
    flat = np.asarray(values).ravel().astype(np.float64, copy=False)
    flat = flat[np.isfinite(flat)]
    message = b"".join(
        (
            wire.double(1, float(found.edges[0])),
            wire.double(2, float(found.edges[-1])),
            wire.double(3, float(flat.size)),
            wire.double(4, float(flat.sum())),
            wire.double(5, float(np.square(flat).sum())),
            # A bucket reaches from the limit before it; the first is empty and gives its lower end.
            wire.blob(6, np.asarray(found.edges, "<f8").tobytes()),
            wire.blob(7, np.concatenate([[0.0], found.counts]).astype("<f8").tobytes()),
        )
    )
    return _event(time, step, _summary(tag, wire.blob(5, message)))


def image(time: float, step: int, tag: str, height: int, width: int, data: bytes) -> bytes:
    """An event with a picture: PNG, JPEG or GIF."""
    message = wire.whole(1, height) + wire.whole(2, width) + wire.whole(3, 3) + wire.blob(4, data)
    return _event(time, step, _summary(tag, wire.blob(4, message)))


def _plugin(name: str, content: bytes = b"") -> bytes:
    data = wire.blob(1, name.encode()) + (wire.blob(2, content) if content else b"")
    return wire.blob(9, wire.blob(1, data))


def text(time: float, step: int, tag: str, value: str) -> bytes:
    """An event with text, which may hold Markdown."""
    return _written(time, step, tag, "text", value)


def confusion(time: float, step: int, tag: str, found: Confusion) -> bytes:
    """An event with a confusion matrix, which TensorBoard passes over."""
    content = {"labels": found.labels, "counts": found.counts.tolist()}
    return _written(time, step, tag, _CONFUSION, json.dumps(content, ensure_ascii=False))


def _written(time: float, step: int, tag: str, plugin: str, value: str) -> bytes:
    tensor = wire.whole(1, _STRING) + wire.blob(2, b"") + wire.blob(8, value.encode())
    return _event(time, step, _summary(tag, _plugin(plugin) + wire.blob(8, tensor)))


def hyperparameters(time: float, values: Mapping[str, Any]) -> bytes:
    """An event with what a run was started with, for TensorBoard's table of runs."""
    entries = b"".join(
        wire.blob(1, wire.blob(1, name.encode()) + wire.blob(2, _any(value)))
        for name, value in values.items()
    )
    content = wire.blob(3, entries + wire.double(5, time))
    return _event(time, 0, _summary(HYPERPARAMETERS, _plugin("hparams", content)))


def _any(value: Any) -> bytes:
    """A number, truth or text as google.protobuf.Value."""
    if isinstance(value, bool):
        return wire.whole(4, int(value))
    if isinstance(value, int | float):
        return wire.double(2, float(value))
    return wire.blob(3, str(value).encode())


# -- reading ----------------------------------------------------------------------------------


def decode(data: bytes) -> Event:
    """An event; what it holds of other kinds than ours is left out.

    Raises:
        DataError: it is no event.
    """
    time, step, values = 0.0, 0, []
    for number, kind, content in wire.fields(data):
        if number == 1 and kind == wire.EIGHT:
            time = wire.as_double(content)
        elif number == 2 and kind == wire.VARINT and isinstance(content, int):
            step = wire.signed(content)
        elif number == 5:
            values = list(_values(wire.as_bytes(content)))
    return Event(time, step, tuple(values))


def _values(summary: bytes) -> Iterator[Value]:
    for number, _, content in wire.fields(summary):
        if number == 1:
            parts: dict[int, int | bytes] = {}
            for inner, _, value in wire.fields(wire.as_bytes(content)):
                parts[inner] = value
            found = _value(parts)
            if found is not None:
                yield found


def _value(parts: Mapping[int, int | bytes]) -> Value | None:
    tag = _text(parts.get(1, b""))
    if 2 in parts:
        return Value(tag, "scalar", wire.as_single(parts[2]))
    if 4 in parts:
        picture = {n: v for n, _, v in wire.fields(wire.as_bytes(parts[4]))}
        return Value(tag, "image", wire.as_bytes(picture.get(4, b"")))
    if 5 in parts:
        return Value(tag, "histogram", _histogram(wire.as_bytes(parts[5])))
    plugin, told = _plugin_of(parts)
    if plugin == "hparams" and tag == HYPERPARAMETERS:
        return Value(tag, "hyperparameters", _told(told))
    if 8 in parts:
        return _of_tensor(tag, plugin, wire.as_bytes(parts[8]))
    return None


def _plugin_of(parts: Mapping[int, int | bytes]) -> tuple[str, bytes]:
    name, content = "", b""
    for number, _, data in wire.fields(wire.as_bytes(parts.get(9, b""))):
        if number == 1:
            for inner, _, value in wire.fields(wire.as_bytes(data)):
                if inner == 1:
                    name = _text(value)
                elif inner == 2:
                    content = wire.as_bytes(value)
    return name, content


def _of_tensor(tag: str, plugin: str, data: bytes) -> Value | None:
    """Scalars, pictures, histograms and text as TensorFlow 2 writes them."""
    kind, strings, numbers, shape = 0, [], b"", []
    for number, _, value in wire.fields(data):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number == 2:
            shape = _shape(wire.as_bytes(value))
        elif number == 8:
            strings.append(wire.as_bytes(value))
        elif number in (4, 5, 6) and isinstance(value, bytes):
            numbers += value
    if kind == _STRING:
        if plugin in ("images", "image") and len(strings) > 2:  # width, height, the picture
            return Value(tag, "image", strings[2])
        if plugin == _CONFUSION:
            matrix = _confusion(strings)
            return None if matrix is None else Value(tag, "confusion", matrix)
        return Value(tag, "text", "\n".join(_text(s) for s in strings)) if strings else None
    dtype = {1: "<f4", 2: "<f8"}.get(kind)
    if dtype is None or len(numbers) % np.dtype(dtype).itemsize:
        return None
    found = np.frombuffer(numbers, dtype).astype(np.float64)
    if plugin == "histograms" and len(shape) == 2 and shape[1] == 3 and found.size == 3 * shape[0]:
        table = found.reshape(-1, 3)  # left, right, count
        if not len(table):
            return None
        return Value(tag, "histogram", Histogram(np.append(table[:, 0], table[-1, 1]), table[:, 2]))
    if found.size == 1:
        return Value(tag, "scalar", float(found[0]))
    return None


def _confusion(strings: list[bytes]) -> Confusion | None:
    """The matrix that was written; None for what is none, in a file from elsewhere."""
    try:
        told = json.loads(b"".join(strings))
        labels, counts = tuple(map(str, told["labels"])), np.array(told["counts"], np.int64)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    fits = counts.shape == (len(labels), len(labels)) and 0 < len(labels) <= MOST_CLASSES
    return Confusion(labels, counts) if fits and counts.min() >= 0 else None


def _shape(data: bytes) -> list[int]:
    sizes = []
    for number, _, value in wire.fields(data):
        if number == 2:
            inner = {n: v for n, _, v in wire.fields(wire.as_bytes(value))}
            size = inner.get(1, 0)
            sizes.append(size if isinstance(size, int) else 0)
    return sizes


def _histogram(data: bytes) -> Histogram:
    parts = {number: value for number, _, value in wire.fields(data)}
    limits, counts = (_doubles(wire.as_bytes(parts.get(n, b""))) for n in (6, 7))
    if len(limits) != len(counts) or not len(limits):
        raise DataError("a histogram has other limits than counts")
    low = wire.as_double(parts[1]) if 1 in parts else float(limits[0])
    used = np.flatnonzero(counts)
    if not len(used):
        return Histogram(np.array([low, max(low, float(limits[-1]))]), np.zeros(1))
    first, last = int(used[0]), int(used[-1]) + 1
    left = max(low, float(limits[first - 1])) if first else low
    edges = np.append(left, limits[first:last])
    if 2 in parts:  # some writers end at the largest number there is
        edges[-1] = min(edges[-1], max(wire.as_double(parts[2]), edges[-2]))
    return Histogram(edges, counts[first:last])


def _doubles(data: bytes) -> Any:
    if len(data) % 8:
        raise DataError("an event has numbers of another size")
    return np.frombuffer(data, "<f8").astype(np.float64)


def _told(content: bytes) -> dict[str, Any]:
    """The values of `hyperparameters`."""
    found: dict[str, Any] = {}
    for number, _, start in wire.fields(content):
        if number != 3:
            continue
        for inner, _, entry in wire.fields(wire.as_bytes(start)):
            if inner == 1:
                pair = {n: v for n, _, v in wire.fields(wire.as_bytes(entry))}
                found[_text(pair.get(1, b""))] = _of_any(wire.as_bytes(pair.get(2, b"")))
    return found


def _of_any(data: bytes) -> Any:
    for number, _, value in wire.fields(data):
        if number == 2:
            return wire.as_double(value)
        if number == 3:
            return _text(value)
        if number == 4:
            return bool(value)
    return None


def _text(data: int | bytes) -> str:
    return wire.as_bytes(data).decode("utf-8", "replace")

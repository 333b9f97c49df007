"""ONNX files as nodes and arrays. Files are not trusted: every length is checked before its use."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, WeightsError
from ..wire import BYTES, EIGHT, FOUR, VARINT, fields, read_varint, signed
from . import schema

_DEEPEST = 32  # graphs within graphs
_MOST_AXES = 64


@dataclass
class Node:
    """One call: empty names are inputs that are left out."""

    kind: str = ""
    domain: str = ""
    name: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Value:
    """An input or output: axes are numbers, names, or None."""

    name: str = ""
    dtype: Any = None
    shape: tuple[int | str | None, ...] | None = None


@dataclass
class Network:
    """A graph, and the arrays in it."""

    name: str = ""
    nodes: list[Node] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)


@dataclass
class File:
    """A whole file."""

    network: Network
    opset: int
    opsets: dict[str, int]
    producer: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    functions: dict[tuple[str, str], Any] = field(default_factory=dict)


def read_onnx(source: str | Path | bytes) -> File:
    """Read a file, or its bytes.

    Raises:
        WeightsError: it is damaged, or no ONNX file; or its weights lie outside of its folder.
    """
    folder = None
    if isinstance(source, bytes):
        data, what = source, "the bytes"
    else:
        path = Path(source)
        data, what, folder = path.read_bytes(), str(path), path.parent
    try:
        return _Reader(folder).model(memoryview(data))
    except (DataError, WeightsError, UnicodeDecodeError, struct.error) as error:
        raise WeightsError(
            f"{what}: no ONNX file that can be read: {error}\n"
            "Was it copied whole? Compare its size with that of the original."
        ) from None


def read_tensor(data: bytes) -> tuple[str, Any]:
    """A tensor that lies in a file of its own: name and array.

    Raises:
        WeightsError: it is damaged.
    """
    try:
        return _Reader(None).tensor(memoryview(data))
    except (DataError, UnicodeDecodeError) as error:
        raise WeightsError(f"no tensor that can be read: {error}") from None


def _text(value: Any) -> str:
    return bytes(_blob(value)).decode()


def _blob(value: Any) -> memoryview:
    if isinstance(value, int):
        raise DataError("a message has a number where bytes are due")
    return memoryview(value)


def _whole(value: Any) -> int:
    if not isinstance(value, int):
        raise DataError("a message has bytes where a number is due")
    return signed(value)


def _wholes(kind: int, value: Any) -> list[int]:
    """Of a repeated field: one number, or several that are packed."""
    if kind == VARINT:
        return [_whole(value)]
    data, place, out = bytes(_blob(value)), 0, []
    while place < len(data):
        n, place = read_varint(data, place)
        out.append(signed(n))
    return out


def _reals(kind: int, value: Any, dtype: str) -> Any:
    data = bytes(_blob(value))
    size = int(dtype[2:])
    if kind not in (BYTES, FOUR, EIGHT) or len(data) % size:
        raise DataError("numbers of another size")
    return np.frombuffer(data, dtype)


class _Reader:
    def __init__(self, folder: Path | None) -> None:
        self._folder, self._depth = folder, 0

    def model(self, data: memoryview) -> File:
        network = None
        opsets: dict[str, int] = {}
        producer, metadata, functions = "", {}, []
        for number, _, value in fields(data):
            if number == 7:
                network = self.graph(_blob(value))
            elif number == 8:
                domain, version = "", 1
                for n, _, v in fields(_blob(value)):
                    domain = _text(v) if n == 1 else domain
                    version = _whole(v) if n == 2 else version
                opsets["" if domain == "ai.onnx" else domain] = version
            elif number == 2:
                producer = _text(value)
            elif number == 14:
                key, text = self._pair(_blob(value))
                metadata[key] = text
            elif number == 25:
                functions.append(self._function(_blob(value)))
        if network is None or not opsets:
            raise DataError("it holds no graph")
        file = File(network, opsets.get("", 1), opsets, producer, metadata)
        file.functions = {(f["domain"], f["name"]): f for f in functions}
        return file

    def _pair(self, data: memoryview) -> tuple[str, str]:
        found = {n: _text(v) for n, _, v in fields(data) if n in (1, 2)}
        return found.get(1, ""), found.get(2, "")

    def _function(self, data: memoryview) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": "", "domain": "", "inputs": [], "outputs": [], "attributes": [],
            "defaults": {}, "nodes": [],
        }  # fmt: skip
        for number, _, value in fields(data):
            if number in (1, 10):
                found["name" if number == 1 else "domain"] = _text(value)
            elif number in (4, 5, 6):
                found[{4: "inputs", 5: "outputs", 6: "attributes"}[number]].append(_text(value))
            elif number == 7:
                found["nodes"].append(self.node(_blob(value)))
            elif number == 11:
                name, given = self.attribute(_blob(value))
                found["defaults"][name] = given
        return found

    def graph(self, data: memoryview) -> Network:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise DataError(f"graphs lie in each other more than {_DEEPEST} deep")
        net = Network()
        for number, _, value in fields(data):
            if number == 1:
                net.nodes.append(self.node(_blob(value)))
            elif number == 2:
                net.name = _text(value)
            elif number == 5:
                name, array = self.tensor(_blob(value))
                net.arrays[name] = array
            elif number == 11:
                net.inputs.append(self.value(_blob(value)))
            elif number == 12:
                net.outputs.append(self.value(_blob(value)))
            elif number == 15:
                raise DataError("sparse weights are not supported")
        self._depth -= 1
        return net

    def node(self, data: memoryview) -> Node:
        node = Node()
        for number, _, value in fields(data):
            if number == 1:
                node.inputs.append(_text(value))
            elif number == 2:
                node.outputs.append(_text(value))
            elif number == 3:
                node.name = _text(value)
            elif number == 4:
                node.kind = _text(value)
            elif number == 7:
                node.domain = _text(value)
            elif number == 5:
                name, given = self.attribute(_blob(value))
                node.attributes[name] = given
        node.domain = "" if node.domain == "ai.onnx" else node.domain
        return node

    def attribute(self, data: memoryview) -> tuple[str, Any]:
        """Name and value; ("$", name) stands for an attribute of the function around it."""
        name, kind, refers = "", 0, ""
        single: Any = None
        several: list[Any] = []
        for number, wire, value in fields(data):
            if number == 1:
                name = _text(value)
            elif number == 20:
                kind = _whole(value)
            elif number == 21:
                refers = _text(value)
            elif number == 2:
                single = float(_reals(wire, value, "<f4")[0])
            elif number == 3:
                single = _whole(value)
            elif number == 4:
                single = bytes(_blob(value)).decode("utf-8", "replace")
            elif number == 5:
                single = self.tensor(_blob(value))[1]
            elif number == 6:
                single = self.graph(_blob(value))
            elif number == 7:
                several += _reals(wire, value, "<f4").tolist()
            elif number == 8:
                several += _wholes(wire, value)
            elif number == 9:
                several.append(bytes(_blob(value)).decode("utf-8", "replace"))
            elif number == 10:
                several.append(self.tensor(_blob(value))[1])
        if refers:
            return name, ("$", refers)
        if kind in (schema.FLOATS, schema.INTS, schema.TEXTS, schema.TENSORS):
            return name, several
        if single is None and kind in (schema.FLOAT, schema.INT, schema.TEXT):
            single = {schema.FLOAT: 0.0, schema.INT: 0, schema.TEXT: ""}[kind]
        return name, single if single is not None else several

    def value(self, data: memoryview) -> Value:
        found = Value()
        for number, _, value in fields(data):
            if number == 1:
                found.name = _text(value)
            elif number == 2:
                for n, _, v in fields(_blob(value)):
                    if n == 1:
                        self._type(found, _blob(v))
        return found

    def _type(self, found: Value, data: memoryview) -> None:
        for number, _, value in fields(data):
            if number == 1:
                found.dtype = schema.DTYPES.get(_whole(value))
            elif number == 2:
                axes: list[int | str | None] = []
                for n, _, axis in fields(_blob(value)):
                    if n == 1:
                        length: int | str | None = None
                        for m, _, v in fields(_blob(axis)):
                            length = _whole(v) if m == 1 else _text(v) if m == 2 else length
                        axes.append(length)
                found.shape = tuple(axes)

    def tensor(self, data: memoryview) -> tuple[str, Any]:
        name, code, dims, raw = "", 0, [], None
        numbers: list[Any] = []
        texts: list[bytes] = []
        beside: dict[str, str] = {}
        for number, wire, value in fields(data):
            if number == 1:
                dims += _wholes(wire, value)
            elif number == 2:
                code = _whole(value)
            elif number == 8:
                name = _text(value)
            elif number == 9:
                raw = _blob(value)
            elif number == 4:
                numbers.append(_reals(wire, value, "<f4"))
            elif number == 10:
                numbers.append(_reals(wire, value, "<f8"))
            elif number in (5, 7, 11):
                numbers.append(np.array(_wholes(wire, value), np.int64))
            elif number == 6:
                texts.append(bytes(_blob(value)))
            elif number == 13:
                key, text = self._pair(_blob(value))
                beside[key] = text
        if len(dims) > _MOST_AXES or any(n < 0 for n in dims):
            raise DataError(f"the tensor {name!r} has the shape {tuple(dims)[:8]}")
        count = math.prod(dims)
        if code == schema.STRING:
            if len(texts) != count:
                raise DataError(f"the tensor {name!r} has {len(texts)} texts, {count} are due")
            words = np.array([t.decode("utf-8", "replace") for t in texts] or [""], object)
            return name, words[:count].reshape(dims)
        dtype: Any = schema.DTYPES.get(code)
        if dtype is None:
            raise DataError(f"the tensor {name!r} has elements of kind {code}, not supported")
        if beside:
            raw = self._beside(name, beside, count * dtype.itemsize)
        if raw is not None:
            if len(raw) != count * dtype.itemsize:
                raise DataError(
                    f"the tensor {name!r} has {len(raw)} bytes, {count * dtype.itemsize} are due"
                )
            little = dtype.newbyteorder("<") if dtype.kind in "iufc" else dtype
            return name, np.frombuffer(raw, little).astype(dtype).reshape(dims)
        flat = np.concatenate(numbers) if numbers else np.zeros(0)
        if dtype.itemsize == 2 and dtype.kind not in "iu":  # as the bits of whole numbers
            flat = flat.astype(np.uint16).view(dtype)
        elif dtype.kind == "c":
            flat = flat[: len(flat) // 2 * 2].view(f"c{flat.dtype.itemsize * 2}")
        if len(flat) != count:
            raise DataError(f"the tensor {name!r} has {len(flat)} elements, {count} are due")
        return name, flat.astype(dtype).reshape(dims)

    def _beside(self, name: str, where: dict[str, str], size: int) -> memoryview:
        """Bytes of a file in the same folder."""
        place = where.get("location", "")
        if self._folder is None or not place:
            raise DataError(f"the tensor {name!r} lies in another file, {place!r}")
        file = (self._folder / place).resolve()
        if not file.is_relative_to(self._folder.resolve()) or not file.is_file():
            raise DataError(f"the weights of {name!r} are not in the folder of the file: {place!r}")
        try:
            offset, length = int(where.get("offset", 0)), int(where.get("length", size))
        except ValueError:
            raise DataError(f"the place of {name!r} in {place!r} is no number") from None
        if offset < 0 or length != size or offset + length > file.stat().st_size:
            raise DataError(f"the tensor {name!r} reaches beyond the end of {place!r}")
        with file.open("rb") as f:
            f.seek(offset)
            return memoryview(f.read(length))

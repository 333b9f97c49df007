"""The messages of an ONNX file, as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..wire import blob, single, varint, whole
from .schema import CODES, FLOAT, INT, INTS, IR_VERSION, OPSET, TENSOR, TEXT, TEXTS


def text(field: int, value: str) -> bytes:
    """A field with text."""
    return blob(field, value.encode())


def tensor(name: str, array: Any, external: tuple[str, int] | None = None) -> bytes:
    """TensorProto.

    Args:
        external: the file beside this one that holds the bytes, and where in it.
    """
    array = np.asarray(array)
    out = [whole(1, n) for n in array.shape]
    out += [whole(2, CODES[array.dtype]), text(8, name)]
    if external is None:
        out.append(blob(9, little_endian(array)))
    else:
        file, offset = external
        for key, value in (("location", file), ("offset", offset), ("length", array.nbytes)):
            out.append(blob(13, text(1, key) + text(2, str(value))))
        out.append(whole(14, 1))
    return b"".join(out)


def little_endian(array: Any) -> bytes:
    """The elements in rows, as files have them."""
    array = np.ascontiguousarray(array)
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not np.little_endian):
        array = array.byteswap()
    return bytes(array.tobytes())


def attribute(name: str, value: Any) -> bytes:
    """AttributeProto of a number, text, several of either, or an array."""
    head = text(1, name)
    if isinstance(value, bool | int | np.integer):
        return head + whole(3, int(value)) + whole(20, INT)
    if isinstance(value, float):
        return head + single(2, value) + whole(20, FLOAT)
    if isinstance(value, str):
        return head + text(4, value) + whole(20, TEXT)
    if isinstance(value, np.ndarray):
        return head + blob(5, tensor("", value)) + whole(20, TENSOR)
    if value and isinstance(value[0], str):
        texts = b"".join(text(9, x) for x in value)
        return text(1, name) + texts + whole(20, TEXTS)
    packed = b"".join(varint(int(n)) for n in value)
    return head + blob(8, packed) + whole(20, INTS)


def node(
    kind: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    attributes: Mapping[str, Any],
    name: str = "",
) -> bytes:
    """NodeProto; an input that is left out is empty text."""
    out = [text(1, x) for x in inputs] + [text(2, x) for x in outputs]
    out += [text(3, name)] if name else []
    out.append(text(4, kind))
    out += [blob(5, attribute(key, value)) for key, value in attributes.items()]
    return b"".join(out)


def value_info(name: str, dtype: Any, shape: Iterable[int | str]) -> bytes:
    """ValueInfoProto of a tensor; axes whose length is open have names."""
    axes = b"".join(blob(1, text(2, n) if isinstance(n, str) else whole(1, n)) for n in shape)
    kind = whole(1, CODES[np.dtype(dtype)]) + blob(2, axes)
    return text(1, name) + blob(2, blob(1, kind))


def graph(
    name: str,
    nodes: Iterable[bytes],
    initializers: Iterable[bytes],
    inputs: Iterable[bytes],
    outputs: Iterable[bytes],
) -> bytes:
    """GraphProto."""
    out = [blob(1, x) for x in nodes] + [text(2, name)]
    out += [blob(5, x) for x in initializers]
    out += [blob(11, x) for x in inputs] + [blob(12, x) for x in outputs]
    return b"".join(out)


def model(graph_: bytes, *, producer: str, version: str, metadata: Mapping[str, str]) -> bytes:
    """ModelProto."""
    out = [whole(1, IR_VERSION), text(2, producer), text(3, version), blob(7, graph_)]
    out.append(blob(8, text(1, "") + whole(2, OPSET)))
    out += [blob(14, text(1, key) + text(2, value)) for key, value in metadata.items()]
    return b"".join(out)

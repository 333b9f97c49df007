"""Files that the tests of weights build by hand."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def _safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file of any header: an object, text or bytes; `length` may lie."""
    if isinstance(header, dict):
        header = json.dumps(header)
    raw = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def _entry(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def _torch_zip(program: bytes, storages: dict[str, bytes] | None = None, **more: bytes) -> bytes:
    """A torch checkpoint in the zip layout."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
        for name, data in more.items():
            archive.writestr(f"archive/{name}", data)
    return memory.getvalue()


def _text(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: int, value: Any) -> bytes:
    """A value of a GGUF file's metadata; of a list, (kind of its values, values)."""
    if kind == 8:
        return _text(value)
    if kind == 9:
        inner, values = value
        listed = b"".join(_value(inner, v) for v in values)
        return struct.pack("<IQ", inner, len(values)) + listed
    return struct.pack("<" + "BbHhIif?..QqdB"[kind], value)


def _gguf(
    metadata: Any = (),
    tensors: Any = (),
    data: bytes = b"",
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A GGUF file: metadata (key, kind, value), tensors (name, dimensions, type, offset)."""
    counts = counts or (len(tensors), len(metadata))
    raw = b"GGUF" + struct.pack("<IQQ", version, *counts)
    for key, kind, value in metadata:
        raw += _text(key) + struct.pack("<I", kind) + _value(kind, value)
    for name, dimensions, kind, offset in tensors:
        raw += _text(name) + struct.pack("<I", len(dimensions))
        raw += struct.pack(f"<{len(dimensions)}Q", *dimensions) + struct.pack("<IQ", kind, offset)
    return raw + bytes(-len(raw) % alignment) + data if data or tensors else raw


@pytest.fixture(scope="session")
def gguf_bytes() -> Callable[..., bytes]:
    return _gguf


@pytest.fixture(scope="session")
def safetensors_bytes() -> Callable[..., bytes]:
    return _safetensors


@pytest.fixture(scope="session")
def entry() -> Callable[..., dict[str, Any]]:
    return _entry


@pytest.fixture(scope="session")
def torch_zip() -> Callable[..., bytes]:
    return _torch_zip


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write bytes to a file of the test's own folder."""

    def write(data: bytes, name: str = "model.safetensors") -> Path:
        path = tmp_path / name
        path.unlink(missing_ok=True)  # some file systems flush a file that is written over
        path.write_bytes(data)
        return path

    return write

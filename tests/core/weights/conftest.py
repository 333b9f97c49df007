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

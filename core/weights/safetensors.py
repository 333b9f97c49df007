"""Reader and writer of safetensors files.

Opening a file reads and validates its header and nothing else. A path that the user gives is
read into memory; only complete files that nobody rewrites in place (the content-addressed
cache, the installed package) are mapped.

Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..dtypes import bool_
from ..errors import DtypeError, WeightsError
from ..foreign import described
from ..paths import atomic
from ..tensor import Tensor
from .header import (
    LENGTH_BYTES,
    MAX_HEADER_BYTES,
    NAMES,
    RANK,
    Entry,
    format_header,
    header_length,
    invalid,
    parse_header,
)
from .source import Array, FilePath, FileWeights, Source, TensorInfo, quoted
from .values import require_finite, wrong_bool


class SafetensorsFile(FileWeights):
    """A safetensors file; opening it reads the header, `file[name]` reads one tensor.

    Args:
        path: the file.
        mapped: give arrays that share the mapped file (copy on write) instead of reading them.
            Only for files that nobody truncates or rewrites in place.
        max_header_bytes: refuse longer headers before they are read.

    Raises:
        WeightsError: the file is damaged, or it changed while it was read.
        OSError: it does not exist or cannot be read.
    """

    metadata: dict[str, str]

    def __init__(
        self, path: FilePath, mapped: bool = False, *, max_header_bytes: int = MAX_HEADER_BYTES
    ) -> None:
        self._source = source = Source(path)
        self.path = source.path
        self._take = source.mapped if mapped else source.array
        try:
            length = header_length(
                source.read(0, LENGTH_BYTES), source.size, self.path, max_header_bytes
            )
            raw = source.read(LENGTH_BYTES, length)
            header = parse_header(raw, source.size - LENGTH_BYTES - length, self.path)
        except BaseException:
            source.close()
            raise
        self._entries, self.metadata, self._data_start = header

    def __getitem__(self, name: str) -> Array:
        dtype, shape, start, _ = self._entries[name]
        array = self._take(self._data_start + start, shape, dtype)
        if dtype is bool_:
            _check_bool(array, name, self.path)
        return array

    def info(self, name: str) -> TensorInfo:
        """The dtype and shape of a tensor; reads no values."""
        entry = self._entries[name]
        return TensorInfo(entry.dtype, entry.shape)


def load_file(
    path: FilePath, *, mapped: bool = False, check_values: bool = False
) -> dict[str, Array]:
    """Every tensor of a safetensors file, by name, in the order of its header.

    Args:
        path: the file.
        mapped: see `SafetensorsFile`.
        check_values: refuse NaN and infinite values (reads everything once).

    Raises:
        WeightsError: the file is damaged, changed while it was read, or has forbidden values.
    """
    with SafetensorsFile(path, mapped) as file:
        tensors = {name: file[name] for name in file}
    if check_values:
        require_finite(tensors, file.path)
    return tensors


def load_bytes(
    data: bytes | bytearray | memoryview, *, check_values: bool = False
) -> dict[str, Array]:
    """Every tensor of a safetensors file held in memory; the arrays are copies.

    Raises:
        WeightsError: the data is damaged, or has forbidden values.
    """
    where = "<bytes>"
    memory = np.frombuffer(data, np.uint8)
    length = header_length(memory[:LENGTH_BYTES].tobytes(), memory.size, where)
    data_start = LENGTH_BYTES + length
    header = parse_header(
        memory[LENGTH_BYTES:data_start].tobytes(), memory.size - data_start, where
    )
    tensors = {}
    for name, (dtype, shape, start, end) in header.tensors.items():
        array = memory[data_start + start : data_start + end].copy().view(dtype)
        if dtype == bool_:
            _check_bool(array, name, where)
        tensors[name] = array.reshape(shape)
    if check_values:
        require_finite(tensors, where)
    return tensors


def _check_bool(array: Array, name: str, where: str) -> None:
    if (wrong := wrong_bool(array)) is not None:
        raise invalid(
            where,
            f"The boolean tensor {quoted(name)} holds a byte of value {wrong}, not 0 or 1.",
            tensor=name,
            got=wrong,
        )


def arrays_of(tensors: Mapping[str, Any]) -> dict[str, Array]:
    """What is written for each name: tensors, such as those of a state dict, as arrays."""
    given: Any = tensors
    if not isinstance(given, Mapping):
        hint = "Tensors first, then the path: save_file({'name': tensor}, 'file.safetensors')"
        if hasattr(given, "state_dict"):
            hint = "Of a module: save_file(model.state_dict(), 'model.safetensors')"
        raise WeightsError(
            f"save_file takes tensors by name, got {described(given)}.\n{hint}",
            got=type(given).__name__,
        )
    return {
        name: value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        for name, value in tensors.items()
    }


def save_file(
    tensors: Mapping[str, Any], path: FilePath, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors or arrays to a safetensors file: `path` ends up complete, or as it was before.

    Any memory layout and byte order is written right; a missing folder is made. The order in the
    file depends on dtypes and names alone, so equal content gives equal bytes (those of the
    published writer). Arrays that share memory are written once per name: remove the duplicates
    of tied weights first.

    Args:
        tensors: name to tensor or NumPy array; `module.state_dict()` is such a mapping.
        path: the file to make or replace.
        metadata: texts kept in the header.

    Raises:
        DtypeError: an array of a dtype that the format or this library lacks.
        WeightsError: a name or the metadata cannot be written.
        OSError: no space or no permission; `path` is as it was.
    """
    arrays = arrays_of(tensors)
    header, order = _layout(arrays, metadata)
    # A symbolic link at `path`, as in the hub's cache, is replaced and not written through.
    with atomic(Path(path)) as part, open(part, "wb") as file:
        file.write(header)
        for name in order:
            file.write(_contents(arrays[name]))


def save_bytes(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes that `save_file` would write."""
    arrays = arrays_of(tensors)
    header, order = _layout(arrays, metadata)
    return b"".join([header, *(_contents(arrays[name]) for name in order)])


def ranks_of(tensors: Mapping[str, Array], metadata: Mapping[str, str] | None) -> dict[str, int]:
    """The rank of each tensor's dtype, once all that is to be written is known to be writable."""
    texts: Iterable[tuple[Any, Any]] = (metadata or {}).items()
    for key, value in texts:
        if not isinstance(key, str) or not isinstance(value, str):
            raise WeightsError(
                f"metadata[{key!r}] is {type(value).__name__}; safetensors files keep texts only.\n"
                "Write numbers as text, anything else as JSON: metadata={'config': json.dumps(c)}",
                got=type(value).__name__,
            )
    return {name: _rank(name, array) for name, array in tensors.items()}


def _layout(
    tensors: Mapping[str, Array], metadata: Mapping[str, str] | None
) -> tuple[bytes, list[str]]:
    """The header, and the names in the order of the data."""
    ranks = ranks_of(tensors, metadata)
    order = sorted(tensors, key=lambda name: (-ranks[name], name))
    entries: dict[str, Entry] = {}
    position = 0
    for name in order:
        array = tensors[name]
        dtype = array.dtype.newbyteorder("=") if not array.dtype.isnative else array.dtype
        entries[name] = Entry(dtype, array.shape, position, position + array.nbytes)
        position += array.nbytes
    try:
        header = format_header(entries, metadata)
    except UnicodeEncodeError as error:
        raise WeightsError(
            f"The text {quoted(error.object)} holds half of a surrogate pair and cannot be "
            "written as UTF-8.\nIt was decoded wrongly; rename it."
        ) from None
    if len(header) - LENGTH_BYTES > MAX_HEADER_BYTES:
        raise WeightsError(
            f"The header for {len(order):,} tensors takes {len(header):,} bytes, more than the "
            f"{MAX_HEADER_BYTES:,} that readers accept.\n"
            "Shorten the metadata, or write several files: save_sharded(tensors, folder)",
            expected=MAX_HEADER_BYTES,
            got=len(header),
        )
    return header, order


def _rank(name: Any, array: Any) -> int:
    if not isinstance(name, str) or name == "__metadata__":
        raise WeightsError(
            f"{name!r} cannot be the name of a tensor in a safetensors file.\n"
            "Names are texts, and __metadata__ is taken by the format.",
            tensor=name,
        )
    if not isinstance(array, (np.ndarray, np.generic)):
        raise DtypeError(
            f"Only tensors and NumPy arrays can be saved; {name!r} is {type(array).__name__}.\n"
            "For a list or a number: np.asarray(x)",
            tensor=name,
            got=type(array).__name__,
        )
    # A big-endian dtype equals no native one; only bytes change, so it is saved as its twin.
    dtype = array.dtype if array.dtype.isnative else array.dtype.newbyteorder("=")
    if dtype not in RANK:
        raise DtypeError(
            f"The dtype {array.dtype} of {name!r} cannot be saved in a safetensors file.\n"
            f"There are: {', '.join(str(known) for known in NAMES)}.\n"
            f"Convert it first: x.astype(np.{'complex64' if dtype.kind == 'c' else 'float32'})",
            tensor=name,
            got=array.dtype,
        )
    return RANK[dtype]


def _contents(array: Array) -> memoryview:
    """The elements in C order and little-endian, without a copy where they are so already."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data

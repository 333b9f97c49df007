"""The three layouts in which torch has saved checkpoints, read up to the position of each storage.

* zip (since 1.6): `NAME/data.pkl` is the program, `NAME/data/KEY` the bytes of a storage;
* legacy (0.2 to 1.5): five programs in a row (magic number, version, system, the value, the
  keys of the storages), then for each storage its length and its bytes;
* tar (0.1): members `storages`, `tensors` and `pickle`.

Source: torch/serialization.py, read as a description of the format.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import WeightsError
from .pickle_reader import MAX_PICKLE_BYTES, Malformed, Truncated, interpret
from .source import Source, quoted
from .torch_values import TABLE, Storage, StorageType, tensor
from .zip_reader import data_offset, read_directory, refused

MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_WINDOW = 1 << 20
_MAX_STORAGES = 1_000_000
_TAR_BLOCK = 512
_MAX_TAR_MEMBERS = 32
_TAR_MEMBERS = ("sys_info", "storages", "tensors", "pickle")


@dataclass
class Layout:
    """A checkpoint whose values are still in the file."""

    value: Any
    swapped: bool  # written on a big-endian machine


def _persistent(storages: dict[str, Storage]) -> Callable[[Any], Storage]:
    """The resolver of persistent ids: ("storage", type, key, location, count[, view])."""

    def resolve(found: Any) -> Storage:
        if type(found) is not tuple or len(found) not in (5, 6) or found[0] != "storage":
            raise Malformed("A persistent id that names no storage.")
        kind, key, location, count = found[1:5]
        if type(kind) is not StorageType or type(key) is not str or type(location) is not str:
            raise Malformed("A storage without type, key or location.")
        if type(count) is not int or not 0 <= count < 2**60:
            raise Malformed("A storage whose length is not a whole number of at least 0.")
        storage = storages.setdefault(key, Storage(key, kind, count))
        if storage.type != kind or storage.count != count:
            raise Malformed(f"The storage {quoted(key)} is described in two ways.")
        return _view(storage, found[5]) if len(found) == 6 else storage

    return resolve


def _view(root: Storage, view: Any) -> Storage:
    """Files of torch 0.2 and 0.3 may name a part of a storage: (key, offset, count)."""
    if view is None:
        return root
    if type(view) is not tuple or len(view) != 3 or [type(n) for n in view[1:]] != [int, int]:
        raise Malformed("A view of a storage that is not (key, offset, count).")
    _, offset, count = view
    return root.part(offset, count)


# zip


def read_zip(source: Source) -> Layout:
    """The layout of torch 1.6 and later.

    Raises:
        WeightsError: truncated, not made by torch.save, or with imports that weights never need.
    """
    members = read_directory(source)
    roots = [name[: -len("data.pkl")] for name in members if name.split("/")[1:] == ["data.pkl"]]
    if len(roots) != 1:
        listed = ", ".join(quoted(name, 40) for name in list(members)[:4]) or "nothing"
        raise WeightsError(
            f"{source.path}: a zip archive, but not a torch checkpoint: it has {len(roots)} "
            f"members named NAME/data.pkl.\nIt contains {listed}"
            f"{', ...' if len(members) > 4 else ''} ({len(members):,} members).\n"
            "If the weights are in one of them, unpack the archive and load that file.",
            path=source.path,
            got=len(roots),
        )
    root = roots[0]
    if f"{root}constants.pkl" in members:
        raise WeightsError(
            f"{source.path}: a TorchScript archive: a program with its weights, not weights.\n"
            "Programs are never run. Save the weights alone where torch is installed:\n"
            "    torch.save(torch.jit.load(path).state_dict(), 'weights.pt')",
            path=source.path,
            got="torchscript",
        )

    def contents(name: str, cap: int) -> bytes:
        member = members[root + name]
        if member.size > cap:
            problem = f"Its member {name} has {member.size:,} bytes; the limit is {cap:,}."
            raise refused(source, problem, expected=cap, got=member.size)
        return source.read(data_offset(source, member), member.size)

    storages: dict[str, Storage] = {}
    program = contents("data.pkl", MAX_PICKLE_BYTES)
    try:
        value, _ = interpret(program, TABLE, _persistent(storages), source.path)
    except Truncated:
        raise refused(source, "Its program (data.pkl) ends too early.") from None
    for storage in storages.values():
        member = members.get(f"{root}data/{storage.key}")
        size = None if member is None else member.size
        if member is None or size != storage.nbytes:
            raise refused(
                source,
                f"The storage {quoted(storage.key)} should have {storage.nbytes:,} bytes; "
                + ("it is missing." if size is None else f"it has {size:,}."),
                expected=storage.nbytes,
                got=size,
            )
        storage.position = data_offset(source, member)
    order = contents("byteorder", 16) if f"{root}byteorder" in members else b"little"
    if order not in (b"little", b"big"):
        raise refused(source, f"Its byte order is {order!r}.")
    return Layout(value, order == b"big")


# legacy


class _Stream:
    """Pickle programs and binary fields that follow each other in a part of a file."""

    def __init__(self, source: Source, position: int, end: int) -> None:
        self.source = source
        self.position = position
        self.end = end

    def program(self, persistent: Callable[[Any], Any] | None = None) -> Any:
        """The value of the program at the position, whose length is not written anywhere."""
        size = _WINDOW
        while True:
            storages: dict[str, Storage] = {}
            data = self.source.read(self.position, min(size, self.end - self.position))
            try:
                resolve = persistent or _persistent(storages)
                value, length = interpret(data, TABLE, resolve, self.source.path)
            except Truncated:
                if len(data) < size or size >= MAX_PICKLE_BYTES:
                    raise self.truncated("a pickle program") from None
                size *= 8
                continue
            self.position += length
            self.storages = storages
            return value

    def fields(self, layout: str) -> tuple[Any, ...]:
        record = struct.Struct(layout)
        data = self.source.read(self.position, min(record.size, self.end - self.position))
        if len(data) < record.size:
            raise self.truncated("a length")
        self.position += record.size
        return record.unpack(data)

    def storage(self, storage: Storage) -> None:
        """Note where the bytes of a storage are, after its length, and step over them."""
        (count,) = self.fields("<q")
        if count != storage.count:
            raise invalid(
                self.source,
                f"The storage {quoted(storage.key)} should have {storage.count:,} elements; "
                f"its length says {count:,}.",
            )
        if storage.nbytes > self.end - self.position:
            raise self.truncated(
                f"the storage {quoted(storage.key)}", self.position + storage.nbytes
            )
        storage.position = self.position
        self.position += storage.nbytes

    def truncated(self, what: str, needed: int | None = None) -> WeightsError:
        more = "" if needed is None else f", which would end at byte {needed:,}"
        return WeightsError(
            f"{self.source.path}: truncated. The file has {self.source.size:,} bytes and ends "
            f"within {what}{more}.\nThe download or copy was interrupted. Fetch it again.",
            path=self.source.path,
            expected=needed,
            got=self.source.size,
        )


def invalid(source: Source, problem: str) -> WeightsError:
    """The error for a file that contradicts itself."""
    return WeightsError(
        f"{source.path}: not a valid torch checkpoint.\n{problem}\n"
        "The file is damaged, or was made to mislead. Fetch it again.",
        path=source.path,
    )


def read_legacy(source: Source) -> Layout:
    """The layout of torch 0.2 to 1.5 (and of `_use_new_zipfile_serialization=False`).

    Raises:
        WeightsError: truncated, not made by torch.save, or with imports that weights never need.
    """
    stream = _Stream(source, 0, source.size)
    if stream.program() != MAGIC:
        raise WeightsError(
            f"{source.path}: a Python pickle, but not one that torch.save wrote.\n"
            "Only tensors are read from pickles, and this one holds none. Save the weights with "
            "torch.save or as safetensors.",
            path=source.path,
            got="pickle",
        )
    version = stream.program()
    if version != _LEGACY_PROTOCOL:
        raise invalid(source, f"Its protocol is not {_LEGACY_PROTOCOL}.")
    system = stream.program()
    if type(system) is not dict:
        raise invalid(source, "Its description of the system is not a dictionary.")
    value = stream.program()
    storages = stream.storages
    keys = stream.program()
    if type(keys) is not list or sorted(map(str, keys)) != sorted(storages):
        raise invalid(source, "Its list of storages differs from the storages that it uses.")
    for key in keys:
        stream.storage(storages[key])
    return Layout(value, system.get("little_endian") is False)


# tar


def read_tar(source: Source) -> Layout:
    """The layout of torch 0.1.

    Raises:
        WeightsError: truncated, not made by torch.save, or with imports that weights never need.
    """
    parts = _tar_members(source)
    values: dict[int, Any] = {}
    _tar_storages(_Stream(source, *parts["storages"]), values)
    _tar_tensors(_Stream(source, *parts["tensors"]), values)

    def resolve(found: Any) -> Any:
        known = type(found) is int or (type(found) is str and found.isdecimal())
        if not known or int(found) not in values:
            raise Malformed("A persistent id that names no tensor.")
        return values[int(found)]

    value = _Stream(source, *parts["pickle"]).program(resolve)
    return Layout(value, swapped=False)  # it knew little-endian machines only


def _tar_members(source: Source) -> Mapping[str, tuple[int, int]]:
    """The extents (start, end) of the four members that torch wrote."""
    found: dict[str, tuple[int, int]] = {}
    position = 0
    for _ in range(_MAX_TAR_MEMBERS):
        if len(found) == len(_TAR_MEMBERS):
            break
        block = source.read(position, _TAR_BLOCK)
        if len(block) < _TAR_BLOCK:
            raise _Stream(source, 0, 0).truncated("the list of members of its tar archive")
        if not block.strip(b"\0"):  # the end of the archive
            break
        name = block[:100].split(b"\0")[0].decode("latin-1").removeprefix("./")
        start = position + _TAR_BLOCK
        size = _tar_size(block[124:136])
        if size is None:
            raise invalid(source, f"The member {quoted(name)} of its tar archive has no size.")
        if start + size > source.size:
            what = f"the member {quoted(name)} of its tar archive"
            raise _Stream(source, 0, 0).truncated(what, start + size)
        if block[156:157] in b"0\0" and name in _TAR_MEMBERS and name not in found:
            found[name] = (start, start + size)
        position = start + -(-size // _TAR_BLOCK) * _TAR_BLOCK
    missing = [name for name in _TAR_MEMBERS if name not in found]
    if missing:
        raise WeightsError(
            f"{source.path}: a tar archive, but not a torch checkpoint: it has no member "
            f"{' or '.join(missing)}.\nIf the weights are in it, unpack it and load that file.",
            path=source.path,
            got="tar",
        )
    return found


def _tar_size(raw: bytes) -> int | None:
    """The size in a tar header: octal text, or binary for more than 8 GiB."""
    if raw[0] == 0x80:
        return int.from_bytes(raw[1:], "big")
    text = raw.strip(b" \0")
    return int(text, 8) if text and set(text) <= set(b"01234567") else None


def _count(stream: _Stream) -> int:
    count = stream.program()
    if type(count) is not int or not 0 <= count <= _MAX_STORAGES:
        raise invalid(stream.source, "A number of storages or tensors that makes no sense.")
    return count


def _tar_storages(stream: _Stream, values: dict[int, Any]) -> None:
    for _ in range(_count(stream)):
        record = stream.program()
        if type(record) is not tuple or len(record) != 3 or type(record[0]) is not int:
            raise invalid(stream.source, "A storage that is not (key, location, type).")
        key, _, kind = record
        if type(kind) is not StorageType:
            raise invalid(stream.source, "A storage without a type.")
        (count,) = stream.fields("<q")
        stream.position -= 8
        if count < 0:
            raise invalid(stream.source, "A storage of negative length.")
        values[key] = storage = Storage(str(key), kind, count)
        stream.storage(storage)
    views = stream.program()
    if type(views) is not list:
        raise invalid(stream.source, "Its views of storages are not a list.")
    for view in views:
        if type(view) is not tuple or [type(item) for item in view] != [int] * 4:
            raise invalid(stream.source, "A view that is not (key, root, offset, count).")
        key, root, offset, count = view
        if type(values.get(root)) is not Storage:
            raise invalid(stream.source, "A view of a storage that does not exist.")
        try:
            values[key] = values[root].part(offset, count)
        except Malformed as error:
            raise invalid(stream.source, str(error)) from None


def _tar_tensors(stream: _Stream, values: dict[int, Any]) -> None:
    for _ in range(_count(stream)):
        record = stream.program()
        if type(record) is not tuple or len(record) != 3 or type(record[0]) is not int:
            raise invalid(stream.source, "A tensor that is not (key, storage, type).")
        key, storage, _ = record
        (dimensions, _) = stream.fields("<ii")
        if not 0 <= dimensions <= 64:
            raise invalid(stream.source, f"A tensor of {dimensions} dimensions.")
        shape = stream.fields(f"<{dimensions}q")
        strides = stream.fields(f"<{dimensions}q")
        (offset,) = stream.fields("<q")
        try:
            values[key] = tensor(values.get(storage), offset, shape, strides)
        except Malformed as error:
            raise invalid(stream.source, str(error)) from None

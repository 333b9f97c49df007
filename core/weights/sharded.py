"""Weights in several files with an index (`model.safetensors.index.json`) that says what is where.

An index names files, so it could name any: shards are plain file names in the folder of the
index, checked before one is opened or asked for.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import WeightsError
from ..paths import atomic
from .safetensors import SafetensorsFile, arrays_of, ranks_of, save_file
from .source import Array, FilePath, LazyWeights, Source, TensorInfo, quoted

MAX_INDEX_BYTES = 50_000_000
MAX_SHARD_BYTES = 5_000_000_000

_SHARD_ENDINGS = (".safetensors", ".bin", ".pt", ".pth")
_PLAIN_NAME = re.compile(r"[^\0-\x1f/\\:*?\"<>|]{1,200}")


class ShardIndex(NamedTuple):
    """A parsed index: the file of each tensor, and what else it records (`total_size`)."""

    weight_map: dict[str, str]
    metadata: dict[str, Any]

    @property
    def files(self) -> list[str]:
        """The names of the shards, sorted."""
        return sorted(set(self.weight_map.values()))


class _Twice(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            both = f" in {quoted(found[name], 40)} and in {quoted(value, 40)}"
            raise _Twice(f"{quoted(name)} is listed twice{both if type(value) is str else ''}")
        found[name] = value
    return found


def _invalid(where: str, problem: str, **facts: Any) -> WeightsError:
    return WeightsError(
        f"{where}: not a valid index of weight files.\n{problem}.\n"
        "It is damaged, or was made to mislead; no file that it names was opened. "
        "Fetch or save it again.",
        path=where,
        **facts,
    )


def parse_index(
    raw: bytes, where: str = "<index>", available: Collection[str] | None = None
) -> ShardIndex:
    """Parse and check an index.

    Args:
        raw: its content.
        where: its name, for messages.
        available: the files that there are beside it; a shard that is not among them is refused.

    Raises:
        WeightsError: it is no index, a tensor is in two shards, a shard's name leads elsewhere,
            or a shard is missing.
    """
    try:
        found = json.loads(raw.decode("utf-8"), object_pairs_hook=_object)
    except _Twice as twice:
        raise _invalid(where, f"The tensor {twice}") from None
    except (ValueError, RecursionError) as error:
        raise _invalid(where, f"It is not JSON ({str(error)[:100]})") from None
    weight_map = found.get("weight_map") if isinstance(found, dict) else None
    if type(weight_map) is not dict or not weight_map:
        raise _invalid(where, "It has no weight_map that says which file holds which tensor")
    for name, file in weight_map.items():
        if type(file) is not str or not _safe(file):
            raise _invalid(
                where,
                f"The shard {quoted(file)} of {quoted(name)} is not the plain name of a weight "
                "file in the folder of the index",
                shard=file,
                tensor=name,
            )
    metadata = found.get("metadata")
    index = ShardIndex(weight_map, metadata if type(metadata) is dict else {})
    if available is not None:
        _refuse_missing(index, set(available), where)
    return index


def _safe(file: str) -> bool:
    """Whether a name can only be that of a weight file in the same folder, on any system."""
    return (
        _PLAIN_NAME.fullmatch(file) is not None
        and not file.startswith(".")
        and file.endswith(_SHARD_ENDINGS)
    )


def _refuse_missing(index: ShardIndex, available: set[str], where: str) -> None:
    missing = [file for file in index.files if file not in available]
    if missing:
        listed = ", ".join(quoted(file) for file in missing[:4]) + (", ..." if missing[4:] else "")
        raise WeightsError(
            f"{where}: {len(missing)} of its {len(index.files)} weight files are missing: "
            f"{listed}.\n"
            "A download was interrupted, or only some files were copied. Fetch them into the "
            "same folder.",
            path=where,
            missing=missing,
        )


def read_index(path: FilePath, available: Collection[str] | None = None) -> ShardIndex:
    """Read and check an index; see `parse_index`."""
    source = Source(path)
    try:
        if source.size > MAX_INDEX_BYTES:
            raise _invalid(
                source.path,
                f"It has {source.size:,} bytes, more than the limit of {MAX_INDEX_BYTES:,}",
                expected=MAX_INDEX_BYTES,
                got=source.size,
            )
        raw = source.read(0, source.size)
    finally:
        source.close()
    return parse_index(raw, source.path, available)


class ShardedWeights(LazyWeights):
    """The tensors of all shards of an index; opening reads the headers, and no values.

    Args:
        path: the index file.
        mapped: as for `SafetensorsFile`.

    Raises:
        WeightsError: a shard is missing or damaged, or index and shards contradict each other.
        OSError: the index does not exist or cannot be read.
    """

    def __init__(self, path: FilePath, mapped: bool = False) -> None:
        self.path = os.fspath(path)
        folder = os.path.dirname(self.path)
        index = read_index(path, os.listdir(folder or "."))
        self.metadata = index.metadata
        self._weight_map = index.weight_map
        self._shards: dict[str, LazyWeights] = {}
        try:
            for file in index.files:
                self._shards[file] = _open_shard(os.path.join(folder, file), mapped)
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        """Refuse a shard that lacks what the index expects of it, or holds anything else."""
        for name, file in self._weight_map.items():
            if name not in self._shards[file]:
                raise _contradiction(
                    self.path, f"The tensor {quoted(name)} is not in {quoted(file)}", tensor=name
                )
        for file, shard in self._shards.items():
            for name in shard:
                expected = self._weight_map.get(name)
                if expected != file:
                    known = f"belongs in {quoted(expected)}" if expected else "is not in the index"
                    raise _contradiction(
                        self.path,
                        f"{quoted(file)} holds the tensor {quoted(name)}, which {known}",
                        tensor=name,
                    )

    def __getitem__(self, name: str) -> Array:
        return self._shards[self._weight_map[name]][name]

    def info(self, name: str) -> TensorInfo:
        """The dtype and shape of a tensor; reads no values."""
        return self._shards[self._weight_map[name]].info(name)

    def __contains__(self, name: object) -> bool:
        return name in self._weight_map

    def __iter__(self) -> Iterator[str]:
        return iter(self._weight_map)

    def __len__(self) -> int:
        return len(self._weight_map)

    def close(self) -> None:
        """Close every shard. Arrays that were read, or mapped, stay valid."""
        for shard in self._shards.values():
            shard.close()


def _contradiction(where: str, problem: str, **facts: Any) -> WeightsError:
    return WeightsError(
        f"{where}: the index and its weight files contradict each other.\n{problem}.\n"
        "Files of two versions were mixed. Fetch or save all of them again.",
        path=where,
        **facts,
    )


def _open_shard(path: str, mapped: bool) -> LazyWeights:
    if path.endswith(".safetensors"):
        return SafetensorsFile(path, mapped)
    from .torch_checkpoint import TorchCheckpoint

    return TorchCheckpoint(path, mapped)


def save_sharded(
    tensors: Mapping[str, Any],
    folder: FilePath,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    name: str = "model",
    metadata: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write tensors as `model.safetensors`, or as shards with an index if they are too large.

    Tensors stay in the given order; one that is larger than `max_shard_bytes` gets a shard of
    its own. Files of an earlier save under the same name that are not part of this one are
    removed, last, so that a reader never finds two versions.

    Args:
        tensors: name to tensor or array, as for `save_file`.
        folder: made if it is missing.
        max_shard_bytes: of array data in one file.
        name: the beginning of the file names.
        metadata: texts kept in the header of every file.

    Returns:
        The files that were written, the index last.

    Raises:
        DtypeError, WeightsError, OSError: as for `save_file`.
    """
    arrays = arrays_of(tensors)
    ranks_of(arrays, metadata)  # refuses what cannot be written, before a file is touched
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    shards = _split(arrays, max_shard_bytes)
    stale = _earlier_files(target, name)
    index_path = target / f"{name}.safetensors.index.json"
    if len(shards) == 1:
        written = [target / f"{name}.safetensors"]
        save_file(arrays, written[0], metadata)
    else:
        # Shards of the same names are about to change: their index must not outlive them.
        index_path.unlink(missing_ok=True)
        written = [
            target / f"{name}-{number:05}-of-{len(shards):05}.safetensors"
            for number in range(1, len(shards) + 1)
        ]
        weight_map = {}
        for shard, path in zip(shards, written, strict=True):
            save_file({key: arrays[key] for key in shard}, path, metadata)
            weight_map.update(dict.fromkeys(shard, path.name))
        total = sum(array.nbytes for array in arrays.values())
        table = {"metadata": {"total_size": total}, "weight_map": weight_map}
        with atomic(index_path) as part:
            part.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
        written.append(index_path)
    for path in stale - set(written):
        path.unlink(missing_ok=True)
    return written


def _split(tensors: Mapping[str, Array], max_shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, array in tensors.items():
        if shards[-1] and filled + array.nbytes > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += array.nbytes
    return shards


def _earlier_files(folder: Path, name: str) -> set[Path]:
    pattern = re.compile(re.escape(name) + r"(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
    return {path for path in folder.iterdir() if pattern.fullmatch(path.name)}

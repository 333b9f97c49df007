"""Weight files of other kinds as safetensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.dtypes import FLOATS, as_dtype
from ..core.errors import ConfigError, WeightsError
from ..core.insight.progress import progress
from ..core.weights import open_weights, save_file, save_sharded
from ..core.weights.sharded import MAX_SHARD_BYTES

#: What transformers asks of the metadata: the names and shapes are PyTorch's.
METADATA = {"format": "pt"}
_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        source: the file that was read.
        files: the files that were written; of shards, the index last.
        shared: names of tensors whose memory another one has too, such as tied weights.
    """

    source: Path
    files: tuple[Path, ...]
    tensors: int
    size: int
    shared: tuple[str, ...]


def convert(
    source: str | Path,
    out: str | Path | None = None,
    *,
    key: str | None = None,
    dtype: Any = None,
    force: bool = False,
    quiet: bool = False,
) -> Converted:
    """Write the tensors of a weight file as safetensors, read it again and compare.

    Args:
        source: a torch checkpoint, an index of shards, a safetensors file, or a folder.
        out: a file that ends in .safetensors, or a folder; beside the source unless given.
        key: of a checkpoint with several state dicts, the one to take.
        dtype: of the floating-point tensors; as they are unless given.
        force: replace files that exist.

    Raises:
        WeightsError: the source is damaged or unsafe, or what was written differs.
        ConfigError: `out` exists, or is neither a folder nor ends in .safetensors.
    """
    wanted = None if dtype is None else as_dtype(dtype)
    if wanted is not None and wanted not in FLOATS:
        raise ConfigError(f"dtype={dtype!r} is no floating-point type", got=dtype)
    with open_weights(source, key=key) as file:
        read = Path(file.path)
        target = _target(read, out)
        existing = [p for p in (target, target / "model.safetensors") if p.is_file()]
        if existing and not force:
            raise ConfigError(
                f"{existing[0]} exists.\nTo replace it: --force (force=True)", path=str(existing[0])
            )
        arrays = {}
        infos = file.infos()
        total = sum(i.dtype.itemsize * math.prod(i.shape) for i in infos.values())
        shown = False if quiet else None
        with progress(total=total, what=f"reading {read.name}", unit="B", enabled=shown) as bar:
            for name in file:
                arrays[name] = file[name]
                bar.update(arrays[name].nbytes)
    if not arrays:
        raise WeightsError(f"{read} holds no tensors", path=str(read))
    shared = _shared(arrays)
    if wanted is not None:
        arrays = {n: a.astype(wanted) if a.dtype in FLOATS else a for n, a in arrays.items()}
    if target.suffix == _SUFFIX:
        save_file(arrays, target, METADATA)
        files = [target]
    else:
        files = save_sharded(arrays, target, max_shard_bytes=MAX_SHARD_BYTES, metadata=METADATA)
    _compare(arrays, files[-1])
    size = sum(path.stat().st_size for path in files)
    return Converted(read, tuple(files), len(arrays), size, shared)


def _target(source: Path, out: str | Path | None) -> Path:
    if out is not None:
        target = Path(out).expanduser()
        if target.suffix and target.suffix != _SUFFIX and not target.is_dir():
            raise ConfigError(
                f"{target} does not end in {_SUFFIX}; without an ending it is a folder",
                path=str(target),
            )
        return target
    if source.name.endswith(".index.json") or source.suffix == _SUFFIX:
        return source.parent / "safetensors"
    # The names by which loading prefers what is converted over what it was made of.
    stem = "model" if source.name.startswith("pytorch_model") else source.stem
    return source.with_name(stem + _SUFFIX)


def _shared(arrays: Mapping[str, Any]) -> tuple[str, ...]:
    seen: set[tuple[Any, ...]] = set()
    found = []
    for name, array in arrays.items():
        place = (array.__array_interface__["data"][0], array.shape, array.strides)
        if place in seen and array.size:
            found.append(name)
        seen.add(place)
    return tuple(found)


def _compare(arrays: Mapping[str, Any], path: Path) -> None:
    with open_weights(path) as file:
        for name, array in arrays.items():
            written = file.get(name)
            same = (
                written is not None
                and written.dtype == array.dtype
                and written.shape == array.shape
                and np.array_equal(
                    np.ascontiguousarray(written).reshape(-1).view(np.uint8),
                    np.ascontiguousarray(array).reshape(-1).view(np.uint8),
                )
            )
            if not same:
                raise WeightsError(
                    f"{path}: the tensor {name!r} was not written as it was read. Is the disk full "
                    "or failing?",
                    path=str(path),
                    tensor=name,
                )

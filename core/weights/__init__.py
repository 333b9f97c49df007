"""Weight files: safetensors, GGUF, ncnn, and torch checkpoints read without executing anything.

    tensors = bt.weights.load("model.safetensors")     # or a .bin, .pt, .pth, or an index
    bt.weights.save_file(tensors, "copy.safetensors")

The kind of a file is found by its content. What is damaged, or is not a weight file, is refused
with an error that says what it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from ..errors import WeightsError
from .detect import detect
from .gguf import GgufFile
from .matching import Comparison, compare, misfit, require_match
from .ncnn import NcnnFile
from .safetensors import SafetensorsFile, load_bytes, load_file, save_bytes, save_file
from .sharded import ShardedWeights, read_index, save_sharded
from .source import Array, FilePath, LazyWeights, TensorInfo, quoted
from .torch_checkpoint import TorchCheckpoint, read_checkpoint
from .values import nonfinite, require_finite

__all__ = [
    "Comparison",
    "GgufFile",
    "LazyWeights",
    "NcnnFile",
    "SafetensorsFile",
    "ShardedWeights",
    "TensorInfo",
    "TorchCheckpoint",
    "choose_weight_file",
    "compare",
    "detect",
    "load",
    "load_bytes",
    "load_file",
    "misfit",
    "nonfinite",
    "open_weights",
    "read_checkpoint",
    "read_index",
    "require_finite",
    "require_match",
    "save_bytes",
    "save_file",
    "save_sharded",
]

_SHARD = re.compile(r"-\d+-of-\d+\.")
# Files beside a model that are no model weights, though they end like ones.
_NOT_WEIGHTS = re.compile(
    r"(adapter_|optimizer|scheduler|scaler|rng_state|training_args|trainer_|random_states)"
)
# In the order in which they are taken; a group with several files is ambiguous.
_CHOICES: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern)
    for pattern in (
        r"model\.safetensors",
        r"model\.safetensors\.index\.json",
        r"(diffusion_)?pytorch_model\.safetensors",
        r"(diffusion_)?pytorch_model\.safetensors\.index\.json",
        r".+\.safetensors",
        r".+\.safetensors\.index\.json",
        r"(diffusion_)?pytorch_model\.bin",
        r"(diffusion_)?pytorch_model\.bin\.index\.json",
        r".+\.(bin|pth|pt)",
        r".+\.(bin|pth|pt)\.index\.json",
    )
)


def load(
    path: FilePath, *, mapped: bool = False, check_values: bool = False, key: str | None = None
) -> dict[str, Array]:
    """Every tensor of a weight file, an index, or a folder that holds one, by name.

    The file is taken by its content and never by its name; when it is damaged, no other file
    beside it is tried.

    Args:
        path: safetensors, torch checkpoint (`.bin`, `.pt`, `.pth`), GGUF, `.param` of ncnn, index
            file, or folder. The blocks of few bits of a GGUF file are given in float32.
        mapped: give arrays that share the mapped file (copy on write) instead of reading it.
            Only for files that nobody truncates or rewrites in place.
        check_values: refuse NaN and infinite values (reads everything once).
        key: of a torch checkpoint with several state dicts, the one to take.

    Raises:
        WeightsError: damaged, unsafe, not a weight file, or with forbidden values.
        OSError: it does not exist or cannot be read.
    """
    with open_weights(path, mapped=mapped, key=key) as file:
        tensors = dict(file.items())
    if check_values:
        require_finite(tensors, file.path)
    return tensors


def open_weights(path: FilePath, *, mapped: bool = False, key: str | None = None) -> LazyWeights:
    """A weight file of any kind as a mapping that reads each tensor when it is asked for.

    See `load` for the arguments.

    Raises:
        WeightsError: damaged, unsafe, or not a weight file.
        OSError: it does not exist or cannot be read.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        names = os.listdir(path)
        chosen = choose_weight_file(names)
        if chosen is None:
            listed = ", ".join(quoted(name, 40) for name in sorted(names)[:8]) or "nothing"
            raise WeightsError(
                f"{path}: no weights in this folder (model.safetensors, pytorch_model.bin, ...).\n"
                f"It contains {listed}{', ...' if len(names) > 8 else ''}.",
                path=path,
                names=sorted(names),
            )
        path = os.path.join(path, chosen)
    kind = detect(path)
    if kind == "torch":
        return TorchCheckpoint(path, mapped, key=key)
    if key is not None:
        raise WeightsError(
            f"{path}: key={key!r} chooses among the state dicts of a torch checkpoint; this file "
            "holds its tensors directly.\nLeave key out.",
            path=path,
            got=key,
        )
    if kind == "gguf":
        return GgufFile(path, mapped)
    if kind == "ncnn":
        return NcnnFile(path, mapped)
    return ShardedWeights(path, mapped) if kind == "index" else SafetensorsFile(path, mapped)


def choose_weight_file(names: Iterable[str]) -> str | None:
    """The one file to load among those of a folder or repository; None if there is none.

    `model.safetensors` first, then shards by their index, then other safetensors, then torch
    checkpoints. Files in subfolders are other models and are left out; so are adapters, single
    shards, and variants (`model.fp16.safetensors`) of a file that is there too.

    Raises:
        WeightsError: several files of the same rank.
    """
    plain = [
        name
        for name in names
        if "/" not in name and not _SHARD.search(name) and not _NOT_WEIGHTS.match(name)
    ]
    for pattern in _CHOICES:
        found = _without_variants([name for name in plain if pattern.fullmatch(name)])
        if len(found) == 1:
            return found[0]
        if found:
            raise WeightsError(
                f"{len(found)} weight files, none of which is the obvious one: "
                f"{', '.join(quoted(name, 60) for name in found[:6])}"
                f"{', ...' if found[6:] else ''}.\n"
                "Give the path of the one to load.",
                names=found,
            )
    return None


def _without_variants(names: list[str]) -> list[str]:
    """The names of which none is another with a word more, as `model.fp16.bin` is `model.bin`."""
    kept = []
    for name in sorted(names):
        stem, _, ending = name.partition(".")
        words = ending.split(".")
        shorter = {".".join([stem, *words[:i], *words[i + 1 :]]) for i in range(len(words) - 1)}
        if shorter.isdisjoint(names):
            kept.append(name)
    return kept

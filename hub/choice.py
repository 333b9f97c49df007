"""Which files of a repository a model needs: configuration, one set of weights, and the small
files that prepare its input.

Weights are taken in one order: `model.safetensors`, shards by their index, other safetensors, a
pull request that adds them (where an entry names it), a torch checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..core.errors import HubError
from ..core.weights import choose_weight_file
from ..core.weights.sharded import parse_index
from .cache import Storage

INDEX = ".index.json"
#: What a folder has that holds a model, or a pipeline of several.
CONFIGURATION = ("config.json", "model_index.json")
# Preprocessing, tokenizers, the layout of a pipeline. All of them are small.
_SIDE = re.compile(
    r"(generation_config|preprocessor_config|processor_config|image_processor_config"
    r"|scheduler_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab"
    r"|chat_template|modules|sentence_bert_config|config_sentence_transformers)\.json"
    r"|vocab\.txt|merges\.txt|chat_template\.jinja|[\w.-]+\.model"
)
_ALSO = re.compile(r"README\.md|LICEN[CS]E(\.\w+)?")
_VARIANT = re.compile(
    r"\.(\w{1,16})(?:-\d+-of-\d+)?\.(?:safetensors|bin)(?:\.index\.json)?$"
    r"|\.(?:safetensors|bin)\.index\.(\w{1,16})\.json$"
)
# Folders of pipelines that ours have no use for, and exports of parts for other programs.
_NO_PART = re.compile(
    r"safety_checker|feature_extractor|image_encoder|vae_(encoder|decoder|\d\w*)"
    r"|\w+_(onnx|openvino|flax)"
)
_MODULE = re.compile(r"\d+_\w+")  # folders of sentence-transformers: 1_Pooling
#: How observations were normalised in the training of an agent of Stable-Baselines3.
NORMALIZED = "vec_normalize.pkl"
_MEASURED = re.compile(r"train_eval_metrics\.zip")  # beside an agent
_OTHER = re.compile(r"^(config|model_index)\.json$|\.(safetensors|bin|pth|pt|gguf|onnx)$")


@dataclass
class Choice:
    """Files by how much they matter.

    Attributes:
        core: configuration and weights, without which there is no model.
        side: what prepares input and reads output; a model without them takes no raw input.
        also: for people: licence and description.
    """

    core: list[str] = field(default_factory=list)
    side: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)

    @property
    def indexes(self) -> list[str]:
        """The indexes whose shards belong to the core as well."""
        return [name for name in self.core if name.endswith(INDEX)]

    @property
    def safe(self) -> bool:
        """Whether no weights are torch checkpoints."""
        return not any(re.search(r"\.(bin|pth|pt)(\.index\.json)?$", name) for name in self.core)


def choose(names: Collection[str], variant: str | None = None) -> Choice | None:
    """What a model needs of these files; None if there are no weights among them.

    Args:
        variant: of the weights, such as "fp16": `model.fp16.safetensors`. In a repository of
            several parts, those that lack it come as they are.

    Raises:
        WeightsError: several weight files, none of which is the obvious one.
        HubError: no weights of this variant.
    """
    agent = agent_in(names)
    if agent is not None:
        also = [name for name in sorted(names) if _ALSO.fullmatch(name)]
        return Choice([agent], [name for name in (NORMALIZED,) if name in names], also)
    chosen = Choice()
    folders = _parts(names)
    # What lies beside the index of a pipeline is all of its weights once more, in one file; or the
    # one network that there is, as in google/ddpm-cifar10-32.
    holding = (folders[1:] if "model_index.json" in names else None) or folders
    found = [_weights(names, folder, variant) for folder in holding]
    if variant is not None and not any(exact for _, exact in found):
        there = ", ".join(variants(names)) or "none"
        raise HubError(
            f"there are no weights of the variant {variant!r}.\nVariants: {there}", variant=variant
        )
    weights = [name for name, _ in found if name is not None]
    if not weights:
        return None
    for folder in folders:
        for name in sorted(names):
            inside = name.removeprefix(folder)
            if not name.startswith(folder) or "/" in inside:
                continue
            if inside in CONFIGURATION:
                chosen.core.append(name)
            elif _SIDE.fullmatch(inside):
                chosen.side.append(name)
            elif not folder and _ALSO.fullmatch(inside):
                chosen.also.append(name)
    chosen.core += weights
    return chosen


def agent_in(names: Collection[str]) -> str | None:
    """The zip of an agent of Stable-Baselines3, where that is what a repository holds.

    Either its members lie beside it once more, in a folder of its name, or there is nothing else
    that could be a model.
    """
    found = [n for n in names if n.endswith(".zip") and "/" not in n and not _MEASURED.match(n)]
    unpacked = [name for name in found if f"{name.removesuffix('.zip')}/policy.pth" in names]
    if len(unpacked) == 1:
        return unpacked[0]
    others = any(_OTHER.search(name) for name in names)
    return found[0] if len(found) == 1 and not others else None


def _parts(names: Iterable[str]) -> list[str]:
    """The folders of a repository that belong to the model: the first is the repository itself."""
    names = set(names)
    folders = [""]
    tops = sorted({name.partition("/")[0] for name in names if name.count("/") == 1})
    if "model_index.json" in names:
        marks = [f"{of}config.json" for of in ("", "scheduler_", "tokenizer_", "preprocessor_")]
        parts = [t for t in tops if any(f"{t}/{mark}" in names for mark in marks)]
        folders += [f"{t}/" for t in parts if not _NO_PART.fullmatch(t)]
    elif "modules.json" in names:
        folders += [f"{t}/" for t in tops if _MODULE.fullmatch(t)]
    return folders


def _weights(names: Iterable[str], folder: str, variant: str | None) -> tuple[str | None, bool]:
    """The weight file of a folder, and whether it is of the variant."""
    inside = [n.removeprefix(folder) for n in names if n.startswith(folder)]
    if variant is not None:
        plain = {_without(n, variant): n for n in inside if _without(n, variant) != n}
        chosen = choose_weight_file(sorted(plain))
        if chosen is not None:
            return folder + plain[chosen], True
    chosen = choose_weight_file(sorted(inside))
    return (None if chosen is None else folder + chosen), False


def _without(name: str, variant: str) -> str:
    """`model.fp16.safetensors` as `model.safetensors`."""
    return re.sub(rf"\.{re.escape(variant)}(?=[.-])", "", name, count=1)


def variants(names: Iterable[str]) -> list[str]:
    """The variants of which there are weights."""
    found = set()
    for name in names:
        match = _VARIANT.search(name)
        if match is not None:
            found.add(match[1] or match[2])
    return sorted(found)


def weights_in(folder: Path, variant: str | None = None) -> str | None:
    """The weight file of a folder on disk.

    Raises:
        WeightsError, HubError: see `choose`.
    """
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    chosen, exact = _weights(names, "", variant)
    if variant is not None and not exact:
        raise HubError(
            f"{folder} holds no weights of the variant {variant!r}.\n"
            f"Variants: {', '.join(variants(names)) or 'none'}",
            variant=variant,
        )
    return chosen


def shards(content: bytes, index: str, available: Collection[str]) -> list[str]:
    """The files that an index needs, checked before any is asked for.

    Args:
        index: its name in the repository.
        available: every file of the repository.

    Raises:
        WeightsError: a shard leads elsewhere, is missing, or holds a tensor that another has too.
    """
    folder = index[: index.rfind("/") + 1]
    beside = {n.removeprefix(folder) for n in available if n.startswith(folder)}
    return [folder + name for name in parse_index(content, index, beside).files]


def wanted_here(
    storage: Storage, commit: str, variant: str | None, *, least: bool = False
) -> list[str] | None:
    """The files that a model needs, as far as this machine knows; None if it knows too little.

    Args:
        least: only those without which there is no model.
    """
    listed = storage.listing(commit)
    # Without a list, what another tool fetched is taken for all that there is.
    names = list(listed) if listed is not None else storage.names(commit)
    if listed is not None and least:
        here = set(storage.names(commit))
        names = [name for name in names if name in here or not _SIDE.fullmatch(name)]
    try:
        chosen = choose(names, variant)
    except HubError:
        if listed is not None:
            raise
        return None  # no such variant here; the hub may have one
    if chosen is None:
        return None
    if not any(name in CONFIGURATION or name.endswith(".zip") for name in chosen.core):
        return None
    wanted = chosen.core if least else chosen.core + chosen.side
    for index in chosen.indexes:
        path = storage.snapshot(commit) / index
        if not path.is_file():
            return None
        wanted = wanted + shards(path.read_bytes(), index, names)
    return wanted

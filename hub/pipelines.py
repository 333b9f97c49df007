"""Folders of several networks: `model_index.json` names the pipeline and the class of each part.

    {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"], ...}

Each network lies in a subfolder of its name, with a configuration and weights of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, HubError
from ..core.nn import Module
from . import limits
from .choice import variants
from .filling import Options, Report
from .loading import MARKER, Loaded, card_in, from_folder
from .registry import Architecture, architecture_by_name, architecture_of_config
from .repository import read_json

INDEX = "model_index.json"
SCHEDULER = "scheduler"

# Parts that watch or steer the pictures from outside; pictures are made without them.
SKIPPED = ("feature_extractor", "image_encoder", "safety_checker")


@dataclass(frozen=True)
class PartsConfig:
    """What a pipeline is made of.

    Args:
        networks: by the name of the part: `architecture`, and `config`, its settings.
        pipeline: the class that the folder names.
    """

    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pipeline: str = ""


class Parts(Module):
    """The networks of a pipeline as attributes: `parts.unet`, `parts.vae`, ..."""

    def __init__(self, networks: Mapping[str, Module]) -> None:
        for name, network in networks.items():
            setattr(self, name, network)

    @classmethod
    def of(cls, config: PartsConfig) -> Parts:
        """Untrained networks."""
        networks = {}
        for name, said in config.networks.items():
            architecture = architecture_by_name(str(said["architecture"]))
            if architecture is None:
                raise ConfigError(f"{name}: there is no architecture {said['architecture']!r}")
            networks[name] = architecture.build(architecture.config(**said["config"]))
        return cls(networks)


def is_pipeline(folder: Path) -> bool:
    """Whether a folder holds a pipeline."""
    return (folder / INDEX).is_file()


def architecture_of(folder: Path) -> tuple[Architecture, dict[str, Any]]:
    """The pipeline that a folder holds, and its model_index.json.

    Raises:
        HubError: it is of a class that is not known.
    """
    path = folder / INDEX
    limits.check_size(path)
    index = read_json(path)
    found = architecture_of_config(index)
    if found is None or not found[0].parts:
        raise HubError(
            f"{path}: the pipeline {index.get('_class_name')!r} is not supported.\n"
            f"Supported: {', '.join(known_pipelines())}\n"
            f"Its networks may load one by one: bt.load({str(folder / 'unet')!r})",
            architecture=index.get("_class_name"),
        )
    return found[0], index


def known_pipelines() -> list[str]:
    """The classes of pipelines that load."""
    from .registry import architectures

    return sorted({name for a in architectures() if a.parts for name in a.class_names})


def pipeline_in(folder: Path, options: Options, *, name: str | None) -> Loaded:
    """The networks of a folder, each with a report of its own, and what stands beside them.

    Raises:
        HubError: the pipeline, or one of its parts, is not supported, or a part is missing.
    """
    found, index = architecture_of(folder)
    _refuse_changes(found, options)
    listed = _listed(folder, index)
    wanted = [part for part in found.parts if part in listed or part not in found.optional]
    strange = sorted(set(listed) - {*found.parts, *found.beside, *SKIPPED})
    if strange:
        raise HubError(
            f"{folder / INDEX}: {index['_class_name']} has parts that are not supported: "
            f"{', '.join(f'{part} ({listed[part]})' for part in strange)}.",
            names=strange,
        )
    parts = {part: _part(folder, part, listed.get(part), options) for part in wanted}
    marker = index.get(MARKER)
    config = PartsConfig(
        {
            part: {"architecture": one.architecture.name, "config": dataclasses.asdict(one.config)}
            for part, one in parts.items()
        },
        str(index["_class_name"]),
    )
    return Loaded(
        Parts({part: one.module for part, one in parts.items()}),
        found,
        config,
        card_in(found, marker, name or folder.resolve().name),
        _together(parts, folder),
        published=index,
        folder=folder,
        parts=parts,
        skipped=tuple(part for part in SKIPPED if part in listed),
        scheduler=_scheduler(folder, found, listed),
    )


def _listed(folder: Path, index: Mapping[str, Any]) -> dict[str, str]:
    """The parts that there are, and their classes; those that were left out are null."""
    listed = {}
    for part, said in index.items():
        pair = isinstance(said, list) and len(said) == 2
        if pair and all(isinstance(word, str) for word in said):
            listed[part] = said[1]
        elif isinstance(said, list) and not (pair and said[1] is None):
            raise HubError(f"{folder / INDEX}: {part}={said!r} names no library and class")
    return listed


def _part(folder: Path, part: str, kind: str | None, options: Options) -> Loaded:
    inside = folder / part
    if kind is None or not (inside / "config.json").is_file():
        reason = "names no such part" if kind is None else f"promises a {kind}"
        raise HubError(
            f"{folder} has no {part}/config.json, and the pipeline needs it ({INDEX} {reason}).\n"
            f"It has: {', '.join(sorted(p.name for p in folder.iterdir())[:12])}",
            part=part,
        )
    variant = options.request.variant
    if variant is not None and variant not in variants(p.name for p in inside.iterdir()):
        if not any(variant in variants(p.name for p in f.iterdir()) for f in _folders(folder)):
            raise HubError(f"{folder} holds no weights of the variant {variant!r}", variant=variant)
        request = dataclasses.replace(options.request, variant=None)
        options = dataclasses.replace(options, request=request)
    return from_folder(inside, options, name=part)


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()]


def _scheduler(
    folder: Path, architecture: Architecture, listed: Mapping[str, str]
) -> dict[str, Any] | None:
    """The settings of the scheduler, with the class that the index names."""
    if SCHEDULER not in architecture.beside:
        return None
    path = folder / SCHEDULER / "scheduler_config.json"
    if SCHEDULER not in listed or not path.is_file():
        raise HubError(f"{folder} has no {SCHEDULER}/{path.name}, and the pipeline needs it")
    limits.check_size(path)
    return {**read_json(path), "_class_name": listed[SCHEDULER]}


def _together(parts: Mapping[str, Loaded], folder: Path) -> Report:
    """One report of all parts, with names as `parts` has them."""
    names = [f.name for f in dataclasses.fields(Report) if f.name != "source"]
    every: dict[str, Any] = {
        kind: tuple(f"{part}.{n}" for part, one in parts.items() for n in getattr(one.report, kind))
        for kind in names
    }
    return Report(**every, source=str(folder))


def _refuse_changes(architecture: Architecture, options: Options) -> None:
    for name in ("num_classes", "in_channels", "image_size"):
        if getattr(options, name) is not None:
            raise ConfigError(
                f"{architecture.name} is a pipeline of several networks and has no {name} to "
                "change at load.",
                name=name,
            )

"""Models in GGUF files: one file with weights, configuration, tokenizer and chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.errors import HubError
from ..core.weights import GgufFile
from .card import card_of
from .filling import Options, Report, adapted, filled, untrained
from .loading import Loaded
from .registry import Architecture, entries

LAYOUT = "gguf"


def from_gguf(path: Path, options: Options) -> Loaded:
    """The model of a GGUF file; blocks of few bits stay as they are unless a dtype is given.

    Raises:
        WeightsError: the file is damaged.
        HubError: its architecture is not supported.
        ConfigError: what it says of the network makes no sense.
    """
    with GgufFile(path) as file:
        metadata, names = dict(file.metadata), list(file.infos())
        family = str(metadata.get("general.architecture"))
        architecture = _architecture(family, path)
        own = f"{LAYOUT}-{family}"
        chosen = own if own in architecture.layouts else LAYOUT
        layout = architecture.layouts[chosen]
        tables = {name: file[name] for name in layout.settings if name in file}
    assert layout.config is not None
    config = layout.config({**metadata, **tables})
    if layout.detect is not None:
        config = layout.detect(config, names)
    original, config = config, adapted(architecture, config, options)
    card = card_of(architecture, None, str(metadata.get("general.name") or path.stem))
    card.license = _text(metadata.get("general.license"))
    if not options.weights:
        module, report = (
            untrained(architecture, config, str(path), options.form),
            Report(source="nothing: untrained"),
        )
    else:
        module, report = filled(architecture, original, config, path, chosen, options)
    return Loaded(module, architecture, config, card, report, metadata=metadata)


def _architecture(family: str, path: Path) -> Architecture:
    every = {a.name: a for a, _ in entries() if LAYOUT in a.layouts}
    for architecture in every.values():
        if family in architecture.model_types:
            return architecture
    known = sorted({name for a in every.values() for name in a.model_types})
    raise HubError(
        f"{path}: the architecture {family!r} is not supported in GGUF files.\n"
        f"Supported: {', '.join(known)}",
        architecture=family,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None

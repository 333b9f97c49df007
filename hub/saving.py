"""Saving a model as a folder that `bt.load` opens again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.nn import Module
from ..core.paths import atomic
from ..core.weights import save_file
from .card import Card
from .loading import MARKER


def save_model(
    folder: str | Path,
    module: Module,
    *,
    architecture: str,
    config: Any,
    card: Card,
    labels: Sequence[str] | None = None,
    processor: Mapping[str, Any] | None = None,
    dtype: Any = None,
) -> Path:
    """Write config.json, model.safetensors, preprocessor_config.json and README.md.

    Args:
        config: the architecture's Config, a dataclass of JSON values.
        processor: how raw input is prepared.
        dtype: of the stored weights, such as "float16"; as they are unless given.

    Returns:
        The folder. Each file appears whole or not at all, the configuration last.
    """
    from ..core.dtypes import FLOATS, as_dtype

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    arrays = {name: tensor.cpu().array for name, tensor in module.state_dict().items()}
    if dtype is not None:
        wanted = as_dtype(dtype)
        arrays = {n: a.astype(wanted) if a.dtype in FLOATS else a for n, a in arrays.items()}
    save_file(arrays, target / "model.safetensors", metadata={"format": "np"})
    if processor is not None:
        _write_json(target / "preprocessor_config.json", dict(processor))
    with atomic(target / "README.md") as part:
        part.write_text(card.markdown(), encoding="utf-8")
    published: dict[str, Any] = {
        MARKER: {
            "architecture": architecture,
            "config": dataclasses.asdict(config),
            "card": card.to_dict(),
        }
    }
    if labels is not None:
        published["id2label"] = {str(i): name for i, name in enumerate(labels)}
    _write_json(target / "config.json", published)
    return target


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with atomic(path) as part:
        part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

"""Saving a model as a folder that `bt.load` opens again, and others where they know its kind."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.nn import Module
from ..core.nn.quantized import count, forms_of
from ..core.paths import atomic
from ..core.weights import save_sharded
from ..core.weights.sharded import MAX_SHARD_BYTES
from .card import Card
from .converting import METADATA
from .loading import MARKER
from .published import form_of, origin_of, processor_of
from .registry import architecture_by_name


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
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Path:
    """Write config.json, the weights, preprocessor_config.json and README.md.

    A model that came from a repository of transformers or timm is written as these do, where it
    is still one of theirs. The weights are `model.safetensors` (by diffusers' name in its layout),
    or shards with an index if they are larger than `max_shard_bytes`.

    Args:
        config: the architecture's Config, a dataclass of JSON values.
        card: the README; its parameters are counted if it does not say.
        labels: names of the classes, in the order of the outputs.
        processor: how raw input is prepared.
        dtype: of the stored weights, such as "float16"; as they are unless given. Weights of few
            bits stay as they are.

    Returns:
        The folder. Each file appears whole or not at all, the configuration last.
    """
    from ..core.dtypes import FLOATS, as_dtype

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    state = module.state_dict()
    once = {id(t.array): t.cpu().array for t in state.values()}  # what is tied stays so
    if dtype is not None:
        wanted = as_dtype(dtype)
        once = {i: a.astype(wanted) if a.dtype in FLOATS else a for i, a in once.items()}
    arrays = {name: once[id(t.array)] for name, t in state.items()}
    known, origin = architecture_by_name(architecture), origin_of(module)
    quantized = forms_of(module)  # in our own form: no other has them so
    form = None
    if known is not None and not quantized:
        form = form_of(known, config, arrays, origin, labels)
    written = _untied(arrays) if form is None else form.arrays
    name = "diffusion_pytorch_model" if form is not None and form.layout == "diffusers" else "model"
    save_sharded(written, target, max_shard_bytes=max_shard_bytes, name=name, metadata=METADATA)
    if processor is not None:
        if form is not None:
            processor = processor_of(origin, processor)
        _write_json(target / "preprocessor_config.json", dict(processor))
    if card.parameters is None:
        card = dataclasses.replace(card, parameters=count(module))
    with atomic(target / "README.md") as part:
        part.write_text(card.markdown(), encoding="utf-8")
    marker: dict[str, Any] = {
        "architecture": architecture,
        "config": dataclasses.asdict(config),
        "card": card.to_dict(),
    }
    if quantized:
        marker["quantized"] = quantized
    published = dict(form.published) if form is not None else {}
    if form is not None:
        marker["layout"] = form.layout
        for key in {"dtype", "torch_dtype"} & set(published):
            published[key] = _dtype_of(written)
    elif labels is not None:
        published["id2label"] = {str(i): name for i, name in enumerate(labels)}
    _write_json(target / "config.json", {**published, MARKER: marker})
    return target


def _untied(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Every array under the first of its names: files hold what is tied once."""
    first = {id(array): name for name, array in reversed(list(arrays.items()))}
    return {name: array for name, array in arrays.items() if first[id(array)] == name}


def _dtype_of(arrays: Mapping[str, Any]) -> str:
    """The type of most of the stored numbers."""
    sizes: dict[str, int] = {}
    for array in arrays.values():
        sizes[array.dtype.name] = sizes.get(array.dtype.name, 0) + array.size
    return max(sizes, key=lambda name: sizes[name], default="float32")


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with atomic(path) as part:
        part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

"""`bt.export`: a loaded model, or a module, as an ONNX file with what its inputs mean beside it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from ..core.nn import Module
from ..core.onnx.exporting import Input, Written, write_onnx
from ..core.onnx.schema import OPSET
from ..core.tensor import Tensor

PARTS = ("image", "text", "encoder", "decoder")
_LENGTHS = {"batch": (2, 3, 5), "tokens": (5, 7, 8), "source": (6, 9, 10)}
_OTHERS = (4, 6, 7)  # of axes that users name


@dataclass(frozen=True)
class Exported:
    """What `bt.export` wrote.

    Attributes:
        files: the model, the file of its weights where these are above 2 GB, the description.
        inputs, outputs: names and shapes; open axes have names.
        nodes: how many there are of each ONNX operator.
        bytes: of all files.
    """

    files: tuple[Path, ...]
    inputs: dict[str, tuple[int | str, ...]]
    outputs: dict[str, tuple[int | str, ...]]
    nodes: dict[str, int]
    bytes: int


@dataclass(frozen=True)
class _Plan:
    """How a network is called."""

    function: Callable[..., Any]
    module: Module
    inputs: dict[str, Input]


def export(
    model: Any,
    path: str | Path,
    *,
    inputs: Mapping[str, Any] | None = None,
    outputs: Sequence[str] | None = None,
    dynamic: bool | Collection[str] = True,
    part: str | None = None,
) -> Exported:
    """Write a model as ONNX: `bt.export("resnet18", "m.onnx")`.

    The file holds the network as other engines run it, opset 17, in float32; `m.json` beside it
    says how inputs are prepared, and what the classes are called. The length of a batch is open,
    and that of texts.

    Args:
        model: what `bt.load` gives, or takes; or a module, with `inputs`.
        inputs: of a module: an example of each by name, or its shape, (..., "batch", 3, ...), in
            which names stand for open axes. Examples are arrays of any lengths: their first axis
            is open.
        outputs: names for what it returns.
        dynamic: which axes are open, of "batch", "tokens" and, for a decoder, "source", the length
            of what the encoder gave; False fixes all: one picture, or one text of as many tokens
            as the model can see.
        part: of models with two networks, "image" or "text", "encoder" or "decoder".

    Raises:
        ConfigError: an operation has no form in ONNX (it and its module are named), or what the
            network does depends on the values or lengths of its inputs.
    """
    if isinstance(model, str | Path):
        from .loading import load

        model = load(model)
    axes = _open_axes(dynamic)
    path = Path(path)
    if path.suffix != ".onnx":
        raise ConfigError(f"export: the file is called *.onnx, not {path.name!r}")
    if inputs is not None:
        if not isinstance(model, Module):
            model = model.module
        plan = _Plan(model, model, {k: _given(k, x, "batch" in axes) for k, x in inputs.items()})
    else:
        plan = _planned(model, part, axes)
    names: list[str] = list(outputs or ())
    named = {n for x in plan.inputs.values() for n in x.shape if isinstance(n, str)}

    def run(*tensors: Tensor) -> Any:
        found = _tensors(plan.function(*tensors))
        if not names:
            names.extend(found)
        return tuple(found.values())

    written = write_onnx(
        run,
        path,
        inputs=plan.inputs,
        outputs=names,
        module=plan.module,
        lengths={a: _LENGTHS.get(a, _OTHERS) for a in named},
    )
    beside = path.with_suffix(".json")
    beside.write_text(json.dumps(_description(model, written), indent=2, default=str) + "\n")
    size = written.bytes + beside.stat().st_size
    return Exported((*written.files, beside), written.inputs, written.outputs, written.nodes, size)


def _tensors(found: Any) -> dict[str, Tensor]:
    """The tensors of a result, by name."""
    if isinstance(found, Tensor):
        return {"output": found}
    if isinstance(found, dict):
        named = dict(found)
    elif hasattr(found, "_fields"):
        named = dict(zip(found._fields, found, strict=True))
    elif is_dataclass(found):
        named = {k: getattr(found, k) for k in found.__dataclass_fields__}
    elif isinstance(found, list | tuple):
        named = {f"output_{i}": x for i, x in enumerate(found)}
    else:
        raise ConfigError(f"export: the network returns a {type(found).__name__}, not tensors")
    return {k: x for k, x in named.items() if isinstance(x, Tensor)}


def _open_axes(dynamic: bool | Collection[str]) -> frozenset[str]:
    axes = frozenset(_LENGTHS if dynamic is True else dynamic or ())
    if isinstance(dynamic, str) or not axes <= _LENGTHS.keys():
        raise ConfigError(
            f"export: dynamic is True, False, or some of {', '.join(_LENGTHS)}, got {dynamic!r}",
            got=dynamic,
        )
    return axes


# -- inputs ------------------------------------------------------------------------------------


def _given(name: str, example: Any, dynamic: bool) -> Input:
    """Of a module: an example, or a shape."""
    if isinstance(example, list | tuple) and all(isinstance(n, int | str) for n in example):
        return Input(tuple(example), _normal)
    array = np.asarray(example.array if isinstance(example, Tensor) else example)
    shape: tuple[int | str, ...] = array.shape
    if dynamic and shape:
        shape = ("batch", *shape[1:])
    if array.dtype.kind == "f":
        return Input(shape, lambda s, rng: rng.standard_normal(s).astype(array.dtype))
    if not array.size:
        raise ConfigError(f"export: the example of {name!r} is empty")
    # Values of the example: others may be no ids of a table.
    return Input(shape, lambda s, rng: rng.choice(array.reshape(-1), s).astype(array.dtype))


def _normal(shape: tuple[int, ...], rng: Any) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


def _planned(model: Any, part: str | None, axes: frozenset[str]) -> _Plan:
    """Inputs of a task, as the arguments of its network say."""
    module = getattr(model, "module", None)
    if not isinstance(module, Module):
        raise ConfigError(
            "export: a module needs inputs={name: shape or example}, such as "
            'inputs={"x": ("batch", 3, 224, 224)}.'
            if isinstance(model, Module)
            else f"export: a {type(model).__name__} has no single network that could be written."
        )
    names = inspect.signature(module.forward).parameters
    if "decoder_input_ids" in names:
        return _of_pair(model, module, part, axes)
    if "input_ids" in names and "pixel_values" in names:
        if part not in PARTS[:2]:
            raise ConfigError(
                f'export: {model.card.name} has two networks: part="image" or part="text" '
                f"says which is written, got {part!r}.",
                got=part,
            )
        if part == "image":
            return _Plan(module.embed, module, {"pixel_values": _pictures(model, axes)})
        return _text(model, module, module.embed_text, axes, masked=True)
    if part is not None:
        raise ConfigError(f"export: {model.card.name} has one network; part={part!r} is of others")
    if "pixel_values" in names:
        return _Plan(module, module, {"pixel_values": _pictures(model, axes)})
    if "input_ids" in names:
        masked = getattr(model.config, "task", "") == "text-classification" or not hasattr(
            module, "cache"
        )
        return _text(model, module, module, axes, masked=masked)
    raise ConfigError(
        f"export: what {type(module).__name__} takes ({', '.join(names)}) is not known here: "
        "export its module with inputs={name: shape or example}."
    )


def _pictures(model: Any, axes: frozenset[str]) -> Input:
    size = model.preprocess.size
    height, width = size if isinstance(size, tuple | list) else (size, size)
    channels = getattr(model.config, "in_channels", 3)
    return Input(("batch" if "batch" in axes else 1, channels, height, width), _normal)


def _of_pair(model: Any, module: Any, part: str | None, axes: frozenset[str]) -> _Plan:
    """The encoder, or the decoder with what the encoder gave; without a cache."""
    config = model.config
    parts = PARTS[2:] if getattr(config, "with_decoder", True) else PARTS[2:3]
    part = part or (parts[0] if len(parts) == 1 else None)
    if part not in parts:
        raise ConfigError(
            f"export: {model.card.name} is written as "
            f"{' or '.join(f'part={p!r}' for p in parts)}, got part={part!r}.",
            got=part,
        )
    batch = "batch" if "batch" in axes else 1
    sound = hasattr(config, "num_mel_bins")
    most = _most_tokens(config)
    tokens = (batch, "tokens" if "tokens" in axes else most)
    if part == "encoder":
        if sound:
            shape = (batch, config.num_mel_bins, config.columns)
            return _Plan(
                _named("states", module.encode), module, {"input_features": Input(shape, _normal)}
            )
        given = {"input_ids": Input(tokens, _ids(config.vocab_size))}
        given["attention_mask"] = Input(tokens, _mask)
        return _Plan(_named("states", module.encode), module, given)
    source = config.max_source_positions if sound else "source" if "source" in axes else most
    given = {
        "decoder_input_ids": Input(tokens, _ids(config.vocab_size)),
        "encoder_hidden_states": Input((batch, source, config.d_model), _normal),
    }
    if not sound:
        given["encoder_attention_mask"] = Input((batch, source), _mask)
    headless = getattr(module, "lm_head", module) is None
    return _Plan(_named("states" if headless else "logits", module.decode), module, given)


def _named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: {name: function(*given)}


def _ids(words: int) -> Callable[[tuple[int, ...], Any], Any]:
    return lambda size, rng: rng.integers(min(5, words - 1), words, size)


def _mask(size: tuple[int, ...], rng: Any) -> Any:
    out = np.ones(size, np.int64)
    out[0, -1 - int(rng.integers(2)) :] = 0  # of nothing but ones, networks make no mask
    return out


def _text(
    model: Any, module: Module, function: Callable[..., Any], axes: frozenset[str], *, masked: bool
) -> _Plan:
    """Token ids and, where a text is seen whole, the mask of padding."""
    config = model.config
    inner = getattr(config, "text", config)
    words, most = inner.vocab_size, _most_tokens(inner)
    shape: tuple[int | str, ...] = (
        "batch" if "batch" in axes else 1,
        "tokens" if "tokens" in axes else most,
    )
    named = {"input_ids": Input(shape, _ids(words))}
    _grow_tables(module, most)
    if not masked:
        return _Plan(function, module, named)
    return _Plan(
        lambda i, m: function(i, attention_mask=m),
        module,
        {**named, "attention_mask": Input(shape, _mask)},
    )


def _most_tokens(config: Any) -> int:
    for name in ("context", "max_position_embeddings", "n_positions"):
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    return 512


def _grow_tables(module: Module, most: int) -> None:
    """Let rotary positions make their tables whole, so that they are written whole."""
    if "position_ids" in inspect.signature(module.forward).parameters:
        from ..core.state import inference_mode

        with inference_mode():
            module(Tensor(np.zeros((1, 1), np.int64)), position_ids=Tensor(np.array([most - 1])))


# -- what lies beside it -----------------------------------------------------------------------


def _description(model: Any, written: Written) -> dict[str, Any]:
    found: dict[str, Any] = {
        "format": "bestiary-onnx",
        "version": 1,
        "opset": OPSET,
        "inputs": {k: list(v) for k, v in written.inputs.items()},
        "outputs": {k: list(v) for k, v in written.outputs.items()},
        "files": [p.name for p in written.files],
    }
    card = getattr(model, "card", None)
    if card is not None:
        found |= {"name": card.name, "task": card.task, "license": card.license}
    preprocess = getattr(model, "preprocess", None)
    if preprocess is not None and is_dataclass(preprocess):
        found["preprocess"] = asdict(preprocess)  # type: ignore[arg-type]
    labels = getattr(model, "labels", None)
    if labels is not None and not callable(labels):
        found["labels"] = list(labels)
    return found

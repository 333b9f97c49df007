"""From the vectors of tokens to one for the text, as sentence-transformers' folders describe it.

`modules.json` lists the steps; each has a folder with a `config.json`. A model without one has the
mean of its tokens, at length 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import ConfigError, DataError
from ...core.weights import choose_weight_file, load_file

Array = np.ndarray[Any, Any]

#: Keys of a pooling's config.json and what they stand for.
MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean-sqrt",
    "pooling_mode_weightedmean_tokens": "weighted-mean",
    "pooling_mode_lasttoken": "last",
}
_TINY = 1e-9
_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "torch.nn.modules.activation.Tanh": np.tanh,
    "torch.nn.modules.linear.Identity": lambda x: x,
    "torch.nn.modules.activation.ReLU": lambda x: np.maximum(x, 0),
    "torch.nn.modules.activation.GELU": lambda x: _gelu(x),
}


def _gelu(x: Array) -> Array:
    from ...core.nn.functional import gelu
    from ...core.tensor import Tensor

    return np.asarray(gelu(Tensor(x)).array)


@dataclass(frozen=True)
class Dense:
    """A linear map of the vector of a text."""

    weight: Array
    bias: Array | None
    activation: str


@dataclass(frozen=True)
class Pooling:
    """How the vectors of a text's tokens become one.

    Attributes:
        modes: one or several of the values of `MODES`, whose vectors are joined.
        dense: linear maps that follow.
        normalised: at length 1 in the end.
        prompts: texts that are put before a text, by their names ("query", "passage").
        default: the name of the prompt where none is asked for.
        prompt_counts: whether the tokens of a prompt are pooled too.
        max_length: tokens of a text, where the folder says.
        files: what it was read from, to be saved with a model.
    """

    modes: tuple[str, ...] = ("mean",)
    dense: tuple[Dense, ...] = ()
    normalised: bool = True
    prompts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    prompt_counts: bool = True
    max_length: int | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)

    def __call__(self, tokens: Array, mask: Array) -> Array:
        """The vectors of texts.

        Shape:
            tokens (B, T, D), mask (B, T) -> (B, D'), float32
        """
        vectors = np.concatenate([pooled(mode, tokens, mask) for mode in self.modes], axis=1)
        for layer in self.dense:
            vectors = vectors @ layer.weight.T
            if layer.bias is not None:
                vectors = vectors + layer.bias
            vectors = _ACTIVATIONS[layer.activation](vectors)
        if self.normalised:
            vectors = unit(vectors)
        return np.asarray(vectors, np.float32)


def pooled(mode: str, tokens: Array, mask: Array) -> Array:
    """One vector (B, D) of the tokens (B, T, D) that are no padding."""
    real = mask[..., None].astype(np.float32)
    count = np.maximum(real.sum(axis=1), _TINY)
    if mode == "cls":
        return np.asarray(tokens[np.arange(len(tokens)), mask.argmax(axis=1)])
    if mode == "max":
        return np.asarray(np.where(real > 0, tokens, -np.inf).max(axis=1))
    if mode == "last":
        ends = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
        return np.asarray(tokens[np.arange(len(tokens)), ends])
    if mode == "weighted-mean":
        weights = real * np.arange(1, mask.shape[1] + 1, dtype=np.float32)[:, None]
        return np.asarray((tokens * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), _TINY))
    total = (tokens * real).sum(axis=1)
    return np.asarray(total / (np.sqrt(count) if mode == "mean-sqrt" else count))


def unit(vectors: Array) -> Array:
    """Each row at length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12))


def read_pooling(folder: Path | None) -> Pooling:
    """What a folder of sentence-transformers says; the mean, at length 1, where it says nothing.

    Raises:
        ConfigError: a step or a mode that is not implemented.
        DataError: a file is damaged.
    """
    if folder is None or not (folder / "modules.json").is_file():
        return Pooling()
    files: dict[str, bytes] = {}

    def read(name: str) -> Any:
        path = folder / name
        if not path.is_file():
            return {}
        files[name] = path.read_bytes()
        try:
            return json.loads(files[name])
        except ValueError as error:
            raise DataError(f"{path} is no JSON: {error}", path=str(path)) from error

    modes: tuple[str, ...] = ()
    dense: list[Dense] = []
    facts: dict[str, Any] = {"normalised": False, "prompt_counts": True}
    for step in read("modules.json"):
        kind = str(step.get("type", "")).rpartition(".")[2]
        place = str(step.get("path", ""))
        if ".." in place.split("/") or place.startswith("/"):
            raise ConfigError(f"modules.json: the path {place!r} leaves the model's folder")
        if kind == "Transformer":
            continue
        said = read(f"{place}/config.json")
        if kind == "Pooling":
            modes = _modes(said)
            facts["prompt_counts"] = bool(said.get("include_prompt", True))
        elif kind == "Dense":
            dense.append(_dense(folder / place, said, files, place))
        elif kind == "Normalize":
            facts["normalised"] = True
        else:
            raise ConfigError(f"modules.json: a step {kind!r} is not supported", got=kind)
    told = read("config_sentence_transformers.json")
    prompts = told.get("prompts") or {}
    facts |= {"prompts": {str(k): str(v) for k, v in prompts.items()}}
    facts["default"] = told.get("default_prompt_name")
    facts["max_length"] = read("sentence_bert_config.json").get("max_seq_length")
    return Pooling(modes or ("mean",), tuple(dense), files=files, **facts)


def _modes(said: Mapping[str, Any]) -> tuple[str, ...]:
    named = said.get("pooling_mode")
    if isinstance(named, str) and named in MODES.values():
        return (named,)
    chosen = {key: value for key, value in said.items() if key.startswith("pooling_mode_")}
    unknown = sorted(key for key, value in chosen.items() if value and key not in MODES)
    if unknown:
        raise ConfigError(f"the pooling {unknown[0]!r} is not supported", got=unknown)
    return tuple(mode for key, mode in MODES.items() if chosen.get(key))


def _dense(folder: Path, said: Mapping[str, Any], files: dict[str, bytes], place: str) -> Dense:
    activation = str(said.get("activation_function", "torch.nn.modules.activation.Tanh"))
    if activation not in _ACTIVATIONS:
        raise ConfigError(f"{place}: the activation {activation!r} is not supported")
    name = choose_weight_file(sorted(p.name for p in folder.iterdir()))
    if name is None:
        raise ConfigError(f"{folder} holds no weights")
    files[f"{place}/{name}"] = (folder / name).read_bytes()
    arrays = {k: np.asarray(v, np.float32) for k, v in load_file(folder / name).items()}
    return Dense(arrays["linear.weight"], arrays.get("linear.bias"), activation)

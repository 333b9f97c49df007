"""LoRA adapters for diffusion models: small files that change some layers of a network.

Hu et al. 2021, "LoRA: low-rank adaptation of large language models". A layer's weight W becomes
W + scale * (alpha / rank) * up @ down. Files name their tensors as diffusers, peft or kohya-ss do;
what an adapter changes is computed once, so pictures take no longer with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core import nn
from ..core.errors import ConfigError, HubError, WeightsError
from ..core.nn import Module
from ..hub.sources import is_repository

Array = np.ndarray[Any, Any]

# What a file calls the two matrices and the factor, behind the name of the layer.
_DOWN = ("lora_down.weight", "lora.down.weight", "lora_linear_layer.down.weight", "lora_A.weight")
_UP = ("lora_up.weight", "lora.up.weight", "lora_linear_layer.up.weight", "lora_B.weight")
_ENDINGS: dict[str, str] = {f".{name}": "down" for name in _DOWN}
_ENDINGS |= {f".{name}": "up" for name in _UP}
_ENDINGS |= {".lora_A.default.weight": "down", ".lora_B.default.weight": "up", ".alpha": "alpha"}
_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_CONFIG = "adapter_config.json"  # of peft
_METADATA = "lora_adapter_metadata"  # of diffusers, in the file's header
# Attention layers of the first files of diffusers: `processor.to_q_lora.down.weight`.
_PROCESSOR = re.compile(r"(.+)\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight")
# How a file says which network a layer is of.
_DOTTED = {
    "unet.": "unet",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "transformer.": "transformer",
    "base_model.model.": "unet",
}
_FLAT = {
    "lora_unet_": "unet",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
}
_OTHER_KINDS = {
    "hada_w": "LoHa",
    "lokr_": "LoKr",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "lora_mid": "LoCon with a core tensor",
    "oft_": "OFT",
}


@dataclass(frozen=True)
class Change:
    """What an adapter does to one layer.

    Attributes:
        down, up: (rank, in, ...) and (out, rank, ...).
        factor: alpha / rank.
    """

    down: Array
    up: Array
    factor: float

    def delta(self, shape: tuple[int, ...]) -> Array:
        """What is added to a weight of this shape, at scale 1.

        Raises:
            WeightsError: it has another shape.
        """
        down, up = (np.asarray(x, np.float32) for x in (self.down, self.up))
        rank = down.shape[0]
        inner, outer = int(np.prod(down.shape[1:])), up.shape[0]
        wanted = (shape[0], int(np.prod(shape[1:])))
        if up.size != outer * rank or (outer, inner) != wanted:
            raise WeightsError(
                f"the adapter's matrices {down.shape} and {up.shape} are for a weight of "
                f"{outer} x {inner}, and the layer has {shape}.\nIt is an adapter for another "
                "model.",
                expected=shape,
                got=(outer, inner),
            )
        product = up.reshape(outer, rank) @ down.reshape(rank, inner)
        return np.asarray(product.reshape(shape) * np.float32(self.factor))


# -- files -----------------------------------------------------------------------------------------


def lora_file(path: str | Path) -> Path:
    """The file of an adapter: itself, in a folder, or in a repository on the hub.

    Raises:
        HubError: there is none, or several.
    """
    here = Path(path).expanduser()
    if here.is_file():
        return here
    names: list[str]
    if here.is_dir():
        names = sorted(p.name for p in here.iterdir())
    elif is_repository(str(path)):
        from ..hub.download import fetch, listing

        commit, files = listing(str(path))
        name = _chosen(str(path), sorted(files))
        wanted = [name, *(n for n in (_CONFIG,) if n in files)]
        return fetch(str(path), wanted, revision=commit).files[name]
    else:
        raise HubError(f"there is no file or folder {str(path)!r} with an adapter", name=str(path))
    return here / _chosen(str(path), names)


def _chosen(where: str, names: list[str]) -> str:
    known = [n for n in _FILES if n in names] or [n for n in names if n.endswith(".safetensors")]
    if len(known) != 1 and not (known and known[0] in _FILES):
        raise HubError(
            f"{where} holds {len(known) or 'no'} files that may be an adapter: give the path of "
            f"one.\nIt has: {', '.join(names[:8])}",
            names=known,
        )
    return known[0]


@dataclass(frozen=True)
class _Factor:
    """How adapters are scaled, where a file says it beside its tensors."""

    alpha: float | None = None
    patterns: Mapping[str, float] | None = None  # by the end of a layer's name
    root: bool = False  # alpha / sqrt(rank)

    def of(self, layer: str, rank: int, own: float | None) -> float:
        alpha = self.alpha if own is None else own
        for pattern, value in (self.patterns or {}).items():
            if own is None and (layer == pattern or layer.endswith(f".{pattern}")):
                alpha = value
        if alpha is None:
            return 1.0
        return float(alpha) / (rank**0.5 if self.root else rank)


def _said(path: Path, metadata: Mapping[str, Any], networks: Iterable[str]) -> dict[str, _Factor]:
    """What the file's header, or peft's adapter_config.json beside it, says of each network."""
    found = {}
    try:
        header = json.loads(metadata.get(_METADATA, "{}"))
        beside = path.parent / _CONFIG
        whole = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
        for network in networks:
            start = f"{network}."
            own = {k.removeprefix(start): v for k, v in header.items() if k.startswith(start)}
            own = own or whole
            if own.get("use_dora"):
                raise WeightsError(f"{path.name} is an adapter of the kind DoRA: LoRA is supported")
            patterns = own.get("alpha_pattern") or {}
            found[network] = _Factor(own.get("lora_alpha"), patterns, bool(own.get("use_rslora")))
    except (AttributeError, ValueError) as error:
        raise WeightsError(f"{path.name}: what it says of itself is no JSON: {error}") from None
    return found


def read_lora(path: str | Path, networks: Mapping[str, Module]) -> dict[str, dict[str, Change]]:
    """The changes in a file: network -> layer -> change.

    Raises:
        WeightsError: tensors that fit no layer, that miss their other half, or hold NaN.
    """
    from ..core.weights import open_weights

    with open_weights(path) as file:
        arrays = {name: file[name] for name in file}
        said = _said(Path(path), file.metadata, networks)
    parts: dict[tuple[str, str], dict[str, Array]] = {}
    layers = {name: _layers(network) for name, network in networks.items()}
    flat = {n: {p.replace(".", "_"): p for p in paths} for n, paths in layers.items()}
    strange = []
    for name, array in arrays.items():
        found = _place(name, layers, flat)
        if found is None:
            strange.append(name)
        else:
            network, layer, role = found
            parts.setdefault((network, layer), {})[role] = array
    if strange or not parts:
        raise WeightsError(_complaint(Path(path), strange, len(arrays)), names=strange)
    changes: dict[str, dict[str, Change]] = {}
    for (network, layer), part in parts.items():
        if "up" not in part or "down" not in part:
            raise WeightsError(f"{path}: {network}.{layer} has only {', '.join(part)} of a pair")
        if not all(np.isfinite(np.asarray(a, np.float32)).all() for a in part.values()):
            raise WeightsError(f"{path}: {network}.{layer} holds NaN or infinity")
        rank = part["down"].shape[0]
        own = float(np.asarray(part["alpha"]).reshape(-1)[0]) if "alpha" in part else None
        factor = said[network].of(layer, rank, own)
        changes.setdefault(network, {})[layer] = Change(part["down"], part["up"], factor)
    return changes


def _layers(network: Module) -> list[str]:
    kinds = nn.Linear | nn.Conv2d
    return [path for path, layer in network.named_modules() if isinstance(layer, kinds)]


def _place(
    name: str, layers: Mapping[str, list[str]], flat: Mapping[str, Mapping[str, str]]
) -> tuple[str, str, str] | None:
    """The network, the layer and the role of a tensor; None if it has none."""
    match = _PROCESSOR.fullmatch(name)
    if match is not None:
        inner = "to_out.0" if match[2] == "to_out" else match[2]
        stem, role = f"{match[1]}.{inner}", match[3]
    else:
        ending = next((end for end in _ENDINGS if name.endswith(end)), None)
        if ending is None:
            return None
        stem, role = name.removesuffix(ending), _ENDINGS[ending]
    for start, network in _FLAT.items():
        if stem.startswith(start) and network in flat:
            rest = stem.removeprefix(start).removeprefix("text_model_")
            layer = flat[network].get(rest)
            return None if layer is None else (network, layer, role)
    network = "unet"
    for start, named in _DOTTED.items():
        if stem.startswith(start):
            network, stem = named, stem.removeprefix(start)
            break
    stem = stem.removeprefix("text_model.")
    for path in (stem, f"{stem}.0"):  # to_out is a list of a layer and a dropout
        if path in layers.get(network, ()):
            return network, path, role
    return None


def _complaint(path: Path, strange: list[str], count: int) -> str:
    for mark, kind in _OTHER_KINDS.items():
        if any(mark in name for name in strange):
            return f"{path.name} is an adapter of the kind {kind}, which is not supported: LoRA is."
    if not strange:
        return f"{path.name} holds no tensors"
    listed = "\n  ".join(strange[:4])
    if len(strange) == count:
        return (
            f"{path.name} is no LoRA adapter, or one for another model: none of its {count} "
            f"tensors belongs to a layer. The first:\n  {listed}"
        )
    return (
        f"{path.name}: {len(strange)} of {count} tensors belong to no layer of this model:\n"
        f"  {listed}\nIt is an adapter for another model."
    )


# -- in effect -------------------------------------------------------------------------------------


@dataclass
class Adapter:
    """A file that is in effect."""

    changes: dict[str, dict[str, Change]]
    strength: float


class Adapters:
    """The adapters of some networks, by name, and the weights as they were without.

    Args:
        networks: by the names that files use: "unet", "text_encoder".
    """

    def __init__(self, networks: Mapping[str, Module]) -> None:
        self.networks = dict(networks)
        self.loaded: dict[str, Adapter] = {}
        self._before: dict[tuple[str, str], Array] = {}

    def load(self, path: str | Path, *, name: str | None = None, scale: float = 1.0) -> str:
        """Put a file into effect; its name.

        Raises:
            ConfigError: the name is taken, or the scale is no number.
            WeightsError: it is no adapter for these networks; nothing is changed then.
        """
        title = Path(path).stem if name is None else name
        path = lora_file(path)
        if title in self.loaded:
            raise ConfigError(
                f"there is an adapter {title!r} already: give this one another name=, or remove "
                f"that one: model.unload_lora({title!r})",
                name=title,
            )
        changes = read_lora(path, self.networks)
        for network, layers in changes.items():
            for layer, change in layers.items():
                try:
                    change.delta(self._weight(network, layer).shape)
                except WeightsError as error:
                    raise WeightsError(
                        f"{Path(path).name}: {network}.{layer}: {error.message}"
                    ) from None
        self.loaded[title] = Adapter(changes, _checked(scale))
        self._apply({(network, layer) for network in changes for layer in changes[network]})
        return title

    def scale(self, scales: Mapping[str, float]) -> None:
        """Change how strong adapters are."""
        for name in scales:
            self._known(name)
        strengths = {name: _checked(value) for name, value in scales.items()}
        for name, value in strengths.items():
            self.loaded[name].strength = value
        self._apply(self._touched(scales))

    def unload(self, names: Iterable[str] = ()) -> None:
        """Remove adapters, or all: what nothing changes any more is as it was, bit for bit."""
        gone = list(names) or list(self.loaded)
        for name in gone:
            self._known(name)
        touched = self._touched(gone)
        for name in gone:
            del self.loaded[name]
        self._apply(touched)

    def merge(self) -> None:
        """Keep the weights as they are now, and forget the adapters."""
        self.loaded.clear()
        self._before.clear()

    def said(self) -> dict[str, float]:
        """Names and scales."""
        return {name: adapter.strength for name, adapter in self.loaded.items()}

    def __repr__(self) -> str:
        return f"Adapters({self.said()})"

    def _known(self, name: str) -> None:
        if name not in self.loaded:
            raise ConfigError(
                f"there is no adapter {name!r}; in effect: {', '.join(self.loaded) or 'none'}",
                name=name,
            )

    def _touched(self, names: Iterable[str]) -> set[tuple[str, str]]:
        return {
            (network, layer)
            for name in names
            for network, layers in self.loaded[name].changes.items()
            for layer in layers
        }

    def _weight(self, network: str, layer: str) -> Any:
        return self.networks[network].get_submodule(layer).weight

    def _apply(self, places: Iterable[tuple[str, str]]) -> None:
        """Compute the weights of some layers anew, of what they were and all adapters."""
        for network, layer in sorted(places):
            weight = self._weight(network, layer)
            before = self._before.setdefault((network, layer), weight.cpu().array)
            total: Array | None = None
            for adapter in self.loaded.values():
                change = adapter.changes.get(network, {}).get(layer)
                if change is not None:
                    delta = change.delta(before.shape) * np.float32(adapter.strength)
                    total = delta if total is None else total + delta
            if total is None:
                del self._before[network, layer]
                value = before
            else:
                value = (before.astype(np.float32) + total).astype(before.dtype)
            module = self.networks[network].get_submodule(layer)
            module.load_state_dict({"weight": value}, strict=False, assign=True)


def _checked(scale: Any) -> float:
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not abs(scale) <= 100:
        raise ConfigError(f"scale={scale!r}: a number from -100 to 100 is wanted", got=scale)
    return float(scale)

"""Low-rank adapters: small trained matrices beside linear layers that stay as they are.

    adapters = nn.add_lora(module, nn.LoRA(rank=8))     # all else is frozen
    ...                                                 # train
    nn.merge_lora(module)                               # into the weights, or
    nn.remove_lora(module)                              # back to what it was

Source: Hu et al. 2021, "LoRA: low-rank adaptation of large language models"; the names and the
scaling are those of the library peft, whose files hub/adapters.py reads and writes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..tensor import Tensor
from . import functional as F
from . import init
from .linear import Linear
from .module import Module, rebind
from .quantized import QuantizedLinear

ALL = "all-linear"


@dataclass(frozen=True)
class LoRA:
    """How a module is adapted.

    Args:
        rank: of the product that is added to a weight.
        alpha: what is added is multiplied by alpha / rank; twice the rank unless given.
        dropout: of what the adapters see while they are trained.
        targets: layers that get one: names that their paths end with, such as ("q_proj", "v_proj"),
            a regular expression for whole paths, or "all-linear" for every linear layer but those
            of `heads` and `excluded`.
        heads: modules that are trained whole beside the adapters, such as a new classifier.
        excluded: modules that get none, such as the map to the vocabulary.
        root: divide alpha by the root of the rank instead (Kalajdzievski 2023).
    """

    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] | str = ALL
    heads: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    root: bool = False

    def __post_init__(self) -> None:
        if type(self.rank) is not int or self.rank < 1:
            raise ConfigError(f"rank={self.rank!r} of LoRA is a whole number from 1 on")
        if self.alpha is not None and not 0 < self.alpha < math.inf:
            raise ConfigError(f"alpha={self.alpha!r} of LoRA is a number above 0")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout!r} of LoRA is from 0 to below 1")
        if not self.targets:
            raise ConfigError("targets= of LoRA are names of layers, or 'all-linear'")

    @property
    def scale(self) -> float:
        """What the product is multiplied by."""
        alpha = 2.0 * self.rank if self.alpha is None else self.alpha
        return alpha / (math.sqrt(self.rank) if self.root else self.rank)

    def wants(self, path: str) -> bool:
        """Whether the layer of this path gets an adapter."""
        without = self.heads if self.targets != ALL else (*self.heads, *self.excluded)
        if any(path == name or path.startswith(f"{name}.") for name in without):
            return False
        if self.targets == ALL:
            return True
        if isinstance(self.targets, str):
            return re.fullmatch(self.targets, path) is not None
        return any(path == name or path.endswith(f".{name}") for name in self.targets)


class LoRALinear(Module):
    """A linear layer with an adapter: `layer(x) + scale * B(A(dropout(x)))`.

    Attributes:
        base_layer: the layer as it was, also one whose weights have few bits.
        lora_A, lora_B: from its inputs to the rank, and from there to its outputs. B begins at
            zero, so that nothing changes until something is learnt.

    Shape: as the layer's.
    """

    def __init__(self, layer: Linear | QuantizedLinear, how: LoRA) -> None:
        self.base_layer = layer
        self.scale, self.dropout = how.scale, how.dropout
        like = {"device": layer.weight.device}
        self.lora_A = Linear(layer.in_features, how.rank, bias=False, **like)
        self.lora_B = Linear(how.rank, layer.out_features, bias=False, **like)
        # Uniform between plus and minus 1 / sqrt(inputs), as peft has it.
        init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        init.zeros_(self.lora_B.weight)

    @property
    def in_features(self) -> int:
        """Of the layer."""
        return self.base_layer.in_features

    @property
    def out_features(self) -> int:
        """Of the layer."""
        return self.base_layer.out_features

    def forward(self, input: Tensor) -> Tensor:
        y: Tensor = self.base_layer(input)
        x = F.dropout(input, self.dropout, training=self.training) if self.dropout else input
        out: Tensor = y + self.lora_B(self.lora_A(x)) * self.scale
        return out

    def merged(self) -> Linear:
        """The layer with the adapter in its weight.

        Raises:
            ConfigError: its weights have few bits, which could not hold the sum.
        """
        layer = self.base_layer
        if not isinstance(layer, Linear):
            raise ConfigError(
                f"weights of {layer.form} cannot take an adapter in.\n"
                "Load the model in float32, load the adapter, and merge that."
            )
        weight = layer.weight
        added = self.lora_B.weight.cpu().array @ self.lora_A.weight.cpu().array
        total = weight.cpu().array.astype(np.float32) + self.scale * added.astype(np.float32)
        rebind(weight, Tensor(total.astype(weight.dtype)).to(weight.device).array)
        return layer

    def extra_repr(self) -> str:
        return f"rank={self.lora_A.out_features}, scale={self.scale:g}"


def add_lora(module: Module, how: LoRA | None = None) -> list[str]:
    """Put adapters on linear layers of a module and freeze the rest; returns the layers' paths.

    Raises:
        ConfigError: it has adapters already, or no layer of the targets' names.
    """
    how = how or LoRA()
    if next(adapters(module), None) is not None:
        raise ConfigError(
            "the module has adapters already: nn.merge_lora(module) or nn.remove_lora(module) first"
        )
    parts = {path: part for path, part in module.named_modules() if path}
    chosen = {
        path: part
        for path, part in parts.items()
        if isinstance(part, Linear | QuantizedLinear) and how.wants(path)
    }
    if not chosen:
        linear = [path for path, part in parts.items() if hasattr(part, "in_features")]
        some = sorted({path.rpartition(".")[2] for path in linear})
        raise ConfigError(
            f"no linear layer is called {how.targets!r}.\nThe module has: {', '.join(some[:12])}",
            targets=how.targets,
        )
    module.requires_grad_(False)
    for path, layer in chosen.items():
        _set(module, path, LoRALinear(layer, how).train(module.training))
    for head in how.heads:
        module.get_submodule(head).requires_grad_(True)
    return list(chosen)


def merge_lora(module: Module) -> Module:
    """Add every adapter to the weight it stands beside, and take it away; returns the module.

    Raises:
        ConfigError: weights of few bits are adapted.
    """
    return _without(module, LoRALinear.merged)


def remove_lora(module: Module) -> Module:
    """Take every adapter away: the layers are what they were; returns the module."""
    return _without(module, lambda adapted: adapted.base_layer)


def _without(module: Module, kept: Callable[[LoRALinear], Module]) -> Module:
    # All of them first: where one cannot be merged, none is.
    layers = {path: kept(layer) for path, layer in list(adapters(module))}
    for path, layer in layers.items():
        _set(module, path, layer)
    module.requires_grad_(True)
    return module


def adapters(module: Module) -> Iterator[tuple[str, LoRALinear]]:
    """The adapted layers of a module by path."""
    for path, layer in module.named_modules():
        if isinstance(layer, LoRALinear):
            yield path, layer


def _set(module: Module, path: str, layer: Module) -> None:
    """Put a layer where another is, in a module, a list or a dict."""
    *way, last = path.split(".")
    holder: Any = module
    for name in way:
        holder = _inside(holder, name)
    if isinstance(holder, list):
        holder[int(last)] = layer
    elif isinstance(holder, dict):
        holder[last] = layer
    else:
        setattr(holder, last, layer)


def _inside(holder: Any, name: str) -> Any:
    if isinstance(holder, list):
        return holder[int(name)]
    return holder[name] if isinstance(holder, dict) else getattr(holder, name)

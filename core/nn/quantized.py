"""Layers whose weights have few bits, and how other layers become such layers.

    nn.quantize_(model, "int8")       # or "int4", "bfloat16", or a format of core/quantization.py

The weights stay as bytes in memory and are widened by blocks while they are multiplied; sums,
activations and everything else stay in float32. They are not trained: gradients flow through them
to the input, so that parameters before them and beside them can be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from ..devices import move
from ..dtypes import float32, uint8
from ..errors import ConfigError
from ..ops.quantized import quantized_embedding, quantized_linear
from ..ops.shape import astype
from ..quantization import PACKED, as_format, pack, unpack
from ..tensor import Tensor
from .embedding import Embedding
from .linear import Linear
from .module import Module, rebind
from .parameter import Buffer, Parameter

# Smaller ones stay as they are: there is nothing to gain, and tables of positions are read whole.
SMALL_TABLE = 10_000  # entries
SMALL_LAYER = 32  # outputs
_TABLES = {"q4_0": "int8", "q4_1": "int8"}  # formats of tables of vectors and of heads


class _Quantized(Module):
    """What layers with such weights share: `weight`, a buffer of bytes, and the format."""

    weight: Buffer
    form: str
    rows: int
    columns: int

    def _hold(self, rows: int, columns: int, form: str, device: Any) -> None:
        layout = as_format(form)
        if rows < 1 or columns < 1:
            raise ConfigError(f"{type(self).__name__}({rows}, {columns}): sizes begin at 1")
        self.form, self.rows, self.columns = layout.name, rows, columns
        self.weight = Buffer(Tensor(np.empty((rows, layout.stored(columns)), uint8)).to(device))

    def numbers(self) -> Any:
        """The weight in float32, as an array of its own. Shape: (rows, columns)."""
        raw = self.weight.cpu().array
        out = np.empty((self.rows, self.columns), float32)
        step = max(1, (1 << 20) // self.columns)
        for at in range(0, self.rows, step):
            out[at : at + step] = unpack(np, raw[at : at + step], self.form, self.columns)
        return out

    @property
    def nbytes(self) -> int:
        """Bytes that the weight takes."""
        return int(self.weight.nbytes)


class QuantizedLinear(_Quantized):
    """A linear layer with a weight of few bits; see `Linear`. `of` makes it of one.

    Args:
        in_features, out_features: sizes of the last axis before and after.
        bias: whether to add one; it stays a parameter.
        form: how the weight is stored: "int8", "int4", "bfloat16", "q8_0", ...

    Attributes:
        weight: a buffer of bytes, (out_features, bytes of a row). It is no parameter.

    Shape: (..., in_features) gives (..., out_features).
    Raises:
        ConfigError: no such format.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        form: str = "int8",
        device: Any = "cpu",
    ) -> None:
        self.in_features, self.out_features = in_features, out_features
        self._hold(out_features, in_features, form, device)
        self.bias: Parameter | None = None
        if bias:
            self.bias = Parameter(Tensor(np.zeros(out_features, float32)).to(device))

    @classmethod
    def of(cls, layer: Linear, form: str) -> Self:
        """A layer with the weight of another, rounded; its bias is shared."""
        made = cls(layer.in_features, layer.out_features, bias=False, form=form)
        rebind(made.weight, _packed(layer.weight, made.form))
        made.bias = layer.bias
        return made

    def forward(self, input: Tensor) -> Tensor:
        return quantized_linear(input, self.weight, self.bias, form=self.form)

    def extra_repr(self) -> str:
        return f"{self.columns}, {self.rows}, bias={self.bias is not None}, {self.form}"


class QuantizedEmbedding(_Quantized):
    """A table of vectors of few bits; see `Embedding`. `of` makes it of one.

    Args:
        num_embeddings, embedding_dim: entries, and the length of their vectors.
        form: how the vectors are stored.

    Shape: ids of any shape, whole numbers, give (*shape, embedding_dim).
    Raises:
        IndexRangeError: an id outside the table.
        ConfigError: no such format.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, *, form: str = "int8", device: Any = "cpu"
    ) -> None:
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self._hold(num_embeddings, embedding_dim, form, device)
        # Nothing but a dtype, which `to(dtype=...)` changes: that of the vectors.
        self.like = Buffer(Tensor(np.empty(0, float32)).to(device), persistent=False)

    @classmethod
    def of(cls, table: Embedding, form: str) -> Self:
        """A table with the vectors of another, rounded."""
        made = cls(table.num_embeddings, table.embedding_dim, form=form)
        rebind(made.weight, _packed(table.weight, made.form))
        return made

    def forward(self, input: Tensor) -> Tensor:
        found = quantized_embedding(input, self.weight, form=self.form, features=self.columns)
        return found if self.like.dtype == float32 else astype(found, dtype=self.like.dtype)

    def extra_repr(self) -> str:
        return f"{self.rows}, {self.columns}, {self.form}"


def _packed(weight: Tensor, form: str) -> Any:
    """The rows of a weight as bytes, where the weight is."""
    return move(pack(weight.detach().cpu().array, form), weight.device)


# -- whole models --------------------------------------------------------------------------------


def quantize_(module: Module, form: str) -> Module:
    """Store the weights of linear layers and of large tables in few bits, in place.

    What is left as it is: layers of fewer than 32 outputs (heads), tables of fewer than 10,000
    entries (positions), convolutions, norms, biases. With "int4", tables of vectors and the heads
    that score their entries have 8 bits, which costs little memory and keeps most of the quality.
    What remains of the parameters no longer requires gradients.

    Args:
        form: "int8" (a scale for each row), "int4" (`q4_1`: a scale and a least number for each
            32 numbers of a row), "bfloat16", "float16", "q8_0", "q4_0" or "q4_1".

    Returns:
        The module.
    Raises:
        ConfigError: no such format; a module that is itself a linear layer or a table; or one
            with nothing to quantise.
    """
    plan = plan_of(module, form)
    if not plan:
        already = f"{len(forms_of(module))} of its layers are quantised already, and " * bool(
            forms_of(module)
        )
        raise ConfigError(
            f"{type(module).__name__}: nothing to quantise: {already}it has no other linear layer "
            f"with {SMALL_LAYER} outputs or more, and no table with {SMALL_TABLE:,} entries or "
            "more."
        )
    replace_layers(module, plan, filled=True)
    module.requires_grad_(False)
    return module


def plan_of(module: Module, form: str) -> dict[str, str]:
    """The layers that `quantize_` would change, by name, and the format that each would get.

    Raises:
        ConfigError: no such format, one that is only read, or a bare layer.
    """
    layout = as_format(form)
    if layout.name not in PACKED:
        raise ConfigError(
            f"weights are not written as {layout.name}, only read.\n"
            f"To choose from: int4, {', '.join(PACKED)}.",
            got=form,
        )
    if type(module) in _KINDS:
        name = type(module).__name__
        raise ConfigError(
            f"quantize_ changes the layers of a module in place, and cannot change a bare {name}."
            f"\nnn.Quantized{name}.of(layer, {form!r}) makes a new one."
        )
    found = layers_of(module)
    tables = [part for part in found.values() if isinstance(part, Embedding)]
    entries = {table.num_embeddings for table in tables}
    wide = _TABLES.get(layout.name, layout.name)
    return {
        name: wide if part.weight.shape[0] in entries else layout.name
        for name, part in found.items()
    }


def layers_of(module: Module) -> dict[str, Any]:
    """The linear layers and tables whose weights may have few bits, by name: see `quantize_`."""
    found = {name: part for name, part in module.named_modules() if type(part) in _KINDS}
    small = {
        id(part.weight)
        for part in found.values()
        if type(part) is Embedding and part.num_embeddings < SMALL_TABLE
    }
    return {
        name: part
        for name, part in found.items()
        if part.weight.shape[0] >= SMALL_LAYER and part.weight.size and id(part.weight) not in small
    }


def count(module: Module) -> int:
    """The numbers that a module consists of: its parameters, and its weights of few bits."""
    layers = (part for part in module.modules() if isinstance(part, _Quantized))
    weights = {id(layer.weight): layer.rows * layer.columns for layer in layers}
    return sum(weights.values()) + sum(parameter.size for parameter in module.parameters())


def packed_bytes(module: Module) -> int:
    """Bytes that the weights of few bits take, each counted once."""
    layers = (part for part in module.modules() if isinstance(part, _Quantized))
    return sum({id(layer.weight): layer.nbytes for layer in layers}.values())


def forms_of(module: Module) -> dict[str, str]:
    """The quantised layers of a module, by name, and the format of each."""
    return {n: part.form for n, part in module.named_modules() if isinstance(part, _Quantized)}


def check_trainable(module: Module, what: str) -> None:
    """Refuse to train a module whose weights have few bits.

    Args:
        what: for the message, what cannot be done: "fine-tuning".

    Raises:
        ConfigError: says how to load the model so that it can be trained.
    """
    found = sorted(set(forms_of(module).values()))
    if found:
        raise ConfigError(
            f"{what}: the weights of this model are stored in few bits ({', '.join(found)}), and "
            "such weights cannot be trained.\n"
            'Load it wide: bt.load(name, dtype="float32")',
            got=found,
        )


def replace_layers(module: Module, plan: Mapping[str, str], *, filled: bool) -> None:
    """Put quantised layers in the place of others, everywhere that they stand.

    Args:
        plan: names of linear layers and tables, and the format of each. Layers that share the
            weight of one in it are replaced too, and go on sharing.
        filled: their weights are those of the old layers; else they are uninitialised memory.
    """
    parts = dict(module.named_modules())
    forms = {id(parts[name].weight): form for name, form in plan.items()}
    holders = [part for part in parts.values() if type(part) not in _KINDS]
    del parts  # so that each old weight goes when its layer does
    shared: dict[int, Buffer] = {}
    made: dict[int, _Quantized] = {}

    def new_of(old: Any) -> _Quantized:
        if id(old) not in made:
            key = id(old.weight)
            made[id(old)] = new = _like(old, forms[key], filled and key not in shared)
            new.weight = shared.setdefault(key, new.weight)
        return made[id(old)]

    def visit(holder: Any) -> None:
        inside = vars(holder) if isinstance(holder, Module) else holder
        for name, value in list(inside.items() if isinstance(inside, dict) else enumerate(inside)):
            if type(value) in _KINDS and id(value.weight) in forms:
                if isinstance(holder, Module):
                    setattr(holder, name, new_of(value))
                else:
                    holder[name] = new_of(value)
            elif isinstance(value, (list, dict)):
                visit(value)

    for holder in holders:
        visit(holder)


def _like(old: Any, form: str, filled: bool) -> _Quantized:
    """A quantised layer in the place of another, with its values or uninitialised."""
    new: _Quantized
    if type(old) is Linear:
        if filled:
            new = QuantizedLinear.of(old, form)
        else:
            new = QuantizedLinear(old.in_features, old.out_features, bias=False, form=form)
            new.bias = old.bias
    elif filled:
        new = QuantizedEmbedding.of(old, form)
    else:
        new = QuantizedEmbedding(old.num_embeddings, old.embedding_dim, form=form)
    if old.training != new.training:
        new.training = old.training
    return new


_KINDS = (Linear, Embedding)

"""Runs the network of an ONNX file by operations of this library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BestiaryError, ConfigError, ShapeError
from ..nn import Buffer, Module
from ..ops.shape import astype
from ..state import inference_mode
from ..tensor import Tensor
from .reading import File, Network, Node, read_onnx
from .running import OPERATORS
from .schema import DTYPES

_MOST = 1 << 31  # elements of an array whose shape is computed in a file


class Call:
    """One node as an operator sees it."""

    def __init__(self, runner: OnnxNetwork, node: Node, scope: dict[str, Any]) -> None:
        self.kind, self.outputs = node.kind, len(node.outputs)
        self.opset = runner.file.opset
        self._node, self._runner, self._scope = node, runner, scope

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self._node.attributes.get(name, default)

    def inner(self, network: Network, inputs: Sequence[Any]) -> list[Any]:
        """Run a graph within, which sees the values around it."""
        return self._runner.run(network, inputs, self._scope)

    def dtype_of(self, code: int) -> Any:
        """The dtype of a number of the format."""
        if code not in DTYPES:
            raise self.refused(f"elements of kind {code}")
        return DTYPES[code]

    def cast(self, x: Tensor, code: int) -> Tensor:
        """In another dtype."""
        dtype = self.dtype_of(code)
        if x.array.dtype == object:
            raise self.refused("text")
        return astype(x, dtype=dtype)

    def empty(self, x: Tensor, options: Any, kind: str) -> Tensor:
        """The extreme of nothing."""
        low = kind == "ReduceMax"
        if x.dtype.kind == "f":
            value: Any = -np.inf if low else np.inf
        elif x.dtype.kind == "b":
            value = not low
        else:
            value = np.iinfo(x.dtype).min if low else np.iinfo(x.dtype).max
        shape = np.sum(x.array, **options).shape
        return Tensor(np.full(shape, value, x.dtype))

    def check_size(self, shape: Sequence[int], dtype: Any) -> None:
        """Refuse an array that nobody can have meant."""
        if any(n < 0 for n in shape) or math.prod(shape) > _MOST:
            raise ShapeError(f"{self._where()}: an array of shape {tuple(shape)} is asked for")

    def refused(self, what: str) -> ConfigError:
        """An error that says what is not supported, and where."""
        return ConfigError(f"{self._where()}: {what} is not supported here")

    def _where(self) -> str:
        return f"the node {self._node.name or '?'} ({self._node.kind}) of an ONNX file"


class OnnxNetwork(Module):
    """The network of an ONNX file: `bt.load("m.onnx")`.

    Attributes:
        inputs, outputs: their names.
        file: what was read.
    """

    def __init__(self, file: File) -> None:
        self.file = file
        net = file.network
        unknown = sorted({n.kind for n in _nodes(net) if not self._known(n)})
        if unknown:
            raise ConfigError(
                f"the ONNX file uses operators that are not supported: {', '.join(unknown[:12])}",
                got=unknown,
            )
        self.inputs = [v.name for v in net.inputs if v.name not in net.arrays]
        self.outputs = [v.name for v in net.outputs]
        self.weights = {k: Buffer(Tensor(a)) for k, a in net.arrays.items() if a.dtype != object}

    def _known(self, node: Node) -> bool:
        return (node.domain == "" and node.kind in OPERATORS) or (
            (node.domain, node.kind) in self.file.functions
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Inputs in their order, or by name; one tensor, or a dict of several.

        Raises:
            ShapeError: an input is missing, or is none of the network's.
        """
        given = dict(zip(self.inputs, args, strict=False)) | kwargs
        wrong = set(given) ^ set(self.inputs)
        if wrong or len(args) > len(self.inputs):
            raise ShapeError(
                f"the ONNX network takes {', '.join(self.inputs)}; got {', '.join(given)}"
            )
        values = [
            x if isinstance(x, Tensor | list) or x is None else Tensor(np.asarray(x))
            for x in (given[name] for name in self.inputs)
        ]
        found = self.run(self.file.network, values, {}, self.inputs)
        return found[0] if len(found) == 1 else dict(zip(self.outputs, found, strict=True))

    def run(
        self,
        network: Network,
        inputs: Sequence[Any],
        outer: Mapping[str, Any],
        names: Sequence[str] | None = None,
    ) -> list[Any]:
        """The outputs of a graph."""
        if network is self.file.network:
            scope: dict[str, Any] = dict(self.weights)
        else:
            scope = {**outer, **{k: Tensor(a) for k, a in network.arrays.items()}}
        names = [v.name for v in network.inputs] if names is None else names
        scope.update(zip(names, inputs, strict=False))
        for node in network.nodes:
            self._node(node, scope)
        return [self._value(v.name, scope) for v in network.outputs]

    def _value(self, name: str, scope: Mapping[str, Any]) -> Any:
        if not name:
            return None
        if name not in scope:
            raise ConfigError(f"the ONNX file uses a value {name!r} that nothing makes")
        return scope[name]

    def _node(self, node: Node, scope: dict[str, Any]) -> None:
        inputs = [self._value(name, scope) for name in node.inputs]
        function = self.file.functions.get((node.domain, node.kind))
        if function is not None and not (node.domain == "" and node.kind in OPERATORS):
            found: Any = self._function(function, node, inputs)
        else:
            call = Call(self, node, scope)
            try:
                found = OPERATORS[node.kind](call, *inputs)
            except BestiaryError:
                raise
            except (TypeError, AttributeError, LookupError, ValueError, ArithmeticError) as error:
                raise ConfigError(
                    f"{call._where()} has inputs or attributes that make no sense: {error}"
                ) from error
        found = found if isinstance(found, tuple) else (found,)
        for name, x in zip(node.outputs, found, strict=False):
            if name:
                scope[name] = x

    def _function(self, function: Mapping[str, Any], node: Node, inputs: Sequence[Any]) -> Any:
        given = {**function["defaults"], **node.attributes}
        scope = dict(zip(function["inputs"], inputs, strict=False))
        scope |= dict.fromkeys(function["inputs"][len(inputs) :])
        for inner in function["nodes"]:
            known = {}
            for key, value in inner.attributes.items():
                if isinstance(value, tuple) and value[:1] == ("$",):
                    if value[1] in given:
                        known[key] = given[value[1]]
                else:
                    known[key] = value
            copied = Node(inner.kind, inner.domain, inner.name, inner.inputs, inner.outputs, known)
            self._node(copied, scope)
        return tuple(scope.get(name) for name in function["outputs"])


def _nodes(network: Network) -> list[Node]:
    found = []
    for node in network.nodes:
        found.append(node)
        for value in node.attributes.values():
            if isinstance(value, Network):
                found += _nodes(value)
    return found


def load_onnx(path: str | Path | bytes) -> OnnxNetwork:
    """The network of a file, ready to be called.

    Raises:
        WeightsError: the file is damaged.
        ConfigError: it uses operators that are not supported; they are named.
    """
    network = OnnxNetwork(read_onnx(path))
    network.eval()
    return network


def run_onnx(path: str | Path | bytes, **inputs: Any) -> Any:
    """Read a file and run it once."""
    with inference_mode():
        return load_onnx(path)(**inputs)

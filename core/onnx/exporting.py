"""A network as an ONNX file: recorded at several lengths, merged, written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..dtypes import HALVES
from ..errors import ConfigError
from ..nn import Module
from ..tensor import Tensor
from . import messages
from .builder import Builder
from .emitting import emit
from .sizes import Corners, Size
from .tracing import traced

_INSIDE = 1_900_000_000  # bytes of weights that a file of protocol buffers can hold


@dataclass(frozen=True)
class Input:
    """An input of a network.

    Args:
        make: an array for (shape, random generator): values that it may be given.
        shape: names stand for open axes.
    """

    shape: tuple[int | str, ...]
    make: Callable[[tuple[int, ...], Any], Any]


@dataclass(frozen=True)
class Written:
    """What was written."""

    files: tuple[Path, ...]
    inputs: dict[str, tuple[int | str, ...]]
    outputs: dict[str, tuple[int | str, ...]]
    nodes: dict[str, int]
    bytes: int


def write_onnx(
    function: Callable[..., Any],
    path: str | Path,
    *,
    inputs: Mapping[str, Input],
    outputs: Sequence[str],
    module: Module | None = None,
    lengths: Mapping[str, tuple[int, int, int]],
    metadata: Mapping[str, str] | None = None,
) -> Written:
    """Record `function(*inputs)`, and write it.

    Args:
        function: takes tensors in the order of `inputs`, returns a tensor or a tuple of them.
        outputs: their names.
        module: whose weights and parts are named in the file.
        lengths: three lengths of each open axis to record at; the last only to check.
        metadata: text that goes into the file.

    Raises:
        ConfigError: it has no form in ONNX, or depends on values or lengths.
    """
    path = Path(path)
    _check_weights(module)
    axes = [n for x in inputs.values() for n in x.shape if isinstance(n, str)]
    open_axes = list(dict.fromkeys(axes))
    low, high, check = (tuple(lengths[a][i] for a in open_axes) for i in range(3))
    corners = Corners(low, high, check)

    def samples(at: tuple[int, ...], number: int) -> list[Tensor]:
        known = dict(zip(open_axes, at, strict=True))
        rng = np.random.default_rng(number)
        made = [
            x.make(tuple(known[n] if isinstance(n, str) else n for n in x.shape), rng)
            for x in inputs.values()
        ]
        return [Tensor(np.ascontiguousarray(a)) for a in made]

    def run(*tensors: Tensor) -> Any:
        found = function(*tensors)
        return tuple(found) if isinstance(found, list | tuple) else found

    trace = traced(module, run, samples, corners)
    if len(trace.graph.outputs) != len(outputs):
        raise ConfigError(
            f"export: the network gives {len(trace.graph.outputs)} tensors, and "
            f"{len(outputs)} names of outputs were given"
        )
    where = [
        next((name, x.shape.index(a)) for name, x in inputs.items() if a in x.shape)
        for a in open_axes
    ]
    names = _weight_names(module, trace.graph.tensors, set(inputs) | set(outputs))
    b = Builder(trace, names, where)
    for ref, name in zip(trace.graph.inputs, inputs, strict=True):
        b.bind(ref, name)
    for i, call in enumerate(trace.calls):
        b.path = trace.places.get(i, "")
        emit(b, call)
    b.path = ""
    given = {}
    nodes = b.nodes
    for name, ref in zip(outputs, trace.graph.outputs, strict=True):
        nodes.append(messages.node("Identity", [b.name(ref)], [name], {}))
        given[name] = tuple(_named(n, open_axes) for n in b.shape(ref))
    stated_in = [
        messages.value_info(name, b.dtype(ref), x.shape)
        for (name, x), ref in zip(inputs.items(), trace.graph.inputs, strict=True)
    ]
    stated_out = [
        messages.value_info(name, b.dtype(ref), given[name])
        for name, ref in zip(outputs, trace.graph.outputs, strict=True)
    ]
    files, size = _write(path, b, nodes, stated_in, stated_out, metadata or {})
    return Written(files, {k: x.shape for k, x in inputs.items()}, given, b.kinds, size)


def _named(n: int | Size, axes: Sequence[str]) -> int | str:
    if not isinstance(n, Size):
        return n
    parts = [
        "*".join([*([str(f)] if f != 1 or not a else []), *(axes[i] for i in a)])
        for a, f in n.terms
    ]
    return " + ".join(parts)


def _check_weights(module: Module | None) -> None:
    if module is None:
        return
    if module.training and any(m.training for m in module.modules()):
        raise ConfigError(
            "export: the network is in training mode, where dropout and batch norm do other "
            "things than in use.\nCall model.eval() first."
        )
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.dtype in HALVES:
            raise ConfigError(
                f"export: {name} is {tensor.dtype}; files are written in float32.\n"
                "Load it with dtype='float32', or module.to(dtype=bt.float32).",
                got=str(tensor.dtype),
            )
        if type(tensor.array) is not np.ndarray:
            raise ConfigError('export: the network is on a GPU.\nMove it: module.to("cpu")')


def _weight_names(
    module: Module | None, tensors: Mapping[int, Tensor], taken: set[str]
) -> dict[int, str]:
    if module is None:
        return {}
    known: dict[int, str] = {}
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        known.setdefault(id(tensor.array), name)
    found = {i: known[id(t.array)] for i, t in tensors.items() if id(t.array) in known}
    return {i: f"{name}_" if name in taken else name for i, name in found.items()}


def _write(
    path: Path, b: Builder, nodes: Any, inputs: Any, outputs: Any, metadata: Mapping[str, str]
) -> tuple[tuple[Path, ...], int]:
    from ... import __version__

    size = sum(a.nbytes for a in b.weights.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".data")
    if size <= _INSIDE:
        weights = [messages.tensor(name, a) for name, a in b.weights.items()]
        files: tuple[Path, ...] = (path,)
    else:
        weights, place = [], 0
        with _replaced(beside) as out:
            for name, a in b.weights.items():
                place += out.write(bytes(-place % 64))
                weights.append(messages.tensor(name, a, (beside.name, place)))
                place += out.write(messages.little_endian(a))
        files = (path, beside)
    graph = messages.graph(path.stem, nodes, weights, inputs, outputs)
    whole = messages.model(graph, producer="bestiary", version=__version__, metadata=metadata)
    with _replaced(path) as out:
        out.write(whole)
    return files, sum(f.stat().st_size for f in files)


class _replaced:
    """A file that is there whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(f".{path.name}.{os.getpid()}.part")

    def __enter__(self) -> Any:
        self._file = self._part.open("wb")
        return self._file

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._file.close()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)

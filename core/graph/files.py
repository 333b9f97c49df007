"""Graphs as files: what a graph is, and the arrays that it reads, in one safetensors file.

The format is described in docs/compiling.md. Reading runs nothing: a file names operations that
are registered here, and everything else in it is numbers, strings and arrays.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..dtypes import as_dtype
from ..errors import WeightsError
from ..op import REGISTRY
from ..tensor import Tensor
from ..weights.safetensors import SafetensorsFile, save_file
from .aliases import changing, written_operands
from .record import Call, Graph, Ref

VERSION = 1
_MOST_VALUES = 1 << 22


def save_graph(
    graph: Graph, path: str | Path, *, names: Mapping[str, Tensor] | None = None
) -> Path:
    """Write a graph and the arrays that it reads; returns the path.

    Args:
        names: names of parameters, such as `dict(module.named_parameters())`; other arrays are
            called by their numbers.

    Raises:
        WeightsError: a constant of it cannot be written, an array is not on the CPU, or it writes
            memory that its arrays share.
    """
    if changing(graph) - written_operands(graph):
        raise WeightsError(
            "save_graph: the graph writes memory that several of its arrays share, as training\n"
            "steps with an optimizer do; a file cannot say so. Record the forward pass alone."
        )
    called = {id(tensor.array): name for name, tensor in (names or {}).items()}
    arrays: dict[str, Any] = {}
    external: dict[str, int] = {}
    used = {x.index for call in graph.calls for x in call.operands if isinstance(x, Ref)}
    used |= {ref.index for ref in graph.outputs}
    for index, array in sorted(graph.external.items()):
        if index not in used:
            continue
        if not isinstance(array, np.ndarray):
            raise WeightsError("save_graph: a graph of a GPU is not written; record it on the CPU")
        name = called.get(id(array), f"value.{index}")
        arrays[name], external[name] = array, index
    described = {
        "version": VERSION,
        "inputs": [ref.index for ref in graph.inputs],
        "outputs": [ref.index for ref in graph.outputs],
        "values": [[list(shape), str(dtype)] for shape, dtype in graph.kinds],
        "external": external,
        "trains": graph.trains,
        "calls": [
            {
                "op": call.op.name,
                "operands": [_written(x) for x in call.operands],
                "constants": {k: _written(v) for k, v in call.constants.items()},
                "results": [None if r is None else r.index for r in call.results],
            }
            for call in graph.calls
        ],
    }
    path = Path(path)
    save_file(arrays, path, metadata={"bestiary.graph": json.dumps(described, allow_nan=False)})
    return path


def load_graph(path: str | Path) -> Graph:
    """Read a graph that `save_graph` wrote.

    Raises:
        WeightsError: it is no such file, of a later version, or does not hold together.
    """
    from . import fused  # noqa: F401  the operations that passes make

    with SafetensorsFile(path) as file:
        text = file.metadata.get("bestiary.graph")
        if text is None:
            raise _broken(path, "it holds weights, and no graph")
        return _parsed(path, text, file)


def _parsed(path: str | Path, text: str, file: SafetensorsFile) -> Graph:
    try:
        found = json.loads(text)
        if found["version"] != VERSION:
            raise _broken(path, f"it is of version {found['version']}, this reads {VERSION}")
        return _read(found, file)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        if isinstance(error, WeightsError):
            raise
        raise _broken(path, f"its description does not hold together ({error!r})") from None


def _read(found: dict[str, Any], file: SafetensorsFile) -> Graph:
    kinds = [(tuple(int(n) for n in shape), as_dtype(dtype)) for shape, dtype in found["values"]]
    if len(kinds) > _MOST_VALUES:
        raise ValueError("too many values")
    made: set[int] = set()

    def ref(index: Any) -> Ref:
        if type(index) is not int or not 0 <= index < len(kinds):
            raise ValueError(f"there is no value {index!r}")
        return Ref(index)

    def operand(x: Any) -> Any:
        value = _value(x, ref)
        if isinstance(value, Ref) and value.index not in made:
            raise ValueError(f"{value} is used before it is made")
        return value

    graph = Graph(kinds=kinds, trains=bool(found["trains"]))
    graph.inputs = [ref(i) for i in found["inputs"]]
    made.update(r.index for r in graph.inputs)
    for name, index in found["external"].items():
        array = np.array(file[name])
        if (array.shape, array.dtype) != kinds[ref(index).index]:
            raise ValueError(f"{name} is {array.dtype}{array.shape}, not {kinds[index]}")
        graph.external[index] = array
        made.add(index)
    for each in found["calls"]:
        op = REGISTRY.get(each["op"])
        if op is None:
            raise ValueError(f"there is no operation {each['op']!r}")
        constants = {str(k): _value(v, ref) for k, v in each["constants"].items()}
        unknown = constants.keys() - op.constant_names
        if unknown:
            raise ValueError(f"{op.name} has no {', '.join(sorted(unknown))}")
        operands = tuple(operand(x) for x in each["operands"])
        results = tuple(None if i is None else ref(i) for i in each["results"])
        for result in results:
            if result is not None:
                if result.index in made:
                    raise ValueError(f"{result} is made twice")
                made.add(result.index)
        graph.calls.append(Call(op, operands, constants, results))
    graph.outputs = [operand({"value": i}) for i in found["outputs"]]
    return graph


def _written(x: Any) -> Any:
    if x is None or type(x) in (bool, int, str):
        return x
    if isinstance(x, Ref):
        return {"value": x.index}
    if type(x) is float:
        return {"float": x.hex()}
    if type(x) in (tuple, list):
        return {type(x).__name__: [_written(v) for v in x]}
    if isinstance(x, slice):
        return {"slice": [x.start, x.stop, x.step]}
    if x is Ellipsis:
        return {"ellipsis": True}
    if isinstance(x, np.dtype):
        return {"dtype": str(x)}
    if isinstance(x, dict):
        return {"dict": [[_written(k), _written(v)] for k, v in x.items()]}
    raise WeightsError(f"save_graph: a constant of type {type(x).__name__} is not written")


def _value(x: Any, ref: Any) -> Any:
    if isinstance(x, str):
        return sys.intern(x)  # marks in layouts are told by identity
    if x is None or type(x) in (bool, int):
        return x
    ((kind, value),) = x.items()
    if kind == "value":
        return ref(value)
    if kind == "float":
        return float.fromhex(value)
    if kind in ("tuple", "list"):
        parts = [_value(v, ref) for v in value]
        return tuple(parts) if kind == "tuple" else parts
    if kind == "slice":
        start, stop, step = (None if v is None else int(v) for v in value)
        return slice(start, stop, step)
    if kind == "ellipsis":
        return Ellipsis
    if kind == "dtype":
        return as_dtype(value)
    if kind == "dict":
        return {_value(k, ref): _value(v, ref) for k, v in value}
    raise ValueError(f"{kind!r} is no kind of constant")


def _broken(path: str | Path, why: str) -> WeightsError:
    return WeightsError(f"load_graph: {path} is no graph of bestiary: {why}.", path=str(path))

"""Reader of ncnn's models: `net.param`, the layers as text, and `net.bin`, their weights in a row.

    with NcnnFile("net.param") as file:
        file["Convolution.0.weight"], file["PReLU.3.weight"]     # numbered by kind, in their order
        file.layers[1].options                                   # {0: 64, 1: 3, ...}

The weights have no names and no lengths of their own: where they lie follows from the layers, so
kinds of layers that are not known are refused. Facts: ncnn's documentation, "param and model file
structure".
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..dtypes import DType, float16, float32
from ..errors import WeightsError
from .detect import NCNN_PARAM
from .source import Array, FilePath, FileWeights, Source, TensorInfo, quoted

_LARGEST = 16 << 20  # bytes of the text
_LAYERS = 100_000
_MOST = 1 << 31  # numbers of one tensor
_ARRAY = -23300  # keys of lists begin here and go down
# What stands before weights: how they are stored.
_PLAIN, _HALF = 0, 0x01306B47
_OTHER = {0x000D4B38: "8-bit whole numbers", 0x0002C056: "raw numbers of another layout"}
# Kinds of layers without weights.
_BARE = frozenset(
    "Input Split Concat Eltwise BinaryOp UnaryOp Interp PixelShuffle Reorg ReLU Sigmoid Pooling "
    "Crop Padding Reshape Permute Dropout Softmax Noop".split()
)


@dataclass(frozen=True)
class Layer:
    """A line of the text.

    Attributes:
        kind: such as "Convolution".
        name: of the layer, as the file has it.
        inputs, outputs: names of blobs.
        options: numbers, or lists of them, by their keys.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: dict[int, Any]

    def whole(self, key: int, default: int, where: str) -> int:
        """An option that is a whole number from 0.

        Raises:
            WeightsError: it is something else.
        """
        value = self.options.get(key, default)
        if type(value) is not int or not 0 <= value < _MOST:
            raise WeightsError(f"{where}: {self.kind} {quoted(self.name)}: option {key}={value!r}")
        return value


class NcnnFile(FileWeights):
    """A model of ncnn; tensors are called `Kind.number.weight`, `Kind.number.bias`.

    Args:
        path: the .param file; the .bin file of the same name lies beside it.
        mapped: give arrays that share the mapped file (copy on write).

    Attributes:
        layers: all of them, in their order.

    Raises:
        WeightsError: damaged, cut off, or with layers or numbers that are not supported.
        OSError: one of the two does not exist or cannot be read.
    """

    def __init__(self, path: FilePath, mapped: bool = False) -> None:
        self.path = os.fspath(path)
        self.metadata = {}
        text = Source(path)
        try:
            if text.size > _LARGEST:
                raise WeightsError(f"{self.path}: {text.size:,} bytes are no list of layers")
            raw = text.read(0, text.size)
        finally:
            text.close()
        self.layers = read_layers(raw, self.path)
        self._source = source = Source(Path(self.path).with_suffix(".bin"))
        self._take = source.mapped if mapped else source.array
        self._entries: dict[str, tuple[int, tuple[int, ...], DType]] = {}
        try:
            self._place()
        except BaseException:
            source.close()
            raise

    def _place(self) -> None:
        """Where each tensor lies."""
        at, seen = 0, dict[str, int]()
        for layer in self.layers:
            number = seen.get(layer.kind, 0)
            seen[layer.kind] = number + 1
            for role, shape, tagged in _tensors(layer, self.path):
                kind = float32
                if tagged:
                    kind, at = self._tag(at, layer), at + 4
                size = math.prod(shape) * kind.itemsize
                if at + size > self._source.size:
                    raise WeightsError(
                        f"{self._source.path} ends too early: {layer.kind} {quoted(layer.name)} "
                        f"needs {size:,} bytes from byte {at:,} on, of {self._source.size:,}.",
                        path=self._source.path,
                        expected=at + size,
                        got=self._source.size,
                    )
                self._entries[f"{layer.kind}.{number}.{role}"] = (at, shape, kind)
                at += -(-size // 4) * 4 if tagged else size
        if at != self._source.size:
            raise WeightsError(
                f"{self._source.path} has {self._source.size:,} bytes, and the layers of "
                f"{Path(self.path).name} {at:,}: the two are not of one model.",
                path=self._source.path,
                expected=at,
                got=self._source.size,
            )

    def _tag(self, at: int, layer: Layer) -> DType:
        tag = int.from_bytes(self._source.read(at, 4), "little")
        if tag in (_PLAIN, _HALF):
            return float16 if tag == _HALF else float32
        stored = _OTHER.get(tag, f"of an unknown kind (0x{tag:08X})")
        raise WeightsError(
            f"{self._source.path}: the weights of {layer.kind} {quoted(layer.name)} are {stored}; "
            "float32 and float16 are read.",
            path=self._source.path,
            got=tag,
        )

    def __getitem__(self, name: str) -> Array:
        return self._take(*self._entries[name])

    def info(self, name: str) -> TensorInfo:
        """The dtype and shape of a tensor; reads no values."""
        _, shape, kind = self._entries[name]
        return TensorInfo(kind, shape)


def _tensors(layer: Layer, where: str) -> list[tuple[str, tuple[int, ...], bool]]:
    """What a layer has in the file: role, shape, and whether a word on its kind comes before."""
    if layer.kind in _BARE:
        return []
    if layer.kind == "PReLU":
        return [("weight", (layer.whole(0, 0, where),), False)]
    if layer.kind not in ("Convolution", "InnerProduct"):
        raise WeightsError(
            f"{where}: layers of the kind {quoted(layer.kind)} are not supported, and what comes "
            "after one cannot be found without knowing it.",
            path=where,
            got=layer.kind,
        )
    outputs = layer.whole(0, 0, where)
    linear = layer.kind == "InnerProduct"
    width = 1 if linear else layer.whole(1, 0, where)
    height = 1 if linear else layer.whole(11, width, where)
    bias = layer.whole(1 if linear else 5, 0, where)
    count = layer.whole(2 if linear else 6, 0, where)
    each = outputs * width * height
    if not each or not count or count % each:
        raise WeightsError(
            f"{where}: {layer.kind} {quoted(layer.name)}: {count} weights for {outputs} outputs "
            f"and a kernel of {height} x {width}.",
            path=where,
            got=count,
        )
    shape = (outputs, count // each) if linear else (outputs, count // each, height, width)
    return [("weight", shape, True), *([("bias", (outputs,), False)] if bias else [])]


def read_layers(raw: bytes, where: str) -> tuple[Layer, ...]:
    """The layers that the text of a .param file tells.

    Raises:
        WeightsError: it is none, or damaged.
    """
    try:
        lines = raw.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise WeightsError(f"{where}: no text, so no .param file of ncnn", path=where) from None
    if len(lines) < 2 or lines[0].strip() != NCNN_PARAM.decode():
        raise WeightsError(f"{where}: no .param file of ncnn: it begins otherwise", path=where)
    counts = lines[1].split()
    if len(counts) != 2 or not all(word.isascii() and word.isdecimal() for word in counts):
        raise WeightsError(f"{where}, line 2: two numbers are wanted", path=where)
    rows = [(n, line.split()) for n, line in enumerate(lines[2:], 3) if line.strip()]
    if len(rows) > _LAYERS or len(rows) != int(counts[0]):
        raise WeightsError(
            f"{where}: {counts[0]} layers are promised and {len(rows)} are there.", path=where
        )
    return tuple(_layer(words, f"{where}, line {n}") for n, words in rows)


def _layer(words: list[str], where: str) -> Layer:
    try:
        kind, name, first, second = words[:4]
        inputs, outputs = int(first), int(second)
        if min(inputs, outputs) < 0 or 4 + inputs + outputs > len(words):
            raise ValueError(f"{inputs} inputs and {outputs} outputs")
        middle = 4 + inputs
        options = dict(_option(word) for word in words[middle + outputs :])
    except ValueError as error:
        raise WeightsError(f"{where}: no layer of ncnn: {error}", path=where) from None
    return Layer(kind, name, tuple(words[4:middle]), tuple(words[middle:][:outputs]), options)


def _option(word: str) -> tuple[int, Any]:
    key, _, text = word.partition("=")
    number = int(key)
    if number > _ARRAY:
        return number, _number(text)
    count, *values = text.split(",")
    if int(count) != len(values):
        raise ValueError(f"a list of {count} has {len(values)} numbers")
    return _ARRAY - number, tuple(_number(value) for value in values)


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number")
    return value

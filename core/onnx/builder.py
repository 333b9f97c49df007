"""The nodes of a file as they are added: names, constants, sizes that are computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..graph.record import Ref
from . import messages
from .schema import CODES
from .sizes import Size
from .tracing import Trace

Length = int | Size


class Builder:
    """What emitters write with.

    Args:
        names: of weights, by the number of their value.
        axes: input and axis that tell the length of each open axis.
    """

    def __init__(
        self, trace: Trace, names: dict[int, str], axes: Sequence[tuple[str, int]]
    ) -> None:
        self.trace = trace
        self.nodes: list[bytes] = []
        self.weights: dict[str, Any] = {}
        self.path = ""
        self.kinds: dict[str, int] = {}  # how many nodes of each kind
        self._names: dict[int, str] = {}
        self._weight_names = names
        self._axes = axes
        self._known: dict[Any, str] = {}  # constants and sizes that are there already
        self._count = 0

    # -- values ------------------------------------------------------------------------------

    def bind(self, ref: Ref | None, name: str) -> None:
        """This value is there under this name."""
        if ref is not None:
            self._names[ref.index] = name

    def name(self, operand: Any, dtype: Any = None) -> str:
        """The name of an operand: a value, or a number of a dtype; empty for None."""
        if operand is None:
            return ""
        if not isinstance(operand, Ref):
            if isinstance(operand, Size):
                return self.cast(self.number(operand), np.int64, dtype)
            return self.const(np.asarray(operand, dtype))
        if operand.index not in self._names:
            array = self.trace.fixed.get(operand.index)
            if array is None:
                from .generated import emit_made

                self._names[operand.index] = emit_made(self, operand)
            else:
                self._names[operand.index] = self._weight(operand.index, array)
        return self._names[operand.index]

    def _weight(self, index: int, array: Any) -> str:
        name = self._weight_names.get(index)
        if name is None:
            return self.const(array)
        self.weights[name] = self._checked(array)
        return name

    def dtype(self, operand: Any) -> Any:
        """Of a value; None for numbers."""
        return self.trace.dtype(operand) if isinstance(operand, Ref) else None

    def shape(self, operand: Ref) -> tuple[Length, ...]:
        """Of a value, with sizes."""
        return self.trace.shapes[operand.index]

    def ndim(self, operand: Ref) -> int:
        """How many axes a value has."""
        return len(self.shape(operand))

    # -- nodes -------------------------------------------------------------------------------

    def fresh(self, stem: str) -> str:
        """A name that is not taken."""
        self._count += 1
        return f"{self.path}/{stem}_{self._count}" if self.path else f"{stem}_{self._count}"

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """A node; returns the name of its output, or a list of several."""
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        names = [self.fresh(kind.lower()) for _ in range(outputs)]
        self.nodes.append(messages.node(kind, inputs, names, attributes, names[0]))
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        return names[0] if outputs == 1 else names

    def const(self, array: Any) -> str:
        """An array that is written into the file, once."""
        array = self._checked(np.asarray(array))
        key = (array.dtype, array.shape, array.tobytes()) if array.size <= 4096 else id(array)
        if key not in self._known:
            self._count += 1
            name = f"constant_{self._count}"
            self.weights[name], self._known[key] = array, name
        return self._known[key]

    def ints(self, values: Sequence[Length]) -> str:
        """Several whole numbers, (N,)."""
        if not any(isinstance(v, Size) for v in values):
            return self.const(np.asarray(values, np.int64).reshape(len(values)))
        key = ("ints", tuple(values))
        if key not in self._known:
            parts = [
                self.number(v, flat=True) if isinstance(v, Size) else self.const(np.array([v]))
                for v in values
            ]
            self._known[key] = parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=0)
        return self._known[key]

    def number(self, value: Length, *, flat: bool = False) -> str:
        """A whole number: () or, flat, (1,)."""
        shape: Any = (1,) if flat else ()
        if not isinstance(value, Size):
            return self.const(np.full(shape, value, np.int64))
        key = ("size", value, flat)
        if key not in self._known:
            total = ""
            for axes, factor in value.terms:
                part = "" if axes and factor == 1 else self.const(np.full(shape, factor, np.int64))
                for axis in axes:
                    length = self._length(axis, flat)
                    part = length if not part else self.add("Mul", part, length)
                total = part if not total else self.add("Add", total, part)
            self._known[key] = total or self.const(np.zeros(shape, np.int64))
        return self._known[key]

    def _length(self, axis: int, flat: bool) -> str:
        key = ("length", axis, flat)
        if key not in self._known:
            source, place = self._axes[axis]
            whole = self.add("Shape", source)
            self._known[key] = self.add(
                "Gather", whole, self.const(np.full((1,) if flat else (), place, np.int64)), axis=0
            )
        return self._known[key]

    def cast(self, name: str, have: Any, want: Any) -> str:
        """The value in another dtype, where it is not in this one."""
        if want is None or have == want:
            return name
        if np.dtype(want) not in CODES:
            raise self.refused(f"the dtype {want}")
        return self.add("Cast", name, to=CODES[np.dtype(want)])  # type: ignore[no-any-return]

    def reshape(self, name: str, shape: Sequence[Length], source: Sequence[Length] = ()) -> str:
        """With other axes; those that it shares with the source in front need no computing."""
        wanted = list(shape)
        for i, (a, b) in enumerate(zip(shape, source, strict=False)):
            if a != b:
                break
            if isinstance(a, Size):
                wanted[i] = 0
        if 0 not in shape and sum(isinstance(n, Size) for n in wanted) == 1:
            wanted = [-1 if isinstance(n, Size) else n for n in wanted]
        return self.add("Reshape", name, self.ints(wanted))  # type: ignore[no-any-return]

    # -- refusing ----------------------------------------------------------------------------

    def refused(self, what: str) -> ConfigError:
        """An error that says what has no form in ONNX, and where it is."""
        place = f" in {self.path}" if self.path else ""
        return ConfigError(
            f"export: {what}{place} has no form in ONNX that this library writes.\n"
            "docs/onnx.md lists what it can write; take the part of the network before it.",
            module=self.path,
        )

    def _checked(self, array: Any) -> Any:
        if type(array) is not np.ndarray:
            array = np.asarray(array)
        if array.dtype not in CODES:
            raise self.refused(f"an array of {array.dtype}")
        return array

"""What a model is made of: shapes, parameters, arithmetic and memory of each layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..creation import asarray, zeros
from ..devices import backend_of
from ..op import Op
from ..state import no_grad, observing
from ..tensor import Tensor
from .module import Module
from .parameter import Parameter
from .quantized import count, packed_bytes

_HEAD = ("layer", "output", "parameters", "FLOPs", "output memory")


@dataclass
class Row:
    """One module. FLOPs count a multiplication and an addition as two."""

    name: str
    kind: str
    depth: int
    shape: tuple[int, ...] | None = None
    parameters: int = 0
    flops: int = 0
    output_bytes: int = 0
    calls: int = 0


@dataclass
class Summary:
    """Rows in the order of the tree, and totals. Printing it gives the table."""

    rows: list[Row] = field(default_factory=list)
    parameters: int = 0
    trainable: int = 0
    parameter_bytes: int = 0
    buffer_bytes: int = 0
    packed_bytes: int = 0  # of weights of few bits
    activation_bytes: int = 0
    flops: int = 0

    def __str__(self) -> str:
        head = _HEAD
        lines = [head] + [self._cells(row) for row in self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = []
        for line in lines:
            cells = [line[0].ljust(widths[0]), line[1].ljust(widths[1])]
            cells += [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
            text.append("  ".join(cells).rstrip())
        text.insert(1, "-" * max(map(len, text)))
        training = 2 * self.parameter_bytes + self.packed_bytes + self.activation_bytes
        text += [
            text[1],
            f"parameters        {self.parameters:,} ({self.trainable:,} trained), "
            f"{readable_bytes(self.parameter_bytes + self.packed_bytes)}",
            f"arithmetic        {_count(self.flops)}FLOP (products, convolutions, attention)",
            f"layer outputs     {readable_bytes(self.activation_bytes)}",
            f"training memory   about {readable_bytes(training)} with gradients, "
            f"{readable_bytes(training + 2 * self.parameter_bytes)} with Adam",
        ]
        return "\n".join(text)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from ..insight.tables import html_block, html_table

        rows = [self._cells(row) for row in self.rows]
        facts = [line.split("  ", 1) for line in str(self).splitlines()[-4:]]
        return html_block("", html_table(_HEAD, rows, left=2), html_table(("", ""), facts, left=2))

    def _cells(self, row: Row) -> tuple[str, str, str, str, str]:
        label = "  " * row.depth + (f"{row.name.rpartition('.')[2]}: " if row.name else "")
        return (
            label + row.kind,
            "" if row.shape is None else str(row.shape),
            f"{row.parameters:,}" if row.parameters else "",
            _count(row.flops) if row.flops else "",
            readable_bytes(row.output_bytes) if row.output_bytes else "",
        )


def summarize(module: Module, *args: Any, depth: int | None = None, **kwargs: Any) -> Summary:
    """Run the module once, without gradients and in eval mode, and count.

    Args:
        args, kwargs: what `forward` takes; a tuple of numbers stands for float32 data of that
            shape; without any, only parameters are counted.
        depth: rows of modules nested deeper are left out (and counted in their parents').
    """
    rows: dict[int, Row] = {}
    for name, inner in module.named_modules():
        place = name.count(".") + 1 if name else 0
        rows[id(inner)] = Row(name, type(inner).__name__, place, parameters=count(inner))
    counter = _Counter(module, rows)
    if args or kwargs:
        inputs = [_input(module, value) for value in args]
        named = {name: _input(module, value) for name, value in kwargs.items()}
        with _evaluating(module), counter.watching(), no_grad():
            module(*inputs, **named)
    own = list(module.parameters())
    return Summary(
        rows=[row for row in rows.values() if depth is None or row.depth <= depth],
        parameters=count(module),
        trainable=sum(p.size for p in own if p.requires_grad),
        parameter_bytes=sum(p.nbytes for p in own),
        buffer_bytes=sum(b.nbytes for b in module.buffers()) - packed_bytes(module),
        packed_bytes=packed_bytes(module),
        activation_bytes=counter.leaf_bytes,
        flops=rows[id(module)].flops,
    )


def _input(module: Module, value: Any) -> Any:
    if isinstance(value, tuple) and value and all(isinstance(n, int) for n in value):
        return zeros(value, dtype=module.dtype, device=module.device)
    return asarray(value) if backend_of(value) is not None else value


@contextmanager
def _evaluating(module: Module) -> Iterator[None]:
    flags = [(inner, inner.training) for inner in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for inner, training in flags:
            inner.training = training


class _Counter:
    """Hooks on every module, and an observer of every operation."""

    def __init__(self, module: Module, rows: dict[int, Row]) -> None:
        self.module, self.rows = module, rows
        self.running: list[Row] = []
        self.leaf_bytes = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        handles = []
        for inner in self.module.modules():
            handles.append(inner.register_forward_pre_hook(self._enter))
            handles.append(inner.register_forward_hook(self._leave))
        try:
            with observing(self._count):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: Module, args: Any) -> None:
        self.running.append(self.rows[id(module)])

    def _leave(self, module: Module, args: Any, output: Any) -> None:
        row = self.running.pop()
        row.calls += 1
        tensors = list(_tensors_in(output))
        if tensors:
            row.shape = tuple(tensors[0].shape)
        size = sum(tensor.nbytes for tensor in tensors)
        row.output_bytes += size
        if not any(True for _ in module.children()):
            self.leaf_bytes += size

    def _count(
        self, op: Op[..., Any], operands: tuple[Any, ...], constants: Any, run: Callable[[], Any]
    ) -> Any:
        out = run()
        count = _FLOPS.get(op.name)
        if count is not None:
            flops = count(operands, out)
            for row in {id(row): row for row in self.running}.values():
                row.flops += flops
        return out


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor) and not isinstance(value, Parameter):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors_in(inner)
    elif isinstance(value, (tuple, list)):
        for inner in value:
            yield from _tensors_in(inner)


def _first(out: Any) -> Tensor:
    found: Tensor = out[0] if isinstance(out, tuple) else out
    return found


def _product(operands: Any, out: Any) -> int:
    return 2 * _first(out).size * int(operands[0].shape[-1])


def _convolution(operands: Any, out: Any) -> int:
    return 2 * int(_first(out).size) * int(math.prod(operands[1].shape[1:]))


def _transposed_convolution(operands: Any, out: Any) -> int:
    return 2 * int(operands[0].size) * int(math.prod(operands[1].shape[1:]))


def _attention(operands: Any, out: Any) -> int:
    q, k, v = operands[:3]
    pairs = math.prod(q.shape[:-1]) * k.shape[-2]
    return 2 * int(pairs) * (int(q.shape[-1]) + int(v.shape[-1]))


def _scan(weight: int) -> Callable[[Any, Any], int]:
    def count(operands: Any, out: Any) -> int:
        steps, batch, _ = operands[0].shape
        return 2 * int(steps) * int(batch) * int(operands[weight].size)

    return count


_FLOPS: dict[str, Callable[[Any, Any], int]] = {
    "linear": _product,
    "quantized_linear": _product,
    "matmul": _product,
    "conv2d": _convolution,
    "conv2d_input_grad": _transposed_convolution,
    "attention": _attention,
    "rnn_scan": _scan(2),
    "gru_scan": _scan(2),
    "lstm_scan": _scan(3),
}


def _count(value: int) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if value < 1000 or unit == "T":
            return f"{value:,} " if not unit else f"{value:.3g} {unit}"
        value = value / 1000  # type: ignore[assignment]
    raise AssertionError


def readable_bytes(value: float) -> str:
    """A size in the largest unit that fits: 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError

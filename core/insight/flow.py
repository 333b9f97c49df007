"""How gradients flow: which layers get none, tiny ones, or huge ones."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from ..nn import Module
from ..tensor import Tensor
from .tables import html_block, html_table, text_table

if TYPE_CHECKING:
    from PIL import Image

# Of the median of all layers, by the mean size of a gradient.
_VANISHING = 1e-4
_EXPLODING = 1e4
_HEAD = ("layer", "state", "parameters", "mean |grad|", "max |grad|", "zeros", "grad / weight")


@dataclass(frozen=True)
class LayerGradient:
    """The gradients of one module's own parameters.

    Attributes:
        name, kind: path and class of the module.
        state: "", or "frozen", "no gradient", "dead", "vanishing", "exploding", "not finite".
        parameters: how many numbers it has.
        mean, largest: of the sizes of the gradient's values.
        zeros: part of the values that are exactly zero.
        ratio: norm of the gradient to norm of the parameters.
    """

    name: str
    kind: str
    state: str
    parameters: int
    mean: float
    largest: float
    zeros: float
    ratio: float


@dataclass(frozen=True)
class GradientFlow:
    """A row for each module that has parameters of its own, in the order of the tree."""

    layers: tuple[LayerGradient, ...]

    @property
    def problems(self) -> tuple[LayerGradient, ...]:
        """Layers that something is wrong with: frozen ones are meant to have no gradient."""
        return tuple(row for row in self.layers if row.state not in ("", "frozen"))

    def __str__(self) -> str:
        return text_table(_HEAD, self._cells(), left=2) + f"\n{self._verdict()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_block(self._verdict(), html_table(_HEAD, self._cells(), left=2))

    def plot(self) -> Image.Image:
        """The means and the largest of each layer, on a logarithmic axis."""
        from .charts import bar_chart

        rows = [row for row in self.layers if row.state not in ("frozen", "no gradient")]
        bars = {row.name: {"mean": row.mean, "max": row.largest} for row in rows}
        marked = [row.name for row in self.problems]
        return bar_chart(bars, title="sizes of gradients", marked=marked)

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (f"{row.name} ({row.kind})", row.state, f"{row.parameters:,}")
            + (
                ("", "", "", "")
                if row.state in ("frozen", "no gradient")
                else (f"{row.mean:.3g}", f"{row.largest:.3g}", f"{row.zeros:.0%}",
                      f"{row.ratio:.3g}")
            )
            for row in self.layers
        ]  # fmt: skip

    def _verdict(self) -> str:
        found: dict[str, int] = {}
        for row in self.problems:
            found[row.state] = found.get(row.state, 0) + 1
        if not found:
            return f"gradients reach all {len(self.layers)} layers"
        told = ", ".join(f"{n} {state}" for state, n in found.items())
        return f"of {len(self.layers)} layers: {told}"


def gradient_flow(module: Module) -> GradientFlow:
    """How large the gradients of each layer are, after `loss.backward()` and before the update.

    Layers whose values have no part in the loss have no gradient; those behind inactive units
    have zeros (dead); means of 10,000 times less or more than the median of all layers are called
    vanishing or exploding.

    Raises:
        ConfigError: it is no module, or none of its parameters has a gradient.
    """
    if not isinstance(module, Module):
        raise ConfigError(
            f"gradient_flow looks at a module, got {type(module).__name__}", got=type(module)
        )
    if all(p.grad is None for p in module.parameters()):
        raise ConfigError(
            "gradient_flow: no parameter has a gradient.\n"
            "Call it between loss.backward() and optimizer.zero_grad()"
        )
    found = []
    seen: set[int] = set()
    for name, inner in module.named_modules():
        own = [
            p
            for path, p in inner.named_parameters()
            if id(p) not in seen and not _within_child(inner, path)
        ]
        seen.update(map(id, own))
        if own:
            found.append(_layer(name or type(inner).__name__, type(inner).__name__, own))
    means = [row.mean for row in found if row.mean > 0 and math.isfinite(row.mean)]
    middle = statistics.median(means) if means else 0.0
    return GradientFlow(tuple(_judged(row, middle) for row in found))


def _within_child(module: Module, path: str) -> bool:
    return any(path.startswith(f"{name}.") for name, _ in module.named_children())


def _layer(name: str, kind: str, own: list[Any]) -> LayerGradient:
    size = sum(p.size for p in own)
    grads = [(p, p.grad) for p in own if p.grad is not None]
    if not grads:
        state = "no gradient" if any(p.requires_grad for p in own) else "frozen"
        return LayerGradient(name, kind, state, size, 0.0, 0.0, 0.0, 0.0)
    values = [np.abs(_array(g)) for _, g in grads]
    count = sum(v.size for v in values)
    with np.errstate(all="ignore"):
        total = sum(float(v.sum(dtype=np.float64)) for v in values)
        largest = max((float(v.max()) for v in values if v.size), default=0.0)
        norm = math.sqrt(sum(float(np.square(v, dtype=np.float64).sum()) for v in values))
        weight = math.sqrt(
            sum(float(np.square(_array(p), dtype=np.float64).sum()) for p, _ in grads)
        )
    zeros = sum(int((v == 0).sum()) for v in values) / max(count, 1)
    ratio = norm / weight if weight else math.inf if norm else 0.0
    return LayerGradient(name, kind, "", size, total / max(count, 1), largest, zeros, ratio)


def _array(x: Tensor) -> Any:
    array = x.detach().cpu().array
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array


def _judged(row: LayerGradient, middle: float) -> LayerGradient:
    state = row.state
    if not state:
        if not math.isfinite(row.mean):
            state = "not finite"
        elif row.largest == 0:
            state = "dead"
        elif row.mean < _VANISHING * middle:
            state = "vanishing"
        elif row.mean > _EXPLODING * middle:
            state = "exploding"
    return LayerGradient(row.name, row.kind, state, *_numbers(row))


def _numbers(row: LayerGradient) -> tuple[int, float, float, float, float]:
    return row.parameters, row.mean, row.largest, row.zeros, row.ratio

"""What modules give while they run: means, spreads, zeros, saturation, NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from ..nn import Module
from ..state import no_grad
from ..tensor import Tensor
from .tables import html_block, html_table, text_table

if TYPE_CHECKING:
    from PIL import Image

_HEAD = (
    "module", "state", "calls", "output", "mean", "std", "largest", "zeros", "saturated",
    "dead units", "NaN or inf",
)  # fmt: skip
# Classes whose results have ends, and these ends.
_ENDS = {
    "Tanh": (-1.0, 1.0),
    "Sigmoid": (0.0, 1.0),
    "Hardtanh": (-1.0, 1.0),
    "Hardsigmoid": (0.0, 1.0),
    "ReLU6": (0.0, 6.0),
    "Softsign": (-1.0, 1.0),
}
_NEAR = 0.01  # of the way between the ends, within which a value is saturated
_ONE_SIDED = ("ReLU", "ReLU6")


@dataclass
class Activation:
    """The results of one module, over all its calls.

    Attributes:
        name, kind: path and class.
        calls: how often it ran.
        shape: of the last result.
        count, bad: values seen, and those that were NaN or infinite.
        mean, std, largest: of the finite values; `largest` of their sizes.
        zeros: part of the values that are exactly zero.
        saturated: part of the values within 1 % of an end, for functions that have ends.
        dead: part of the units (channels, or features of tokens) that were zero for every sample;
            of ReLU only.
    """

    name: str
    kind: str
    calls: int = 0
    shape: tuple[int, ...] = ()
    count: int = 0
    bad: int = 0
    largest: float = 0.0
    _sum: float = 0.0
    _squares: float = 0.0
    _zeros: int = 0
    _saturated: int = 0
    _active: Any = field(default=None, repr=False)  # units that were ever not zero

    @property
    def mean(self) -> float:
        """Of the finite values."""
        good = self.count - self.bad
        return self._sum / good if good else math.nan

    @property
    def std(self) -> float:
        """Of the finite values."""
        good = self.count - self.bad
        return math.sqrt(max(self._squares / good - self.mean**2, 0.0)) if good else math.nan

    @property
    def zeros(self) -> float:
        """Part of the values that are exactly zero."""
        return self._zeros / self.count if self.count else 0.0

    @property
    def saturated(self) -> float | None:
        """Part of the values near an end; None for functions without."""
        if self.kind not in _ENDS or not self.count:
            return None
        return self._saturated / self.count

    @property
    def dead(self) -> float | None:
        """Part of the units that were zero for every sample; None but for ReLU."""
        return None if self._active is None else float(1 - self._active.mean())

    @property
    def state(self) -> str:
        """ "", or "not finite", "dead", "saturated", "constant"."""
        if self.bad:
            return "not finite"
        if self.dead is not None and self.dead > 0.5:
            return "dead"
        if self.saturated is not None and self.saturated > 0.5:
            return "saturated"
        return "constant" if self.count > 1 and self.std == 0 else ""

    def see(self, values: Any) -> None:
        """Count the values of one result."""
        self.calls += 1
        self.shape = tuple(values.shape)
        good = values[np.isfinite(values)]
        self.count += values.size
        self.bad += values.size - good.size
        self._sum += float(good.sum(dtype=np.float64))
        self._squares += float(np.square(good, dtype=np.float64).sum())
        self.largest = max(self.largest, float(np.abs(good).max()) if good.size else 0.0)
        self._zeros += int((good == 0).sum())
        if self.kind in _ENDS:
            low, high = _ENDS[self.kind]
            near = _NEAR * (high - low)
            ends = good > high - near
            if self.kind not in _ONE_SIDED:
                ends |= good < low + near
            self._saturated += int(ends.sum())
        if self.kind in _ONE_SIDED and values.ndim >= 2:
            axis = 1 if values.ndim != 3 else 2  # channels of pictures, features of tokens
            others = tuple(i for i in range(values.ndim) if i != axis)
            active = (values != 0).any(axis=others)
            known = self._active
            self._active = (
                active if known is None or known.shape != active.shape else known | active
            )


@dataclass
class ActivationStats:
    """A row for each module that ran, in the order of the tree."""

    rows: dict[str, Activation] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Activation:
        """The row of a module.

        Raises:
            ConfigError: it did not run.
        """
        if name not in self.rows:
            known = ", ".join(list(self.rows)[:8]) or "none"
            raise ConfigError(f"no module {name!r} ran; these did: {known}", got=name)
        return self.rows[name]

    def __len__(self) -> int:
        return len(self.seen)

    @property
    def seen(self) -> tuple[Activation, ...]:
        """The rows of modules that ran and gave numbers."""
        return tuple(row for row in self.rows.values() if row.count)

    @property
    def problems(self) -> tuple[Activation, ...]:
        """Those whose state is not empty."""
        return tuple(row for row in self.seen if row.state)

    def __str__(self) -> str:
        if not self.seen:
            return "no module ran yet"
        return text_table(_HEAD, self._cells(), left=2)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_block(f"{len(self.seen)} modules", html_table(_HEAD, self._cells(), left=2))

    def plot(self) -> Image.Image:
        """Spread and largest value of each module, on a logarithmic axis."""
        from .charts import bar_chart

        bars = {row.name: {"std": row.std, "largest": row.largest} for row in self.seen}
        marked = [row.name for row in self.problems]
        return bar_chart(bars, title="sizes of activations", marked=marked)

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (f"{row.name} ({row.kind})", row.state, f"{row.calls:,}", str(row.shape),
             f"{row.mean:.3g}", f"{row.std:.3g}", f"{row.largest:.3g}", f"{row.zeros:.0%}",
             "" if row.saturated is None else f"{row.saturated:.0%}",
             "" if row.dead is None else f"{row.dead:.0%}", f"{row.bad:,}" if row.bad else "")
            for row in self.seen
        ]  # fmt: skip


@contextmanager
def watch_activations(module: Module) -> Iterator[ActivationStats]:
    """Look at the results of every module inside: `with bt.watch_activations(model) as stats:`.

    The results are read from their device and counted, so that it is slow there; hooks are taken
    away at the end.

    Raises:
        ConfigError: it is no module.
    """
    if not isinstance(module, Module):
        raise ConfigError(
            f"watch_activations looks at a module, got {type(module).__name__}.\n"
            "Of a task: watch_activations(task.model)",
            got=type(module),
        )
    stats = ActivationStats()
    handles = []
    for name, inner in module.named_modules():
        row = Activation(name or type(inner).__name__, type(inner).__name__)
        stats.rows[row.name] = row
        handles.append(inner.register_forward_hook(_seeing(row)))
    try:
        yield stats
    finally:
        for handle in handles:
            handle.remove()
        stats.rows = {name: row for name, row in stats.rows.items() if row.calls}


def _seeing(row: Activation) -> Any:
    def hook(module: Module, args: Any, output: Any) -> None:
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        if isinstance(first, Tensor) and first.dtype.kind in "fV" and first.size:
            with no_grad(), np.errstate(all="ignore"):
                values = first.detach().cpu().array
                row.see(values.astype(np.float32) if values.dtype.itemsize < 4 else values)

    return hook

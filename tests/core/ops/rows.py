"""The table of operations that test_ops.py runs: what a row says, and how rows are found.

A file `rows_<topic>.py` beside this one defines `ROWS`, a list of `Row`. One row tests one
operation: its results against NumPy or another reference, its gradients of order 1 and 2 by
differences, its rule on bare arrays and on tensors, dtypes, memory layouts, devices, kernels.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Sample:
    """One call: arrays (float64 where floating), numbers or None by position, and constants."""

    operands: tuple[Any, ...]
    constants: dict[str, Any] = field(default_factory=dict)


def sample(*operands: Any, **constants: Any) -> Sample:
    return Sample(operands, constants)


@dataclass(frozen=True, eq=False)
class Row:
    """One operation and how it is tested.

    Args:
        function: the operation or public function, called with tensors.
        samples: makes the calls from a seeded generator; cover edge shapes here (sizes 0 and 1,
            no axes), keep away from corners unless `order` is 0.
        name: of the row; the function's by default.
        covers: names of primitives that this row stands for, besides the function's own.
        reference: called with NumPy arrays; returns an array or a tuple of them.
        order: 2 where second gradients are promised, 1 where only first ones are (then name the
            row in `NOT_PROMISED`), 0 where there are none.
        complex: gradients are tested on complex tensors too.
        dtypes: floating dtypes to run in.
        half_ulp: by how many units in the last place a half result may differ from the rounded
            float32 result; None where the operation rounds more than once.
        rtol: of the float64 result against the reference; float32 gets 1e-4 if larger.
        keeps_layout: channels-last in gives channels-last out, values and gradients.
        large: samples of a size at which kernels and fast paths are used, in float32.
        errors: (call, exception, pattern) of mistakes.
        fake: runs on the stand-in for a GPU.
        view: the result shares memory with the first operand.
        fixed: positions of floating operands that have no gradient (class weights, ...).
    """

    function: Callable[..., Any]
    samples: Callable[[np.random.Generator], Sequence[Sample]]
    name: str = ""
    covers: tuple[str, ...] = ()
    reference: Callable[..., Any] | None = None
    order: int = 2
    complex: bool = False
    dtypes: tuple[str, ...] = ("float16", "bfloat16", "float32", "float64")
    half_ulp: int | None = 1
    rtol: float = 1e-9
    keeps_layout: bool = False
    large: Callable[[np.random.Generator], Sequence[Sample]] | None = None
    errors: tuple[tuple[Callable[[], Any], type[Exception], str], ...] = ()
    fake: bool = True
    view: bool = False
    fixed: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        return self.name or getattr(self.function, "name", "") or self.function.__name__

    @property
    def covered(self) -> set[str]:
        return {getattr(self.function, "name", self.id), *self.covers}

    def make(self, large: bool = False) -> Sequence[Sample]:
        """The samples, the same every time."""
        rng = np.random.default_rng(sum(map(ord, self.id)))
        make = self.large if large else self.samples
        return make(rng) if make is not None else ()


# Rows whose gradients of order 2 are not promised, and why. Nothing else may be in `order=1`.
NOT_PROMISED: dict[str, str] = {}


@lru_cache
def all_rows() -> list[Row]:
    """The rows of every rows_*.py beside this file."""
    rows: list[Row] = []
    for path in sorted(Path(__file__).parent.glob("rows_*.py")):
        module = importlib.import_module(path.stem)
        rows += module.ROWS
        NOT_PROMISED.update(getattr(module, "NOT_PROMISED", {}))
    names = [row.id for row in rows]
    doubles = {name for name in names if names.count(name) > 1}
    assert not doubles, f"two rows are named {doubles}"
    return rows


# -- making samples ----------------------------------------------------------------------------

SHAPES = ((), (1,), (0, 3), (2, 3), (2, 3, 2, 2))
PAIRS = (((), ()), ((2, 3), (2, 3)), ((2, 1), (1, 3)), ((3,), (2, 3)), ((0, 3), (1,)), ((2, 2), ()))


def uniform(rng: np.random.Generator, shape: Any, low: float = -2.0, high: float = 2.0) -> Array:
    return np.asarray(rng.uniform(low, high, shape))


def apart(
    rng: np.random.Generator, shape: Any, corners: Sequence[float], low: float, high: float
) -> Array:
    """Values at least 0.05 away from corners, where a function has no derivative."""
    x = uniform(rng, shape, low, high)
    for corner in corners:
        near = np.abs(x - corner) < 0.05
        x = np.where(near, corner + np.where(x >= corner, 0.1, -0.1), x)
    return np.asarray(x)


def distinct(rng: np.random.Generator, shape: Any, gap: float = 0.1) -> Array:
    """Shuffled values no two of which are near each other: for sorting and extremes."""
    size = int(np.prod(shape))
    values = (np.arange(size) - size / 2) * gap + 0.03
    return np.asarray(rng.permutation(values).reshape(shape))


def unary(
    function: Any,
    reference: Any = None,
    low: float = -2.0,
    high: float = 2.0,
    corners: Sequence[float] = (),
    **options: Any,
) -> Row:
    """A row of an elementwise function of one tensor."""

    def samples(rng: np.random.Generator) -> list[Sample]:
        return [sample(apart(rng, shape, corners, low, high)) for shape in SHAPES]

    options.setdefault("keeps_layout", True)
    return Row(function, samples, reference=reference, **options)


def binary(
    function: Any,
    reference: Any = None,
    low: float = -2.0,
    high: float = 2.0,
    separate: bool = False,
    scalars: bool = True,
    **options: Any,
) -> Row:
    """A row of an elementwise function of two tensors, with broadcasting and numbers.

    Args:
        separate: keep the two operands apart, for functions with a corner where they are equal.
    """

    def samples(rng: np.random.Generator) -> list[Sample]:
        made = []
        for first, second in PAIRS:
            a, b = uniform(rng, first, low, high), uniform(rng, second, low, high)
            if separate:
                near = np.abs(a - b) < 0.05
                b = np.where(near, a + 0.1, b) if a.shape == b.shape else b
            made.append(sample(a, b))
        if scalars:
            made.append(sample(uniform(rng, (3,), low, high), (low + 2 * high) / 3))
            made.append(sample((low + 2 * high) / 3, uniform(rng, (3,), low, high)))
        return made

    options.setdefault("keeps_layout", True)
    return Row(function, samples, reference=reference, **options)

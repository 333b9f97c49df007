"""Rows of core/ops/reduction.py and cumulative.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rows import Row, Sample, distinct, sample, uniform

import bestiary as bt
from bestiary.core.ops import cumulative, reduction
from bestiary.errors import ShapeError

AXES: tuple[dict[str, Any], ...] = (
    {},
    {"axis": 0},
    {"axis": -1, "keepdims": True},
    {"axis": (0, 2)},
    {"axis": (-1, 0), "keepdims": True},
    {"axis": ()},
)


def over_axes(empty: bool = True, draw: Callable[..., Any] = uniform) -> Callable[..., Any]:
    def samples(rng: np.random.Generator) -> list[Sample]:
        made = [sample(draw(rng, (2, 3, 4)), **axes) for axes in AXES]
        made += [sample(draw(rng, ())), sample(draw(rng, (1,))), sample(draw(rng, (3, 1)), axis=1)]
        if empty:
            made += [sample(draw(rng, (0, 3)), axis=0), sample(draw(rng, (0, 3)))]
        return [*made, sample(draw(rng, (2, 3, 0)), axis=1)]

    return samples


def outer_sums(rng: np.random.Generator) -> list[Sample]:
    """Sums over outer axes of memory: bias gradients, channels-last statistics."""
    images = np.moveaxis(uniform(rng, (4, 20, 15, 6)), -1, 1)
    return [
        sample(uniform(rng, (700, 5)), axis=0),
        sample(uniform(rng, (513, 5)) + 3, axis=0, keepdims=True),
        sample(uniform(rng, (3, 300, 9)), axis=1),
        sample(uniform(rng, (300, 2, 9)), axis=(0, 1)),
        sample(uniform(rng, (2, 40, 10, 9)), axis=(1, 2), keepdims=True),
        sample(images, axis=(0, 2, 3)),
        sample(images, axis=(0, 2, 3), keepdims=True),
        sample(images, axis=(2, 3)),
        sample(images, axis=1),
        sample(uniform(rng, (700, 5))[::-1], axis=0),
        sample(np.asfortranarray(uniform(rng, (700, 5))), axis=1),
    ]


def weighted(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(uniform(rng, (2, 3, 4)), correction=1),
        *[s for s in over_axes(empty=False)(rng) if 0 not in s.operands[0].shape],
    ]


def spread(rng: np.random.Generator) -> list[Sample]:
    """For std: no reduced group of one element, where it has a corner."""
    return [
        sample(uniform(rng, (2, 3, 4))),
        sample(uniform(rng, (2, 3, 4)), axis=(0, 2), correction=1, keepdims=True),
        sample(uniform(rng, (4,)), correction=1.5),
    ]


def running(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(uniform(rng, (2, 3, 4)), axis=1),
        sample(uniform(rng, (2, 3)), axis=-1, include_initial=True),
        sample(uniform(rng, (4,))),
        sample(uniform(rng, (1,))),
        sample(uniform(rng, (2, 0)), axis=1),
        sample(uniform(rng, (2, 0)), axis=0),
        sample(uniform(rng, (2, 3, 2, 2)), axis=2),
        sample(np.where(uniform(rng, (2, 4)) > 0.8, 0.0, uniform(rng, (2, 4))), axis=1),
    ]


def _running_reference(function: Any, first: float) -> Callable[..., Any]:
    def reference(x: Any, axis: int | None = None, include_initial: bool = False) -> Any:
        out = function(x, axis=0 if axis is None else axis)
        if include_initial:
            shape = list(x.shape)
            shape[axis or 0] = 1
            out = np.concatenate([np.full(shape, first), out], axis=axis)
        return out

    return reference


def _recurrence(a: Any, b: Any, axis: int = -1, reverse: bool = False) -> Any:
    a, b = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
    y = np.zeros_like(b)
    order = range(len(b))
    last = np.zeros_like(b[:1]).sum(axis=0)
    for i in reversed(order) if reverse else order:
        last = y[i] = a[i] * last + b[i]
    return np.moveaxis(y, 0, axis)


def _recurrences(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(uniform(rng, (2, 4)), uniform(rng, (2, 4))),
        sample(uniform(rng, (4, 2)), uniform(rng, (4, 2)), axis=0, reverse=True),
        sample(uniform(rng, (1,)), uniform(rng, (1,))),
        sample(uniform(rng, (2, 0)), uniform(rng, (2, 0))),
    ]


def _diff_samples(rng: np.random.Generator) -> list[Sample]:
    x = uniform(rng, (2, 5))
    return [
        sample(x),
        sample(x, n=2),
        sample(x, axis=0),
        sample(x, n=0),
        sample(uniform(rng, (1,))),
        sample(uniform(rng, (0, 2)), axis=1),
    ]


def _std_of_constants() -> None:
    x = bt.ones((2, 3), dtype=bt.float64).requires_grad_()
    bt.std(x, axis=1).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0] * 3] * 2
    raise AssertionError("as expected")


ROWS = [
    Row(
        bt.sum,
        over_axes(),
        reference=np.sum,
        complex=True,
        large=outer_sums,
        rtol=1e-9,
        errors=(
            (lambda: bt.sum(bt.ones(2), axis=3), ShapeError, "axis"),
            (lambda: bt.sum(bt.ones(2), dim=0), TypeError, "axis="),
            (lambda: bt.sum(bt.ones(2), axis=0, keepdim=True), TypeError, "keepdims="),
        ),
    ),
    Row(
        reduction.mean,
        over_axes(empty=False),
        reference=lambda x, **k: np.sum(x, **k) / (x.size / max(np.sum(x, **k).size, 1)),
        complex=True,
        large=outer_sums,
        errors=((lambda: bt.mean(bt.ones(2), dim=0), TypeError, "axis="),),
    ),
    Row(
        bt.var,
        weighted,
        reference=lambda x, correction=0, **k: np.var(x, ddof=correction, **k),
        complex=True,
        errors=((lambda: bt.var(bt.ones(2), unbiased=False), TypeError, "correction="),),
    ),
    Row(
        bt.std,
        spread,
        reference=lambda x, correction=0, **k: np.std(x, ddof=correction, **k),
        errors=((_std_of_constants, AssertionError, "expected"),),
    ),
    Row(
        bt.prod,
        over_axes(),
        reference=np.prod,
        complex=True,
    ),
    Row(
        bt.prod,
        lambda rng: [
            sample(np.asarray([[1.5, 0.0, 2.0], [0.0, 0.0, 3.0], [1.0, 2.0, 0.5]]), axis=1),
            sample(np.asarray([1.5, 0.0, 2.0])),
        ],
        reference=np.prod,
        name="prod_of_zeros",
    ),
    Row(
        reduction.max,
        over_axes(empty=False, draw=distinct),
        reference=np.max,
        errors=((lambda: bt.max(bt.ones((0, 2)), axis=0), ShapeError, "max"),),
    ),
    Row(reduction.min, over_axes(empty=False, draw=distinct), reference=np.min),
    Row(
        bt.count_nonzero,
        lambda rng: [
            sample(rng.integers(0, 2, (2, 3))),
            sample(rng.integers(0, 2, (2, 3)), axis=1),
        ],
        reference=np.count_nonzero,
        order=0,
    ),
    Row(
        bt.cumulative_sum,
        running,
        reference=_running_reference(np.cumsum, 0),
        complex=True,
        keeps_layout=True,
        errors=(
            (lambda: bt.cumulative_sum(bt.ones((2, 2))), ShapeError, "axis=None"),
            (lambda: bt.cumulative_sum(bt.ones(2), dim=0), TypeError, "axis="),
        ),
    ),
    Row(bt.cumulative_prod, running, reference=_running_reference(np.cumprod, 1), complex=True),
    Row(cumulative.linear_recurrence, _recurrences, reference=_recurrence, complex=True),
    Row(bt.diff, _diff_samples, reference=np.diff),
]

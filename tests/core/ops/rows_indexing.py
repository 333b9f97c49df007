"""Rows of core/ops/indexing.py, searching.py, sorting.py, sets.py and update.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from rows import Row, Sample, distinct, sample, uniform

import bestiary as bt
from bestiary.core.ops import indexing, searching, sets
from bestiary.errors import ConfigError, DtypeError, GradError, IndexRangeError, ShapeError

EVERY = slice(None)
I64 = np.int64


def _index(x: Any, *indices: Any, layout: Any) -> Any:
    rest = iter(indices)
    return tuple(next(rest) if item == indexing.TENSOR else item for item in layout)


def _getitem(x: bt.Tensor, *indices: bt.Tensor, layout: Any) -> bt.Tensor:
    return x[_index(x, *indices, layout=layout)]


def _basic(rng: np.random.Generator) -> list[Sample]:
    layouts: list[tuple[Any, ...]] = [
        (1,),
        (-1, slice(None, None, -1)),
        (slice(0, 2), 1, None),
        (..., 0),
        (1, 2, 3),
        (None, slice(1, 1)),
        (),
        (slice(None, None, 2), ..., slice(-2, None)),
    ]
    made = [sample(uniform(rng, (2, 3, 4)), layout=layout) for layout in layouts]
    made += [sample(uniform(rng, ()), layout=(...,)), sample(uniform(rng, (3,)), layout=(0,))]
    return [*made, sample(uniform(rng, (3, 3, 2, 4)), layout=(slice(1, 3), ..., slice(0, 2)))]


def _advanced(rng: np.random.Generator) -> list[Sample]:
    t = indexing.TENSOR
    x = uniform(rng, (3, 4, 2))
    return [
        sample(x, np.asarray([2, 0, 0, -1], I64), layout=(t,)),
        sample(x, np.asarray([[1, 3], [3, -4]], np.int32), layout=(EVERY, t)),
        sample(x, np.asarray([1, 1], I64), layout=(..., t)),
        sample(x, np.asarray([0, 2], I64), np.asarray([3, 3], I64), layout=(t, t)),
        sample(x, np.asarray([0, 2], I64), np.asarray([1, 0], I64), layout=(t, EVERY, t)),
        sample(x, np.asarray([0, 2], I64), layout=(t, slice(1, 3), 0)),
        sample(x, np.asarray([True, False, True]), layout=(t,)),
        sample(x, uniform(rng, x.shape) > 0, layout=(t,)),
        sample(x, np.asarray([True, False, False, True]), layout=(EVERY, t, None)),
        sample(x, np.asarray(1, I64), layout=(t,)),
        sample(x, np.zeros((0,), I64), layout=(t,)),
        sample(uniform(rng, (0, 2)), np.zeros((0,), I64), layout=(t,)),
        sample(x, np.asarray([[0], [2]], I64), np.asarray([[0, 1, 1]], I64), layout=(t, t)),
        sample(uniform(rng, (3, 3, 2, 4)), np.asarray([2, 0, 2], I64), layout=(t,)),
        sample(uniform(rng, (3, 3, 2, 4)), np.asarray([2, 0], I64), layout=(EVERY, t)),
    ]


def _rows(rng: np.random.Generator) -> list[Sample]:
    """Gradients of lookups as embeddings make them: narrow, middling and wide rows."""
    t = indexing.TENSOR
    return [
        sample(uniform(rng, (50, width)), rng.integers(-50, 50, (40, 5)), layout=(t,))
        for width in (4, 60, 200)
    ] + [sample(uniform(rng, (5, 30, 40)), rng.integers(0, 30, 70), layout=(EVERY, t))]


def _getitem_reference(x: Any, *indices: Any, layout: Any) -> Any:
    return x[_index(x, *indices, layout=layout)]


def _write(x: bt.Tensor, value: Any, *indices: bt.Tensor, layout: Any) -> bt.Tensor:
    copy = x.clone()
    copy[_index(x, *indices, layout=layout)] = value
    return copy


def _write_reference(x: Any, value: Any, *indices: Any, layout: Any) -> Any:
    copy = x.copy()
    copy[_index(x, *indices, layout=layout)] = value
    return copy


def _writes(rng: np.random.Generator) -> list[Sample]:
    t = indexing.TENSOR
    x = uniform(rng, (3, 4))
    return [
        sample(x, uniform(rng, (4,)), layout=(1,)),
        sample(x, 1.5, layout=(slice(0, 2), 1)),
        sample(x, uniform(rng, (2, 1)), layout=(slice(None, None, 2),)),
        sample(x, uniform(rng, (2,)), np.asarray([2, 0], I64), layout=(slice(1), t)),
        sample(x, uniform(rng, (2, 4)), np.asarray([2, 0], I64), layout=(t,)),
        sample(x, 0.5, x > 0, layout=(t,)),
        sample(uniform(rng, ()), 2.0, layout=()),
        sample(uniform(rng, (0, 2)), 1.0, layout=(...,)),
    ]


def _picks(rng: np.random.Generator) -> list[Sample]:
    x = uniform(rng, (3, 4))
    return [
        sample(x, np.asarray([[0, 3], [1, 1], [-1, 2]])),
        sample(x, np.asarray([[0, 2, -3, 1]]), axis=0),
        sample(x, np.asarray([[1, 0]]), axis=1),
        sample(uniform(rng, (1, 4)), np.asarray([[0], [2]])),
        sample(uniform(rng, (4,)), np.asarray([1, 1, 1])),
        sample(x, np.zeros((3, 0), I64)),
        sample(uniform(rng, (2, 3, 2)), rng.integers(0, 3, (2, 5, 2)), axis=1),
        sample(uniform(rng, (2, 3, 2, 4)), rng.integers(0, 3, (2, 3, 2, 4)), axis=1),
    ]


def _picks_reference(x: Any, indices: Any, axis: int = -1) -> Any:
    shape = list(
        np.broadcast_shapes(
            tuple(1 if i == axis % x.ndim else n for i, n in enumerate(x.shape)),
            tuple(1 if i == axis % x.ndim else n for i, n in enumerate(indices.shape)),
        )
    )
    wide, places = list(shape), list(shape)
    wide[axis], places[axis] = x.shape[axis], indices.shape[axis]
    return np.take_along_axis(np.broadcast_to(x, wide), np.broadcast_to(indices, places), axis)


def _puts(rng: np.random.Generator) -> list[Sample]:
    x = uniform(rng, (3, 4))
    unique = np.asarray([[0, 3], [2, 1], [-1, 2]])
    return [
        sample(x, unique, uniform(rng, (3, 2))),
        sample(x, unique, 1.5),
        sample(x, np.asarray([[1, 0, 2, 0]]), uniform(rng, (4,)), axis=0),
        sample(x, np.asarray([[0, 0], [2, 2], [1, 2]]), uniform(rng, (3, 2)), mode="add"),
        sample(x, np.asarray([[0, 0]]), 1.5, axis=1, mode="add"),
        sample(uniform(rng, (2, 3, 2, 4)), np.zeros((2, 1, 2, 4), I64), 0.5, axis=1),
    ]


def _puts_reference(x: Any, indices: Any, values: Any, axis: int = -1, mode: str = "set") -> Any:
    out = x.copy()
    shape = [n if i != axis % x.ndim else indices.shape[i] for i, n in enumerate(x.shape)]
    indices = np.broadcast_to(indices, shape)
    if mode == "set":
        np.put_along_axis(out, indices, values, axis)
        return out
    grid = list(np.indices(shape))
    grid[axis] = indices
    np.add.at(out, tuple(grid), values)
    return out


def _takes(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(uniform(rng, (3, 4)), np.asarray([2, 0, 0]), axis=0),
        sample(uniform(rng, (3, 4)), np.asarray([[1, -1]]), axis=1),
        sample(uniform(rng, (5,)), np.asarray([4, 0])),
    ]


def _sorts(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(distinct(rng, (3, 4))),
        sample(distinct(rng, (3, 4)), axis=0, descending=True),
        sample(distinct(rng, (3, 4)), stable=False),
        sample(distinct(rng, (2, 3, 2, 4)), axis=2),
        sample(distinct(rng, (1,))),
        sample(np.zeros((0, 2))),
    ]


def _sort_reference(x: Any, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    return np.flip(np.sort(x, axis=axis), axis) if descending else np.sort(x, axis=axis)


def _argsorts(rng: np.random.Generator) -> list[Sample]:
    tied = np.asarray([[2.0, 1.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    return [*_sorts(rng), sample(tied), sample(tied, descending=True)]


def _argsort_reference(x: Any, axis: int = -1, descending: bool = False, **_: Any) -> Any:
    return np.argsort(-x if descending else x, axis=axis, kind="stable")


def _tops(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(distinct(rng, (3, 5)), 2),
        sample(distinct(rng, (3, 5)), 2, axis=0, largest=False),
        sample(distinct(rng, (4,)), 4),
        sample(distinct(rng, (4,)), 0),
        sample(distinct(rng, (1,)), 1, largest=False),
    ]


def _top_reference(x: Any, k: int, axis: int = -1, largest: bool = True) -> Any:
    order = np.argsort(-x if largest else x, axis=axis, kind="stable")
    order = np.take(order, np.arange(k), axis=axis)
    return np.take_along_axis(x, order, axis), order


def _repeated(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(np.asarray([[3.0, 1.0], [1.0, 2.0]])),
        sample(rng.integers(0, 4, (3, 3))),
        sample(np.asarray([True, True])),
        sample(np.asarray(1.5)),
        sample(np.zeros((0,))),
    ]


def _unique_reference(x: Any) -> Any:
    values, first, inverse, counts = np.unique(
        x, return_index=True, return_inverse=True, return_counts=True
    )
    return values, first, inverse.reshape(x.shape), counts


def _searches(rng: np.random.Generator) -> list[Sample]:
    ordered = np.sort(uniform(rng, (6,)))
    order = rng.permutation(6)
    return [
        sample(ordered, uniform(rng, (2, 3))),
        sample(ordered, ordered, side="right"),
        sample(ordered, np.asarray(0.1)),
        sample(ordered[order], uniform(rng, (3,)), sorter=np.argsort(ordered[order])),
    ]


def _search(x1: Any, x2: Any, side: str = "left", sorter: Any = None) -> Any:
    sorter = None if sorter is None else bt.Tensor(sorter).to(x1.device)
    return bt.searchsorted(x1, x2, side=side, sorter=sorter)


def _assign(x: bt.Tensor, value: Any) -> bt.Tensor:
    copy = bt.Tensor(x.array.copy())
    bt.assign(copy, value.detach() if isinstance(value, bt.Tensor) else value)
    return copy


def _erased(x: bt.Tensor, *indices: bt.Tensor, layout: Any) -> bt.Tensor:
    return indexing.erase_item(x, *indices, layout=layout)


def _erased_reference(x: Any, *indices: Any, layout: Any) -> Any:
    return _write_reference(x, 0.0, *indices, layout=layout)


def _write_to_view() -> None:
    x = bt.zeros((2, 2))
    x[0][1] = 1.0


ROWS = [
    Row(
        _getitem,
        _basic,
        name="getitem",
        covers=("scatter_add",),
        reference=_getitem_reference,
        view=True,
        keeps_layout=True,
        complex=True,
        errors=(
            (lambda: bt.ones(3)[5], IndexRangeError, r"shape \(3,\)"),
            (lambda: bt.ones(3)[bt.ones(2)], DtypeError, "integer or boolean"),
            (lambda: bt.ones(3)["a"], DtypeError, "index"),
            (_write_to_view, GradError, r"x\[0, 1\] = v"),
        ),
    ),
    Row(
        _getitem,
        _advanced,
        name="getitem_by_tensors",
        keeps_layout=True,
        reference=_getitem_reference,
        complex=True,
        large=_rows,
        errors=((lambda: bt.ones(3)[bt.asarray([3])], IndexRangeError, "out of bounds"),),
    ),
    Row(
        _write,
        _writes,
        name="write_item",
        reference=_write_reference,
        errors=((lambda: bt.ones(3).__setitem__(5, 1.0), IndexRangeError, r"shape \(3,\)"),),
    ),
    Row(
        _erased,
        lambda rng: [
            sample(uniform(rng, (3, 4)), layout=(1,)),
            sample(uniform(rng, (3, 4)), np.asarray([2, 0]), layout=(indexing.TENSOR, 1)),
        ],
        name="erase_item",
        reference=_erased_reference,
    ),
    Row(
        bt.take,
        _takes,
        reference=np.take,
        errors=(
            (lambda: bt.take(bt.ones((2, 2)), bt.asarray([0])), ShapeError, "axis=0"),
            (lambda: bt.take(bt.ones(2), bt.asarray([0]), dim=0), TypeError, "axis="),
        ),
    ),
    Row(
        bt.take_along_axis,
        _picks,
        reference=_picks_reference,
        covers=("scatter_along_axis",),
        keeps_layout=True,
        complex=True,
        errors=(
            (lambda: bt.take_along_axis(bt.ones((2, 2)), bt.asarray([0])), ShapeError, "as many"),
            (lambda: bt.take_along_axis(bt.ones(2), bt.ones(1)), DtypeError, "integers"),
            (lambda: bt.take_along_axis(bt.ones(2), bt.asarray([2])), IndexRangeError, "bounds"),
        ),
    ),
    Row(
        bt.put_along_axis,
        _puts,
        reference=_puts_reference,
        keeps_layout=True,
        errors=(
            (
                lambda: bt.put_along_axis(bt.ones(2), bt.asarray([0]), 1.0, mode="mul"),
                ConfigError,
                "'set' or 'add'",
            ),
        ),
    ),
    Row(
        bt.sort,
        _sorts,
        reference=_sort_reference,
        keeps_layout=True,
        errors=((lambda: bt.sort(bt.ones(2), axis=1), ShapeError, "axis 1"),),
    ),
    Row(bt.argsort, _argsorts, reference=_argsort_reference, order=0),
    Row(
        bt.topk,
        _tops,
        reference=_top_reference,
        errors=((lambda: bt.topk(bt.ones(2), 3), ShapeError, "k=3"),),
    ),
    Row(sets.unique_values, _repeated, reference=np.unique, order=0),
    Row(bt.unique_all, _repeated, reference=_unique_reference, covers=("unique",), order=0),
    Row(
        bt.unique_counts,
        _repeated,
        reference=lambda x: np.unique(x, return_counts=True),
        order=0,
    ),
    Row(
        bt.unique_inverse,
        _repeated,
        reference=lambda x: _unique_reference(x)[::2],
        order=0,
    ),
    Row(
        searching.argmax,
        lambda rng: [
            sample(distinct(rng, (3, 4))),
            sample(distinct(rng, (3, 4)), axis=1, keepdims=True),
            sample(distinct(rng, (3,)), axis=-1),
        ],
        reference=np.argmax,
        order=0,
        errors=((lambda: bt.argmax(bt.ones(2), dim=0), TypeError, "axis="),),
    ),
    Row(
        searching.argmin,
        lambda rng: [sample(distinct(rng, (3, 4))), sample(distinct(rng, (3, 4)), axis=0)],
        reference=np.argmin,
        order=0,
    ),
    Row(
        bt.nonzero,
        lambda rng: [sample(rng.integers(0, 2, (3, 4))), sample(np.zeros((0,)))],
        reference=np.nonzero,
        order=0,
        errors=((lambda: bt.nonzero(bt.asarray(1)), ShapeError, "no places"),),
    ),
    Row(
        _search,
        _searches,
        name="searchsorted",
        reference=np.searchsorted,
        order=0,
        errors=(
            (lambda: bt.searchsorted(bt.ones((2, 2)), bt.ones(2)), ShapeError, "one axis"),
            (lambda: bt.searchsorted(bt.ones(2), bt.ones(2), side="up"), ConfigError, "'left'"),
        ),
    ),
    Row(
        _assign,
        lambda rng: [
            sample(uniform(rng, (2, 3)), uniform(rng, (3,))),
            sample(uniform(rng, (2,)), 0.5),
        ],
        name="assign",
        reference=lambda x, v: np.broadcast_to(v, x.shape),
        order=0,
    ),
]

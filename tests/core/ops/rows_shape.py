"""Rows of core/ops/shape.py, manipulation.py and padding.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rows import Row, Sample, sample, uniform

import bestiary as bt
from bestiary.core.ops import manipulation, shape
from bestiary.errors import ConfigError, IndexRangeError, ShapeError


def of(*calls: tuple[Any, dict[str, Any]]) -> Callable[..., Any]:
    """Samples of one tensor each: pairs (shape, constants)."""

    def samples(rng: np.random.Generator) -> list[Sample]:
        return [sample(uniform(rng, size), **constants) for size, constants in calls]

    return samples


def lists(*groups: tuple[tuple[Any, ...], dict[str, Any]]) -> Callable[..., Any]:
    """Samples of one list of tensors each: pairs (shapes, constants)."""

    def samples(rng: np.random.Generator) -> list[Sample]:
        return [sample([uniform(rng, s) for s in shapes], **k) for shapes, k in groups]

    return samples


def _pad_reference(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
    if mode == "constant":
        return np.pad(x, pad_width, constant_values=constant_values)
    return np.pad(x, pad_width, mode="wrap" if mode == "circular" else mode)  # type: ignore[call-overload]


def _pads(rng: np.random.Generator) -> list[Sample]:
    made = [
        sample(uniform(rng, (2, 3)), pad_width=1),
        sample(uniform(rng, (2, 3)), pad_width=(1, 2), constant_values=1.5),
        sample(uniform(rng, (2, 3)), pad_width=((0, 1), (2, 0))),
        sample(uniform(rng, ()), pad_width=2),
        sample(uniform(rng, (0, 2)), pad_width=1),
    ]
    for mode in ("edge", "reflect", "circular"):
        made += [
            sample(uniform(rng, (3, 4)), pad_width=((1, 2), (0, 3)), mode=mode),
            sample(
                uniform(rng, (2, 3, 3, 3)), pad_width=((0, 0), (0, 0), (1, 2), (2, 1)), mode=mode
            ),
            sample(uniform(rng, (3,)), pad_width=2, mode=mode),
        ]
    return made


def _rolls(rng: np.random.Generator) -> list[Sample]:
    x = uniform(rng, (2, 3, 2, 2))
    return [
        sample(x, shift=1, axis=1),
        sample(x, shift=(1, -2), axis=(0, 3)),
        sample(uniform(rng, (5,)), shift=-2),
        sample(uniform(rng, (2, 3)), shift=4),
        sample(uniform(rng, (0, 2)), shift=1, axis=1),
        sample(uniform(rng, ()), shift=1),
    ]


def _repeats(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(uniform(rng, (2, 3)), 2, axis=1),
        sample(uniform(rng, (2, 3)), 2),
        sample(uniform(rng, (2, 3)), np.asarray([2, 0, 1]), axis=1),
        sample(uniform(rng, (2, 3)), np.asarray([3]), axis=0),
        sample(uniform(rng, ()), 3),
        sample(uniform(rng, (2,)), 0),
        *(sample(uniform(rng, IMAGE), 2, axis=axis) for axis in range(4)),
        sample(uniform(rng, IMAGE), np.asarray([1, 2]), axis=-1),
    ]


def _split_reference(x: Any, sections: Any, axis: int = 0) -> Any:
    if not isinstance(sections, int):
        sections = np.cumsum(sections)[:-1].tolist()
    return tuple(np.split(x, sections, axis))


def _meshes(rng: np.random.Generator) -> list[Sample]:
    return [
        sample(uniform(rng, (2,)), uniform(rng, (3,))),
        sample(uniform(rng, (2,)), uniform(rng, (3,)), uniform(rng, (1,)), indexing="ij"),
        sample(uniform(rng, (2,))),
    ]


IMAGE = (2, 3, 2, 2)

ROWS = [
    Row(shape.identity, of(((2, 3), {}), (IMAGE, {})), reference=lambda x: x, keeps_layout=True),
    Row(
        shape.positive_copy,
        of(((2, 3), {}), ((), {}), ((0, 3), {}), (IMAGE, {})),
        reference=np.copy,
        keeps_layout=True,
        complex=True,
    ),
    Row(
        lambda x, dtype: bt.astype(x, getattr(bt, dtype)),
        of(((2, 3), {"dtype": "float32"}), ((), {"dtype": "int64"})),
        name="astype",
        reference=lambda x, dtype: x.astype(dtype),
        rtol=1e-6,
        order=0,
        dtypes=("float64",),
    ),
    Row(
        lambda x: bt.astype(x, bt.float64),
        of(((2, 3), {}), (IMAGE, {})),
        name="astype_gradient",
        dtypes=("float64",),
        keeps_layout=False,
    ),
    Row(
        bt.reshape,
        of(
            ((2, 6), {"shape": (3, -1)}),
            ((2, 6), {"shape": (3, 4), "copy": True}),
            ((), {"shape": (1, 1)}),
            ((0, 3), {"shape": (3, 0)}),
            ((4,), {"shape": -1}),
        ),
        reference=lambda x, shape, copy=None: np.reshape(x, shape),
        complex=True,
        errors=(
            (lambda: bt.reshape(bt.ones((2, 3)), (4, 2)), ShapeError, "6 values"),
            (lambda: bt.reshape(bt.ones((2, 3)).T, (6,), copy=False), ShapeError, "only as a copy"),
        ),
    ),
    Row(
        bt.permute_dims,
        of(((2, 3, 4), {"axes": (2, 0, 1)}), ((2, 3), {"axes": (-1, 0)}), ((), {"axes": ()})),
        reference=np.transpose,
        complex=True,
        view=True,
        errors=((lambda: bt.permute_dims(bt.ones((2, 3)), (0, 0)), ShapeError, "no order"),),
    ),
    Row(
        bt.matrix_transpose,
        of(((2, 3, 4), {}), ((1, 2), {})),
        reference=lambda x: np.swapaxes(x, -1, -2),
        view=True,
        errors=((lambda: bt.matrix_transpose(bt.ones(2)), ShapeError, "two axes"),),
    ),
    Row(
        bt.expand_dims,
        of(((2, 3), {"axis": 1}), ((2, 3), {"axis": (0, -1)}), ((), {"axis": 0})),
        reference=np.expand_dims,
        view=True,
        errors=(
            (lambda: bt.expand_dims(bt.ones(2), axis=5), IndexRangeError, "axis 5"),
            (lambda: bt.expand_dims(bt.ones(2), dim=0), TypeError, "axis="),
        ),
    ),
    Row(
        bt.squeeze,
        of(((2, 1, 3), {"axis": 1}), ((1, 2, 1), {"axis": (0, -1)}), ((1,), {"axis": 0})),
        reference=np.squeeze,
        view=True,
        errors=((lambda: bt.squeeze(bt.ones((2, 1)), 0), ShapeError, "not size 1"),),
    ),
    Row(
        bt.broadcast_to,
        of(
            ((3,), {"shape": (2, 3)}),
            ((2, 1), {"shape": (4, 2, 3)}),
            ((), {"shape": (2,)}),
            ((1, 2), {"shape": (0, 2)}),
        ),
        reference=np.broadcast_to,
        complex=True,
        view=True,
        errors=((lambda: bt.broadcast_to(bt.ones(2), (3,)), ShapeError, "broadcast"),),
    ),
    Row(
        bt.concat,
        lists(
            (((2, 3), (2, 1)), {"axis": 1}),
            (((2, 3), (0, 3), (1, 3)), {}),
            (((2, 3), (2,)), {"axis": None}),
            ((IMAGE, IMAGE), {"axis": 1}),
            (((2,),), {"axis": -1}),
        ),
        reference=lambda xs, axis=0: np.concatenate(xs, axis=axis),
        keeps_layout=True,
        complex=True,
        errors=(
            (lambda: bt.concat([bt.ones(2), bt.ones((2, 2))]), ShapeError, "concat"),
            (lambda: bt.concat([bt.ones(2)], dim=0), TypeError, "axis="),
        ),
    ),
    Row(
        bt.stack,
        lists((((2, 3), (2, 3)), {}), (((2,), (2,), (2,)), {"axis": -1}), (((), ()), {})),
        reference=lambda xs, axis=0: np.stack(xs, axis=axis),
        errors=((lambda: bt.stack([bt.ones(2), bt.ones(3)]), ShapeError, "stack"),),
    ),
    Row(
        bt.flip,
        of(
            ((2, 3), {}),
            ((2, 3), {"axis": 1}),
            (IMAGE, {"axis": (0, -1)}),
            ((), {}),
            ((0, 2), {"axis": 0}),
        ),
        reference=np.flip,
        view=True,
        errors=((lambda: bt.flip(bt.ones(2), axis=2), ShapeError, "axis=2"),),
    ),
    Row(bt.roll, _rolls, reference=np.roll, keeps_layout=True),
    Row(
        lambda x, source, destination: bt.moveaxis(x, source, destination),
        of(
            ((2, 3, 4), {"source": 0, "destination": -1}),
            ((2, 3, 4), {"source": (0, 1), "destination": (2, 0)}),
        ),
        name="moveaxis",
        reference=np.moveaxis,
        view=True,
    ),
    Row(
        bt.tril,
        of(((3, 4), {}), ((2, 3, 3), {"k": 1}), ((0, 3), {})),
        reference=np.tril,
        errors=((lambda: bt.tril(bt.ones(2)), ShapeError, "two axes"),),
    ),
    Row(bt.triu, of(((3, 4), {}), ((2, 3, 3), {"k": -1})), reference=np.triu),
    Row(
        bt.unstack,
        of(((2, 3), {}), ((2, 3), {"axis": -1}), ((3,), {})),
        reference=lambda x, axis=0: tuple(np.moveaxis(x, axis, 0)),
        view=True,
        errors=((lambda: bt.unstack(bt.ones(2), dim=0), TypeError, "axis="),),
    ),
    Row(
        lambda x, axis=0: bt.unstack(x, axis=axis)[1],
        of(((2, 3), {}), ((2, 3), {"axis": -1})),
        name="unstack_one",
    ),
    Row(
        bt.split,
        of(
            ((4, 3), {"sections": 2}),
            ((2, 6), {"sections": (1, 2, 3), "axis": 1}),
            ((3,), {"sections": (0, 3)}),
        ),
        reference=_split_reference,
        view=True,
        errors=(
            (lambda: bt.split(bt.ones(5), 2), ShapeError, "equal parts"),
            (lambda: bt.split(bt.ones(5), [2, 2]), ShapeError, "add up to 4"),
        ),
    ),
    Row(lambda x: bt.split(x, (1, 2), axis=1)[1], of(((2, 3), {}), (IMAGE, {})), name="split_one"),
    Row(
        bt.broadcast_arrays,
        lambda rng: [sample(uniform(rng, (3,)), uniform(rng, (2, 1)), uniform(rng, ()))],
        reference=lambda *xs: tuple(np.broadcast_arrays(*xs)),
        errors=(
            (lambda: bt.broadcast_arrays(bt.ones(2), bt.ones(3)), ShapeError, "do not broadcast"),
        ),
    ),
    Row(
        bt.meshgrid,
        _meshes,
        reference=lambda *xs, indexing="xy": tuple(np.meshgrid(*xs, indexing=indexing)),
        errors=(
            (lambda: bt.meshgrid(bt.ones(2), indexing="yx"), ConfigError, "'xy' or 'ij'"),
            (lambda: bt.meshgrid(bt.ones((2, 2))), ShapeError, "one axis"),
        ),
    ),
    Row(
        bt.repeat,
        _repeats,
        reference=np.repeat,
        keeps_layout=True,
        errors=((lambda: bt.repeat(bt.ones(3), bt.asarray([1, 2])), ShapeError, "repetitions"),),
    ),
    Row(
        manipulation.repeat_places,
        lambda rng: [sample(np.asarray([2, 0, 1])), sample(np.zeros(0, int))],
        reference=lambda r: np.repeat(np.arange(len(r)), r),
        order=0,
    ),
    Row(
        lambda x, repetitions: bt.tile(x, repetitions),
        of(
            ((2, 3), {"repetitions": (2, 1)}),
            ((3,), {"repetitions": (2, 2)}),
            ((2, 3), {"repetitions": (2,)}),
            ((), {"repetitions": (2,)}),
            ((2,), {"repetitions": (0,)}),
            (IMAGE, {"repetitions": (2, 1, 3, 2)}),
            (IMAGE, {"repetitions": 2}),
        ),
        name="tile",
        reference=lambda x, repetitions: np.tile(x, repetitions),
        keeps_layout=True,
    ),
    Row(
        bt.pad,
        _pads,
        reference=_pad_reference,
        covers=("fold_padding",),
        keeps_layout=True,
        errors=(
            (lambda: bt.pad(bt.ones(2), 2, mode="reflect"), ShapeError, "axis 0 has 2"),
            (lambda: bt.pad(bt.ones(2), 3, mode="circular"), ShapeError, "needs 3"),
            (lambda: bt.pad(bt.ones(0), 1, mode="edge"), ShapeError, "no edge"),
            (lambda: bt.pad(bt.ones(2), 1, mode="wrap"), ConfigError, "circular"),
            (lambda: bt.pad(bt.ones((2, 2)), ((1, 1),)), ShapeError, "one pair an axis"),
        ),
    ),
    Row(
        lambda x: x.cpu(),
        of(((2, 3), {})),
        name="to_device",
        reference=lambda x: x,
        fake=False,
    ),
]

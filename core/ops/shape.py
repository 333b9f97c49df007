"""Operations that move data: shapes, axes, joining, dtype conversion."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .. import dtypes
from ..conversion import converted
from ..devices import Device, backend_of, move
from ..errors import ConfigError, IndexRangeError, ShapeError
from ..mistakes import marked
from ..op import op
from ..spelling import spelled
from ..state import state

if TYPE_CHECKING:
    from ..tensor import Tensor

Shape = tuple[int, ...]
P = ParamSpec("P")
R = TypeVar("R")


@op(raw=True)
def identity(xp: Any, x: Tensor) -> Tensor:
    """The same values with a place of their own in the graph."""
    return x


@identity.backward
def _(g):
    return g


@op(name="astype", raw=True)
def astype(xp: Any, x: Any, *, dtype: dtypes.DType, copy: bool = False) -> Tensor:
    """The values in another dtype; complex numbers lose their imaginary part."""
    if dtype.kind != "c" and x.dtype.kind == "c":
        x = xp.real(x)
    return x.astype(dtype, copy=True) if copy else converted(x, dtype)


@astype.backward
def _(g):
    return g  # the engine casts every gradient to its operand's dtype


def rounded_once(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function made of several operations compute halves in float32 and round its result.

    One operation does so by itself; several would round after each. Under autocast the result
    stays float32, as that of its reductions does.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        found = [a.dtype for a in args if getattr(a, "dtype", None) in dtypes.FLOATS]  # type: ignore[attr-defined]
        if not dtypes.HALVES.intersection(found):
            return function(*args, **kwargs)
        wide: Any = [
            astype(a, dtype=dtypes.float32) if getattr(a, "dtype", None) in dtypes.HALVES else a
            for a in args
        ]
        out: Any = function(*wide, **kwargs)
        target = dtypes.promote_all(found)
        if out.dtype == dtypes.float32 and state.cast is None:
            out = astype(out, dtype=target)
        result: Any = out
        return result

    return call


@op(name="reshape", view=True)
def _reshape(xp: Any, x: Tensor, *, shape: Shape) -> Tensor:
    return x.reshape(shape)


@_reshape.backward
def _(g, shapes):
    return _reshape(g, shape=shapes[0])


@_reshape.explains
def _(error, operands, constants):
    x, shape = operands[0], tuple(constants["shape"])
    count = math.prod(x.shape)
    text = f"reshape: {tuple(x.shape)} holds {count} values, which do not fill {shape}."
    others = math.prod(n for n in shape[1:] if n > 0)
    if shape.count(-1) > 1:
        text += "\nOnly one size may be -1: the one that the others leave over."
    elif -1 not in shape and others and count % others == 0:
        rest = "".join(f", {n}" for n in shape[1:]) or ","
        text += f"\nLeave one size to be worked out: bt.reshape(x, (-1{rest}))"
    elif -1 in shape:
        known = math.prod(n for n in shape if n > 0)
        text += f"\nThe sizes that are given multiply to {known}, which does not divide {count}."
    return ShapeError(text, expected=shape, got=tuple(x.shape))


def reshape(x: Tensor, /, shape: Shape | int, *, copy: bool | None = None) -> Tensor:
    """The same values in another shape; one size may be -1.

    Args:
        copy: True always copies, False raises where a copy would be needed, None decides.
    """
    wanted = (shape,) if isinstance(shape, int) else tuple(shape)
    if copy:
        x = positive_copy(x)
    result: Tensor = _reshape(x, shape=wanted)
    if copy is False and not _shares(result.array, x.array):
        raise ShapeError(
            f"reshape: {tuple(x.shape)} with this memory order becomes {tuple(result.shape)} "
            "only as a copy.\nAllow it: leave copy=False out",
            shape=tuple(x.shape),
        )
    return result


def memory_order(x: Any) -> Shape:
    """The axes of an array from the outermost in memory to the innermost."""
    if x.flags.c_contiguous:
        return tuple(range(x.ndim))
    return tuple(sorted(range(x.ndim), key=lambda a: -x.strides[a]))


def inverse_order(axes: Shape) -> Shape:
    """The order that undoes another."""
    return tuple(axes.index(a) for a in range(len(axes)))


def _shares(a: Any, b: Any) -> bool:
    backend = backend_of(a)
    return backend is not None and bool(backend.xp.may_share_memory(a, b))


@op(raw=True)
def positive_copy(xp: Any, x: Tensor) -> Tensor:
    """A copy that keeps the memory layout."""
    return x.copy(order="K")


@positive_copy.backward
def _(g):
    return g


@op(name="permute_dims", view=True)
def _permute(xp: Any, x: Any, *, axes: Shape) -> Tensor:
    return x.transpose(axes)


@_permute.backward
def _(g, axes):
    return _permute(g, axes=inverse_order(axes))


def permute_dims(x: Tensor, /, axes: Shape) -> Tensor:
    """The axes in another order: `permute_dims(x, (0, 2, 3, 1))` is NCHW to NHWC."""
    chosen = tuple(a % x.ndim if -x.ndim <= a < x.ndim else a for a in axes)
    if sorted(chosen) != list(range(x.ndim)):
        raise ShapeError(
            f"permute_dims: {tuple(axes)} is no order of the {x.ndim} axes of {tuple(x.shape)}.",
            expected=x.ndim,
            got=tuple(axes),
        )
    result: Tensor = _permute(x, axes=chosen)
    return result


def matrix_transpose(x: Tensor, /) -> Tensor:
    """The last two axes exchanged."""
    if x.ndim < 2:
        raise ShapeError(f"matrix_transpose needs two axes or more, got shape {tuple(x.shape)}.")
    return permute_dims(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


@spelled
def expand_dims(x: Tensor, /, axis: int | Shape = 0) -> Tensor:
    """New axes of size 1 at these positions of the result."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    ndim = x.ndim + len(axes)
    for a in axes:
        if not -ndim <= a < ndim:
            raise IndexRangeError(f"expand_dims: axis {a} is out of range for {ndim} axes")
    places = {a % ndim for a in axes}
    if len(places) != len(axes):
        raise ShapeError(f"expand_dims: repeated axis in {axes}")
    sizes = iter(x.shape)
    return reshape(x, tuple(1 if i in places else next(sizes) for i in range(ndim)))


@spelled
def squeeze(x: Tensor, /, axis: int | Shape) -> Tensor:
    """Without these axes, each of which must have size 1."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    for a in axes:
        if not -x.ndim <= a < x.ndim or x.shape[a] != 1:
            raise ShapeError(
                f"squeeze: axis {a} of {tuple(x.shape)} has not size 1", got=tuple(x.shape)
            )
    places = {a % x.ndim for a in axes}
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in places))


@op(name="broadcast_to", view=True)
def _broadcast_to(xp: Any, x: Tensor, *, shape: Shape) -> Tensor:
    return xp.broadcast_to(x, shape)


@_broadcast_to.backward
def _(g):
    return g  # the engine sums over what was broadcast


def broadcast_to(x: Tensor, /, shape: Shape) -> Tensor:
    """Repeated along axes of size 1 and new leading axes, without a copy (do not write to it)."""
    result: Tensor = _broadcast_to(x, shape=tuple(shape))
    return result


@op(name="concat", raw=True)
def _concat(xp: Any, *xs: Tensor, axis: int = 0) -> Tensor:
    return xp.concatenate(xs, axis=axis)


@_concat.backward
def _(g, shapes, needs, axis):
    parts = []
    start = 0
    for shape, needed in zip(shapes, needs, strict=True):
        place = axis % len(shape)
        stop = start + shape[place]
        index = (slice(None),) * place + (slice(start, stop),)
        parts.append(g[index] if needed else None)
        start = stop
    return tuple(parts)


@_concat.explains
def _(error, operands, constants):
    return _unequal_parts("concat", operands, constants.get("axis", 0))


def _unequal_parts(name: str, xs: Any, axis: int | None) -> ShapeError | None:
    """The first of several tensors whose shape does not go with that of the one before all."""
    first = tuple(xs[0].shape)
    for i, x in enumerate(xs):
        shape = tuple(x.shape)
        if len(shape) != len(first):
            return ShapeError(
                f"{name}: tensor 0 has {len(first)} axes {first}, tensor {i} has {len(shape)} "
                f"{shape}.\nA new axis of size 1: x[None], or bt.expand_dims(x, axis=...)",
                shapes=[first, shape],
                indices=(0, i),
            )
        bad = [a for a, (m, n) in enumerate(zip(first, shape, strict=True)) if m != n]
        if axis is not None:
            bad = [a for a in bad if a != axis % len(first)]
        if bad:
            hint = "All of them must have one shape; joined along an axis of theirs: bt.concat"
            if axis is not None:
                hint = f"Sizes may differ on axis {axis} only, along which they are joined."
                if len(bad) == 1 and first[axis] == shape[axis]:
                    hint += f"\nAlong the other one? bt.concat([...], axis={bad[0]})"
            return ShapeError(
                f"{name}: the marked sizes must be equal:\n  tensor 0 {marked(first, bad[0])}\n"
                f"  tensor {i} {marked(shape, bad[0])}\n{hint}",
                shapes=[first, shape],
                indices=(0, i),
            )
    return None


def _common(xs: list[Tensor]) -> list[Tensor]:
    if not xs:
        raise ConfigError("concat and stack need one tensor or more, got an empty list.")
    found = [x.dtype for x in xs]
    if found.count(found[0]) == len(found):
        return xs
    target = dtypes.promote_all(found)
    return [x if x.dtype == target else astype(x, dtype=target) for x in xs]


@spelled
def concat(arrays: Any, /, *, axis: int | None = 0) -> Tensor:
    """Tensors joined along an existing axis; flattened first when `axis` is None."""
    xs = _common(list(arrays))
    if axis is None:
        xs, axis = [reshape(x, (-1,)) for x in xs], 0
    result: Tensor = _concat(*xs, axis=axis)
    return result


@op(name="stack", raw=True)
def _stack(xp: Any, *xs: Tensor, axis: int = 0) -> Tensor:
    return xp.stack(xs, axis=axis)


@_stack.explains
def _(error, operands, constants):
    return _unequal_parts("stack", operands, None)


@_stack.backward
def _(g, shapes, axis):
    place = axis % (len(shapes[0]) + 1)
    return tuple(g[(slice(None),) * place + (i,)] for i in range(len(shapes)))


@spelled
def stack(arrays: Any, /, *, axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    result: Tensor = _stack(*_common(list(arrays)), axis=axis)
    return result


@op(raw=True)
def to_device(xp: Any, x: Tensor, *, device: Device, source: Device) -> Tensor:
    """A copy of a tensor of `source` on `device`."""
    return move(x, device)


@to_device.backward
def _(g, device, source):
    return to_device(g, device=source, source=device)

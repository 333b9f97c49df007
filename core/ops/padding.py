"""Borders around tensors: `bt.pad`, and `pad` of the neural functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ShapeError
from ..op import op

if TYPE_CHECKING:
    from ..tensor import Tensor

Shape = tuple[int, ...]
_MODES = ("constant", "edge", "reflect", "circular")
Widths = tuple[tuple[int, int], ...]


def _edges(mode: str, axis: int, low: int, high: int, size: int) -> list[tuple[Any, Any]]:
    """Index pairs (border, where its values come from) of one axis, in the padded tensor."""
    every = (slice(None),) * axis
    stop = low + size
    if mode == "edge":
        pairs = [
            (slice(0, low), slice(low, low + 1)),
            (slice(stop, stop + high), slice(stop - 1, stop)),
        ]
    elif mode == "reflect":
        end = stop - 2 - high  # a slice downwards to index 0 ends with None, not with -1
        pairs = [
            (slice(0, low), slice(2 * low, low, -1)),
            (slice(stop, stop + high), slice(stop - 2, end if end >= 0 else None, -1)),
        ]
    else:
        pairs = [
            (slice(0, low), slice(size, size + low)),
            (slice(stop, stop + high), slice(low, low + high)),
        ]
    return [
        ((*every, border), (*every, source))
        for (border, source), width in zip(pairs, (low, high), strict=True)
        if width
    ]


def _inside(widths: Widths, shape: Shape) -> tuple[slice, ...]:
    return tuple(slice(low, low + n) for (low, _), n in zip(widths, shape, strict=True))


@op(name="pad", raw=True)
def _pad(xp: Any, x: Tensor, *, widths: Widths, mode: str, value: Any = 0) -> Tensor:
    shape = tuple(n + low + high for n, (low, high) in zip(x.shape, widths, strict=True))
    out = xp.empty_like(x, shape=shape)  # unlike pad of NumPy, in the memory order of x
    if mode == "constant":
        out[...] = value
    out[_inside(widths, x.shape)] = x
    if mode != "constant":
        for axis, ((low, high), size) in enumerate(zip(widths, x.shape, strict=True)):
            for border, source in _edges(mode, axis, low, high, size):
                out[border] = out[source]
    return out


@_pad.backward
def _(g, shapes, widths, mode):
    if mode == "constant":
        return g[_inside(widths, shapes[0])]
    return fold_padding(g, widths=widths, mode=mode, shape=shapes[0])


@op
def fold_padding(xp: Any, x: Tensor, *, widths: Widths, mode: str, shape: Shape) -> Tensor:
    """Borders added to where `pad` took them from: its gradient."""
    out = x.copy(order="K")
    for axis in reversed(range(x.ndim)):
        for border, source in _edges(mode, axis, *widths[axis], shape[axis]):
            values = out[border]
            if mode == "edge":
                values = values.sum(axis=axis, keepdims=True)
            out[source] += values
    return out[_inside(widths, shape)]


@fold_padding.backward
def _(g, widths, mode):
    return _pad(g, widths=widths, mode=mode)


def pad(
    x: Tensor,
    /,
    pad_width: int | Sequence[Any],
    *,
    mode: str = "constant",
    constant_values: float = 0,
) -> Tensor:
    """The tensor with borders.

    Args:
        pad_width: elements before and after: a number for all axes, a pair for all axes, or a
            pair for each axis.
        mode: "constant" (filled with `constant_values`), "edge" (the outermost value),
            "reflect" (mirrored at the outermost value) or "circular" (from the other end).

    Raises:
        ShapeError: a border that reflects or wraps around is longer than the tensor.
    """
    if mode not in _MODES:
        raise ConfigError(f"pad: mode is one of {', '.join(_MODES)}; got {mode!r}", got=mode)
    return _padded(x, _widths(pad_width, x.ndim), mode, constant_values)


def _padded(x: Tensor, widths: Widths, mode: str, value: float) -> Tensor:
    """`pad` with checked borders, which must not be longer than what they repeat."""
    limit = {"reflect": 1, "circular": 0}.get(mode)
    for axis, (low, high) in enumerate(widths):
        size = x.shape[axis]
        if limit is not None and max(low, high) > size - limit:
            raise ShapeError(
                f"pad: a {mode} border of {max(low, high)} needs {max(low, high) + limit} "
                f"elements, axis {axis} has {size}.",
                axis=axis,
                size=size,
            )
        if mode == "edge" and size == 0 and (low or high):
            raise ShapeError(f"pad: axis {axis} is empty and has no edge to repeat", axis=axis)
    return _pad(x, widths=widths, mode=mode, value=value)


def _widths(value: Any, ndim: int) -> Widths:
    if isinstance(value, int):
        pairs: list[tuple[int, int]] = [(value, value)] * ndim
    elif len(value) == 2 and all(isinstance(n, int) for n in value):
        pairs = [(value[0], value[1])] * ndim
    else:
        pairs = [(n, n) if isinstance(n, int) else (int(n[0]), int(n[1])) for n in value]
    if len(pairs) != ndim or any(n < 0 for pair in pairs for n in pair):
        raise ShapeError(
            f"pad: pad_width={value} does not give a border to each of {ndim} axes; "
            "write ((before, after), ...), one pair an axis, none negative.",
            expected=ndim,
            got=value,
        )
    return tuple(pairs)


_TORCH_MODES = {
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "circular",
}


def pad_last_axes(
    x: Tensor, pad: tuple[int, ...], mode: str = "constant", value: float = 0.0
) -> Tensor:
    """Widen the last axes; negative numbers cut them.

    Args:
        pad: (left, right, top, bottom, ...): pairs from the last axis backwards.
        mode: "constant", "reflect" (the edge is not repeated), "replicate", "circular".
        value: what the constant mode fills in.

    Raises:
        ShapeError: more pairs than axes, or a reflection longer than the image.
    """
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ShapeError(
            f"pad: {tuple(pad)} are no pairs for the last axes of {tuple(x.shape)}.",
            got=tuple(pad),
        )
    if mode not in _TORCH_MODES:
        raise ConfigError(f"pad: modes are {', '.join(_TORCH_MODES)}; got {mode!r}", got=mode)
    pairs = [(int(pad[i]), int(pad[i + 1])) for i in range(0, len(pad), 2)]
    widths = [(0, 0)] * (x.ndim - len(pairs)) + pairs[::-1]
    if any(a < 0 or b < 0 for a, b in widths):
        if any(n + min(a, 0) + min(b, 0) < 0 for n, (a, b) in zip(x.shape, widths, strict=True)):
            raise ShapeError(f"pad: {tuple(pad)} cuts more than {tuple(x.shape)} has.")
        x = x[
            tuple(
                slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, widths, strict=True)
            )
        ]
        widths = [(max(a, 0), max(b, 0)) for a, b in widths]
    if not any(a or b for a, b in widths):
        return x
    return _padded(x, tuple(widths), _TORCH_MODES[mode], value)

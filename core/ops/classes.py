"""Class ids: checking them, taking the value of each row's class, the log-likelihood of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import dtypes
from ..errors import ConfigError, DtypeError, IndexRangeError, ShapeError
from ..op import op

if TYPE_CHECKING:
    from ..tensor import Tensor


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """The mean or the sum of a loss, or the loss itself."""
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    check_reduction(reduction)
    return loss


def check_reduction(reduction: str) -> None:
    """Raises: ConfigError."""
    if reduction not in ("mean", "sum", "none"):
        raise ConfigError(f"reduction is 'mean', 'sum' or 'none', got {reduction!r}", got=reduction)


def class_rows(x: Any) -> Any:
    """(B, C, ...) as (rows, C); no copy where the memory is channels-last."""
    last = x if x.ndim == 2 else x.transpose(0, *range(2, x.ndim), 1)
    return last.reshape(math.prod(last.shape[:-1]), last.shape[-1])


def from_class_rows(rows: Any, shape: tuple[int, ...]) -> Any:
    if len(shape) == 2:
        return rows
    last = rows.reshape(shape[0], *shape[2:], shape[1])
    return last.transpose(0, len(shape) - 1, *range(1, len(shape) - 1))


def checked_ids(xp: Any, ids: Any, classes: int, ignore_index: int, where: str) -> tuple[Any, Any]:
    """Class ids as a flat array with 0 where they are ignored, and which are not ignored."""
    flat = ids if ids.ndim == 1 else ids.reshape(-1)
    if flat.dtype != np.int64:
        flat = flat.astype(np.int64)
    # The common case: every id is a class, and none is ignored. As unsigned numbers, negative
    # ids are larger than any class.
    if ignore_index < 0 and (flat.size == 0 or flat.view(np.uint64).max() < classes):
        return flat, None
    valid = flat != ignore_index
    bad = valid & ((flat < 0) | (flat >= classes))
    if bad.any():
        first = int(bad.argmax())
        value = int(flat[first])
        place = tuple(int(i) for i in np.unravel_index(first, ids.shape))
        used = flat[valid]
        hint = f"Class ids go from 0 to {classes - 1}."
        if int(used.min()) >= 1 and int(used.max()) == classes:
            hint += "\nThey start at 1 here? Subtract it: target - 1"
        elif value < 0:
            hint += f"\nPositions to leave out? Pass ignore_index={value}"
        else:
            hint += f"\nMore classes than the head has? Give it {int(used.max()) + 1} outputs."
        raise IndexRangeError(
            f"{where}: target {value} at index {place[0] if len(place) == 1 else place} is out of "
            f"range for {classes} classes.\n{hint}",
            value=value,
            index=place,
            classes=classes,
        )
    return xp.where(valid, flat, 0), valid


def denominator(total: Any) -> Any:
    return total + (total == 0)  # nothing counted: the mean is 0, not 0 / 0


def check_target_shape(where: str, x: Tensor, target: Tensor) -> None:
    expected = (x.shape[0], *x.shape[2:])
    if target.shape != expected:
        hint = ""
        if target.shape == (*expected, 1):
            hint = "\nDrop the last axis: target[..., 0]"
        elif target.shape == x.shape:
            hint = "\nOne-hot integers? Class ids: bt.argmax(target, axis=1), or floats as weights"
        elif len(target.shape) == 2 and x.ndim == 1:
            hint = "\nThe logits come first: cross_entropy(logits, target)"
        elif len(target.shape) == len(expected) == 1:
            hint = "\nOne target for each row: was one of them cut, or not batched with the other?"
        elif x.ndim == 3 and target.shape == x.shape[:2]:
            hint = (
                "\nClasses are on axis 1; tokens last: x.reshape(-1, classes), target.reshape(-1)"
            )
        raise ShapeError(
            f"{where}: logits {tuple(x.shape)} go with targets {expected}, got "
            f"{tuple(target.shape)}.{hint}",
            expected=expected,
            got=tuple(target.shape),
        )


# -- negative log-likelihood -------------------------------------------------------------------


@op
def pick_class(xp: Any, x: Tensor, target: Tensor, *, ignore_index: int) -> Tensor:
    """The value of each row's class; 0 where it is ignored. (B, C, ...) gives (B, ...)."""
    rows: Any = class_rows(x)
    ids, valid = checked_ids(xp, target, rows.shape[1], ignore_index, "nll_loss")
    out = rows[xp.arange(rows.shape[0]), ids]
    return (out if valid is None else xp.where(valid, out, xp.zeros_like(out))).reshape(
        target.shape
    )


@pick_class.backward
def _(g, x, target, ignore_index):
    return spread_class(g, target, shape=x.shape, ignore_index=ignore_index), None


@op
def spread_class(
    xp: Any, values: Tensor, target: Tensor, *, shape: tuple[int, ...], ignore_index: int
) -> Tensor:
    """Zeros of `shape` with a value at each row's class: the transpose of `pick_class`."""
    rows: Any = xp.zeros((math.prod(target.shape), shape[1]), values.dtype)
    ids, valid = checked_ids(xp, target, shape[1], ignore_index, "nll_loss")
    flat = values.reshape(-1)
    rows[xp.arange(rows.shape[0]), ids] = flat if valid is None else flat * valid
    return from_class_rows(rows, shape)


@spread_class.backward
def _(g, target, ignore_index):
    return pick_class(g, target, ignore_index=ignore_index), None


@op(outputs=2, differentiable=False)
def class_weights(
    xp: Any,
    target: Tensor,
    weight: Tensor | None,
    *,
    classes: int,
    ignore_index: int,
    dtype: dtypes.DType,
) -> tuple[Tensor, Tensor]:
    """The weight of each target's class, 0 where it is ignored; and 1 or 0 alike."""
    ids, valid = checked_ids(xp, target, classes, ignore_index, "nll_loss")
    used: Any = xp.ones(ids.shape, dtype) if valid is None else valid.astype(dtype)
    of_row = used if weight is None else weight[ids] * used
    return of_row.reshape(target.shape), used.reshape(target.shape)


def nll_loss(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-likelihood: minus the log-probability of each row's class.

    Shape: x (B, C) or (B, C, ...) log-probabilities, target (B,) or (B, ...).
    """
    check_reduction(reduction)
    if x.ndim == 1:
        x, target = x[None], target[None]
        if reduction == "none":
            return nll_loss(x, target, weight, ignore_index, "none")[0]
    if target.dtype.kind not in "iu":
        raise DtypeError(
            f"nll_loss: targets are integer class ids, got {target.dtype}.\n"
            "Convert them: target.astype(bt.int64)",
            got=str(target.dtype),
        )
    check_target_shape("nll_loss", x, target)
    of_row, _ = class_weights(
        target, weight, classes=x.shape[1], ignore_index=ignore_index, dtype=x.dtype
    )
    loss = -(pick_class(x, target, ignore_index=ignore_index) * of_row)
    if reduction != "mean":
        return reduced(loss, reduction)
    return loss.sum() / denominator(of_row.sum())


@op(name="one_hot", differentiable=False)
def _one_hot(xp: Any, ids: Tensor, *, classes: int) -> Tensor:
    return (ids[..., None] == xp.arange(classes)).astype(np.int64)


def one_hot(ids: Tensor, num_classes: int = -1) -> Tensor:
    """Integers 0 and 1, with a 1 at each id; -1 takes the largest id for the last class.

    Raises:
        IndexRangeError: an id outside the classes.
    """
    if ids.dtype.kind not in "iu":
        raise DtypeError(f"one_hot: ids are integers, got {ids.dtype}.", got=str(ids.dtype))
    least, most = (int(ids.min().item()), int(ids.max().item())) if ids.size else (0, -1)
    classes = most + 1 if num_classes == -1 else num_classes
    if least < 0 or most >= classes:
        value = least if least < 0 else most
        raise IndexRangeError(
            f"one_hot: id {value} is out of range for {classes} classes.",
            value=value,
            classes=classes,
        )
    return _one_hot(ids, classes=classes)

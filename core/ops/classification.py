"""Losses over classes: cross-entropy with class ids or soft targets, negative log-likelihood."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import dtypes
from ..errors import ConfigError, DtypeError, IndexRangeError, ShapeError
from ..notice import warn_once
from ..op import Node, op
from .reduction import sum as sum_over
from .shape import reshape
from .softmax import log_softmax

if TYPE_CHECKING:
    from ..tensor import Tensor

_BLOCK = 131072  # logits that are worked on at once


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


# -- class ids ---------------------------------------------------------------------------------


def _class_rows(x: Any) -> Any:
    """(B, C, ...) as (rows, C); no copy where the memory is channels-last."""
    last = x if x.ndim == 2 else x.transpose(0, *range(2, x.ndim), 1)
    return last.reshape(math.prod(last.shape[:-1]), last.shape[-1])


def _from_class_rows(rows: Any, shape: tuple[int, ...]) -> Any:
    if len(shape) == 2:
        return rows
    last = rows.reshape(shape[0], *shape[2:], shape[1])
    return last.transpose(0, len(shape) - 1, *range(1, len(shape) - 1))


def _checked_ids(xp: Any, ids: Any, classes: int, ignore_index: int, where: str) -> tuple[Any, Any]:
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


def _row_weights(xp: Any, ids: Any, valid: Any, weight: Any, dtype: Any) -> Any:
    """The weight of each row, 0 where it is ignored; None if all are 1."""
    if weight is None:
        return None if valid is None else valid.astype(dtype)
    rows = weight[ids]
    return rows if valid is None else rows * valid


def _log_sum_exp(xp: Any, rows: Any) -> Any:
    top = rows.max(1)
    out = rows - top[:, None]
    xp.exp(out, out=out)
    out = out.sum(1)
    xp.log(out, out=out)
    out += top
    return out


def _smooth(rows: Any, lse: Any, weight: Any, smoothing: float) -> Any:
    """The part of the loss that label smoothing adds: all classes, evenly."""
    share = smoothing / rows.shape[1]
    if weight is None:
        return smoothing * lse - share * rows.sum(1)
    return share * (weight.sum() * lse - rows @ weight)


def _cross_entropy_of(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    *,
    reduction: str,
    ignore_index: int,
    smoothing: float,
) -> tuple[Tensor, None]:
    logs = log_softmax(x, 1)
    of_target, of_row = class_weights(
        target, weight, classes=x.shape[1], ignore_index=ignore_index, dtype=x.dtype
    )
    loss = -(pick_class(logs, target, ignore_index=ignore_index) * of_target) * (1 - smoothing)
    if smoothing:
        every = logs
        if weight is not None:
            every = logs * reshape(weight, (-1,) + (1,) * (x.ndim - 2))
        loss = loss - sum_over(every, axis=1) * of_row * (smoothing / x.shape[1])
    if reduction == "none":
        return loss, None
    total = loss.sum()
    if reduction == "sum":
        return total, None
    return total / _denominator(of_target.sum()), None


def _denominator(total: Any) -> Any:
    return total + (total == 0)  # nothing counted: the mean is 0, not 0 / 0


@op(name="cross_entropy", outputs=2, same_float=True, composite=_cross_entropy_of)
def _cross_entropy(
    xp: Any,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    *,
    reduction: str,
    ignore_index: int,
    smoothing: float,
) -> tuple[Tensor, Tensor]:
    """The loss, and the logsumexp of each row for the gradient (in float64 if x is a half)."""
    rows: Any = _class_rows(x)
    count, classes = rows.shape
    ids, valid = _checked_ids(xp, target, classes, ignore_index, "cross_entropy")
    of_row = _row_weights(xp, ids, valid, weight, rows.dtype)
    step = max(_BLOCK // max(classes, 1), 1) if xp is np else max(count, 1)
    if count <= step:
        lse = _log_sum_exp(xp, rows) if count else rows.sum(1)
    else:
        lse = xp.empty(count, rows.dtype)
        for start in range(0, count, step):
            lse[start : start + step] = _log_sum_exp(xp, rows[start : start + step])
    loss = lse - rows[xp.arange(count), ids]
    if of_row is not None:
        loss *= of_row
    if smoothing:
        loss *= 1 - smoothing
        smooth = _smooth(rows, lse, weight, smoothing)
        loss += smooth if valid is None else smooth * valid
    lse = lse.astype(np.float64)
    if reduction == "none":
        return loss.reshape(target.shape), lse
    total = loss.sum()
    if reduction == "mean":
        total = total / _denominator(count if of_row is None else of_row.sum())
        total = total.astype(rows.dtype)
    return total, lse


@_cross_entropy.backward
def _(g, x, target, weight, out, reduction, ignore_index, smoothing):
    dx = cross_entropy_backward(
        g[0],
        x,
        target,
        weight,
        out[1],
        reduction=reduction,
        ignore_index=ignore_index,
        smoothing=smoothing,
    )
    return dx, None, None


@op
def cross_entropy_backward(
    xp: Any,
    grad: Tensor,
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    lse: Tensor,
    *,
    reduction: str,
    ignore_index: int,
    smoothing: float,
) -> Tensor:
    """The gradient of cross-entropy for the logits: the probabilities, less the target's."""
    rows: Any = _class_rows(x)
    count, classes = rows.shape
    ids, valid = _checked_ids(xp, target, classes, ignore_index, "cross_entropy")
    of_row = _row_weights(xp, ids, valid, weight, rows.dtype)
    # One factor for all rows, or a column of them.
    scale: Any = grad.reshape(-1, 1) if reduction == "none" else grad
    if reduction == "mean":
        scale = scale / _denominator(count if of_row is None else of_row.sum())
    if scale.dtype != rows.dtype:
        scale = scale.astype(rows.dtype)
    hit = scale if of_row is None else scale * of_row[:, None]
    every = None
    if smoothing:
        hit = hit * (1 - smoothing)
        every = scale * (smoothing / classes)
        every = every if valid is None else every * valid[:, None]
    by_p = hit
    if every is not None:
        by_p = hit + every * (classes if weight is None else weight.sum())
    out = xp.empty_like(rows)
    step = max(_BLOCK // max(classes, 1), 1) if xp is np else max(count, 1)
    shift = lse.astype(rows.dtype)[:, None]
    for start in range(0, count, step):
        block = slice(start, start + step)
        p = xp.subtract(rows[block], shift[block], out=out[block])
        xp.exp(p, out=p)
        p *= by_p if by_p.ndim == 0 else by_p[block]
        if every is not None:
            part = every if every.ndim == 0 else every[block]
            p -= part if weight is None else part * weight
    out[xp.arange(count), ids] -= hit if hit.ndim == 0 else hit[:, 0]
    return _from_class_rows(out, x.shape)


def cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of logits with class ids or with soft targets.

    Args:
        target: class ids (integers), or a probability for each class (floats, x's shape).
        weight: a weight for each class.
        ignore_index: rows with this id count for nothing.
        label_smoothing: how much of the target is spread evenly over the classes.

    The mean is over the weights of the rows that count; if none does, it is 0.

    Shape: x (B, C) or (B, C, ...), target (B,) or (B, ...).
    Raises:
        DtypeError: floating targets that are no probabilities of classes.
        IndexRangeError: a class id that the logits do not have.
    """
    if reduction != "mean":
        check_reduction(reduction)
    shape, ids = x.shape, target.shape
    if len(shape) == 1:
        x, target = x[None], target[None]
        if reduction == "none":
            return cross_entropy(x, target, weight, ignore_index, "none", label_smoothing)[0]
    if weight is not None and weight.shape != (x.shape[1],):
        raise ShapeError(
            f"cross_entropy: weight has shape {tuple(weight.shape)}, the logits {x.shape[1]} "
            "classes on axis 1.",
            expected=(x.shape[1],),
            got=tuple(weight.shape),
        )
    _warn_of_probabilities(x)
    if target.dtype.kind not in "iu":
        return _soft_cross_entropy(x, target, weight, reduction, label_smoothing)
    if not (len(shape) == 2 and ids == shape[:1]):
        _check_target_shape("cross_entropy", x, target)
    out: Tensor = _cross_entropy(
        x,
        target,
        weight,
        reduction=reduction,
        ignore_index=ignore_index,
        smoothing=float(label_smoothing),
    )[0]
    return out


def _check_target_shape(where: str, x: Tensor, target: Tensor) -> None:
    expected = (x.shape[0], *x.shape[2:])
    if target.shape != expected:
        hint = ""
        if target.shape == (*expected, 1):
            hint = "\nDrop the last axis: target[..., 0]"
        elif target.shape == x.shape:
            hint = "\nOne-hot integers? Class ids: bt.argmax(target, axis=1), or floats as weights"
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


def _soft_cross_entropy(
    x: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float
) -> Tensor:
    if target.shape != x.shape or target.dtype not in dtypes.FLOATS:
        raise DtypeError(
            f"cross_entropy: targets are integer class ids, got {target.dtype} of shape "
            f"{tuple(target.shape)}.\nClass ids stored as floats? target.astype(bt.int64)\n"
            f"Soft labels? One probability for each class: floats of the logits' shape "
            f"{tuple(x.shape)}.\nYes or no for each class? binary_cross_entropy_with_logits",
            got=str(target.dtype),
        )
    if smoothing:
        target = target * (1 - smoothing) + smoothing / x.shape[1]
    logs = log_softmax(x, 1)
    if weight is not None:
        logs = logs * reshape(weight, (-1,) + (1,) * (x.ndim - 2))
    loss = -sum_over(target * logs, axis=1)
    return reduced(loss, reduction)


_looks = 8  # calls whose values are looked at; the graph is looked at in all


def _warn_of_probabilities(x: Tensor) -> None:
    """Warn, once, when a softmax comes before the loss, which has one itself."""
    global _looks
    node = x._node
    found = isinstance(node, Node) and node.op.name == "softmax"
    if not found and _looks > 0 and x.ndim == 2 and x.shape[1] > 1 and x.shape[0]:
        _looks -= 1
        few = x.array[:4]
        sums = few.astype(np.float32).sum(1)
        found = bool((few >= 0).all() and (abs(sums - 1) < 1e-3).all() and (few < 1).all())
    if found:
        warn_once(
            "softmax before cross_entropy",
            "cross_entropy applies softmax itself, and was given rows that are non-negative and "
            "sum to 1: a softmax applied twice learns slowly.\n"
            "Give it the logits; for log-probabilities use nll_loss.",
        )


# -- negative log-likelihood -------------------------------------------------------------------


@op
def pick_class(xp: Any, x: Tensor, target: Tensor, *, ignore_index: int) -> Tensor:
    """The value of each row's class; 0 where it is ignored. (B, C, ...) gives (B, ...)."""
    rows: Any = _class_rows(x)
    ids, valid = _checked_ids(xp, target, rows.shape[1], ignore_index, "nll_loss")
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
    ids, valid = _checked_ids(xp, target, shape[1], ignore_index, "nll_loss")
    flat = values.reshape(-1)
    rows[xp.arange(rows.shape[0]), ids] = flat if valid is None else flat * valid
    return _from_class_rows(rows, shape)


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
    ids, valid = _checked_ids(xp, target, classes, ignore_index, "nll_loss")
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
    _check_target_shape("nll_loss", x, target)
    of_row, _ = class_weights(
        target, weight, classes=x.shape[1], ignore_index=ignore_index, dtype=x.dtype
    )
    loss = -(pick_class(x, target, ignore_index=ignore_index) * of_row)
    if reduction != "mean":
        return reduced(loss, reduction)
    return loss.sum() / _denominator(of_row.sum())


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

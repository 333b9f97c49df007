"""Cross-entropy with class ids or soft targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import dtypes
from ..errors import DtypeError, ShapeError
from ..node import Node
from ..notice import warn_once
from ..op import op
from .classes import (
    check_reduction,
    check_target_shape,
    checked_ids,
    class_rows,
    class_weights,
    denominator,
    from_class_rows,
    pick_class,
    reduced,
)
from .reduction import sum as sum_over
from .shape import reshape
from .softmax import log_softmax

if TYPE_CHECKING:
    from ..tensor import Tensor

_BLOCK = 131072  # logits that are worked on at once


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
    return total / denominator(of_target.sum()), None


@op(name="cross_entropy", outputs=2, same_float=True, composite=_cross_entropy_of, wide=True)
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
    rows: Any = class_rows(x)
    count, classes = rows.shape
    ids, valid = checked_ids(xp, target, classes, ignore_index, "cross_entropy")
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
        total = total / denominator(count if of_row is None else of_row.sum())
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


@op(wide=True)
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
    rows: Any = class_rows(x)
    count, classes = rows.shape
    ids, valid = checked_ids(xp, target, classes, ignore_index, "cross_entropy")
    of_row = _row_weights(xp, ids, valid, weight, rows.dtype)
    # One factor for all rows, or a column of them.
    scale: Any = grad.reshape(-1, 1) if reduction == "none" else grad
    if reduction == "mean":
        scale = scale / denominator(count if of_row is None else of_row.sum())
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
    return from_class_rows(out, x.shape)


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
        check_target_shape("cross_entropy", x, target)
    out: Tensor = _cross_entropy(
        x,
        target,
        weight,
        reduction=reduction,
        ignore_index=ignore_index,
        smoothing=float(label_smoothing),
    )[0]
    return out


def _soft_cross_entropy(
    x: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float
) -> Tensor:
    if x.dtype not in dtypes.FLOATS and target.dtype in dtypes.FLOATS:
        raise DtypeError(
            f"cross_entropy: the logits are floats, got {x.dtype}; targets {target.dtype}.\n"
            "The other way round? cross_entropy(logits, target)",
            got=str(x.dtype),
        )
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

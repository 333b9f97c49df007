"""Connectionist temporal classification: the loss of a sequence over all its alignments.

Source: Graves et al. 2006, "Connectionist temporal classification".

Letters: T steps, N samples, C classes, S labels of the longest target, L = 2 S + 1 states (the
labels with blanks between and around them).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, IndexRangeError, ShapeError
from ..op import op
from .classes import check_reduction, reduced
from .elementwise import logaddexp, maximum, where
from .shape import astype, concat
from .softmax import logsumexp

if TYPE_CHECKING:
    from ..tensor import Tensor

_NONE = -1e30  # stands for log 0 where infinities would make NaN gradients


def _states(xp: Any, targets: Any, blank: int) -> tuple[Any, Any]:
    """The states' classes (N, L), and which may be entered from two states before."""
    n, s = targets.shape
    states = xp.full((n, 2 * s + 1), blank, np.int64)
    states[:, 1::2] = targets
    skip = xp.zeros(states.shape, bool)
    skip[:, 2:] = (states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2])
    return states, skip


def _shifted(xp: Any, a: Any, by: int) -> Any:
    """States moved by a number of places; log 0 comes in."""
    out = xp.full_like(a, -math.inf)
    if by > 0:
        out[:, by:] = a[:, :-by]
    else:
        out[:, :by] = a[:, -by:]
    return out


def _gathered(xp: Any, logs: Any, states: Any) -> Any:
    """Log-probabilities of the states (T, N, L)."""
    index = xp.broadcast_to(states, (logs.shape[0], *states.shape))
    return xp.take_along_axis(logs, index, axis=2)


def _alphas(xp: Any, emitted: Any, skip: Any, lengths: Any) -> Any:
    """Log-probabilities of reaching each state at each step; frozen after a sample's end."""
    alpha = xp.full_like(emitted[0], -math.inf)
    alpha[:, :2] = emitted[0][:, :2]
    alphas = xp.empty_like(emitted)
    alphas[0] = alpha
    for t in range(1, emitted.shape[0]):
        two = xp.where(skip, _shifted(xp, alpha, 2), -math.inf)
        moved = xp.logaddexp(xp.logaddexp(alpha, _shifted(xp, alpha, 1)), two)
        alpha = xp.where((t < lengths)[:, None], moved + emitted[t], alpha)
        alphas[t] = alpha
    return alphas


def _ends(xp: Any, states: Any, target_lengths: Any) -> Any:
    """Which states (N, L) a sample may end in: the last label and the blank after it."""
    place = xp.arange(states.shape[1])
    last = 2 * target_lengths[:, None]
    return (place == last) | (place == last - 1)


def _logsumexp(xp: Any, a: Any) -> Any:
    top = a.max(1, keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    total = xp.exp(a - top).sum(1)
    empty = total == 0
    return xp.where(empty, -math.inf, xp.log(total + empty) + top[:, 0])


def _ctc_of(
    logs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, *, blank: int
) -> Tensor:
    states, skip, ends = ctc_states(targets, target_lengths, blank=blank, dtype=logs.dtype)
    length = states.shape[1]
    rows = ctc_rows(states)
    emitted = [logs[t][rows, states] for t in range(logs.shape[0])]
    none = (skip * 0)[:, :1] + _NONE
    alpha = concat([emitted[0][:, :2], none * (skip * 0 + 1)[:, 2:]], axis=1)
    for t in range(1, logs.shape[0]):
        one = concat([none, alpha[:, :-1]], axis=1)
        moved = logaddexp(alpha, one)
        if length > 2:
            two = concat([none, none, alpha[:, :-2]], axis=1)
            moved = logaddexp(moved, where(skip > 0, two, _NONE))
        alpha = where((input_lengths > t)[:, None], maximum(moved + emitted[t], _NONE), alpha)
    best = where(ends > 0, alpha, _NONE)
    return -logsumexp(best, axis=1)


@op(outputs=3, differentiable=False)
def ctc_states(
    xp: Any, targets: Tensor, target_lengths: Tensor, *, blank: int, dtype: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Classes of the states; 1 where a state may be skipped to, and where a sample may end."""
    states, skip = _states(xp, targets, blank)
    return states, skip.astype(dtype), _ends(xp, states, target_lengths).astype(dtype)


@op(differentiable=False)
def ctc_rows(xp: Any, states: Tensor) -> Tensor:
    """The number of each sample, as a column."""
    return xp.arange(states.shape[0])[:, None]


@op(name="ctc", composite=_ctc_of, wide=True)
def _ctc(
    xp: Any,
    logs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    *,
    blank: int,
) -> Tensor:
    states, skip = _states(xp, targets, blank)
    alphas = _alphas(xp, _gathered(xp, logs, states), skip, input_lengths)
    return -_logsumexp(xp, xp.where(_ends(xp, states, target_lengths), alphas[-1], -math.inf))


@_ctc.backward
def _(g, logs, targets, input_lengths, target_lengths, blank):
    dlogs = ctc_backward(g, logs, targets, input_lengths, target_lengths, blank=blank)
    return dlogs, None, None, None


@op(wide=True)
def ctc_backward(
    xp: Any,
    grad: Tensor,
    logs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    *,
    blank: int,
) -> Tensor:
    """The gradient for the log-probabilities: minus the expected use of each class."""
    states, skip = _states(xp, targets, blank)
    emitted = _gathered(xp, logs, states)
    alphas = _alphas(xp, emitted, skip, input_lengths)
    ends = _ends(xp, states, target_lengths)
    total = _logsumexp(xp, xp.where(ends, alphas[-1], -math.inf))
    possible = xp.isfinite(total)[:, None]  # nothing flows where no alignment fits
    base = xp.where(xp.isfinite(total), total, xp.zeros_like(total))[:, None]
    from_two = xp.zeros_like(skip)
    from_two[:, :-2] = skip[:, 2:]
    use = xp.zeros_like(emitted)
    after = xp.full_like(emitted[0], -math.inf)  # log-probability of what follows a state
    for t in range(emitted.shape[0] - 1, -1, -1):
        last = (input_lengths - 1 == t)[:, None]
        if t + 1 < emitted.shape[0]:
            next_ = after + emitted[t + 1]
            two = xp.where(from_two, _shifted(xp, next_, -2), -math.inf)
            after = xp.logaddexp(xp.logaddexp(next_, _shifted(xp, next_, -1)), two)
        after = xp.where(last, xp.where(ends, 0.0, -math.inf).astype(after.dtype), after)
        used = possible & (t < input_lengths)[:, None]
        use[t] = xp.where(used, xp.exp(alphas[t] + after - base), 0.0)
    out = xp.zeros_like(logs)
    steps = xp.arange(logs.shape[0])[:, None, None]
    samples = xp.arange(states.shape[0])[None, :, None]
    xp.add.at(out, (steps, samples, states[None]), -use * grad[:, None])
    return out


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Minus the log-probability of a target over all its alignments with the steps.

    Args:
        input_lengths, target_lengths: the length of each sample's steps and target.
        blank: the class that says nothing.
        reduction: "mean" divides each sample's loss by its target's length first.
        zero_infinity: 0 instead of infinity for targets that are too long for their steps;
            their gradient is 0 in any case.

    Shape: log_probs (T, N, C) from log_softmax, targets (N, S), or all joined in one axis.
    Raises:
        IndexRangeError: a label that is blank or no class.
        ShapeError: lengths that do not fit.
    """
    check_reduction(reduction)
    if log_probs.ndim != 3 or not 0 <= blank < log_probs.shape[-1]:
        raise ShapeError(
            f"ctc_loss: log_probs are (T, N, C) with blank {blank} among the classes, got "
            f"{tuple(log_probs.shape)}.",
            got=tuple(log_probs.shape),
        )
    from ..creation import asarray

    steps, samples, classes = log_probs.shape
    place = log_probs.device
    inputs = asarray(input_lengths, device=place)
    lengths = asarray(target_lengths, device=place)
    if inputs.shape != (samples,) or lengths.shape != (samples,):
        raise ShapeError(f"ctc_loss: lengths are one for each of {samples} samples.")
    counts = lengths.cpu().array
    if targets.ndim == 1:
        padded = np.full((samples, int(counts.max(initial=0))), (blank + 1) % classes, np.int64)
        flat, start = targets.cpu().array, 0
        if int(counts.sum()) != flat.shape[0]:
            raise ShapeError(
                f"ctc_loss: {flat.shape[0]} joined labels, lengths for {int(counts.sum())}."
            )
        for i, n in enumerate(counts):
            padded[i, :n] = flat[start : start + n]
            start += int(n)
        targets = asarray(padded, device=place)
    _check_ctc(targets, inputs.cpu().array, counts, steps, classes, blank)
    labels = where(_in_target(targets, lengths), targets, (blank + 1) % classes)
    loss = _ctc(log_probs, labels, inputs, lengths, blank=blank)
    if zero_infinity:
        loss = where(loss == math.inf, 0.0, loss)
    if reduction == "mean":
        loss = loss / maximum(astype(lengths, dtype=log_probs.dtype), 1.0)
    return reduced(loss, reduction)


def _in_target(targets: Tensor, lengths: Tensor) -> Tensor:
    from ..creation import arange

    return arange(targets.shape[1], device=targets.device) < lengths[:, None]


def _check_ctc(
    targets: Any, inputs: Any, lengths: Any, steps: int, classes: int, blank: int
) -> None:
    if targets.shape[0] != len(lengths) or (lengths.max(initial=0) > targets.shape[1]):
        raise ShapeError(
            f"ctc_loss: targets {tuple(targets.shape)} do not hold {lengths.tolist()} labels.",
            got=tuple(targets.shape),
        )
    if lengths.min(initial=0) < 0 or inputs.min(initial=1) < 1 or inputs.max(initial=1) > steps:
        raise ConfigError(f"ctc_loss: input lengths go from 1 to {steps}, target lengths from 0.")
    ids = targets.cpu().array
    used = np.arange(ids.shape[1]) < lengths[:, None]
    bad = used & ((ids < 0) | (ids >= classes) | (ids == blank))
    if bad.any():
        where_ = tuple(int(i) for i in np.argwhere(bad)[0])
        raise IndexRangeError(
            f"ctc_loss: label {int(ids[where_])} at {where_} is no class other than the blank "
            f"({blank}); there are {classes} classes.",
            value=int(ids[where_]),
            index=where_,
        )

"""Losses."""

from __future__ import annotations

from typing import Any

import numpy as np
from rows import Array, Row, Sample, sample, uniform

import bestiary as bt
import bestiary.core.nn.functional as F
from bestiary.core.errors import DtypeError, IndexRangeError, ShapeError
from bestiary.core.ops import classes, ctc, loss


def _log_softmax(x: Array) -> Array:
    return np.asarray(x - np.log(np.exp(x).sum(1, keepdims=True)))


def _cross_entropy(
    x: Array,
    target: Array,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """Row by row, from the definition."""
    classes = x.shape[1]
    weight = np.ones(classes) if weight is None else np.asarray(weight)
    logs = np.moveaxis(_log_softmax(x), 1, -1).reshape(-1, classes)
    losses, total = [], 0.0
    for row, t in zip(logs, target.reshape(-1), strict=True):
        if t == ignore_index:
            losses.append(0.0)
            continue
        smooth = -(weight * row).sum() * label_smoothing / classes
        losses.append(-weight[t] * row[t] * (1 - label_smoothing) + smooth)
        total += weight[t]
    if reduction == "none":
        return np.reshape(losses, target.shape)
    return np.asarray(np.sum(losses) / (total or 1.0 if reduction == "mean" else 1.0))


def _class_samples(rng: np.random.Generator) -> list[Sample]:
    x, ids = uniform(rng, (4, 3)), rng.integers(0, 3, (4,))
    ignored = ids.copy()
    ignored[1] = -100
    image, labels = uniform(rng, (2, 3, 2, 2)), rng.integers(0, 3, (2, 2, 2))
    return [
        sample(x, ids),
        sample(x, ignored, reduction="sum"),
        sample(x, ignored, label_smoothing=0.2),
        sample(image, labels, reduction="none"),
        sample(image, labels, label_smoothing=0.1, ignore_index=1),
        sample(x, np.full(4, -100)),
        sample(uniform(rng, (0, 3)), np.zeros(0, np.int64), reduction="sum"),
    ]


def _class_large(rng: np.random.Generator) -> list[Sample]:
    x, ids = uniform(rng, (300, 900), -5, 5), rng.integers(0, 900, (300,))
    return [sample(x, ids), sample(x, ids, label_smoothing=0.1, reduction="none")]


def weighted_cross_entropy(x: Any, target: Any, *, weight: Any, **options: Any) -> Any:
    """With a constant weight for each class."""
    by = bt.asarray(weight, dtype=x.dtype).to(x.device)
    return F.cross_entropy(x, target, by, **options)


def _weighted_samples(rng: np.random.Generator) -> list[Sample]:
    ids = rng.integers(0, 3, (4,))
    weight = (0.5, 1.25, 2.0)
    return [
        sample(uniform(rng, (4, 3)), ids, weight=weight),
        sample(uniform(rng, (4, 3)), ids, weight=weight, label_smoothing=0.2, reduction="sum"),
    ]


def _ids_error() -> Any:
    return F.cross_entropy(_logits(), bt.asarray([1, 2, 3, 3]))


def _logits(*shape: int) -> bt.Tensor:
    return bt.Tensor(np.zeros(shape or (4, 3), np.float32))


def _elementwise(rng: np.random.Generator) -> list[Sample]:
    x, y = uniform(rng, (2, 3)), uniform(rng, (2, 3))
    y = np.where(np.abs(np.abs(x - y) - 1) < 0.05, y + 0.2, y)
    y = np.where(np.abs(x - y) < 0.05, y + 0.2, y)
    return [sample(x, y), sample(x, y, "sum"), sample(x, y, "none"), sample(x[:0], y[:0], "sum")]


def _reduce(values: Array, reduction: str) -> Array:
    return np.asarray({"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction](values))


def _huber(x: Array, y: Array, reduction: str = "mean") -> Array:
    d = np.abs(x - y)
    return _reduce(np.where(d <= 1, d * d / 2, d - 0.5), reduction)


def _probable(rng: np.random.Generator) -> list[Sample]:
    return [sample(uniform(rng, s, 0.1, 0.9), uniform(rng, s, 0.1, 0.9)) for s in ((2, 3), (0, 2))]


def _bce(p: Array, t: Array) -> Array:
    return np.asarray(-(t * np.log(p) + (1 - t) * np.log(1 - p)))


def _bce_logits(x: Array, t: Array, w: Any) -> Array:
    p = 1 / (1 + np.exp(-x))
    return np.asarray(-((1 if w is None else w) * t * np.log(p) + (1 - t) * np.log(1 - p)))


def _ctc(logs: Array, targets: Array, inputs: Array, lengths: Array, *, blank: int) -> Array:
    """Over all alignments, one by one."""
    samples, classes = logs.shape[1:]
    losses = []
    for n in range(samples):
        wanted = [int(v) for v in targets[n, : lengths[n]]]
        total = -np.inf
        for path in np.ndindex(*[classes] * int(inputs[n])):
            said = [c for i, c in enumerate(path) if i == 0 or path[i - 1] != c]
            if [c for c in said if c != blank] == wanted:
                total = np.logaddexp(total, sum(logs[t, n, c] for t, c in enumerate(path)))
        losses.append(-total)
    return np.array(losses)


def _ctc_samples(rng: np.random.Generator) -> list[Sample]:
    logs = np.log(rng.dirichlet(np.ones(3), (5, 2)))
    return [
        sample(logs, np.array([[1, 1], [2, 1]]), np.array([5, 4]), np.array([2, 1]), blank=0),
        sample(logs, np.array([[1], [2]]), np.array([5, 2]), np.array([1, 0]), blank=0),
    ]


def _pairs(rng: np.random.Generator) -> list[Sample]:
    return [sample(uniform(rng, (3, 4)), uniform(rng, (3, 4)))]


def _focal(x: Array, t: Array) -> Array:
    p = 1 / (1 + np.exp(-x))
    right = np.where(t > 0, p, 1 - p)
    return np.asarray(-np.where(t > 0, 0.25, 0.75) * (1 - right) ** 2 * np.log(right))


def _nce(x: Array, y: Array) -> Array:
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    return np.asarray(-np.diag(_log_softmax(x @ y.T / 0.1)).mean())


ROWS = [
    Row(
        F.cross_entropy,
        _class_samples,
        covers=("cross_entropy", "cross_entropy_backward", "class_weights"),
        reference=_cross_entropy,
        half_ulp=1,
        large=_class_large,
        errors=(
            (_ids_error, IndexRangeError, r"(?s)target 3 at index 2.*3 classes.*target - 1"),
            (
                lambda: F.cross_entropy(_logits(), _logits(4)),
                DtypeError,
                "(?s)integer class ids.*float32.*Soft labels",
            ),
            (
                lambda: F.cross_entropy(_logits(2, 5, 3), bt.asarray(np.zeros((2, 5), np.int64))),
                ShapeError,
                "Classes are on axis 1",
            ),
        ),
    ),
    Row(
        weighted_cross_entropy,
        _weighted_samples,
        reference=_cross_entropy,
    ),
    Row(
        classes.pick_class,
        lambda rng: [
            sample(uniform(rng, (4, 3)), np.array([0, 2, -100, 1]), ignore_index=-100),
            sample(uniform(rng, (2, 3, 2)), np.array([[0, 2], [1, 1]]), ignore_index=-100),
        ],
        covers=("spread_class",),
        half_ulp=0,
    ),
    Row(
        F.one_hot,
        lambda rng: [sample(np.array([0, 2, 1]), 4), sample(np.array([[1], [0]]))],
        covers=("one_hot",),
        reference=lambda ids, n=-1: np.eye(ids.max() + 1 if n < 0 else n, dtype=int)[ids],
        order=0,
    ),
    Row(
        F.mse_loss,
        _elementwise,
        reference=lambda x, y, r="mean": _reduce((x - y) ** 2, r),
        half_ulp=None,
        errors=((lambda: F.mse_loss(_logits(3, 1), _logits(3)), ShapeError, "x.*0"),),
    ),
    Row(
        F.l1_loss,
        _elementwise,
        reference=lambda x, y, r="mean": _reduce(np.abs(x - y), r),
        half_ulp=None,
    ),
    Row(F.huber_loss, _elementwise, reference=_huber, half_ulp=None),
    Row(
        F.kl_div,
        lambda rng: [sample(uniform(rng, (2, 3)), uniform(rng, (2, 3), 0.1, 0.9))],
        reference=lambda x, y: np.mean(y * (np.log(y) - x)),
        half_ulp=None,
    ),
    Row(loss.bce, _probable, reference=_bce),
    Row(
        loss.bce_with_logits,
        lambda rng: [
            sample(uniform(rng, (2, 3)), uniform(rng, (2, 3), 0.1, 0.9), uniform(rng, (3,), 1, 2)),
            sample(uniform(rng, (4,)), uniform(rng, (4,), 0.1, 0.9), None),
        ],
        reference=_bce_logits,
    ),
    Row(
        F.sigmoid_focal_loss,
        lambda rng: [sample(uniform(rng, (2, 3)), rng.integers(0, 2, (2, 3)))],
        reference=_focal,
        half_ulp=None,
    ),
    Row(
        ctc._ctc,
        _ctc_samples,
        covers=("ctc_backward", "ctc_states", "ctc_rows"),
        reference=_ctc,
    ),
    Row(
        F.normalize,
        lambda rng: [sample(uniform(rng, (2, 3))), sample(uniform(rng, (3, 2)), axis=0)],
        reference=lambda x, axis=1: x / np.linalg.norm(x, axis=axis, keepdims=True),
        half_ulp=None,
    ),
    Row(F.cosine_similarity, _pairs, half_ulp=None),
    Row(F.info_nce, _pairs, reference=_nce, half_ulp=None),
    Row(
        F.triplet_margin_loss,
        lambda rng: [sample(*(uniform(rng, (3, 4)) for _ in range(3)))],
        half_ulp=None,
    ),
]

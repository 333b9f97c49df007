"""How good a classifier is: accuracy, top-k, confusion, precision and recall of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import IndexRangeError, ShapeError

Array = np.ndarray[Any, Any]


def _checked(scores: Any, targets: Any) -> tuple[Array, Array]:
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise ShapeError(
            f"scores of shape (B, N) and class numbers of shape (B,) are wanted, got "
            f"{scores.shape} and {targets.shape}.",
            scores=scores.shape,
            targets=targets.shape,
        )
    outside = np.flatnonzero((targets < 0) | (targets >= scores.shape[1]))
    if outside.size:
        first = int(outside[0])
        raise IndexRangeError(
            f"target {targets[first]} (sample {first}) is none of the {scores.shape[1]} classes, "
            f"0 to {scores.shape[1] - 1}."
            + ("\nDo your class numbers start at 1?" if targets[first] == scores.shape[1] else ""),
            index=first,
            got=int(targets[first]),
        )
    return scores, targets


def ranks(scores: Any, targets: Any) -> Array:
    """How many classes come before the right one: 0 where it is the best.

    Of equal scores the class with the smaller number comes first, as in `argmax`.

    Shape:
        (B, N), (B,) -> (B,)
    """
    scores, targets = _checked(scores, targets)
    own = scores[np.arange(len(targets)), targets][:, None]
    before = np.arange(scores.shape[1]) < targets[:, None]
    # not (x <= own): a NaN ranks above everything, so a broken model is never right
    higher = ~(scores <= own)
    return np.asarray((higher | ((scores == own) & before)).sum(axis=1))


def top_k(scores: Any, targets: Any, k: int = 5) -> float:
    """The part of samples whose right class is among the `k` best; NaN for no samples."""
    found = ranks(scores, targets)
    return float((found < k).mean()) if found.size else float("nan")


def confusion_matrix(predicted: Any, targets: Any, num_classes: int) -> Array:
    """Counts: rows are the true classes, columns the predicted ones.

    Raises:
        IndexRangeError: a class number outside 0 to num_classes - 1.
    """
    predicted, targets = np.asarray(predicted, np.int64), np.asarray(targets, np.int64)
    if predicted.shape != targets.shape or predicted.ndim != 1:
        raise ShapeError(
            f"two lists of class numbers are wanted, got shapes {predicted.shape} and "
            f"{targets.shape}.",
            predicted=predicted.shape,
            targets=targets.shape,
        )
    for name, values in (("predicted", predicted), ("true", targets)):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise IndexRangeError(
                f"{name} classes reach from {values.min()} to {values.max()}; "
                f"{num_classes} classes are 0 to {num_classes - 1}.",
                got=(int(values.min()), int(values.max())),
            )
    counts = np.bincount(targets * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


@dataclass(frozen=True)
class ClassificationReport:
    """The result of an evaluation.

    Attributes:
        labels: names of the classes.
        confusion: counts, rows true, columns predicted.
        top5: the part of samples whose right class is among the five best; of five classes or
            fewer that says nothing, and it is not shown.
    """

    labels: tuple[str, ...]
    confusion: Array
    top5: float

    @classmethod
    def of(cls, scores: Any, targets: Any, labels: Sequence[str]) -> ClassificationReport:
        """The report of scores (B, N), logits or probabilities, against class numbers (B,).

        Raises:
            ShapeError, IndexRangeError: they do not fit together.
        """
        scores, targets = _checked(scores, targets)
        if len(labels) != scores.shape[1]:
            raise ShapeError(
                f"{len(labels)} labels for scores of {scores.shape[1]} classes",
                expected=scores.shape[1],
                got=len(labels),
            )
        matrix = confusion_matrix(scores.argmax(axis=1), targets, scores.shape[1])
        return cls(tuple(labels), matrix, top_k(scores, targets, 5))

    @property
    def samples(self) -> int:
        """How many there were."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """The part of samples whose best class is right; NaN for no samples."""
        return float(np.trace(self.confusion) / self.samples) if self.samples else float("nan")

    @property
    def support(self) -> Array:
        """Samples of each class."""
        return np.asarray(self.confusion.sum(axis=1))

    @property
    def recall(self) -> Array:
        """Of the samples of a class, the part found; NaN for a class without samples."""
        return _ratio(self.confusion.diagonal(), self.support)

    @property
    def precision(self) -> Array:
        """Of the samples given to a class, the part right; NaN for a class never predicted."""
        return _ratio(self.confusion.diagonal(), self.confusion.sum(axis=0))

    @property
    def f1(self) -> Array:
        """Harmonic mean of precision and recall; NaN for a class that never occurs."""
        return _ratio(2 * self.confusion.diagonal(), self.support + self.confusion.sum(axis=0))

    def mistakes(self, count: int = 5) -> list[tuple[str, str, int]]:
        """The most frequent confusions: true label, predicted label, how often."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        rows, columns = np.unravel_index(order, wrong.shape)
        return [
            (self.labels[i], self.labels[j], int(wrong[i, j]))
            for i, j in zip(rows, columns, strict=True)
            if wrong[i, j]
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values; None in place of NaN and of what says nothing."""
        columns = zip(self.precision, self.recall, self.f1, self.support, strict=True)
        return {
            "samples": self.samples,
            "accuracy": _number(self.accuracy),
            "top5": _number(self.top5) if len(self.labels) > 5 else None,
            "classes": {
                label: {
                    "precision": _number(precision),
                    "recall": _number(recall),
                    "f1": _number(f1),
                    "support": int(support),
                }
                for label, (precision, recall, f1, support) in zip(
                    self.labels, columns, strict=True
                )
            },
            "confusion": self.confusion.tolist(),
        }

    def __str__(self) -> str:
        """A table of the classes that occur, for the terminal."""
        width = max([5, *(len(label) for label in self.labels)])
        width = min(width, 40)
        lines = [f"{'class':<{width}}  precision  recall     f1  samples"]
        for i, label in enumerate(self.labels):
            if self.support[i] or self.confusion[:, i].any():
                numbers = (self.precision[i], self.recall[i], self.f1[i])
                shown = "  ".join(
                    f"{'-' if np.isnan(value) else f'{value:.3f}':>{size}}"
                    for value, size in zip(numbers, (9, 6, 5), strict=True)
                )
                lines.append(f"{label[:width]:<{width}}  {shown}  {self.support[i]:>7}")
        top5 = f", top-5 {self.top5:.4f}" if len(self.labels) > 5 else ""
        lines.append(f"accuracy {self.accuracy:.4f}{top5}, {self.samples} samples")
        return "\n".join(lines)


def _ratio(part: Array, whole: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)

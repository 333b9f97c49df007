"""How good a segmenter is: intersection over union of each class, and accuracy of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import IndexRangeError, ShapeError
from .metrics import confusion_matrix
from .transforms import Array

IGNORE = 255  # in masks: pixels whose class is not known, or does not matter


@dataclass(frozen=True)
class SegmentationReport:
    """The result of an evaluation, over the pixels of all pictures together.

    Attributes:
        labels: names of the classes.
        confusion: counts of pixels, rows true, columns predicted.
        ignored: pixels that the masks leave out.
        pictures: how many there were.
    """

    labels: tuple[str, ...]
    confusion: Array
    ignored: int = 0
    pictures: int = 0

    @classmethod
    def of(
        cls,
        pairs: Iterable[tuple[Any, Any]],
        labels: Sequence[str],
        ignore: int | None = IGNORE,
    ) -> SegmentationReport:
        """The report of predicted and true class maps.

        Args:
            pairs: predicted and true classes of a picture, both (H, W); read one by one.
            ignore: the number in true maps that counts for nothing.
        Raises:
            ShapeError: two maps of a pair differ in size.
            IndexRangeError: a class number that there is no label for.
        """
        count = len(labels)
        confusion = np.zeros((count, count), np.int64)
        ignored = pictures = 0
        for number, (found, truth) in enumerate(pairs):
            predicted, true = np.asarray(found), np.asarray(truth)
            if predicted.shape != true.shape:
                raise ShapeError(
                    f"picture {number}: predicted classes of shape {predicted.shape} and true ones "
                    f"of shape {true.shape}",
                    expected=true.shape,
                    got=predicted.shape,
                )
            valid = np.ones(true.shape, bool) if ignore is None else true != ignore
            try:
                confusion += confusion_matrix(predicted[valid], true[valid], count)
            except IndexRangeError as error:
                raise IndexRangeError(f"picture {number}: {error.message}", **error.facts) from None
            ignored += int(valid.size - valid.sum())
            pictures += 1
        return cls(tuple(labels), confusion, ignored, pictures)

    @property
    def support(self) -> Array:
        """Pixels of each class."""
        return np.asarray(self.confusion.sum(axis=1))

    @property
    def iou(self) -> Array:
        """Intersection over union of each class; NaN for one that is neither there nor found.

        Source: Everingham et al. 2010, "The Pascal Visual Object Classes Challenge", section 4.
        """
        both = self.confusion.diagonal()
        union = self.support + self.confusion.sum(axis=0) - both
        return _ratio(both, union)

    @property
    def mean_iou(self) -> float:
        """The mean over the classes that are there or found; NaN if there is none."""
        found = self.iou[~np.isnan(self.iou)]
        return float(found.mean()) if found.size else float("nan")

    @property
    def accuracy(self) -> float:
        """The part of pixels whose class is right; NaN for no pixels."""
        total = int(self.confusion.sum())
        return float(np.trace(self.confusion) / total) if total else float("nan")

    @property
    def class_accuracy(self) -> Array:
        """Of the pixels of each class, the part found; NaN for a class without pixels."""
        return _ratio(self.confusion.diagonal(), self.support)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values; None in place of NaN."""
        rows = zip(self.labels, self.iou, self.class_accuracy, self.support, strict=True)
        return {
            "pictures": self.pictures,
            "mean_iou": _number(self.mean_iou),
            "pixel_accuracy": _number(self.accuracy),
            "pixels": int(self.confusion.sum()),
            "ignored": self.ignored,
            "classes": {
                label: {"iou": _number(iou), "accuracy": _number(right), "pixels": int(pixels)}
                for label, iou, right, pixels in rows
            },
            "confusion": self.confusion.tolist(),
        }

    def __str__(self) -> str:
        """A table of the classes that occur, for the terminal."""
        width = min(max([5, *(len(label) for label in self.labels)]), 40)
        lines = [f"{'class':<{width}}    IoU  accuracy        pixels"]
        rows = zip(self.labels, self.iou, self.class_accuracy, self.support, strict=True)
        for label, iou, right, pixels in rows:
            if not np.isnan(iou):
                shown = "-" if np.isnan(right) else f"{right:.3f}"
                lines.append(f"{label[:width]:<{width}}  {iou:.3f}  {shown:>8}  {pixels:>12}")
        lines.append(
            f"mean IoU {self.mean_iou:.4f}, pixel accuracy {self.accuracy:.4f}, "
            f"{self.pictures} pictures"
        )
        return "\n".join(lines)


def _ratio(part: Array, whole: Array) -> Array:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)

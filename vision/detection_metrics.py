"""How good a detector is: average precision and recall as COCO defines them.

The definitions, corner cases included, are those of `pycocotools`: overlaps from 0.5 to 0.95,
precision at 101 recalls, crowds and objects of other sizes ignored instead of counted as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.errors import DataError, IndexRangeError
from .boxes import Boxes, box_area

Array = np.ndarray[Any, Any]

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
COUNTS = (1, 10, 100)  # most detections of a class in a picture
#: Areas in pixels, from and to (both included).
AREAS = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
_EPS = float(np.spacing(1))


@dataclass(frozen=True)
class DetectionReport:
    """Average precision (AP) and recall (AR), from 0 to 1; NaN where nothing was there to find.

    Attributes:
        ap: mean over overlaps from 0.5 to 0.95 and over classes: COCO's main figure, "mAP".
        ap50, ap75: at one overlap.
        ap_small, ap_medium, ap_large: of objects below 32 x 32, to 96 x 96, and larger.
        ar1, ar10, ar100: recall with so many boxes in a picture.
        ar_small, ar_medium, ar_large: of objects of one size.
        classes: AP of each class, by name.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    classes: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls, found: Sequence[Boxes], there: Sequence[Boxes], labels: Sequence[str]
    ) -> DetectionReport:
        """Compare what was found with what is there.

        Args:
            found, there: for each picture, in one order.
            labels: names of the classes.
        Raises:
            DataError: other numbers of pictures, or no scores.
            IndexRangeError: a class number without a label.
        """
        _check(found, there, len(labels))
        precision, recall = _evaluate(found, there, len(labels))
        areas = list(AREAS)
        figures = {
            "ap": _mean(precision[:, :, :, 0, -1]),
            "ap50": _mean(precision[0, :, :, 0, -1]),
            "ap75": _mean(precision[5, :, :, 0, -1]),
            **{f"ap_{a}": _mean(precision[:, :, :, areas.index(a), -1]) for a in areas[1:]},
            **{f"ar{n}": _mean(recall[:, :, 0, i]) for i, n in enumerate(COUNTS)},
            **{f"ar_{a}": _mean(recall[:, :, areas.index(a), -1]) for a in areas[1:]},
        }
        classes = {label: _mean(precision[:, :, k, 0, -1]) for k, label in enumerate(labels)}
        return cls(**figures, classes=classes)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: None where a figure is not defined."""
        figures = {k: _json(v) for k, v in vars(self).items() if k != "classes"}
        return {**figures, "classes": {k: _json(v) for k, v in self.classes.items()}}

    def __str__(self) -> str:
        lines = [f"AP {self.ap:.3f}, at IoU 0.5 {self.ap50:.3f}, at 0.75 {self.ap75:.3f}"]
        sizes = ("small", "medium", "large")
        lines.append("AP of " + ", ".join(f"{s} {getattr(self, f'ap_{s}'):.3f}" for s in sizes))
        width = max((len(name) for name in self.classes), default=0)
        lines += [f"  {name.ljust(width)}  {ap:.3f}" for name, ap in self.classes.items()]
        return "\n".join(lines)


def _check(found: Sequence[Boxes], there: Sequence[Boxes], count: int) -> None:
    if len(found) != len(there):
        raise DataError(
            f"boxes were found in {len(found)} pictures and are known of {len(there)}: one entry "
            "for each picture is wanted, empty where there are none.",
            found=len(found),
            there=len(there),
        )
    for i, boxes in enumerate(found):
        if boxes.scores is None:
            raise DataError(f"what was found in picture {i} has no scores", picture=i)
    for i, boxes in enumerate([*found, *there]):
        wrong = (boxes.labels < 0) | (boxes.labels >= count)
        if wrong.any():
            label = int(boxes.labels[wrong][0])
            raise IndexRangeError(
                f"picture {i % max(len(found), 1)} has a box of class {label}, and there are "
                f"{count} classes: 0 to {count - 1}.\nAre its class numbers counted from 1?",
                label=label,
                classes=count,
            )


def _mean(values: Array) -> float:
    """The mean of what is defined; what is not is -1."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else float("nan")


def _json(value: float) -> float | None:
    return None if np.isnan(value) else value


# -- COCO's evaluation -------------------------------------------------------------------------


def _evaluate(found: Sequence[Boxes], there: Sequence[Boxes], classes: int) -> tuple[Array, Array]:
    """Precision (overlap, recall, class, area, count) and recall without its second axis."""
    shape = (len(IOUS), len(RECALLS), classes, len(AREAS), len(COUNTS))
    precision, recall = np.full(shape, -1.0), np.full((shape[0], *shape[2:]), -1.0)
    for label in range(classes):
        pictures = [_Picture(f, t, label) for f, t in zip(found, there, strict=True)]
        pictures = [p for p in pictures if len(p.scores) or len(p.crowd)]
        for a, area in enumerate(AREAS.values()):
            matched = [p.match(area) for p in pictures]
            for m, count in enumerate(COUNTS):
                result = _curve(pictures, matched, count)
                if result is not None:
                    precision[:, :, label, a, m], recall[:, label, a, m] = result
    return precision, recall


class _Picture:
    """The boxes of one class in one picture, those found by falling score."""

    def __init__(self, found: Boxes, there: Boxes, label: int) -> None:
        own = found.labels == label
        scores = found.scores[own] if found.scores is not None else np.zeros(0)
        order = np.argsort(-scores, kind="stable")[: COUNTS[-1]]
        self.scores = scores[order]
        boxes = found.boxes[own][order]
        self.areas = box_area(boxes)
        mine = there.labels == label
        targets = there.boxes[mine]
        none = np.zeros(len(targets), np.bool_)
        self.crowd = none if there.crowd is None else there.crowd[mine]
        own_areas = (targets[:, 2] - targets[:, 0]) * (targets[:, 3] - targets[:, 1])
        self.target_areas = own_areas if there.areas is None else there.areas[mine]
        self.ious = self._overlaps(boxes, targets)

    def _overlaps(self, boxes: Array, targets: Array) -> Array:
        """IoU (found, there); with a crowd, the part of the box that lies in it."""
        low = np.maximum(boxes[:, None, :2], targets[None, :, :2])
        high = np.minimum(boxes[:, None, 2:], targets[None, :, 2:])
        inner = np.maximum(high - low, 0).prod(axis=2)
        union = self.areas[:, None] + box_area(targets)[None] - inner
        whole = np.where(self.crowd[None], self.areas[:, None], union)
        return np.asarray(np.divide(inner, whole, out=np.zeros_like(inner), where=whole > 0))

    def match(self, area: tuple[float, float]) -> tuple[Array, Array, int]:
        """At each overlap, which boxes found something and which do not count; how many to find.

        The best box chooses first, among what no other has. An object that counts is preferred
        to one that does not, and of equal overlaps the later object is taken.
        """
        ignored = self.crowd | (self.target_areas < area[0]) | (self.target_areas > area[1])
        order = np.argsort(ignored, kind="stable")
        ignored, crowd, ious = ignored[order], self.crowd[order], self.ious[:, order]
        least = np.minimum(IOUS, 1 - 1e-10)[:, None]
        taken = np.zeros((len(IOUS), len(ignored)), np.bool_)
        hits = np.zeros((len(IOUS), len(self.scores)), np.bool_)
        free = np.zeros_like(hits)
        rows = np.arange(len(IOUS))
        for i in range(len(self.scores)):
            can = (ious[i] >= least) & (~taken | crowd)
            counted = (can & ~ignored).any(axis=1, keepdims=True)
            can &= ~ignored | ~counted
            hit = can.any(axis=1)
            if not hit.any():
                continue
            overlap = np.where(can, ious[i], -1.0)
            best = overlap.shape[1] - 1 - overlap[:, ::-1].argmax(axis=1)
            hits[:, i] = hit
            free[:, i] = hit & ignored[best]
            taken[rows[hit], best[hit]] = True
        outside = (self.areas < area[0]) | (self.areas > area[1])
        return hits, free | (~hits & outside), int((~ignored).sum())


def _curve(
    pictures: Sequence[_Picture], matched: Sequence[tuple[Array, Array, int]], count: int
) -> tuple[Array, Array] | None:
    """Precision at each recall and the highest recall, for each overlap; None: nothing to find."""
    total = sum(number for _, _, number in matched)
    if total == 0:
        return None
    scores = np.concatenate([p.scores[:count] for p in pictures])
    order = np.argsort(-scores, kind="stable")
    hits = np.concatenate([h[:, :count] for h, _, _ in matched], axis=1)[:, order]
    free = np.concatenate([f[:, :count] for _, f, _ in matched], axis=1)[:, order]
    right = np.cumsum(hits & ~free, axis=1, dtype=np.float64)
    wrong = np.cumsum(~hits & ~free, axis=1, dtype=np.float64)
    precision = np.zeros((len(IOUS), len(RECALLS)))
    recall = np.zeros(len(IOUS))
    if not len(scores):
        return precision, recall
    for t in range(len(IOUS)):
        reached = right[t] / total
        exact = right[t] / (right[t] + wrong[t] + _EPS)
        envelope = np.maximum.accumulate(exact[::-1])[::-1]
        places = np.searchsorted(reached, RECALLS, side="left")
        inside = places < len(envelope)
        precision[t, inside] = envelope[places[inside]]
        recall[t] = reached[-1]
    return precision, recall

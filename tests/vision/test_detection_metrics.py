"""Average precision and recall, against pycocotools and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bestiary.core.errors import DataError, IndexRangeError, ShapeError
from bestiary.core.weights import load_file
from bestiary.vision.boxes import Boxes
from bestiary.vision.detection_metrics import DetectionReport

FIGURES = (
    "ap ap50 ap75 ap_small ap_medium ap_large ar1 ar10 ar100 ar_small ar_medium ar_large"
).split()


def boxes_of(rows: Any, images: int) -> list[Boxes]:
    result = []
    for i in range(images):
        own = rows[rows[:, 0] == i]
        edges = np.concatenate([own[:, 2:4], own[:, 2:4] + own[:, 4:6]], axis=1)
        if rows.shape[1] == 7:
            result.append(Boxes(edges, own[:, 1], scores=own[:, 6]))
        else:
            result.append(Boxes(edges, own[:, 1], areas=own[:, 6], crowd=own[:, 7] > 0))
    return result


@pytest.mark.parametrize("case", range(12))
def test_equals_pycocotools(case: int, references: Path) -> None:
    stored = load_file(references / "detection.safetensors")
    found = boxes_of(stored[f"{case}.found"], 7)
    there = boxes_of(stored[f"{case}.there"], 7)
    report = DetectionReport.of(found, there, ["a", "b", "c"])
    ours = np.array([getattr(report, name) for name in FIGURES])
    expected = np.where(stored[f"{case}.stats"] < 0, np.nan, stored[f"{case}.stats"])
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    each = np.where(stored[f"{case}.classes"] < 0, np.nan, stored[f"{case}.classes"])
    np.testing.assert_allclose(list(report.classes.values()), each, atol=1e-6)


def test_perfect_half_and_nothing() -> None:
    there = [Boxes([[0, 0, 40, 40], [50, 50, 90, 90]], [0, 0])]
    same = [Boxes(there[0].boxes, there[0].labels, scores=[0.9, 0.8])]
    report = DetectionReport.of(same, there, ["square"])
    assert report.ap == pytest.approx(1)
    assert np.isnan(report.ap_small)
    half = [Boxes(there[0].boxes[:1], [0], scores=[0.9])]
    assert DetectionReport.of(half, there, ["square"]).ar100 == pytest.approx(0.5)
    nothing = [Boxes([], [], scores=[])]
    assert DetectionReport.of(nothing, there, ["square"]).ap == 0
    assert DetectionReport.of(nothing, there, ["square"]).to_dict()["ap_small"] is None
    assert "AP 1.000" in str(report)


def test_pictures_without_boxes_and_of_other_classes() -> None:
    report = DetectionReport.of(
        [Boxes([[0, 0, 1, 1]], [1], scores=[1])], [Boxes([], [])], ["a"] * 2
    )
    assert np.isnan(report.ap)


def test_what_makes_no_sense() -> None:
    one = Boxes([[0, 0, 1, 1]], [0], scores=[1])
    with pytest.raises(DataError, match="1 pictures and are known of 2"):
        DetectionReport.of([one], [one, one], ["a"])
    with pytest.raises(IndexRangeError, match="class 3"):
        DetectionReport.of([one], [Boxes([[0, 0, 1, 1]], [3])], ["a", "b", "c"])
    with pytest.raises(DataError, match="no scores"):
        DetectionReport.of([Boxes([[0, 0, 1, 1]], [0])], [one], ["a"])
    with pytest.raises(ShapeError, match="one for each box"):
        Boxes([[0, 0, 1, 1]], [0, 1])

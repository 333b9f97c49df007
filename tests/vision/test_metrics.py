"""Top-k, confusion, precision and recall on cases that can be counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bestiary.core.errors import IndexRangeError, ShapeError
from bestiary.vision.metrics import ClassificationReport, confusion_matrix, ranks, top_k

SCORES = np.array(
    [
        [0.7, 0.2, 0.1],  # 0, right
        [0.1, 0.2, 0.7],  # 2, should be 1: second
        [0.5, 0.3, 0.2],  # 0, should be 2: third
        [0.1, 0.2, 0.7],  # 2, right
    ],
    np.float32,
)
TARGETS = np.array([0, 1, 2, 2])


def test_ranks_and_top_k() -> None:
    np.testing.assert_array_equal(ranks(SCORES, TARGETS), [0, 1, 2, 0])
    assert top_k(SCORES, TARGETS, 1) == 0.5
    assert top_k(SCORES, TARGETS, 2) == 0.75
    assert top_k(SCORES, TARGETS, 3) == 1


def test_equal_scores_are_ranked_as_argmax_does() -> None:
    np.testing.assert_array_equal(ranks(np.ones((3, 3)), [0, 1, 2]), [0, 1, 2])


def test_nan_is_never_right() -> None:
    scores = np.array([[0.1, np.nan, 0.3], [np.nan] * 3])
    assert top_k(scores, [2, 0], 1) == 0


def test_confusion() -> None:
    matrix = confusion_matrix(SCORES.argmax(1), TARGETS, 3)
    np.testing.assert_array_equal(matrix, [[1, 0, 0], [0, 0, 1], [1, 0, 1]])


def test_report() -> None:
    report = ClassificationReport.of(SCORES, TARGETS, ["cat", "dog", "owl"])
    assert report.samples == 4
    assert report.accuracy == 0.5
    assert report.top5 == 1
    np.testing.assert_array_equal(report.support, [1, 1, 2])
    np.testing.assert_allclose(report.recall, [1, 0, 0.5])
    np.testing.assert_allclose(report.precision, [0.5, np.nan, 0.5])
    np.testing.assert_allclose(report.f1, [2 / 3, 0, 0.5])
    assert report.mistakes() == [("dog", "owl", 1), ("owl", "cat", 1)]
    as_json = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert as_json["classes"]["dog"]["precision"] is None
    assert as_json["classes"]["owl"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    text = str(report)
    assert "accuracy 0.5000, 4 samples" in text  # of three classes all are among the first five
    assert as_json["top5"] is None
    assert len(text.splitlines()) == 5


def test_report_of_nothing() -> None:
    report = ClassificationReport.of(np.zeros((0, 2)), np.zeros(0, int), ["a", "b"])
    assert np.isnan(report.accuracy)
    assert report.to_dict()["accuracy"] is None
    assert report.mistakes() == []


def test_targets_out_of_range_name_the_sample() -> None:
    with pytest.raises(IndexRangeError, match=r"target 3 \(sample 1\).*0 to 2") as caught:
        ranks(SCORES, [0, 3, 1, 2])
    assert "start at 1" in str(caught.value)
    assert caught.value.index == 1
    with pytest.raises(IndexRangeError, match="from -1"):
        confusion_matrix([0], [-1], 3)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"\(4, 3\) and \(3,\)"):
        top_k(SCORES, TARGETS[:3])
    with pytest.raises(ShapeError, match="2 labels for scores of 3"):
        ClassificationReport.of(SCORES, TARGETS, ["a", "b"])

"""Box formats, areas, overlaps, non-maximum suppression."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, ShapeError
from bestiary.vision import boxes as B


def random_boxes(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 50, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 40, (count, 2))], axis=1)


@pytest.mark.parametrize("source", B.FORMATS)
@pytest.mark.parametrize("target", B.FORMATS)
def test_formats_there_and_back(source: str, target: str) -> None:
    boxes = random_boxes(5)
    there = B.convert_boxes(boxes, source, target)
    np.testing.assert_allclose(B.convert_boxes(there, target, source), boxes)
    on_tensors = B.convert_boxes(bt.tensor(boxes), source, target)
    np.testing.assert_array_equal(on_tensors.array, there)


def test_formats_by_hand() -> None:
    box = np.array([10.0, 20.0, 30.0, 60.0])
    np.testing.assert_array_equal(B.convert_boxes(box, "xyxy", "xywh"), [10, 20, 20, 40])
    np.testing.assert_array_equal(B.convert_boxes(box, "xyxy", "cxcywh"), [20, 40, 20, 40])
    with pytest.raises(ConfigError, match="xyxy, xywh, cxcywh"):
        B.convert_boxes(box, "xyxy", "yxyx")
    with pytest.raises(ShapeError, match="four numbers"):
        B.convert_boxes(np.zeros((2, 5)), "xyxy", "xywh")


def test_clip_scale_area() -> None:
    box = np.array([[-5.0, 3.0, 120.0, 90.0]])
    np.testing.assert_array_equal(B.clip_boxes(box, 80, 100), [[0, 3, 100, 80]])
    np.testing.assert_array_equal(B.scale_boxes(box, (10, 10), (20, 30)), [[-15, 6, 360, 180]])
    np.testing.assert_array_equal(B.box_area(np.array([[1, 1, 4, 3], [4, 3, 1, 1]])), [6, 0])


def raster_iou(a: Any, b: Any) -> float:
    """By counting pixels."""
    grid = np.zeros((2, 60, 60), bool)
    for plane, (x0, y0, x1, y1) in zip(grid, (a, b), strict=True):
        plane[y0:y1, x0:x1] = True
    return float((grid[0] & grid[1]).sum() / (grid[0] | grid[1]).sum())


def test_iou_is_what_counting_pixels_gives() -> None:
    a, b = (random_boxes(6, seed).astype(int).clip(0, 59) for seed in (1, 2))
    expected = [[raster_iou(x, y) for y in b] for x in a]
    np.testing.assert_allclose(B.box_iou(a, b), expected, atol=1e-12)
    np.testing.assert_allclose(B.paired_iou(a, b), np.diag(expected), atol=1e-12)


def test_giou() -> None:
    a = np.array([[0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 2, 2.0]])
    b = np.array([[0, 0, 2, 2], [3, 0, 4, 1], [1, 1, 3, 3.0]])
    np.testing.assert_allclose(B.paired_giou(a, b), [1, -2 / 4, 1 / 7 - 2 / 9], atol=1e-6)
    assert B.box_giou(a, b).shape == (3, 3)
    empty = np.zeros((1, 4))
    assert np.isfinite(B.paired_giou(empty, empty)).all()


def test_gradients_of_giou() -> None:
    from bestiary.core.testing import gradcheck

    a, b = random_boxes(4, 3), random_boxes(4, 4)
    gradcheck(B.paired_giou, [bt.tensor(a, requires_grad=True), bt.tensor(b, requires_grad=True)])


def test_nms_keeps_the_best_of_what_overlaps() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [0, 0, 10, 9.9]])
    scores = np.array([0.5, 0.9, 0.3, 0.7])
    assert B.nms(boxes, scores, 0.5).tolist() == [1, 2]
    assert B.nms(boxes, scores, 0.7).tolist() == [1, 3, 2]
    assert B.nms(boxes, scores, 1.0).tolist() == [1, 3, 0, 2]
    assert B.nms(np.zeros((0, 4)), np.zeros(0)).tolist() == []
    with pytest.raises(ShapeError, match="scores"):
        B.nms(boxes, scores[:2])
    with pytest.raises(ConfigError, match="iou_threshold"):
        B.nms(boxes, scores, 1.5)


def test_nms_as_defined() -> None:
    boxes, scores = random_boxes(60, 5), np.random.default_rng(6).uniform(size=60).round(1)
    kept = B.nms(boxes, scores, 0.4)
    overlap = B.box_iou(boxes, boxes)
    assert (overlap[np.ix_(kept, kept)] - np.eye(len(kept)) <= 0.4).all()
    for i in set(range(60)) - set(kept.tolist()):
        assert any(overlap[i, k] > 0.4 and scores[k] >= scores[i] for k in kept)


def test_batched_nms_looks_at_each_group_alone() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10.0]])
    scores, groups = np.array([0.2, 0.9, 0.5]), np.array([0, 1, 1])
    assert B.batched_nms(boxes, scores, groups).tolist() == [1, 0]
    with pytest.raises(ShapeError, match="one group"):
        B.batched_nms(boxes, scores, groups[:1])

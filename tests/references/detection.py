"""Average precision of random boxes by pycocotools, assignments by scipy, boxes by definition.

Run: python tests/references/detection.py
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import common
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.optimize import linear_sum_assignment

CASES = 12


def boxes(rng: np.random.Generator, count: int, grid: bool) -> np.ndarray[Any, Any]:
    """Boxes x, y, w, h of all sizes; on a grid, so that some overlaps are equal."""
    size = 400 * rng.uniform(0, 1, (count, 2)) ** 2 + 2
    place = rng.uniform(0, 400, (count, 2))
    result = np.concatenate([place, size], axis=1)
    return np.asarray(np.round(result / 20) * 20 + [0, 0, 1, 1] if grid else result)


def case(seed: int) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    grid = seed % 3 == 0
    classes, images, truths, found = 3, 7, [], []
    for image in range(images):
        there = boxes(rng, int(rng.integers(0, 9)), grid)
        labels = rng.integers(0, classes, len(there))
        for box, label in zip(there, labels, strict=True):
            truths.append(
                {
                    "id": len(truths) + 1,
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3] * rng.choice([1.0, 0.6])),
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
        copies = np.repeat(there, 2, axis=0) + rng.normal(0, 4 * (not grid), (2 * len(there), 4))
        own = np.repeat(labels, 2)
        other = boxes(rng, int(rng.integers(0, 12)), grid)
        all_boxes = np.concatenate([copies, other])
        all_boxes[:, 2:] = np.maximum(all_boxes[:, 2:], 1)
        all_labels = np.concatenate([own, rng.integers(0, classes, len(other))])
        scores = rng.uniform(0, 1, len(all_boxes)).round(1 if grid else 6)
        for box, label, score in zip(all_boxes, all_labels, scores, strict=True):
            found.append(
                {
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": box.tolist(),
                    "score": float(score),
                }
            )
    if seed == 5:  # a class that is nowhere, and found nevertheless
        truths = [t for t in truths if t["category_id"] != 2]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": k} for k in range(classes)],
        "annotations": truths,
        "info": {},
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    each = [precision[:, :, k] for k in range(classes)]
    table = {
        "there": [
            [t["image_id"], t["category_id"], *t["bbox"], t["area"], t["iscrowd"]] for t in truths
        ],
        "found": [[f["image_id"], f["category_id"], *f["bbox"], f["score"]] for f in found],
        "stats": evaluation.stats,
        "classes": [p[p > -1].mean() if (p > -1).any() else -1 for p in each],
    }
    return {f"{seed}.{k}": np.array(v, np.float64) for k, v in table.items()}


def assignments() -> dict[str, np.ndarray[Any, Any]]:
    arrays = {}
    rng = np.random.default_rng(0)
    for i, shape in enumerate([(1, 1), (7, 7), (5, 12), (12, 5), (40, 23), (1, 9), (6, 1)]):
        cost = rng.standard_normal(shape)
        rows, columns = linear_sum_assignment(cost)
        arrays |= {f"assign.{i}.cost": cost, f"assign.{i}.pairs": np.stack([rows, columns])}
    return arrays


if __name__ == "__main__":
    arrays = assignments()
    for seed in range(CASES):
        arrays |= case(seed)
    meta = common.metadata("pycocotools", "scipy", script="detection.py")
    common.save(common.DATA / "detection.safetensors", arrays, meta)

"""Masks of single objects: from outlines that people drew, and from grids over boxes.

Source of `pasted`: torchvision 0.29, `models/detection/roi_heads.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .boxes import Array
from .detection_preprocess import interpolated
from .transforms import Size

Outline = Sequence[Array]  # of one object: polygons (K, 2) of x and y


def filled(outline: Outline, size: Size) -> Array:
    """The pixels whose middle lies inside any polygon of an object.

    Shape:
        -> (H, W), bool
    """
    mask = np.zeros(size, np.bool_)
    for polygon in outline:
        x, y = np.asarray(polygon, np.float64).T
        x1, y1 = np.roll(x, -1), np.roll(y, -1)
        rows = np.arange(size[0])[:, None] + 0.5
        edge = (y <= rows) != (y1 <= rows)
        row, number = np.nonzero(edge)
        part = (row + 0.5 - y[number]) / (y1[number] - y[number])
        cross = x[number] + part * (x1[number] - x[number])
        # Right of an odd number of edges is inside.
        column = np.clip(np.ceil(cross - 0.5), 0, size[1]).astype(np.int64)
        turns = np.zeros((size[0], size[1] + 1), np.int32)
        np.add.at(turns, (row, column), 1)
        mask |= turns.cumsum(axis=1)[:, :-1] % 2 == 1
    return mask


def filled_all(outlines: Sequence[Outline], size: Size) -> Array:
    """The masks of several objects, (N, H, W), bool."""
    masks = [filled(outline, size) for outline in outlines]
    return np.stack(masks) if masks else np.zeros((0, *size), np.bool_)


def moved_outlines(outlines: Any, scale: Any = (1, 1), shift: Any = (0, 0)) -> Any:
    """Outlines scaled, then shifted, along x and y; None stays None."""
    if outlines is None:
        return None
    factor, step = np.asarray(scale, np.float64), np.asarray(shift, np.float64)
    return tuple(tuple(np.asarray(p) * factor + step for p in outline) for outline in outlines)


def pasted(part: Array, box: Array, size: Size, least: float = 0.5) -> Array:
    """Where in a picture the object of a box is.

    Args:
        part: how probably each place of a grid over the box belongs to it, (h, w).
        box: left, upper, right and lower edge in pixels of the picture.
        size: height and width of the picture.
        least: the probability from which a pixel counts.
    Shape:
        (h, w), (4,) -> size, bool
    """
    grid = np.pad(np.asarray(part, np.float32), 1)  # so that edges are smooth
    x0, y0, x1, y1 = np.asarray(box, np.float32)
    half = np.array([y1 - y0, x1 - x0], np.float32) / 2
    half *= np.float32(grid.shape[0] / part.shape[0])
    middle = np.array([y1 + y0, x1 + x0], np.float32) / 2
    low, high = (middle - half).astype(np.int64), (middle + half).astype(np.int64)
    sides = np.maximum(high - low + 1, 1)
    grown = interpolated(grid[None], (int(sides[0]), int(sides[1])))[0]
    mask = np.zeros(size, np.bool_)
    top, left = np.maximum(low, 0)
    bottom, right = np.minimum(low + sides, size)
    inside = grown[top - low[0] : bottom - low[0], left - low[1] : right - low[1]]
    mask[top:bottom, left:right] = inside >= least
    return mask


def run_lengths(mask: Array) -> dict[str, Any]:
    """A mask as COCO JSON has it: lengths of runs, off and on in turn, column by column."""
    flat = np.asarray(mask, np.bool_).T.reshape(-1)
    turns = np.flatnonzero(np.diff(np.concatenate([[False], flat])))
    ends = np.concatenate([[0], turns, [len(flat)]]).astype(np.int64)
    return {"size": list(mask.shape), "counts": np.diff(ends).tolist()}


def as_json(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer of a detector for JSON: with the run lengths of its mask, if it has one."""
    told = {key: value for key, value in answer.items() if key != "mask"}
    return {**told, "segmentation": run_lengths(answer["mask"])} if "mask" in answer else told

"""Regions of feature maps."""

from __future__ import annotations

import numpy as np
from rows import Array, Row, Sample, sample, uniform

import bestiary as bt
from bestiary.core.errors import ConfigError, IndexRangeError, ShapeError
from bestiary.core.ops import roi

BOXES = np.array(
    [
        [0, 1.3, 0.4, 6.1, 4.9],
        [1, -2.0, -1.5, 3.0, 9.0],  # outside above and on the left
        [1, 2.2, 2.2, 2.9, 2.4],  # within a pixel
        [0, 5.0, 3.0, 5.0, 3.0],  # empty
        [0, 20.0, 20.0, 30.0, 30.0],  # wholly outside
    ]
)


def _samples(rng: np.random.Generator) -> list[Sample]:
    x = uniform(rng, (2, 3, 6, 8))
    return [
        sample(x, BOXES, output_size=(2, 3), sampling_ratio=2),
        sample(x, BOXES, output_size=2, sampling_ratio=2, aligned=True),
        sample(x, BOXES[:4], output_size=(3, 2)),
        sample(x, BOXES * [1, 2, 2, 2, 2], output_size=2, spatial_scale=0.5, aligned=True),
        sample(x, BOXES[:0], output_size=2),
        sample(uniform(rng, (1, 1, 1, 1)), np.array([[0, 0, 0, 1, 1.0]]), output_size=1),
    ]


def _point(image: Array, y: float, x: float) -> Array:
    """Bilinear interpolation from its definition, zero beyond a pixel outside."""
    c, h, w = image.shape
    if y < -1 or y > h or x < -1 or x > w:
        return np.zeros(c)
    y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
    top, left = int(y), int(x)
    below, right = min(top + 1, h - 1), min(left + 1, w - 1)
    dy, dx = y - top, x - left
    upper = image[:, top, left] * (1 - dx) + image[:, top, right] * dx
    lower = image[:, below, left] * (1 - dx) + image[:, below, right] * dx
    return np.asarray(upper * (1 - dy) + lower * dy)


def _reference(
    x: Array,
    boxes: Array,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Array:
    oh, ow = (output_size,) * 2 if isinstance(output_size, int) else output_size
    out = np.zeros((len(boxes), x.shape[1], oh, ow))
    for k, (image, *edges) in enumerate(boxes):
        x0, y0, x1, y1 = np.array(edges) * spatial_scale - 0.5 * aligned
        height, width = y1 - y0, x1 - x0
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        rows = sampling_ratio if sampling_ratio > 0 else max(int(np.ceil(height / oh)), 1)
        columns = sampling_ratio if sampling_ratio > 0 else max(int(np.ceil(width / ow)), 1)
        for i in range(oh):
            for j in range(ow):
                points = [
                    _point(
                        x[int(image)],
                        y0 + height / oh * (i + (a + 0.5) / rows),
                        x0 + width / ow * (j + (b + 0.5) / columns),
                    )
                    for a in range(rows)
                    for b in range(columns)
                ]
                out[k, :, i, j] = np.mean(points, axis=0)
    return out


ROWS = [
    Row(
        roi.roi_align,
        _samples,
        name="roi_align",
        covers=("roi_spread",),
        reference=_reference,
        fixed=(1,),
        dtypes=("float32", "float64"),
        errors=(
            (lambda: roi.roi_align(bt.ones((1, 2, 3)), bt.ones((1, 5)), 2), ShapeError, "K, 5"),
            (
                lambda: roi.roi_align(bt.ones((1, 2, 3, 3)), bt.ones((1, 5)), 2),
                IndexRangeError,
                "from 0 to 0",
            ),
            (
                lambda: roi.roi_align(bt.ones((2, 2, 3, 3)), bt.ones((1, 5)), 0),
                ConfigError,
                "output_size",
            ),
        ),
    ),
]

"""Many small pictures in one: what a training shows of itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import DataError
from ...core.paths import atomic

if TYPE_CHECKING:
    from PIL.Image import Image

Array = np.ndarray[Any, Any]
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def grid(samples: Array, columns: int | None = None, *, gap: int = 1, zoom: int = 1) -> Image:
    """Samples (N, C, H, W) from -1 to 1 as one picture, row by row.

    Args:
        columns: pictures in a row; about as many as there are rows unless given.
        gap: black pixels between pictures.
        zoom: each pixel becomes a square of so many.

    Raises:
        DataError: nothing to show, or arrays that are no pictures.
    """
    from PIL import Image

    values = np.asarray(samples, np.float32)
    if values.ndim != 4 or values.shape[1] not in _MODES or 0 in values.shape:
        raise DataError(
            f"samples of shape {values.shape} are no pictures: (N, 1, 3 or 4, H, W) is wanted.",
            got=values.shape,
        )
    count, channels, height, width = values.shape
    columns = min(columns or int(np.ceil(np.sqrt(count))), count)
    rows = -(-count // columns)
    pixels = np.round(np.clip(np.nan_to_num(values) / 2 + 0.5, 0, 1) * 255).astype(np.uint8)
    whole = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), "u1")
    for i, picture in enumerate(pixels):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        whole[top : top + height, left : left + width] = picture.transpose(1, 2, 0)
    if zoom > 1:
        whole = whole.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return Image.fromarray(whole[..., 0] if channels == 1 else whole, _MODES[channels])


def save_grid(
    samples: Array, path: str | Path, columns: int | None = None, *, zoom: int = 1
) -> Path:
    """Write a `grid` as a file of the kind that its name says."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    picture = grid(samples, columns, zoom=zoom)
    kind = "JPEG" if target.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    with atomic(target) as part:
        picture.save(part, format=kind)
    return target

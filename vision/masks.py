"""What a mask generator says of a picture: where one thing is, with a score, drawn or saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import DataError, ShapeError
from .segmentation import colours
from .transforms import Array

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, eq=False)
class Mask:
    """Where one thing in a picture is.

    Attributes:
        mask: whether each pixel belongs to it, (H, W), bool.
        score: how much of it the network expects to have found: overlap with the truth, about 0
            to 1.
        logits: what the network said at its own, lower resolution, (h, w), float32: hand the mask
            back as `mask=` to refine it.
    """

    mask: Array
    score: float
    logits: Array

    @property
    def area(self) -> int:
        """In pixels."""
        return int(np.count_nonzero(self.mask))

    @property
    def share(self) -> float:
        """Its part of the picture, from 0 to 1."""
        return self.area / self.mask.size

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, upper, right and lower edge in pixels; zeros for a mask without a pixel."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        if not len(rows):
            return 0, 0, 0, 0
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def image(self) -> Image.Image:
        """White where it is, black elsewhere."""
        return mask_image(self.mask)

    def cut(self, image: Image.Image) -> Image.Image:
        """The thing alone: the part of the picture in its box, transparent around it.

        Raises:
            ShapeError: the picture is of another size.
            DataError: the mask has no pixel.
        """
        _same_size([self], image)
        if not self.area:
            raise DataError("the mask has no pixel: there is nothing to cut out")
        copy = image.convert("RGBA")
        copy.putalpha(self.image())
        return copy.crop(self.box)

    def save(self, path: str | Path) -> Path:
        """Write a black and white PNG.

        Raises:
            DataError: the name does not end in .png.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise DataError(
                f"{path}: masks are written as PNG files.\n"
                f"Write: save({str(path.with_suffix('.png'))!r})",
                path=str(path),
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        self.image().save(path, optimize=True)
        return path

    def __repr__(self) -> str:
        height, width = self.mask.shape
        return f"Mask({width} x {height} pixels: {self.share:.1%}, score {self.score:.3f})"


def mask_image(mask: Array) -> Image.Image:
    """A mask as a picture: white where it is, black elsewhere."""
    from PIL import Image

    return Image.fromarray(mask.astype(np.uint8) * 255)


def draw_masks(image: Image.Image, masks: Sequence[Mask], *, opacity: float = 0.55) -> Image.Image:
    """A copy of a picture with a colour over each mask, the smaller ones on top.

    Raises:
        ShapeError: a mask is not of the picture's size.
    """
    from PIL import Image as Pillow

    _same_size(masks, image)
    shown = np.array(image.convert("RGB"))
    table = colours([str(i) for i in range(len(masks))])
    for i in sorted(range(len(masks)), key=lambda i: -masks[i].area):
        inside = masks[i].mask
        colour = np.array(table[i], np.float32)
        shown[inside] = np.rint(shown[inside] * (1 - opacity) + colour * opacity)
    return Pillow.fromarray(shown)


def _same_size(masks: Sequence[Mask], image: Any) -> None:
    for mask in masks:
        height, width = mask.mask.shape
        if image.size != (width, height):
            raise ShapeError(
                f"the mask is of {width} x {height} pixels and the picture of "
                f"{image.width} x {image.height}",
                expected=(width, height),
                got=image.size,
            )

"""Pictures and masks as the arrays that autoencoders take."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.data.images import read_image
from ...core.errors import DataError

Array = np.ndarray[Any, Any]
Size = tuple[int, int]


def opened(source: Any, *, behind: int = 255) -> Any:
    """The upright RGB picture of a path, bytes, a Pillow image or an array (H, W) or (H, W, C).

    Args:
        behind: the grey that transparent parts show.

    Raises:
        DataError, ShapeError: it is none of these, or cannot be read.
    """
    return read_image(source, background=(behind, behind, behind))


def picture_array(source: Any, size: Size | None = None, multiple: int = 1) -> Array:
    """A picture from -1 to 1.

    Args:
        size: height and width it is brought to; otherwise it is cut to a multiple, in the middle.

    Shape:
        (1, 3, H, W), float32
    """
    from PIL import Image

    image = opened(source)
    if size is not None and (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    width, height = (n // multiple * multiple for n in image.size)
    if not width or not height:
        raise DataError(f"a picture of {image.height} x {image.width} is smaller than {multiple}")
    left, top = (image.width - width) // 2, (image.height - height) // 2
    image = image.crop((left, top, left + width, top + height))
    values = np.asarray(image, np.float32) / 127.5 - 1
    return values.transpose(2, 0, 1)[None].copy()


def middle_square(image: Any, size: int | None, grey: bool) -> Any:
    """A Pillow image, its middle square scaled to a size; as it is where size is None."""
    from PIL import Image

    if grey:
        image = image.convert("L")
    if size is None or image.size == (size, size):
        return image
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)


def mask_array(source: Any, size: Size) -> Array:
    """A mask: 1 where the picture is to be made anew, which is where it is bright.

    Shape:
        (1, 1, H, W), float32, of 0 and 1
    Raises:
        DataError: nothing of it is bright.
    """
    from PIL import Image

    image = opened(source, behind=0).convert("L")  # what is transparent is not masked
    if (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.NEAREST)
    found = (np.asarray(image) >= 128).astype(np.float32)[None, None]
    if not found.any():
        raise DataError(
            "the mask is dark everywhere, so nothing would be painted.\n"
            "White marks what is to be made anew, black what is kept."
        )
    return found

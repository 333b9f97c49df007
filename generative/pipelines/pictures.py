"""Pictures and masks as the arrays that autoencoders take."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DataError

Array = np.ndarray[Any, Any]
Size = tuple[int, int]


def opened(source: Any, what: str = "picture") -> Any:
    """A Pillow image of a path, bytes, a Pillow image or an array (H, W) or (H, W, C).

    Raises:
        DataError: it is none of these, or cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, Image.Image):
        return source
    if isinstance(source, (str, os.PathLike, bytes)):
        try:
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else Path(source))
            image.load()
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
            shown = "the bytes" if isinstance(source, bytes) else source
            raise DataError(f"the {what} {shown} cannot be read: {error}") from error
        return image
    array = np.asarray(source) if hasattr(source, "__array__") else None
    if array is None or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] > 4):
        raise DataError(
            f"{type(source).__name__} is no {what}: a path, a Pillow image or an array (H, W, 3) "
            "is wanted"
        )
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise DataError(f"floats of a {what} lie from 0 to 1; those given do not")
        array = np.round(array * 255)
    elif array.dtype == bool:
        array = array * 255
    return Image.fromarray(array.astype(np.uint8))


def picture_array(source: Any, size: Size | None = None, multiple: int = 1) -> Array:
    """A picture from -1 to 1.

    Args:
        size: height and width it is brought to; otherwise it is cut to a multiple, in the middle.

    Shape:
        (1, 3, H, W), float32
    """
    from PIL import Image

    image = opened(source).convert("RGB")
    if size is not None and (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    width, height = (n // multiple * multiple for n in image.size)
    if not width or not height:
        raise DataError(f"a picture of {image.height} x {image.width} is smaller than {multiple}")
    left, top = (image.width - width) // 2, (image.height - height) // 2
    image = image.crop((left, top, left + width, top + height))
    values = np.asarray(image, np.float32) / 127.5 - 1
    return values.transpose(2, 0, 1)[None].copy()


def mask_array(source: Any, size: Size) -> Array:
    """A mask: 1 where the picture is to be made anew, which is where it is bright.

    Shape:
        (1, 1, H, W), float32, of 0 and 1
    Raises:
        DataError: nothing of it is bright.
    """
    from PIL import Image

    image = opened(source, "mask")
    if "A" in image.getbands():  # what is transparent is not masked
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image.convert("RGBA"))
    image = image.convert("L")
    if (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.NEAREST)
    found = (np.asarray(image) >= 128).astype(np.float32)[None, None]
    if not found.any():
        raise DataError(
            "the mask is dark everywhere, so nothing would be painted.\n"
            "White marks what is to be made anew, black what is kept."
        )
    return found

"""Boxes with names, and masks, drawn on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import ShapeError

if TYPE_CHECKING:
    from PIL import Image

OPACITY = 0.45  # of the colours of masks


def draw_boxes(
    image: Image.Image, found: Sequence[dict[str, Any]], labels: Sequence[str] = ()
) -> Image.Image:
    """A copy of a picture with boxes, each with its label and score above it.

    Args:
        found: `{"label", "box"}` for each, and `"score"` and `"mask"` where there are any.
        labels: names in an order that decides their colours.
    """
    from PIL import ImageDraw

    from ..core.insight.charts import COLOURS, font

    copy = image.convert("RGB").copy()
    numbers = {name: i for i, name in enumerate(labels)}
    for answer in found:
        numbers.setdefault(answer["label"], len(numbers))
    drawn = [(a, COLOURS[numbers[a["label"]] % len(COLOURS)]) for a in found]
    if any("mask" in answer for answer in found):
        copy = _covered(copy, [(a["mask"], colour) for a, colour in drawn if "mask" in a])
    draw = ImageDraw.Draw(copy)
    side = min(copy.size)
    line, text = max(1, round(side / 200)), font(max(10, round(side / 28)))
    for answer, colour in reversed(drawn):  # the surest on top
        x0, y0, x1, y1 = answer["box"]
        draw.rectangle((x0, y0, max(x1, x0), max(y1, y0)), outline=colour, width=line)
        caption = str(answer["label"])
        if "score" in answer:
            caption += f" {answer['score']:.2f}"
        left, top, right, bottom = draw.textbbox((0, 0), caption, font=text)
        width, height = right - left + 6, bottom - top + 6
        x = min(max(x0, 0), max(copy.width - width, 0))
        y = y0 - height if y0 >= height else max(min(y0, copy.height - height), 0)
        draw.rectangle((x, y, x + width, y + height), fill=colour)
        draw.text((x + 3 - left, y + 3 - top), caption, fill=(255, 255, 255), font=text)
    return copy


def _covered(image: Image.Image, masks: Sequence[tuple[Any, tuple[int, int, int]]]) -> Image.Image:
    """The picture with a colour over each mask.

    Raises:
        ShapeError: a mask is not of the picture's size.
    """
    from PIL import Image as Pillow

    shown = np.array(image)
    for mask, colour in reversed(masks):
        if mask.shape != shown.shape[:2]:
            raise ShapeError(
                f"the mask is of {mask.shape[1]} x {mask.shape[0]} pixels and the picture of "
                f"{image.width} x {image.height}",
                expected=shown.shape[:2],
                got=mask.shape,
            )
        over = shown[mask] * (1 - OPACITY) + np.array(colour) * OPACITY
        shown[mask] = np.rint(over).astype(np.uint8)
    return Pillow.fromarray(shown)

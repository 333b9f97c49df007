"""Boxes with names, drawn on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image


def draw_boxes(
    image: Image.Image, found: Sequence[dict[str, Any]], labels: Sequence[str] = ()
) -> Image.Image:
    """A copy of a picture with boxes, each with its label and score above it.

    Args:
        found: `{"label", "box"}` for each, and `"score"` where there is one.
        labels: names in an order that decides their colours.
    """
    from PIL import ImageDraw

    from ..core.insight.charts import COLOURS, font

    copy = image.convert("RGB").copy()
    draw = ImageDraw.Draw(copy)
    side = min(copy.size)
    line, text = max(1, round(side / 200)), font(max(10, round(side / 28)))
    numbers = {name: i for i, name in enumerate(labels)}
    for answer in reversed(found):  # the surest on top
        number = numbers.setdefault(answer["label"], len(numbers))
        colour = COLOURS[number % len(COLOURS)]
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

"""What a segmenter says of a picture: a class for every pixel, with areas, colours and overlays."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import DataError, ShapeError
from .transforms import Array, Size

if TYPE_CHECKING:
    from PIL import Image

Colour = tuple[int, int, int]
BACKGROUND = "background"
_BLOCK = 1 << 16  # pixels whose classes are compared at a time, so that they stay in the cache


def colours(labels: Sequence[str]) -> list[Colour]:
    """A colour for each class; the background is black."""
    from ..core.insight.charts import COLOURS

    found: list[Colour] = []
    for i, label in enumerate(labels):
        if label == BACKGROUND:
            found.append((0, 0, 0))
        elif i < len(COLOURS):
            found.append(COLOURS[i])
        else:  # turning by the golden angle keeps neighbours apart, however many there are
            hue = (i * 0.61803398875) % 1
            bright, full = (1.0, 0.75, 0.55)[i % 3], (0.55, 0.95, 0.75)[i % 3]
            red, green, blue = colorsys.hsv_to_rgb(hue, full, bright)
            found.append((round(255 * red), round(255 * green), round(255 * blue)))
    return found


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A class for every pixel of a picture.

    Attributes:
        classes: the number of each pixel's class, (H, W): uint8, or uint16 beyond 256 classes.
        labels: names of the classes.
    """

    classes: Array
    labels: Sequence[str]

    @property
    def shares(self) -> list[dict[str, Any]]:
        """The classes that occur, each with its part of the area, the largest first."""
        counts = np.bincount(self.classes.ravel(), minlength=len(self.labels))
        order = np.argsort(-counts, kind="stable")
        total = max(self.classes.size, 1)
        return [
            {"label": self.labels[i], "share": float(counts[i] / total)} for i in order if counts[i]
        ]

    def mask(self, label: str) -> Array:
        """Where a class is.

        Shape:
            (H, W), bool
        Raises:
            DataError: it is none of the labels.
        """
        if label not in self.labels:
            known = ", ".join(self.labels[:8]) + (", ..." if len(self.labels) > 8 else "")
            raise DataError(f"{label!r} is none of the labels: {known}", label=label)
        return np.asarray(self.classes == list(self.labels).index(label))

    def image(self) -> Image.Image:
        """A picture whose pixels are class numbers, shown in the colours of the classes."""
        from PIL import Image

        if len(self.labels) > 256:
            return Image.fromarray(self.classes.astype(np.uint16))
        image = Image.fromarray(self.classes.astype(np.uint8))
        image.putpalette(np.array(colours(self.labels), np.uint8).tobytes())
        return image

    def save(self, path: str | Path) -> Path:
        """Write a PNG whose pixels are class numbers: with a palette, or grey of 16 bits.

        Raises:
            DataError: the name does not end in .png; other formats would change the numbers.
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise DataError(
                f"{path}: class numbers are kept exactly by PNG files only.\n"
                f"Write: save({str(path.with_suffix('.png'))!r})",
                path=str(path),
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        self.image().save(path, optimize=True)
        return path

    def draw(
        self, image: Image.Image, *, opacity: float = 0.55, legend: bool = True
    ) -> Image.Image:
        """A copy of the picture in the colours of its classes, with their names beside it.

        Args:
            opacity: of the colours, from 0 to 1; the background has none.
            legend: whether the names are written.
        Raises:
            ShapeError: the picture is of another size.
        """
        from PIL import Image as Pillow

        height, width = self.classes.shape
        if image.size != (width, height):
            raise ShapeError(
                f"the classes are of {width} x {height} pixels and the picture of "
                f"{image.width} x {image.height}",
                expected=(width, height),
                got=image.size,
            )
        table = np.array(colours(self.labels), np.float32)
        clear = np.array([0.0 if name == BACKGROUND else opacity for name in self.labels])
        clear = clear.astype(np.float32)
        shown = np.array(image.convert("RGB"))
        for top in range(0, height, 256):  # float copies of whole photographs would be large
            part, own = shown[top : top + 256], self.classes[top : top + 256]
            alpha = clear[own][..., None]
            part[...] = np.rint(part * (1 - alpha) + table[own] * alpha).astype(np.uint8)
        picture = Pillow.fromarray(shown)
        return self._beside(picture) if legend else picture

    def _beside(self, picture: Image.Image, most: int = 12) -> Image.Image:
        """The picture with colours, names and shares of the largest classes to its right."""
        from PIL import Image as Pillow
        from PIL import ImageDraw

        from ..core.insight.charts import font

        size = max(11, min(round(picture.height / 20), 40))
        text, line = font(size), round(1.7 * size)
        shown = self.shares[: max(1, min(most, (picture.height - size // 2) // line))]
        rows = [(row["label"], f"{row['label']}  {row['share']:.1%}") for row in shown]
        own = dict(zip(self.labels, colours(self.labels), strict=True))
        widest = max(text.getlength(caption) for _, caption in rows)
        canvas = Pillow.new(
            "RGB", (picture.width + round(widest) + 3 * size, picture.height), (255, 255, 255)
        )
        canvas.paste(picture)
        draw = ImageDraw.Draw(canvas)
        x, y = picture.width + size // 2, size // 2
        for label, caption in rows:
            draw.rectangle((x, y, x + size, y + size), own[label], (34, 34, 34))
            draw.text((x + 1.5 * size, y + size / 2), caption, (34, 34, 34), text, anchor="lm")
            y += line
        return canvas

    def __repr__(self) -> str:
        height, width = self.classes.shape
        shown = ", ".join(f"{row['label']} {row['share']:.1%}" for row in self.shares[:5])
        return f"Segmentation({width} x {height} pixels: {shown})"


def classes_at(logits: Array, size: Size) -> Array:
    """The best class for every pixel of a picture of another size.

    Logits are resized bilinearly, then compared: in blocks, since those of all classes for a
    photograph would fill gigabytes.

    Shape:
        (N, h, w) -> (H, W), uint8, or uint16 beyond 256 classes
    Source: transformers 5.23, `post_process_semantic_segmentation`.
    """
    count = logits.shape[0]
    height, width = size
    y0, y1, down = _between(logits.shape[1], height)
    x0, x1, across = _between(logits.shape[2], width)
    result = np.empty((height, width), np.uint8 if count <= 256 else np.uint16)
    rows = max(1, _BLOCK // width)
    for top in range(0, height, rows):
        inside = slice(top, min(top + rows, height))
        first, last = y0[top], y1[inside.stop - 1] + 1
        upper, lower, share = y0[inside] - first, y1[inside] - first, down[inside, None]
        best = np.full((inside.stop - top, width), -np.inf, np.float32)
        winner = result[inside]
        winner[...] = 0
        for number in range(count):
            source = logits[number, first:last]
            wide = source[:, x0] * (1 - across) + source[:, x1] * across
            value = wide[upper] * (1 - share) + wide[lower] * share
            np.copyto(winner, number, where=value > best, casting="unsafe")
            np.maximum(best, value, out=best)
    return result


def _between(inputs: int, outputs: int) -> tuple[Array, Array, Array]:
    """For each output, the two inputs that it lies between, and how near it is to the second."""
    places = np.maximum((np.arange(outputs) + 0.5) * (inputs / outputs) - 0.5, 0)
    low = np.minimum(places.astype(np.int64), inputs - 1)
    high = np.minimum(low + 1, inputs - 1)
    return low, high, (places - low).astype(np.float32)

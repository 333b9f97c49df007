"""Pictures of environments: shapes drawn large with Pillow and scaled down for smooth edges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

Colour = tuple[int, int, int]
Point = tuple[float, float]

INK: Colour = (38, 50, 56)
PAPER: Colour = (250, 250, 247)
GROUND: Colour = (214, 211, 202)
BLUE: Colour = (45, 108, 180)
RED: Colour = (214, 84, 68)
YELLOW: Colour = (240, 190, 65)
GREEN: Colour = (76, 153, 104)
SAND: Colour = (205, 160, 110)

_FINER = 3  # a pixel is the mean of 3 x 3


class Canvas:
    """A picture in world coordinates: x to the right, y upwards.

    Args:
        size: (width, height) of the picture in pixels.
        left, bottom: the world coordinates of its lower left corner.
        scale: pixels for one unit of the world.
        background: its colour.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        left: float = 0.0,
        bottom: float = 0.0,
        scale: float = 1.0,
        background: Colour = PAPER,
    ) -> None:
        from PIL import Image, ImageDraw

        self.size = size
        self._left, self._bottom = left, bottom
        self._scale = scale * _FINER
        self._height = size[1] * _FINER
        self._image = Image.new("RGB", (size[0] * _FINER, self._height), background)
        self._draw = ImageDraw.Draw(self._image)

    def _at(self, point: Sequence[float]) -> Point:
        x = (float(point[0]) - self._left) * self._scale
        y = self._height - (float(point[1]) - self._bottom) * self._scale
        return x, y

    def polygon(self, points: Iterable[Sequence[float]], colour: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon([self._at(p) for p in points], fill=colour)

    def rectangle(self, low: Point, high: Point, colour: Colour, radius: float = 0.0) -> None:
        """A filled rectangle between two corners, with round ones if asked."""
        (x0, y1), (x1, y0) = self._at(low), self._at(high)
        # The last row and column belong to Pillow's rectangles.
        box = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        self._draw.rounded_rectangle(box, radius * self._scale, fill=colour)

    def circle(self, centre: Sequence[float], radius: float, colour: Colour) -> None:
        """A filled circle."""
        x, y = self._at(centre)
        r = radius * self._scale
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def line(self, points: Iterable[Sequence[float]], width: float, colour: Colour) -> None:
        """A line through points, as wide as `width` units of the world."""
        pixels = max(1, round(width * self._scale))
        self._draw.line([self._at(p) for p in points], fill=colour, width=pixels, joint="curve")

    def bar(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        """A thick line with round ends."""
        angle = math.atan2(end[1] - start[1], end[0] - start[0])
        across = (-math.sin(angle) * width / 2, math.cos(angle) * width / 2)
        corners = [
            (start[0] + across[0], start[1] + across[1]),
            (end[0] + across[0], end[1] + across[1]),
            (end[0] - across[0], end[1] - across[1]),
            (start[0] - across[0], start[1] - across[1]),
        ]
        self.polygon(corners, colour)
        self.circle(start, width / 2, colour)
        self.circle(end, width / 2, colour)

    def pixels(self) -> np.ndarray:
        """The picture, (H, W, 3) uint8."""
        return np.array(self._image.reduce(_FINER))


def enlarged(picture: np.ndarray, times: int) -> np.ndarray:
    """A picture whose pixels became squares, (H, W) or (H, W, 3) -> (H', W', 3) uint8."""
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=2)
    return picture.repeat(times, axis=0).repeat(times, axis=1)

"""Random changes to training pictures that their boxes and outlines follow.

Each is called with a Pillow image, its boxes and a generator, and gives both anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..core.errors import ConfigError
from .boxes import Array, Boxes, box_area, clip_boxes, scale_boxes
from .instance_masks import moved_outlines
from .transforms import Resize

if TYPE_CHECKING:
    from PIL import Image

    Picture = Image.Image
    Both = tuple[Picture, Boxes]


class BoxTransform(Protocol):
    """What all of them are."""

    def __call__(self, image: Picture, boxes: Boxes, rng: np.random.Generator) -> Both: ...


def kept(boxes: Boxes, chosen: Array) -> Boxes:
    """Some of the boxes, with all that is known of them."""
    names = ("boxes", "labels", "scores", "crowd", "areas", "masks", "parts")
    parts = {name: getattr(boxes, name) for name in names}
    rows = np.arange(len(boxes))[chosen]
    outlines = boxes.outlines
    return Boxes(
        **{n: None if v is None else v[rows] for n, v in parts.items()},
        outlines=None if outlines is None else [outlines[i] for i in rows],
    )


def moved(boxes: Boxes, edges: Any) -> Boxes:
    """Boxes with other edges; the areas of objects change as those of their boxes do."""
    if boxes.areas is None:
        return replace(boxes, boxes=edges)
    before, after = box_area(boxes.boxes), box_area(edges)
    return replace(boxes, boxes=edges, areas=boxes.areas * after / np.maximum(before, 1e-9))


def scaled(boxes: Boxes, before: tuple[int, int], after: tuple[int, int]) -> Boxes:
    """Boxes and outlines of a picture of one height and width, in it at another."""
    scale = after[1] / before[1], after[0] / before[0]
    resized = moved(boxes, scale_boxes(boxes.boxes, before, after))
    return replace(resized, outlines=moved_outlines(boxes.outlines, scale))


@dataclass(frozen=True)
class FlipBoxes:
    """Mirror left and right with probability `p`."""

    p: float = 0.5

    def __call__(self, image: Picture, boxes: Boxes, rng: np.random.Generator) -> Both:
        from PIL import Image

        if rng.random() >= self.p:
            return image, boxes
        x0, y0, x1, y1 = boxes.boxes.T
        edges = np.stack([image.width - x1, y0, image.width - x0, y1], axis=1)
        outlines = moved_outlines(boxes.outlines, (-1, 1), (image.width, 0))
        flipped = replace(boxes, boxes=edges, outlines=outlines)
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), flipped


@dataclass(frozen=True)
class ResizeBoxes:
    """Resize to a height and width."""

    size: tuple[int, int]
    resample: str = "bilinear"

    def __call__(self, image: Picture, boxes: Boxes, rng: np.random.Generator) -> Both:
        before = (image.height, image.width)
        resized = Resize(self.size, "exact", self.resample)(image)
        return resized, scaled(boxes, before, self.size)


@dataclass(frozen=True)
class CropBoxes:
    """Keep a random part of the picture, with probability `p`.

    An object stays if its middle does, and is cut off at the edge. A crop that would lose every
    object is drawn again, and given up in the end.

    Args:
        smallest: the least part of each side.
    """

    smallest: float = 0.6
    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise ConfigError(f"smallest={self.smallest} is a part, above 0 and up to 1")

    def __call__(self, image: Picture, boxes: Boxes, rng: np.random.Generator) -> Both:
        if rng.random() >= self.p:
            return image, boxes
        middle = (boxes.boxes[:, :2] + boxes.boxes[:, 2:]) / 2
        for _ in range(10):
            width, height = (
                max(1, round(side * rng.uniform(self.smallest, 1)))
                for side in (image.width, image.height)
            )
            x = int(rng.integers(0, image.width - width + 1))
            y = int(rng.integers(0, image.height - height + 1))
            inside = ((middle >= [x, y]) & (middle < [x + width, y + height])).all(axis=1)
            edges = clip_boxes(boxes.boxes - [x, y, x, y], height, width)
            inside &= box_area(edges) > 0
            if inside.any() or not len(boxes):
                outlines = moved_outlines(boxes.outlines, shift=(-x, -y))
                left = kept(replace(moved(boxes, edges), outlines=outlines), inside)
                return image.crop((x, y, x + width, y + height)), left
        return image, boxes


@dataclass(frozen=True)
class Chain:
    """One after the other."""

    steps: Sequence[BoxTransform]

    def __call__(self, image: Picture, boxes: Boxes, rng: np.random.Generator) -> Both:
        for step in self.steps:
            image, boxes = step(image, boxes, rng)
        return image, boxes


@dataclass(frozen=True)
class PixelsOnly:
    """A transform of `augment.py` that moves nothing, such as `ColorJitter`."""

    transform: Any

    def __call__(self, image: Picture, boxes: Boxes, rng: np.random.Generator) -> Both:
        return self.transform(image, rng), boxes

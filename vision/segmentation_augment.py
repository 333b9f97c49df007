"""Random changes to training pictures that their masks follow.

The transforms are those of `transforms` and `augment`: what moves pixels moves them alike in both,
in the mask by nearest neighbour, since class numbers have no mean; what changes colours leaves the
mask alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.data.seeding import sample_rng
from ..core.errors import ConfigError, ShapeError
from .augment import (
    ColorJitter,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomVerticalFlip,
)
from .segmentation_metrics import IGNORE
from .transforms import CenterCrop, Resize

if TYPE_CHECKING:
    from PIL import Image

_MOVING = (
    CenterCrop, RandomCrop, RandomHorizontalFlip, RandomResizedCrop, RandomVerticalFlip, Resize,
)  # fmt: skip


@dataclass(frozen=True)
class WithMask:
    """Transforms, one after the other, for a picture and its mask: `both(image, mask, rng)`.

    Args:
        transforms: crops, flips, `Resize` and `ColorJitter`, in any order.
        ignore: the class of places that lie outside the picture.
    Raises:
        ConfigError: a transform that masks cannot follow.
    """

    transforms: Sequence[Callable[..., Any]]
    ignore: int = IGNORE

    def __post_init__(self) -> None:
        for transform in self.transforms:
            if not isinstance(transform, (*_MOVING, ColorJitter)):
                raise ConfigError(
                    f"masks cannot follow {type(transform).__name__}.\nThere are: "
                    f"{', '.join(sorted(t.__name__ for t in (*_MOVING, ColorJitter)))}",
                    got=type(transform).__name__,
                )

    def __call__(
        self, image: Image.Image, mask: Image.Image, rng: np.random.Generator | None = None
    ) -> tuple[Image.Image, Image.Image]:
        """The changed picture and its mask, a Pillow image of mode L with class numbers.

        Raises:
            ShapeError: they are of different sizes.
        """
        if image.size != mask.size:
            raise ShapeError(
                f"the picture is of {image.width} x {image.height} pixels and its mask of "
                f"{mask.width} x {mask.height}",
                expected=image.size,
                got=mask.size,
            )
        rng = rng or sample_rng()
        for transform in self.transforms:
            if not getattr(transform, "random", False):
                image, mask = transform(image), self._of_mask(transform)(mask)
            elif isinstance(transform, ColorJitter):
                image = transform(image, rng)
            else:
                seed = int(rng.integers(1 << 62))  # the same draws for both
                image = transform(image, np.random.default_rng(seed))
                mask = self._of_mask(transform)(mask, np.random.default_rng(seed))
        return image, mask

    def _of_mask(self, transform: Any) -> Callable[..., Any]:
        changes: dict[str, Any] = {"resample": "nearest", "fill": (self.ignore,) * 3}
        own = {k: v for k, v in changes.items() if hasattr(transform, k)}
        changed: Callable[..., Any] = replace(transform, **own)
        return changed

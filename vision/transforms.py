"""What turns a picture into numbers: resizing, cropping, normalising.

Every transform is a small frozen dataclass that is called with a Pillow image (RGB, upright, as
`bt.data.read_image` gives it) or with an array, so transforms can be compared, printed and
saved. Those that draw random numbers are in `augment.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..core.errors import ConfigError, DataError, ShapeError

if TYPE_CHECKING:
    from PIL import Image

Array = np.ndarray[Any, Any]
Size = tuple[int, int]  # height, width

#: Pillow's filters by name, with the numbers that published configurations use for them.
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def filter_name(value: Any) -> str:
    """The name of a Pillow filter, from its name or number.

    Raises:
        ConfigError: there is no such filter.
    """
    if isinstance(value, str) and value.lower() in FILTERS:
        return value.lower()
    for name, number in FILTERS.items():
        if value == number and not isinstance(value, bool):
            return name
    raise ConfigError(
        f"{value!r} is not a way to resample pictures.\nThere are: {', '.join(FILTERS)} (0 to 5).",
        got=value,
    )


def as_size(value: Any) -> Size:
    """(height, width) of a number (a square) or a pair.

    Raises:
        ConfigError: neither, or not positive.
    """
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    whole = len(pair) == 2 and all(
        isinstance(side, (int, np.integer)) and not isinstance(side, bool) for side in pair
    )
    height, width = (int(side) for side in pair) if whole else (0, 0)
    if height < 1 or width < 1 or max(height, width) > 65_535:
        raise ConfigError(
            f"{value!r} is not the size of a picture: give a number or (height, width).", got=value
        )
    return height, width


@dataclass(frozen=True)
class Resize:
    """Resize a Pillow image with Pillow's antialiased filters.

    Args:
        size: the length of a side, or (height, width).
        fit: "exact" stretches to `size`; "shorter" makes the shorter side `size` long (a number)
            and cuts fractions of the other off, as torchvision and transformers do; "cover" and
            "contain" scale until the picture covers, or is contained in, `size`, and round;
            "least" scales as little as possible, so that one side has its length in `size`.
        resample: a name of `FILTERS`.
        multiple: sides become the nearest multiples of this ("exact" and "least").
    """

    size: int | Size
    fit: Literal["exact", "shorter", "cover", "contain", "least"] = "shorter"
    resample: str = "bicubic"
    multiple: int = 1

    def target(self, height: int, width: int) -> Size:
        """The height and width that a picture of this height and width gets."""
        if self.fit in ("exact", "least"):
            return self._rounded(height, width)
        if self.fit == "shorter":
            side = self.size if isinstance(self.size, int) else min(self.size)
            short, long = min(height, width), max(height, width)
            other = int(side * long / short)
            return (side, other) if height <= width else (other, side)
        want_height, want_width = as_size(self.size)
        ratios = height / want_height, width / want_width
        ratio = min(ratios) if self.fit == "cover" else max(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _rounded(self, height: int, width: int) -> Size:
        """Sides as wanted, or scaled alike, as multiples.

        Source: transformers 5.23, `models/dpt/image_processing_pil_dpt.py`.
        """
        tall, wide = as_size(self.size)
        down, across = tall / height, wide / width
        if self.fit == "least":
            down = across = across if abs(1 - across) < abs(1 - down) else down
        rows = max(1, round(down * height / self.multiple))
        columns = max(1, round(across * width / self.multiple))
        return rows * self.multiple, columns * self.multiple

    def __call__(self, image: Image.Image) -> Image.Image:
        from PIL import Image

        height, width = self.target(image.height, image.width)
        if height * width > 1 << 28:
            raise DataError(
                f"a picture of {image.width} x {image.height} pixels would be resized to "
                f"{width} x {height}.\nIt is too long and thin for this model: crop it first.",
                size=(image.width, image.height),
            )
        if (width, height) == image.size:
            return image
        return image.resize((width, height), Image.Resampling(FILTERS[filter_name(self.resample)]))


@dataclass(frozen=True)
class CenterCrop:
    """Cut out the middle; what lies outside the picture is filled.

    Args:
        size: the length of a side, or (height, width).
        rounding: where the crop lies if it cannot be in the exact middle: "torchvision" (and
            timm) rounds half to even, "transformers" rounds towards the upper left.
        fill: the colour outside the picture.
    """

    size: int | Size
    rounding: Literal["torchvision", "transformers"] = "torchvision"
    fill: tuple[int, ...] = (0, 0, 0)

    def starts(self, height: int, width: int) -> Size:
        """The first row and column of the crop in a picture; negative where it is too small."""
        tall, wide = as_size(self.size)
        return self._start(height, tall), self._start(width, wide)

    def _start(self, length: int, crop: int) -> int:
        if self.rounding == "transformers":
            return (length - crop) // 2
        return round((length - crop) / 2) if length >= crop else -((crop - length) // 2)

    def __call__(self, image: Image.Image) -> Image.Image:
        from PIL import Image

        height, width = as_size(self.size)
        top, left = self.starts(image.height, image.width)
        inside = left >= 0 and top >= 0
        if inside or not any(self.fill):
            return image.crop((left, top, left + width, top + height))
        colour = self.fill if image.mode == "RGB" else self.fill[0]
        canvas = Image.new(image.mode, (width, height), colour)
        canvas.paste(image, (-left, -top))
        return canvas


@dataclass(frozen=True)
class ToArray:
    """A Pillow image as a float32 array (C, H, W), scaled and normalised.

    Each channel becomes (pixel * scale - mean) / std.
    """

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    scale: float = 1 / 255

    def __call__(self, image: Image.Image) -> Array:
        pixels = np.asarray(image)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
            raise DataError(
                f"a picture of mode {image.mode} is not RGB or grey.\n"
                'Convert it: image.convert("RGB"), or read it with bt.data.read_image.',
                got=image.mode,
            )
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        table = _table(self.mean, self.std, self.scale)
        channels = pixels.shape[2]
        if channels != len(table):
            raise ShapeError(
                f"the picture has {channels} channels and the normalisation {len(table)}.\n"
                f'Convert it: image.convert("{"RGB" if len(table) == 3 else "L"}")',
                expected=len(table),
                got=channels,
            )
        result = np.empty((channels, *pixels.shape[:2]), np.float32)
        for channel in range(channels):
            # 256 results exist for each channel: looking them up is exact, and faster
            np.take(table[channel], pixels[:, :, channel], out=result[channel], mode="clip")
        return result


@lru_cache(maxsize=64)
def _table(mean: tuple[float, ...], std: tuple[float, ...], scale: float) -> Array:
    values = np.arange(256, dtype=np.float64) * scale
    centre, spread = np.array(mean, np.float64)[:, None], np.array(std, np.float64)[:, None]
    return ((values - centre) / spread).astype(np.float32)


@dataclass(frozen=True)
class Normalize:
    """(x - mean) / std for each channel of a float array (..., C, H, W)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, x: Array) -> Array:
        mean, std = (np.asarray(v, x.dtype)[:, None, None] for v in (self.mean, self.std))
        return np.asarray((x - mean) / std)

    def undo(self, x: Array) -> Array:
        """What `x` was before: for showing what a network was given."""
        mean, std = (np.asarray(v, x.dtype)[:, None, None] for v in (self.mean, self.std))
        return np.asarray(x * std + mean)


class Compose:
    """Several transforms, one after the other.

    Those that draw random numbers (they have `random = True`) get the generator.
    """

    random = True

    def __init__(self, transforms: Sequence[Callable[..., Any]]) -> None:
        self.transforms = tuple(transforms)

    def __call__(self, image: Any, rng: np.random.Generator | None = None) -> Any:
        for transform in self.transforms:
            if getattr(transform, "random", False):
                image = transform(image, rng)
            else:
                image = transform(image)
        return image

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter(self.transforms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Compose) and self.transforms == other.transforms

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Compose([\n  " + ",\n  ".join(map(repr, self.transforms)) + ",\n])"


def edge_of(side: int, crop_pct: float) -> int:
    """The length to which a side is resized so that the crop is `crop_pct` of it."""
    return math.floor(side / crop_pct)

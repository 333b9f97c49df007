"""Random changes to training pictures, and mixes of whole batches.

Every transform here draws from the generator that it is given: `transform(image, rng)`. Without
one it uses that of the sample being read (`bt.data.sample_rng`), so the same pictures come out
whatever the number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.data.seeding import sample_rng
from ..core.errors import ConfigError, ShapeError
from .transforms import FILTERS, Array, Size, as_size, filter_name

if TYPE_CHECKING:
    from PIL import Image

    Picture = Image.Image

Rng = np.random.Generator | None
GREY = (128, 128, 128)


def _resample(name: str) -> Any:
    from PIL import Image

    return Image.Resampling(FILTERS[filter_name(name)])


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the picture, of random shape, resized to `size`.

    Args:
        size: height and width of the result.
        scale: the part of the picture's area, at least and at most.
        ratio: width over height, at least and at most.
    Source: Szegedy et al. 2015, "Going Deeper with Convolutions", section 6.
    """

    size: int | Size
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    resample: str = "bicubic"
    random = True

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Left, upper, right and lower edge of the part that is kept."""
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top = int(rng.integers(0, height - h + 1))
                left = int(rng.integers(0, width - w + 1))
                return left, top, left + w, top + h
        # Nothing fitted (a very long picture): the largest middle part of an allowed shape.
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        w, h = max(1, min(width, round(height * ratio))), max(1, min(height, round(width / ratio)))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h

    def __call__(self, image: Picture, rng: Rng = None) -> Picture:
        box = self.box(image.height, image.width, rng or sample_rng())
        height, width = as_size(self.size)
        return image.resize((width, height), _resample(self.resample), box=box)


@dataclass(frozen=True)
class RandomCrop:
    """A part of fixed size at a random place, after padding all around.

    Args:
        size: height and width of the result.
        padding: pixels added on every side first.
        mode: "reflect" mirrors the picture there, "constant" fills with `fill`.
    """

    size: int | Size
    padding: int = 0
    mode: str = "constant"
    fill: tuple[int, int, int] = (0, 0, 0)
    random = True

    def __call__(self, image: Picture, rng: Rng = None) -> Picture:
        from PIL import Image, ImageOps

        rng = rng or sample_rng()
        height, width = as_size(self.size)
        if self.padding and self.mode == "reflect":
            pixels = np.asarray(image)
            around = ((self.padding,) * 2, (self.padding,) * 2) + ((0, 0),) * (pixels.ndim - 2)
            image = Image.fromarray(np.pad(pixels, around, mode="reflect"))
        elif self.padding:
            image = ImageOps.expand(image, self.padding, _colour(image, self.fill))
        if image.height < height or image.width < width:
            raise ShapeError(
                f"a picture of {image.height} x {image.width} is smaller than the crop of "
                f"{height} x {width}.\nResize it first: Resize({max(height, width)})",
                expected=(height, width),
                got=(image.height, image.width),
            )
        top = int(rng.integers(0, image.height - height + 1))
        left = int(rng.integers(0, image.width - width + 1))
        return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Mirror left and right with probability `p`."""

    p: float = 0.5
    random = True

    def __call__(self, image: Picture, rng: Rng = None) -> Picture:
        from PIL import Image

        if (rng or sample_rng()).random() < self.p:
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image


@dataclass(frozen=True)
class RandomVerticalFlip:
    """Mirror up and down with probability `p`."""

    p: float = 0.5
    random = True

    def __call__(self, image: Picture, rng: Rng = None) -> Picture:
        from PIL import Image

        if (rng or sample_rng()).random() < self.p:
            return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        return image


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast, saturation and hue at random, in random order.

    Args:
        brightness, contrast, saturation: factors are drawn from 1 - value to 1 + value.
        hue: the shift is drawn from -hue to hue; 0.5 is half way round the circle.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    random = True

    def __post_init__(self) -> None:
        if min(self.brightness, self.contrast, self.saturation, self.hue) < 0 or self.hue > 0.5:
            raise ConfigError(f"{self}: values are not negative, and hue is at most 0.5")

    def __call__(self, image: Picture, rng: Rng = None) -> Picture:
        rng = rng or sample_rng()
        for kind in rng.permutation(4):
            strength = (self.brightness, self.contrast, self.saturation, self.hue)[kind]
            if strength == 0:
                continue
            draw = float(rng.uniform(-strength, strength))
            if kind == 3:
                image = _hue(image, draw)
            else:
                change = (_brightness, _contrast, _saturation)[kind]
                image = change(image, max(0.0, 1 + draw))
        return image


# ---------------------------------------------------------------- single changes


def _colour(image: Picture, rgb: tuple[int, int, int]) -> Any:
    return rgb if image.mode == "RGB" else rgb[0]


def _brightness(image: Picture, factor: float) -> Picture:
    from PIL import ImageEnhance

    return ImageEnhance.Brightness(image).enhance(factor)


def _contrast(image: Picture, factor: float) -> Picture:
    from PIL import ImageEnhance

    return ImageEnhance.Contrast(image).enhance(factor)


def _saturation(image: Picture, factor: float) -> Picture:
    from PIL import ImageEnhance

    return ImageEnhance.Color(image).enhance(factor)


def _sharpness(image: Picture, factor: float) -> Picture:
    from PIL import ImageEnhance

    return ImageEnhance.Sharpness(image).enhance(factor)


def _hue(image: Picture, shift: float) -> Picture:
    from PIL import Image

    if image.mode != "RGB":
        return image
    hsv = np.array(image.convert("HSV"))
    hsv[:, :, 0] += np.uint8(round(shift * 256) % 256)  # wraps around, as hues do
    return Image.fromarray(hsv, "HSV").convert("RGB")


def _affine(image: Picture, matrix: tuple[float, ...]) -> Picture:
    from PIL import Image

    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling.BILINEAR,
        fillcolor=_colour(image, GREY),
    )


def _shear_x(image: Picture, amount: float) -> Picture:
    return _affine(image, (1, amount, -amount * image.height / 2, 0, 1, 0))


def _shear_y(image: Picture, amount: float) -> Picture:
    return _affine(image, (1, 0, 0, amount, 1, -amount * image.width / 2))


def _translate_x(image: Picture, part: float) -> Picture:
    return _affine(image, (1, 0, part * image.width, 0, 1, 0))


def _translate_y(image: Picture, part: float) -> Picture:
    return _affine(image, (1, 0, 0, 0, 1, part * image.height))


def _rotate(image: Picture, degrees: float) -> Picture:
    from PIL import Image

    return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=_colour(image, GREY))


def _posterize(image: Picture, bits: float) -> Picture:
    from PIL import ImageOps

    return ImageOps.posterize(image, round(bits))


def _solarize(image: Picture, threshold: float) -> Picture:
    from PIL import ImageOps

    return ImageOps.solarize(image, round(threshold))


def _autocontrast(image: Picture, _: float) -> Picture:
    from PIL import ImageOps

    return ImageOps.autocontrast(image)


def _equalize(image: Picture, _: float) -> Picture:
    from PIL import ImageOps

    return ImageOps.equalize(image)


def _same(image: Picture, _: float) -> Picture:
    return image


# Change, its strength at level 0 and at level 1, and whether its sign is drawn as well.
# Source: Müller and Hutter 2021, "TrivialAugment", table of RandAugment's space.
_CHANGES: tuple[tuple[Callable[[Picture, float], Picture], float, float, bool], ...] = (
    (_same, 0, 0, False),
    (_autocontrast, 0, 0, False),
    (_equalize, 0, 0, False),
    (_rotate, 0, 30, True),
    (_solarize, 256, 0, False),
    (_posterize, 8, 4, False),
    (_shear_x, 0, 0.3, True),
    (_shear_y, 0, 0.3, True),
    (_translate_x, 0, 0.3, True),
    (_translate_y, 0, 0.3, True),
)
# These are factors around 1.
_FACTORS = (_saturation, _contrast, _brightness, _sharpness)


def _change(image: Picture, level: float, rng: np.random.Generator) -> Picture:
    """One change drawn at random, at a level from 0 (none) to 1."""
    kind = int(rng.integers(len(_CHANGES) + len(_FACTORS)))
    sign = float(rng.choice((-1.0, 1.0)))
    if kind >= len(_CHANGES):
        return _FACTORS[kind - len(_CHANGES)](image, 1 + 0.9 * level * sign)
    function, low, high, signed = _CHANGES[kind]
    strength = low + (high - low) * level
    return function(image, strength * sign if signed else strength)


@dataclass(frozen=True)
class RandAugment:
    """Several changes drawn at random, all at one level.

    Args:
        changes: how many, one after the other.
        level: from 0 (none) to 1 (the strongest of the paper).
    Source: Cubuk et al. 2020, "RandAugment".
    """

    changes: int = 2
    level: float = 0.3
    random = True

    def __call__(self, image: Picture, rng: Rng = None) -> Picture:
        rng = rng or sample_rng()
        for _ in range(self.changes):
            image = _change(image, self.level, rng)
        return image


@dataclass(frozen=True)
class TrivialAugment:
    """One change drawn at random, at a level drawn at random: no settings to tune.

    Source: Müller and Hutter 2021, "TrivialAugment: Tuning-free Yet State-of-the-Art Data
        Augmentation".
    """

    most: float = 1.0
    random = True

    def __call__(self, image: Picture, rng: Rng = None) -> Picture:
        rng = rng or sample_rng()
        return _change(image, float(rng.uniform(0, self.most)), rng)


@dataclass(frozen=True)
class RandomErasing:
    """Overwrite a random rectangle of an array (C, H, W) with noise or a value.

    It comes after normalising, so that noise has the spread of the pictures.

    Args:
        p: how often.
        scale: the rectangle's part of the area, at least and at most.
        value: what is written; None draws it from a normal distribution for every pixel.
    Source: Zhong et al. 2017, "Random Erasing Data Augmentation".
    """

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: float | None = 0.0
    random = True

    def __call__(self, x: Array, rng: Rng = None) -> Array:
        rng = rng or sample_rng()
        if rng.random() >= self.p:
            return x
        channels, height, width = x.shape
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < h < height and 0 < w < width:
                top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
                x = x.copy()
                x[:, top : top + h, left : left + w] = (
                    rng.standard_normal((channels, h, w), dtype=np.float32)
                    if self.value is None
                    else self.value
                )
                return x
        return x


# ---------------------------------------------------------------- whole batches


def one_hot(labels: Array, num_classes: int, smoothing: float = 0.0) -> Array:
    """Class numbers (B,) as rows (B, num_classes) that sum to 1.

    Raises:
        ShapeError: labels of another shape, or outside the classes.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or (labels.size and not 0 <= labels.min() <= labels.max() < num_classes):
        raise ShapeError(
            f"labels are whole numbers from 0 to {num_classes - 1} of shape (B,); got shape "
            f"{labels.shape}, values from {labels.min(initial=0)} to {labels.max(initial=0)}.",
            got=labels.shape,
        )
    rows = np.full((len(labels), num_classes), smoothing / num_classes, np.float32)
    rows[np.arange(len(labels)), labels] += 1 - smoothing
    return rows


@dataclass(frozen=True)
class Mixup:
    """Blend each picture of a batch with another one, labels too.

    Called with a batch (B, C, H, W) and labels: class numbers (B,) or rows (B, N).

    Args:
        num_classes: N.
        alpha: of the beta distribution that the share is drawn from; larger mixes more.
        smoothing: label smoothing.
    Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization".
    """

    num_classes: int
    alpha: float = 0.2
    smoothing: float = 0.0
    random = True

    def __call__(self, images: Array, labels: Array, rng: Rng = None) -> tuple[Array, Array]:
        rng = rng or sample_rng()
        rows = _rows(labels, self.num_classes, self.smoothing)
        share = np.float32(rng.beta(self.alpha, self.alpha))
        other = rng.permutation(len(images))
        mixed = images * share + images[other] * (1 - share)
        return mixed.astype(images.dtype, copy=False), rows * share + rows[other] * (1 - share)


@dataclass(frozen=True)
class CutMix:
    """Put a rectangle of another picture into each picture of a batch; labels by its area.

    Called with a batch (B, C, H, W) and labels: class numbers (B,) or rows (B, N).

    Args:
        num_classes: N.
        alpha: of the beta distribution that the share is drawn from; 1 draws it evenly.
        smoothing: label smoothing.
    Source: Yun et al. 2019, "CutMix".
    """

    num_classes: int
    alpha: float = 1.0
    smoothing: float = 0.0
    random = True

    def __call__(self, images: Array, labels: Array, rng: Rng = None) -> tuple[Array, Array]:
        rng = rng or sample_rng()
        rows = _rows(labels, self.num_classes, self.smoothing)
        height, width = images.shape[-2:]
        part = math.sqrt(1 - rng.beta(self.alpha, self.alpha))
        h, w = int(height * part), int(width * part)
        y, x = int(rng.integers(height)), int(rng.integers(width))
        top, bottom = max(0, y - h // 2), min(height, y + (h + 1) // 2)
        left, right = max(0, x - w // 2), min(width, x + (w + 1) // 2)
        other = rng.permutation(len(images))
        mixed = images.copy()
        mixed[..., top:bottom, left:right] = images[other][..., top:bottom, left:right]
        share = np.float32(1 - (bottom - top) * (right - left) / (height * width))
        return mixed, rows * share + rows[other] * (1 - share)


def _rows(labels: Array, num_classes: int, smoothing: float) -> Array:
    labels = np.asarray(labels)
    return labels if labels.ndim == 2 else one_hot(labels, num_classes, smoothing)

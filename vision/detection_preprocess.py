"""How a detector wants its pictures: resized within limits, normalised, padded to one size.

Read from the `preprocessor_config.json` of transformers (the processors of DETR, RT-DETR and
YOLOS, old and new), as `preprocess.Preprocess` does it for classifiers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from ..core.data.images import read_image
from ..core.errors import ConfigError, DataError
from ..hub.configuration import expect
from .transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Array,
    Resize,
    Size,
    ToArray,
    as_size,
    filter_name,
)

MARK = "bestiary.DetectionPreprocess"
RESIZERS = ("pillow", "torchvision")
# Keys of a transformers processor that change no pixel.
_SILENT = frozenset((
    "image_processor_type", "feature_extractor_type", "processor_class", "_processor_class",
    "_valid_processor_keys", "do_convert_rgb", "do_convert_annotations", "data_format", "format",
    "input_data_format", "auto_map", "default_to_square", "device", "disable_grouping",
    "return_tensors", "backend", "do_pad", "pad_and_return_pixel_mask",
    "return_segmentation_masks", "mask_size", "mask_pad_size",
))  # fmt: skip
_UNDERSTOOD = frozenset((
    "do_resize", "size", "max_size", "resample", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std", "pad_size",
))  # fmt: skip
_PROCESSORS = ("Detr", "RTDetr", "Sam", "Yolos")


@dataclass(frozen=True)
class Prepared:
    """A batch as a detector takes it.

    Attributes:
        pixel_values: (B, C, H, W), float32, zero where padded.
        pixel_mask: 1 in the pictures and 0 in the padding, (B, H, W), int64.
        sizes: height and width of each picture without padding.
    """

    pixel_values: Array
    pixel_mask: Array
    sizes: list[Size]


@dataclass(frozen=True)
class DetectionPreprocess:
    """Pictures to arrays: call it with whatever `bt.data.read_image` reads.

    Args:
        shortest, longest: the shorter side becomes `shortest` pixels long, or less, so that the
            longer one is at most `longest`. Without `shortest`, the longer side becomes `longest`.
        exact: height and width that pictures are stretched to instead.
        within: the largest height and width, which one side reaches, instead.
        multiple: sides become multiples of this (a little less than asked for).
        pad: height and width of all batches; the largest of each batch unless given.
        divisor: the sides of batches are padded to multiples of this.
        resize: "pillow" smooths as it shrinks, with the filter `resample`; "torchvision" is what
            its detectors do: between the four nearest pixels, and sides are rounded down.
        resample: a name of `transforms.FILTERS`.
        scale: what a pixel from 0 to 255 is multiplied by.
        mean, std: for each channel, after scaling.
    """

    shortest: int | None = 800
    longest: int | None = 1333
    exact: Size | None = None
    within: Size | None = None
    multiple: int = 1
    pad: Size | None = None
    divisor: int = 1
    resize: str = "pillow"
    resample: str = "bilinear"
    scale: float = 1 / 255
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        filter_name(self.resample)
        expect({"resize": self.resize}, "the preprocessing", resize=RESIZERS)
        sides = (self.shortest, self.longest, self.multiple, self.divisor)
        for size in (*sides, self.exact, self.within, self.pad):
            if size is not None:
                as_size(size)
        if len(self.mean) != len(self.std) or not self.mean or 0 in self.std:
            raise ConfigError(
                f"mean {self.mean} and std {self.std} have one value for each channel, and no std "
                "is zero",
                mean=self.mean,
                std=self.std,
            )
        if not all(math.isfinite(x) for x in (*self.mean, *self.std, self.scale)):
            raise ConfigError(
                f"mean {self.mean}, std {self.std} and scale {self.scale}: not finite"
            )

    @property
    def channels(self) -> int:
        """3 for RGB, 1 for grey."""
        return len(self.mean)

    def target(self, height: int, width: int) -> Size:
        """The height and width that a picture of this height and width gets.

        Source: transformers 5.23, `image_transforms.get_size_with_aspect_ratio` and
        `models/yolos/image_processing_pil_yolos.py`.
        """
        if self.exact is not None:
            return self.exact
        if self.within is not None:
            factor = min(self.within[0] / height, self.within[1] / width)
            return max(int(height * factor), 1), max(int(width * factor), 1)
        if self.shortest is None and self.longest is not None:
            factor = self.longest / max(height, width)
            return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)
        if self.shortest is None:
            return height, width
        short, long = min(height, width), max(height, width)
        if self.resize == "torchvision":
            factor = self.shortest / short
            factor = factor if self.longest is None else min(factor, self.longest / long)
            return max(int(height * factor), 1), max(int(width * factor), 1)
        side: float = self.shortest
        if self.longest is not None and long / short * side > self.longest:
            side = self.longest * short / long
        sides = round(side), int(side * long / short)
        if short == sides[0]:
            sides = short, long
        unit = self.multiple
        sides = max(sides[0] // unit, 1) * unit, max(sides[1] // unit, 1) * unit
        return sides if height <= width else sides[::-1]

    def picture(self, source: Any) -> Any:
        """The picture at its own size: RGB or grey, upright.

        Raises:
            DataError: it cannot be read, or the network takes other than 1 or 3 channels.
        """
        if self.channels not in (1, 3):
            raise DataError(
                f"the model takes {self.channels} channels, and pictures have 1 or 3.\n"
                f"Prepare arrays of shape (B, {self.channels}, H, W) yourself: model.module(array)",
                expected=self.channels,
            )
        image = read_image(source)
        return image.convert("L") if self.channels == 1 else image

    def __call__(self, source: Any) -> Array:
        """One picture as float32.

        Shape:
            (C, H, W)
        """
        return self.prepared(self.picture(source))

    def prepared(self, image: Any) -> Array:
        """A picture that was read, resized and normalised."""
        size = self.target(image.height, image.width)
        if self.resize == "torchvision":
            return interpolated(self.to_array()(image), size)
        return self.to_array()(Resize(size, "exact", self.resample)(image))

    def to_array(self) -> ToArray:
        """The last step: scaling and normalising."""
        return ToArray(self.mean, self.std, self.scale)

    def batch(self, sources: Sequence[Any]) -> Prepared:
        """Several pictures, padded at the right and below."""
        return self.padded([self(source) for source in sources])

    def padded(self, arrays: Sequence[Array]) -> Prepared:
        """Prepared pictures of unequal sizes as one batch."""
        sizes = [(int(a.shape[1]), int(a.shape[2])) for a in arrays]
        largest = (max(h for h, _ in sizes), max(w for _, w in sizes))
        height, width = self.pad or (-(-side // self.divisor) * self.divisor for side in largest)
        if any(h > height or w > width for h, w in sizes):
            raise ConfigError(f"pad={self.pad} is smaller than a picture of {max(sizes)}")
        pixels = np.zeros((len(arrays), arrays[0].shape[0], height, width), np.float32)
        mask = np.zeros((len(arrays), height, width), np.int64)
        for i, (array, (h, w)) in enumerate(zip(arrays, sizes, strict=True)):
            pixels[i, :, :h, :w] = array
            mask[i, :h, :w] = 1
        return Prepared(pixels, mask, sizes)

    def with_channels(self, channels: int) -> DetectionPreprocess:
        """The same for grey pictures, with the mean of RGB's numbers."""
        if channels == self.channels:
            return self
        means = [(sum(values) / len(values),) * channels for values in (self.mean, self.std)]
        return replace(self, mean=means[0], std=means[1])

    def with_size(self, size: int | Size) -> DetectionPreprocess:
        """The same at another resolution: the shorter side, or height and width exactly."""
        if isinstance(size, int) and self.shortest is None and self.longest is not None:
            return replace(self, longest=size, pad=self.pad and (size, size))
        if isinstance(size, int):
            longest = None
            if self.shortest is not None and self.longest is not None:
                longest = round(size * self.longest / self.shortest)
            return replace(self, shortest=size, longest=longest, exact=None, within=None)
        return replace(self, exact=as_size(size), within=None)

    # ------------------------------------------------------------- configurations

    def to_config(self) -> dict[str, Any]:
        """What `from_config` reads back: for `preprocessor_config.json`."""
        return {"image_processor_type": MARK, **asdict(self)}

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], where: str = "the configuration"
    ) -> DetectionPreprocess:
        """The preprocessing that a file says: ours or transformers'.

        Raises:
            ConfigError: it holds keys or values that are not understood; they are listed.
        """
        try:
            if config.get("image_processor_type") == MARK:
                return cls._own({k: v for k, v in config.items() if k != "image_processor_type"})
            return cls._of_transformers(config, where)
        except ConfigError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ConfigError(f"{where} holds a value that makes no sense: {error}") from error

    @classmethod
    def _own(cls, config: Mapping[str, Any]) -> DetectionPreprocess:
        known = {field.name for field in fields(cls)}
        if set(config) - known:
            raise ConfigError(f"not understood: {', '.join(sorted(set(config) - known))}")
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in config.items()
        }
        return cls(**values)

    @classmethod
    def _of_transformers(cls, config: Mapping[str, Any], where: str) -> DetectionPreprocess:
        kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
        unknown = {
            key
            for key, value in config.items()
            if key not in _SILENT | _UNDERSTOOD and value not in (None, False)
        }
        if kind and not kind.startswith(_PROCESSORS):
            unknown.add("image_processor_type")
        if unknown:
            listed = ", ".join(f"{key}={config.get(key)!r}" for key in sorted(unknown))
            raise ConfigError(
                f"{where} has settings of the pictures that are not understood: {listed}\n"
                "Ignoring them would change what the model sees. Prepare the pictures yourself and "
                "call\n`model.module(array)`.",
                unknown=sorted(unknown),
            )
        mean, std = config.get("image_mean"), config.get("image_std")
        if not config.get("do_normalize", True):
            mean, std = (0.0,) * 3, (1.0,) * 3
        factor = config.get("rescale_factor")
        return cls(
            **_geometry(config, where),
            multiple=16 if kind.startswith("Yolos") else 1,
            pad=_pair(config.get("pad_size")),
            resample=filter_name(config.get("resample", 2)),
            scale=float(factor or 1 / 255) if config.get("do_rescale", True) else 1.0,
            mean=tuple(float(x) for x in (mean or IMAGENET_MEAN)),
            std=tuple(float(x) for x in (std or IMAGENET_STD)),
        )


def interpolated(x: Array, size: Size) -> Array:
    """A map between its four nearest pixels at each place; nothing is smoothed.

    Shape:
        (C, H, W) -> (C, *size), float32
    """
    if max(size) > 65_535 or size[0] * size[1] > 1 << 28:
        raise DataError(
            f"a picture of {x.shape[2]} x {x.shape[1]} pixels would be resized to {size[1]} x "
            f"{size[0]}.\nIt is too long and thin for this model: crop it first.",
            size=(x.shape[2], x.shape[1]),
        )
    for axis, length in ((1, size[0]), (2, size[1])):
        sides = x.shape[axis]
        if sides == length:
            continue
        half, step = np.float32(0.5), np.float32(sides) / np.float32(length)
        place = (np.arange(length, dtype=np.float32) + half) * step - half
        place = np.clip(place, 0, np.float32(sides - 1))
        low = np.minimum(place.astype(np.int64), max(sides - 2, 0))
        part = (place - low).astype(np.float32).reshape((-1, 1) if axis == 1 else (1, -1))
        above = np.minimum(low + 1, sides - 1)
        x = np.take(x, low, axis) * (1 - part) + np.take(x, above, axis) * part
    return np.asarray(x, np.float32)


def _geometry(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Which of the ways to resize a processor takes."""
    if not config.get("do_resize", True):
        return {"shortest": None, "longest": None}
    size = config.get("size", {"shortest_edge": 800, "longest_edge": 1333})
    if isinstance(size, int):  # as transformers 4 wrote it first
        return {"shortest": size, "longest": config.get("max_size", 1333)}
    keys = {key for key, value in size.items() if value is not None}
    if keys == {"shortest_edge", "longest_edge"}:
        return {"shortest": size["shortest_edge"], "longest": size["longest_edge"]}
    if keys == {"shortest_edge"}:
        return {"shortest": size["shortest_edge"], "longest": config.get("max_size", 1333)}
    if keys == {"longest_edge"} and "mask_size" in config:  # SAM's
        return {"shortest": None, "longest": size["longest_edge"]}
    if keys == {"height", "width"}:
        return {"exact": _pair(size)}
    if keys == {"max_height", "max_width"}:
        return {"within": (size["max_height"], size["max_width"])}
    raise ConfigError(f"{where}: the size {dict(size)} is not understood", got=dict(size))


def _pair(size: Any) -> Size | None:
    return None if size is None else as_size((size["height"], size["width"]))

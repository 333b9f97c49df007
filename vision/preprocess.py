"""How a model wants its pictures: part of the model, and read from what was published with it.

`Preprocess` understands the `preprocessor_config.json` of transformers (the image processors
that resize, crop, rescale and normalise) and the `pretrained_cfg` of timm. Wrong numbers here
cost points of accuracy that no test of weights shows, so a key that is not understood raises.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from ..core.data.images import read_image
from ..core.errors import ConfigError, DataError
from .transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Array,
    CenterCrop,
    Compose,
    Resize,
    Size,
    ToArray,
    as_size,
    edge_of,
    filter_name,
)

MARK = "bestiary.Preprocess"
FITS = ("exact", "shorter", "cover", "contain", "least")
ROUNDINGS = ("torchvision", "transformers")

# fmt: off
# Keys of a transformers processor that change no pixel of a single picture.
_SILENT = frozenset((
    "image_processor_type", "feature_extractor_type", "processor_class", "_processor_class",
    "_valid_processor_keys", "do_convert_rgb", "data_format", "input_data_format", "auto_map",
    "default_to_square", "device", "disable_grouping", "return_tensors", "backend",
    "do_reduce_labels", "reduce_labels",
))
_UNDERSTOOD = frozenset((
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor",
    "do_normalize", "image_mean", "image_std", "crop_pct",
))
# The processors that do nothing beyond those keys.
_PROCESSORS = (
    "Beit", "Bit", "CLIP", "ConvNext", "DPT", "DeiT", "Dinov2", "Levit", "MobileNetV1",
    "MobileNetV2", "PoolFormer", "ResNet", "Segformer", "Swin", "ViT",
)
# fmt: on


@dataclass(frozen=True)
class Preprocess:
    """Pictures to arrays: call it with whatever `bt.data.read_image` reads.

    Args:
        size: height and width of what the network gets.
        resize: what a picture is resized to first; None leaves its size alone. How: `fit`.
        fit: see `Resize`.
        crop: whether the middle of `size` is cut out then.
        resample: a name of `transforms.FILTERS`.
        scale: what a pixel from 0 to 255 is multiplied by.
        mean, std: for each channel, after scaling.
        rounding, fill: see `CenterCrop`.
        multiple: see `Resize`.
    """

    size: Size = (224, 224)
    resize: int | Size | None = 256
    fit: Literal["exact", "shorter", "cover", "contain", "least"] = "shorter"
    crop: bool = True
    resample: str = "bicubic"
    scale: float = 1 / 255
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    rounding: Literal["torchvision", "transformers"] = "torchvision"
    fill: tuple[int, ...] = (0, 0, 0)
    multiple: int = 1

    def __post_init__(self) -> None:
        as_size(self.size)
        as_size(self.multiple)
        filter_name(self.resample)
        if self.resize is not None:
            as_size(self.resize)
        if self.fit not in FITS or self.rounding not in ROUNDINGS or type(self.crop) is not bool:
            raise ConfigError(
                f"fit={self.fit!r}, rounding={self.rounding!r} or crop={self.crop!r} is none of "
                f"{', '.join(FITS)}; {', '.join(ROUNDINGS)}; True, False.",
                fit=self.fit,
                rounding=self.rounding,
                crop=self.crop,
            )
        if len(self.mean) != len(self.std) or not self.mean:
            raise ConfigError(
                f"mean has {len(self.mean)} and std {len(self.std)} values; "
                "both have one for each channel: one (grey) or three (RGB).",
                mean=self.mean,
                std=self.std,
            )
        if not all(math.isfinite(x) for x in (*self.mean, *self.std, self.scale)) or 0 in self.std:
            raise ConfigError(
                f"mean {self.mean}, std {self.std} and scale {self.scale} must be finite, and std "
                "not zero",
                std=self.std,
            )

    @property
    def channels(self) -> int:
        """3 for RGB, 1 for grey; with others the network takes arrays only, no pictures."""
        return len(self.mean)

    def picture(self, source: Any) -> Any:
        """The Pillow image that the network sees, before it becomes numbers.

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
        if self.channels == 1:
            image = image.convert("L")
        return self.geometry()(image)

    def geometry(self) -> Compose:
        """Resizing and cropping, without the numbers."""
        steps: list[Any] = []
        if self.resize is not None:
            steps.append(Resize(self.resize, self.fit, self.resample, self.multiple))
        if self.crop:
            steps.append(CenterCrop(self.size, self.rounding, self.fill))
        return Compose(steps)

    def to_array(self) -> ToArray:
        """The last step: scaling and normalising."""
        return ToArray(self.mean, self.std, self.scale)

    def __call__(self, source: Any) -> Array:
        """One picture as float32.

        Shape:
            (C, H, W)
        Raises:
            DataError: it cannot be read.
        """
        return self.to_array()(self.picture(source))

    def batch(self, sources: Sequence[Any]) -> Array:
        """Several pictures as one float32 array.

        Shape:
            (B, C, H, W)
        """
        return np.stack([self(source) for source in sources])

    def with_channels(self, channels: int) -> Preprocess:
        """The same for another number of channels: grey takes the mean of RGB's, more repeat."""
        if channels == self.channels:
            return self
        if channels == 1:
            return replace(self, mean=(_mean(self.mean),), std=(_mean(self.std),))
        times = -(-channels // self.channels)
        return replace(self, mean=(self.mean * times)[:channels], std=(self.std * times)[:channels])

    def with_size(self, size: int | Size) -> Preprocess:
        """The same at another resolution; the crop stays the same part of the picture."""
        new = as_size(size)
        if self.resize is None or not self.crop:
            return replace(self, size=new, resize=new if self.resize is not None else None)
        grown = [
            round(side * after / before)
            for side, before, after in zip(as_size(self.resize), self.size, new, strict=True)
        ]
        resize = max(grown) if isinstance(self.resize, int) else (grown[0], grown[1])
        return replace(self, size=new, resize=resize)

    # ------------------------------------------------------------- configurations

    def to_config(self) -> dict[str, Any]:
        """What `from_config` reads back: for `preprocessor_config.json`."""
        return {"image_processor_type": MARK, **asdict(self)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str = "the configuration") -> Preprocess:
        """The preprocessing that a file says: ours, transformers' or timm's.

        Raises:
            ConfigError: it holds keys or values that are not understood; they are listed.
        """
        try:
            return cls._read(config, where)
        except ConfigError:
            raise
        except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
            raise ConfigError(f"{where} holds a value that makes no sense: {error}") from error

    @classmethod
    def _read(cls, config: Mapping[str, Any], where: str) -> Preprocess:
        if config.get("image_processor_type") == MARK:
            return cls._own({k: v for k, v in config.items() if k != "image_processor_type"}, where)
        if "pretrained_cfg" in config:
            return cls.from_timm(config["pretrained_cfg"], where)
        if "input_size" in config:
            return cls.from_timm(config, where)
        return cls.from_transformers(config, where)

    @classmethod
    def _own(cls, config: Mapping[str, Any], where: str) -> Preprocess:
        known = {field.name for field in fields(cls)}
        _refuse(set(config) - known, config, where)
        tuples: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in config.items()
        }
        return cls(**tuples)

    @classmethod
    def from_timm(cls, config: Mapping[str, Any], where: str = "the configuration") -> Preprocess:
        """From timm's `pretrained_cfg`: input_size, crop_pct, crop_mode, interpolation, mean, std.

        Source: timm 1.0 `data/transforms_factory.py`, evaluation transforms.
        """
        channels, height, width = (int(n) for n in config.get("input_size", (3, 224, 224)))
        crop_pct = float(config.get("crop_pct") or 0.875)
        mode = config.get("crop_mode") or "center"
        mean = _numbers(config.get("mean", IMAGENET_MEAN), channels, where, "mean")
        scaled = edge_of(height, crop_pct), edge_of(width, crop_pct)
        common: dict[str, Any] = {
            "size": (height, width),
            "resample": filter_name(config.get("interpolation") or "bicubic"),
            "mean": mean,
            "std": _numbers(config.get("std", IMAGENET_STD), channels, where, "std"),
        }
        if mode == "center" and height == width:
            return cls(resize=scaled[0], fit="shorter", **common)
        if mode == "center":
            return cls(resize=scaled, fit="cover", **common)
        if mode == "squash":
            return cls(resize=scaled, fit="exact", **common)
        if mode == "border":
            fill = tuple(round(255 * value) for value in mean)
            return cls(resize=scaled, fit="contain", fill=fill, **common)
        raise ConfigError(
            f"{where}: crop_mode {mode!r} is not understood (center, squash, border).", got=mode
        )

    @classmethod
    def from_transformers(
        cls, config: Mapping[str, Any], where: str = "the configuration"
    ) -> Preprocess:
        """From a `preprocessor_config.json` of transformers, old or new."""
        kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
        _check_keys(config, kind, where)
        mean, std = config.get("image_mean"), config.get("image_std")
        if not config.get("do_normalize", True):
            mean, std = (0.0,) * 3, (1.0,) * 3
        scale = config.get("rescale_factor") or 1 / 255
        # ConvNeXt's processor, which ResNets use as well, crops without being told to
        convnext = kind.startswith("ConvNext") or config.get("crop_pct") is not None
        dpt = kind.startswith("DPT")
        geometry = _convnext_geometry if convnext else _dpt_geometry if dpt else _plain_geometry
        return cls(
            **geometry(config, where),
            resample=filter_name(config.get("resample", 3 if convnext or dpt else 2)),
            scale=float(scale) if config.get("do_rescale", True) else 1.0,
            mean=_numbers(mean, None, where, "image_mean"),
            std=_numbers(std, None, where, "image_std"),
            rounding="transformers",
        )


def _convnext_geometry(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Below 384 pixels a part of the picture, from 384 on the whole, stretched.

    Source: transformers 5.23, `models/convnext/image_processing_pil_convnext.py`.
    """
    size = config.get("size")
    side = size.get("shortest_edge") if isinstance(size, Mapping) else size
    if not isinstance(side, int) or not config.get("do_resize", True):
        raise ConfigError(f"{where}: size is {size!r}, wanted {{'shortest_edge': ...}}", got=size)
    if side >= 384:
        return {"size": (side, side), "resize": (side, side), "fit": "exact", "crop": False}
    part = config.get("crop_pct") or 224 / 256
    return {"size": (side, side), "resize": int(side / part), "fit": "shorter", "crop": True}


def _dpt_geometry(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The whole picture, with its shape kept or not; sides are multiples of the patches'.

    Source: transformers 5.23, `models/dpt/image_processing_pil_dpt.py`.
    """
    size = _height_width(config.get("size", 384), where)
    if not config.get("do_resize", True):
        return {"size": size, "resize": None, "crop": False}
    fit = "least" if config.get("keep_aspect_ratio") else "exact"
    multiple = int(config.get("ensure_multiple_of") or 1)
    return {"size": size, "resize": size, "fit": fit, "crop": False, "multiple": multiple}


def _plain_geometry(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Resize if it says so, then crop if it says so."""
    crop = bool(config.get("do_center_crop", config.get("crop_size") is not None))
    output = _height_width(config.get("crop_size"), where) if crop else None
    if not config.get("do_resize", True):
        return {"size": output or (224, 224), "resize": None, "crop": crop}
    size = config.get("size")
    if isinstance(size, Mapping) and "shortest_edge" in size:
        side = int(size["shortest_edge"])
        return {"size": output or (side, side), "resize": side, "fit": "shorter", "crop": crop}
    if isinstance(size, int) and crop:  # old files: the shorter side where a crop follows
        return {"size": output, "resize": size, "fit": "shorter", "crop": True}
    exact = _height_width(size, where)
    return {"size": output or exact, "resize": exact, "fit": "exact", "crop": crop}


def _check_keys(config: Mapping[str, Any], kind: str, where: str) -> None:
    understood = _SILENT | _UNDERSTOOD
    if kind.startswith("DPT"):
        understood |= {"keep_aspect_ratio", "ensure_multiple_of"}
    unknown = {
        key for key, value in config.items() if key not in understood and value not in (None, False)
    }
    if kind and not kind.startswith(_PROCESSORS):
        unknown.add("image_processor_type")
    _refuse(unknown, config, where)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _refuse(unknown: set[str], config: Mapping[str, Any], where: str) -> None:
    if unknown:
        listed = ", ".join(f"{key}={config.get(key)!r}" for key in sorted(unknown))
        raise ConfigError(
            f"{where} has settings of the pictures that are not understood: {listed}\n"
            "Ignoring them would change what the model sees. Prepare the pictures yourself and\n"
            "call `model.module(array)`, or pass preprocess=Preprocess(...).",
            unknown=sorted(unknown),
        )


def _height_width(size: Any, where: str) -> Size:
    if isinstance(size, Mapping):
        if not {"height", "width"} <= set(size):
            raise ConfigError(f"{where}: the size {dict(size)} is not understood", got=dict(size))
        size = (size["height"], size["width"])
    return as_size(size)


def _numbers(values: Any, channels: int | None, where: str, name: str) -> tuple[float, ...]:
    try:
        result = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        result = ()
    if len(result) == 1 and channels:
        result *= channels
    if not result or (channels and len(result) != channels):
        raise ConfigError(
            f"{where}: {name} is {values!r}, wanted {channels or 'one or three'} numbers",
            got=values,
        )
    return result

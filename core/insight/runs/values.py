"""What is logged, checked and in the form in which it is written."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ConfigError, DataError
from . import events

_LARGEST_STEP = 1 << 62
_LARGEST = 3.4028234e38  # in 32 bits


def plain_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters as numbers, truths and text."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or isinstance(value, Path | type):
            value = str(value)
        if isinstance(value, list | tuple):
            value = ", ".join(str(part) for part in value)
        if not isinstance(value, bool | int | float | str):
            raise ConfigError(
                f"the hyper-parameter {name!r} is {type(value).__name__}; numbers, truths and "
                "text can be written down",
                name=name,
            )
        found[name] = str(value) if isinstance(value, float) and not math.isfinite(value) else value
    return found


def step_number(step: Any) -> int:
    """A step: a whole number from 0 up."""
    if isinstance(step, bool) or not isinstance(step, int | np.integer):
        raise DataError(f"step is a whole number, got {step!r}", got=step)
    if not 0 <= step < _LARGEST_STEP:
        raise DataError(f"step={step} is not from 0 to 2**62", got=step)
    return int(step)


def tag_of(tag: Any) -> str:
    """A tag: text that is not empty."""
    if not isinstance(tag, str) or not tag:
        raise DataError(f"a tag is text such as 'train/loss', got {tag!r}", got=tag)
    return tag


def number_of(tag: str, value: Any) -> float:
    """As it is stored, in 32 bits: what these cannot hold is infinite."""
    try:
        number = float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{tag}: a number is wanted, got {value!r}", got=type(value)) from error
    if abs(number) > _LARGEST:
        return math.copysign(math.inf, number)
    return number


def array_of(values: Any) -> Any:
    """A tensor, or what NumPy takes, as an array on the CPU."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().array
    return np.asarray(values)


def picture_bytes(picture: Any) -> tuple[int, int, bytes]:
    """Height, width and the bytes of an image file."""
    from PIL import Image

    if isinstance(picture, str | Path):
        path = Path(picture)
        with Image.open(path) as image:
            if image.format in ("PNG", "JPEG", "GIF", "WEBP"):
                return image.height, image.width, path.read_bytes()
            picture = image.convert("RGB")
    if not isinstance(picture, Image.Image):
        values = array_of(picture)
        if values.dtype.kind == "f":
            values = np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)
        whole = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))
        if not whole or values.dtype != np.uint8 or 0 in values.shape:
            raise DataError(
                f"a picture is an array (H, W), (H, W, 3) or (H, W, 4) of bytes, or of floats from "
                f"0 to 1, got shape {values.shape} of {values.dtype}",
                shape=values.shape,
            )
        picture = Image.fromarray(values)
    buffer = io.BytesIO()
    kept = picture if picture.mode in ("L", "RGB", "RGBA") else picture.convert("RGB")
    kept.save(buffer, format="PNG")
    return picture.height, picture.width, buffer.getvalue()


def confusion_of(counts: Any, labels: Sequence[str]) -> events.Confusion:
    """A confusion matrix with the names of its classes."""
    array, names = array_of(counts), tuple(str(label) for label in labels)
    whole = array.dtype.kind in "iu" and (not array.size or array.min() >= 0)
    if array.shape != (len(names), len(names)) or not whole or not names:
        raise DataError(
            f"a confusion matrix of {len(names)} classes is of shape {(len(names),) * 2} and holds "
            f"whole numbers from 0 up; got {array.dtype} of shape {array.shape}",
            got=array.shape,
        )
    if len(names) > events.MOST_CLASSES:
        raise DataError(
            f"a confusion matrix may have {events.MOST_CLASSES} classes, not {len(names)}",
            got=len(names),
        )
    return events.Confusion(names, array)

"""What a picture was made with, kept in its PNG file, so that it can be made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import DataError
from ...core.paths import atomic

if TYPE_CHECKING:
    from PIL.Image import Image

KEY = "bestiary"
_LONGEST = 100_000  # characters of settings; more is none of ours


def remember(picture: Image, settings: dict[str, Any]) -> Image:
    """Keep with a picture how it was made; `write_picture` writes it."""
    picture.info[KEY] = settings
    return picture


def write_picture(picture: Image, path: str | Path, *, metadata: bool = True) -> Path:
    """Write a picture; a PNG carries prompt, seed, model and settings as text.

    Args:
        metadata: False leaves them out.
    """
    target = Path(path)
    options: dict[str, Any] = {}
    settings = picture.info.get(KEY)
    if metadata and settings is not None and target.suffix.lower() == ".png":
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_itxt(KEY, json.dumps(settings, ensure_ascii=False))
        options["pnginfo"] = text
    kind = target.suffix.lower().lstrip(".") or "png"
    with atomic(target) as part:
        try:
            plain = picture.convert("RGB") if kind in ("jpg", "jpeg") else picture
            plain.save(part, format={"jpg": "jpeg"}.get(kind, kind), **options)
        except (KeyError, ValueError) as error:
            raise DataError(
                f"{target}: pictures are written as .png, .jpg or .webp, not as .{kind}."
            ) from error
    return target


def settings_of(path: str | Path) -> dict[str, Any]:
    """What a PNG says of how it was made.

    Raises:
        DataError: it is no picture, or carries nothing.
    """
    from .pictures import opened

    text = opened(str(path)).info.get(KEY)
    try:
        found = json.loads(text) if isinstance(text, str) and len(text) < _LONGEST else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DataError(
            f"{path} does not say how it was made: PNG files that `bestiary sample` wrote do, "
            "unless --no-metadata was given or another program saved them anew.",
            path=str(path),
        )
    return found

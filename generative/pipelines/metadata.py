"""What a picture was made with, kept in its PNG file, so that it can be made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.data.images import read_image
from ...core.errors import DataError
from ...core.paths import atomic

if TYPE_CHECKING:
    from PIL.Image import Image

KEY = "bestiary"
_KINDS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}
_LONGEST = 100_000  # characters of settings; more is none of ours


def remember(picture: Image, settings: dict[str, Any]) -> Image:
    """Keep with a picture how it was made; `write_picture` writes it."""
    picture.info[KEY] = settings
    return picture


def write_picture(picture: Image, path: str | Path, *, metadata: bool = True) -> Path:
    """Write a picture; a PNG carries prompt, seed, model and settings as text.

    Args:
        metadata: False leaves them out.

    Raises:
        DataError: its name asks for another format than PNG, JPEG or WebP.
    """
    target = Path(path)
    options: dict[str, Any] = {}
    settings = picture.info.get(KEY)
    if metadata and settings is not None and target.suffix.lower() == ".png":
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_itxt(KEY, json.dumps(settings, ensure_ascii=False))
        options["pnginfo"] = text
    kind = kind_of(target)
    with atomic(target) as part:
        plain = picture.convert("RGB") if kind == "JPEG" else picture
        plain.save(part, format=kind, **options)
    return target


def kind_of(path: Path) -> str:
    """The format that a file's name asks for.

    Raises:
        DataError: none that pictures are written in.
    """
    kind = path.suffix.lower().lstrip(".") or "png"
    if kind not in _KINDS:
        raise DataError(
            f"{path}: pictures are written as .png, .jpg or .webp, not as .{kind}.", file=str(path)
        )
    return _KINDS[kind]


def settings_of(path: str | Path) -> dict[str, Any]:
    """What a PNG says of how it was made.

    Raises:
        DataError: it is no picture, or carries nothing.
    """
    from PIL import Image

    read_image(str(path))  # says what it is, if it is no picture
    with Image.open(path) as image:
        image.load()
        text = image.info.get(KEY)
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

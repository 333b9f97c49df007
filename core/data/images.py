"""One way to read an image, whatever it is: `read_image(source)` gives RGB pixels, upright.

Formats come from an allow-list, because some that Pillow knows run interpreters (EPS) or are
rarely tested. What a picture would cost is checked before it is decoded.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, MissingExtra, ShapeError

if TYPE_CHECKING:
    from PIL import Image

# Phones' JPEG files of several pictures (MPO) are opened as JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
# fmt: off
EXTENSIONS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib",
    ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".heic", ".heif",
))
# fmt: on

# Pillow warns from here on. A 12-megapixel photograph has 12 million pixels.
MAX_PIXELS = 89_478_485
MAX_BYTES = 1 << 30

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_ORIENTATION = 0x0112  # the EXIF tag
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def read_image(
    source: Any,
    *,
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
    background: tuple[int, int, int] = (255, 255, 255),
) -> Image.Image:
    """An image as RGB, upright, whatever it was before.

    The rotation that a camera wrote into EXIF is applied, grey is repeated three times, 16 bits
    are scaled to 8, CMYK and palettes are converted, transparent parts show `background`, and of
    an animation the first frame is taken.

    Args:
        source: a path, bytes, an open binary file, a Pillow image, an array or a tensor of shape
            (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): 8 or 16 bits, booleans, or floats from
            0 to 1.
        max_pixels: larger images are refused before they are decoded.
        at_least: the shorter side may come out smaller than in the file, but not below this
            many pixels: JPEG files are then decoded several times faster.
        background: the colour behind transparent parts.
    Raises:
        DataError: it is no image, of a format that is not read, damaged, or too large; the file
            is named.
        MissingExtra: a HEIC photograph, and the extra `heif` is not installed.
    """
    from PIL import Image

    if isinstance(source, Image.Image):
        return _upright_rgb(source, f"the {source.format or 'Pillow'} image", background)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if str(source).startswith(("http://", "https://")):
            raise DataError(
                f"{source} is a web address, and images are read from files.\nDownload it first.",
                file=str(source),
            )
        try:
            with open(path, "rb") as file:
                return _decode(file, str(path), max_pixels, at_least, background)
        except IsADirectoryError:
            raise DataError(
                f"{path} is a folder, not an image.\nRead a folder with bt.data.ImageFolder.",
                file=str(path),
            ) from None
        except FileNotFoundError:
            raise DataError(
                f"there is no file {path}\n(looked for from {Path.cwd()}).", file=str(path)
            ) from None
        except PermissionError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}", file=str(path)) from None
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(source), "the image bytes", max_pixels, at_least, background)
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        label = name if isinstance(name, str) else "the image file"
        return _decode(_seekable(source, label), label, max_pixels, at_least, background)
    return _upright_rgb(from_array(source), "the array", background)


def from_array(source: Any) -> Image.Image:
    """A Pillow image of an array or tensor of shape (H, W), or (H, W, C) with 1, 3 or 4 channels.

    Raises:
        ShapeError: another shape; notices channels that come first.
        DataError: another dtype, or floats outside 0 to 1.
    """
    from PIL import Image

    from ..tensor import Tensor

    if isinstance(source, Tensor):
        source = source.detach().cpu().array
    if not isinstance(source, np.ndarray):
        raise DataError(
            f"{type(source).__name__} is not an image.\n"
            "Give a path, bytes, an open binary file, a Pillow image, or an array (H, W, C).",
            got=type(source).__name__,
        )
    shape = source.shape
    if source.ndim not in (2, 3) or (source.ndim == 3 and shape[2] not in (1, 3, 4)):
        hint = "An image has the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."
        if source.ndim == 3 and shape[0] in (1, 3, 4):
            hint = "The channels come first here; put them last: image.transpose(1, 2, 0)"
        elif source.ndim == 4:
            hint = "This is a batch; give one image: images[0]"
        raise ShapeError(f"an array of shape {shape} is not an image.\n{hint}", got=shape)
    if 0 in shape:
        raise ShapeError(f"an array of shape {shape} has no pixels", got=shape)
    pixels = np.ascontiguousarray(_eight_bits(source))
    return Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and shape[2] == 1 else pixels)


def _eight_bits(array: np.ndarray[Any, Any]) -> Bytes:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        values = array.astype(np.float32)
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):  # also when there is a NaN
            raise DataError(
                f"a float image has values from 0 to 1, this one from {low:g} to {high:g}.\n"
                "Scale it (image / 255), or convert it: image.astype(np.uint8)",
                low=low,
                high=high,
            )
        return _rounded(values * 255)
    raise DataError(
        f"an image has 8 or 16 bits, booleans or floats from 0 to 1; this array is {array.dtype}."
        "\nConvert it: image.astype(np.uint8)",
        got=str(array.dtype),
    )


def _rounded(values: np.ndarray[Any, Any]) -> Bytes:
    result: Bytes = np.rint(values).astype(np.uint8)
    return result


def _seekable(file: Any, label: str) -> Any:
    """The file itself if Pillow can go back in it, otherwise the rest of its content."""
    # Pillow goes back to the beginning, wherever the file stood.
    if hasattr(file, "seekable") and file.seekable() and file.tell() == 0:
        return file
    content = file.read(MAX_BYTES + 1)
    if isinstance(content, str):
        raise DataError(f"{label} is open as text; open it as bytes: open(path, 'rb')", file=label)
    if len(content) > MAX_BYTES:
        raise DataError(f"{label} has more than {MAX_BYTES:,} bytes", file=label)
    return io.BytesIO(content)


def _decode(
    file: Any,
    label: str,
    max_pixels: int,
    at_least: int | None,
    background: tuple[int, int, int],
) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    head = file.read(4096)
    if isinstance(head, str):
        raise DataError(f"{label} is open as text; open it as bytes: open(path, 'rb')", file=label)
    file.seek(-len(head), os.SEEK_CUR)
    Image.init()  # loads the readers, once
    formats = [name for name in FORMATS if name in Image.OPEN]  # AVIF depends on the build
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        _need_heif(label)
        formats = ["HEIF"]
    try:
        image: Image.Image = Image.open(file, formats=formats)
    except UnidentifiedImageError:
        raise DataError(_unreadable(head, label), file=label) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{label} has too many pixels to be decoded safely: {error}\n"
            "If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS and pass max_pixels=.",
            file=label,
        ) from None
    except Exception as error:  # decoders raise all kinds on damaged files
        raise _damaged(label, error) from error
    with image:
        width, height = image.size
        if width * height > max_pixels:
            raise DataError(
                f"{label} has {width} x {height} = {width * height:,} pixels; the limit is "
                f"{max_pixels:,}.\nIf you trust it: read_image(path, max_pixels={width * height})",
                file=label,
                size=(width, height),
            )
        if at_least is not None and image.format in ("JPEG", "MPO"):
            image.draft("RGB", _draft_size(width, height, at_least))
        return _upright_rgb(image, label, background)


def _draft_size(width: int, height: int, at_least: int) -> tuple[int, int]:
    """The size to ask for, so that the shorter side stays at or above `at_least`."""
    scale = min(1.0, at_least / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _upright_rgb(image: Image.Image, label: str, background: tuple[int, int, int]) -> Image.Image:
    from PIL import ImageFile

    try:
        image.load()
        result = _to_rgb(_rotated(image), label, background)
    except DataError:
        raise
    except Exception as error:  # decoders raise all kinds on damaged files
        raise _damaged(label, error) from error
    if result is image:
        if not isinstance(image, ImageFile.ImageFile):
            return image
        result = image.copy()
    # Pillow carries EXIF along: reading the result again would turn it a second time.
    result.info = {}
    return result


def _rotated(image: Image.Image) -> Image.Image:
    """The image turned as EXIF says; unreadable EXIF counts as none."""
    from PIL import Image

    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return image
    steps = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return image.transpose(steps[orientation]) if orientation in steps else image


def _to_rgb(image: Image.Image, label: str, background: tuple[int, int, int]) -> Image.Image:
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_deep_grey(image, label)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        # Premultiplied grey converts to plain grey with alpha alone.
        rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        if rgba.getchannel("A").getextrema() == (255, 255):
            return rgba.convert("RGB")
        behind = Image.new("RGBA", rgba.size, (*background, 255))
        return Image.alpha_composite(behind, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_grey(image: Image.Image, label: str) -> Bytes:
    """Grey of more than 8 bits: Pillow's own conversion would cut instead of scaling."""
    values = np.asarray(image)
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if low >= 0 and high <= 1:
            return _rounded(values * 255)
    else:
        low, high = int(values.min()), int(values.max())
        if (image.mode != "I" or high > 255) and low >= 0 and high <= 65535:
            return _eight_bits(values.astype(np.uint16))
    if low >= 0 and high <= 255:
        return _rounded(values)
    raise DataError(
        f"{label} is grey with values from {low:g} to {high:g}: their scale is not known.\n"
        "Bring them to 0 to 255 first and give the array.",
        file=label,
        low=low,
        high=high,
    )


def _need_heif(label: str) -> None:
    from PIL import Image

    if "HEIF" in Image.OPEN:
        return
    try:
        import pillow_heif
    except ImportError:
        raise MissingExtra(
            f"{label} is a HEIC photograph, and reading those needs an extra.\n"
            "Install it: pip install 'bestiary[heif]'",
            file=label,
            extra="heif",
        ) from None
    pillow_heif.register_heif_opener()


# How files that are no readable images begin.
_SIGNATURES = (
    (b"%!PS", "EPS (PostScript), a format that is not read because it runs programs"),
    (b"\xc5\xd0\xd3\xc6", "EPS (PostScript), a format that is not read because it runs programs"),
    (b"%PDF", "a PDF document"),
    (b"<svg", "an SVG drawing, which has no pixels; render it to PNG first"),
    (b"version https://git-lfs", "a Git LFS pointer, not the image: run git lfs pull"),
    (b"<!doctype html", "a web page (was it saved instead of the image?)"),
    (b"<html", "a web page (was it saved instead of the image?)"),
    (b"8BPS", "a Photoshop document; export it as PNG first"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"\x00\x00\x01\x00", "a Windows icon, a format that is not read"),
)


def _unreadable(head: bytes, label: str) -> str:
    if not head:
        return f"{label} is empty (0 bytes)."
    start = head.lstrip().lower()
    if start.startswith(b"<?xml") and b"<svg" in start:
        start = b"<svg"
    kind = next((text for mark, text in _SIGNATURES if start.startswith(mark.lower())), None)
    if kind is None and head[4:8] == b"ftyp":
        kind = f"a video or an unknown image of the brand {head[8:12]!r}"
    if kind is None and head.startswith((b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF8", b"II*", b"MM")):
        kind = "a damaged image: its beginning is right and the rest is not"
    return (
        f"{label} is {kind or 'not an image in any format that is read'}.\n"
        f"Formats: {', '.join(FORMATS)}, HEIC with 'bestiary[heif]'."
    )


def _damaged(label: str, error: BaseException) -> DataError:
    text = str(error) or type(error).__name__
    return DataError(
        f"{label} is a damaged image: {text}\nCopy or download it again, or delete it.",
        file=label,
    )

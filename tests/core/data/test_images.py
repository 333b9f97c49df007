"""read_image: the right pixels, or an error that names the file (TESTPLAN 21)."""

import contextlib
import io
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.data.images import from_array, read_image
from bestiary.core.errors import DataError, MissingExtra, ShapeError


def picture(width=40, height=24):
    """A smooth picture in which every corner has another colour."""
    x = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    y = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    return np.stack([x, y, 255 - x], -1).astype(np.uint8)


def saved(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def close(a, b, tolerance=2):
    assert a.shape == b.shape
    assert np.abs(a.astype(int) - b.astype(int)).max() <= tolerance


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(width, height, depth, colour, rows):
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", head)
        + png_chunk(b"IDAT", body)
        + png_chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG2000"])
def test_formats_without_loss(format, tmp_path):
    pixels = picture()
    if format == "GIF":
        pixels[...] = (10, 200, 30)
    options = {"lossless": True} if format == "WEBP" else {}
    path = tmp_path / "a.dat"  # the content decides, never the name
    path.write_bytes(saved(Image.fromarray(pixels), format, **options))
    result = read_image(path)
    assert result.mode == "RGB"
    close(np.asarray(result), pixels, 0)


@pytest.mark.parametrize("format", ["JPEG", "AVIF"])
def test_formats_with_loss(format):
    pixels = picture()
    result = read_image(saved(Image.fromarray(pixels), format, quality=100))
    assert np.abs(np.asarray(result).astype(int) - pixels).mean() < 3  # colours are subsampled


def test_sources_agree(tmp_path):
    pixels = picture()
    path = tmp_path / "bild – größe.png"
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()

    class Pipe:
        """A file in which one cannot go back."""

        def __init__(self):
            self.file = io.BytesIO(content)

        def read(self, n=-1):
            return self.file.read(n)

    with open(path, "rb") as file, Image.open(path) as image:
        sources = [path, str(path), content, bytearray(content), memoryview(content), file]
        sources += [io.BytesIO(content), Pipe(), image, pixels, bt.tensor(pixels)]
        for source in sources:
            close(np.asarray(read_image(source)), pixels, 0)


def test_a_file_is_read_from_where_it_stands():
    file = io.BytesIO(b"header" + saved(Image.fromarray(picture()), "PNG"))
    file.seek(6)
    assert read_image(file).size == (40, 24)


def test_no_file_is_left_open(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(picture()).save(path)
    result = read_image(path)  # a warning about an open file would fail the test
    assert getattr(result, "fp", None) is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation(orientation, format, tmp_path):
    upright = picture()
    undo = {  # how a camera stores a picture that is to be shown with this orientation
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    stored = Image.fromarray(np.ascontiguousarray(undo(upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if format == "JPEG" else {}
    options |= {"lossless": True} if format == "WEBP" else {}
    content = saved(stored, format, exif=exif, **options)
    first = read_image(content)
    close(np.asarray(first), upright, 8)
    # Reading a result again must not turn it again, nor does saving it.
    assert read_image(first) is first
    close(np.asarray(read_image(saved(first, "PNG"))), upright, 8)
    with Image.open(io.BytesIO(content)) as opened:
        close(np.asarray(read_image(opened)), upright, 8)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_unreadable_exif_counts_as_none():
    content = saved(Image.fromarray(picture()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffjunk")
    assert read_image(content).size == (40, 24)


def test_grey():
    grey = picture()[:, :, 0]
    for format in ("PNG", "TIFF"):
        result = np.asarray(read_image(saved(Image.fromarray(grey), format)))
        close(result, grey[:, :, None].repeat(3, 2), 0)


def test_one_bit():
    bits = (picture()[:, :, 0] > 99) * np.uint8(255)
    content = saved(Image.fromarray(bits).convert("1"), "PNG")
    close(np.asarray(read_image(content)), bits[:, :, None].repeat(3, 2), 0)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled(format):
    deep = np.linspace(0, 65535, 960).reshape(24, 40).astype(np.uint16)
    result = np.asarray(read_image(saved(Image.fromarray(deep), format)))
    expected = np.rint(deep / 257).astype(np.uint8)
    close(result, expected[:, :, None].repeat(3, 2), 0)


def test_sixteen_bit_rgb():
    rows = [struct.pack(">6H", 0, 30000, 65535, 257, 514, 65535)]
    result = np.asarray(read_image(raw_png(2, 1, 16, 2, rows)))
    close(result, np.array([[[0, 117, 255], [1, 2, 255]]], np.uint8), 1)


def test_float_and_int_tiff():
    unit = np.linspace(0, 1, 960, dtype=np.float32).reshape(24, 40)
    expected = np.rint(unit * 255).astype(np.uint8)[:, :, None].repeat(3, 2)
    close(np.asarray(read_image(saved(Image.fromarray(unit), "TIFF"))), expected, 0)
    close(np.asarray(read_image(saved(Image.fromarray(unit * 255), "TIFF"))), expected, 1)
    ints = (unit * 255).round().astype(np.int32)
    close(np.asarray(read_image(saved(Image.fromarray(ints), "TIFF"))), expected, 0)
    with pytest.raises(DataError, match=r"scale is not known") as caught:
        read_image(saved(Image.fromarray(unit * 1e6), "TIFF"))
    assert caught.value.high == pytest.approx(1e6)


def test_transparent_parts_show_the_background():
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[:2, :, 3] = 255
    pixels[3, :, 3] = 128
    content = saved(Image.fromarray(pixels, "RGBA"), "PNG")
    result = np.asarray(read_image(content))
    assert result[0, 0].tolist() == [200, 0, 0]
    assert result[2, 0].tolist() == [255, 255, 255]
    close(result[3, 0], np.array([227, 127, 127], np.uint8))
    assert np.asarray(read_image(content, background=(0, 0, 0)))[2, 0].tolist() == [0, 0, 0]


def test_opaque_alpha_changes_nothing():
    pixels = np.concatenate([picture(), np.full((24, 40, 1), 255, np.uint8)], 2)
    close(np.asarray(read_image(pixels)), pixels[..., :3], 0)


def test_grey_with_alpha():
    image = Image.new("LA", (2, 1), (100, 255))
    image.putpixel((1, 0), (100, 0))
    result = np.asarray(read_image(saved(image, "PNG")))
    assert result[0].tolist() == [[100] * 3, [255] * 3]
    assert np.asarray(read_image(Image.new("La", (1, 1), (50, 128)))).shape == (1, 1, 3)
    assert np.asarray(read_image(Image.new("RGBa", (1, 1)))).tolist() == [[[255] * 3]]


def test_palettes():
    pixels = picture()
    image = Image.fromarray(pixels).quantize(64)
    close(np.asarray(read_image(saved(image, "PNG"))), np.asarray(image.convert("RGB")), 0)
    # Transparency as one index and as one byte for each colour (about which Pillow warns).
    small = Image.new("P", (2, 1))
    small.putpalette([255, 0, 0, 0, 255, 0])
    small.putpixel((1, 0), 1)
    for transparency in (1, bytes([255, 0])):
        content = saved(small, "PNG", transparency=transparency)
        assert np.asarray(read_image(content))[0].tolist() == [[255, 0, 0], [255, 255, 255]]


def test_cmyk_jpeg():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    result = np.asarray(read_image(saved(image, "JPEG", quality=100)))
    close(result, np.full((16, 16, 3), (255, 0, 0), np.uint8), 3)


@pytest.mark.parametrize("mode", ["HSV", "LAB", "YCbCr"])
def test_other_colour_spaces(mode):
    image = Image.new("RGB", (8, 8), (200, 60, 60))
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
        assert read_image(saved(image, "TIFF")).mode == "RGB"
        return
    close(np.asarray(read_image(image.convert(mode))), np.asarray(image), 4)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    content = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert np.asarray(read_image(content))[0, 0].tolist() == [255, 0, 0]


def test_multi_picture_jpeg_of_phones():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = saved(frames[0], "MPO", save_all=True, append_images=frames[1:])
    close(np.asarray(read_image(content))[0, 0], np.array([254, 0, 0], np.uint8))


def test_one_pixel():
    assert read_image(saved(Image.new("RGB", (1, 1), "red"), "PNG")).getpixel((0, 0)) == (255, 0, 0)


def test_smaller_decoding_of_photographs():
    content = saved(Image.fromarray(picture(1600, 1200)), "JPEG")
    assert read_image(content, at_least=150).size == (200, 150)
    assert read_image(content, at_least=151).size == (400, 300)
    assert read_image(content, at_least=5000).size == (1600, 1200)
    assert read_image(saved(Image.fromarray(picture()), "PNG"), at_least=4).size == (40, 24)


# -- what cannot be read ----------------------------------------------------------------------


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(raw_png(100_000, 100_000, 8, 0, [b""]))
    with pytest.raises(DataError, match=r"too many pixels") as caught:
        read_image(path)
    assert caught.value.file == str(path)


def test_the_limit_of_pixels():
    content = saved(Image.fromarray(picture()), "PNG")
    with pytest.raises(DataError, match=r"40 x 24 = 960 pixels; the limit is 959") as caught:
        read_image(content, max_pixels=959)
    assert "max_pixels=960" in str(caught.value)
    assert read_image(content, max_pixels=960).size == (40, 24)


def test_a_large_image_under_error_filters_is_refused_too():
    # Between Pillow's warning and its error.
    with pytest.raises(DataError, match="too many pixels"):
        read_image(raw_png(10_000, 10_000, 8, 0, [b""]))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "JPEG2000"])
def test_truncated_images_name_the_file(format, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    content = saved(Image.fromarray(noise), format)
    path = tmp_path / f"cut.{format.lower()}"
    for keep in (len(content) // 2, len(content) // 4, 60):
        path.write_bytes(content[:keep])
        with pytest.raises(DataError) as caught:
            read_image(path)
        assert str(path) in str(caught.value)
        assert caught.value.file == str(path)
        assert len(str(caught.value).splitlines()) <= 12


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "AVIF"])
def test_flipped_bytes_give_an_image_or_our_error(format):
    rng = np.random.default_rng(1)
    content = bytearray(saved(Image.fromarray(picture()), format))
    for _ in range(60):
        damaged = bytearray(content)
        for at in rng.integers(0, len(content), 5):
            damaged[at] = rng.integers(256)
        with contextlib.suppress(DataError, MissingExtra):
            assert read_image(bytes(damaged)).mode == "RGB"


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS"),
        (b"\xc5\xd0\xd3\xc6" + bytes(40), "EPS"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<?xml version='1.0'?>\n<svg width='1'/>", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"\n<!DOCTYPE html><html>not found</html>", "web page"),
        (b"\x00\x00\x00\x20ftypisom", "video"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "damaged"),
        (b"hello", "not an image"),
    ],
)
def test_other_files_are_named_for_what_they_are(content, words, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match="no file"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(DataError, match="ImageFolder"):
        read_image(tmp_path)
    with pytest.raises(DataError, match="Download"):
        read_image("https://example.org/a.png")
    with pytest.raises(DataError, match="as text"):
        read_image(io.StringIO("text"))
    with pytest.raises(DataError, match="int is not an image"):
        read_image(3)


def test_heic_without_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100))
    with pytest.raises(MissingExtra, match=r"bestiary\[heif\]") as caught:
        read_image(path)
    assert str(path) in str(caught.value)


def test_heic_with_the_extra():
    heif = pytest.importorskip("pillow_heif")
    pixels = picture(64, 48)
    file = io.BytesIO()
    heif.from_pillow(Image.fromarray(pixels)).save(file, quality=100)
    close(np.asarray(read_image(file.getvalue())), pixels, 12)


# -- arrays -----------------------------------------------------------------------------------


def test_arrays():
    pixels = picture()
    grey = pixels[:, :, 0]
    close(np.asarray(read_image(grey)), grey[:, :, None].repeat(3, 2), 0)
    close(np.asarray(read_image(grey[:, :, None])), grey[:, :, None].repeat(3, 2), 0)
    close(np.asarray(read_image((pixels / 255).astype(np.float32))), pixels, 0)
    close(np.asarray(read_image(pixels.astype(np.uint16) * 257)), pixels, 0)
    close(np.asarray(read_image(pixels[::-1, ::-1])), pixels[::-1, ::-1], 0)
    assert np.asarray(from_array(np.eye(2, dtype=bool))).tolist() == [[255, 0], [0, 255]]
    half = bt.tensor(pixels / 255, dtype=bt.bfloat16)
    close(np.asarray(read_image(half)), pixels, 2)


@pytest.mark.parametrize(
    "shape, words",
    [
        ((3, 8, 9), r"transpose\(1, 2, 0\)"),
        ((2, 8, 9, 3), r"images\[0\]"),
        ((8,), "shape"),
        ((8, 9, 5), r"\(H, W, 3\)"),
        ((0, 4, 3), "no pixels"),
    ],
)
def test_arrays_of_other_shapes(shape, words):
    with pytest.raises(ShapeError, match=words) as caught:
        read_image(np.zeros(shape, np.uint8))
    assert caught.value.got == shape


def test_arrays_of_other_values():
    with pytest.raises(DataError, match="from 0 to 1, this one from 0 to 255"):
        read_image(np.array([[0.0, 255.0]]))
    with pytest.raises(DataError, match="nan"):
        read_image(np.array([[0.0, np.nan]]))
    with pytest.raises(DataError, match="int64"):
        read_image(np.zeros((2, 2), np.int64))

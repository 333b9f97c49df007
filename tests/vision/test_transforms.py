"""Resizing, cropping and normalising, at their edges."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bestiary.core.errors import ConfigError, DataError, ShapeError
from bestiary.vision.transforms import (
    CenterCrop,
    Compose,
    Normalize,
    Resize,
    ToArray,
    as_size,
    filter_name,
)


@pytest.mark.parametrize(
    "fit, size, before, after",
    [
        ("shorter", 30, (45, 61), (30, 40)),  # 30 * 61 / 45 = 40.67, cut off
        ("shorter", 30, (61, 45), (40, 30)),
        ("shorter", 30, (45, 45), (30, 30)),
        ("exact", (20, 33), (45, 61), (20, 33)),
        ("cover", (20, 33), (45, 61), (24, 33)),  # 45 * 33 / 61 = 24.3
        ("contain", (20, 33), (45, 61), (20, 27)),
        ("contain", (8, 8), (1000, 1), (8, 1)),  # never nothing
    ],
)
def test_sizes(fit: str, size: object, before: tuple[int, int], after: tuple[int, int]) -> None:
    assert Resize(size, fit).target(*before) == after  # type: ignore[arg-type]
    image = Image.new("RGB", before[::-1])
    assert Resize(size, fit)(image).size == after[::-1]  # type: ignore[arg-type]


def test_resizing_to_the_same_size_changes_nothing(photo: Image.Image) -> None:
    assert Resize((48, 60), "exact")(photo) is photo


@pytest.mark.parametrize("rounding", ["torchvision", "transformers"])
@pytest.mark.parametrize(
    "length, crop, torchvision, transformers",
    [(10, 4, 3, 3), (11, 4, 4, 3), (9, 4, 2, 2), (4, 7, -1, -2), (4, 8, -2, -2), (4, 4, 0, 0)],
)
def test_where_the_crop_lies(
    rounding: str, length: int, crop: int, torchvision: int, transformers: int
) -> None:
    row = np.arange(1, length + 1, dtype=np.uint8)
    picture = Image.fromarray(np.tile(row, (length, 1)))
    start = torchvision if rounding == "torchvision" else transformers
    padded = np.pad(row, 10)
    expected = padded[10 + start : 10 + start + crop]
    result = np.asarray(CenterCrop(crop, rounding)(picture))  # type: ignore[arg-type]
    assert result.shape == (crop, crop)
    inside = result[max(0, -start) if crop > length else 0]
    np.testing.assert_array_equal(inside, expected)


def test_crop_fills_with_a_colour(photo: Image.Image) -> None:
    result = np.asarray(CenterCrop((50, 64), fill=(9, 8, 7))(photo))
    assert tuple(result[0, 0]) == (9, 8, 7)
    np.testing.assert_array_equal(result[1:49, 2:62], np.asarray(photo))


def test_to_array_is_exact_for_every_value() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    result = ToArray(mean, std)(Image.fromarray(np.stack([values] * 3, -1)))
    for channel in range(3):
        expected = (values.astype(np.float64) / 255 - mean[channel]) / std[channel]
        np.testing.assert_array_equal(result[channel], expected.astype(np.float32))
    assert result.flags.c_contiguous


def test_to_array_names_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="1 channels and the normalisation 3") as caught:
        ToArray()(Image.new("L", (3, 3)))
    assert caught.value.expected == 3
    with pytest.raises(DataError, match="mode F"):
        ToArray()(Image.new("F", (3, 3)))


def test_normalize_and_back() -> None:
    x = np.random.default_rng(0).random((2, 3, 4, 5)).astype(np.float32)
    norm = Normalize((0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    np.testing.assert_allclose(norm(x)[:, 1], (x[:, 1] - 0.2) / 0.25, rtol=1e-6)
    np.testing.assert_allclose(norm.undo(norm(x)), x, rtol=1e-5, atol=1e-7)
    assert norm(x).dtype == np.float32


def test_compose_gives_the_generator_to_those_that_draw() -> None:
    class Draw:
        random = True

        def __call__(self, x: int, rng: np.random.Generator) -> int:
            return x + int(rng.integers(1000))

    steps = Compose([lambda x: x * 1000, Draw()])
    first = steps(3, np.random.default_rng(4))
    assert first == 3000 + int(np.random.default_rng(4).integers(1000))
    assert steps(3, np.random.default_rng(4)) == first
    assert len(list(steps)) == 2


@pytest.mark.parametrize("name, value", [("bicubic", 3), ("BILINEAR", "bilinear"), ("box", 4)])
def test_filters_by_name_and_number(name: str, value: object) -> None:
    assert filter_name(value) == filter_name(name) == name.lower()


@pytest.mark.parametrize("bad", [True, 6, -1, "sinc", None])
def test_no_such_filter(bad: object) -> None:
    with pytest.raises(ConfigError, match="bicubic"):
        filter_name(bad)


@pytest.mark.parametrize("bad", [0, -3, (1, 2, 3), (5, 0), "x", None, 70_000])
def test_no_such_size(bad: object) -> None:
    with pytest.raises(ConfigError, match="size of a picture"):
        as_size(bad)

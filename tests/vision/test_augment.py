"""Augmentations: repeatable from a generator, in range, and doing what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bestiary.core.data.seeding import set_key
from bestiary.core.errors import ConfigError, ShapeError
from bestiary.vision import augment
from bestiary.vision.augment import (
    ColorJitter,
    CutMix,
    Mixup,
    RandAugment,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomVerticalFlip,
    TrivialAugment,
    one_hot,
)

PICTURE_CHANGES = [
    RandomResizedCrop(24),
    RandomCrop(40, padding=4),
    RandomCrop(40, padding=4, mode="reflect"),
    RandomHorizontalFlip(),
    RandomVerticalFlip(),
    ColorJitter(0.4, 0.4, 0.4, 0.1),
    RandAugment(2, 0.7),
    TrivialAugment(),
]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("change", PICTURE_CHANGES, ids=repr)
def test_same_generator_same_picture(change: Callable[..., Any], photo: Image.Image) -> None:
    results = {np.asarray(change(photo, rng(seed))).tobytes() for seed in range(12)}
    again = {np.asarray(change(photo, rng(seed))).tobytes() for seed in range(12)}
    assert results == again
    assert len(results) > 1, "it never changes anything"
    assert np.asarray(photo).shape == (48, 60, 3)


@pytest.mark.parametrize("change", PICTURE_CHANGES, ids=repr)
def test_grey_pictures_stay_grey(change: Callable[..., Any], photo: Image.Image) -> None:
    grey = photo.convert("L")
    for seed in range(20):
        assert change(grey, rng(seed)).mode == "L"


def test_without_a_generator_the_sample_being_read_decides(photo: Image.Image) -> None:
    change = RandomResizedCrop(24)
    before = set_key((0, 5, 1, 9))
    try:
        first = np.asarray(change(photo))
        set_key((0, 5, 1, 9))
        np.testing.assert_array_equal(np.asarray(change(photo)), first)
        set_key((0, 5, 1, 10))
        assert not np.array_equal(np.asarray(change(photo)), first)
    finally:
        set_key(before)


def test_resized_crop_stays_within_its_bounds() -> None:
    change = RandomResizedCrop(8, scale=(0.2, 0.6), ratio=(0.5, 2.0))
    generator, areas = rng(), []
    for _ in range(300):
        left, top, right, bottom = change.box(90, 120, generator)
        assert 0 <= left < right <= 120
        assert 0 <= top < bottom <= 90
        areas.append((right - left) * (bottom - top) / (90 * 120))
        assert 0.45 < (right - left) / (bottom - top) < 2.1
    assert 0.18 < min(areas) < 0.25
    assert 0.55 < max(areas) < 0.62


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (1, 1), (3, 40)])
def test_resized_crop_of_pictures_that_nothing_fits_in(shape: tuple[int, int]) -> None:
    for seed in range(20):
        left, top, right, bottom = RandomResizedCrop(4).box(*shape, rng(seed))
        assert 0 <= left < right <= shape[1]
        assert 0 <= top < bottom <= shape[0]


def test_crop_smaller_than_the_picture_is_needed(photo: Image.Image) -> None:
    with pytest.raises(ShapeError, match="48 x 60 is smaller than the crop of 50 x 50"):
        RandomCrop(50)(photo, rng())
    assert RandomCrop(50, padding=1)(photo, rng()).size == (50, 50)


def test_flips(photo: Image.Image) -> None:
    pixels = np.asarray(photo)
    np.testing.assert_array_equal(
        np.asarray(RandomHorizontalFlip(1)(photo, rng())), pixels[:, ::-1]
    )
    np.testing.assert_array_equal(np.asarray(RandomVerticalFlip(1)(photo, rng())), pixels[::-1])
    assert RandomHorizontalFlip(0)(photo, rng()) is photo


def test_jitter_without_strength_changes_nothing(photo: Image.Image) -> None:
    assert ColorJitter()(photo, rng()) is photo
    with pytest.raises(ConfigError, match=r"at most 0\.5"):
        ColorJitter(hue=0.6)


def test_hue_goes_round_the_circle(photo: Image.Image) -> None:
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    assert np.asarray(augment._hue(red, 1 / 3))[0, 0].argmax() == 1
    assert np.asarray(augment._hue(red, -1 / 3))[0, 0].argmax() == 2
    through = photo.convert("HSV").convert("RGB")
    np.testing.assert_array_equal(np.asarray(augment._hue(photo, 0.0)), np.asarray(through))


def test_level_zero_of_every_change_is_the_picture(photo: Image.Image) -> None:
    neutral = [augment._autocontrast, augment._equalize]  # these have no level
    for function, low, _, _ in augment._CHANGES:
        if function not in neutral:
            np.testing.assert_allclose(
                np.asarray(function(photo, low), int),
                np.asarray(photo),
                atol=1,
                err_msg=str(function),
            )
    for function in augment._FACTORS:
        np.testing.assert_allclose(np.asarray(function(photo, 1.0)), np.asarray(photo))


def test_translation_and_shear_move_the_right_way() -> None:
    dot = np.zeros((21, 21, 3), np.uint8)
    dot[10, 10] = 255
    picture = Image.fromarray(dot)

    def place(image: Image.Image) -> tuple[int, int]:
        bright = np.asarray(image)[:, :, 0].astype(int)
        bright[bright == 128] = 0  # the filling
        return divmod(int(bright.argmax()), 21)

    assert place(augment._translate_x(picture, 2 / 21)) == (10, 8)
    assert place(augment._translate_y(picture, 2 / 21)) == (8, 10)
    assert place(augment._shear_x(picture, 0.3)) == (10, 10)  # the middle stays
    assert place(augment._rotate(picture, 30)) == (10, 10)


def test_erasing() -> None:
    x = np.ones((3, 16, 16), np.float32)
    erased = RandomErasing(p=1, scale=(0.1, 0.2))(x, rng())
    part = (erased == 0).mean()
    assert 0.05 < part < 0.25
    assert (x == 1).all(), "the picture that came in was changed"
    assert RandomErasing(p=0)(x, rng()) is x
    noise = RandomErasing(p=1, value=None)(x, rng())
    assert noise.dtype == np.float32
    assert len(np.unique(noise)) > 10
    np.testing.assert_array_equal(RandomErasing(p=1)(np.ones((1, 1, 1)), rng()), 1)


def test_one_hot() -> None:
    rows = one_hot(np.array([0, 2]), 4, smoothing=0.2)
    np.testing.assert_allclose(rows, [[0.85, 0.05, 0.05, 0.05], [0.05, 0.05, 0.85, 0.05]])
    assert one_hot(np.array([], int), 4).shape == (0, 4)
    for bad in ([4], [-1], [[1]]):
        with pytest.raises(ShapeError, match="from 0 to 3"):
            one_hot(np.array(bad), 4)


@pytest.mark.parametrize("mix", [Mixup(5, alpha=1.0), CutMix(5)], ids=repr)
def test_mixes_blend_pictures_and_labels_alike(mix: Callable[..., Any]) -> None:
    """Each picture is its own label everywhere, so the mean picture must equal the mean label."""
    labels = np.arange(5)
    images = np.zeros((5, 5, 12, 10), np.float32)
    images[labels, labels] = 1
    shares = set()
    for seed in range(10):
        mixed, rows = mix(images, labels, rng(seed))
        assert mixed.dtype == rows.dtype == np.float32
        np.testing.assert_allclose(mixed.mean(axis=(2, 3)), rows, atol=1e-6)
        np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-6)
        shares.update(np.round(rows[rows > 0], 3).tolist())
        again = mix(images, labels, rng(seed))
        np.testing.assert_array_equal(again[0], mixed)
    assert len(shares) > 3
    assert images.max() == 1 and images.sum() == 5 * 120, "the batch that came in was changed"


def test_mixing_rows_that_are_mixed_already() -> None:
    images = rng().random((4, 3, 6, 6)).astype(np.float32)
    first = Mixup(3)(images, np.array([0, 1, 2, 0]), rng())
    _, rows = CutMix(3)(*first, rng())
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-6)

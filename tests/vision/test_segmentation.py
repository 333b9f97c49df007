"""The segmentation task: class maps at the size of pictures, metrics, losses, augmentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError, IndexRangeError, ShapeError
from bestiary.core.nn import functional as F
from bestiary.hub.card import card_of
from bestiary.hub.registry import architecture_by_name
from bestiary.vision.augment import (
    ColorJitter,
    RandAugment,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomVerticalFlip,
)
from bestiary.vision.preprocess import Preprocess
from bestiary.vision.segmentation import Segmentation, classes_at, colours
from bestiary.vision.segmentation_augment import WithMask
from bestiary.vision.segmentation_losses import dice_loss, focal_loss
from bestiary.vision.segmentation_metrics import SegmentationReport
from bestiary.vision.segmenter import Segmenter
from bestiary.vision.transforms import CenterCrop, Resize

LABELS = ["background", "left", "right"]


class Halves(bt.nn.Module):
    """Says "left" where the red channel is larger than the green one, else "right"."""

    def __init__(self) -> None:
        self.scale = bt.nn.Parameter(np.ones(1, np.float32))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, pixel_values: bt.Tensor) -> bt.Tensor:
        self.seen.append(pixel_values.shape)
        red, green = pixel_values[:, :1], pixel_values[:, 1:2]
        return bt.concat([red * 0 - 9, red - green, green - red], axis=1) * self.scale


def task(**preprocess: Any) -> Segmenter:
    architecture = architecture_by_name("unet")
    assert architecture is not None
    settings: dict[str, Any] = {"size": (32, 32), "resize": (32, 32), "fit": "exact", **preprocess}
    return Segmenter(
        Halves(),
        architecture="unet",
        config=architecture.config(num_classes=3),
        preprocess=Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3, **settings),
        labels=LABELS,
        card=card_of(architecture, None, "halves"),
    )


def halves(width: int = 60, height: int = 40) -> Image.Image:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 200
    pixels[:, width // 2 :, 1] = 200
    return Image.fromarray(pixels)


# -- answers --------------------------------------------------------------------------------------


def test_a_class_for_every_pixel_of_the_picture() -> None:
    found = task()(halves())
    expected = np.repeat([[1] * 30 + [2] * 30], 40, axis=0)
    assert found.classes.dtype == np.uint8
    np.testing.assert_array_equal(found.classes, expected)
    assert found.shares == [{"label": "left", "share": 0.5}, {"label": "right", "share": 0.5}]
    np.testing.assert_array_equal(found.mask("left"), expected == 1)
    assert repr(found) == "Segmentation(60 x 40 pixels: left 50.0%, right 50.0%)"
    with pytest.raises(DataError, match="'sky' is none of the labels: background, left, right"):
        found.mask("sky")


def test_exif_rotation_is_honoured(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter
    path = tmp_path / "turned.jpg"
    halves().save(path, exif=exif, quality=95)
    found = task()(path)
    assert found.classes.shape == (60, 40)
    assert (found.classes[:25] == 1).all()
    assert (found.classes[35:] == 2).all()
    assert task().draw(path, legend=False).size == (40, 60)


def test_lists_folders_and_generators(tmp_path: Path) -> None:
    sizes = [(60, 40), (20, 30), (33, 31)]
    for i, size in enumerate(sizes):
        halves(*size).save(tmp_path / f"{i}.png")
    model = task()
    listed = model([halves(*size) for size in sizes], batch_size=2)
    assert [answer.classes.shape for answer in listed] == [(40, 60), (30, 20), (31, 33)]
    assert model.module.seen == [(2, 3, 32, 32), (1, 3, 32, 32)]
    folder = model(tmp_path)
    assert list(folder) == [str(tmp_path / f"{i}.png") for i in range(3)]
    lazy = model(halves(*size) for size in sizes)
    assert next(lazy).classes.shape == (40, 60)
    assert model([]) == []
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"bad\.png"):
        model(tmp_path)
    with pytest.raises(ConfigError, match="batch_size=0"):
        model([halves()], batch_size=0)


def test_pictures_of_several_shapes_go_through_in_groups() -> None:
    model = task(resize=16, fit="shorter", crop=True)
    sizes = [(32, 16), (16, 32), (64, 32)]
    found = model([halves(*size) for size in sizes])
    assert [answer.classes.shape for answer in found] == [(h, w) for w, h in sizes]
    assert model.module.seen == [(2, 3, 16, 32), (1, 3, 32, 16)]
    for answer, (width, _) in zip(found, sizes, strict=True):
        assert (answer.classes[:, : width // 2 - 1] == 1).all()


@pytest.mark.parametrize("size", [(11, 7), (40, 64), (5, 9), (1, 1), (300, 450)])
def test_logits_are_resized_as_interpolate_does(size: tuple[int, int]) -> None:
    logits = np.random.default_rng(0).standard_normal((7, 5, 9)).astype(np.float32)
    wanted = F.interpolate(
        bt.tensor(logits[None]), size=size, mode="bilinear", align_corners=False
    ).array[0]
    found = classes_at(logits, size)
    chosen = np.take_along_axis(wanted, found[None].astype(int), 0)[0]
    np.testing.assert_allclose(chosen, wanted.max(axis=0), atol=1e-6)
    assert classes_at(np.zeros((300, 2, 2), np.float32), size).dtype == np.uint16


def test_palette_png(tmp_path: Path) -> None:
    found = task()(halves())
    path = found.save(tmp_path / "new" / "classes.png")
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), found.classes)
        assert image.convert("RGB").getpixel((0, 0)) == colours(LABELS)[1]
    with pytest.raises(DataError, match=re.escape("classes.png")):
        found.save(tmp_path / "classes.jpg")
    many = Segmentation(np.array([[0, 299]], np.uint16), [f"c{i}" for i in range(300)])
    with Image.open(many.save(tmp_path / "many.png")) as image:
        np.testing.assert_array_equal(np.asarray(image), many.classes)


def test_colours_differ_and_the_background_is_black() -> None:
    found = colours(["background", *(f"class {i}" for i in range(149))])
    assert found[0] == (0, 0, 0)
    assert len(set(found)) == 150


def test_drawn_classes_and_legend() -> None:
    model = task()
    image = halves(120, 80)
    plain = model.draw(image, opacity=1, legend=False)
    assert plain.size == image.size
    assert plain.getpixel((10, 10)) == colours(LABELS)[1]
    assert plain.getpixel((110, 10)) == colours(LABELS)[2]
    with_legend = model.draw(image)
    assert with_legend.height == 80
    assert with_legend.width > 160
    beside = np.asarray(with_legend)[:, 120:].reshape(-1, 3)
    assert len(np.unique(beside, axis=0)) > 10
    ground = Segmentation(np.zeros((80, 120), np.uint8), LABELS)
    np.testing.assert_array_equal(np.asarray(ground.draw(image, legend=False)), np.asarray(image))
    with pytest.raises(ShapeError, match="120 x 80"):
        ground.draw(halves())


# -- metrics --------------------------------------------------------------------------------------


def test_report_of_a_case_worked_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1], [0, 255, 1, 2]])
    found = np.array([[0, 1, 1, 1], [0, 2, 0, 1]])
    report = SegmentationReport.of([(found, truth)], LABELS)
    np.testing.assert_array_equal(report.confusion, [[2, 1, 0], [1, 2, 0], [0, 1, 0]])
    np.testing.assert_allclose(report.iou, [2 / 4, 2 / 5, 0])
    assert report.mean_iou == pytest.approx(0.3)
    assert report.accuracy == pytest.approx(4 / 7)
    np.testing.assert_allclose(report.class_accuracy, [2 / 3, 2 / 3, 0])
    assert report.ignored == 1
    assert "mean IoU 0.3000, pixel accuracy 0.5714, 1 pictures" in str(report)
    assert report.to_dict()["classes"]["right"] == {"iou": 0.0, "accuracy": 0.0, "pixels": 1}


def test_classes_that_never_occur_do_not_count() -> None:
    truth = np.array([[0, 0, 1]])
    report = SegmentationReport.of([(truth, truth), (truth, truth)], LABELS)
    assert report.mean_iou == 1
    assert np.isnan(report.iou[2])
    assert report.to_dict()["classes"]["right"]["iou"] is None
    assert "right" not in str(report)
    empty = SegmentationReport.of([], LABELS)
    assert np.isnan(empty.mean_iou)
    assert empty.to_dict()["mean_iou"] is None


def test_report_equals_its_definition_on_random_maps() -> None:
    rng = np.random.default_rng(4)
    pairs = [(rng.integers(0, 3, (9, 7)), rng.choice([0, 1, 2, 255], (9, 7))) for _ in range(5)]
    report = SegmentationReport.of(iter(pairs), LABELS)
    for number in range(3):
        both = union = 0
        for found, truth in pairs:
            valid = truth != 255
            both += int(((found == number) & (truth == number)).sum())
            union += int((((found == number) | (truth == number)) & valid).sum())
        assert report.iou[number] == pytest.approx(both / union)


def test_maps_that_do_not_fit() -> None:
    zeros = np.zeros((2, 3), int)
    with pytest.raises(ShapeError, match="picture 1"):
        SegmentationReport.of([(zeros, zeros), (zeros, zeros.T)], LABELS)
    with pytest.raises(IndexRangeError, match="picture 0"):
        SegmentationReport.of([(zeros, zeros + 3)], LABELS)
    with pytest.raises(IndexRangeError):
        SegmentationReport.of([(zeros, zeros + 255)], LABELS, ignore=None)


# -- losses ---------------------------------------------------------------------------------------


def batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.standard_normal((2, 3, 4, 5)), rng.choice([0, 1, 2, 255], (2, 4, 5))


def test_dice_loss_equals_its_definition() -> None:
    logits, target = batch()
    e = np.exp(logits)
    p = e / e.sum(axis=1, keepdims=True)
    valid = target != 255
    scores = []
    for number in range(3):
        inside, true = p[:, number] * valid, (target == number) & valid
        scores.append((2 * (inside * true).sum() + 1) / (inside.sum() + true.sum() + 1))
    loss = dice_loss(bt.tensor(logits), bt.tensor(target))
    assert loss.item() == pytest.approx(1 - np.mean(scores))


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal_loss_equals_its_definition(gamma: float) -> None:
    logits, target = batch()
    e = np.exp(logits)
    p = e / e.sum(axis=1, keepdims=True)
    valid = target != 255
    right = np.take_along_axis(p, np.where(valid, target, 0)[:, None], 1)[:, 0][valid]
    loss = focal_loss(bt.tensor(logits), bt.tensor(target), gamma=gamma)
    assert loss.item() == pytest.approx((-((1 - right) ** gamma) * np.log(right)).mean())
    if gamma == 0:
        plain = F.cross_entropy(bt.tensor(logits), bt.tensor(target), ignore_index=255)
        assert loss.item() == pytest.approx(plain.item())


@pytest.mark.parametrize("loss", [dice_loss, focal_loss])
def test_ignored_pixels_have_no_gradient(loss: Any) -> None:
    logits, target = batch()
    x = bt.tensor(logits, requires_grad=True)
    loss(x, bt.tensor(target)).backward()
    assert x.grad is not None
    gradient = x.grad.array.transpose(0, 2, 3, 1)
    assert np.abs(gradient[target == 255]).max() == 0
    assert np.abs(gradient[target != 255]).min() > 0
    numeric = np.zeros(5)
    for i in range(5):
        step = np.zeros_like(logits)
        step.flat[i] = 1e-5
        high, low = (loss(bt.tensor(logits + s * step), bt.tensor(target)).item() for s in (1, -1))
        numeric[i] = (high - low) / 2e-5
    np.testing.assert_allclose(x.grad.array.flat[:5], numeric, atol=1e-7)


@pytest.mark.parametrize("loss", [dice_loss, focal_loss])
def test_everything_ignored_and_wrong_shapes(loss: Any) -> None:
    logits, _ = batch()
    nothing = bt.tensor(np.full((2, 4, 5), 255))
    assert loss(bt.tensor(logits), nothing).item() == pytest.approx(0)
    with pytest.raises(ShapeError, match="interpolate"):
        loss(bt.tensor(logits), bt.tensor(np.zeros((2, 8, 10), np.int64)))


# -- augmentation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "transform",
    [
        RandomResizedCrop((24, 30), (0.2, 1.0), resample="nearest"),
        RandomCrop((20, 24)),
        RandomHorizontalFlip(),
        RandomVerticalFlip(),
        Resize((25, 33), "exact", "nearest"),
        CenterCrop((20, 31)),
    ],
)
def test_masks_follow_their_pictures(transform: Any) -> None:
    mask = np.random.default_rng(0).integers(0, 7, (40, 48)).astype(np.uint8)
    image = Image.fromarray(np.repeat(mask[:, :, None], 3, axis=2) * 30)
    both = WithMask((transform, RandomHorizontalFlip(), ColorJitter()))
    for seed in range(5):
        moved, own = both(image, Image.fromarray(mask), np.random.default_rng(seed))
        np.testing.assert_array_equal(np.asarray(moved)[:, :, 0], np.asarray(own) * 30)


def test_masks_are_not_blended_and_the_outside_is_ignored() -> None:
    mask = Image.fromarray(np.random.default_rng(0).choice([0, 9], (40, 48)).astype(np.uint8))
    image = mask.convert("RGB")
    _, small = WithMask((RandomResizedCrop(17),))(image, mask, np.random.default_rng(0))
    assert set(np.unique(np.asarray(small))) == {0, 9}
    _, padded = WithMask((RandomCrop(48, padding=12),))(image, mask, np.random.default_rng(0))
    assert set(np.unique(np.asarray(padded))) == {0, 9, 255}
    moved, same = WithMask((ColorJitter(0.5),))(image, mask, np.random.default_rng(3))
    np.testing.assert_array_equal(np.asarray(same), np.asarray(mask))
    assert (np.asarray(moved) != np.asarray(image)).any()


def test_what_masks_cannot_follow() -> None:
    with pytest.raises(ConfigError, match="RandAugment"):
        WithMask((RandAugment(),))
    with pytest.raises(ShapeError, match="60 x 40"):
        WithMask(())(halves(), Image.new("L", (40, 60)))

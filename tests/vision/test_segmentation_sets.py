"""Pictures with masks: reading, errors that name the file, and training on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError
from bestiary.hub.loading import load
from bestiary.vision.generated import SHAPES, write_masks
from bestiary.vision.segmentation_finetune import Recipe
from bestiary.vision.segmentation_sets import read_mask, segmentation_data


def write(
    folder: Path, name: str, mask: Any, size: tuple[int, int] = (6, 4), mode: str = "L"
) -> Path:
    """A picture of a size (width, height), and its mask."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 60, 30)).save(folder / "images" / f"{name}.jpg")
    path = folder / "masks" / f"{name}.png"
    image = Image.fromarray(np.asarray(mask, np.uint8))
    if mode == "P":
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.convert(mode).save(path)
    return path


PLAIN = np.array([[0, 1, 2, 255, 0, 0]] * 4)


def test_two_folders_with_matching_names(tmp_path: Path) -> None:
    write(tmp_path, "a", PLAIN)
    write(tmp_path, "b", np.minimum(PLAIN, 1), mode="P")
    found = segmentation_data(tmp_path)
    assert [path.name for path in found.paths] == ["a.jpg", "b.jpg"]
    assert [path.name for path in found.masks] == ["a.png", "b.png"]
    assert found.labels == ["class 0", "class 1", "class 2"]
    assert found.splits == []
    np.testing.assert_array_equal(found.mask(0), PLAIN)
    np.testing.assert_array_equal(found.mask(1), np.minimum(PLAIN, 1))
    (tmp_path / "classes.txt").write_text("ground\nroad\n\n roof \n")
    assert segmentation_data(tmp_path).labels == ["ground", "road", "roof"]
    pair = segmentation_data((tmp_path / "images", tmp_path / "masks"), labels=["x", "y", "z"])
    assert pair.labels == ["x", "y", "z"]


def test_splits_and_other_names_of_folders(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path / split, split, PLAIN)
        (tmp_path / split / "masks").rename(tmp_path / split / "annotations")
    found = segmentation_data(tmp_path)
    assert found.splits == ["train", "held out"]
    assert [path.stem for path in found.measured().paths] == ["val"]


def test_black_and_white_masks(tmp_path: Path) -> None:
    write(tmp_path, "a", np.where(PLAIN == 1, 255, 0))
    with pytest.raises(DataError, match="binary=True"):
        segmentation_data(tmp_path)
    found = segmentation_data(tmp_path, binary=True)
    assert found.labels == ["background", "foreground"]
    np.testing.assert_array_equal(found.mask(0), PLAIN == 1)


def test_numbers_of_another_model(tmp_path: Path) -> None:
    write(tmp_path, "a", PLAIN)
    found = segmentation_data(tmp_path, labels=["sky", "road", "roof"])
    other = found.with_labels(["roof", "x", "sky", "road"])
    np.testing.assert_array_equal(other.mask(0)[0], [2, 3, 0, 255, 2, 2])
    with pytest.raises(DataError, match="roof"):
        found.with_labels(["sky", "road"])


def test_grey_saved_as_colours_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, "a", PLAIN, mode="RGB")
    np.testing.assert_array_equal(read_mask(path), PLAIN)
    Image.fromarray(np.full((4, 6), 7, np.uint16)).save(path)
    np.testing.assert_array_equal(read_mask(path), np.full((4, 6), 7))


def test_a_picture_turned_by_exif(tmp_path: Path) -> None:
    path = write(tmp_path, "a", PLAIN.T)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "images" / "a.jpg", exif=exif)
    assert segmentation_data(tmp_path).mask(0).shape == (6, 4)
    Image.fromarray(PLAIN.astype(np.uint8)).save(path)
    with pytest.raises(DataError, match="EXIF"):
        segmentation_data(tmp_path)


def bad_size(folder: Path) -> None:
    write(folder, "bad", np.zeros((5, 6)))


def bad_label(folder: Path) -> None:
    write(folder, "bad", np.where(PLAIN == 1, 7, 0))


def one_based(folder: Path) -> None:
    write(folder, "bad", np.where(PLAIN == 1, 3, 1))


def no_mask(folder: Path) -> None:
    write(folder, "bad", PLAIN).unlink()


def no_picture(folder: Path) -> None:
    write(folder, "bad", PLAIN)
    (folder / "images" / "bad.jpg").unlink()


def colours(folder: Path) -> None:
    path = write(folder, "bad", PLAIN)
    Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3)).save(path)


def no_image(folder: Path) -> None:
    write(folder, "bad", PLAIN).write_bytes(b"\x89PNG no")


def twice(folder: Path) -> None:
    write(folder, "bad", PLAIN)
    Image.new("RGB", (6, 4)).save(folder / "images" / "bad.png")


def large_numbers(folder: Path) -> None:
    path = write(folder, "bad", PLAIN)
    Image.fromarray(np.full((4, 6), 700, np.uint16)).save(path)


@pytest.mark.parametrize(
    "spoil, facts",
    [
        (bad_size, ["bad.png", "6 x 5", "6 x 4", "nearest"]),
        (bad_label, ["bad.png", "7 at row 0, column 1", "3 classes, 0 to 2", "ignore=7"]),
        (one_based, ["bad.png", "3 at row 0, column 1", "start at 1"]),
        (no_mask, ["bad.jpg", "1 of 2", "no mask"]),
        (no_picture, ["bad.png", "1 of 2", "no picture"]),
        (colours, ["bad.png", "colours", "palette"]),
        (no_image, ["bad.png", "cannot be read as a mask"]),
        (twice, ["bad.png", "bad.jpg", "one name"]),
        (large_numbers, ["bad.png", "700", "255"]),
    ],
)
def test_data_that_cannot_be_used_is_named(spoil: Any, facts: list[str], tmp_path: Path) -> None:
    write(tmp_path, "good", PLAIN)
    (tmp_path / "classes.txt").write_text("ground\nroad\nroof\n")
    segmentation_data(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError) as caught:
        segmentation_data(tmp_path)
    for fact in facts:
        assert fact in str(caught.value)
    assert "bad" in str(caught.value.facts["file"])
    assert len(str(caught.value).splitlines()) <= 12


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        segmentation_data(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"masks/1\.png"):
        segmentation_data(tmp_path)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    with pytest.raises(DataError, match="no pictures"):
        segmentation_data(tmp_path)
    write(tmp_path, "a", PLAIN)
    (tmp_path / "classes.txt").write_text("road\nroad\n")
    with pytest.raises(DataError, match=r"classes\.txt"):
        segmentation_data(tmp_path)


# -- generated pictures and fine-tuning -----------------------------------------------------------


def test_generated_masks_repeat_and_are_true(tmp_path: Path) -> None:
    first, again = (write_masks(tmp_path / n, 3, size=48, seed=5) for n in ("a", "b"))
    data, other = segmentation_data(first), segmentation_data(again)
    assert data.labels == ["background", *SHAPES]
    for i in range(3):
        np.testing.assert_array_equal(data.mask(i), other.mask(i))
        pixels = np.asarray(Image.open(data.paths[i]), float)
        ground = pixels[data.mask(i) == 0]
        assert ground.std(axis=0).max() < 20  # nothing of the shapes is left in the ground
    with pytest.raises(ConfigError):
        write_masks(tmp_path, 0)


def small_unet(tmp_path: Path) -> Any:
    """A U-Net for 48 pixels, untrained."""
    folder = tmp_path / "config"
    folder.mkdir()
    marker = {"architecture": "unet", "config": {"widths": [8, 16, 32], "num_classes": 2}}
    (folder / "config.json").write_text(json.dumps({"bestiary": marker}))
    size = {"size": [48, 48], "resize": [48, 48], "fit": "exact", "crop": False}
    preprocess = {"image_processor_type": "bestiary.Preprocess", **size}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocess))
    bt.manual_seed(0)
    return load(folder, weights=False)


def test_a_network_learns_shapes(tmp_path: Path) -> None:
    """From nothing: far better than saying "background" everywhere."""
    data = write_masks(tmp_path / "data", 60, size=48, most=2, seed=1)
    task = small_unet(tmp_path)
    before = {k: v.array.copy() for k, v in task.module.state_dict().items()}
    new = task.finetune(data, out=tmp_path / "out", epochs=16, batch_size=8, lr=0.01, quiet=True)
    for name, value in task.module.state_dict().items():
        np.testing.assert_array_equal(value.array, before[name])
    assert new.labels == ["background", *SHAPES]
    assert (task.labels, task.card.training) == (["class 0", "class 1"], {})
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files >= {"config.json", "model.safetensors", "learning_curve.png", "held_out.png"}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(report["history"]) == 16
    assert report["classes"]["background"]["iou"] > 0.85
    assert report["mean_iou"] > 0.3  # "background" everywhere gives under 0.25
    again = load(tmp_path / "out")
    measured = again.evaluate(write_masks(tmp_path / "more", 10, size=48, most=2, seed=2))
    assert measured.mean_iou > 0.28
    assert again.card.training["pictures"] == "48 trained on, 12 held out"


def test_training_repeats_for_a_seed(tmp_path: Path) -> None:
    data = write_masks(tmp_path / "data", 8, size=48, seed=1)
    task = small_unet(tmp_path)
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 4, "quiet": True}
    one, two = (task.finetune(data, loss="focal", dice=0.0, **settings) for _ in range(2))
    for name, value in one.module.state_dict().items():
        np.testing.assert_array_equal(value.array, two.module.state_dict()[name].array)
    grown = one.finetune(data, **settings)  # the same classes: the head learns on
    assert grown.card.training["recipe"].count("from_scratch False") == 1
    statistics = [n for n in one.module.state_dict() if "running_mean" in n]
    for name in statistics:  # what was trained keeps its statistics
        np.testing.assert_array_equal(
            grown.module.state_dict()[name].array, one.module.state_dict()[name].array
        )


def test_a_published_model_learns_other_classes(tmp_path: Path) -> None:
    folder = Path(__file__).parent.parent / "references" / "data" / "segformer-transformers"
    data = write_masks(tmp_path / "data", 6, size=48, seed=1)
    new = load(folder).finetune(data, epochs=1, batch_size=2, quiet=True, smallest_crop=1.0)
    assert new.module.decode_head.classifier.weight.shape[0] == 4
    assert new(data / "images" / "00001.png").classes.shape == (48, 48)


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"held_out": 1.0},
        {"smallest_crop": 0.0},
        {"lr": 0.0},
        {"dice": -1.0},
        {"loss": "odd"},
    ],
)
def test_senseless_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Recipe(**settings)


def test_a_folder_that_cannot_be_written_is_told_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_masks(tmp_path / "data", 4, size=48)
    monkeypatch.setattr("bestiary.vision.segmentation_finetune._split", None)  # not to be called
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match=r"nothing can be saved in .*file"):
        small_unet(tmp_path).finetune(data, out=tmp_path / "file", quiet=True)


def test_too_few_pictures(tmp_path: Path) -> None:
    data = write_masks(tmp_path / "data", 2, size=48)
    with pytest.raises(DataError, match="three or more"):
        small_unet(tmp_path).finetune(data, quiet=True)

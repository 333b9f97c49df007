"""COCO JSON, VOC XML and YOLO text: what is read, and what is said of files that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bestiary.core.errors import BestiaryError, ConfigError, DataError
from bestiary.vision.annotations import picture_size, read_yolo_settings
from bestiary.vision.boxes import Boxes
from bestiary.vision.detection_augment import Chain, CropBoxes, FlipBoxes, PixelsOnly, ResizeBoxes
from bestiary.vision.detection_sets import detection_data
from bestiary.vision.labelled import HELD_OUT, TRAIN

EDGES = [[10, 5, 30, 25], [0, 0, 40, 20]]


def picture(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 30)).save(path)
    return path


def coco(folder: Path, **changes: Any) -> Path:
    """Two pictures; category numbers as people choose them."""
    picture(folder / "a.png")
    picture(folder / "b.png")
    content: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30},
            {"id": 9, "file_name": "b.png", "width": 40, "height": 30},
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 17, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 17, "bbox": [10, 5, 20, 20]},
            {"id": 2, "image_id": 7, "category_id": 90, "bbox": [0, 0, 40, 20], "iscrowd": 1},
        ],
    }
    content |= changes
    folder.mkdir(exist_ok=True)
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder / "boxes.json"


def voc(folder: Path, text: str | None = None) -> Path:
    picture(folder / "JPEGImages" / "a.png")
    objects = "".join(
        f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{x0 + 1}</xmin>"
        f"<ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, hard, (x0, y0, x1, y1) in (("cat", 0, EDGES[0]), ("dog", 1, EDGES[1]))
    )
    (folder / "Annotations").mkdir(exist_ok=True)
    content = text or f"<annotation><filename>a.png</filename>{objects}</annotation>"
    (folder / "Annotations" / "a.xml").write_text(content)
    return folder


def yolo(folder: Path, text: str = "0 0.5 0.5 0.5 0.66666667\n1 0.5 0.333333 1 0.666667\n") -> Path:
    picture(folder / "images" / "a.png")
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / "a.txt").write_text(text)
    (folder / "data.yaml").write_text("names: [cat, dog]\n")
    return folder


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
def test_the_three_kinds_say_the_same(kind: str, tmp_path: Path) -> None:
    data = detection_data({"coco": coco, "voc": voc, "yolo": yolo}[kind](tmp_path))
    assert data.labels == ["cat", "dog"]
    assert data.paths[0].name == "a.png"
    np.testing.assert_allclose(data.targets[0].boxes, EDGES, atol=1e-3)
    assert data.targets[0].labels.tolist() == [0, 1]
    assert data.targets[0].crowd.tolist() == [False, kind != "yolo"]
    assert data.counts.tolist() == [1, 1]
    if kind == "coco":
        assert len(data.targets[1]) == 0


def test_splits_of_coco(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        path = coco(tmp_path / part)
        path.rename(path.parent / "_annotations.coco.json")
    data = detection_data(tmp_path)
    assert data.splits == [TRAIN, TRAIN, HELD_OUT, HELD_OUT]
    assert len(data.measured()) == 2
    other = tmp_path / "standard"
    for part in ("train2017", "val2017"):
        path = coco(other / part)
        (other / "annotations").mkdir(exist_ok=True)
        path.rename(other / "annotations" / f"instances_{part}.json")
    again = detection_data(other)
    assert again.splits == [TRAIN, TRAIN, HELD_OUT, HELD_OUT]
    assert again.paths[2] == other / "val2017" / "a.png"


def test_splits_of_voc(tmp_path: Path) -> None:
    voc(tmp_path)
    for name in ("b", "c"):
        picture(tmp_path / "JPEGImages" / f"{name}.png")
        text = (tmp_path / "Annotations" / "a.xml").read_text()
        (tmp_path / "Annotations" / f"{name}.xml").write_text(text)
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("c  1\n")
    data = detection_data(tmp_path)
    assert [(p.stem, s) for p, s in zip(data.paths, data.splits, strict=True)] == [
        ("a", TRAIN),
        ("c", HELD_OUT),
    ]


def test_splits_of_yolo(tmp_path: Path) -> None:
    for part in ("train", "val"):
        picture(tmp_path / "images" / part / "a.png")
        (tmp_path / "labels" / part).mkdir(parents=True)
        (tmp_path / "labels" / part / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text(
        "path: .  # here\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: 'a dog'\n"
    )
    for source in (tmp_path, tmp_path / "data.yaml"):
        data = detection_data(source)
        assert data.splits == [TRAIN, HELD_OUT]
        assert data.labels == ["cat", "a dog"]
    (tmp_path / "data.yaml").write_text("names:\n- cat\n- dog\n")
    assert detection_data(tmp_path).splits == [TRAIN, HELD_OUT]


def test_turned_pictures(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "turned.jpg", exif=exif)
    assert picture_size(tmp_path / "turned.jpg") == (40, 30)
    path = coco(tmp_path / "data")
    Image.new("RGB", (40, 30)).save(tmp_path / "data" / "a.png", exif=exif)
    with pytest.raises(DataError, match=r"40 x 30 pixels, and it has 30 x 40[\s\S]*EXIF"):
        detection_data(path)


# -- what is wrong ---------------------------------------------------------------------------------


def box(**changes: Any) -> list[dict[str, Any]]:
    return [{"id": 1, "image_id": 7, "category_id": 17, "bbox": [1, 1, 5, 5], **changes}]


@pytest.mark.parametrize(
    "changes, facts",
    [
        ({"annotations": box(bbox=[4, 4, 0, 9])}, ["annotations[0]", "cat", "no area", "skip"]),
        ({"annotations": box(bbox=[4, 4, -2, 9])}, ["no area"]),
        ({"annotations": box(bbox=[90, 4, 9, 9])}, ["outside the picture of 40 x 30"]),
        ({"annotations": box(bbox=[4, 4, 9])}, ["annotations[0]", "[x, y, width, height]"]),
        ({"annotations": box(bbox=[4, 4, 9, "x"])}, ["'x' is no number"]),
        ({"annotations": box(bbox=[4, 4, 9, float("inf")])}, ["inf is no number"]),
        ({"annotations": box(category_id=3)}, ["no category 3", "17"]),
        ({"annotations": box(image_id=3)}, ["no image 3"]),
        ({"annotations": []}, ["not a single box"]),
        ({"annotations": None}, ['"annotations" is no list']),
        ({"images": []}, ["no image 7"]),
        ({"images": [{"id": 7, "file_name": "lost.png"}], "annotations": box()}, ["lost.png"]),
        ({"images": [{"id": 7, "file_name": 3}], "annotations": box()}, ["file name", "3"]),
        ({"images": [{"id": [7]}]}, ["id [7]"]),
        ({"categories": [{"id": 17}]}, ["categories[0]"]),
        ({"categories": [{"id": 17, "name": "a"}, {"id": 17, "name": "b"}]}, ["categories[1]"]),
    ],
)
def test_coco_that_is_wrong(changes: dict[str, Any], facts: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        detection_data(coco(tmp_path, **changes))
    for fact in facts:
        assert fact in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 12


@pytest.mark.parametrize(
    "text, facts",
    [
        ("<annotation>", ["a.xml is no XML"]),
        ("<a><object><name>cat</name></object></a>", ["object 1", "no bndbox"]),
        (
            "<a><object><name>c</name><bndbox><xmin>z</xmin></bndbox></object></a>",
            ["xmin: 'z' is no number"],
        ),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', ["a.xml declares", "not read"]),
        ("<a></a>", ["not a single box"]),
    ],
)
def test_voc_that_is_wrong(text: str, facts: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        detection_data(voc(tmp_path, text))
    for fact in facts:
        assert fact in str(caught.value)


@pytest.mark.parametrize(
    "text, facts",
    [
        ("0 0.5 0.5 0.5\n", ["a.txt, line 1", "five numbers"]),
        ("\n2 0.5 0.5 0.5 0.5\n", ["line 2", "no class 2", "0 to 1"]),
        ("-1 0.5 0.5 0.5 0.5\n", ["no class -1"]),
        ("0 20 15 8 8\n", ["beyond 0 to 1", "pixels?"]),
        ("0 0.5 0.5 0 0.5\n", ["no area"]),
        ("0 a b c d\n", ["'a' is no number"]),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4 0.4\n", ["Outlines"]),
    ],
)
def test_yolo_that_is_wrong(text: str, facts: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        detection_data(yolo(tmp_path, text))
    for fact in facts:
        assert fact in str(caught.value)


def test_boxes_that_cannot_be_may_be_left_out(tmp_path: Path) -> None:
    bad = [*box(), *box(id=2, bbox=[4, 4, 0, 9]), *box(id=3, bbox=[-5, -5, 12, 11])]
    data = detection_data(coco(tmp_path, annotations=bad), bad_boxes="skip")
    assert data.targets[0].boxes.tolist() == [[1, 1, 6, 6], [0, 0, 7, 6]]
    assert len(data.skipped) == 1
    assert "annotations[1]" in data.skipped[0]
    with pytest.raises(ConfigError, match="bad_boxes"):
        detection_data(tmp_path / "boxes.json", bad_boxes="ignore")


def test_many_bad_boxes_are_counted(tmp_path: Path) -> None:
    bad = [row for i in range(9) for row in box(id=i, bbox=[4, 4, 0, 9])]
    with pytest.raises(DataError, match=r"9 boxes[\s\S]*and 4 more") as caught:
        detection_data(coco(tmp_path, annotations=bad))
    assert len(caught.value.boxes) == 9


def test_folders_that_hold_no_boxes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="It holds: nothing"):
        detection_data(tmp_path)
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png[\s\S]*classes\.txt"):
        detection_data(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(DataError, match="not a single box"):
        detection_data(tmp_path)
    with pytest.raises(DataError, match="no folder or COCO JSON"):
        detection_data(tmp_path / "nowhere")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        detection_data(tmp_path / "broken.json")
    (tmp_path / "data.yaml").write_text("train: images\n")
    with pytest.raises(DataError, match="names of classes"):
        read_yolo_settings(tmp_path / "data.yaml")
    yolo(tmp_path / "other")
    (tmp_path / "other" / "images" / "a.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(DataError, match=r"a\.png"):
        detection_data(tmp_path / "other")


def test_random_files_give_errors_of_ours(tmp_path: Path) -> None:
    """Bytes changed at random: data, or a DataError; never anything else."""
    rng = np.random.default_rng(0)
    original = coco(tmp_path).read_bytes()
    failed = 0
    for _ in range(150):
        damaged = bytearray(original)
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = int(rng.integers(0, 256))
        (tmp_path / "boxes.json").write_bytes(bytes(damaged))
        try:
            detection_data(tmp_path / "boxes.json")
        except BestiaryError:
            failed += 1
    assert failed > 50


# -- augmentation ----------------------------------------------------------------------------------


def marked(boxes: Boxes, size: tuple[int, int]) -> Image.Image:
    """A picture in which each box is filled with a colour of its own."""
    pixels = np.zeros((*size, 3), np.uint8)
    for i, (x0, y0, x1, y1) in enumerate(boxes.boxes.astype(int)):
        pixels[y0:y1, x0:x1, i] = 255
    return Image.fromarray(pixels)


def extents(image: Image.Image, channel: int) -> list[int]:
    pixels = np.asarray(image)[..., channel] > 127
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@pytest.mark.parametrize("seed", range(12))
def test_boxes_follow_the_picture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = Boxes([[4, 6, 30, 28], [50, 40, 90, 60]], [0, 1], areas=[286, 800])
    image = marked(boxes, (80, 100))
    chain = Chain((FlipBoxes(), CropBoxes(0.5, p=1.0), ResizeBoxes((160, 200), "nearest")))
    changed, moved = chain(image, boxes, rng)
    assert changed.size == (200, 160)
    assert 1 <= len(moved) <= 2
    for edges, label in zip(moved.boxes, moved.labels, strict=True):
        np.testing.assert_allclose(edges, extents(changed, int(label)), atol=2.5)
    assert (moved.areas > 0).all()


def test_flips_and_crops_by_hand() -> None:
    boxes = Boxes([[4, 6, 30, 28]], [0], crowd=[True])
    rng = np.random.default_rng(0)
    _, flipped = FlipBoxes(1.0)(marked(boxes, (80, 100)), boxes, rng)
    assert flipped.boxes.tolist() == [[70, 6, 96, 28]]
    assert flipped.crowd.tolist() == [True]
    image, same = CropBoxes(1.0, p=1.0)(marked(boxes, (80, 100)), boxes, rng)
    assert (image.size, same.boxes.tolist()) == ((100, 80), boxes.boxes.tolist())
    empty = Boxes([], [])
    image, none = CropBoxes(0.5, p=1.0)(marked(boxes, (80, 100)), empty, rng)
    assert len(none) == 0
    assert image.width < 100
    _, whole = PixelsOnly(lambda image, rng: image)(image, boxes, rng)
    assert whole is boxes
    with pytest.raises(ConfigError, match="smallest"):
        CropBoxes(0.0)

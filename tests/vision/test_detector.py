"""The detection task: raw pictures in, boxes of the original picture out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError
from bestiary.hub.card import card_of
from bestiary.hub.loading import load
from bestiary.hub.registry import get
from bestiary.vision.boxes import Boxes
from bestiary.vision.detection_preprocess import DetectionPreprocess
from bestiary.vision.detection_sets import detection_data
from bestiary.vision.detector import Detector, coco_json
from bestiary.vision.generated import SHAPES, write_shapes

DATA = Path(__file__).parent.parent / "references" / "data"


class Bright(bt.nn.Module):
    """Finds the one bright rectangle, in the place of a network that was trained to."""

    takes_mask = False
    device = bt.core.devices.as_device("cpu")
    dtype = bt.float32

    def __init__(self) -> None:
        self.shapes: list[Any] = []

    def forward(self, pixel_values: bt.Tensor, pixel_mask: bt.Tensor | None = None) -> Any:
        self.shapes.append((pixel_values.shape, pixel_mask is not None))
        return pixel_values.array

    def found(self, output: Any, sizes: Any) -> list[Boxes]:
        result = []
        for pixels in output:
            rows, columns = (np.flatnonzero((pixels[0] > 0.5).any(axis=a)) for a in (1, 0))
            if not len(rows):
                result.append(Boxes([], [], scores=[]))
                continue
            box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            result.append(Boxes([box, box], [0, 1], scores=[0.3, 0.8]))
        return result


class TwoClasses:
    num_classes = 2


def bright(**preprocess: Any) -> Detector:
    settings: dict[str, Any] = {"shortest": 40, "longest": 80, "resample": "nearest"}
    settings |= {"mean": (0.0,) * 3, "std": (1.0,) * 3, **preprocess}
    return Detector(
        Bright(),
        architecture="fcos",
        config=TwoClasses(),
        preprocess=DetectionPreprocess(**settings),
        labels=["dim", "bright"],
        card=card_of(get("fcos-tiny")[0], None, "bright"),
    )


def picture(width: int = 120, height: int = 60, box: Any = (30, 15, 60, 45)) -> Image.Image:
    image = Image.new("RGB", (width, height))
    if box is not None:
        image.paste((255, 255, 255), box)
    return image


def test_boxes_are_pixels_of_the_original_picture() -> None:
    answer = bright()(picture())
    assert answer == [{"label": "bright", "score": 0.8, "box": [30.0, 15.0, 60.0, 45.0]}]
    assert json.loads(json.dumps(answer)) == answer
    both = bright()(picture(), threshold=0.2)
    assert [a["label"] for a in both] == ["bright", "dim"]
    assert bright()(picture(box=None)) == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_those_of_the_upright_picture(orientation: int, tmp_path: Path) -> None:
    """A picture that a camera stored turned: found as it is seen."""
    upright = picture(120, 60, (90, 0, 120, 30))
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(back[orientation]) if orientation in back else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert bright()(tmp_path / "turned.png")[0]["box"] == [90.0, 0.0, 120.0, 30.0]
    drawn = bright().draw(tmp_path / "turned.png")
    assert drawn.size == (120, 60)


def test_lists_folders_and_streams(tmp_path: Path) -> None:
    model = bright()
    picture().save(tmp_path / "b.png")
    (tmp_path / "sub").mkdir()
    picture(60, 120, (0, 0, 30, 30)).save(tmp_path / "sub" / "a.png")
    found = model(tmp_path)
    assert sorted(found) == [str(tmp_path / "b.png"), str(tmp_path / "sub" / "a.png")]
    assert found[str(tmp_path / "sub" / "a.png")][0]["box"] == [0.0, 0.0, 30.0, 30.0]
    several = model([picture(), picture(box=None), picture(60, 120, (0, 0, 30, 30))])
    assert [len(answer) for answer in several] == [1, 0, 1]

    read = []

    def stream() -> Any:
        for i in range(100):
            read.append(i)
            yield picture()

    lazy = model(stream(), batch_size=2)
    assert next(lazy)[0]["label"] == "bright"
    assert len(read) <= 6
    assert len(model.boxes([picture()])[0]) == 2


def test_pictures_of_one_size_go_through_together() -> None:
    model = bright()
    model([picture(), picture(60, 120), picture(), picture(60, 120)], batch_size=4)
    assert sorted(shape for shape, _ in model.module.shapes) == [(2, 3, 40, 80), (2, 3, 80, 40)]
    model = bright()
    model.module.takes_mask = True
    model([picture(), picture(60, 120)], batch_size=4)
    assert model.module.shapes == [((2, 3, 80, 80), True)]


def test_drawn_boxes_can_be_seen() -> None:
    image = picture()
    drawn = bright().draw(image)
    assert drawn.size == image.size
    assert drawn is not image
    changed = (np.asarray(drawn) != np.asarray(image)).any(axis=2)
    assert changed[15, 30:60].all()
    assert not changed[46:, 61:].any()
    none = bright().draw(image, [])
    np.testing.assert_array_equal(np.asarray(none), np.asarray(image))
    outside = [{"label": "außen", "score": 1.0, "box": [-5, -5, 500, 500]}]
    assert bright().draw(image, outside).size == image.size


def test_results_as_coco_json(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    picture(box=None).save(tmp_path / "b.png")
    model = bright()
    content = coco_json(model(tmp_path), model.labels)
    assert content["annotations"][0]["bbox"] == [30, 15, 30, 30]
    assert content["annotations"][0]["category_id"] == 2
    (tmp_path / "found.json").write_text(json.dumps(content))
    again = detection_data(tmp_path / "found.json")
    assert again.labels == ["dim", "bright"]
    assert [len(t) for t in again.targets] == [1, 0]
    with pytest.raises(DataError, match="'cat' is none"):
        coco_json({str(tmp_path / "a.png"): [{"label": "cat", "box": [0, 0, 1, 1]}]}, ["dog"])


def test_evaluate(tmp_path: Path) -> None:
    for i in range(3):
        picture(box=(30, 15, 60 + i, 45)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(f"1 {(90 + i) / 240} 0.5 {(30 + i) / 120} 0.5\n")
    (tmp_path / "classes.txt").write_text("dim\nbright\n")
    report = bright(shortest=60, longest=None).evaluate(tmp_path)
    assert report.ap == pytest.approx(1)
    (tmp_path / "classes.txt").write_text("dim\ngiraffe\n")
    with pytest.raises(DataError, match=r"no class giraffe[\s\S]*finetune"):
        bright().evaluate(tmp_path)


def test_what_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        bright()(picture(), threshold=7)
    with pytest.raises(ConfigError, match="batch_size"):
        bright()([picture()], batch_size=0)
    with pytest.raises(DataError, match="no pictures"):
        bright()(tmp_path)
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        bright()(tmp_path)


@pytest.mark.parametrize("folder", ["detr-timm", "yolos-transformers"])
def test_published_models_take_pictures(folder: str, photo: Image.Image) -> None:
    model = load(DATA / folder)
    assert isinstance(model, Detector)
    assert model.labels == [f"kind {i}" for i in range(5)]
    found = model(photo, threshold=0)
    assert len(found) == len(model.boxes(photo)[0])
    for answer in found:
        x0, y0, x1, y1 = answer["box"]
        assert 0 <= x0 <= x1 <= photo.width
        assert 0 <= y0 <= y1 <= photo.height
    together = model([photo, photo.rotate(90, expand=True), photo], threshold=0)
    for one, other in zip(together[0], found, strict=True):
        np.testing.assert_allclose(one["box"], other["box"], atol=0.6)
        assert one["label"] == other["label"] or abs(one["score"] - other["score"]) < 1e-3


def test_shapes_are_where_the_file_says(tmp_path: Path) -> None:
    path = write_shapes(tmp_path, 5, size=64, seed=2)
    data = detection_data(path)
    assert data.labels == list(SHAPES)
    assert len(data) == 5
    image = np.asarray(Image.open(data.paths[0]), np.int64)
    x0, y0, x1, y1 = data.targets[0].boxes[0].astype(int)
    ground = np.median(image.reshape(-1, 3), axis=0)
    middle = image[(y0 + y1) // 2, (x0 + x1) // 2]
    assert np.abs(middle - ground).sum() > 80
    again = write_shapes(tmp_path / "again", 5, size=64, seed=2)
    assert again.read_text() == path.read_text()
    with pytest.raises(ConfigError, match="count=0"):
        write_shapes(tmp_path, 0)

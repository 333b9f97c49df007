"""RetinaNet, Faster and Mask R-CNN: equal to torchvision in what they find, propose and learn."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError, ShapeError, WeightsError
from bestiary.core.weights import load_file
from bestiary.hub import registry
from bestiary.hub.cli import _run
from bestiary.hub.loading import load
from bestiary.hub.registry import Entry, entries, get
from bestiary.hub.rename import renamed
from bestiary.vision.boxes import Boxes
from bestiary.vision.detection_augment import Chain, CropBoxes, FlipBoxes, ResizeBoxes
from bestiary.vision.detection_preprocess import DetectionPreprocess
from bestiary.vision.detection_sets import detection_data
from bestiary.vision.detector import coco_json
from bestiary.vision.generated import write_shapes
from bestiary.vision.instance_masks import filled, filled_all, pasted, run_lengths
from bestiary.vision.labels import label_names

DATA = Path(__file__).parent.parent / "references" / "data"
ARCHITECTURES = ("retinanet", "faster-rcnn", "faster-rcnn-mobilenet", "mask-rcnn")
FOLDERS = sorted(p.name for name in ARCHITECTURES for p in DATA.glob(f"{name}-torchvision*"))
SMALL = [
    "retinanet-torchvision",
    "faster-rcnn-torchvision",
    "faster-rcnn-mobilenet-torchvision",
    "mask-rcnn-torchvision",
]
PUBLISHED = json.loads(gzip.decompress((DATA / "torchvision_detector_names.json.gz").read_bytes()))
#: Our names of the parts of a loss, and torchvision's.
LOSSES = {
    "retinanet": {"class": "classification", "box": "bbox_regression"},
    "faster-rcnn": {
        "object": "loss_objectness",
        "proposal": "loss_rpn_box_reg",
        "class": "loss_classifier",
        "box": "loss_box_reg",
    },
}
LOSSES["faster-rcnn-mobilenet"] = LOSSES["faster-rcnn"]
LOSSES["mask-rcnn"] = {**LOSSES["faster-rcnn"], "mask": "loss_mask"}


def curated() -> list[Entry]:
    return [e for a, e in entries() if a.name in ARCHITECTURES]


def reference(folder: str) -> dict[str, Any]:
    return load_file(DATA / folder / "reference.safetensors")


def batch(stored: dict[str, Any]) -> tuple[bt.Tensor, list[tuple[int, int]]]:
    pixels = stored["pixels_times_32"].astype(np.float32) / 32
    return bt.tensor(pixels), [(int(h), int(w)) for h, w in stored["sizes"]]


def first(model: Any) -> int:
    """torchvision counts the background of two-stage detectors as class 0."""
    return 0 if model.architecture == "retinanet" else 1


def targets(stored: dict[str, Any], model: Any) -> list[Boxes]:
    found = []
    for i in range(3):
        masks = stored.get(f"{i}.there.masks")
        masks = None if masks is None else np.unpackbits(masks, axis=-1)
        labels = stored[f"{i}.there.labels"] - first(model)
        found.append(Boxes(stored[f"{i}.there.boxes"], labels, masks=masks))
    return found


def pictures() -> list[Any]:
    stored = load_file(DATA / "torchvision_pictures" / "pictures.safetensors")
    return [stored[f"photo.{i}"] for i in range(2)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_found_equals_the_reference(folder: str) -> None:
    model, stored = load(DATA / folder), reference(folder)
    pixels, sizes = batch(stored)
    with bt.no_grad():
        output = model.module(pixels)
    for i, found in enumerate(model.module.found(output, sizes)):
        np.testing.assert_array_equal(found.labels + first(model), stored[f"{i}.labels"])
        np.testing.assert_allclose(found.scores, stored[f"{i}.scores"], atol=1e-4)
        np.testing.assert_allclose(found.boxes, stored[f"{i}.boxes"], atol=1e-4)
        if model.architecture == "mask-rcnn":
            assert found.parts.shape == (len(found), 28, 28)
            np.testing.assert_allclose(found.parts[:8], stored[f"{i}.masks"], atol=1e-4)


@pytest.mark.parametrize("folder", [f for f in FOLDERS if "rcnn" in f])
def test_proposals_equal_the_reference(folder: str) -> None:
    model, stored = load(DATA / folder), reference(folder)
    pixels, sizes = batch(stored)
    with bt.no_grad():
        output = model.module(pixels)
    for i, boxes in enumerate(model.module.rpn.proposals(output, sizes, training=False)):
        np.testing.assert_allclose(boxes, stored[f"{i}.proposals"], atol=1e-4)


@pytest.mark.parametrize("folder", FOLDERS)
def test_pictures_to_boxes_equal_the_reference(folder: str) -> None:
    """With the preparation, and boxes in pixels of the picture."""
    model, stored = load(DATA / folder), reference(folder)
    photos = pictures()
    for i, found in enumerate(model.boxes(photos)):
        np.testing.assert_array_equal(found.labels + first(model), stored[f"photo.{i}.labels"])
        np.testing.assert_allclose(found.scores, stored[f"photo.{i}.scores"], atol=1e-4)
        np.testing.assert_allclose(found.boxes, stored[f"photo.{i}.boxes"], atol=2e-4)
    answers = model(photos[0], threshold=0.3)
    with_mask = {"mask"} if model.architecture == "mask-rcnn" else set()
    assert set(answers[0]) == {"label", "score", "box"} | with_mask
    if with_mask:
        for i, photo in enumerate(photos):
            theirs = np.unpackbits(stored[f"photo.{i}.masks"], axis=-1)[..., : photo.shape[1]] > 0
            ours = model(photo, threshold=0)
            assert len(theirs) == len(ours)
            for answer, wanted in zip(ours, theirs, strict=True):
                both = np.count_nonzero(answer["mask"] & wanted)
                assert both >= 0.99 * np.count_nonzero(answer["mask"] | wanted)
    assert answers[0]["label"] == model.labels[found_first(stored, model)]


def told(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answers with their masks as something that can be compared."""
    return [{k: v.tobytes() if k == "mask" else v for k, v in a.items()} for a in answers]


def found_first(stored: dict[str, Any], model: Any) -> int:
    return int(stored["photo.0.labels"][0]) - first(model)


@pytest.mark.parametrize("folder", FOLDERS)
def test_losses_and_gradients_equal_the_reference(folder: str) -> None:
    """So many anchors and regions are sampled that all of them are."""
    model, stored = load(DATA / folder), reference(folder)
    pixels, sizes = batch(stored)
    loss, figures = model.module.train().loss(pixels, None, targets(stored, model), sizes)
    theirs = {ours: stored[f"loss.{n}"] for ours, n in LOSSES[model.architecture].items()}
    assert set(figures) == set(theirs)
    for name, value in theirs.items():
        assert figures[name] == pytest.approx(float(value), rel=1e-5, abs=1e-5), name
    assert loss.item() == pytest.approx(sum(map(float, theirs.values())), rel=1e-5)
    loss.backward()
    parameters = dict(model.module.named_parameters())
    named = {n.removeprefix("grad."): a for n, a in stored.items() if n.startswith("grad.")}
    architecture = registry.architecture_by_name(model.architecture)
    assert architecture is not None
    ours = renamed(list(named), architecture.layouts["native"].rename)
    expected = {new: named[old] for old, (new, _) in ours.items()}
    assert len(expected) == 4
    for name, wanted in expected.items():
        gradient = parameters[name].grad
        assert gradient is not None, name
        size = np.abs(wanted).max()
        np.testing.assert_allclose(gradient.array, wanted, atol=1e-4 * size, err_msg=name)


@pytest.mark.parametrize("folder", FOLDERS)
def test_bfloat16_stays_near(folder: str) -> None:
    whole, half = load(DATA / folder), load(DATA / folder, dtype="bfloat16")
    stored = reference(folder)
    pixels, sizes = batch(stored)
    with bt.no_grad():
        a, b = whole.module(pixels), half.module(pixels.astype(bt.bfloat16))
        found = half.module.found(b, sizes)
    # As far as torch itself is off in that type, where that is more.
    tolerance = max(2e-2, 1.25 * float(stored["bfloat16.error"]))
    np.testing.assert_allclose(b.logits.array.astype(np.float32), a.logits.array, atol=tolerance)
    assert all(len(boxes) for boxes in found)


@pytest.mark.parametrize("entry", curated(), ids=lambda e: e.name)
@pytest.mark.parametrize("norm", ["frozen", "batch"])
def test_names_and_shapes_of_the_published_sizes(entry: Entry, norm: str) -> None:
    published = PUBLISHED[entry.name.replace("-", "_")]
    theirs: dict[str, tuple[int, ...]] = {}
    for line, (shape, *numbers) in published["tensors"].items():
        for number in numbers[0] if numbers else [0]:
            name = line.split(" ")[0].format(number)
            if norm == "batch" or not name.endswith("num_batches_tracked"):
                theirs[name] = tuple(shape)
    architecture, _ = get(entry.name)
    with bt.nn.init.empty():
        module = architecture.build(architecture.config(**{**(entry.config or {}), "norm": norm}))
    ours = renamed(list(theirs), architecture.layouts["native"].rename)
    expected = {new: theirs[old] for old, (new, _) in ours.items()}
    assert len(expected) == len(theirs)
    assert {n: t.shape for n, t in module.state_dict().items()} == expected
    if norm == "frozen":  # as in the published files
        assert entry.parameters == published["parameters"]
        assert entry.parameters == sum(p.size for p in module.parameters())
    assert entry.metric is not None
    assert entry.metric.value == published["metrics"]["box_map"]


@pytest.mark.parametrize("entry", curated(), ids=lambda e: e.name)
def test_untrained_models_by_name(entry: Entry) -> None:
    with bt.nn.init.empty():
        model = load(entry.name, weights=False)
    assert model.labels[model.labels.index("person") + 1] == "bicycle"
    sizes = (320, 640) if "-320-" in entry.name else (800, 1333)
    assert model.preprocess == DetectionPreprocess(*sizes, resize="torchvision", divisor=32)
    assert "BSD-3-Clause" in str(model.card.license)


def test_the_names_of_coco_without_the_background() -> None:
    assert label_names("coco-90") == label_names("coco-91")[1:]
    assert label_names("coco-90")[0] == "person"


# -- files -------------------------------------------------------------------------------------


def test_files_of_torchvision_load_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = DATA / "retinanet-torchvision-old"
    architecture, entry = get("retinanet-resnet50-fpn")
    own = json.loads((folder / "config.json").read_text())["bestiary"]["config"]
    tiny = replace(
        entry, config={k: tuple(v) if isinstance(v, list) else v for k, v in own.items()}
    )
    monkeypatch.setitem(registry._entries, entry.name, (architecture, tiny))
    assert entry.file is not None
    path = tmp_path / entry.file.rpartition("/")[2]
    path.write_bytes((folder / "model.pth").read_bytes())
    model, stored = load(path), reference("retinanet-torchvision-old")
    assert model.card.name == entry.name
    pixels, sizes = batch(stored)
    with bt.no_grad():
        found = model.module.found(model.module(pixels), sizes)
    np.testing.assert_allclose(found[0].scores, stored["0.scores"], atol=1e-4)
    other = load(path, num_classes=2)
    assert other.labels == ["class 0", "class 1"]
    with bt.nn.init.empty():
        assert not load(path, weights=False).report.loaded
    path.write_bytes((folder / "model.pth").read_bytes()[:-4000])
    with pytest.raises(WeightsError):
        load(path)


@pytest.mark.parametrize("folder", FOLDERS)
def test_saved_and_loaded_with_another_head_and_size(folder: str, tmp_path: Path) -> None:
    model = load(DATA / folder, num_classes=2, in_channels=1, image_size=80)
    head = registry.architecture_by_name(model.architecture)
    assert head is not None
    assert model.labels == ["class 0", "class 1"]
    assert model.preprocess.exact == (80, 80)
    assert model.preprocess.channels == 1
    assert all(n.startswith((*head.head, str(head.stem))) for n in model.report.replaced)
    assert len(model.report.replaced) > 2
    again = load(model.save(tmp_path))
    x = bt.tensor(np.random.default_rng(0).standard_normal((1, 1, 64, 96)).astype(np.float32))
    np.testing.assert_array_equal(again.module(x).logits.array, model.module(x).logits.array)
    assert (again.preprocess, again.config) == (model.preprocess, model.config)
    same = load(DATA / folder, num_classes=3)
    assert same.report.replaced == ()
    assert same.labels == ["kind 0", "kind 1", "kind 2"]


@pytest.mark.parametrize(
    "folder, changes, fact",
    [
        ("retinanet-torchvision", {"anchor_sizes": [8, 16]}, "anchor_sizes (8, 16)"),
        ("retinanet-torchvision", {"aspect_ratios": []}, "aspect_ratios"),
        ("retinanet-torchvision", {"aspect_ratios": [0, 1]}, "aspect_ratios[0]=0"),
        ("retinanet-torchvision", {"bg_iou_thresh": 0.9}, "bg_iou_thresh=0.9"),
        ("retinanet-torchvision", {"norm": "group"}, "'group'"),
        ("retinanet-torchvision", {"depths": [1], "hidden_sizes": [8]}, "four stages"),
        ("retinanet-torchvision", {"score_thresh": 2}, "score_thresh=2"),
        ("retinanet-torchvision", {"window": 3}, "window"),
        ("faster-rcnn-torchvision", {"anchor_sizes": [8]}, "anchor_sizes (8,)"),
        ("faster-rcnn-torchvision", {"rpn_bg_iou_thresh": 0.9}, "rpn_bg_iou_thresh=0.9"),
        ("faster-rcnn-torchvision", {"representation_size": 0}, "representation_size=0"),
        ("faster-rcnn-torchvision", {"box_nms_thresh": None}, "box_nms_thresh=None"),
        ("faster-rcnn-torchvision", {"num_classes": -1}, "num_classes=-1"),
        ("faster-rcnn-torchvision", {"aspect_ratios": []}, "aspect_ratios is empty"),
        ("faster-rcnn-mobilenet-torchvision", {"width": 0}, "width=0"),
        ("faster-rcnn-mobilenet-torchvision", {"depths": [1]}, "depths"),
        ("mask-rcnn-torchvision", {"mask_channels": 0}, "mask_channels=0"),
    ],
)
def test_configurations_that_are_refused(
    folder: str, changes: dict[str, Any], fact: str, tmp_path: Path
) -> None:
    config = json.loads((DATA / folder / "config.json").read_text())
    config["bestiary"]["config"] |= changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, weights=False)
    assert fact in str(caught.value)


def test_pictures_of_the_wrong_shape_are_refused() -> None:
    for folder in FOLDERS:
        module = load(DATA / folder).module
        with pytest.raises(ShapeError, match="channels"):
            module(bt.zeros((1, 4, 64, 64)))


# -- preparation -------------------------------------------------------------------------------


@pytest.mark.parametrize("shortest, longest", [(64, 100), (43, 47)])
def test_prepared_pictures_equal_the_reference(shortest: int, longest: int) -> None:
    stored = load_file(DATA / "torchvision_pictures" / "pictures.safetensors")
    preprocess = DetectionPreprocess(shortest, longest, resize="torchvision", divisor=32)
    for i in range(2):
        prepared = preprocess.batch([stored[f"photo.{i}"]])
        wanted = stored[f"{shortest}.{longest}.{i}"]
        np.testing.assert_allclose(prepared.pixel_values[0], wanted, atol=1e-5)
        assert prepared.sizes == [tuple(stored[f"{shortest}.{longest}.{i}.size"])]
    assert DetectionPreprocess.from_config(preprocess.to_config()) == preprocess


def test_sizes_are_rounded_down() -> None:
    """Worked out by hand: 427 * (800 / 427) is a little less than 800 in floating point or not."""
    preprocess = DetectionPreprocess(resize="torchvision", divisor=32)
    assert preprocess.target(480, 640) == (800, 1066)
    assert preprocess.target(400, 1000) == (533, 1333)
    assert preprocess.target(1, 4000) == (1, 1333)
    height, width = preprocess.target(427, 640)
    assert height == int(427 * (800 / 427))
    assert width == int(640 * (800 / 427))
    with pytest.raises(ConfigError, match="'cubic'"):
        DetectionPreprocess(resize="cubic")


# -- masks -------------------------------------------------------------------------------------

OUTLINE = [np.array([[1, 1], [6, 1], [6, 4], [1, 4.0]])]


def test_outlines_become_masks() -> None:
    """Worked out by hand: a pixel belongs to what its middle lies in."""
    mask = filled(OUTLINE, (6, 8))
    assert mask[1:4, 1:6].all()
    assert mask.sum() == 15
    assert not filled([np.array([[0, 0], [0.4, 0], [0, 0.4]])], (3, 3)).any()
    triangle = filled([np.array([[0, 0], [4, 4], [0, 4.0]])], (4, 4))
    np.testing.assert_array_equal(triangle, np.tril(np.ones((4, 4), bool), -1))
    beyond = filled([np.array([[-5, -5], [20, -5], [20, 20], [-5, 20.0]])], (3, 4))
    assert beyond.all()
    two = filled([*OUTLINE, np.array([[0, 4], [8, 4], [8, 6], [0, 6.0]])], (6, 8))
    assert two.sum() == 15 + 16
    assert filled_all([], (2, 3)).shape == (0, 2, 3)


def test_a_mask_is_pasted_where_its_box_is() -> None:
    whole = pasted(np.ones((28, 28)), np.array([2, 3, 12, 9]), (15, 20))
    rows, columns = np.nonzero(whole)
    edges = [rows.min(), rows.max(), columns.min(), columns.max()]
    np.testing.assert_allclose(edges, [3, 8, 2, 11], atol=1)
    assert not pasted(np.zeros((28, 28)), np.array([2, 3, 12, 9]), (15, 20)).any()
    assert pasted(np.ones((28, 28)), np.array([0, 0, 20, 15]), (15, 20)).mean() > 0.85
    point = pasted(np.ones((28, 28)), np.array([5.0, 5, 5, 5]), (15, 20))
    assert point.sum() <= 1


def test_masks_as_run_lengths() -> None:
    mask = np.zeros((3, 4), bool)
    mask[1:, 1] = True
    mask[0, 2] = True
    assert run_lengths(mask) == {"size": [3, 4], "counts": [4, 3, 5]}
    mask[0, 0] = True
    assert run_lengths(mask)["counts"] == [0, 1, 3, 3, 5]
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((5, 7)) < 0.5
        counts = run_lengths(mask)["counts"]
        values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        np.testing.assert_array_equal(values.reshape(7, 5).T, mask)


def test_outlines_follow_boxes() -> None:
    image = Image.new("RGB", (20, 10))
    boxes = Boxes([[1, 1, 6, 4]], [0], outlines=[OUTLINE])
    rng = np.random.default_rng(1)
    chain = Chain((FlipBoxes(1.0), CropBoxes(0.7, p=1.0), ResizeBoxes((30, 40))))
    for _ in range(10):
        seen, moved = chain(image, boxes, rng)
        mask = filled(moved.outlines[0], (seen.height, seen.width))
        rows, columns = np.nonzero(mask)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(found, moved.boxes[0], atol=1.01)


def test_pictures_with_masks_are_drawn_and_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = load(DATA / "mask-rcnn-torchvision")
    photo = pictures()[0]
    answers = model(photo, threshold=0.5)
    drawn = np.asarray(model.draw(photo, answers))
    mask = np.zeros(photo.shape[:2], bool)
    mask[20:40, 20:60] = True
    one: dict[str, Any] = {"label": "kind 1", "score": 0.9, "box": [10, 10, 70, 50]}
    plain, drawn = (
        np.asarray(model.draw(photo, [a])).astype(int) for a in (one, {**one, "mask": mask})
    )
    assert (drawn[mask] != plain[mask]).any()
    np.testing.assert_array_equal(drawn[~mask], plain[~mask])
    with pytest.raises(ShapeError, match="84 x 60"):
        model.draw(pictures()[1], answers)
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    content = coco_json({str(path): answers}, model.labels)
    first_one = content["annotations"][0]
    assert first_one["area"] == answers[0]["mask"].sum()
    assert first_one["segmentation"]["size"] == [60, 84]
    json.dumps(content)
    folder = model.save(tmp_path / "model")
    capfd.readouterr()
    assert _run(["predict", str(folder), str(path), "--masks", str(tmp_path / "m"), "--json"]) == 0
    (lines,) = json.loads(capfd.readouterr().out).values()
    assert lines[0]["segmentation"] == run_lengths(answers[0]["mask"])
    written = sorted((tmp_path / "m").glob("photo-*.png"))
    assert len(written) == len(lines)
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "m" / "photo-1.png")) > 0, answers[0]["mask"]
    )


def test_masks_that_are_missing_are_named(tmp_path: Path) -> None:
    model = load(DATA / "mask-rcnn-torchvision")
    stored = reference("mask-rcnn-torchvision")
    pixels, sizes = batch(stored)
    there = [Boxes(t.boxes, t.labels) for t in targets(stored, model)]
    with pytest.raises(DataError, match="picture 0 of the batch has 3 boxes without masks"):
        model.module.loss(pixels, None, there, sizes)
    with pytest.raises(ShapeError, match="masks of shape"):
        Boxes([[0, 0, 1, 1]], [0], masks=np.ones((2, 4, 4)))
    path = write_shapes(tmp_path / "shapes", 4, size=64, seed=3)
    content = json.loads(path.read_text())
    for row in content["annotations"]:
        del row["segmentation"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="has no outline"):
        model.finetune(path, epochs=1, quiet=True)
    content["annotations"][0]["segmentation"] = [[1, 2, 3]]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="three points or more"):
        detection_data(path)


# -- as tasks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", SMALL)
def test_no_answer_depends_on_its_neighbours(folder: str) -> None:
    model, photos = load(DATA / folder), pictures()
    photos.append(photos[0][:40])
    together = model(photos, threshold=0)
    alone = [model(photo, threshold=0) for photo in photos]
    assert list(map(told, together)) == list(map(told, alone))
    drawn = model.draw(photos[0], together[0])
    assert drawn.size == (photos[0].shape[1], photos[0].shape[0])


@pytest.mark.parametrize("folder", SMALL)
def test_a_picture_without_anything_gives_nothing(folder: str) -> None:
    model = load(DATA / folder)
    field = "score_thresh" if model.architecture == "retinanet" else "box_score_thresh"
    object.__setattr__(model.module.config, field, 1.0)
    assert model(Image.new("RGB", (50, 40))) == []
    if model.architecture != "retinanet":
        object.__setattr__(model.module.config, "rpn_score_thresh", 1.0)
        assert model(Image.new("RGB", (50, 40)), threshold=0) == []


@pytest.mark.parametrize(
    "folder",
    [
        "retinanet-torchvision",
        "faster-rcnn-torchvision-batch",
        "mask-rcnn-torchvision-old",
    ],
)
def test_a_few_pictures_are_learned_by_heart(folder: str, tmp_path: Path) -> None:
    data = detection_data(write_shapes(tmp_path / "shapes", 6, size=64, seed=3))
    model = load(DATA / folder, num_classes=len(data.labels)).module.train()
    bt.manual_seed(0)
    preprocess = DetectionPreprocess(64, 64, resize="torchvision", divisor=32)
    prepared = preprocess.batch(data.paths)
    pixels = bt.tensor(prepared.pixel_values)
    optimizer = bt.optim.AdamW(model.parameters(), lr=4e-3)
    there = [Boxes(t.boxes, t.labels, masks=filled_all(t.outlines, (64, 64))) for t in data.targets]
    losses = []
    for _ in range(25):
        loss, _ = model.loss(pixels, None, there, prepared.sizes)
        optimizer.zero_grad()
        loss.backward()
        bt.optim.clip_grad_norm_(list(model.parameters()), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[1]


@pytest.mark.parametrize("folder", SMALL)
def test_taught_other_classes(folder: str, tmp_path: Path) -> None:
    data = detection_data(write_shapes(tmp_path / "shapes", 6, size=64, seed=3))
    model = load(DATA / folder)
    new = model.finetune(data, epochs=1, batch_size=2, quiet=True, out=tmp_path / "out")
    assert new.labels == data.labels
    assert type(new.module) is type(model.module)
    again = load(tmp_path / "out")
    assert again.labels == data.labels
    assert again.preprocess == model.preprocess
    before, after = (m(data.paths[0], threshold=0) for m in (new, again))
    assert told(before) == told(after)


@pytest.mark.parametrize("folder", SMALL)
def test_the_network_is_compiled_and_answers_alike(folder: str) -> None:
    model, plain = load(DATA / folder), load(DATA / folder, compile=False)
    photo = pictures()[0]
    found = [model(photo, threshold=0) for _ in range(6)]
    assert [len(program.explain()) for program in model._programs.values()] == [1]
    wanted = plain(photo, threshold=0)
    for answers in found:
        assert len(answers) == len(wanted)
        for answer, want in zip(answers, wanted, strict=True):
            assert answer["score"] == pytest.approx(want["score"], abs=1e-4)
            np.testing.assert_allclose(answer["box"], want["box"], atol=0.02)

"""DETR and YOLOS: equal to transformers, in outputs, losses, gradients and prepared pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, ShapeError
from bestiary.core.weights import load_file
from bestiary.hub.loading import load
from bestiary.hub.registry import Entry, entries, get
from bestiary.hub.rename import join, renamed
from bestiary.vision.boxes import Boxes, convert_boxes
from bestiary.vision.detection_preprocess import DetectionPreprocess
from bestiary.vision.labels import label_names

DATA = Path(__file__).parent.parent / "references" / "data"
FOLDERS = sorted(path.name for path in DATA.glob("detr-*")) + sorted(
    path.name for path in DATA.glob("yolos-*")
)


def curated() -> list[Entry]:
    return [e for a, e in entries() if a.name in ("detr", "yolos")]


def inputs(stored: dict[str, Any], i: int, dtype: Any = np.float32) -> tuple[bt.Tensor, Any]:
    mask = stored.get(f"{i}.pixel_mask")
    pixels = bt.tensor(stored[f"{i}.pixel_values"]).astype(dtype)
    return pixels, None if mask is None else bt.tensor(mask)


def targets(stored: dict[str, Any], i: int) -> list[Boxes]:
    """In a picture of one pixel, so that parts of it are pixels."""
    count = len(stored[f"{i}.pixel_values"])
    boxes = [stored[f"{i}.{j}.boxes"].astype(np.float64) for j in range(count)]
    corners = [convert_boxes(b, "cxcywh", "xyxy") for b in boxes]
    return [Boxes(c, stored[f"{i}.{j}.class_labels"]) for j, c in enumerate(corners)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_outputs_and_losses_equal_the_references(folder: str) -> None:
    module = load(DATA / folder).module
    stored = load_file(DATA / folder / "reference.safetensors")
    for i in range(2):
        pixels, mask = inputs(stored, i)
        with bt.no_grad():
            logits, boxes = module(pixels, mask)
        np.testing.assert_allclose(logits.array, stored[f"{i}.logits"], atol=1e-4)
        np.testing.assert_allclose(boxes.array, stored[f"{i}.pred_boxes"], atol=1e-4)
        there = targets(stored, i)
        loss, figures = module.loss(pixels, mask, there, [(1, 1)] * len(there))
        assert loss.item() == pytest.approx(float(stored[f"{i}.loss"]), abs=1e-4)
        assert set(figures) == {"class", "box", "giou"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_bfloat16_stays_near_the_references(folder: str) -> None:
    module = load(DATA / folder, dtype="bfloat16").module
    assert module.dtype == bt.bfloat16
    stored = load_file(DATA / folder / "reference.safetensors")
    # Of the largest logit, or twice as far as the reference itself is off in that type.
    largest = max(np.abs(stored[f"{i}.logits"]).max() for i in range(2))
    tolerance = max(2e-2 * largest, 2 * float(stored["bfloat16.error"]))
    for i in range(2):
        pixels, mask = inputs(stored, i, bt.bfloat16)
        logits, boxes = module(pixels, mask)
        np.testing.assert_allclose(
            logits.array.astype(np.float32), stored[f"{i}.logits"], atol=tolerance
        )
        np.testing.assert_allclose(
            boxes.array.astype(np.float32), stored[f"{i}.pred_boxes"], atol=2e-2
        )


@pytest.mark.parametrize("folder", FOLDERS)
def test_gradients_equal_the_references(folder: str) -> None:
    task = load(DATA / folder)
    stored = load_file(DATA / folder / "reference.safetensors")
    pixels, mask = inputs(stored, 0)
    there = targets(stored, 0)
    task.module.loss(pixels, mask, there, [(1, 1)] * len(there))[0].backward()
    layout = get(task.architecture + ("-resnet-50" if "detr" in folder else "-tiny"))[0].layouts[
        "transformers"
    ]
    # transformers 5 names some tensors otherwise while a model runs
    theirs = {
        n.removeprefix("grad.")
        .replace("backbone.model", "backbone.conv_encoder.model")
        .replace("o_proj", "out_proj")
        .replace("mlp.fc", "fc"): a
        for n, a in stored.items()
        if n.startswith("grad.")
    }
    expected = {new: theirs[old] for old, (new, _) in renamed(list(theirs), layout.rename).items()}
    join(expected, layout.join)
    parameters = dict(task.module.named_parameters())
    compared = [name for name in expected if name in parameters]
    assert len(compared) >= 2
    for name in compared:
        gradient = parameters[name].grad
        assert gradient is not None
        np.testing.assert_allclose(gradient.array, expected[name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("entry", curated(), ids=lambda e: e.name)
def test_names_and_shapes_of_the_published_sizes(entry: Entry) -> None:
    published = json.loads((DATA / "detector_names.json").read_text())
    key = entry.name.removesuffix("-dc5").removesuffix("-300")
    tensors: dict[str, tuple[int, ...]] = {}
    for line, (shape, *numbers) in published[key]["tensors"].items():
        if not numbers:
            tensors[line] = tuple(shape)
        for number in numbers[0] if numbers else ():
            tensors[line.split(" ")[0].format(number)] = tuple(shape)
    # What transformers 5 calls otherwise while a model runs is saved under the names of 4.
    files = {
        n.replace("backbone.model.", "backbone.conv_encoder.model.")
        .replace("o_proj", "out_proj")
        .replace(".mlp.fc", ".fc")
        .replace("encoder.interpolation.mid", "encoder.mid"): s
        for n, s in tensors.items()
    }
    architecture, _ = get(entry.name)
    layout = architecture.layouts["transformers"]
    found = {
        new: np.empty(files[old]) for old, (new, _) in renamed(list(files), layout.rename).items()
    }
    assert len(found) == len(files)
    join(found, layout.join)
    with bt.nn.init.empty():
        module = architecture.build(architecture.config(**(entry.config or {})))
    assert {n: t.shape for n, t in module.state_dict().items()} == {
        n: a.shape for n, a in found.items()
    }
    assert entry.parameters == published[key]["parameters"]
    assert entry.parameters == sum(p.size for p in module.parameters())


def test_untrained_models_by_name() -> None:
    with bt.nn.init.empty():
        task = load("detr-resnet-50", weights=False)
    assert task.labels == label_names("coco-91")
    assert task.labels[1] == "person"
    assert task.preprocess == DetectionPreprocess()
    assert "Apache-2.0" in str(task.card.license)


# -- preprocessing ---------------------------------------------------------------------------------

CONFIGS = json.loads((DATA / "detection_pictures" / "configs.json").read_text())


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_prepared_pictures_equal_the_references(name: str) -> None:
    stored = load_file(DATA / "detection_pictures" / "pictures.safetensors")
    if f"{name}.pixel_values" not in stored:
        pytest.fail(f"{name} has no reference")
    preprocess = DetectionPreprocess.from_config(CONFIGS[name])
    photos = [stored[f"photo.{i}"] for i in range(2)]
    batch = preprocess.batch(photos)
    np.testing.assert_allclose(batch.pixel_values, stored[f"{name}.pixel_values"], atol=1e-5)
    np.testing.assert_array_equal(batch.pixel_mask, stored[f"{name}.pixel_mask"])
    assert DetectionPreprocess.from_config(preprocess.to_config()) == preprocess


def test_sizes_at_the_published_resolution() -> None:
    """Sizes worked out by hand; the two shapes of photographs are the most common ones."""
    detr = DetectionPreprocess()
    assert detr.target(480, 640) == (800, 1066)
    assert detr.target(640, 480) == (1066, 800)
    assert detr.target(400, 1000) == (533, 1333)
    assert detr.target(800, 800) == (800, 800)
    yolos = DetectionPreprocess(shortest=512, multiple=16)
    assert yolos.target(480, 640) == (512, 672)
    assert yolos.target(10, 2000) == (16, 1328)


def test_old_processor_files() -> None:
    old = {"feature_extractor_type": "DetrFeatureExtractor", "size": 800, "max_size": 1333}
    old |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    assert DetectionPreprocess.from_config({**old, "format": "coco_detection"}) == (
        DetectionPreprocess()
    )


@pytest.mark.parametrize(
    "config, fact",
    [
        ({"image_processor_type": "ViTImageProcessor"}, "image_processor_type"),
        ({"do_center_crop": True}, "do_center_crop=True"),
        ({"size": {"longest_edge": 3}}, "longest_edge"),
        ({"size": "large"}, "makes no sense"),
        ({"image_std": [0, 0, 0]}, "no std is zero"),
        ({"image_mean": ["x"]}, "makes no sense"),
        ({"rescale_factor": float("nan")}, "not finite"),
    ],
)
def test_processors_that_are_not_understood(config: dict[str, Any], fact: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DetectionPreprocess.from_config(config)
    assert fact in " ".join(str(caught.value).split())


# -- as modules ------------------------------------------------------------------------------------


def test_padding_changes_little_for_detr() -> None:
    module = load(DATA / "detr-timm").module
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 96)).astype(np.float32)
    alone = module(bt.tensor(x))
    assert alone.logits.shape == (1, module.config.num_queries, 6)
    ones = module(bt.tensor(x), bt.tensor(np.ones((1, 64, 96), np.int64)))
    np.testing.assert_allclose(ones.logits.array, alone.logits.array, atol=1e-6)
    padded = np.zeros((1, 3, 128, 160), np.float32)
    padded[:, :, :64, :96] = x
    mask = np.zeros((1, 128, 160), np.int64)
    mask[:, :64, :96] = 1
    # Only the convolutions at the edge see that there is padding.
    beside = module(bt.tensor(padded), bt.tensor(mask))
    assert np.abs(beside.pred_boxes.array - alone.pred_boxes.array).max() < 0.1
    with pytest.raises(ShapeError, match="pixel_mask"):
        module(bt.tensor(x), bt.tensor(mask))


@pytest.mark.parametrize("folder", ["detr-transformers-learned", "yolos-transformers"])
def test_training_lowers_the_loss(folder: str) -> None:
    task = load(DATA / folder)
    stored = load_file(DATA / folder / "reference.safetensors")
    pixels, mask = inputs(stored, 0)
    there = targets(stored, 0)
    module = task.module.train()
    optimizer = bt.optim.AdamW(module.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        bt.manual_seed(0)
        loss, _ = module.loss(pixels, mask, there, [(1, 1)] * len(there))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_auxiliary_losses_train_every_layer_and_change_no_answer() -> None:
    from dataclasses import replace

    task = load(DATA / "detr-timm")
    stored = load_file(DATA / "detr-timm" / "reference.safetensors")
    pixels, mask = inputs(stored, 0)
    there = targets(stored, 0)
    plain, _ = task.module.loss(pixels, mask, there, [(1, 1)] * 2)
    task.module.config = replace(task.config, auxiliary_loss=True)
    both, _ = task.module.loss(pixels, mask, there, [(1, 1)] * 2)
    assert both.item() > plain.item()
    with bt.no_grad():
        np.testing.assert_allclose(
            task.module(pixels, mask).logits.array, stored["0.logits"], atol=1e-4
        )


def test_learned_places_have_an_end() -> None:
    module = load(DATA / "detr-transformers-learned").module
    with pytest.raises(ShapeError, match="50 x 50"), bt.no_grad():
        module(bt.zeros((1, 3, 32, 51 * 32)))


@pytest.mark.parametrize("folder", FOLDERS)
def test_saved_and_loaded_with_another_head_and_size(folder: str, tmp_path: Path) -> None:
    task = load(DATA / folder, num_classes=2, image_size=(64, 80))
    assert task.labels == ["class 0", "class 1"]
    assert task.preprocess.exact == (64, 80)
    assert all(n.startswith("class_labels_classifier") for n in task.report.replaced)
    if "yolos" in folder:
        assert task.config.image_size == (64, 80)
        assert "pos_embed" in task.report.reshaped
    again = load(task.save(tmp_path))
    x = bt.tensor(np.random.default_rng(0).standard_normal((1, 3, 64, 80)).astype(np.float32))
    np.testing.assert_array_equal(again.module(x).logits.array, task.module(x).logits.array)
    assert again.preprocess == task.preprocess


def changed(folder: str, tmp_path: Path, **changes: Any) -> Path:
    config = {**json.loads((DATA / folder / "config.json").read_text()), **changes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    "folder, changes, fact",
    [
        ("detr-timm", {"two_stage": True}, "two_stage=True"),
        ("detr-timm", {"backbone": "convnext_tiny"}, "'convnext_tiny'"),
        ("detr-timm", {"d_model": 10}, "multiple of 4"),
        ("detr-timm", {"num_queries": 10**9}, "num_queries"),
        ("detr-timm", {"position_embedding_type": "rotary"}, "'rotary'"),
        ("detr-timm", {"scale_embedding": True}, "scale_embedding=True"),
        ("detr-timm", {"architectures": ["DetrForSegmentation"]}, "DetrForSegmentation"),
        ("detr-transformers-learned", {"backbone_config": {"model_type": "swin"}}, "'swin'"),
        ("yolos-transformers", {"architectures": ["YolosModel"]}, "YolosModel"),
        ("yolos-transformers", {"hidden_act": "tanhshrink"}, "'tanhshrink'"),
        ("yolos-transformers", {"image_size": [4, 4]}, "patch_size"),
        ("yolos-transformers", {"window": 3}, "window=3"),
    ],
)
def test_configurations_that_are_refused(
    folder: str, changes: dict[str, Any], fact: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(changed(folder, tmp_path, **changes), weights=False)
    assert fact in str(caught.value)


JUNK: list[Any] = [None, -1, float("nan"), 10**40, "x", [[]]]


@pytest.mark.parametrize("folder", ["detr-timm", "detr-transformers-learned", "yolos-transformers"])
def test_values_that_make_no_sense_are_errors_of_ours(folder: str, tmp_path: Path) -> None:
    original = json.loads((DATA / folder / "config.json").read_text())
    messages = []
    places = [original, original.get("backbone_config") or {}]
    for place in places:
        for key, before in list(place.items()):
            for value in JUNK:
                place[key] = value
                (tmp_path / "config.json").write_text(json.dumps(original))
                try:
                    with bt.nn.init.empty():
                        load(tmp_path, weights=False)
                except (ConfigError, bt.core.errors.HubError) as error:
                    messages.append(str(error))
            place[key] = before
    assert len(messages) > len(original)
    assert max(len(message.splitlines()) for message in messages) <= 12


def test_configurations_as_transformers_5_writes_them(tmp_path: Path) -> None:
    inner = {"model_type": "timm_backbone", "backbone": "resnet18", "out_indices": [1, 2, 3, 4]}
    folder = changed("detr-timm", tmp_path, backbone_config=inner, backbone=None)
    config = json.loads((folder / "config.json").read_text())
    del config["backbone_kwargs"]
    (folder / "config.json").write_text(json.dumps(config))
    with bt.nn.init.empty():
        task = load(folder, weights=False)
    assert (task.config.depths, task.config.layer_type) == ((2, 2, 2, 2), "basic")


def test_configurations_of_versions_without_timm(tmp_path: Path) -> None:
    """They say null of what belongs to timm."""
    changes = {"dilation": None, "backbone": None, "use_pretrained_backbone": None}
    folder = changed("detr-transformers-learned", tmp_path, **changes, use_timm_backbone=False)
    with bt.nn.init.empty():
        task = load(folder, weights=False)
    assert task.config == load(DATA / "detr-transformers-learned").config


@pytest.mark.parametrize("stride, dilation", [(None, False), (32, False), (16, True)])
def test_the_stride_of_timm_says_whether_the_last_stage_is_dilated(
    stride: int | None, dilation: bool, tmp_path: Path
) -> None:
    kwargs = {"output_stride": stride, "in_chans": 3, "out_indices": [1, 2, 3, 4]}
    folder = changed("detr-timm", tmp_path, backbone_kwargs=kwargs)
    with bt.nn.init.empty():
        assert load(folder, weights=False).config.dilation is dilation

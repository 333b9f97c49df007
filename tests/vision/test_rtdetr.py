"""RT-DETR: equal to transformers, in outputs, losses, gradients and what is found in a picture."""

from __future__ import annotations

import gzip
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, HubError, ShapeError
from bestiary.core.weights import load_file
from bestiary.hub.loading import load
from bestiary.hub.registry import Entry, entries, get
from bestiary.hub.rename import renamed
from bestiary.vision import rtdetr_loss
from bestiary.vision.boxes import Boxes, convert_boxes
from bestiary.vision.detection_preprocess import DetectionPreprocess
from bestiary.vision.detector import Detector
from bestiary.vision.generated import write_shapes
from bestiary.vision.labels import label_names
from bestiary.vision.matching import assign
from bestiary.vision.set_detection import relative_boxes

DATA = Path(__file__).parent.parent / "references" / "data"
FOLDERS = ["rtdetr-basic", "rtdetr-bottleneck", "rtdetr-v2"]
LAYOUT = get("rtdetr-r18vd")[0].layouts["transformers"]


def opened(folder: str) -> tuple[Any, dict[str, Any]]:
    return load(DATA / folder), load_file(DATA / folder / "reference.safetensors")


def targets(stored: dict[str, Any], i: int) -> list[Boxes]:
    """In a picture of one pixel, so that parts of it are pixels."""
    count = len(stored[f"{i}.pixel_values"])
    boxes = [stored[f"{i}.{j}.boxes"].astype(np.float64) for j in range(count)]
    corners = [convert_boxes(b, "cxcywh", "xyxy") for b in boxes]
    return [Boxes(c, stored[f"{i}.{j}.class_labels"]) for j, c in enumerate(corners)]


def loss_of(module: Any, stored: dict[str, Any], i: int = 0) -> tuple[bt.Tensor, dict[str, float]]:
    there = targets(stored, i)
    pixels = bt.tensor(stored[f"{i}.pixel_values"])
    result: tuple[bt.Tensor, dict[str, float]] = module.loss(
        pixels, None, there, [(1, 1)] * len(there)
    )
    return result


# -- equal to transformers -------------------------------------------------------------------------


@pytest.mark.parametrize("folder", FOLDERS)
def test_outputs_and_losses_equal_the_references(folder: str) -> None:
    task, stored = opened(folder)
    for i in range(2):
        with bt.no_grad():
            logits, boxes = task.module(bt.tensor(stored[f"{i}.pixel_values"]))
        np.testing.assert_allclose(logits.array, stored[f"{i}.logits"], atol=1e-4)
        np.testing.assert_allclose(boxes.array, stored[f"{i}.pred_boxes"], atol=1e-4)
        loss, figures = loss_of(task.module, stored, i)
        assert loss.item() == pytest.approx(float(stored[f"{i}.loss"]), abs=1e-4)
        assert set(figures) == {"class", "box", "giou"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_tensor_is_accounted_for(folder: str) -> None:
    task = load(DATA / folder)
    scales = [n for n in task.report.dropped if n.endswith("n_points_scale")]
    assert list(task.report.dropped) == scales
    assert len(scales) == (2 if folder == "rtdetr-v2" else 0)
    assert set(task.report.loaded) == set(task.module.state_dict())
    assert task.labels == [f"kind {i}" for i in range(5)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_bfloat16_stays_near_the_references(folder: str) -> None:
    """Where every place is a query; which places are the best is another question in bfloat16."""
    stored = load_file(DATA / folder / "reference.safetensors")
    module = load(DATA / folder, dtype="bfloat16").module
    assert module.dtype == bt.bfloat16
    module.config = replace(module.config, num_queries=stored["all.logits"].shape[1])
    logits, boxes = module(bt.tensor(stored["1.pixel_values"]).astype(bt.bfloat16))
    got = np.concatenate([t.array[0].astype(np.float32) for t in (logits, boxes)], axis=1)
    wanted = np.concatenate([stored["all.logits"][0], stored["all.pred_boxes"][0]], axis=1)
    rows, columns = assign(np.abs(got[:, None] - wanted).sum(axis=2))
    # As far as the reference itself is off in that type, where that is more.
    tolerance = max(2e-2, 1.25 * float(stored["all.bfloat16.error"]))
    np.testing.assert_allclose(got[rows], wanted[columns], atol=tolerance)


def ours(stored: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Gradients by our names; transformers 5 names some tensors otherwise while a model runs."""
    theirs = {
        n.removeprefix(prefix)
        .replace("o_proj", "out_proj")
        .replace("mlp.fc", "fc")
        .replace("encoder.aifi", "encoder.encoder"): a
        for n, a in stored.items()
        if n.startswith(prefix)
    }
    return {new: theirs[old] for old, (new, _) in renamed(list(theirs), LAYOUT.rename).items()}


class NothingDrawn:
    """In place of a random generator: what the script of the reference uses."""

    def random(self, shape: Any) -> Any:
        return np.full(shape, 0.25)

    def integers(self, low: int, high: int, shape: Any) -> Any:
        return np.ones(shape, np.int64)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_gradients_equal_the_references(
    folder: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training mode with statistics of the batch, and with queries made of the objects."""
    monkeypatch.setattr("bestiary.core.random.numpy_rng", NothingDrawn)
    task, stored = opened(folder)
    task.module.train(mode == "train")
    loss, _ = loss_of(task.module, stored)
    assert loss.item() == pytest.approx(float(stored[f"{mode}.loss"]), rel=1e-5)
    loss.backward()
    parameters = dict(task.module.named_parameters())
    expected = ours(stored, f"{mode}.grad.")
    assert len(expected) >= 6
    for name, gradient in expected.items():
        got = parameters[name].grad
        if got is None:  # of layers that no loss asks for
            assert not gradient.any() and not task.config.auxiliary_loss, name
            continue
        # The statistics of few values, in training, magnify what is rounded off.
        near = (1e-4 if mode == "eval" else 1e-3) * max(1.0, float(np.abs(gradient).max()))
        np.testing.assert_allclose(got.array, gradient, atol=near, err_msg=name)


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_found_in_a_picture_equals_the_references(folder: str) -> None:
    task, stored = opened(folder)
    np.testing.assert_allclose(task.preprocess(stored["photo"]), stored["prepared"][0], atol=1e-6)
    (found,) = task.boxes([stored["photo"]])
    # Of pairs of box and class, the best, as many as queries.
    assert len(found) == task.config.num_queries
    assert found.scores is not None
    np.testing.assert_allclose(found.scores, stored["found.scores"], atol=1e-5)
    np.testing.assert_array_equal(found.labels, stored["found.labels"])
    height, width = stored["photo"].shape[:2]
    wanted = np.clip(stored["found.boxes"], 0, [width, height, width, height])
    np.testing.assert_allclose(found.boxes, wanted, atol=1e-3)


# -- published models ------------------------------------------------------------------------------


def curated() -> list[Entry]:
    return [e for a, e in entries() if a.name == "rtdetr"]


@pytest.mark.parametrize("entry", curated(), ids=lambda e: e.name)
def test_names_and_shapes_of_the_published_sizes(entry: Entry) -> None:
    listed = json.loads(gzip.decompress((DATA / "rtdetr_names.json.gz").read_bytes()))
    published = listed[entry.name.removesuffix("-coco-o365")]
    files: dict[str, tuple[int, ...]] = {}
    for line, (shape, *numbers) in published["tensors"].items():
        for number in numbers[0] if numbers else (0,):
            name = line.split(" ")[0].format(number)
            name = name.replace("o_proj", "out_proj").replace("mlp.fc", "fc")
            files[name.replace("encoder.aifi", "encoder.encoder")] = tuple(shape)
    names = renamed(list(files), LAYOUT.rename)
    architecture, _ = get(entry.name)
    with bt.nn.init.empty():
        module = architecture.build(architecture.config(**(entry.config or {})))
    assert {n: t.shape for n, t in module.state_dict().items()} == {
        new: files[old] for old, (new, _) in names.items()
    }
    # Version 2 holds its heads twice in memory, and once in files.
    dropped = {name.split(".")[0] for name in set(files) - set(names) if "n_points" not in name}
    assert dropped == ({"class_embed", "bbox_embed"} if "v2" in entry.name else set())
    assert entry.parameters == published["parameters"]
    assert entry.parameters == sum(p.size for p in module.parameters())


def test_untrained_models_by_name() -> None:
    with bt.nn.init.empty():
        task = load("rtdetr-r18vd", weights=False)
    assert task.labels == label_names("coco-80")
    assert (len(task.labels), task.labels[0], task.labels[79]) == (80, "person", "toothbrush")
    processor = {"image_processor_type": "RTDetrImageProcessor", "do_normalize": False}
    processor |= {"size": {"height": 640, "width": 640}, "do_pad": False, "resample": 2}
    assert task.preprocess == DetectionPreprocess.from_config(processor)
    assert "Apache-2.0" in str(task.card.license)


def test_files_of_earlier_versions(tmp_path: Path) -> None:
    """They hold the heads twice, and say null of what belongs to timm."""
    from bestiary.core.weights import save_file

    state = load_file(DATA / "rtdetr-basic" / "model.safetensors")
    again = {
        n.removeprefix("model.decoder."): a.copy()
        for n, a in state.items()
        if n.startswith(("model.decoder.class_embed", "model.decoder.bbox_embed"))
    }
    save_file({**state, **again}, tmp_path / "model.safetensors")
    config = json.loads((DATA / "rtdetr-basic" / "config.json").read_text())
    config |= {"backbone": None, "use_timm_backbone": False, "backbone_kwargs": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    task = load(tmp_path)
    assert set(task.report.dropped) == set(again)


# -- as a task -------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", FOLDERS)
def test_pictures_of_any_size(folder: str) -> None:
    """Maps of odd sizes too, which transformers refuses."""
    task = load(DATA / folder)
    x = bt.tensor(np.random.default_rng(0).standard_normal((1, 3, 71, 53)).astype(np.float32))
    assert task.module(x).logits.shape == (1, 6, 5)
    with pytest.raises(ShapeError, match="fewer than the 6 queries"):
        task.module(x[:, :, :8, :8])
    with pytest.raises(ShapeError, match="in_channels=1"):
        task.module(x[:, :1])


def test_encoder_and_every_layer_have_answers() -> None:
    task, stored = opened("rtdetr-basic")
    said = task.module.layers_say(bt.tensor(stored["0.pixel_values"]), None)
    assert len(said) == 1 + task.config.decoder_layers
    np.testing.assert_allclose(said[-1].logits.array, stored["0.logits"], atol=1e-4)
    assert np.abs(said[0].pred_boxes.array - said[-1].pred_boxes.array).max() > 0.01


def test_no_answer_depends_on_its_neighbours() -> None:
    task = load(DATA / "rtdetr-basic")
    rng = np.random.default_rng(1)
    photos = [rng.integers(0, 256, (40 + i, 60, 3), dtype=np.uint8) for i in range(3)]
    assert isinstance(task, Detector)
    together = task(photos, threshold=0)
    for photo, answers in zip(photos, together, strict=True):
        for one, other in zip(answers, task(photo, threshold=0), strict=True):
            assert one["label"] == other["label"]
            np.testing.assert_allclose(one["box"], other["box"], atol=0.02)


@pytest.mark.parametrize("folder", FOLDERS)
def test_saved_and_loaded_with_another_head_and_size(folder: str, tmp_path: Path) -> None:
    task = load(DATA / folder, num_classes=2, image_size=(64, 80), in_channels=1)
    assert task.labels == ["class 0", "class 1"]
    assert task.preprocess.exact == (64, 80)
    heads = ("enc_score_head", "decoder.class_embed", "denoising_class_embed", "backbone.stem.0.")
    assert all(n.startswith(heads) for n in task.report.replaced)
    again = load(task.save(tmp_path))
    x = bt.tensor(np.random.default_rng(0).standard_normal((1, 1, 64, 80)).astype(np.float32))
    np.testing.assert_array_equal(again.module(x).logits.array, task.module(x).logits.array)
    assert again.preprocess == task.preprocess


# -- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["rtdetr-basic", "rtdetr-bottleneck"])
def test_training_lowers_the_loss(folder: str) -> None:
    task, stored = opened(folder)
    module = task.module.train()
    optimizer = bt.optim.AdamW(module.parameters(), lr=5e-3)
    losses = []
    for _ in range(20):
        bt.manual_seed(0)
        loss, _ = loss_of(module, stored)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_every_parameter_is_trained_from_nothing() -> None:
    architecture, _ = get("rtdetr-r18vd")
    config = load(DATA / "rtdetr-basic").config
    bt.manual_seed(0)
    module = architecture.build(replace(config, freeze_backbone_batch_norms=False)).train()
    stored = load_file(DATA / "rtdetr-basic" / "reference.safetensors")
    optimizer = bt.optim.SGD(module.parameters(), lr=1e-2)
    for _ in range(2):  # boxes stand still at first, and nothing before their last layer learns
        loss, _ = loss_of(module, stored)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert np.isfinite(parameter.grad.array).all(), name
        if "relu" not in name:
            assert np.abs(parameter.grad.array).max() > 0, name


def test_disturbed_objects() -> None:
    config = replace(load(DATA / "rtdetr-basic").config, num_denoising=10, num_queries=4)
    there = [
        Boxes(np.array([[0.5, 0.5, 0.2, 0.4], [0.3, 0.4, 0.1, 0.1]]), np.array([3, 1])),
        Boxes(np.zeros((0, 4)), np.zeros(0, np.int64)),
    ]
    found = rtdetr_loss.disturbed(there, config, np.random.default_rng(0))
    assert found is not None
    assert (found.groups, found.labels.shape, found.boxes.shape) == (5, (2, 20), (2, 20, 4))
    assert (found.labels[1] == config.num_classes).all()
    # What is near overlaps its object more than what is far.
    corners = convert_boxes(rtdetr_loss.sigmoid(found.boxes[0]), "cxcywh", "xyxy")
    wanted = convert_boxes(np.tile(there[0].boxes, (10, 1)), "cxcywh", "xyxy")
    overlap = rtdetr_loss.paired_iou(corners, wanted).reshape(5, 2, 2)
    assert overlap[:, 0].mean() > overlap[:, 1].mean() + 0.1
    rows, columns = found.pairs[0]
    assert rows.tolist() == [0, 1, 4, 5, 8, 9, 12, 13, 16, 17]
    assert columns.tolist() == [0, 1] * 5
    assert found.pairs[1][0].size == 0
    sees = found.sees
    assert sees.shape == (24, 24)
    assert sees[20:, 20:].all() and not sees[20:, :20].any()
    assert sees[:4, :4].all() and not sees[:4, 4:20].any() and sees[:4, 20:].all()
    assert rtdetr_loss.disturbed(there[1:], config, np.random.default_rng(0)) is None
    quiet = replace(config, num_denoising=0)
    assert rtdetr_loss.disturbed(there, quiet, np.random.default_rng(0)) is None


def test_a_batch_without_objects_has_a_loss() -> None:
    module = load(DATA / "rtdetr-basic").module.train()
    nothing = [Boxes(np.zeros((0, 4)), np.zeros(0, np.int64))]
    loss, figures = module.loss(bt.ones((1, 3, 64, 64)), None, nothing, [(64, 64)])
    loss.backward()
    assert loss.item() > 0
    assert figures["box"] == figures["giou"] == 0
    assert len(relative_boxes(nothing[0], (64, 64))) == 0


def test_finetune(tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "shapes", 12, size=64, seed=2)
    task = load(DATA / "rtdetr-basic")
    new = task.finetune(data, out=tmp_path / "out", epochs=2, batch_size=2, lr=1e-3, quiet=True)
    assert new.labels == ["circle", "square", "triangle"]
    history = json.loads((tmp_path / "out" / "report.json").read_text())["history"]
    assert history[1]["loss"] < history[0]["loss"]
    again = load(tmp_path / "out")
    picture = np.random.default_rng(3).integers(0, 256, (50, 64, 3), dtype=np.uint8)
    assert again(picture, threshold=0) == new(picture, threshold=0)


# -- mistakes --------------------------------------------------------------------------------------


def changed(tmp_path: Path, **changes: Any) -> Path:
    """A folder with another configuration; `backbone__depths=` is said of the ResNet."""
    config = json.loads((DATA / "rtdetr-basic" / "config.json").read_text())
    for key, value in changes.items():
        outer, _, inner = key.partition("__")
        if inner:
            config["backbone_config"][inner] = value
        else:
            config[outer] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    "changes, fact",
    [
        ({"two_stage": True}, "two_stage=True"),
        ({"learn_initial_query": True}, "learn_initial_query=True"),
        ({"decoder_method": "discrete"}, "decoder_method='discrete'"),
        ({"anchor_image_size": [640, 640]}, "anchor_image_size"),
        ({"backbone": "hgnetv2"}, "'hgnetv2'"),
        ({"d_model": 15}, "multiple of decoder_attention_heads"),
        ({"encoder_hidden_dim": 10}, "decoder_in_channels"),
        ({"num_queries": 10**9}, "num_queries"),
        ({"num_feature_levels": 4}, "num_feature_levels=4"),
        ({"encode_proj_layers": [3]}, "encode_proj_layers"),
        ({"activation_function": "mish"}, "'mish'"),
        ({"hidden_expansion": 0.01}, "hidden_expansion"),
        ({"architectures": ["RTDetrModel"]}, "RTDetrModel"),
        ({"backbone__model_type": "swin"}, "'swin'"),
        ({"backbone__depths": [1, 1]}, "out_features"),
        ({"backbone__hidden_sizes": [8, 8, 10, 12]}, "embedding_size=6"),
        ({"backbone__downsample_in_bottleneck": True}, "downsample_in_bottleneck=True"),
        ({"backbone__out_features": ["stage1", "stage4"]}, "out_features"),
        ({"backbone__stem": "deep"}, "stem='deep'"),
    ],
)
def test_configurations_that_are_refused(
    changes: dict[str, Any], fact: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(changed(tmp_path, **changes), weights=False)
    assert fact in str(caught.value)


def test_values_that_make_no_sense_are_errors_of_ours(tmp_path: Path) -> None:
    junk: list[Any] = [None, -1, float("nan"), 10**40, "x", [[]]]
    original = json.loads((DATA / "rtdetr-basic" / "config.json").read_text())
    messages = []
    for place in (original, original["backbone_config"]):
        for key, before in list(place.items()):
            for i, value in enumerate(junk):
                place[key] = value
                (tmp_path / "config.json").write_text(json.dumps(original))
                try:
                    with bt.nn.init.empty():
                        # To build it takes time, and is done for some.
                        if i == len(messages) % len(junk):
                            load(tmp_path, weights=False)
                        elif LAYOUT.config is not None:
                            LAYOUT.config(json.loads((tmp_path / "config.json").read_text()))
                except (ConfigError, HubError) as error:
                    messages.append(str(error))
            place[key] = before
    assert len(messages) > 2 * len(original)
    assert max(len(message.splitlines()) for message in messages) <= 12


# -- with the library itself -----------------------------------------------------------------------


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("folder", FOLDERS)
def test_transformers_reads_what_we_save(folder: str, tmp_path: Path) -> None:
    import torch
    import transformers

    task, stored = opened(folder)
    saved = task.save(tmp_path)
    written = json.loads((saved / "config.json").read_text())
    kind = getattr(transformers, written["architectures"][0])
    model, info = kind.from_pretrained(saved, output_loading_info=True)
    assert not info["unexpected_keys"], info
    assert all(name.endswith("n_points_scale") for name in info["missing_keys"]), info
    with torch.no_grad():
        output = model.eval()(torch.tensor(stored["0.pixel_values"]))
    np.testing.assert_allclose(output.logits.numpy(), stored["0.logits"], atol=1e-4)


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["rtdetr-r18vd", "rtdetr-r50vd"])
def test_published_sizes_equal_transformers(name: str, tmp_path: Path) -> None:
    """Random weights in the published configuration, on a picture of 640 x 640 pixels."""
    import torch
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    trunk: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    if name.endswith("r18vd"):
        trunk = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2] * 4}
        changes = {"encoder_in_channels": [128, 256, 512], "hidden_expansion": 0.5}
        changes["decoder_layers"] = 3
    path = DATA.parent / "common.py"
    spec = importlib.util.spec_from_file_location("reference_common", path)
    assert spec is not None and spec.loader is not None
    common = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(common)
    inner = RTDetrResNetConfig(**trunk, out_indices=[2, 3, 4])
    config = RTDetrConfig(backbone_config=inner, num_labels=80, **changes)
    model = common.randomise(RTDetrForObjectDetection(config), 0)
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim == 4:  # so many convolutions make large numbers otherwise
                tensor *= 0.6
    model.save_pretrained(tmp_path)
    module = load(tmp_path).module
    x = common.images(1, 3, 640, 640).numpy()
    with torch.no_grad():
        output = model(torch.tensor(x))
    with bt.inference_mode():
        logits, boxes = module(bt.tensor(x))
    ours = np.concatenate([logits.array[0], boxes.array[0]], axis=1)
    theirs = np.concatenate([output.logits[0].numpy(), output.pred_boxes[0].numpy()], axis=1)
    # Of 8,400 places some are equally good but for rounding: these queries may change places.
    rows, columns = assign(np.abs(ours[:, None] - theirs).sum(axis=2))
    assert (rows == columns).mean() > 0.7
    np.testing.assert_allclose(ours[rows], theirs[columns], atol=1e-4)

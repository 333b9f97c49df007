"""Segmentation networks against the stored outputs of transformers, and as architectures."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import BestiaryError, ConfigError, ShapeError
from bestiary.core.nn import functional as F
from bestiary.core.weights import load_file
from bestiary.hub.card import card_of
from bestiary.hub.loading import load
from bestiary.hub.registry import architecture_by_name, entries, get
from bestiary.hub.rename import inverted, renamed
from bestiary.vision.generated import write_masks
from bestiary.vision.preprocess import Preprocess
from bestiary.vision.segmenter import Segmenter

DATA = Path(__file__).parent.parent / "references" / "data"
FOLDERS = (
    "segformer-transformers",
    "segformer-transformers-three",
    "deeplab-transformers",
    "deeplab-transformers-16",
)
SIZES = {"hidden_sizes": (8, 12), "depths": (1, 1), "num_attention_heads": (2, 3)}
TINY: dict[str, dict[str, Any]] = {
    "segformer": {
        **SIZES,
        "sr_ratios": (2, 1),
        "patch_sizes": (5, 3),
        "strides": (2, 2),
        "mlp_ratios": (2, 1.5),
        "decoder_hidden_size": 9,
    },
    "deeplab-mobilenet-v2": {"width": 0.1, "depth": 0.5, "dropout": 0.1},
    "unet": {"widths": (6, 8, 10), "dropout": 0.1},
}


@pytest.fixture
def folder_of(tmp_path: Path) -> Any:
    """A function from the name of a reference to a folder that holds all of it."""

    def make(name: str) -> Path:
        shared = DATA / "deeplab-transformers" / "model.safetensors"
        if (DATA / name / shared.name).exists():
            return DATA / name
        folder = tmp_path / name
        shutil.copytree(DATA / name, folder)
        shutil.copy(shared, folder)
        return folder

    return make


def task_of(name: str, **changes: Any) -> Segmenter:
    architecture = architecture_by_name(name)
    assert architecture is not None
    config = architecture.config(**{**TINY[name], "num_classes": 3, **changes})
    bt.manual_seed(3)
    return Segmenter(
        architecture.build(config).eval(),
        architecture=name,
        config=config,
        preprocess=Preprocess(size=(40, 40), resize=(40, 40), fit="exact"),
        labels=[f"kind {i}" for i in range(config.num_classes)],
        card=card_of(architecture, None, "tiny"),
    )


def images(*shape: int, seed: int = 0) -> bt.Tensor:
    return bt.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


# -- references -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOLDERS)
def test_logits_equal_the_references(name: str, folder_of: Any) -> None:
    task = load(folder_of(name))
    assert isinstance(task, Segmenter)
    assert task.labels == [f"kind {i}" for i in range(5)]
    stored = load_file(DATA / name / "reference.safetensors")
    for i in range(2):
        with bt.no_grad():
            logits = task.module(bt.tensor(stored[f"{i}.pixel_values"]))
        np.testing.assert_allclose(logits.array, stored[f"{i}.output"], atol=1e-4)


@pytest.mark.parametrize("name", FOLDERS)
def test_bfloat16_stays_near_the_references(name: str, folder_of: Any) -> None:
    task = load(folder_of(name), dtype="bfloat16")
    stored = load_file(DATA / name / "reference.safetensors")
    # Or nearly as near as the reference itself is in that type, which rounds at other places.
    tolerance = max(2e-2, 1.25 * float(stored["bfloat16.error"]))
    for i in range(2):
        with bt.no_grad():
            logits = task.module(bt.tensor(stored[f"{i}.pixel_values"]).astype(bt.bfloat16))
        result = logits.array.astype(np.float32)
        np.testing.assert_allclose(result, stored[f"{i}.output"], atol=tolerance)


@pytest.mark.parametrize("name", FOLDERS)
def test_training_gives_the_gradients_of_the_references(name: str, folder_of: Any) -> None:
    task = load(folder_of(name))
    architecture = architecture_by_name(task.architecture)
    assert architecture is not None
    stored = load_file(DATA / name / "reference.safetensors")
    module = task.module.train()
    logits = module(bt.tensor(stored["0.pixel_values"]))
    np.testing.assert_allclose(logits.array, stored["train.logits"], atol=2e-4, rtol=1e-4)
    (logits * bt.tensor(stored["train.coefficients"])).sum().backward()
    theirs = {n.removeprefix("grad."): a for n, a in stored.items() if n.startswith("grad.")}
    # These are names of the module, which transformers writes otherwise: one by its shape.
    ours = dict(module.named_parameters())
    head = ours[f"{architecture.head[0]}.weight"].grad
    assert head is not None
    expected = next(a for a in theirs.values() if a.shape == head.shape)
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(head.array, expected, atol=1e-4 * scale)


@pytest.mark.parametrize("name", FOLDERS)
def test_pictures_are_prepared_as_in_the_references(name: str) -> None:
    stored = load_file(DATA / name / "reference.safetensors")
    config = json.loads((DATA / name / "preprocessor_config.json").read_text())
    prepared = Preprocess.from_config(config)(stored["picture"])
    np.testing.assert_allclose(prepared, stored["prepared"][0], atol=1e-5)


@pytest.mark.parametrize("name", FOLDERS[:3])
def test_class_maps_equal_the_references(name: str) -> None:
    stored = load_file(DATA / name / "reference.safetensors")
    found = load(DATA / name)(stored["picture"])
    np.testing.assert_array_equal(found.classes, stored["classes"])


def test_nothing_is_cut_off(folder_of: Any) -> None:
    """A published crop would leave the sides of the picture without a class."""
    task = load(folder_of("deeplab-transformers-16"))
    assert not task.preprocess.crop
    picture = load_file(DATA / "deeplab-transformers-16" / "reference.safetensors")["picture"]
    assert task.preprocess(picture).shape == (3, 41, 53)
    assert task(picture).classes.shape == picture.shape[:2]


NAMES = json.loads(gzip.decompress((DATA / "segmentation_names.json.gz").read_bytes()))
del NAMES["made_with"]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_names_and_shapes_of_the_published_sizes(name: str) -> None:
    architecture, entry = get(name)
    tensors = NAMES[name]["tensors"]
    ours = renamed(list(tensors), architecture.layouts["transformers"].rename)
    assert len(ours) == len(tensors), "a tensor was dropped"
    with bt.nn.init.empty():
        module = architecture.build(architecture.config(**(entry.config or {})))
    expected = {new: tuple(tensors[old]) for old, (new, _) in ours.items()}
    assert {n: t.shape for n, t in module.state_dict().items()} == expected
    assert sum(p.size for p in module.parameters()) == entry.parameters
    assert entry.parameters == NAMES[name]["parameters"]
    if architecture.layouts["transformers"].publish is not None:  # saved under these names
        back = inverted(list(expected), architecture.layouts["transformers"].rename)
        assert back is not None
        assert set(back.values()) == set(tensors)


def test_segformer_may_not_be_used_commercially() -> None:
    _, entry = get("segformer-b0")
    assert entry.commercial is False
    assert "non-commercial" in str(entry.license)
    assert get("segformer-b0-finetuned-ade-512-512")[1] is entry


@pytest.mark.parametrize("name", ["unet", "unet-small", "unet-shapes"])
def test_unets_by_name(name: str) -> None:
    _, entry = get(name)
    with bt.nn.init.empty():
        task = load(name, weights=False)
    assert sum(p.size for p in task.module.parameters()) == entry.parameters
    assert task.preprocess.size == entry.preprocess["size"]


def test_the_bundled_network_knows_shapes(tmp_path: Path) -> None:
    """On new pictures, larger than those of its training."""
    task = load("unet-shapes")
    assert task.labels == ["background", "circle", "square", "triangle"]
    report = task.evaluate(write_masks(tmp_path, 12, size=128, seed=1234))
    assert report.mean_iou > 0.9
    assert np.nanmin(report.iou) > 0.85


# -- every architecture of the task ---------------------------------------------------------------


def test_every_architecture_has_a_tiny_configuration() -> None:
    assert {a.name for a, _ in entries() if a.task == "image-segmentation"} == set(TINY)


@pytest.mark.parametrize("name", sorted(TINY))
def test_forward_and_backward(name: str) -> None:
    module = task_of(name).module.train()
    x, y = images(2, 3, 37, 53), bt.tensor(np.arange(2 * 37 * 53).reshape(2, 37, 53) % 3)
    optimizer = bt.optim.SGD(module.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for step in range(6):
        bt.manual_seed(1)  # the same dropout each time
        logits = module(pixel_values=x)
        assert logits.shape[:2] == (2, 3)
        full = F.interpolate(logits, size=(37, 53), mode="bilinear", align_corners=False)
        loss = F.cross_entropy(full, y)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            unused = {n for n, p in module.named_parameters() if p.grad is None}
            assert all(n.startswith(("trunk.conv_head", "trunk.bn2")) for n in unused)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", sorted(TINY))
def test_channels_last_memory_gives_the_same(name: str) -> None:
    module = task_of(name).module
    x = images(2, 3, 40, 48).array
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    with bt.no_grad():
        np.testing.assert_allclose(
            module(bt.tensor(last)).array, module(bt.tensor(x)).array, atol=1e-5
        )


@pytest.mark.parametrize("dtype", [None, "float16"])
@pytest.mark.parametrize("name", sorted(TINY))
def test_saved_and_loaded_it_answers_alike(name: str, dtype: str | None, tmp_path: Path) -> None:
    task = task_of(name)
    loaded = load(task.save(tmp_path / "model", dtype=dtype))
    assert type(loaded) is Segmenter
    assert (loaded.labels, loaded.config) == (task.labels, task.config)
    assert loaded.preprocess == task.preprocess
    x = images(1, 3, 40, 40)
    with bt.no_grad():
        np.testing.assert_allclose(
            loaded.module(x).array,
            task.module(x).array,
            atol=0 if dtype is None else 0.05,
            rtol=0 if dtype is None else 1e-2,
        )


@pytest.mark.parametrize("name", sorted(TINY))
def test_another_head_and_other_channels(name: str, tmp_path: Path) -> None:
    folder = task_of(name).save(tmp_path)
    changed = load(folder, num_classes=9, in_channels=1)
    assert changed.module(images(1, 1, 40, 40)).shape[:2] == (1, 9)
    assert changed.labels == [f"class {i}" for i in range(9)]
    assert changed.preprocess.channels == 1
    architecture = architecture_by_name(name)
    assert architecture is not None
    assert all(
        n.startswith((architecture.head[0], str(architecture.stem)))
        for n in changed.report.replaced
    )
    assert len(changed.report.replaced) == 3
    assert changed(np.zeros((20, 30, 3), np.uint8)).classes.shape == (20, 30)


@pytest.mark.parametrize("name", sorted(TINY))
def test_pictures_of_the_wrong_shape(name: str) -> None:
    module = task_of(name).module
    with pytest.raises(ShapeError, match=r"x\[None\]"):
        module(images(3, 40, 40))
    with pytest.raises(ShapeError, match="permute_dims"):
        module(images(1, 40, 40, 3))


def test_unet_gives_logits_for_every_pixel() -> None:
    module = task_of("unet").module
    for height, width in ((37, 53), (1, 7), (64, 32)):
        with bt.no_grad():
            assert module(images(1, 3, height, width)).shape == (1, 3, height, width)
            maps = module.feature_maps(images(1, 3, height, width))
        assert [m.shape[1] for m in maps] == [6, 8, 10]


# -- configurations that must not be guessed at ---------------------------------------------------


@pytest.mark.parametrize(
    "folder, changes, facts",
    [
        (FOLDERS[0], {"window": 3}, ["window=3"]),
        (FOLDERS[0], {"architectures": ["SegformerForImageClassification"]}, ["not supported"]),
        (FOLDERS[0], {"depths": [1, 1]}, ["one value for each stage"]),
        (FOLDERS[0], {"num_encoder_blocks": 3}, ["num_encoder_blocks=3"]),
        (FOLDERS[0], {"num_attention_heads": [3, 2, 5, 3]}, ["8 channels", "3 heads"]),
        (FOLDERS[0], {"reshape_last_stage": False}, ["reshape_last_stage=False"]),
        (FOLDERS[0], {"hidden_act": "odd"}, ["hidden_act='odd'"]),
        (FOLDERS[2], {"output_stride": 7}, ["output_stride=7"]),
        (FOLDERS[2], {"odd": 1}, ["odd=1"]),
    ],
)
def test_configurations_that_are_refused(
    folder: str, changes: dict[str, Any], facts: list[str], tmp_path: Path
) -> None:
    config = {**json.loads((DATA / folder / "config.json").read_text()), **changes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, weights=False)
    for fact in facts:
        assert fact in str(caught.value)


JUNK: list[Any] = [None, True, -1, 1.5, float("nan"), 10**40, "x", [], ["a"], [[1]], {}, {"a": 1}]


@pytest.mark.parametrize("folder", [FOLDERS[0], FOLDERS[2]])
def test_values_that_make_no_sense_are_errors_of_ours(folder: str, tmp_path: Path) -> None:
    config = json.loads((DATA / folder / "config.json").read_text())
    for key in config:
        for junk in JUNK:
            (tmp_path / "config.json").write_text(json.dumps({**config, key: junk}))
            with contextlib.suppress(BestiaryError):
                load(tmp_path, weights=False)

"""Convolutional classifiers against timm, transformers and torchvision."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, HubError, ShapeError
from bestiary.core.weights import load_file
from bestiary.hub.filling import with_new_head
from bestiary.hub.loading import load
from bestiary.hub.registry import (
    Architecture,
    architecture_by_name,
    architecture_of_config,
    get,
)
from bestiary.hub.rename import renamed
from bestiary.vision.embedder import Embedder
from bestiary.vision.mobile_blocks import Conv2dSame, Row, round_channels
from bestiary.vision.mobile_network import deepened, scaled
from bestiary.vision.mobilenet_v2 import FLAT, TORCHVISION
from bestiary.vision.tasks import ImageClassifier

DATA = Path(__file__).parent.parent / "references" / "data"
FAMILIES = ("mobilenet-v2", "mobilenet-v3", "efficientnet", "convnext")
NAMES = (*FAMILIES, "vgg", "squeezenet")
FOLDERS = sorted(
    path.parent.name for family in FAMILIES for path in DATA.glob(f"{family}-t*/config.json")
)

# Those of torchvision have no config.json.
TORCHVISION_CONFIGS: dict[str, dict[str, Any]] = {
    "vgg-torchvision": {
        "depths": (1, 1, 2),
        "hidden_sizes": (8, 12, 16),
        "classifier_size": 20,
    },
    "vgg-torchvision-bn": {
        "depths": (1, 1, 2),
        "hidden_sizes": (8, 12, 16),
        "classifier_size": 20,
        "batch_norm": True,
    },
    "squeezenet-torchvision-1.0": {
        "version": "1.0",
        "stem_size": 12,
        "squeeze_sizes": (2, 2, 4, 4, 6, 6, 8, 8),
    },
    "squeezenet-torchvision-1.1": {
        "stem_size": 12,
        "squeeze_sizes": (2, 2, 4, 4, 6, 6, 8, 8),
    },
}
ALL = [*FOLDERS, *TORCHVISION_CONFIGS]


def module_of(folder: str, dtype: str = "float32") -> tuple[bt.nn.Module, dict[str, Any]]:
    """The module of a stored reference in eval mode, and its rename table."""
    if folder in TORCHVISION_CONFIGS:
        architecture = named(folder.partition("-")[0])
        config = architecture.config(**TORCHVISION_CONFIGS[folder], num_classes=5, dropout=0.0)
        module = architecture.build(config).eval()
        weights = load_file(DATA / folder / "model.safetensors")
        module.load_state_dict(
            {name: array.astype(module_dtype(array)) for name, array in weights.items()}
        )
        return module.to(dtype=getattr(bt, dtype)), {}
    config = json.loads((DATA / folder / "config.json").read_text())
    found = architecture_of_config(config)
    assert found is not None
    return load(DATA / folder, dtype=dtype).module, dict(found[0].layouts[found[1]].rename)


def module_dtype(array: np.ndarray) -> Any:
    return np.float32 if array.dtype == np.float16 else array.dtype


def named(name: str) -> Architecture:
    architecture = architecture_by_name(name)
    assert architecture is not None
    return architecture


def pictures(stored: dict[str, np.ndarray], i: int, dtype: str = "float32") -> bt.Tensor:
    return bt.tensor(stored[f"{i}.pixel_values"].astype(np.float32)).astype(getattr(bt, dtype))


def test_every_family_has_references() -> None:
    assert len(FOLDERS) == 16
    assert {f.partition("-t")[0] for f in FOLDERS} == set(FAMILIES)


@pytest.mark.parametrize("folder", ALL)
def test_logits_and_features_equal_the_references(folder: str) -> None:
    module, _ = module_of(folder)
    stored = load_file(DATA / folder / "reference.safetensors")
    with bt.no_grad():
        for i in range(2):
            x = pictures(stored, i)
            np.testing.assert_allclose(module(x).array, stored[f"{i}.logits"], atol=2e-5, rtol=0)
            features = module.forward_features(x).array
            np.testing.assert_allclose(features, stored[f"{i}.features"], atol=1e-4)


@pytest.mark.parametrize("folder", ALL)
def test_bfloat16_stays_near_the_references(folder: str) -> None:
    module, _ = module_of(folder, "bfloat16")
    assert module.dtype == bt.bfloat16
    stored = load_file(DATA / folder / "reference.safetensors")
    with bt.no_grad():
        for i in range(2):
            logits = module(pictures(stored, i, "bfloat16")).array.astype(np.float32)
            np.testing.assert_allclose(logits, stored[f"{i}.logits"], atol=2e-2, rtol=0)


@pytest.mark.parametrize("folder", [f for f in FOLDERS if "-timm" in f])
def test_feature_maps_equal_those_of_timm(folder: str) -> None:
    module, _ = module_of(folder)
    stored = load_file(DATA / folder / "reference.safetensors")
    with bt.no_grad():
        maps = module.feature_maps(pictures(stored, 0))
    assert len(maps) == 4
    for i, found in enumerate(maps):
        mean = found.array.mean(axis=1)
        np.testing.assert_allclose(mean, stored[f"0.maps.{i}"], atol=1e-4)


@pytest.mark.parametrize("folder", list(TORCHVISION_CONFIGS))
def test_feature_maps_of_networks_with_pooling(folder: str) -> None:
    module, _ = module_of(folder)
    x = bt.tensor(np.ones((1, 3, 64, 48), np.float32))
    with bt.no_grad():
        maps = module.feature_maps(x)
        np.testing.assert_array_equal(maps[-1].array, module.forward_features(x).array)
    assert len(maps) == 4
    heights = [m.shape[2] for m in maps]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize("folder", ALL)
def test_training_equals_the_references(folder: str) -> None:
    """Logits, gradients and running statistics of a step in training mode."""
    module, rename = module_of(folder)
    for part in module.modules():
        if isinstance(part, bt.nn.Dropout):
            part.p = 0.0
    stored = load_file(DATA / folder / "reference.safetensors")
    module.train()
    logits = module(pictures(stored, 0))
    scale = max(1.0, float(np.abs(stored["train.logits"]).max()))
    np.testing.assert_allclose(logits.array, stored["train.logits"], atol=2e-4 * scale)
    (logits * bt.tensor(stored["train.coefficients"])).sum().backward()
    names = [n for n in stored if n.startswith(("grad.", "after."))]
    assert len(names) >= 4
    ours = renamed([n.partition(".")[2] for n in names], rename)
    state, parameters = module.state_dict(), dict(module.named_parameters())
    for name in names:
        kind, _, theirs = name.partition(".")
        own = ours[theirs][0]
        result = state[own].array
        if kind == "grad":
            gradient = parameters[own].grad
            assert gradient is not None
            result = gradient.array
        expected = stored[name]
        scale = max(1.0, float(np.abs(expected).max()))
        result = result.reshape(expected.shape)
        np.testing.assert_allclose(result, expected, atol=1e-3 * scale, err_msg=name)


@pytest.mark.parametrize("folder", FOLDERS)
def test_another_head_or_none_and_saved_again(folder: str, tmp_path: Path) -> None:
    task = load(DATA / folder)
    x = pictures(load_file(DATA / folder / "reference.safetensors"), 0)
    changed = load(DATA / folder, num_classes=9, in_channels=1)
    with bt.no_grad():
        assert changed.module(x[:, :1]).shape == (x.shape[0], 9)
        again = load(task.save(tmp_path))
        np.testing.assert_array_equal(again.module(x).array, task.module(x).array)
        assert isinstance(task, Embedder if task.config.num_classes == 0 else ImageClassifier)
        encoder = load(DATA / folder, task="image-feature-extraction")
        assert isinstance(encoder, Embedder)
        np.testing.assert_array_equal(encoder.module.embed(x).array, task.module.embed(x).array)
    assert again.config == task.config
    assert again.preprocess == task.preprocess


# -- names at full size -------------------------------------------------------------------------


@cache
def listings() -> dict[str, Any]:
    text = gzip.decompress((DATA / "convnet_names.json.gz").read_bytes())
    found: dict[str, Any] = json.loads(text)
    del found["made_with"]
    return found


def config_of(name: str) -> tuple[Architecture, str, Any]:
    """The architecture, the layout and the configuration of a name in the listing."""
    layout, _, name = name.partition("/")
    if layout == "timm":
        found = architecture_of_config({"architecture": name})
        assert found is not None, name
        translate = found[0].layouts["timm"].config
        assert translate is not None
        return found[0], layout, translate({"architecture": name, "num_classes": 1000})
    if layout == "transformers":
        kind, _, width = name.rpartition("_")
        published: dict[str, Any] = {"num_labels": 1000}
        if kind == "mobilenet_v2":
            published = {"num_labels": 1001, "depth_multiplier": float(width)}
        published["model_type"] = kind
        architecture, _ = architecture_of_config(published) or (None, "")
        assert architecture is not None
        translate = architecture.layouts[layout].config
        assert translate is not None
        return architecture, layout, translate(published)
    architecture, entry = get(name)
    return architecture, layout, architecture.config(**entry.config)


@pytest.mark.parametrize("name", listings())
def test_names_and_shapes_at_full_size(name: str) -> None:
    architecture, layout, config = config_of(name)
    published = listings()[name]
    theirs = {n: tuple(shape) for n, shape in published["tensors"].items()}
    ours = renamed(list(theirs), architecture.layouts[layout].rename)
    assert len(ours) == len(theirs), "a tensor was dropped"
    with bt.nn.init.empty():
        module = architecture.build(config)
    expected = {}
    for old, (new, apply) in ours.items():
        shape = theirs[old]
        expected[new] = apply(np.broadcast_to(np.float32(0), shape)).shape if apply else shape
    assert {n: t.shape for n, t in module.state_dict().items()} == expected
    assert sum(p.size for p in module.parameters()) == published["parameters"]


def test_the_listing_holds_what_the_issue_names() -> None:
    wanted = [
        *(f"timm/mobilenetv2_{width}" for width in ("050", "100", "140", "110d", "120d")),
        *(f"timm/mobilenetv3_{size}_100" for size in ("small", "large")),
        *(f"timm/{tf}efficientnet_b{i}" for i in range(5) for tf in ("", "tf_")),
        *("timm/tf_efficientnetv2_s", "timm/efficientnetv2_s"),
        *(f"timm/convnext_{size}" for size in "atto femto pico nano tiny small base".split()),
        *("transformers/mobilenet_v2_1.0", "transformers/convnext_tiny"),
        *("native/vgg16", "native/vgg16_bn", "native/squeezenet1_1"),
    ]
    assert set(wanted) <= set(listings())


@pytest.mark.parametrize("nested", [True, False])
def test_layouts_of_torchvision_keep_the_order_of_the_tensors(nested: bool) -> None:
    """The order is timm's; the script that made the listing found the outputs equal with it."""
    names = list(listings()["torchvision/mobilenetv2_100"]["tensors"])
    table = TORCHVISION
    if not nested:
        names, table = [flat(name) for name in names if "classifier" not in name], FLAT
    ours = [new for new, _ in renamed(names, table).values()]
    architecture, entry = get("mobilenetv2-100")
    with bt.nn.init.empty():
        module = architecture.build(architecture.config(**entry.config))
    expected = [n for n in module.state_dict() if nested or not n.startswith("classifier")]
    assert ours == expected


def flat(name: str) -> str:
    """A name of torchvision as older implementations have it: all layers of a block in one row."""
    parts = name.split(".")
    if parts[2] != "conv":
        return name
    if parts[4].isdigit():  # of a convolution with norm and activation
        number, rest = 3 * int(parts[3]) + int(parts[4]), parts[5:]
    else:  # the last convolution and its norm
        last = 1 if parts[1] == "1" else 2
        number, rest = 2 * last + int(parts[3]), parts[4:]
    return ".".join([*parts[:3], str(number), *rest])


# -- configurations that must not be guessed at --------------------------------------------------


def changed(folder: str, tmp_path: Path, **changes: Any) -> Path:
    config = {**json.loads((DATA / folder / "config.json").read_text()), **changes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    "folder, changes, facts",
    [
        ("mobilenet-v2-timm", {"model_args": {"se_layer": "eca"}}, ["se_layer='eca'"]),
        ("mobilenet-v2-timm", {"model_args": {"pad_type": "odd"}}, ["pad_type='odd'"]),
        ("mobilenet-v2-timm", {"global_pool": "max"}, ["global_pool='max'"]),
        ("mobilenet-v2-timm", {"model_args": {"channel_multiplier": 0}}, ["width=0"]),
        ("mobilenet-v2-timm", {"model_args": 3}, ["model_args=3"]),
        ("mobilenet-v2-transformers", {"depth_divisible_by": 4}, ["depth_divisible_by=4"]),
        ("mobilenet-v2-transformers", {"hidden_act": "gelu"}, ["activation='gelu'"]),
        ("mobilenet-v2-transformers", {"output_stride": 4}, ["output_stride=4"]),
        ("mobilenet-v2-transformers", {"first_layer_is_expansion": False}, ["first_layer"]),
        ("mobilenet-v2-transformers", {"use_se": True}, ["use_se=True"]),
        ("mobilenet-v3-timm-small", {"model_args": {"head_bias": False}}, ["head_bias=False"]),
        ("mobilenet-v3-timm-small", {"img_depth": 3}, ["img_depth=3"]),
        ("efficientnet-timm", {"model_args": {"depth_multiplier": [1, 2]}}, ["2 factors", "7"]),
        ("efficientnet-timm", {"model_args": {"act_layer": "relu"}}, ["act_layer='relu'"]),
        ("efficientnet-timm", {"num_classes": -1}, ["num_classes=-1"]),
        ("convnext-timm", {"model_args": {"norm_layer": "rmsnorm"}}, ["norm_layer='rmsnorm'"]),
        ("convnext-timm", {"model_args": {"dims": [8, 8]}}, ["hidden_sizes (8, 8)"]),
        ("convnext-timm", {"model_args": {"stem_type": "deep"}}, ["stem_type='deep'"]),
        ("convnext-timm", {"model_args": {"act_layer": "mish"}}, ["hidden_act='mish'"]),
        ("convnext-transformers", {"num_stages": 3}, ["num_stages=3"]),
        ("convnext-transformers", {"hidden_sizes": [8, -1, 8, 8]}, ["hidden_sizes"]),
        ("convnext-transformers", {"kernel_size": 9}, ["kernel_size=9"]),
    ],
)
def test_configurations_that_are_refused(
    folder: str, changes: dict[str, Any], facts: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(changed(folder, tmp_path, **changes), weights=False)
    for fact in facts:
        assert fact in str(caught.value)


JUNK: list[Any] = [None, True, -1, 1.5, float("nan"), 10**40, "x", [], ["a"], [[1]], {}, {"a": 1}]


@pytest.mark.parametrize(
    "folder",
    [
        *("mobilenet-v2-transformers", "mobilenet-v3-timm-small", "efficientnet-timm"),
        *("convnext-timm", "convnext-transformers-v2"),
        *NAMES,
    ],
)
def test_values_that_make_no_sense_are_errors_of_ours(folder: str, tmp_path: Path) -> None:
    if folder in FOLDERS:
        original = json.loads((DATA / folder / "config.json").read_text())
        places = [original]
        places += [original[k] for k in ("model_args", "pretrained_cfg") if k in original]
    else:
        import dataclasses

        fields = {f.name: f.default for f in dataclasses.fields(named(folder).config)}
        original = {"bestiary": {"architecture": folder, "config": fields}}
        places = [fields]
    messages = []
    for place in places:
        for key, before in list(place.items()):
            for value in JUNK:
                place[key] = value
                (tmp_path / "config.json").write_text(json.dumps(original))
                try:
                    with bt.nn.init.empty():
                        load(tmp_path, weights=False)
                except (ConfigError, HubError) as error:
                    messages.append(str(error))
            place[key] = before
    assert max(len(message.splitlines()) for message in messages) <= 12
    assert len(messages) > sum(len(place) for place in places)


@pytest.mark.parametrize(
    "name",
    [
        *("mobilenetv3_rw", "mobilenetv4_conv_small", "tf_mobilenetv3_large_150d"),
        *("efficientnet_b0_gn", "efficientnet_b1_pruned", "efficientnet_cc_b0_4e"),
        "convnext_atto_rms",
    ],
)
def test_relatives_that_are_built_otherwise_are_not_taken_for_them(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(HubError, match=name):
        load(changed("efficientnet-timm", tmp_path, architecture=name), weights=False)


# -- parts ----------------------------------------------------------------------------------------


def test_channels_are_rounded_to_multiples_of_eight() -> None:
    assert [round_channels(c) for c in (3, 8, 11.9, 12, 20, 33.6, 320)] == [
        8,
        8,
        16,
        16,
        24,
        32,
        320,
    ]
    assert round_channels(10.24) == 16  # 8 is less than 90 % of it
    assert round_channels(10.24, limit=0.0) == 8


def test_depth_is_shared_out_among_the_rows_of_a_stage() -> None:
    stage = (Row("inverted", 1, 3, 2, 6, 80), Row("inverted", 1, 3, 1, 2.5, 80))
    stage += (Row("inverted", 2, 3, 1, 2.3, 80),)
    assert [row.repeats for row in deepened(stage, 1.2)] == [1, 2, 2]
    assert [row.repeats for row in deepened(stage, 2)] == [2, 2, 4]
    assert [row.repeats for row in deepened(stage, 0.1)] == [1, 1, 1]
    table = scaled(((stage[0],), stage, (stage[2],)), 2.0, fixed_ends=True)
    assert [[row.repeats for row in s] for s in table] == [[1], [2, 2, 4], [2]]
    with pytest.raises(ConfigError, match="2 factors for 1 stages"):
        scaled((stage,), (1.0, 2.0))


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_same_padding_keeps_the_size_but_for_the_stride(
    kernel: int, stride: int, dilation: int
) -> None:
    conv = Conv2dSame(2, 3, kernel, stride, dilation=dilation)
    for height, width in ((7, 12), (16, 9)):
        x = bt.tensor(np.ones((1, 2, height, width), np.float32))
        assert conv(x).shape == (1, 3, -(-height // stride), -(-width // stride))


def test_the_class_before_the_first_is_the_background() -> None:
    task = load("mobilenet_v2_1.0_224", weights=False)
    assert len(task.labels) == 1001
    assert task.labels[0] == "background"
    assert task.labels[1:] == load("mobilenetv2_100", weights=False).labels


def test_a_trunk_is_for_features_until_classes_are_asked_for() -> None:
    assert isinstance(load("mobilenetv2-trunk", weights=False), Embedder)
    classifier = load("mobilenetv2-trunk", weights=False, num_classes=3)
    assert classifier.module(bt.ones((1, 3, 64, 64))).shape == (1, 3)


def test_dilation_keeps_the_feature_map_large() -> None:
    module, _ = module_of("mobilenet-v2-transformers-dilated")
    x = bt.ones((1, 3, 64, 48))
    with bt.no_grad():
        assert module.forward_features(x).shape[2:] == (8, 6)
        assert [m.shape[2:] for m in module.feature_maps(x)] == [(16, 12), (8, 6)]


@pytest.mark.parametrize("name, size", [("vgg", 2), ("squeezenet", 16), ("convnext", 16)])
def test_pictures_smaller_than_the_network_needs(name: str, size: int) -> None:
    tiny = {"vgg": "vgg-torchvision", "squeezenet": "squeezenet-torchvision-1.1"}
    module, _ = module_of(tiny.get(name, "convnext-timm"))
    with pytest.raises(ShapeError, match="too small"):
        module(bt.ones((1, 3, size, 40)))


@pytest.mark.parametrize("folder", ALL)
def test_a_new_head_for_fine_tuning_keeps_the_trunk(folder: str) -> None:
    module, _ = module_of(folder)
    (architecture,) = (a for a in map(named, NAMES) if folder.startswith(a.name))
    new, config = with_new_head(architecture, module.config, module, 4)
    x = pictures(load_file(DATA / folder / "reference.safetensors"), 0)
    with bt.no_grad():
        embedded = module.embed(x)
        np.testing.assert_array_equal(new.eval().embed(x).array, embedded.array)
        head = new.get_submodule(architecture.head[0])
        assert head(embedded).shape == new(x).shape == (x.shape[0], config.num_classes)

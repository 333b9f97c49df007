"""Vision transformers against the stored outputs of timm and transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, HubError
from bestiary.core.weights import load_file, save_file
from bestiary.hub.loading import load
from bestiary.hub.registry import Architecture, architecture_of_config, get
from bestiary.hub.rename import groups, join, renamed
from bestiary.vision.embedder import Embedder
from bestiary.vision.tasks import ImageClassifier

DATA = Path(__file__).parent.parent / "references" / "data"
CLASSIFIERS = sorted(
    path.name
    for family in ("vit", "dinov2", "swin")
    for path in DATA.glob(f"{family}-*")
    if path.is_dir()
)


def published(folder: str) -> tuple[Architecture, str, dict[str, Any]]:
    config = json.loads((DATA / folder / "config.json").read_text())
    found = architecture_of_config(config)
    assert found is not None
    return (*found, config)


def outputs(task: Any, x: bt.Tensor) -> np.ndarray:
    with bt.no_grad():
        result = task.module(x)
    return np.asarray((result if isinstance(result, bt.Tensor) else result.pooler_output).array)


def inputs(stored: dict[str, np.ndarray]) -> list[int]:
    return [i for i in range(9) if f"{i}.pixel_values" in stored]


@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_outputs_equal_the_references(folder: str) -> None:
    task = load(DATA / folder)
    stored = load_file(DATA / folder / "reference.safetensors")
    assert len(inputs(stored)) >= 2
    for i in inputs(stored):
        x = bt.tensor(stored[f"{i}.pixel_values"])
        np.testing.assert_allclose(outputs(task, x), stored[f"{i}.output"], atol=1e-4)
        with bt.no_grad():
            tokens = task.module.forward_tokens(x).array
        np.testing.assert_allclose(tokens, stored[f"{i}.tokens"], atol=1e-4)


@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_bfloat16_stays_near_the_references(folder: str) -> None:
    task = load(DATA / folder, dtype="bfloat16")
    assert task.module.dtype == bt.bfloat16
    stored = load_file(DATA / folder / "reference.safetensors")
    # Or as near as the reference itself is in that type.
    tolerance = max(2e-2, float(stored["bfloat16.error"]))
    for i in inputs(stored):
        x = bt.tensor(stored[f"{i}.pixel_values"]).astype(bt.bfloat16)
        result = outputs(task, x).astype(np.float32)
        np.testing.assert_allclose(result, stored[f"{i}.output"], atol=tolerance, rtol=2e-2)


@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_training_gives_the_gradients_of_the_references(folder: str) -> None:
    task = load(DATA / folder)
    stored = load_file(DATA / folder / "reference.safetensors")
    if "train.logits" not in stored:
        pytest.skip("the reference has no step of training")
    module = task.module.train()
    result = module(bt.tensor(stored["0.pixel_values"]))
    result = result if isinstance(result, bt.Tensor) else result.pooler_output
    np.testing.assert_allclose(result.array, stored["train.logits"], atol=1e-4)
    (result * bt.tensor(stored["train.coefficients"])).sum().backward()
    architecture, layout, _ = published(folder)
    theirs = {n.removeprefix("grad."): a for n, a in stored.items() if n.startswith("grad.")}
    rename = architecture.layouts[layout].rename
    expected = {new: theirs[old] for old, (new, _) in renamed(list(theirs), rename).items()}
    join(expected, architecture.layouts[layout].join)
    parameters = dict(module.named_parameters())
    compared = [name for name in expected if name in parameters]
    assert len(compared) >= 3
    for name in compared:
        gradient = parameters[name].grad
        assert gradient is not None
        scale = max(1.0, float(np.abs(expected[name]).max()))
        np.testing.assert_allclose(gradient.array, expected[name], atol=1e-4 * scale, err_msg=name)


@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_tasks_follow_the_head(folder: str) -> None:
    task = load(DATA / folder)
    headless = task.config.num_classes == 0
    assert type(task) is (Embedder if headless else ImageClassifier)
    x = bt.tensor(load_file(DATA / folder / "reference.safetensors")["0.pixel_values"])
    with bt.no_grad():
        embedded = task.module.embed(x)
        maps = task.module.feature_maps(x)
        last = task.module.forward_features(x)
    np.testing.assert_allclose(maps[-1].array, last.array, atol=1e-6)
    assert all(m.shape[0] == x.shape[0] and m.ndim == 4 for m in maps)
    classifier = load(DATA / folder, num_classes=9)
    assert classifier.module(x).shape == (x.shape[0], 9)
    assert classifier.labels == [f"class {i}" for i in range(9)]
    assert all(name.startswith("head.") for name in classifier.report.replaced)
    with bt.no_grad():
        np.testing.assert_allclose(classifier.module.embed(x).array, embedded.array, atol=1e-6)
    encoder = load(DATA / folder, task="image-feature-extraction")
    assert isinstance(encoder, Embedder)


@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_saved_again_in_our_layout(folder: str, tmp_path: Path) -> None:
    task = load(DATA / folder)
    again = load(task.save(tmp_path))
    assert type(again) is type(task)
    assert again.config == task.config
    assert again.preprocess == task.preprocess
    x = bt.tensor(load_file(DATA / folder / "reference.safetensors")["0.pixel_values"])
    np.testing.assert_array_equal(outputs(again, x), outputs(task, x))


@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_another_size_of_pictures(folder: str, tmp_path: Path) -> None:
    """Loaded for a size or given pictures of that size: the same, as tables are resized alike."""
    task = load(DATA / folder)
    other = load(DATA / folder, image_size=(48, 56))
    channels = task.config.in_channels
    x = np.random.default_rng(0).standard_normal((1, channels, 48, 56)).astype(np.float32)
    np.testing.assert_allclose(outputs(other, bt.tensor(x)), outputs(task, bt.tensor(x)), atol=1e-5)
    assert other.preprocess.size == (48, 56)
    if hasattr(other.config, "grid"):
        assert other.config.image_size == (48, 56)
        assert other.report.reshaped == ("pos_embed",)
        assert other.module.pos_embed.shape != task.module.pos_embed.shape
        again = load(other.save(tmp_path))
        np.testing.assert_array_equal(outputs(again, bt.tensor(x)), outputs(other, bt.tensor(x)))
    half = load(DATA / folder, image_size=(48, 56), dtype="bfloat16")
    assert half.module.dtype == bt.bfloat16


@pytest.mark.parametrize("folder", ["vit-timm", "vit-transformers", "dinov2-transformers"])
def test_other_channels(folder: str) -> None:
    for channels in (1, 4):
        task = load(DATA / folder, in_channels=channels)
        size = task.config.image_size
        x = np.random.default_rng(0).standard_normal((2, 1, *size)).astype(np.float32)
        assert task.report.replaced == ("patch_embed.proj.weight",)
        outputs(task, bt.tensor(np.repeat(x, channels, 1)))
    grey = load(DATA / folder, in_channels=1)
    colour = load(DATA / folder)
    np.testing.assert_allclose(
        outputs(grey, bt.tensor(x)), outputs(colour, bt.tensor(np.repeat(x, 3, 1))), atol=1e-5
    )


OLD_NAMES = {
    "vit-transformers": {"vit.embeddings.mask_token": (1, 1, 24)},
    "dinov2-transformers": {},
    "swin-transformers": {
        "swin.embeddings.mask_token": (1, 1, 12),
        "swin.encoder.layers.1.blocks.0.attention.self.relative_position_index": (9, 9),
    },
    "swin-timm": {
        "layers.0.blocks.1.attn_mask": (9, 9, 9),
        "layers.1.blocks.0.attn.relative_position_index": (9, 9),
    },
}


@pytest.mark.parametrize("folder", OLD_NAMES)
def test_files_of_older_versions(folder: str, tmp_path: Path) -> None:
    """With buffers that are no weights; Swin's with the merging in the stage before."""
    arrays = load_file(DATA / folder / "model.safetensors")
    arrays |= {name: np.zeros(shape, np.float32) for name, shape in OLD_NAMES[folder].items()}
    if folder == "swin-timm":
        arrays = {
            name.replace("layers.1.downsample", "layers.0.downsample").replace("head.fc", "head"): a
            for name, a in arrays.items()
        }
    save_file(arrays, tmp_path / "model.safetensors")
    shutil.copy(DATA / folder / "config.json", tmp_path)
    old = load(tmp_path)
    x = bt.tensor(load_file(DATA / folder / "reference.safetensors")["0.pixel_values"])
    np.testing.assert_array_equal(outputs(old, x), outputs(load(DATA / folder), x))
    assert set(old.report.dropped) >= set(OLD_NAMES[folder])


def test_names_of_running_models_are_understood(tmp_path: Path) -> None:
    """transformers 5 names tensors otherwise while a model runs."""
    arrays = load_file(DATA / "dinov2-transformers-swiglu" / "model.safetensors")
    for name in list(arrays):
        layer = name.rpartition(".mlp.")[0]
        if "weights_in" in name:
            gate, up = np.split(arrays.pop(name), 2)
            kind = name.rpartition(".")[2]
            arrays |= {f"{layer}.mlp.gate_proj.{kind}": gate, f"{layer}.mlp.up_proj.{kind}": up}
        elif "weights_out" in name:
            arrays[name.replace("weights_out", "down_proj")] = arrays.pop(name)
        elif ".attention." in name:
            new = name.replace("attention.output.dense", "attention.o_proj")
            for part in ("query", "key", "value"):
                new = new.replace(f"attention.attention.{part}", f"attention.{part[0]}_proj")
            arrays[new] = arrays.pop(name)
    save_file(arrays, tmp_path / "model.safetensors")
    shutil.copy(DATA / "dinov2-transformers-swiglu" / "config.json", tmp_path)
    stored = load_file(DATA / "dinov2-transformers-swiglu" / "reference.safetensors")
    x = bt.tensor(stored["0.pixel_values"])
    np.testing.assert_allclose(outputs(load(tmp_path), x), stored["0.output"], atol=1e-4)


TIMM_MAPS = [f for f in CLASSIFIERS if "map.0" in load_file(DATA / f / "reference.safetensors")]


@pytest.mark.parametrize("folder", TIMM_MAPS)
def test_feature_maps_equal_the_references(folder: str) -> None:
    stored = load_file(DATA / folder / "reference.safetensors")
    module = load(DATA / folder).module
    x = bt.tensor(stored[f"{inputs(stored)[-1]}.pixel_values"])
    with bt.no_grad():
        maps = module.feature_maps(x)
    assert len(maps) >= 2
    for i, result in enumerate(maps):
        if f"map.{i}" in stored:
            np.testing.assert_allclose(result.array, stored[f"map.{i}"], atol=1e-4)


# -- names at full size ------------------------------------------------------------------------


def full_size() -> list[tuple[str, str, str]]:
    rows = []
    for path in sorted(DATA.glob("*_names.json")):
        listed = json.loads(path.read_text())
        rows += [
            (path.name, name, layout)
            for name, layouts in listed.items()
            if name != "made_with" and "parameters" in layouts.get("transformers", {})
            for layout in layouts
        ]
    return [row for row in rows if row[0] in ("vit_names.json", "swin_names.json")]


def expanded(listing: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """What `common.listing` wrote in few lines."""
    shapes = {}
    for key, line in listing["tensors"].items():
        if len(line) == 1:
            shapes[key] = tuple(line[0])
        else:
            pattern = key.partition(" ")[0]
            shapes.update({pattern.format(n): tuple(line[0]) for n in line[1]})
    return shapes


@pytest.mark.parametrize("file, name, layout", full_size(), ids=lambda v: v)
def test_names_and_shapes_at_full_size(file: str, name: str, layout: str) -> None:
    listing = json.loads((DATA / file).read_text())[name][layout]
    theirs = expanded(listing)
    architecture, entry = get(name)
    rename = renamed(list(theirs), architecture.layouts[layout].rename)
    dropped = {n for n in theirs if n not in rename}
    assert all(n.endswith("mask_token") for n in dropped)
    expected = {new: theirs[old] for old, (new, _) in rename.items()}
    for new, members in groups(list(expected), architecture.layouts[layout].join).items():
        parts = [expected.pop(member) for member in members]
        expected[new] = (sum(part[0] for part in parts), *parts[0][1:])
    config = dict(entry.config)
    if "with-registers" in name and layout == "timm":
        config["positioned"] = 0  # timm adds the class token's position to the token
    with bt.nn.init.empty():
        module = architecture.build(architecture.config(**config))
    assert {n: t.shape for n, t in module.state_dict().items()} == expected
    own = sum(p.size for p in module.parameters())
    assert own == listing["parameters"] - sum(int(np.prod(theirs[n])) for n in dropped)
    if "positioned" not in config or config == dict(entry.config):
        assert own == entry.parameters


# -- configurations that must not be guessed at --------------------------------------------------


def changed(folder: str, tmp_path: Path, **changes: Any) -> Path:
    config = {**json.loads((DATA / folder / "config.json").read_text()), **changes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    "folder, changes, facts",
    [
        ("vit-transformers", {"use_rope": True}, ["use_rope=True"]),
        ("vit-transformers", {"hidden_act": "mish"}, ["hidden_act='mish'", "'gelu'"]),
        ("vit-transformers", {"pooler_act": "relu"}, ["pooler_act='relu'"]),
        ("vit-transformers", {"architectures": ["ViTForMaskedImageModeling"]}, ["MaskedImage"]),
        ("vit-transformers", {"num_attention_heads": 5}, ["num_attention_heads=5"]),
        ("vit-transformers", {"patch_size": 64}, ["patch_size=(64, 64)"]),
        ("vit-transformers", {"image_size": [1, 2, 3]}, ["image_size=[1, 2, 3]"]),
        ("vit-timm", {"model_args": {"qk_norm": True}}, ["qk_norm=True"]),
        ("vit-timm", {"global_pool": "map"}, ["global_pool='map'"]),
        ("vit-timm", {"num_classes": -1}, ["num_classes=-1"]),
        ("dinov2-transformers", {"use_swiglu_ffn": 3}, ["use_swiglu_ffn=3"]),
        ("dinov2-transformers", {"pos_type": "x"}, ["pos_type='x'"]),
        ("swin-transformers", {"use_absolute_embeddings": True}, ["absolute_embeddings=True"]),
        ("swin-transformers", {"num_heads": [5, 2]}, ["num_heads=(5, 2)", "[12, 24]"]),
        ("swin-transformers", {"num_heads": [3]}, ["(2, 2)", "(3,)"]),
        ("swin-transformers", {"architectures": ["SwinBackbone"]}, ["SwinBackbone"]),
        ("swin-timm", {"model_args": {"always_partition": True}}, ["always_partition=True"]),
        ("swin-timm", {"global_pool": "max"}, ["global_pool='max'"]),
    ],
)
def test_configurations_that_are_refused(
    folder: str, changes: dict[str, Any], facts: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(changed(folder, tmp_path, **changes), weights=False)
    for fact in facts:
        assert fact in str(caught.value)


@pytest.mark.parametrize(
    "folder, name",
    [("vit-timm", "vit_base_patch16_siglip_224"), ("dinov2-timm", "vit_base_patch14_reg1_tipsv2")],
)
def test_relatives_are_not_taken_for_these(folder: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(HubError, match=name):
        load(changed(folder, tmp_path, architecture=name), weights=False)


JUNK: list[Any] = [None, True, -1, 1.5, float("nan"), 10**40, "x", [], ["a"], [[1]], {}, {"a": 1}]


@pytest.mark.parametrize(
    "folder",
    ["vit-timm", "vit-transformers", "dinov2-transformers", "swin-timm", "swin-transformers"],
)
def test_values_that_make_no_sense_are_errors_of_ours(folder: str, tmp_path: Path) -> None:
    original = json.loads((DATA / folder / "config.json").read_text())
    inner = [original[k] for k in ("model_args", "pretrained_cfg") if k in original]
    messages = []
    with bt.nn.init.empty():
        for place in [original, *inner]:
            for key, before in list(place.items()):
                for value in JUNK:
                    place[key] = value
                    (tmp_path / "config.json").write_text(json.dumps(original))
                    try:
                        load(tmp_path, weights=False)
                    except (ConfigError, HubError) as error:
                        messages.append(str(error))
                place[key] = before
    assert max(len(message.splitlines()) for message in messages) <= 12
    assert len(messages) > sum(len(place) for place in [original, *inner])

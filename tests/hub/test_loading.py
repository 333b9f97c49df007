"""`bt.load` on folders: strict, with heads and inputs replaced, saved and loaded again."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.errors import ConfigError, HubError, WeightsError
from bestiary.core.weights import load_file, save_file
from bestiary.hub import registry
from bestiary.hub.filling import adapted_stem
from bestiary.vision import sample_photographs

REFERENCES = Path(__file__).parents[1] / "references" / "data"
TIMM = REFERENCES / "resnet-timm-basic"
TRANSFORMERS = REFERENCES / "resnet-transformers-bottleneck"


@pytest.fixture
def copied(tmp_path):
    def copy(source: Path) -> Path:
        target = tmp_path / source.name
        shutil.copytree(source, target)
        return target

    return copy


def photograph(mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).convert(mode)


@pytest.mark.parametrize("folder", [TIMM, TRANSFORMERS], ids=lambda p: p.name)
def test_a_folder_loads_with_no_hints_and_every_tensor_is_accounted_for(folder):
    model = bt.load(folder)
    report = model.report
    in_file = load_file(folder / "model.safetensors")
    assert len(report.loaded) + len(report.dropped) == len(in_file)
    assert set(report.loaded) == set(model.module.state_dict())
    assert not report.replaced and not report.cast
    assert not model.module.training
    answers = model(photograph(), top=2)
    assert len(answers) == 2 and answers[0]["score"] >= answers[1]["score"]


def test_another_head():  # ERRORS 16: the cure works
    model = bt.load(TIMM, num_classes=4)
    assert len(model.labels) == 4 and len(model(photograph(), top=9)) == 4
    assert model.report.replaced == ("fc.weight", "fc.bias")
    weight = model.module.state_dict()["fc.weight"].numpy()
    assert np.isfinite(weight).all() and weight.std() > 0


def test_a_head_of_the_same_size_keeps_its_weights():
    classes = len(bt.load(TIMM).labels)
    model = bt.load(TIMM, num_classes=classes)
    assert not model.report.replaced
    expected = load_file(TIMM / "model.safetensors")["fc.weight"]
    np.testing.assert_array_equal(model.module.state_dict()["fc.weight"].numpy(), expected)


@pytest.mark.parametrize("channels", [1, 4])
def test_another_number_of_channels(channels):
    model = bt.load(TIMM, in_channels=channels)
    assert model.report.replaced == ("conv1.weight",)
    x = bt.random.normal((2, channels, 40, 36))
    assert bt.load(TIMM, in_channels=channels).module(x).shape[0] == 2


def test_an_adapted_stem_answers_grey_images_alike():
    weight = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)
    for channels in (1, 2, 4, 7):
        adapted = adapted_stem(weight, channels)
        assert adapted.shape == (8, channels, 3, 3)
        if channels % 3 in (0, 1) and channels < 3:
            np.testing.assert_allclose(adapted.sum(1), weight.sum(1), rtol=1e-5)


def test_untrained_on_request():
    model = bt.load("resnet18", weights=False, num_classes=3)
    assert len(model.labels) == 3 and "untrained" in str(model.report)


def test_weights_that_are_still_to_be_trained(monkeypatch):
    architecture, entry = registry.get("resnet-cifar10")
    untrained = replace(entry, sources=(), note="train them with docs/examples/cifar10.py")
    monkeypatch.setitem(registry._entries, entry.name, (architecture, untrained))
    assert "resnet-cifar10" not in bt.list_models()
    with pytest.raises(HubError, match=r"docs/examples/cifar10\.py") as caught:
        bt.load("resnet-cifar10")
    assert "weights=False" in str(caught.value)
    assert bt.load("resnet-cifar10", weights=False).labels[3] == "cat"


def test_the_bundled_model():
    assert "resnet-cifar10" in bt.list_models(commercial=True)
    model = bt.load("cifar10_resnet")
    assert model.module.dtype == bt.float32  # stored as float16
    assert model.report.cast and not model.report.dropped and not model.report.replaced
    for path in sample_photographs():
        if path.stem in model.labels:
            assert model(path, top=1)[0]["label"] == path.stem


def test_what_nobody_rewrites_is_mapped_and_what_the_user_names_is_read(monkeypatch, copied):
    from bestiary.core import weights

    asked = []
    read = weights.open_weights

    def opened(path, **how):
        asked.extend([how] if how else [])  # what only looks at shapes says nothing
        return read(path, **how)

    monkeypatch.setattr(weights, "open_weights", opened)
    shipped = bt.load("resnet-cifar10", dtype="float16")
    own = bt.load(copied(TIMM))
    assert [how["mapped"] for how in asked] == [os.name != "nt", False]
    for model in (shipped, own):  # a write changes the model and not the file
        weight = next(model.module.parameters())
        bt.nn.init.zeros_(weight)
        assert not weight.array.any()
    again = bt.load("resnet-cifar10", dtype="float16")
    assert next(again.module.parameters()).array.any()


def test_half_precision_on_request():
    model = bt.load(TIMM, dtype="bfloat16")
    assert model.module.dtype == bt.bfloat16
    assert set(model.report.cast)
    full = bt.load(TIMM).probabilities(photograph())
    np.testing.assert_allclose(model.probabilities(photograph()), full, atol=0.03)


def test_saved_and_loaded_again(tmp_path):
    model = bt.load(TRANSFORMERS, num_classes=3)
    model.labels[:] = ["ant", "bee", "cow"]
    folder = model.save(tmp_path / "saved model")
    again = bt.load(folder)
    assert again.labels == ["ant", "bee", "cow"]
    assert again.preprocess == model.preprocess
    np.testing.assert_array_equal(
        again.probabilities(photograph()), model.probabilities(photograph())
    )
    assert "ant" in json.loads((folder / "config.json").read_text())["id2label"].values()
    assert (folder / "README.md").read_text().startswith("---\nlicense:")
    half = bt.load(model.save(tmp_path / "half", dtype="float16"))
    assert half.module.dtype == bt.float32 and half.report.cast
    sizes = [(p / "model.safetensors").stat().st_size for p in (folder, tmp_path / "half")]
    assert sizes[1] < 0.6 * sizes[0]


def test_missing_and_unexpected_tensors_are_listed(copied):  # TESTPLAN 11
    folder = copied(TIMM)
    tensors = load_file(folder / "model.safetensors")
    tensors["stray.weight"] = tensors.pop("layer1.0.conv1.weight")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError) as caught:
        bt.load(folder)
    for part in ("model.safetensors", "stray.weight", "layer1.0.conv1.weight"):
        assert part in str(caught.value)


def test_unknown_configuration_keys_are_listed(copied):  # ERRORS 35
    folder = copied(TRANSFORMERS)
    config = json.loads((folder / "config.json").read_text())
    config["fancy_attention"] = True
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="fancy_attention"):
        bt.load(folder)


def test_code_in_a_configuration_is_ignored(copied):  # TESTPLAN 16
    folder = copied(TRANSFORMERS)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_evil.py").write_text("raise SystemExit('ran')")
    assert bt.load(folder).module is not None
    assert "modeling_evil" not in sys.modules


def test_folders_that_are_no_models(tmp_path, copied):
    with pytest.raises(HubError, match=r"no config\.json"):
        bt.load(tmp_path)
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(HubError, match="no JSON"):
        bt.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "perceiver"}')
    with pytest.raises(HubError, match="'perceiver' is not supported") as caught:
        bt.load(tmp_path)
    assert "resnet" in str(caught.value)
    folder = copied(TIMM)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(HubError, match="weights=False"):
        bt.load(folder)
    assert bt.load(folder, weights=False)
    with pytest.raises(HubError, match="no folder"):
        bt.load("./nowhere/at/all")


def test_damaged_weights_never_fall_back(copied):  # TESTPLAN 15
    folder = copied(TIMM)
    shutil.copy(folder / "model.safetensors", folder / "pytorch_model.bin")
    (folder / "model.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}garbage")
    with pytest.raises(WeightsError):
        bt.load(folder)


@pytest.mark.parametrize("option", [{"num_classes": 0}, {"in_channels": -1}])
def test_senseless_options(option):
    with pytest.raises(ConfigError, match="from 1 up"):
        bt.load(TIMM, **option)


def test_other_dtypes_are_named():
    with pytest.raises(TypeError, match="float12"):
        bt.load(TIMM, dtype="float12")


def test_a_weight_file_in_place_of_a_folder_is_told_how_to_be_read(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(HubError) as caught:
        bt.load(str(path))
    assert f"bt.weights.load({str(path)!r})" in str(caught.value)

"""What we save, transformers and timm read, where the architecture is theirs."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.weights import load_file
from bestiary.hub.published import origin_of
from bestiary.hub.registry import architecture_of_config

DATA = Path(__file__).parents[1] / "references" / "data"


def folders() -> list[str]:
    """Every stored model of theirs that loads as a task over pictures."""
    found = []
    for path in sorted(DATA.glob("*/config.json")):
        known = architecture_of_config(json.loads(path.read_text()))
        weights = path.with_name("model.safetensors").is_file()
        if known is not None and weights and known[0].task.startswith("image-"):
            found.append(path.parent.name)
    return found


FOLDERS = folders()
# Of the stored mobile networks of timm, timm itself cannot read the tiny configurations.
FAMILIES = ("resnet", "vit", "swin", "convnext", "mobilenet-v2-transformers")
HEADLESS = ("nohead", "pooler", "dilated", "transformers-v2")  # saved without a classifier
CLASSIFIERS = [
    name
    for name in FOLDERS
    if name.startswith(FAMILIES) and not name.endswith(HEADLESS) and "teacher" not in name
]


def config_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Their configuration, and our mark in it."""
    config = json.loads((folder / "config.json").read_text())
    return config, config.pop("bestiary", {})


def pictures(model: Any) -> Any:
    origin = origin_of(model.module)
    args = (origin.published.get("model_args") or {}) if origin is not None else {}
    size = args.get("img_size") or getattr(model.config, "image_size", None) or 48
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    channels = model.config.in_channels
    return np.random.default_rng(0).normal(size=(2, channels, height, width)).astype(np.float32)


def test_there_are_models_of_both():
    assert sum("timm" in name for name in FOLDERS) >= 2
    assert sum("transformers" in name for name in FOLDERS) >= 3


@pytest.mark.parametrize("name", FOLDERS)
def test_saved_as_it_came(name, tmp_path):
    """The same tensors under the same names, and the same configuration."""
    model = bt.load(DATA / name)
    saved = model.save(tmp_path)
    before, after = (load_file(f / "model.safetensors") for f in (DATA / name, saved))
    ours, mark = config_of(saved)
    theirs, _ = config_of(DATA / name)
    assert mark["layout"] == ("timm" if "timm" in name else "transformers")
    assert set(after) <= set(before)
    dropped = set(before) - set(after)
    assert len(dropped) == len(model.report.dropped)
    for key, array in after.items():
        np.testing.assert_array_equal(array, before[key])
    for config in (ours, theirs):  # stored halves are loaded, and saved, as float32
        assert config.pop("dtype", "float32") in ("float32", "float16", "bfloat16")
    assert {key: value for key, value in ours.items() if key in theirs} == theirs
    again = bt.load(saved)
    assert again.config == model.config and type(again) is type(model)
    values = again.module.state_dict()
    assert set(values) == set(model.module.state_dict())
    for key, value in model.module.state_dict().items():
        np.testing.assert_array_equal(values[key].array, value.array)


TEXTS = sorted(
    path.parent.name
    for path in DATA.glob("*-transformers*/model.safetensors")
    if path.parent.name.startswith(
        (
            "albert-", "bert-", "deberta-", "distilbert-", "gemma3-", "gpt2-", "llama-",
            "mistral-", "modernbert-", "mpnet-", "qwen", "roberta-", "t5-", "whisper-", "xlm-",
        )
    )
)  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_models_of_texts_are_saved_as_they_came(name, tmp_path):
    """Configuration, names and numbers; tied weights once, as there."""
    saved = bt.load(DATA / name).save(tmp_path)
    said, mark = config_of(saved)
    theirs, _ = config_of(DATA / name)
    changed = {key for key in theirs if said.get(key) != theirs[key]}
    assert not changed and mark["layout"] == "transformers"
    before, after = (load_file(f / "model.safetensors") for f in (DATA / name, saved))
    assert set(after) == set(before)
    assert all(np.array_equal(after[key], before[key]) for key in before)


def test_a_new_head_on_a_file_that_has_none(tmp_path):
    """The publisher's names of a head are not known then: our own form."""
    model = bt.load(DATA / "vit-transformers-pooler", num_classes=4)
    _, mark = config_of(model.save(tmp_path))
    assert "layout" not in mark
    assert bt.load(tmp_path).config == model.config


@pytest.mark.parametrize("name", CLASSIFIERS[::2])
def test_another_head_keeps_the_form(name, tmp_path):
    model = bt.load(DATA / name, num_classes=4)
    model.labels[:] = ["ant", "bee", "cow", "dog"]
    saved = model.save(tmp_path)
    config, mark = config_of(saved)
    assert mark["layout"] in ("timm", "transformers")
    if mark["layout"] == "timm":
        assert config["num_classes"] == 4 and config["label_names"] == model.labels
    else:
        assert config["id2label"] == {"0": "ant", "1": "bee", "2": "cow", "3": "dog"}
        assert config["label2id"]["cow"] == 2
    assert bt.load(saved).labels == model.labels


def test_another_number_of_channels(tmp_path):
    for name in ("resnet-timm-basic", "resnet-transformers-basic"):
        model = bt.load(DATA / name, in_channels=1)
        saved = model.save(tmp_path / name)
        config, mark = config_of(saved)
        if mark["layout"] == "timm":
            assert config["model_args"]["in_chans"] == 1
            assert config["pretrained_cfg"]["input_size"][0] == 1
        else:
            assert config["num_channels"] == 1
        assert bt.load(saved).config.in_channels == 1


def test_fine_tuned_models_keep_the_form(tmp_path):
    from bestiary.hub.filling import with_new_head
    from bestiary.hub.registry import architecture_by_name

    model = bt.load(DATA / "resnet-transformers-basic")
    architecture = architecture_by_name("resnet")
    module, config = with_new_head(architecture, model.config, model.module, 2)
    model.module, model.config, model.labels = module, config, ["cat", "dog"]
    config_json, mark = config_of(model.save(tmp_path))
    assert mark["layout"] == "transformers"
    assert config_json["id2label"] == {"0": "cat", "1": "dog"}


def test_untrained_resnets_are_saved_as_transformers(tmp_path):
    model = bt.load("resnet18", weights=False, num_classes=3)
    saved = model.save(tmp_path)
    config, mark = config_of(saved)
    assert mark["layout"] == "transformers" and config["model_type"] == "resnet"
    assert "resnet.embedder.embedder.convolution.weight" in load_file(saved / "model.safetensors")
    assert bt.load(saved).config == model.config


def test_what_nobody_else_knows_is_saved_in_our_form(tmp_path):
    model = bt.load("efficientnet-lite0", weights=False, num_classes=2)
    config, mark = config_of(model.save(tmp_path))
    assert "layout" not in mark and set(config) == {"id2label"}


def test_a_changed_configuration_that_theirs_cannot_say(tmp_path):
    """The model is then no longer of their kind; it is saved in our form, and nothing is lost."""
    from dataclasses import replace

    model = bt.load(DATA / "resnet-timm-basic")
    model.config = replace(model.config, downsample_in_first_stage=True)
    _, mark = config_of(model.save(tmp_path))
    assert mark.get("layout") != "timm"
    assert mark["config"]["downsample_in_first_stage"] is True


def test_half_precision_is_said(tmp_path):
    model = bt.load(DATA / "resnet-transformers-basic")
    config, _ = config_of(model.save(tmp_path, dtype="bfloat16"))
    assert config["dtype"] == "bfloat16"
    assert bt.load(tmp_path).report.cast


def test_tied_weights_are_in_their_files_once():
    from bestiary.hub.published import _by_file
    from bestiary.hub.registry import Layout

    layout = Layout(rename={"transformer.{rest}": "{rest}"})
    weight, other = np.ones((3, 2)), np.zeros((3, 2))
    shapes = {"transformer.wte.weight": (3, 2)}
    tied = {"wte.weight": weight, "lm_head.weight": weight}
    assert list(_by_file(layout, tied, shapes)) == ["transformer.wte.weight"]
    assert _by_file(layout, {**tied, "lm_head.weight": other}, shapes) is None
    assert _by_file(layout, {"lm_head.weight": weight}, shapes) is None


PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.25, 0.5],
}


def test_how_pictures_are_prepared_stays_in_their_words(tmp_path):
    import shutil
    from dataclasses import replace

    folder = tmp_path / "theirs"
    shutil.copytree(DATA / "resnet-transformers-basic", folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    model = bt.load(folder)
    saved = model.save(tmp_path / "same")
    assert json.loads((saved / "preprocessor_config.json").read_text()) == PROCESSOR
    assert bt.load(saved).preprocess == model.preprocess
    model.preprocess = replace(model.preprocess, mean=(0.1, 0.2, 0.3))
    saved = model.save(tmp_path / "changed")
    assert bt.load(saved).preprocess == model.preprocess
    assert json.loads((saved / "preprocessor_config.json").read_text()) != PROCESSOR


def test_shards_above_the_limit(tmp_path):
    from bestiary.hub.saving import save_model

    model = bt.load(DATA / "resnet-timm-basic")
    for limit, files in ((20_000, 3), (10**9, 1)):  # the second removes what the first left
        save_model(
            tmp_path,
            model.module,
            architecture="resnet",
            config=model.config,
            card=model.card,
            max_shard_bytes=limit,
        )
        there = sorted(p.name for p in tmp_path.glob("model*"))
        assert (len(there) >= files) if files > 1 else there == ["model.safetensors"]
        again = bt.load(tmp_path).module.state_dict()
        for name, value in model.module.state_dict().items():
            np.testing.assert_array_equal(value.numpy(), again[name].numpy())


def test_the_limit_is_five_gigabytes():
    import inspect

    from bestiary.hub.saving import save_model

    assert inspect.signature(save_model).parameters["max_shard_bytes"].default == 5_000_000_000


# -- with the libraries themselves -----------------------------------------------------------------


def theirs(folder: Path, x: Any) -> Any:
    """The logits that the library gives which reads this folder."""
    import torch

    _, mark = config_of(folder)
    if mark["layout"] == "transformers":
        from transformers import AutoModelForImageClassification

        model, info = AutoModelForImageClassification.from_pretrained(
            folder, output_loading_info=True
        )
        assert not info["missing_keys"] and not info["unexpected_keys"], info
        with torch.no_grad():
            return model.eval()(torch.tensor(x)).logits.numpy()
    if "torchvision" not in sys.modules:
        path = Path(__file__).parents[1] / "references" / "torchvision_stub.py"
        spec = importlib.util.spec_from_file_location("torchvision_stub", path)
        stub = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(stub)
        stub.install()
    import timm

    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    with torch.no_grad():
        return model.eval()(torch.tensor(x)).numpy()


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("classes", [None, 4])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_they_read_what_we_save(name, classes, tmp_path):
    model = bt.load(DATA / name, num_classes=classes)
    saved = model.save(tmp_path)
    x = pictures(model)
    expected = model.module(bt.tensor(x)).array
    np.testing.assert_allclose(theirs(saved, x), expected, atol=2e-4)


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore")
def test_transformers_reads_an_untrained_resnet(tmp_path):
    model = bt.load("resnet18", weights=False, num_classes=3)
    model.module.eval()
    x = pictures(model)
    np.testing.assert_allclose(
        theirs(model.save(tmp_path), x), model.module(bt.tensor(x)).array, atol=2e-4
    )

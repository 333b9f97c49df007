"""Folders with a model_index.json: which files are fetched, and what is made of them."""

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
from bestiary.generative.unet2d import Config, UNet2DModel, to_diffusers
from bestiary.hub.choice import choose
from bestiary.hub.filling import Options
from bestiary.hub.loading import Loaded, _loaded, card_of_folder
from bestiary.hub.pipelines import Parts, PartsConfig
from bestiary.hub.sources import Request

TINY = Config(
    sample_size=(8, 8),
    block_out_channels=(8, 16),
    down_block_types=("DownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    norm_num_groups=4,
    add_attention=False,
)
HALF = "diffusion_pytorch_model.fp16.safetensors"
INDEX = {
    "_class_name": "DDPMPipeline",
    "_diffusers_version": "0.42.1",
    "unet": ["diffusers", "UNet2DModel"],
    "scheduler": ["diffusers", "DDPMScheduler"],
    "safety_checker": [None, None],
}


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline for pictures of 8 x 8."""
    target = tmp_path / "tiny"
    write(target / "model_index.json", INDEX)
    write(target / "scheduler" / "scheduler_config.json", {"num_train_timesteps": 50})
    write(target / "unet" / "config.json", to_diffusers(TINY))
    bt.manual_seed(0)
    state = {name: t.array for name, t in UNet2DModel(TINY).state_dict().items()}
    save_file(state, target / "unet" / "diffusion_pytorch_model.safetensors")
    return target


def loaded(name: str | Path, **changes: Any) -> Loaded:
    settings: dict[str, Any] = {"weights": True, "dtype": np.dtype("float32"), "task": None}
    settings |= dict.fromkeys(("num_classes", "in_channels", "image_size"))
    settings["request"] = Request(variant=changes.pop("variant", None))
    return _loaded(name, Options(**(settings | changes)))


def test_networks_are_loaded_from_their_folders(folder: Path) -> None:
    found = loaded(folder)
    stored = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    state = found.module.state_dict()
    assert set(state) == {f"unet.{name}" for name in stored}
    for name, array in stored.items():
        np.testing.assert_array_equal(state[f"unet.{name}"].array, array)
    assert found.scheduler == {"num_train_timesteps": 50, "_class_name": "DDPMScheduler"}
    assert found.card.task == found.architecture.task == "unconditional-image-generation"
    assert len(found.report.loaded) == len(stored) == len(found.parts["unet"].report.loaded)
    assert found.skipped == ()
    assert card_of_folder(folder).architecture == "ddpm-pipeline"


def test_what_watches_the_pictures_is_skipped(folder: Path) -> None:
    index = {**INDEX, "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    write(folder / "model_index.json", index | {"requires_safety_checker": True})
    assert loaded(folder).skipped == ("safety_checker",)


def test_an_untrained_pipeline_needs_no_weights(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    found = loaded(folder, weights=False)
    assert "untrained" in found.parts["unet"].report.source
    again = Parts.of(PartsConfig(found.config.networks))
    assert {n: t.shape for n, t in again.state_dict().items()} == {
        n: t.shape for n, t in found.module.state_dict().items()
    }


def test_half_precision_where_there_is_one(folder: Path) -> None:
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    half = {name: array.astype(np.float16) for name, array in load_file(whole).items()}
    save_file(half, folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    assert not loaded(folder).report.cast
    found = loaded(folder, variant="fp16")
    assert len(found.report.cast) == len(half)
    with pytest.raises(HubError, match="bf16"):
        loaded(folder, variant="bf16")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"_class_name": "AudioLDMPipeline"}, "'AudioLDMPipeline' is not supported"),
        ({"unet": [None, None]}, "no unet/config.json"),
        ({"vae": ["diffusers", "AutoencoderKL"]}, r"not supported: vae \(AutoencoderKL\)"),
        ({"unet": ["diffusers"]}, "names no library"),
        ({"scheduler": [None, None]}, "no scheduler/scheduler_config.json"),
    ],
)
def test_an_index_that_makes_no_sense(folder: Path, change: Any, words: str) -> None:
    write(folder / "model_index.json", INDEX | change)
    with pytest.raises(HubError, match=words):
        loaded(folder)


def test_parts_that_are_not_there(folder: Path) -> None:
    with pytest.raises(ConfigError, match="num_classes"):
        loaded(folder, num_classes=3)
    shutil.rmtree(folder / "unet")
    with pytest.raises(HubError, match="promises a UNet2DModel"):
        loaded(folder)


def test_files_that_are_fetched() -> None:
    """Neither the same weights in one file, nor what is skipped, nor exports."""
    names = ["model_index.json", "v1-5-pruned.safetensors", "v1-5-emaonly.safetensors", "v1.ckpt"]
    for part in ("unet", "vae", "safety_checker", "image_encoder"):
        for kind in ("", ".fp16", ".non_ema"):
            for ending in ("safetensors", "bin"):
                names.append(f"{part}/diffusion_pytorch_model{kind}.{ending}")
        names.append(f"{part}/config.json")
    names += ["vae_decoder/config.json", "vae_decoder/model.onnx", "vae_1_0/config.json"]
    names += ["vae_1_0/diffusion_pytorch_model.safetensors", "unet/model.onnx_data"]
    names += ["feature_extractor/preprocessor_config.json", "scheduler/scheduler_config.json"]
    names += ["text_encoder/config.json", "text_encoder/pytorch_model.bin"]
    chosen = choose(names)
    assert chosen is not None
    assert sorted(chosen.core) == [
        "model_index.json",
        "text_encoder/config.json",
        "text_encoder/pytorch_model.bin",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert chosen.side == ["scheduler/scheduler_config.json"]
    half = choose(names, "fp16")
    assert half is not None
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in half.core
    assert "unet/diffusion_pytorch_model.safetensors" not in half.core
    assert "text_encoder/pytorch_model.bin" in half.core


def test_a_repository_is_fetched_in_parts(folder: Path, serve: Any, own_cache: Path) -> None:
    """The real client, a hub on loopback: nothing that is not needed comes over the line."""
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(whole)
    save_file({n: a.astype(np.float16) for n, a in state.items()}, folder / "unet" / HALF)
    for name in ("all-in-one.safetensors", "other.safetensors", "unet/diffusion_pytorch_model.bin"):
        (folder / name).write_bytes(b"not wanted")
    (folder / "safety_checker").mkdir()
    shutil.copy(folder / "unet" / "config.json", folder / "safety_checker")
    shutil.copy(whole, folder / "safety_checker")
    index = {**INDEX, "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    write(folder / "model_index.json", index)
    served = serve({"zoo/pictures": folder})
    bt.configure(endpoint=served.url, timeout=5.0, deadline=5.0)
    found = loaded("zoo/pictures")
    assert found.card.name == "zoo/pictures" and found.skipped == ("safety_checker",)
    assert len(found.report.loaded) == len(state)
    here = next((own_cache / "models--zoo--pictures" / "snapshots").iterdir())
    names = sorted(p.relative_to(here).as_posix() for p in here.rglob("*") if p.is_file())
    assert names == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    served.forget()
    loaded("zoo/pictures")
    assert served.log == []  # complete in the cache: no connection
    half = loaded("zoo/pictures", variant="fp16")
    assert len(half.report.cast) == len(state)
    assert (here / "unet" / HALF).is_file()

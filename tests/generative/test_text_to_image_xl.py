"""Stable Diffusion XL's pipelines against the pictures of diffusers, for the same noise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bestiary.core.errors import ConfigError, DataError, HubError
from bestiary.core.weights import load_file, save_file
from bestiary.generative.tasks import text_to_image
from bestiary.generative.tasks.text_to_image_xl import TextToImageXL
from bestiary.generative.training.captions import Captioned
from bestiary.generative.training.text_to_image_lora import Settings, TextToImageLoRA
from bestiary.hub.loading import load

DATA = Path(__file__).parent.parent / "references" / "data"
TINY = DATA / "stable-diffusion-xl-tiny"
PROMPT, NEGATIVE = "a photo of a large dog", "the shape of a tensor"
SMALL: dict[str, Any] = {"size": (32, 24), "steps": 4}
AGAINST: dict[str, Any] = {"negative": NEGATIVE, "guidance": 3.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pipelines") / "xl"
    shutil.copytree(TINY, made)
    (made / "reference.safetensors").unlink()
    for name in ("tokenizer", "tokenizer_2"):
        (made / name).mkdir()
        for file in ("vocab.json", "merges.txt"):
            shutil.copy(DATA / "clip-transformers" / file, made / name)
    settings = {"pad_token": "!"}
    (made / "tokenizer_2" / "tokenizer_config.json").write_text(json.dumps(settings))
    return made


@pytest.fixture
def model(folder: Path) -> Any:
    return load(folder)


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    return load_file(TINY / "reference.safetensors")


@pytest.fixture
def picture(stored: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A picture that diffusers was given as floats; ours takes it without rounding to pixels."""
    exact = 2 * stored["picture"] - 1
    monkeypatch.setattr(text_to_image, "picture_array", lambda *_: exact.copy())
    return stored["picture"][0].transpose(1, 2, 0)


def same(made: np.ndarray, arrays: dict[str, np.ndarray], name: str) -> None:
    """Pictures from -1 to 1 as those of diffusers, which lie from 0 to 1."""
    pixels = np.clip(made / 2 + 0.5, 0, 1).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(pixels, arrays[f"{name}.image"], atol=1e-3, rtol=0)
    assert pixels.std() > 0.1


def test_texts_as_the_network_sees_them(model: Any, stored: dict[str, np.ndarray]) -> None:
    assert isinstance(model, TextToImageXL)
    for text, names in ((PROMPT, ("tokens", "whole")), (NEGATIVE, ("no_tokens", "no_whole"))):
        for found, name in zip(model.prompts.encode([text]), names, strict=True):
            np.testing.assert_allclose(found.numpy(), stored[name], atol=1e-5)


@pytest.mark.parametrize(
    "name, settings",
    [
        ("text", AGAINST),
        ("zeros", {"guidance": 4.0}),
        ("plain", {"guidance": 1.0}),
        ("skipped", {"clip_skip": 1, "guidance": 2.0, "negative": ""}),
    ],
)
@pytest.mark.parametrize("slicing", [False, True])
def test_pictures_equal_those_of_diffusers(
    model: Any,
    stored: dict[str, np.ndarray],
    replay: Any,
    name: str,
    settings: dict[str, Any],
    slicing: bool,
) -> None:
    replay(stored, name)
    model.slicing = slicing
    same(model(PROMPT, output="array", **SMALL, **settings), stored, name)


def test_compiled_networks_make_the_same(
    model: Any, stored: dict[str, np.ndarray], replay: Any
) -> None:
    for _ in range(3):
        replay(stored, "text")
        made = model(PROMPT, output="array", **SMALL, **AGAINST)
    same(made, stored, "text")


def test_the_size_is_a_condition(model: Any, stored: dict[str, np.ndarray], replay: Any) -> None:
    model.original, model.corner = (64, 48), (3, 5)
    replay(stored, "cut")
    same(model(PROMPT, output="array", guidance=2.0, **SMALL), stored, "cut")
    model.original = (1, 2, 3)
    with pytest.raises(ConfigError, match="original"):
        model(PROMPT, **SMALL)


def test_an_empty_text_in_place_of_zeros(
    model: Any, stored: dict[str, np.ndarray], replay: Any
) -> None:
    model.zeros = False
    replay(stored, "blank")
    same(model(PROMPT, output="array", guidance=4.0, **SMALL), stored, "blank")


def test_several_texts(model: Any, stored: dict[str, np.ndarray], replay: Any) -> None:
    replay(stored, "batch")
    texts = {"negative": [NEGATIVE, ""], "guidance": 2.0, "batch_size": 2}
    same(model([PROMPT, NEGATIVE], output="array", **SMALL, **texts), stored, "batch")


@pytest.mark.parametrize("name, settings", [("image", AGAINST), ("image_zeros", {"guidance": 4.0})])
def test_pictures_of_pictures(
    model: Any,
    stored: dict[str, np.ndarray],
    replay: Any,
    picture: np.ndarray,
    name: str,
    settings: dict[str, Any],
) -> None:
    replay(stored, name)
    made = model(PROMPT, init=picture, strength=0.6, steps=5, output="array", **settings)
    same(made, stored, name)


def test_painting_into_pictures(
    model: Any, stored: dict[str, np.ndarray], replay: Any, picture: np.ndarray
) -> None:
    replay(stored, "inpaint")
    mask = stored["mask"][0, 0].astype(bool)
    given = {"init": picture, "mask": mask, "strength": 0.6, "steps": 5, "size": 32}
    same(model(PROMPT, output="array", **given, **AGAINST), stored, "inpaint")


def test_saved_models_are_the_same(model: Any, tmp_path: Path) -> None:
    settings = {"steps": 2, "seed": 4, "size": (24, 32), "output": "array"}
    wanted = model(PROMPT, **settings)
    model.zeros = False
    again = load(model.save(tmp_path / "saved"))
    assert again.zeros is False and isinstance(again, TextToImageXL)
    again.zeros = True
    np.testing.assert_array_equal(again(PROMPT, **settings), wanted)
    index = json.loads((tmp_path / "saved" / "model_index.json").read_text())
    theirs = json.loads((TINY / "model_index.json").read_text())
    for name in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "scheduler"):
        assert index[name] == theirs[name]


def test_files_say_how_pictures_came(model: Any) -> None:
    from bestiary.generative.pipelines.metadata import KEY

    quick = {"steps": 1, "size": 16}
    (without,), (empty,) = model(PROMPT, **quick), model(PROMPT, negative="", **quick)
    assert without.info[KEY]["negative"] is None and empty.info[KEY]["negative"] == ""
    assert without.info[KEY]["guidance"] == 5.0
    cost = model.cost(steps=2, size=16)
    assert cost.operations > 0


def test_adapters_of_both_encoders(model: Any, tmp_path: Path) -> None:
    layers = {
        "unet": "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
        "text_encoder": "encoder.layers.0.self_attn.q_proj",
        "text_encoder_2": "encoder.layers.1.self_attn.q_proj",
    }
    arrays = {}
    for network, path in layers.items():
        weight = getattr(model.module, network).get_submodule(path).weight
        arrays[f"{network}.{path}.lora_A.weight"] = np.ones((2, weight.shape[1]), np.float32)
        arrays[f"{network}.{path}.lora_B.weight"] = np.ones((weight.shape[0], 2), np.float32)
    save_file(arrays, tmp_path / "a.safetensors")
    before = {n: getattr(model.module, n).get_submodule(p).weight.array for n, p in layers.items()}
    model.load_lora(tmp_path / "a.safetensors")
    for network, path in layers.items():
        now = getattr(model.module, network).get_submodule(path).weight.array
        np.testing.assert_allclose(now, before[network] + 2, atol=1e-6)


def test_what_is_refused(model: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="clip_skip=2"):
        model(PROMPT, clip_skip=2, **SMALL)
    with pytest.raises(DataError, match="does not fit"):
        model("dog " * 40, **SMALL)
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    pictures = Captioned((tmp_path / "a.png",), ("x",), "tests")
    with pytest.raises(ConfigError, match="two text encoders"):
        TextToImageLoRA(model, pictures, Settings(), out=tmp_path)
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    shutil.rmtree(bare / "tokenizer_2")
    plain = load(bare)
    with pytest.raises(HubError, match="without a tokenizer"):
        plain(PROMPT, **SMALL)
    plain.use_tokenizer(folder / "tokenizer")
    wanted = model(PROMPT, steps=1, seed=0, size=16, output="array")
    np.testing.assert_array_equal(plain(PROMPT, steps=1, seed=0, size=16, output="array"), wanted)
    with pytest.raises(HubError, match="no tokenizer"):
        plain.use_tokenizer(tmp_path)
    index = json.loads((bare / "model_index.json").read_text())
    for key, value, match in (
        ("force_zeros_for_empty_prompt", "yes", "neither true nor false"),
        ("requires_aesthetics_score", True, "refines"),
    ):
        (bare / "model_index.json").write_text(json.dumps(index | {key: value}))
        with pytest.raises(ConfigError, match=match):
            load(bare)
    (bare / "model_index.json").write_text(json.dumps(index | {"text_encoder": [None, None]}))
    with pytest.raises(HubError, match="text_encoder"):
        load(bare)
    (bare / "model_index.json").write_text(json.dumps(index))
    shutil.rmtree(bare / "text_encoder_2")
    shutil.copytree(folder / "text_encoder", bare / "text_encoder_2")
    with pytest.raises(ConfigError, match="CLIPTextModelWithProjection"):
        load(bare)

"""LoRA adapters against the outputs of diffusers with the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, HubError, WeightsError
from bestiary.core.weights import load_file, save_file
from bestiary.generative.tasks.text_to_image import TextToImage
from bestiary.hub.loading import load

DATA = Path(__file__).parent.parent / "references" / "data"
LORA = DATA / "lora"
LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
DOWN, UP = np.ones((2, 4), np.float32), np.ones((4, 2), np.float32)
FLAT = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


def outputs(model: TextToImage, reference: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    x, context = bt.tensor(reference["sample"]), bt.tensor(reference["context"])
    with bt.no_grad():
        noise = model.module.unet(x, bt.tensor([3, 700]), context)
        tokens = model.module.text_encoder(bt.tensor(reference["ids"])).last_hidden_state
    return {"noise_pred": noise.numpy(), "tokens": tokens.numpy()}


def weights(model: TextToImage) -> dict[str, np.ndarray]:
    return {name: t.array.copy() for name, t in model.module.state_dict().items()}


@pytest.mark.parametrize("name", ["diffusers", "kohya"])
def test_outputs_equal_the_references(
    text_model: TextToImage, reference: dict[str, np.ndarray], name: str
) -> None:
    stored = load_file(LORA / "reference.safetensors")
    before = weights(text_model)
    text_model.load_lora(LORA / f"{name}.safetensors")
    for scale in (1.0, 0.4):
        text_model.set_lora(**{name: scale})
        for key, found in outputs(text_model, reference).items():
            np.testing.assert_allclose(found, stored[f"{name}.{scale}.{key}"], atol=1e-4)
    text_model.unload_lora(name)
    for key, array in weights(text_model).items():
        np.testing.assert_array_equal(array, before[key])


def test_several_adapters_add_up(text_model: TextToImage) -> None:
    before = weights(text_model)
    text_model.load_lora(LORA / "diffusers.safetensors", scale=0.5)
    first = weights(text_model)
    text_model.load_lora(LORA / "kohya.safetensors", name="style", scale=2)
    assert text_model.adapters.said() == {"diffusers": 0.5, "style": 2.0}
    text_model.unload_lora("diffusers")
    second = weights(text_model)
    text_model.load_lora(LORA / "diffusers.safetensors", scale=0.5)
    for name, array in weights(text_model).items():
        wanted = before[name] + (first[name] - before[name]) + (second[name] - before[name])
        np.testing.assert_allclose(array, wanted, atol=1e-5)
    text_model.unload_lora()
    for name, array in weights(text_model).items():
        np.testing.assert_array_equal(array, before[name])


def test_merged_adapters_are_saved(text_model: TextToImage, tmp_path: Path) -> None:
    text_model.load_lora(LORA / "kohya.safetensors")
    changed = weights(text_model)
    text_model.merge_lora().unload_lora()
    again = load(text_model.save(tmp_path))
    for name, array in weights(again).items():
        np.testing.assert_array_equal(array, changed[name])
    assert again.adapters.said() == {}


def test_pictures_change_and_come_back(text_model: TextToImage) -> None:
    """Compiled programs see that weights were replaced."""
    settings: dict[str, Any] = {"steps": 3, "size": 16, "seed": 0, "output": "array"}
    plain = [text_model("a cat", **settings) for _ in range(3)][-1]
    text_model.load_lora(LORA / "diffusers.safetensors")
    changed = text_model("a cat", **settings)
    assert np.abs(changed - plain).max() > 0.05
    text_model.set_lora(diffusers=0)
    np.testing.assert_allclose(text_model("a cat", **settings), plain, atol=1e-3)
    text_model.unload_lora()
    np.testing.assert_allclose(text_model("a cat", **settings), plain, atol=1e-3)


@pytest.mark.parametrize(
    "names",
    [
        (f"{LAYER}.lora.down.weight", f"{LAYER}.lora.up.weight"),
        (f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"),
        (f"{LAYER}.lora_A.default.weight", f"{LAYER}.lora_B.default.weight"),
        (
            LAYER.replace(".to_q", ".processor.to_q_lora.down.weight"),
            LAYER.replace(".to_q", ".processor.to_q_lora.up.weight"),
        ),
        (f"{FLAT}.lora_down.weight", f"{FLAT}.lora_up.weight"),
        (
            LAYER.replace("unet.", "base_model.model.") + ".lora_A.weight",
            LAYER.replace("unet.", "base_model.model.") + ".lora_B.weight",
        ),
        (
            LAYER.replace("unet.", "") + ".lora_A.weight",
            LAYER.replace("unet.", "") + ".lora_B.weight",
        ),
    ],
)
def test_names_of_files(text_model: TextToImage, names: tuple[str, str], tmp_path: Path) -> None:
    save_file(dict(zip(names, (DOWN, UP), strict=True)), tmp_path / "a.safetensors")
    weight = text_model.module.unet.get_submodule(LAYER.removeprefix("unet.")).weight
    before = weight.array.copy()
    text_model.load_lora(tmp_path / "a.safetensors", scale=0.5)
    weight = text_model.module.unet.get_submodule(LAYER.removeprefix("unet.")).weight
    np.testing.assert_allclose(weight.array, before + 0.5 * (UP @ DOWN), rtol=1e-6)


def test_attention_of_the_text_encoder(text_model: TextToImage, tmp_path: Path) -> None:
    flat = "lora_te_text_model_encoder_layers_1_self_attn_q_proj"
    down, up = np.ones((2, 8), np.float32), np.ones((8, 2), np.float32)
    arrays = {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
    save_file(arrays | {f"{flat}.alpha": np.float32(0.5)}, tmp_path / "a.safetensors")
    layer = text_model.module.text_encoder.encoder.layers[1].self_attn.q_proj
    before = layer.weight.array.copy()
    text_model.load_lora(tmp_path / "a.safetensors", scale=3)
    np.testing.assert_allclose(layer.weight.array, before + 3 * 0.5 / 2 * (up @ down), rtol=1e-6)


@pytest.mark.parametrize("beside", ["header", "config"])
@pytest.mark.parametrize(
    "said, factor",
    [
        ({"lora_alpha": 8, "r": 2}, 4.0),
        ({"lora_alpha": 8, "r": 2, "use_rslora": True}, 8 / 2**0.5),
        ({"lora_alpha": 8, "r": 2, "alpha_pattern": {"attn1.to_q": 1}}, 0.5),
        ({}, 1.0),
    ],
)
def test_scales_that_stand_beside_the_tensors(
    text_model: TextToImage, said: dict[str, Any], factor: float, beside: str, tmp_path: Path
) -> None:
    """As diffusers writes them into the header, and peft into a file of its own."""
    header = {"lora_adapter_metadata": json.dumps({f"unet.{k}": v for k, v in said.items()})}
    arrays = {f"{LAYER}.lora_A.weight": DOWN, f"{LAYER}.lora_B.weight": UP}
    file = tmp_path / "adapter_model.safetensors"
    save_file(arrays, file, metadata=header if beside == "header" else None)
    if beside == "config":
        (tmp_path / "adapter_config.json").write_text(json.dumps(said))
    layer = text_model.module.unet.get_submodule(LAYER.removeprefix("unet."))
    before = layer.weight.array.copy()
    text_model.load_lora(tmp_path)  # the folder
    np.testing.assert_allclose(layer.weight.array, before + factor * (UP @ DOWN), rtol=1e-5)


def test_folders_without_an_adapter(text_model: TextToImage, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="no files that may be an adapter"):
        text_model.load_lora(tmp_path)
    with pytest.raises(HubError, match="no file or folder"):
        text_model.load_lora(tmp_path / "a" / "b.safetensors")
    for name in "ab":
        save_file({f"{LAYER}.lora_A.weight": DOWN}, tmp_path / f"{name}.safetensors")
    with pytest.raises(HubError, match="holds 2 files"):
        text_model.load_lora(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(WeightsError, match="is no JSON"):
        text_model.load_lora(tmp_path / "a.safetensors")


def test_a_list_of_layer_and_dropout(text_model: TextToImage, tmp_path: Path) -> None:
    out = LAYER.replace(".to_q", ".processor.to_out_lora")
    save_file({f"{out}.down.weight": DOWN, f"{out}.up.weight": UP}, tmp_path / "a.safetensors")
    text_model.load_lora(tmp_path / "a.safetensors")
    assert text_model.adapters.said() == {"a": 1.0}


@pytest.mark.parametrize(
    "arrays, words",
    [
        ({"a.weight": DOWN}, "no LoRA adapter, or one for another model"),
        ({f"{FLAT}.lora_down.weight": DOWN}, "has only down of a pair"),
        (
            {f"{FLAT}.lora_down.weight": DOWN[:, :3], f"{FLAT}.lora_up.weight": UP},
            "4 x 3, and the layer has",
        ),
        (
            {f"{FLAT}.lora_down.weight": DOWN * np.nan, f"{FLAT}.lora_up.weight": UP},
            "NaN or infinity",
        ),
        (
            {
                f"{FLAT}.lora_down.weight": DOWN,
                f"{FLAT}.lora_up.weight": UP,
                "lora_unet_down_blocks_9_conv.lora_up.weight": UP,
            },
            "1 of 3 tensors belong to no layer",
        ),
        ({f"{FLAT}.hada_w1_a": DOWN}, "of the kind LoHa"),
        ({f"{FLAT}.dora_scale": DOWN}, "of the kind DoRA"),
    ],
)
def test_files_that_do_not_fit(
    text_model: TextToImage, arrays: dict[str, np.ndarray], words: str, tmp_path: Path
) -> None:
    before = weights(text_model)
    save_file(arrays, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=words):
        text_model.load_lora(tmp_path / "a.safetensors")
    assert text_model.adapters.said() == {}
    for name, array in weights(text_model).items():
        np.testing.assert_array_equal(array, before[name])


def test_names_and_scales_that_make_no_sense(text_model: TextToImage) -> None:
    text_model.load_lora(LORA / "kohya.safetensors")
    with pytest.raises(ConfigError, match="there is an adapter 'kohya' already"):
        text_model.load_lora(LORA / "kohya.safetensors")
    with pytest.raises(ConfigError, match="in effect: kohya"):
        text_model.set_lora(other=1)
    with pytest.raises(ConfigError, match="no adapter 'other'"):
        text_model.unload_lora("other")
    for scale in (float("nan"), "1", True, 1e9):
        with pytest.raises(ConfigError, match="a number from -100 to 100"):
            text_model.set_lora(kohya=scale)

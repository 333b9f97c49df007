"""Stable Diffusion in one file: the names of the first release's code, translated as data."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import HubError, WeightsError
from bestiary.core.weights import save_file
from bestiary.generative import single_file
from bestiary.generative.autoencoder_kl import AutoencoderKL
from bestiary.generative.autoencoder_kl import Config as VaeConfig
from bestiary.generative.single_file import (
    CLIP,
    OPEN_CLIP,
    UNET,
    VAE,
    open_clip_names,
    unet_names,
    vae_names,
)
from bestiary.generative.unet2d_condition import Config as UNetConfig
from bestiary.generative.unet2d_condition import UNet2DConditionModel
from bestiary.hub.loading import load
from bestiary.hub.rename import Transform, renamed
from bestiary.text.clip_text import ClipText, EncoderConfig

DATA = Path(__file__).parent.parent / "references" / "data"
LEVELS: dict[str, Any] = {
    "block_out_channels": (32, 64),
    "layers_per_block": (2, 2),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "transformer_layers_per_block": (1, 1),
    "cross_attention_dim": 64,
    "attention_head_dim": (8, 8),
}
TEXT = EncoderConfig(
    hidden_size=64,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=1,
    vocab_size=634,
    max_position_embeddings=24,
    eos_token_id=633,
)


def backwards(table: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Our arrays under the names that a table translates to ours."""
    found: dict[str, Any] = {}
    for name, array in state.items():
        for old, new in table.items():
            target = new.name if isinstance(new, Transform) else new
            if target is None:
                continue
            back = renamed([name], {target: f"file: {old}"})[name][0]
            theirs = back.removeprefix("file: ")
            if back != theirs and renamed([theirs], table)[theirs][0] == name:
                changed = renamed([theirs], table)[theirs][1] is not None
                found[theirs] = array[..., None, None] if changed else array
                break
        else:
            raise AssertionError(f"no name in a file for {name}")
    assert len(found) == len(state)
    return found


def write(path: Path, *, version: int = 1, channels: int = 4) -> dict[str, Any]:
    """A file as the first release's code wrote it; the networks in it."""
    bt.manual_seed(version)
    changes: dict[str, Any] = {"in_channels": channels}
    if version == 2:
        changes |= {"use_linear_projection": True, "block_out_channels": (64, 128)}
        changes |= {"attention_head_dim": (1, 2), "sample_size": (96, 96)}
    unet = UNet2DConditionModel(UNetConfig(**(LEVELS | changes)))
    vae = AutoencoderKL(VaeConfig(block_out_channels=(32, 32)))
    text = ClipText(TEXT)
    arrays = lambda m: {n: t.array for n, t in m.state_dict().items()}  # noqa: E731
    file = {UNET + n: a for n, a in backwards(unet_names(unet.config), arrays(unet)).items()}
    file |= {VAE + n: a for n, a in backwards(vae_names(vae.config), arrays(vae)).items()}
    if version == 1:
        file |= {CLIP + n: a for n, a in arrays(text).items()}
        file[f"{CLIP}embeddings.position_ids"] = np.arange(24)[None]
    else:
        state = arrays(text)
        for layer in range(2):
            for kind in ("weight", "bias"):
                place = f"encoder.layers.{layer}.self_attn."
                three = [state.pop(f"{place}{part}_proj.{kind}") for part in "qkv"]
                state[f"{place}in_proj.{kind}"] = np.concatenate(three)
        file |= {OPEN_CLIP + n: a for n, a in backwards(open_clip_names(2), state).items()}
        file[f"{OPEN_CLIP}transformer.resblocks.2.ln_1.bias"] = np.zeros(64, np.float32)
        file[f"{OPEN_CLIP}logit_scale"] = np.float32(1)
    file |= {"betas": np.zeros(3), "alphas_cumprod": np.zeros(3), "model_ema.decay": np.zeros(1)}
    save_file({n: np.ascontiguousarray(a) for n, a in file.items()}, path)
    return {"unet": unet, "vae": vae, "text_encoder": text}


@pytest.mark.parametrize("version", [1, 2])
def test_every_tensor_finds_its_place(version: int, tmp_path: Path) -> None:
    networks = write(tmp_path / "model.safetensors", version=version)
    model = load(tmp_path / "model.safetensors")
    for name, network in networks.items():
        mine = getattr(model.module, name).state_dict()
        theirs = network.state_dict()
        assert set(mine) == set(theirs)
        for key, tensor in theirs.items():
            np.testing.assert_array_equal(mine[key].array, tensor.array, err_msg=key)
    assert model.module.unet.config == networks["unet"].config
    kind = "v_prediction" if version == 2 else "epsilon"
    assert model.scheduler.config.prediction_type == kind
    with pytest.raises(HubError, match="without a tokenizer"):
        model("a cat")
    model.use_tokenizer(DATA / "clip-transformers")
    picture = model("a photo of a cat", steps=2, size=16, seed=0)[0]
    assert picture.size == (16, 16)
    saved = load(model.save(tmp_path / "folder"))
    again = saved("a photo of a cat", steps=2, size=16, seed=0)[0]
    assert np.abs(np.asarray(again, int) - np.asarray(picture, int)).max() <= 1


def test_networks_for_painting(tmp_path: Path) -> None:
    write(tmp_path / "paint.safetensors", channels=9)
    assert load(tmp_path / "paint.safetensors").module.unet.config.in_channels == 9


def test_names_at_the_published_size() -> None:
    """The table gives every tensor of Stable Diffusion 1.5 a name, each another one."""
    names = json.loads(gzip.decompress((DATA / "diffusion_names.json.gz").read_bytes()))
    assert names["stable-diffusion-v1-5/unet"]["parameters"] == 859_520_964
    with bt.nn.init.empty():
        unet, vae = UNet2DConditionModel(UNetConfig()), AutoencoderKL(VaeConfig())
    for network, table in ((unet, unet_names(unet.config)), (vae, vae_names(vae.config))):
        arrays = {n: t.array for n, t in network.state_dict().items()}
        found = backwards(table, arrays)
        shapes = {UNET + n: a.shape for n, a in found.items()}
        if network is unet:
            assert single_file.unet_config(shapes) == unet.config
            # Names as they stand in the published file.
            for name in (
                "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
                "input_blocks.3.0.op.weight",
                "middle_block.1.proj_in.weight",
                "output_blocks.2.1.conv.weight",
                "output_blocks.5.2.conv.weight",
                "output_blocks.11.0.skip_connection.weight",
                "time_embed.2.bias",
                "out.2.weight",
            ):
                assert name in found, name
        else:
            shapes = {VAE + n: a.shape for n, a in found.items()}
            assert single_file.vae_config(shapes) == vae.config
            for name in (
                "encoder.down.2.downsample.conv.weight",
                "encoder.mid.attn_1.q.weight",
                "decoder.up.0.block.2.conv2.bias",
                "decoder.up.3.upsample.conv.weight",
                "decoder.up.1.block.0.nin_shortcut.weight",
                "post_quant_conv.weight",
            ):
                assert name in found, name


def test_files_that_are_no_whole_model(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": np.ones(3, np.float32)}, path)
    with pytest.raises(HubError, match="is not a folder"):
        load(path)
    write(path)
    arrays = bt.weights.load_file(path)
    save_file({n: a for n, a in arrays.items() if not n.startswith(VAE)}, path)
    with pytest.raises(HubError, match="no whole Stable Diffusion"):
        load(path)
    save_file({**arrays, f"{UNET}extra.weight": np.ones(3, np.float32)}, path)
    with pytest.raises(WeightsError, match=r"extra\.weight"):
        load(path)
    del arrays[f"{UNET}out.2.bias"]
    save_file(arrays, path)
    with pytest.raises(WeightsError, match=r"conv_out\.bias"):
        load(path)
    save_file({**arrays, "conditioner.embedders.0.x": np.ones(1, np.float32)}, path)
    with pytest.raises(HubError, match="XL"):
        load(path)

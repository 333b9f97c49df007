"""UNets, autoencoders and transformers of latent diffusion against the outputs of diffusers."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, IndexRangeError, ShapeError
from bestiary.core.nn import init
from bestiary.core.weights import load_file, save_file
from bestiary.hub.loading import load
from bestiary.hub.registry import architecture_of_config, get

DATA = Path(__file__).parent.parent / "references" / "data"
TINY = DATA / "stable-diffusion-tiny"


def stored(name: str) -> dict[str, np.ndarray]:
    return load_file(DATA / name / "reference.safetensors")


def near(found: Any, wanted: np.ndarray, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(found.numpy(), wanted, atol=atol, rtol=0)


def run(module: Any, *inputs: Any, **more: Any) -> Any:
    with bt.no_grad():
        return module(*inputs, **more)


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return stored("stable-diffusion-tiny")


# -- the conditional UNet ------------------------------------------------------------------------


def test_unet_equals_the_reference(reference: dict[str, np.ndarray]) -> None:
    unet = load(TINY / "unet").module
    x, context = bt.tensor(reference["sample"]), bt.tensor(reference["context"])
    near(run(unet, x, bt.tensor([3, 700]), context), reference["noise_pred"])
    near(run(unet, x[:, :, :9, :13], 11, context), reference["odd"])


@pytest.mark.parametrize("name", ["unet-condition-v2", "unet-condition-xl"])
def test_variants_equal_the_references(name: str) -> None:
    arrays = stored(name)
    unet = load(DATA / name).module
    added = {k: bt.tensor(arrays[k]) for k in ("text_embeds", "time_ids") if k in arrays}
    more = {"added_cond_kwargs": added} if added else {}
    x, context = bt.tensor(arrays["sample"]), bt.tensor(arrays["context"])
    near(run(unet, x, bt.tensor([3, 700]), context, **more), arrays["noise_pred"])


def test_padding_of_a_text_can_be_left_out(reference: dict[str, np.ndarray]) -> None:
    unet = load(TINY / "unet").module
    x, context = bt.tensor(reference["sample"]), bt.tensor(reference["context"])
    mask = bt.tensor(np.array([[1, 1, 1, 0, 0]] * 2))
    found = run(unet, x, 5, context, encoder_attention_mask=mask)
    near(found, run(unet, x, 5, context[:, :3]).numpy(), 1e-5)


def test_wrong_inputs_of_the_unet(reference: dict[str, np.ndarray]) -> None:
    unet = load(TINY / "unet").module
    x, context = bt.tensor(reference["sample"]), bt.tensor(reference["context"])
    with pytest.raises(ShapeError, match=r"\(B, 4, H, W\)"):
        unet(x[:, :3], 1, context)
    with pytest.raises(ShapeError, match="text encoder of another model"):
        unet(x, 1, context[:, :, :7])
    with pytest.raises(ShapeError, match=r"\(2, S, 8\)"):
        unet(x, 1, context[:1])
    with pytest.raises(ConfigError, match="timestep_cond"):
        unet(x, 1, context, timestep_cond=context[:, 0])
    with pytest.raises(ConfigError, match="added_cond_kwargs"):
        unet(x, 1, context, added_cond_kwargs={})
    large = load(DATA / "unet-condition-xl").module
    with pytest.raises(ConfigError, match="text_embeds"):
        large(x, 1, context)
    added = {"text_embeds": context[:, 0], "time_ids": bt.ones((2, 6))}
    with pytest.raises(ShapeError, match=r"\(2, 30\) is wanted"):
        large(x, 1, context, added_cond_kwargs=added)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"block_out_channels": [4, 9]}, "multiple of norm_num_groups"),
        ({"attention_head_dim": [2, 2, 2]}, "one value for each of the 2 levels"),
        ({"down_block_types": ["DownBlock2D", "KDownBlock2D"]}, "KDownBlock2D"),
        ({"addition_embed_type": "image"}, "image"),
        ({"addition_embed_type": "text_time"}, "needs addition_time_embed_dim"),
        ({"conv_in_kernel": 5}, "conv_in_kernel=5"),
        ({"new_key": 1}, "new_key=1"),
        ({"norm_eps": float("nan")}, "norm_eps"),
        ({"cross_attention_dim": 0}, "cross_attention_dim=0"),
    ],
)
def test_configurations_that_make_no_sense(change: Any, words: str, tmp_path: Path) -> None:
    published = json.loads((TINY / "unet" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(published | change))
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, weights=False)


# -- autoencoders --------------------------------------------------------------------------------


def test_autoencoder_equals_the_reference(reference: dict[str, np.ndarray]) -> None:
    vae = load(TINY / "vae").module
    with bt.no_grad():
        found = vae.encode(2 * bt.tensor(reference["picture"]) - 1)
        near(found.mean, reference["mean"])
        near(found.deviation, reference["std"])
        near(vae.decode(bt.tensor(reference["sample"][:1]) * 0.5), reference["decoded"])
        near(found.sample(noise=0 * found.mean), reference["mean"])
    drawn = [found.sample(bt.Generator(3)).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*drawn)
    with pytest.raises(ShapeError, match="multiples of 2"):
        vae.encode(bt.ones((1, 3, 7, 8)))
    with pytest.raises(ShapeError, match=r"\(B, 4, H, W\)"):
        vae.decode(bt.ones((1, 3, 7, 8)))


def test_old_names_of_attention(tmp_path: Path, reference: dict[str, np.ndarray]) -> None:
    """Files of 2022 call the maps of attention otherwise; sd-vae-ft-mse is one."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(TINY / "vae" / "diffusion_pytorch_model.safetensors")
    renamed = {}
    for name, array in state.items():
        for new, earlier in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{earlier}.")
        renamed[name] = array
    assert any("proj_attn" in name for name in renamed)
    save_file(renamed, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text((TINY / "vae" / "config.json").read_text())
    with bt.no_grad():
        found = load(tmp_path).module.decode(bt.tensor(reference["sample"][:1]) * 0.5)
    near(found, reference["decoded"])


def test_tiny_autoencoder_equals_the_reference() -> None:
    arrays = stored("autoencoder-tiny")
    tiny = load(DATA / "autoencoder-tiny").module
    x = bt.tensor(arrays["sample"])
    with bt.no_grad():
        near(tiny.encode(x), arrays["latents"])
        near(tiny.decode(bt.tensor(arrays["latents"])), arrays["decoded"])
        near(tiny(x), arrays["through"])
    with pytest.raises(ShapeError, match="multiples of 4"):
        tiny.encode(x[:, :, :10])


@pytest.mark.parametrize("folder", [TINY / "vae", DATA / "autoencoder-tiny"])
def test_autoencoders_take_pictures(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    vae = load(folder)
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (21, 34, 3), np.uint8))
    image.save(tmp_path / "picture.png")
    latents = vae.encode(tmp_path / "picture.png")
    factor = vae.config.factor
    assert latents.shape == (1, 4, 21 // factor, 34 // factor)
    np.testing.assert_array_equal(latents, vae.encode(np.asarray(image)))
    assert vae(image).size == (34 // factor * factor, 21 // factor * factor)
    again = load(vae.save(tmp_path / "saved"))
    np.testing.assert_array_equal(latents, again.encode(image))


# -- text encoder and transformer ----------------------------------------------------------------


def test_text_encoders_equal_the_references(reference: dict[str, np.ndarray]) -> None:
    text = load(TINY / "text_encoder").module
    near(run(text, bt.tensor(reference["ids"])).last_hidden_state, reference["tokens"])
    arrays = stored("clip-text-projection")
    text = load(DATA / "clip-text-projection").module
    ids = bt.tensor(arrays["ids"])
    near(run(text, ids).text_embeds, arrays["text_embeds"])
    with bt.no_grad():
        near(text.states(ids)[-2], arrays["penultimate"])


def test_dit_equals_the_reference() -> None:
    arrays = stored("dit-tiny")
    dit = load(DATA / "dit-tiny" / "transformer").module
    x = bt.tensor(arrays["sample"])
    near(run(dit, x, bt.tensor([3, 700]), bt.tensor([5, 1000])), arrays["noise_pred"])
    assert run(dit, bt.ones((1, 4, 4, 10)), 3, [1]).shape == (1, 8, 4, 10)
    with pytest.raises(ShapeError, match="multiples of 2"):
        dit(x[:, :, :5], 3, [1, 2])
    with pytest.raises(ShapeError, match="one label for each"):
        dit(x, 3, [1])
    with pytest.raises(IndexRangeError, match="class 1001"):
        dit(x, 3, [1, 1001])


def test_parts_take_no_raw_input() -> None:
    part = load(TINY / "unet")
    with pytest.raises(ConfigError, match="takes no raw"):
        part("a cat")


@pytest.mark.parametrize(
    "folder",
    [
        "stable-diffusion-tiny/unet",
        "unet-condition-v2",
        "unet-condition-xl",
        "dit-tiny/transformer",
        "stable-diffusion-tiny/vae",
        "autoencoder-tiny",
        "stable-diffusion-tiny/text_encoder",
    ],
)
def test_saved_networks_load_again(folder: str, tmp_path: Path) -> None:
    first = load(DATA / folder)
    again = load(first.save(tmp_path))
    assert again.config == first.config
    mine, other = (task.module.state_dict() for task in (again, first))
    assert list(mine) == list(other)
    for name, tensor in mine.items():
        np.testing.assert_array_equal(tensor.array, other[name].array)


# -- published sizes -----------------------------------------------------------------------------


def _names() -> dict[str, Any]:
    found = json.loads(gzip.decompress((DATA / "diffusion_names.json.gz").read_bytes()))
    del found["made_with"]
    return found


def _expanded(listed: dict[str, Any]) -> dict[str, list[int]]:
    """Names and shapes; see `listing` in references/common.py."""
    found = {}
    for key, line in listed.items():
        if len(line) == 1:
            found[key] = line[0]
            continue
        pattern = re.sub(r" \[[\d, ]*\]$", "", key)
        found.update({pattern.replace("{}", str(n), 1): line[0] for n in line[1]})
    return found


@pytest.mark.parametrize("name", sorted(_names()))
def test_names_and_shapes_at_published_sizes(name: str) -> None:
    """What is published fits, tensor by tensor; nothing is allocated for it."""
    said = _names()[name]
    found = architecture_of_config(said["config"])
    assert found is not None
    architecture, layout = found
    translate = architecture.layouts[layout].config
    assert translate is not None
    with init.empty():
        module = architecture.build(translate(said["config"]))
    shapes = {n: list(t.shape) for n, t in module.state_dict().items()}
    assert shapes == _expanded(said["tensors"])
    assert sum(p.size for p in module.parameters()) == said["parameters"]


def test_parameters_of_curated_models_are_counted() -> None:
    counts = {name: said["parameters"] for name, said in _names().items()}
    start = "stable-diffusion-v1-5/"
    vae = counts[f"{start}vae"]
    wanted = {
        "stable-diffusion-v1-5": sum(n for name, n in counts.items() if name.startswith(start)),
        "dit-xl-2-256": counts["dit-xl-2-256/transformer"] + vae,
        "sd-vae-ft-mse": vae,
        "taesd": counts["taesd"],
    }
    assert {name: get(name)[1].parameters for name in wanted} == wanted

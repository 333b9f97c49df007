"""UNet2D against the stored outputs of diffusers: outputs, names, saving, bad input."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.nn import init
from bestiary.core.weights import load_file, save_file
from bestiary.errors import ConfigError, DtypeError, IndexRangeError, ShapeError, WeightsError
from bestiary.generative.unet2d import Config, UNet2DModel, from_diffusers, to_diffusers
from bestiary.hub.registry import get

DATA = Path(__file__).parent.parent / "references" / "data"
UNETS = sorted(path.name for path in DATA.glob("unet2d-*"))
TINY = Config(
    sample_size=(8, 8),
    block_out_channels=(4, 8),
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    norm_num_groups=2,
)


def outputs(module: Any, stored: dict[str, np.ndarray], i: int) -> np.ndarray:
    labels = stored.get(f"{i}.labels")
    with bt.no_grad():
        found = module(
            bt.tensor(stored[f"{i}.sample"]),
            bt.tensor(stored[f"{i}.timestep"]),
            None if labels is None else bt.tensor(labels),
        )
    return np.asarray(found.array)


@pytest.mark.parametrize("folder", UNETS)
def test_outputs_equal_the_references(folder: str) -> None:
    model = bt.load(DATA / folder)
    stored = load_file(DATA / folder / "reference.safetensors")
    for i in range(2):
        theirs = stored[f"{i}.output"]
        assert np.abs(theirs).max() > 0.1
        np.testing.assert_allclose(outputs(model.module, stored, i), theirs, atol=1e-4)


@pytest.mark.parametrize("folder", UNETS)
def test_what_is_saved_is_the_same_again(folder: str, tmp_path: Path) -> None:
    model = bt.load(DATA / folder)
    model.save(tmp_path / "saved")
    again = bt.load(tmp_path / "saved")
    assert again.config == model.config
    stored = load_file(DATA / folder / "reference.safetensors")
    np.testing.assert_array_equal(
        outputs(again.module, stored, 0), outputs(model.module, stored, 0)
    )
    published = json.loads((DATA / folder / "config.json").read_text())
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert {k: saved[k] for k in published} == published
    file = "diffusion_pytorch_model.safetensors"
    theirs, ours = load_file(DATA / folder / file), load_file(tmp_path / "saved" / file)
    assert theirs.keys() == ours.keys()


def _listed() -> dict[str, Any]:
    text = gzip.decompress((DATA / "unet2d_names.json.gz").read_bytes())
    return dict(json.loads(text))


@pytest.mark.parametrize("name", ["ddpm-cifar10-32", "ddpm-cat-256"])
def test_names_and_shapes_at_full_size(name: str) -> None:
    architecture, entry = get(name)
    said = _listed()[name]["diffusers"]
    theirs = {}
    for key, (shape, *numbers) in said["tensors"].items():
        for number in numbers[0] if numbers else [None]:
            full = key.split(" ")[0]
            theirs[full if number is None else full.replace("{}", str(number))] = tuple(shape)
    with init.empty():
        module = architecture.build(architecture.config(**dict(entry.config or {})))
    ours = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    assert ours == theirs
    assert entry.parameters == said["parameters"]


def test_names_of_2022_are_understood(tmp_path: Path) -> None:
    """google/ddpm-* have query, key, value and proj_attn, in a torch checkpoint or not."""
    folder = DATA / "unet2d-cifar"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    arrays = {}
    for name, array in load_file(folder / "diffusion_pytorch_model.safetensors").items():
        for new, before in old.items():
            name = name.replace(f".{new}.", f".{before}.")
        arrays[name] = array
    assert any("proj_attn" in name for name in arrays)
    save_file(arrays, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    stored = load_file(folder / "reference.safetensors")
    found = outputs(bt.load(tmp_path).module, stored, 0)
    np.testing.assert_allclose(found, stored["0.output"], atol=1e-4)


def test_a_config_is_published_and_read_back() -> None:
    assert from_diffusers(json.loads(json.dumps(to_diffusers(TINY)))) == TINY
    other = dataclasses.replace(TINY, sample_size=(8, 12), mid_block=False)
    assert from_diffusers(json.loads(json.dumps(to_diffusers(other)))) == other


def test_one_timestep_serves_a_batch() -> None:
    bt.manual_seed(0)
    model = UNet2DModel(TINY).eval()
    x = bt.tensor(np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32))
    with bt.no_grad():
        each = model(x, bt.tensor([7, 7, 7]))
        np.testing.assert_array_equal(model(x, 7).array, each.array)
        np.testing.assert_array_equal(model(x, bt.tensor(7.0)).array, each.array)
        assert not np.allclose(model(x, 900).array, each.array)


def test_it_learns() -> None:
    """A few steps of training lower the loss, and every parameter gets a gradient."""
    bt.manual_seed(0)
    model = UNet2DModel(dataclasses.replace(TINY, num_class_embeds=3))
    optimizer = bt.optim.AdamW(model.parameters(), lr=3e-3)
    rng = np.random.default_rng(0)
    x = bt.tensor(rng.standard_normal((4, 3, 8, 8)).astype(np.float32))
    target = bt.tensor(rng.standard_normal((4, 3, 8, 8)).astype(np.float32))
    labels = bt.tensor([0, 1, 2, 1])
    losses = []
    for _ in range(12):
        loss = bt.mean((model(x, bt.tensor([1, 300, 600, 999]), labels) - target) ** 2)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_compiled_it_gives_the_same() -> None:
    model = bt.load(DATA / "unet2d-classes").module
    stored = load_file(DATA / "unet2d-classes" / "reference.safetensors")
    fast = bt.compile(model)
    for _ in range(2):
        np.testing.assert_allclose(outputs(fast, stored, 0), stored["0.output"], atol=1e-4)
    assert "1 programs" in repr(fast)
    flipped = {**stored, "0.timestep": stored["0.timestep"][::-1].copy()}
    np.testing.assert_allclose(outputs(fast, flipped, 0), outputs(model, flipped, 0), atol=1e-5)


# -- bad input ---------------------------------------------------------------------------------


def test_samples_it_cannot_take_are_named() -> None:
    model = UNet2DModel(TINY).eval()
    good = bt.zeros((2, 3, 8, 8))
    with pytest.raises(ShapeError, match=r"multiples of 2\.\nNearest: 8 x 8"):
        model(bt.zeros((2, 3, 9, 8)), 1)
    with pytest.raises(ShapeError, match=r"samples of shape \(B, 3, H, W\) are wanted"):
        model(bt.zeros((2, 1, 8, 8)), 1)
    with pytest.raises(ShapeError, match="are wanted"):
        model(bt.zeros((3, 8, 8)), 1)
    with pytest.raises(ShapeError, match="are wanted"):
        model(bt.zeros((0, 3, 8, 8)), 1)
    with pytest.raises(ShapeError, match="one for each of the 2 samples"):
        model(good, bt.tensor([1, 2, 3]))
    with pytest.raises(ConfigError, match="has no classes"):
        model(good, 1, bt.tensor([1, 2]))


def test_classes_it_cannot_take_are_named() -> None:
    model = UNet2DModel(dataclasses.replace(TINY, num_class_embeds=3)).eval()
    x = bt.zeros((2, 3, 8, 8))
    with pytest.raises(ConfigError, match="give class_labels"):
        model(x, 1)
    with pytest.raises(IndexRangeError, match="class 3 is outside its 3 classes"):
        model(x, 1, bt.tensor([0, 3]))
    with pytest.raises(IndexRangeError, match="class -1"):
        model(x, 1, bt.tensor([0, -1]))
    with pytest.raises(DtypeError, match="whole numbers"):
        model(x, 1, bt.tensor([0.0, 1.0]))
    with pytest.raises(ShapeError, match="one label for each"):
        model(x, 1, bt.tensor([0]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"block_out_channels": (4, 8, 8)}, "has 3 levels"),
        ({"norm_num_groups": 3}, "multiples of norm_num_groups=3"),
        ({"down_block_types": ("DownBlock2D", "SkipDownBlock2D")}, "down_block_types='SkipDown"),
        ({"act_fn": "tanh"}, "act_fn='tanh'"),
        ({"sample_size": (0, 8)}, "sample_size"),
        ({"dropout": float("nan")}, "dropout=nan"),
        ({"layers_per_block": 0}, "layers_per_block=0"),
        ({"class_embed_type": "table"}, "class_embed_type='table'"),
    ],
)
def test_configurations_that_make_no_sense_are_named(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        dataclasses.replace(TINY, **change)


def test_published_configurations_that_are_not_understood_are_named(tmp_path: Path) -> None:
    folder = DATA / "unet2d-cifar"
    said = json.loads((folder / "config.json").read_text())
    with pytest.raises(ConfigError, match="keys that are not understood:\n  skips=2"):
        from_diffusers({**said, "skips": 2})
    with pytest.raises(ConfigError, match="time_embedding_type='fourier'"):
        from_diffusers({**said, "time_embedding_type": "fourier"})
    with pytest.raises(ConfigError, match="does not divide"):
        UNet2DModel(dataclasses.replace(TINY, attention_head_dim=3))
    arrays = load_file(folder / "diffusion_pytorch_model.safetensors")
    arrays.pop("conv_in.bias")
    save_file(arrays, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(WeightsError, match=r"conv_in\.bias"):
        bt.load(tmp_path)

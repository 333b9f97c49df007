"""Teaching a text-to-image model: the losses and the file equal diffusers', resuming, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import bestiary as bt
from bestiary.core import nn, optim
from bestiary.core.errors import ConfigError, DataError
from bestiary.core.nn.lora import adapters
from bestiary.core.ops.update import assign
from bestiary.core.weights import load_file
from bestiary.generative.schedulers import DDPMScheduler
from bestiary.generative.training.captions import read_captions
from bestiary.generative.training.diffusion import DiffusionLoss
from bestiary.generative.training.text_to_image_lora import (
    FILE,
    TARGETS,
    Settings,
    TextToImageLoRA,
)
from bestiary.hub.commands.train import train_command
from bestiary.hub.loading import load

DATA = Path(__file__).parent.parent / "references" / "data"
QUICK: dict[str, Any] = {"steps": 6, "batch_size": 2, "samples": 2, "sample_steps": 2, "lr": 0.01}
QUICK |= {"size": 16, "warmup": 0, "save_every": 2, "sample_every": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures with captions beside them."""
    rng = np.random.default_rng(0)
    made = tmp_path / "pictures"
    made.mkdir()
    for i in range(5):
        pixels = rng.integers(0, 256, (20 + i, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(made / f"{i}.png")
        (made / f"{i}.txt").write_text(f"a cat on\n roof {i % 2}\n")
    return made


def taught(folder: Path, out: Path, base: Path, **settings: Any) -> TextToImageLoRA:
    chosen = Settings(**(QUICK | settings))
    return TextToImageLoRA(load(base), read_captions(folder), chosen, out=out, quiet=True)


def test_losses_and_file_equal_diffusers(text_folder: Path, folder: Path, tmp_path: Path) -> None:
    stored = load_file(DATA / "diffusion-lora" / "reference.safetensors")
    job = taught(folder, tmp_path, text_folder, rank=3)
    unet = job.model.module.unet
    for path, layer in adapters(unet):
        for name in ("lora_A", "lora_B"):
            start = stored[f"start.{path}.{name}.weight"]
            assign(getattr(layer, name).weight, bt.tensor(start))
    noise = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    loss = DiffusionLoss(noise, min_snr=5.0)
    optimizer = optim.AdamW(job.adapted.parameters(), lr=1e-2, weight_decay=0.01)
    losses = []
    for i in range(len(stored["losses"])):
        times = stored["times"][i]
        parts = stored["clean"][i], stored["noise"][i], times, stored["contexts"][i]
        value = loss.weighted(loss.errors(job.adapted, *parts), times)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    np.testing.assert_allclose(losses, stored["losses"], rtol=1e-4)
    written = load_file(job.save(tmp_path / "file"))
    wanted = load_file(DATA / "diffusion-lora" / FILE)
    assert set(written) == set(wanted)
    for name, array in wanted.items():
        np.testing.assert_allclose(written[name], array, atol=1e-4)
    nn.remove_lora(unet)
    job.model.load_lora(DATA / "diffusion-lora")
    given = (bt.tensor(stored[name][0]) for name in ("clean", "times", "contexts"))
    with bt.no_grad():
        said = unet(*given)
    np.testing.assert_allclose(said.numpy(), stored["said"], atol=1e-4)


def test_a_folder_becomes_an_adapter(text_folder: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["text-to-image-lora", folder, "--model", text_folder, "-o", out, "--json", "--flip"]
    words += "--size 16 --steps 4 --batch-size 2 --samples 2 --sample-steps 2 --rank 2".split()
    words += "--alpha 6 --dropout 0.1 --lr 0.01 --epochs 9 --sample-every 1".split()
    result = CliRunner().invoke(train_command, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["steps"] == 4 and Path(said["file"]).name == FILE
    names = sorted(path.name for path in (out / "samples").iterdir())
    assert names == ["before.png", "epoch-0001.png", "last.png"]
    arrays = load_file(out / FILE)
    model = load(text_folder)
    layers = [p for p, _ in model.module.unet.named_modules() if p.endswith(TARGETS)]
    assert len(arrays) == 2 * len(layers)
    before = {path: model.module.unet.get_submodule(path).weight.array.copy() for path in layers}
    model.load_lora(out)
    for path in layers:
        down, up = (arrays[f"unet.{path}.lora.{name}.weight"] for name in ("down", "up"))
        assert down.shape[0] == 2 and np.abs(up).max() > 0
        now = model.module.unet.get_submodule(path).weight.array
        np.testing.assert_allclose(now - before[path], up @ down, atol=1e-6)


def test_the_trained_model_is_the_loaded_one(
    text_folder: Path, folder: Path, tmp_path: Path
) -> None:
    """What is merged from the file draws what the adapters drew while they learnt."""
    job = taught(folder, tmp_path / "out", text_folder, alpha=16.0)
    seen = {}
    job.trainer.callbacks = [lambda t: seen.update(grid=job.samples()) if t.step == 6 else None]
    model = job.fit()
    assert not list(adapters(model.module.unet)) and model.adapters.said() == {"out": 1.0}
    np.testing.assert_allclose(job.samples(), seen["grid"], atol=1e-4)
    model.unload_lora()
    assert np.abs(job.samples() - seen["grid"]).max() > 1e-3
    assert all(p.requires_grad for p in model.module.unet.parameters())


def test_figures_and_grids_are_in_the_run(text_folder: Path, folder: Path, tmp_path: Path) -> None:
    taught(folder, tmp_path / "out", text_folder).fit()
    run = bt.read_run(tmp_path / "out")
    assert run.about["hyperparameters"]["rank"] == 8 and run.status == "finished"
    assert {"train/loss", "evaluation/loss t=500"} <= set(run.scalars)
    assert len(run.images["samples"]) == 4  # before, two epochs, last


def test_resuming_is_bit_identical(text_folder: Path, folder: Path, tmp_path: Path) -> None:
    class Down(Exception):
        pass

    def stop(trainer: Any) -> None:
        if trainer.step == 5:
            raise Down

    settings = {"flip": True, "dropout": 0.2, "drop_caption": 0.5}
    whole = taught(folder, tmp_path / "whole", text_folder, **settings)
    whole.fit()
    first = taught(folder, tmp_path / "parts", text_folder, **settings)
    first.trainer.callbacks = [stop]
    with pytest.raises(Down):
        first.fit()
    assert not list(adapters(first.model.module.unet))
    second = taught(folder, tmp_path / "parts", text_folder, **settings)
    second.fit("auto")
    wanted, found = (load_file(tmp_path / name / FILE) for name in ("whole", "parts"))
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)
    assert second.trainer.history.epochs == whole.trainer.history.epochs
    tensors = next((tmp_path / "whole" / "checkpoints").glob("*6")) / "tensors.safetensors"
    assert tensors.stat().st_size < 200_000  # the adapters, not the networks


def test_lists_of_captions(folder: Path) -> None:
    assert read_captions(folder).captions[:2] == ("a cat on roof 0", "a cat on roof 1")
    (folder / "metadata.csv").write_text("file_name,text\n3.png,three\n1.png,\n")
    with pytest.raises(DataError, match=r"1 of 2 pictures have no caption, 1\.png"):
        read_captions(folder)
    found = read_captions(folder, "a thing")
    assert found.captions == ("three", "a thing") and found.first(1).files == (folder / "3.png",)
    lines = [{"file_name": "2.png", "text": "two"}, {"file_name": "0.png", "caption": "none"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert read_captions(folder).captions == ("two", "none")


@pytest.mark.parametrize(
    "text, match",
    [
        ('{"file_name": "../a.png", "text": "x"}', "outside"),
        ('{"file_name": "/etc/a.png", "text": "x"}', "outside"),
        ('{"file_name": "9.png", "text": "x"}', "not there"),
        ('{"text": "x"}', "line 1: no 'file_name'"),
        ("[1]", "line 1: no 'file_name'"),
        ('{"file_name": "1.png", "text": 3}', "no text"),
        ("{", "line 1: no JSON"),
        ("[" * 100_000, "no JSON"),
        ("", "there are no pictures"),
    ],
)
def test_damaged_lists(folder: Path, text: str, match: str) -> None:
    (folder / "metadata.jsonl").write_text(text)
    with pytest.raises(DataError, match=match):
        read_captions(folder)


def test_what_cannot_be_taught(text_folder: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "4.txt").unlink()
    with pytest.raises(DataError, match=r"4\.png"):
        read_captions(folder)
    with pytest.raises(DataError, match="no folder"):
        read_captions(folder / "none")
    pictures = read_captions(folder, "x")
    plain, half = load(text_folder), load(text_folder, dtype="float16")
    with pytest.raises(ConfigError, match="float32"):
        TextToImageLoRA(half, pictures, Settings(**QUICK), out=tmp_path)
    adapted = load(text_folder)
    adapted.load_lora(DATA / "diffusion-lora")
    with pytest.raises(ConfigError, match="has adapters"):
        TextToImageLoRA(adapted, pictures, Settings(**QUICK), out=tmp_path)
    with pytest.raises(ConfigError, match="no pictures of texts"):
        TextToImageLoRA(object(), pictures, out=tmp_path)  # type: ignore[arg-type]
    wrong: Any = "runs"
    job = TextToImageLoRA(plain, pictures, Settings(**QUICK), out=tmp_path, run=wrong)
    with pytest.raises(ConfigError, match="no run"):
        job.fit()
    broken = folder / "3.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(DataError, match="not an image"):
        TextToImageLoRA(plain, pictures, Settings(**QUICK), out=tmp_path)
    with pytest.raises(ConfigError, match="rank"):
        Settings(rank=0)
    with pytest.raises(ConfigError, match="drop_caption"):
        Settings(drop_caption=2.0)
    said = CliRunner().invoke(train_command, ["text-to-image-lora", str(folder)])
    assert isinstance(said.exception, ConfigError) and "--model" in str(said.exception)

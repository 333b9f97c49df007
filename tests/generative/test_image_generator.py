"""Pictures of UNet2D pipelines: equal to diffusers', seeds, labels, callbacks, bad input."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.weights import load_file
from bestiary.core.weights.safetensors import SafetensorsFile
from bestiary.errors import ConfigError, DataError, HubError, ShapeError
from bestiary.generative.pipelines.sampling import SamplingStep
from bestiary.generative.schedulers import DDIMScheduler, DDPMScheduler
from bestiary.generative.tasks.image_generator import ImageGenerator
from bestiary.generative.unet2d import Config, UNet2DModel
from bestiary.hub.card import Card

DATA = Path(__file__).parent.parent / "references" / "data"
TINY = Config(
    sample_size=(8, 8),
    block_out_channels=(4, 8),
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    norm_num_groups=2,
)


def generator(labels: list[str] | None = None, **config: Any) -> ImageGenerator:
    bt.manual_seed(0)
    chosen = dataclasses.replace(TINY, **config)
    return ImageGenerator(
        UNet2DModel(chosen).eval(),
        config=chosen,
        card=Card("tiny", "unet2d", ImageGenerator.task),
        scheduler=DDIMScheduler(),
        labels=labels,
    )


@pytest.fixture
def classes() -> ImageGenerator:
    """Three classes, and a label for any."""
    return generator(["boot", "bag", "dress"], num_class_embeds=4)


def pixels(pictures: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(p) for p in pictures]).astype(int)


@pytest.mark.parametrize("folder", ["ddpm-pipeline", "ddim-pipeline"])
@pytest.mark.parametrize("compiled", [False, True])
def test_pictures_equal_diffusers(folder: str, compiled: bool, monkeypatch: Any) -> None:
    """With its files in subfolders, and all in one as google/ddpm-* have them."""
    with SafetensorsFile(DATA / folder / "reference.safetensors") as file:
        call = json.loads(file.metadata["call"])
    stored = load_file(DATA / folder / "reference.safetensors")
    model = bt.load(DATA / folder)
    model.compile = compiled
    assert type(model) is ImageGenerator
    kind = type(model.scheduler)
    noises = iter(stored["noises"][1:])

    def given(self: Any, *args: Any, generator: Any = None, **rest: Any) -> Any:
        stochastic = (isinstance(self, DDPMScheduler) and int(args[1]) > 0) or rest.get("eta")
        noise = bt.tensor(next(noises)) if stochastic else None
        return step(self, *args, noise=noise, **rest)

    step = kind.step
    monkeypatch.setattr(kind, "step", given)
    call["steps"] = call.pop("num_inference_steps")
    monkeypatch.setattr("bestiary.generative.tasks.image_generator.check_settings", lambda *_: None)
    found = model(2, noise=stored["noises"][0], output="array", **call)
    ours = np.clip(found.transpose(0, 2, 3, 1) / 2 + 0.5, 0, 1)
    assert 0.05 < stored["pictures"].mean() < 0.95
    np.testing.assert_allclose(ours, stored["pictures"], atol=1e-3)


def test_a_saved_pipeline_is_the_same_again(tmp_path: Path, classes: ImageGenerator) -> None:
    classes.defaults = {"steps": 3, "guidance": 2.0}
    folder = classes.save(tmp_path / "saved")
    again = bt.load(folder)
    assert again.labels == ["boot", "bag", "dress"]
    assert again.config == classes.config
    assert again.defaults == {"steps": 3, "guidance": 2.0}
    assert again.scheduler.config == classes.scheduler.config
    ours, theirs = (m(2, label="bag", seed=5) for m in (classes, again))
    assert np.abs(pixels(ours) - pixels(theirs)).max() <= 1
    index = json.loads((folder / "model_index.json").read_text())
    assert index["unet"] == ["diffusers", "UNet2DModel"]
    assert (folder / "diffusion_pytorch_model.safetensors").is_file()


def test_pictures_are_pictures() -> None:
    found = generator()(3, seed=0, steps=2)
    assert [type(p) for p in found] == [Image.Image] * 3
    assert [p.size for p in found] == [(8, 8)] * 3
    assert {p.mode for p in found} == {"RGB"}
    grey = generator(in_channels=1, out_channels=1)(1, seed=0, steps=2, size=(12, 16))
    assert (grey[0].mode, grey[0].size) == ("L", (16, 12))
    array = generator()(2, seed=0, steps=2, output="array")
    assert array.shape == (2, 3, 8, 8)


def test_a_seed_gives_the_same_picture_alone_and_in_any_batch(classes: ImageGenerator) -> None:
    for scheduler in ("ddim", "ddpm", "euler-ancestral"):
        settings: dict[str, Any] = {"steps": 4, "scheduler": scheduler}
        whole = pixels(classes(5, seed=7, **settings))
        parts = pixels(classes(5, seed=7, batch_size=2, **settings))
        alone = pixels(classes(1, seed=9, **settings))
        chosen = pixels(classes(2, seed=[9, 7], **settings))
        assert np.abs(whole - parts).max() <= 1  # sums in another order round otherwise
        assert np.abs(whole[2] - alone[0]).max() <= 1
        assert np.abs(whole[[2, 0]] - chosen).max() <= 1
        assert np.abs(whole[0] - whole[1]).max() > 10


def test_without_a_seed_pictures_differ_and_follow_manual_seed() -> None:
    model = generator()
    bt.manual_seed(3)
    first, second = pixels(model(1, steps=2)), pixels(model(1, steps=2))
    bt.manual_seed(3)
    again = pixels(model(1, steps=2))
    assert np.abs(first - again).max() <= 1
    assert np.abs(first - second).max() > 10


def test_halves_make_nearly_the_same_pictures() -> None:
    full, half = (bt.load(DATA / "ddpm-pipeline", dtype=d) for d in ("float32", "bfloat16"))
    assert half.module.dtype == bt.bfloat16
    settings: dict[str, Any] = {"seed": 1, "steps": 5, "scheduler": "ddim", "output": "array"}
    found = half(2, **settings)
    assert found.dtype == np.float32
    assert np.abs(found - full(2, **settings)).mean() < 0.1


def test_labels_by_name_number_and_list(classes: ImageGenerator) -> None:
    settings: dict[str, Any] = {"seed": 0, "steps": 3, "output": "array"}
    by_name = classes(2, label="Bag", **settings)
    np.testing.assert_allclose(by_name, classes(2, label=1, **settings), atol=1e-4)
    mixed = classes(2, label=["boot", 1], **settings)
    np.testing.assert_allclose(mixed[1], by_name[1], atol=1e-4)
    assert not np.allclose(mixed[0], by_name[0], atol=1e-2)
    turns = classes(3, **settings)
    np.testing.assert_allclose(turns, classes(3, label=[0, 1, 2], **settings), atol=1e-4)


def test_guidance_moves_away_from_what_is_said_without_a_class(classes: ImageGenerator) -> None:
    settings: dict[str, Any] = {"label": "bag", "seed": 0, "steps": 1, "output": "array"}
    classes.scheduler = DDIMScheduler(clip_sample=False)
    plain, none, twice = (classes(1, guidance=g, **settings) for g in (1.0, 0.0, 2.0))
    assert not np.allclose(plain, none, atol=1e-4)
    np.testing.assert_allclose(twice, none + 2 * (plain - none), atol=1e-3 * np.abs(twice).max())


def test_a_callback_sees_every_step() -> None:
    seen: list[SamplingStep] = []
    generator()(3, seed=0, steps=4, callback=seen.append, batch_size=2)
    assert [s.step for s in seen] == [1, 2, 3, 4] * 2
    assert {s.steps for s in seen} == {4}
    assert [s.timestep for s in seen[:4]] == [750, 500, 250, 0]
    assert seen[0].sample.shape == (2, 3, 8, 8)
    assert len(seen[0].pictures()) == 2


def test_another_scheduler_keeps_the_noise_of_the_training() -> None:
    model = generator()
    model.scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_end=0.03)
    assert model._walked("dpm++").config.beta_end == 0.03
    assert model._walked("dpm++").config.beta_schedule == "scaled_linear"
    given = DDPMScheduler(beta_end=0.01)
    assert model._walked(given) is given
    model(1, seed=0, steps=3, scheduler="heun")


def test_default_steps(classes: ImageGenerator) -> None:
    assert classes._steps(DDIMScheduler()) == 50
    assert classes._steps(DDPMScheduler()) == 1000
    assert classes._steps(DDIMScheduler(num_train_timesteps=20)) == 20
    classes.defaults["steps"] = 7
    assert classes._steps(DDPMScheduler()) == 7


# -- bad input ---------------------------------------------------------------------------------


def test_labels_it_does_not_have_are_named(classes: ImageGenerator) -> None:
    with pytest.raises(DataError, match=r"no label 'boots'.\nNearest: boot\nLabels: boot, bag"):
        classes(1, label="boots")
    for bad in (3, -1, True, 1.5):
        with pytest.raises(DataError, match=r"numbered 0 to 2|3 labels|bool|float"):
            classes(1, label=[bad])
    with pytest.raises(DataError, match="2 labels for 3 pictures"):
        classes(3, label=["bag", "boot"])
    with pytest.raises(DataError, match="one kind of picture and has no labels; got 'cat'"):
        generator()(1, label="cat")


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        ({"count": 0}, ConfigError, "0 pictures"),
        ({"count": 2.0}, ConfigError, "2.0 pictures"),
        ({"steps": 0}, ConfigError, "0 steps make no sense"),
        ({"steps": 5000}, ConfigError, "from 1 to 1000"),
        ({"seed": "x"}, ConfigError, "seed='x'"),
        ({"count": 2, "seed": [1]}, ConfigError, "1 seeds for 2 pictures"),
        ({"size": 9}, ShapeError, "9 x 9 cannot be halved"),
        ({"size": (0, 8)}, ConfigError, "size=\\(0, 8\\)"),
        ({"guidance": 3.0}, ConfigError, "not trained for guidance"),
        ({"guidance": "much"}, ConfigError, "guidance='much'"),
        ({"scheduler": "magic"}, ConfigError, "'magic' is not supported"),
        ({"output": "gif"}, ConfigError, "output='gif'"),
        ({"batch_size": 0}, ConfigError, "batch_size=0"),
        ({"temperature": 2}, ConfigError, "no setting temperature; it has: eta"),
        ({"noise": np.zeros((1, 3, 4, 4))}, ShapeError, "noise of shape"),
        ({"eta": 2.0}, ConfigError, "eta=2.0"),
    ],
)
def test_calls_that_make_no_sense_are_named(call: dict[str, Any], error: Any, told: str) -> None:
    with pytest.raises(error, match=told):
        generator()(**{"steps": 2, "seed": 0, **call})


def test_a_network_that_gives_nan_is_told() -> None:
    model = generator()
    model.scheduler = DDIMScheduler(clip_sample=False)
    model.module.conv_out.bias.array[...] = np.nan
    with pytest.raises(DataError, match="NaN or infinity"):
        model(1, seed=0, steps=2)


def test_without_a_scheduler_the_fix_is_told(tmp_path: Path) -> None:
    model = bt.load(DATA / "unet2d-cifar")
    assert "no scheduler" in repr(model)
    with pytest.raises(ConfigError, match="scheduler='ddpm'"):
        model(1, seed=0)
    assert len(model(1, seed=0, scheduler="ddim", steps=2)) == 1
    (tmp_path / "model_index.json").write_text(
        json.dumps({"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]})
    )
    with pytest.raises(HubError, match=r"unet/config\.json"):
        bt.load(tmp_path)

"""`bestiary sample`: pictures that say how they were made, and are made again from that."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.errors import DataError
from bestiary.core.weights import save_file
from bestiary.generative import vqvae
from bestiary.generative.pipelines.metadata import settings_of, write_picture
from bestiary.generative.tasks.codebook import CodebookAutoencoder
from bestiary.generative.tasks.text_to_image import TextToImage
from bestiary.hub.card import Card
from bestiary.hub.cli import _run
from bestiary.hub.commands import sample

DATA = Path(__file__).parent.parent / "references" / "data"
PROMPT = "a photo of a cat"
QUICK = ["--steps", "2", "--size", "16"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, int)


def test_a_picture_is_made_again(here: Path, text_folder: Path, capfd: Any) -> None:
    name = str(text_folder)
    arguments = ["sample", name, PROMPT, "--negative", "a dog", "--scheduler", "euler", *QUICK]
    assert _run([*arguments, "--json", "-o", "a.png"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed["files"] == ["a.png"]
    said = settings_of("a.png")
    assert said == printed["pictures"][0]
    assert said["prompt"] == PROMPT and said["negative"] == "a dog" and said["steps"] == 2
    assert said["model"] == "tiny" and said["size"] == [16, 16]
    assert said["scheduler"]["_class_name"] == "EulerDiscreteScheduler"
    assert str(text_folder.parent) not in json.dumps(said)
    assert _run(["sample", name, "--from", "a.png", "-o", "b.png"]) == 0
    assert np.abs(pixels("a.png") - pixels("b.png")).max() <= 1
    assert _run(["sample", name, "--from", "a.png", "--seed", "7", "-o", "c.png"]) == 0
    assert np.abs(pixels("a.png") - pixels("c.png")).max() > 5
    assert settings_of("c.png")["seed"] == 7
    # Of a folder by its name alone nobody knows which is meant.
    assert _run(["sample", "--from", "a.png"]) == 1
    assert "Say where yours is" in capfd.readouterr().err


def test_numbers_that_are_nought_count(here: Path, text_folder: Path, capfd: Any) -> None:
    arguments = ["sample", str(text_folder), PROMPT, *QUICK, "--seed", "0", "--guidance", "0"]
    assert _run([*arguments, "-o", "a.png"]) == 0
    assert "seed 0," in capfd.readouterr().err
    said = settings_of("a.png")
    assert said["seed"] == 0 and said["guidance"] == 0


@pytest.mark.parametrize(
    ("out", "words"), [("a.xyz", "not as .xyz"), ("file/a.png", "file is a file"), ("file", "file")]
)
def test_results_that_cannot_be_written_are_refused_before_the_work(
    here: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch, out: str, words: str
) -> None:
    Path("file").write_text("")
    monkeypatch.setattr(sample, "load", None)  # not even that
    assert _run(["sample", "ddpm-fashion", "-o", out]) == 1
    assert words in capfd.readouterr().err


def test_several_pictures(here: Path, text_folder: Path, capfd: Any) -> None:
    arguments = ["sample", str(text_folder), PROMPT, "-n", "4", "--seed", "3", *QUICK]
    assert _run([*arguments, "-o", "sheet.png"]) == 0
    assert pixels("sheet.png").shape == (34, 34, 3)
    assert _run(["sample", str(text_folder), "--from", "sheet.png", "-o", "again.png"]) == 0
    assert np.abs(pixels("sheet.png") - pixels("again.png")).max() <= 1
    assert _run([*arguments, "-o", "folder"]) == 0
    assert sorted(p.name for p in Path("folder").iterdir()) == [f"{i}.png" for i in (3, 4, 5, 6)]
    assert np.abs(pixels("folder/4.png") - pixels("sheet.png")[:16, 18:]).max() <= 1
    capfd.readouterr()
    assert _run(["sample", str(text_folder), PROMPT, *QUICK, "--no-metadata"]) == 0
    assert _run(["sample", str(text_folder), PROMPT, *QUICK, "--low-memory"]) == 0
    assert capfd.readouterr().out.split() == ["sample.png", "sample-2.png"]
    with pytest.raises(DataError, match="does not say how it was made"):
        settings_of("sample.png")


def test_pictures_of_pictures(here: Path, text_folder: Path, capfd: Any) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save("init.png")
    Image.fromarray(np.eye(16, dtype=np.uint8) * 255).save("mask.png")
    name = str(text_folder)
    given = ["--init", "init.png", "--mask", "mask.png", "--strength", "0.9"]
    assert _run(["sample", name, PROMPT, "--steps", "3", *given, "-o", "a.png"]) == 0
    assert settings_of("a.png")["strength"] == 0.9
    capfd.readouterr()
    assert _run(["sample", name, "--from", "a.png", "-o", "b.png"]) == 1
    assert "--init FILE" in capfd.readouterr().err
    assert _run(["sample", name, "--from", "a.png", *given, "-o", "b.png"]) == 0
    assert np.abs(pixels("a.png") - pixels("b.png")).max() <= 1


def test_pictures_of_classes_and_of_one_kind(here: Path) -> None:
    arguments = ["--steps", "2", "-n", "2", "--seed", "1"]
    assert _run(["sample", str(DATA / "dit-tiny"), "--label", "thing 3", *arguments]) == 0
    assert settings_of("sample.png")["label"] == 3
    assert _run(["sample", str(DATA / "dit-tiny"), "--from", "sample.png", "-o", "b.png"]) == 0
    assert np.abs(pixels("sample.png") - pixels("b.png")).max() <= 1
    assert _run(["sample", str(DATA / "ddpm-pipeline"), *arguments, "-o", "kind.png"]) == 0
    assert settings_of("kind.png")["model"] == "ddpm-pipeline"


def test_a_codebook_draws_codes(here: Path, capfd: Any) -> None:
    card = Card(name="book", architecture="vqvae", task="image-autoencoding")
    config = vqvae.Config(size=8, channels=1, width=4, entries=8)
    network = vqvae.VQVAE(config).eval()
    made = CodebookAutoencoder(network, architecture="vqvae", config=config, card=card)
    made.save(here / "book")
    assert _run(["sample", "book", "-n", "4", "--seed", "3", "-o", "a.png"]) == 0
    assert pixels("a.png").shape == (18, 18)
    assert _run(["sample", "book", "--from", "a.png", "-o", "b.png"]) == 0
    assert (pixels("a.png") == pixels("b.png")).all()
    assert _run(["sample", "book", "--label", "1"]) == 1
    assert "takes no --label" in capfd.readouterr().err


def test_adapters(here: Path, text_folder: Path, capfd: Any) -> None:
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    ones = np.ones((1, 4), np.float32)
    save_file(
        {f"{layer}.lora_down.weight": ones, f"{layer}.lora_up.weight": ones.T}, "style.safetensors"
    )
    name = str(text_folder)
    assert _run(["sample", name, PROMPT, *QUICK, "--lora", "style.safetensors:0.5"]) == 0
    assert settings_of("sample.png")["adapters"] == {"style": 0.5}
    capfd.readouterr()
    assert _run(["sample", name, "--from", "sample.png"]) == 1
    assert "made with the adapters style" in capfd.readouterr().err
    assert _run(["sample", name, PROMPT, *QUICK, "--lora", "style.safetensors:x"]) == 1
    assert "'x' is no scale" in capfd.readouterr().err


def test_long_runs_are_announced(
    here: Path, text_folder: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "_LONG", 0)
    assert _run(["sample", str(text_folder), PROMPT, *QUICK]) == 0
    assert "GB of memory" in capfd.readouterr().err


def test_models_of_strangers_are_not_fetched_unasked(
    here: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.new("RGB", (4, 4))
    image.info["bestiary"] = {"model": "somebody/something", "prompt": "x"}
    write_picture(image, "a.png")
    asked = []
    monkeypatch.setattr(sample, "load", lambda *_, **__: asked.append(1))
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert _run(["sample", "--from", "a.png"]) == 130
    assert "Fetch it?" in capfd.readouterr().err
    assert not asked


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "needs a prompt"),
        ([PROMPT, "--label", "3"], "takes no --label"),
        ([PROMPT, "--size", "17"], "Nearest: 16 x 16"),
        ([PROMPT, "--mask", "{picture}"], "init= is the picture"),
        ([PROMPT, "--scheduler", "quick"], "'quick' is not supported"),
        (["--from", "{picture}"], "does not say how it was made"),
        ([PROMPT, "-o", "a.xyz", *QUICK], "written as .png"),
        (["mat " * 40], "the text encoder takes"),
    ],
)
def test_arguments_that_make_no_sense(
    here: Path, text_folder: Path, capfd: Any, arguments: list[str], words: str
) -> None:
    Image.new("RGB", (4, 4)).save("picture.png")
    given = [a.format(picture="picture.png") for a in arguments]
    assert _run(["sample", str(text_folder), *given]) == 1
    assert words in capfd.readouterr().err


def test_no_name_or_no_pictures(here: Path, capfd: Any) -> None:
    assert _run(["sample"]) == 2
    assert "NAME of a model is missing" in capfd.readouterr().err
    assert _run(["sample", "x", "--size", "big"]) == 2
    assert "neither 512" in capfd.readouterr().err
    assert _run(["sample", str(DATA / "stable-diffusion-tiny" / "unet")]) == 1
    assert "makes no pictures" in capfd.readouterr().err


def test_settings_in_files(tmp_path: Path, text_model: TextToImage) -> None:
    picture = text_model(PROMPT, seed=4, steps=2, size=16)[0]
    path = write_picture(picture, tmp_path / "a.png")
    assert settings_of(path)["seed"] == 4
    write_picture(picture, tmp_path / "a.jpg")
    assert pixels(tmp_path / "a.jpg").shape == (16, 16, 3)
    assert bt.__version__ == settings_of(path)["bestiary"]
    (tmp_path / "b.png").write_bytes(b"none")
    with pytest.raises(DataError, match="not an image"):
        settings_of(tmp_path / "b.png")

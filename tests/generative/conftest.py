"""Tiny pipelines that diffusers saved, put together with a tokenizer; the noise that it drew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.weights import load_file
from bestiary.generative.pipelines import sampling
from bestiary.generative.schedulers import predictions
from bestiary.hub.loading import load

DATA = Path(__file__).parent.parent / "references" / "data"


def stable_diffusion(folder: Path, unet: str | None = None) -> Path:
    """The tiny Stable Diffusion in a folder, with another network if one is named."""
    shutil.copytree(DATA / "stable-diffusion-tiny", folder, dirs_exist_ok=True)
    (folder / "reference.safetensors").unlink()
    (folder / "tokenizer").mkdir()
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(DATA / "clip-transformers" / name, folder / "tokenizer")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index))
    if unet is not None:
        shutil.rmtree(folder / "unet")
        shutil.copytree(DATA / unet, folder / "unet")
        (folder / "unet" / "reference.safetensors").unlink()
    return folder


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion(tmp_path_factory.mktemp("pipelines") / "tiny")


@pytest.fixture(scope="session")
def make_text_folder() -> Callable[..., Path]:
    """To put together a tiny Stable Diffusion with another network."""
    return stable_diffusion


@pytest.fixture
def text_model(text_folder: Path) -> Any:
    return load(text_folder)


@pytest.fixture(scope="session")
def reference() -> dict[str, np.ndarray]:
    return load_file(DATA / "stable-diffusion-tiny" / "reference.safetensors")


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, np.ndarray], str], None]:
    """Let noise be what diffusers drew for the case of a name."""

    def begin(arrays: dict[str, np.ndarray], name: str) -> None:
        count = sum(key.startswith(f"{name}.noise.") for key in arrays)
        drawn = [one for i in range(count) for one in arrays[f"{name}.noise.{i}"]]
        waiting = iter(drawn)

        def normal(shape: tuple[int, ...], **settings: Any) -> bt.Tensor:
            return bt.tensor(next(waiting)[None].reshape(shape))

        monkeypatch.setattr(sampling, "normal", normal)
        monkeypatch.setattr(predictions, "normal", normal)

    return begin

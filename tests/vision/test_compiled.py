"""Every vision model compiled gives what it gives as it is, on other pictures too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.graph.trees import flattened
from bestiary.hub.loading import load
from bestiary.hub.registry import architecture_of_config

DATA = Path(__file__).parent.parent / "references" / "data"


def is_for_pictures(folder: Path) -> bool:
    """Of vision, with weights of its own; CLIP, which takes two inputs, has its own tests."""
    said = json.loads((folder / "config.json").read_text())
    found = architecture_of_config(said)
    if found is None or not (folder / "model.safetensors").is_file():
        return False
    return ".vision." in found[0].build.__module__ and found[0].name != "clip"


PICTURES = sorted(p.parent.name for p in DATA.glob("*/config.json") if is_for_pictures(p.parent))


def pixels(model: Any, seed: int) -> bt.Tensor:
    config = model.config
    size = getattr(config, "image_size", None) or getattr(config, "input_size", None) or (48, 56)
    height, width = (size, size) if isinstance(size, int) else size
    shape = (2, getattr(model.config, "in_channels", 3), height, width)
    values = np.random.default_rng(seed).standard_normal(shape)
    return bt.Tensor(values.astype(np.float32))


@pytest.mark.parametrize("name", PICTURES)
def test_compiled_equals_eager(name: str) -> None:
    model = load(DATA / name)
    fast = bt.compile(model.module)
    with bt.inference_mode():
        fast(pixels(model, 0))
        assert len(fast.explain()) == 1, "it was not compiled"
        found, tree = flattened(fast(pixels(model, 1)))
        wanted, same = flattened(model.module(pixels(model, 1)))
    assert tree == same
    for got, want in zip(found, wanted, strict=True):
        size = max(1.0, float(np.abs(want.numpy()).max()))
        assert np.abs(got.numpy() - want.numpy()).max() <= 1e-4 * size


@pytest.mark.parametrize("name", ["resnet-timm-basic", "mobilenet-v3-timm-small", "vit-timm"])
def test_tasks_compile_what_they_do_again_and_again(name: str) -> None:
    model, plain = load(DATA / name), load(DATA / name, compile=False)
    height, width = model.preprocess.size
    rng = np.random.default_rng(3)
    pictures = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(8)]
    for picture in pictures:
        ours, theirs = model.probabilities([picture]), plain.probabilities([picture])
        assert np.allclose(ours, theirs, atol=1e-5)
    assert [len(p.explain()) for p in model._programs.values()] == [1]
    assert not plain._programs
    model.compile = False
    assert np.allclose(model.probabilities([pictures[0]]), plain.probabilities([pictures[0]]))

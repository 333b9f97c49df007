"""Inputs and sizes that both sides share: the same numbers from the same seed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

GFLOPS, GBYTES = "GFLOP/s", "GB/s"


DCGAN = 64  # pictures in a step of gans.py


@dataclass
class Job:
    """What is timed. `work` is in floating-point operations or bytes; 0 where neither fits."""

    run: Callable[[], Any]
    work: float = 0.0
    unit: str = GFLOPS


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray[Any, Any]:
    """Normal numbers, float32."""
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


# name: (input channels, output channels, kernel, stride, input side): ResNet-50 at 224 pixels
CONVOLUTIONS = {
    "7x7-s2-3-64": (3, 64, 7, 2, 224),
    "1x1-64-256": (64, 256, 1, 1, 56),
    "3x3-64-64": (64, 64, 3, 1, 56),
    "3x3-128-128": (128, 128, 3, 1, 28),
    "3x3-s2-128-128": (128, 128, 3, 2, 56),
    "1x1-512-128": (512, 128, 1, 1, 28),
    "3x3-256-256": (256, 256, 3, 1, 14),
    "1x1-1024-256": (1024, 256, 1, 1, 14),
    "3x3-512-512": (512, 512, 3, 1, 7),
    "1x1-512-2048": (512, 2048, 1, 1, 7),
}


def conv_work(row: tuple[int, int, int, int, int], batch: int = 1) -> float:
    """Floating-point operations of a convolution with same padding."""
    c, o, k, s, side = row
    return 2.0 * batch * c * o * k * k * (side // s) ** 2


def state_for(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray[Any, Any]]:
    """The same weights for both sides, scaled so that activations stay in range."""
    rng = np.random.default_rng(1)
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith("running_var"):
            value = rng.uniform(0.8, 1.2, shape)
        elif len(shape) > 1:
            value = rng.normal(size=shape) * (2.0 / np.prod(shape[1:])) ** 0.5
        elif name.endswith("weight"):
            value = rng.uniform(0.8, 1.2, shape)
        else:
            value = rng.normal(size=shape) * 0.02
        state[name] = value.astype(np.float32)
    return state


MODELS = "BESTIARY_BENCH_MODELS"  # the folder of run.py's --models


def family_jobs(job: Callable[[Path, np.ndarray[Any, Any]], Job]) -> dict[str, Callable[[], Job]]:
    """A job for each saved family and batch: `job` gets its folder and the pictures."""
    from families import BATCHES, TIMM, TRANSFORMERS, side_of

    folder = os.environ.get(MODELS)
    if folder is None:
        return {}

    def make(name: str, batch: int) -> Callable[[], Job]:
        side = side_of(name)
        return lambda: job(Path(folder) / name, numbers(batch, 3, side, side))

    return {
        f"family-{name}-{batch}": make(name, batch)
        for name in (*TIMM, *TRANSFORMERS)
        if (Path(folder) / name).is_dir()
        for batch in BATCHES
    }


def diffusion_jobs(
    job: Callable[[Path, list[np.ndarray[Any, Any]], bool], Job],
) -> dict[str, Callable[[], Job]]:
    """Two jobs for each saved network of diffusion: as it is, and compiled, on our side.

    `job` gets its folder, the noisy samples and contexts, and whether to compile.
    """
    from diffusion import NETWORKS

    folder = os.environ.get(MODELS)
    if folder is None:
        return {}

    def make(name: str, shapes: tuple[tuple[int, ...], ...], fast: bool) -> Callable[[], Job]:
        inputs = [numbers(*shape, seed=seed) for seed, shape in enumerate(shapes)]
        return lambda: job(Path(folder) / name, inputs, fast)

    return {
        f"diffusion-{name}-{shapes[0][0]}{'-compiled' * fast}": make(name, tuple(shapes), fast)
        for name, (_, _, *shapes) in NETWORKS.items()
        if (Path(folder) / name).is_dir()
        for fast in (False, True)
    }


def text_jobs(
    job: Callable[[Path, str, np.ndarray[Any, Any], int], Job],
) -> dict[str, Callable[[], Job]]:
    """A job for each saved text model and run: its folder, how, the ids, tokens to write."""
    from texts import PROMPT, RUNS

    folder = os.environ.get(MODELS)
    if folder is None:
        return {}

    def make(name: str, how: str, texts: int, tokens: int) -> Callable[[], Job]:
        length = PROMPT if how == "write" else tokens
        ids = np.random.default_rng(0).integers(100, 30_000, (texts, length))
        return lambda: job(Path(folder) / name, how, ids, tokens if how == "write" else 0)

    return {
        f"{name}-{how}-{texts}x{tokens}": make(name, how, texts, tokens)
        for name, runs in RUNS.items()
        if (Path(folder) / name).is_dir()
        for how, texts, tokens in runs
    }

"""The recipes of `bestiary train` for pictures: data, settings, training, result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.errors import ConfigError
from ...hub.loading import load
from .adversarial import Adversarial
from .adversarial import Settings as AdversarialSettings
from .autoencoding import Autoencoding
from .autoencoding import Settings as AutoencodingSettings
from .captions import read_captions
from .diffusion import Diffusion
from .diffusion import Settings as DiffusionSettings
from .pictures import Pictures, read_pictures
from .quantizing import Quantizing
from .quantizing import Settings as QuantizingSettings
from .text_to_image_lora import FILE, TextToImageLoRA
from .text_to_image_lora import Settings as LoRASettings

__all__ = [
    "AdversarialSettings",
    "AutoencodingSettings",
    "DiffusionSettings",
    "LoRASettings",
    "QuantizingSettings",
    "adversarial",
    "autoencoding",
    "diffusion",
    "quantizing",
    "text_to_image_lora",
]


def _pictures(data: str | Path, settings: Any) -> Pictures:
    return read_pictures(data, settings.size).first(settings.limit)


def _facts(out: Path, last: dict[str, float], steps: int) -> dict[str, Any]:
    return {"folder": str(out / "model"), "samples": str(out / "samples"), "steps": steps, **last}


def diffusion(
    recipe: str,
    data: str,
    settings: DiffusionSettings,
    *,
    out: Path,
    resume: str | None,
    **how: Any,
) -> dict[str, Any]:
    """Train a diffusion model; returns facts of the result."""
    run = Diffusion(_pictures(data, settings), settings, out=out, **how)
    run.fit(resume)
    return _facts(out, run.trainer.last, run.trainer.step)


def adversarial(
    recipe: str,
    data: str,
    settings: AdversarialSettings,
    *,
    out: Path,
    resume: str | None,
    **how: Any,
) -> dict[str, Any]:
    """Train the GAN that the recipe names; returns facts of the result."""
    run = Adversarial(_pictures(data, settings), settings, kind=recipe, out=out, **how)
    run.fit(resume)
    return _facts(out, run.history["epochs"][-1], run.players.step)


def autoencoding(
    recipe: str,
    data: str,
    settings: AutoencodingSettings,
    *,
    out: Path,
    resume: str | None,
    **how: Any,
) -> dict[str, Any]:
    """Train the VAE or flow that the recipe names; returns facts of the result."""
    run = Autoencoding(_pictures(data, settings), settings, kind=recipe, out=out, **how)
    run.fit(resume)
    return _facts(out, run.last, run.trainer.step)


def quantizing(
    recipe: str,
    data: str,
    settings: QuantizingSettings,
    *,
    out: Path,
    resume: str | None,
    **how: Any,
) -> dict[str, Any]:
    """Train a VQ-VAE; returns facts of the result."""
    run = Quantizing(_pictures(data, settings), settings, out=out, **how)
    run.fit(resume)
    return _facts(out, run.last, run.trainer.step)


def text_to_image_lora(
    recipe: str,
    data: str,
    settings: LoRASettings,
    *,
    out: Path,
    resume: str | None,
    device: str = "cpu",
    **how: Any,
) -> dict[str, Any]:
    """Teach a model pictures with captions; returns facts of the result."""
    if not settings.model:
        raise ConfigError(
            "which model is to learn? --model NAME, such as stable-diffusion-v1-5 or a folder"
        )
    pictures = read_captions(data, settings.caption or None).first(settings.limit)
    model = load(settings.model, device=device)
    run = TextToImageLoRA(model, pictures, settings, out=out, **how)
    run.fit(resume)
    return {
        "folder": str(out),
        "file": str(out / FILE),
        "samples": str(out / "samples"),
        "steps": run.trainer.step,
        **run.trainer.last,
    }

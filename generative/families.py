"""Pipelines that load: which networks each class of `model_index.json` is made of."""

from __future__ import annotations

from ..hub.pipelines import Parts, PartsConfig
from ..hub.registry import Entry, Hub, register

_TEXT = ("unet", "vae", "text_encoder")


@register(
    "ddpm-pipeline",
    config=PartsConfig,
    task="unconditional-image-generation",
    class_names=("DDPMPipeline", "DDIMPipeline"),
    parts=("unet",),
    beside=("scheduler",),
)
def ddpm_pipeline(config: PartsConfig) -> Parts:
    """Pictures of one kind: a UNet over pixels."""
    return Parts.of(config)


@register(
    "stable-diffusion",
    config=PartsConfig,
    task="text-to-image",
    class_names=(
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "LatentConsistencyModelPipeline",
        "LatentConsistencyModelImg2ImgPipeline",
    ),
    parts=_TEXT,
    beside=("tokenizer", "scheduler"),
    entries=[
        Entry(
            name="stable-diffusion-v1-5",
            sources=(Hub("stable-diffusion-v1-5/stable-diffusion-v1-5"),),
            config=None,
            layout="native",
            license="CreativeML OpenRAIL-M",
            parameters=1_066_235_307,  # counted
            paper="https://arxiv.org/abs/2112.10752",
        )
    ],
)
def stable_diffusion(config: PartsConfig) -> Parts:
    """Pictures of what a text says: a UNet over the latents of an autoencoder."""
    return Parts.of(config)


@register(
    "stable-diffusion-xl",
    config=PartsConfig,
    task="text-to-image",
    class_names=(
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
    ),
    parts=(*_TEXT, "text_encoder_2"),
    beside=("tokenizer", "tokenizer_2", "scheduler"),
    entries=[
        Entry(
            name="stable-diffusion-xl-base-1.0",
            aliases=("sdxl",),
            sources=(Hub("stabilityai/stable-diffusion-xl-base-1.0"),),
            config=None,
            layout="native",
            license="CreativeML OpenRAIL++-M",
            parameters=3_468_837_867,  # counted
            paper="https://arxiv.org/abs/2307.01952",
        )
    ],
)
def stable_diffusion_xl(config: PartsConfig) -> Parts:
    """Pictures of what a text says, larger: two text encoders, and the size as a condition."""
    return Parts.of(config)


@register(
    "dit-pipeline",
    config=PartsConfig,
    task="class-conditional-image-generation",
    class_names=("DiTPipeline",),
    parts=("transformer", "vae"),
    beside=("scheduler",),
    entries=[
        Entry(
            name="dit-xl-2-256",
            sources=(Hub("facebook/DiT-XL-2-256"),),
            config=None,
            layout="native",
            license="CC-BY-NC-4.0",
            commercial=False,
            parameters=833_480_327,  # counted
            paper="https://arxiv.org/abs/2212.09748",
        )
    ],
)
def dit_pipeline(config: PartsConfig) -> Parts:
    """Pictures of a class: a transformer over the latents of an autoencoder."""
    return Parts.of(config)

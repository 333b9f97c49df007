"""A tiny Stable Diffusion XL with random weights, saved by diffusers, with its pictures.

Every noise that a pipeline draws is stored. The tokenizers are that of `clip-transformers`, of
which the second pads with "!". Run: python tests/references/stable_diffusion_xl.py
"""

from __future__ import annotations

import json
import shutil

import common
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from stable_diffusion import META, NEGATIVE, PROMPT, TABLE, TEXT, UNET, UNETS, VAE, run
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer


def tokenizers() -> list[CLIPTokenizer]:
    folder = common.DATA / "clip-transformers"
    lines = (folder / "merges.txt").read_text().split("\n")[1:-1]
    vocabulary = json.loads((folder / "vocab.json").read_text())
    pairs = [tuple(line.split()) for line in lines]
    return [
        CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=24, **more)
        for more in ({}, {"pad_token": "!"})
    ]


def main() -> None:
    torch.manual_seed(0)
    first, second = tokenizers()
    ends = {"eos_token_id": first.eos_token_id, "bos_token_id": first.bos_token_id}
    sizes = TEXT | ends | {"vocab_size": len(first)}
    unet = UNet2DConditionModel(**(UNET | UNETS["unet-condition-xl"] | {"cross_attention_dim": 16}))
    wide = CLIPTextConfig(**sizes, hidden_act="gelu", projection_dim=6)
    own = {
        "unet": common.randomise(unet, 110),
        "vae": common.randomise(AutoencoderKL(**VAE, scaling_factor=0.13025), 111),
        "text_encoder": common.randomise(CLIPTextModel(CLIPTextConfig(**sizes)), 112),
        "text_encoder_2": common.randomise(CLIPTextModelWithProjection(wide), 113),
        "tokenizer": first,
        "tokenizer_2": second,
        "scheduler": EulerDiscreteScheduler(
            **TABLE, timestep_spacing="leading", steps_offset=1, use_karras_sigmas=False
        ),
    }
    whole = StableDiffusionXLPipeline(**own, add_watermarker=False)
    whole.set_progress_bar_config(disable=True)
    folder = common.DATA / "stable-diffusion-xl-tiny"
    shutil.rmtree(folder, ignore_errors=True)
    whole.save_pretrained(folder)
    for name in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(folder / name)

    picture = common.images(1, 3, 32, 32, seed=3)
    picture = ((picture - picture.min()) / (picture.max() - picture.min())).clamp(0, 1)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:24, 4:20] = 1
    arrays: dict[str, object] = {"picture": picture, "mask": mask}
    with torch.no_grad():
        tokens, no_tokens, pooled, no_pooled = whole.encode_prompt(PROMPT, negative_prompt=NEGATIVE)
    arrays |= {"tokens": tokens, "whole": pooled, "no_tokens": no_tokens, "no_whole": no_pooled}
    base = {"prompt": PROMPT, "num_inference_steps": 4, "height": 32, "width": 24}
    against = {"negative_prompt": NEGATIVE, "guidance_scale": 3.0}
    run(arrays, "text", whole, **base, **against)
    run(arrays, "zeros", whole, **base, guidance_scale=4.0)
    run(arrays, "plain", whole, **base, guidance_scale=1.0)
    run(arrays, "skipped", whole, **base, clip_skip=1, guidance_scale=2.0, negative_prompt="")
    cut = {"original_size": (64, 48), "crops_coords_top_left": (3, 5)}
    run(arrays, "cut", whole, **base, **cut, guidance_scale=2.0)
    two = {"prompt": [PROMPT, NEGATIVE], "negative_prompt": [NEGATIVE, ""]}
    run(arrays, "batch", whole, **(base | two), guidance_scale=2.0)
    whole.register_to_config(force_zeros_for_empty_prompt=False)
    run(arrays, "blank", whole, **base, guidance_scale=4.0)
    image = StableDiffusionXLImg2ImgPipeline(**own, add_watermarker=False)
    image.set_progress_bar_config(disable=True)
    given = {"prompt": PROMPT, "image": picture, "strength": 0.6, "num_inference_steps": 5}
    run(arrays, "image", image, **given, **against)
    run(arrays, "image_zeros", image, **given, guidance_scale=4.0)
    inpaint = StableDiffusionXLInpaintPipeline(**own, add_watermarker=False)
    inpaint.set_progress_bar_config(disable=True)
    run(arrays, "inpaint", inpaint, **given, **against, mask_image=mask, height=32, width=32)
    common.save(
        folder / "reference.safetensors", arrays, META | {"script": "stable_diffusion_xl.py"}
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

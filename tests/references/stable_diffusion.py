"""Tiny diffusion pipelines with random weights, saved by diffusers, with their outputs.

Every noise that a pipeline draws is stored, so that ours can be given the same. The tokenizer is
the one of `clip-transformers`. Also `diffusion_names.json.gz`: names and shapes of every tensor of
the published sizes. Run: python tests/references/stable_diffusion.py
"""

from __future__ import annotations

import copy
import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import common
import diffusers
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DiTPipeline,
    LatentConsistencyModelImg2ImgPipeline,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    Transformer2DModel,
    UNet2DConditionModel,
)
from safetensors.torch import save_file as save_torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

TEXT = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT |= {"intermediate_size": 12, "max_position_embeddings": 24, "vocab_size": 634}
UNET = {
    "sample_size": 16,
    "block_out_channels": (4, 8),
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 8,
    "attention_head_dim": 2,
}
VAE = {
    "block_out_channels": (4, 8),
    "norm_num_groups": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "sample_size": 32,
}
UNETS = {
    "unet-condition-v2": {
        "use_linear_projection": True,
        "attention_head_dim": (1, 2),
        "transformer_layers_per_block": (1, 2),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "upcast_attention": True,
    },
    "unet-condition-xl": {
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 30,
        "attention_head_dim": (2, 4),
    },
    "unet-condition-lcm": {"time_cond_proj_dim": 6},
    "unet-condition-inpaint": {"in_channels": 9},
}
DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 4,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 2,
    "norm_num_groups": 2,
    "attention_bias": True,
    "sample_size": 8,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
}
TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PROMPT, NEGATIVE = "a photo of a large dog", "the shape of a tensor"
META = common.metadata("diffusers", "transformers", script="stable_diffusion.py")


@contextmanager
def recorded() -> Iterator[list[torch.Tensor]]:
    """Every noise that is drawn meanwhile, in order."""
    drawn: list[torch.Tensor] = []
    make = diffusers.utils.torch_utils.randn_tensor

    def record(*args: object, **settings: object) -> torch.Tensor:
        drawn.append(make(*args, **settings))
        return drawn[-1]

    places = [m for n, m in __import__("sys").modules.items() if n.startswith("diffusers.")]
    places = [m for m in places if vars(m).get("randn_tensor") is make]
    for module in places:
        module.randn_tensor = record
    try:
        yield drawn
    finally:
        for module in places:
            module.randn_tensor = make


def saved(model: torch.nn.Module, name: str, seed: int) -> torch.nn.Module:
    shutil.rmtree(common.DATA / name, ignore_errors=True)
    common.randomise(model, seed).save_pretrained(common.DATA / name)
    return model


def run(
    arrays: dict[str, object], name: str, pipeline: Callable[..., object], **settings: object
) -> None:
    """Store the picture that a pipeline makes, and the noise that it drew."""
    with recorded() as noise:
        generator = torch.Generator().manual_seed(len(arrays))
        settings |= {"output_type": "np", "generator": generator}
        arrays[f"{name}.image"] = pipeline(**settings).images
    for i, values in enumerate(noise):
        arrays[f"{name}.noise.{i}"] = values


def parts() -> tuple[UNet2DConditionModel, AutoencoderKL, CLIPTextModel, CLIPTokenizer]:
    torch.manual_seed(0)
    folder = common.DATA / "clip-transformers"
    lines = (folder / "merges.txt").read_text().split("\n")[1:-1]
    tokenizer = CLIPTokenizer(
        vocab=json.loads((folder / "vocab.json").read_text()),
        merges=[tuple(line.split()) for line in lines],
        model_max_length=24,
    )
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    sizes = TEXT | ends | {"vocab_size": len(tokenizer)}
    return (
        common.randomise(UNet2DConditionModel(**UNET), 90),
        common.randomise(AutoencoderKL(**VAE), 91),
        common.randomise(CLIPTextModel(CLIPTextConfig(**sizes)), 92),
        tokenizer,
    )


def pipelines() -> None:
    unet, vae, text, tokenizer = parts()
    scheduler = PNDMScheduler(**TABLE, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    own = {"vae": vae, "text_encoder": text, "tokenizer": tokenizer}
    own |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    whole = StableDiffusionPipeline(unet=unet, scheduler=scheduler, **own)
    whole.set_progress_bar_config(disable=True)
    folder = common.DATA / "stable-diffusion-tiny"
    shutil.rmtree(folder, ignore_errors=True)
    whole.save_pretrained(folder)
    shutil.rmtree(folder / "tokenizer")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")

    picture = common.images(1, 3, 32, 32, seed=3)
    picture = ((picture - picture.min()) / (picture.max() - picture.min())).clamp(0, 1)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:24, 4:20] = 1
    arrays: dict[str, object] = {"picture": picture, "mask": mask}
    with torch.no_grad():
        ids = tokenizer(PROMPT, padding="max_length", return_tensors="pt").input_ids
        arrays |= {"ids": ids, "tokens": text(ids).last_hidden_state}
        x, context = common.images(2, 4, 10, 14, seed=5), common.images(2, 3, 5, 8, seed=6)[:, 0]
        arrays |= {"sample": x, "context": context}
        arrays["noise_pred"] = unet(x, torch.tensor([3, 700]), context).sample
        # Of a size that is not halved evenly.
        arrays["odd"] = unet(x[:, :, :9, :13], 11, context).sample
        moments = vae.encode(2 * picture - 1).latent_dist
        arrays |= {"mean": moments.mean, "std": moments.std}
        arrays["decoded"] = vae.decode(x[:1] * 0.5).sample
    base = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": 5}
    run(arrays, "text", whole, **base, guidance_scale=3.0, height=32, width=24)
    run(arrays, "plain", whole, prompt=PROMPT, num_inference_steps=3, guidance_scale=1.0)
    both = {**base, "prompt": [PROMPT, NEGATIVE], "negative_prompt": [NEGATIVE, ""]}
    run(arrays, "batch", whole, **both, guidance_scale=2.0)
    ddim = DDIMScheduler(**TABLE, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    image = StableDiffusionImg2ImgPipeline(unet=unet, scheduler=ddim, **own)
    image.set_progress_bar_config(disable=True)
    given = {**base, "image": picture, "strength": 0.6, "guidance_scale": 3.0}
    run(arrays, "image", image, **given)
    inpaint = StableDiffusionInpaintPipeline(unet=unet, scheduler=ddim, **own)
    inpaint.set_progress_bar_config(disable=True)
    more = {"mask_image": mask, "height": 32, "width": 32}
    run(arrays, "inpaint", inpaint, **given, **more)
    common.save(folder / "reference.safetensors", arrays, META)

    arrays = {}
    wide = UNet2DConditionModel(**(UNET | UNETS["unet-condition-inpaint"]))
    inpaint = StableDiffusionInpaintPipeline(
        unet=saved(wide, "unet-condition-inpaint", 93), scheduler=ddim, **own
    )
    inpaint.set_progress_bar_config(disable=True)
    run(arrays, "whole", inpaint, **(given | more | {"strength": 1.0}))
    common.save(common.DATA / "unet-condition-inpaint" / "reference.safetensors", arrays, META)

    arrays = {}
    distilled = UNet2DConditionModel(**(UNET | UNETS["unet-condition-lcm"]))
    lcm = LatentConsistencyModelPipeline(
        unet=saved(distilled, "unet-condition-lcm", 94), scheduler=LCMScheduler(**TABLE), **own
    )
    lcm.set_progress_bar_config(disable=True)
    run(arrays, "text", lcm, prompt=PROMPT, num_inference_steps=3, guidance_scale=5.0)
    begun = LatentConsistencyModelImg2ImgPipeline(
        unet=distilled, scheduler=LCMScheduler(**TABLE), **own
    )
    begun.set_progress_bar_config(disable=True)
    some = {"prompt": PROMPT, "image": picture, "num_inference_steps": 3, "strength": 0.6}
    run(arrays, "image", begun, **some, guidance_scale=5.0)
    common.save(common.DATA / "unet-condition-lcm" / "reference.safetensors", arrays, META)


def networks() -> None:
    """Networks by themselves."""
    torch.manual_seed(1)
    x, context = common.images(2, 4, 10, 14, seed=5), common.images(2, 3, 5, 8, seed=6)[:, 0]
    for seed, name in enumerate(("unet-condition-v2", "unet-condition-xl")):
        unet = saved(UNet2DConditionModel(**(UNET | UNETS[name])), name, 95 + seed)
        arrays = {"sample": x, "context": context}
        more = {}
        if name.endswith("xl"):
            added = {"text_embeds": common.images(2, 1, 1, 6, seed=7)[:, 0, 0]}
            added["time_ids"] = torch.tensor([[32.0, 32, 0, 0, 32, 32], [28, 20, 1, 2, 32, 32]])
            more = {"added_cond_kwargs": added}
            arrays |= added
        with torch.no_grad():
            arrays["noise_pred"] = unet(x, torch.tensor([3, 700]), context, **more).sample
        common.save(common.DATA / name / "reference.safetensors", arrays, META)
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(4, 4, 4),
        decoder_block_out_channels=(4, 4, 4),
        num_encoder_blocks=(1, 1, 2),
        num_decoder_blocks=(2, 1, 1),
    )
    saved(tiny, "autoencoder-tiny", 97)
    picture = common.images(1, 3, 12, 20, seed=8)
    with torch.no_grad():
        latents = tiny.encode(picture).latents
        arrays = {"sample": picture, "latents": latents, "decoded": tiny.decode(latents).sample}
        arrays["through"] = tiny(picture).sample
    common.save(common.DATA / "autoencoder-tiny" / "reference.safetensors", arrays, META)
    config = CLIPTextConfig(**(TEXT | {"vocab_size": 40, "eos_token_id": 39, "hidden_act": "gelu"}))
    config.projection_dim = 6
    config.bos_token_id = 38
    text = saved(CLIPTextModelWithProjection(config), "clip-text-projection", 98)
    ids = torch.tensor([[38, 5, 6, 39, 0, 0], [38, 9, 8, 7, 3, 39]])
    with torch.no_grad():
        output = text(ids, output_hidden_states=True)
        arrays = {"ids": ids, "text_embeds": output.text_embeds}
        arrays["penultimate"] = output.hidden_states[-2]
    common.save(common.DATA / "clip-text-projection" / "reference.safetensors", arrays, META)


def dit() -> None:
    torch.manual_seed(2)
    vae = common.randomise(AutoencoderKL(**VAE), 99)
    model = common.randomise(Transformer2DModel(**DIT), 100)
    ddim = DDIMScheduler(beta_schedule="linear", clip_sample=False)
    labels = {str(i): f"thing {i}, sort {i % 7}" for i in range(9)}
    whole = DiTPipeline(model, vae, ddim, id2label={int(k): v for k, v in labels.items()})
    whole.set_progress_bar_config(disable=True)
    folder = common.DATA / "dit-tiny"
    shutil.rmtree(folder, ignore_errors=True)
    whole.save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"id2label": labels}) + "\n")
    x = common.images(2, 4, 6, 6, seed=9)
    arrays: dict[str, object] = {"sample": x}
    with torch.no_grad():
        times, classes = torch.tensor([3, 700]), torch.tensor([5, 1000])
        arrays["noise_pred"] = model(x, timestep=times, class_labels=classes).sample
    wanted = {"class_labels": [7, 207], "num_inference_steps": 4}
    run(arrays, "guided", whole, **wanted, guidance_scale=2.0)
    run(arrays, "plain", whole, **wanted, guidance_scale=1.0)
    common.save(folder / "reference.safetensors", arrays, META)


def adapters() -> None:
    """LoRA files in the names of diffusers and of kohya, and what they make of the networks."""
    unet, vae, text, tokenizer = parts()
    scheduler = DDIMScheduler(**TABLE)
    own = {"vae": vae, "safety_checker": None, "feature_extractor": None}
    arrays: dict[str, object] = {}
    folder = common.DATA / "lora"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    torch.manual_seed(5)
    x, context = common.images(2, 4, 10, 14, seed=5), common.images(2, 3, 5, 8, seed=6)[:, 0]
    ids = tokenizer(PROMPT, padding="max_length", return_tensors="pt").input_ids
    maps = ("to_q", "to_k", "to_v", "to_out.0")
    for name, unet_layers in (("diffusers", maps), ("kohya", (*maps, "conv1", "proj_in"))):
        first, second = copy.deepcopy(unet), copy.deepcopy(text)
        chosen = [n for n, m in first.named_modules() if n.endswith(unet_layers)]
        layers = {f"unet.{n}": m for n, m in first.named_modules() if n in chosen}
        # With transformers 5, diffusers drops kohya's attention layers of the text encoder.
        theirs = ("fc1", "q_proj") if name == "diffusers" else ("fc1",)
        inner = [n for n, m in second.named_modules() if n.endswith(theirs)]
        layers |= {f"text_encoder.{n}": m for n, m in second.named_modules() if n in inner}
        state: dict[str, torch.Tensor] = {}
        for path, layer in layers.items():
            wide = isinstance(layer, torch.nn.Conv2d)
            shape = layer.weight.shape
            down = 0.3 * torch.randn(2, *shape[1:])
            up = 0.1 * torch.randn(shape[0], 2, *([1, 1] if wide else []))
            network, _, rest = path.partition(".")
            if name == "kohya":
                start = "lora_unet_" if network == "unet" else "lora_te_text_model_"
                key = start + rest.replace(".", "_")
                state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
                state[f"{key}.alpha"] = torch.tensor(1.0)
            else:
                rest = rest if network == "unet" else f"text_model.{rest}"
                key = f"{network}.{rest}"
                state |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
        state = {k: v.contiguous() for k, v in state.items()}
        save_torch(state, folder / f"{name}.safetensors", metadata=META)
        pipe = StableDiffusionPipeline(
            unet=first, text_encoder=second, tokenizer=tokenizer, scheduler=scheduler, **own
        )
        pipe.load_lora_weights(folder, weight_name=f"{name}.safetensors", adapter_name="a")
        for scale in (1.0, 0.4):
            pipe.set_adapters(["a"], [scale])
            with torch.no_grad():
                made = pipe.unet(x, torch.tensor([3, 700]), context).sample
                arrays[f"{name}.{scale}.noise_pred"] = made
                arrays[f"{name}.{scale}.tokens"] = pipe.text_encoder(ids).last_hidden_state
    common.save(folder / "reference.safetensors", arrays, META)


def names() -> None:
    """Names and shapes at full size, without weights, and the parameter counts."""
    sd1 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
    sd2 = {
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
        "upcast_attention": True,
    }
    xl = {
        "sample_size": 128,
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
        "up_block_types": (*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    vae = {
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "sample_size": 512,
    }
    large = DIT | {"num_attention_heads": 16, "attention_head_dim": 72, "num_layers": 28}
    large["sample_size"] = 32
    text1 = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    text2 = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
    text2 |= {"num_hidden_layers": 23, "hidden_act": "gelu"}
    makers: dict[str, Callable[[], torch.nn.Module]] = {
        "stable-diffusion-v1-5/unet": lambda: UNet2DConditionModel(**sd1),
        "stable-diffusion-v1-5/vae": lambda: AutoencoderKL(**vae),
        "stable-diffusion-v1-5/text_encoder": lambda: CLIPTextModel(CLIPTextConfig(**text1)),
        "stable-diffusion-2-1/unet": lambda: UNet2DConditionModel(**sd2),
        "stable-diffusion-2-1/text_encoder": lambda: CLIPTextModel(CLIPTextConfig(**text2)),
        "stable-diffusion-xl-base-1.0/unet": lambda: UNet2DConditionModel(**xl),
        "lcm/unet": lambda: UNet2DConditionModel(**sd1, time_cond_proj_dim=256),
        "dit-xl-2-256/transformer": lambda: Transformer2DModel(
            **(DIT | large | {"sample_size": 32})
        ),
        "taesd": AutoencoderTiny,
    }
    found: dict[str, object] = {"made_with": META}
    for name, make in makers.items():
        with torch.device("meta"):
            model = make()
        config = model.config.to_dict() if hasattr(model.config, "to_dict") else dict(model.config)
        if "_class_name" not in config and "model_type" not in config:
            config["_class_name"] = type(model).__name__
        config.pop("_use_default_values", None)
        found[name] = {"config": config, **common.listing(model)}
        print(name, found[name]["parameters"])
    path = common.DATA / "diffusion_names.json.gz"
    text = json.dumps(found, separators=(",", ":"), default=list)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    np.seterr(all="raise")
    pipelines()
    networks()
    dit()
    adapters()
    names()

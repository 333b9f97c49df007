"""Tiny UNets and pipelines of diffusers with random weights, saved by it, and what they give.

Also `unet2d_names.json.gz`: the names and shapes of every tensor of the published sizes.
Run: python tests/references/unet2d.py
"""

from __future__ import annotations

import gzip
import json
import shutil
from typing import Any

import common
import diffusers
import torch

_TINY: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (4, 6, 8),
    "norm_num_groups": 2,
    "layers_per_block": 1,
}
# As google/ddpm-cifar10-32 has it, but for sizes.
_CIFAR: dict[str, Any] = {
    **_TINY,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
_LEVELS = {"block_out_channels": (4, 8)}
UNETS: dict[str, dict[str, Any]] = {
    "unet2d-cifar": _CIFAR,
    # Two layers, an odd width, not square, one channel in and two out.
    "unet2d-classes": {
        **_TINY,
        **_LEVELS,
        "sample_size": (8, 12),
        "in_channels": 1,
        "out_channels": 2,
        "layers_per_block": 2,
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "attention_head_dim": 4,
        "resnet_time_scale_shift": "scale_shift",
        "num_class_embeds": 5,
        "mid_block_scale_factor": 1.5,
        "center_input_sample": True,
    },
    "unet2d-resnet": {
        **_TINY,
        **_LEVELS,
        "down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D"),
        "attention_head_dim": 2,
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "class_embed_type": "timestep",
        "attn_norm_num_groups": 4,
        "time_embedding_dim": 20,
        "act_fn": "gelu",
    },
    "unet2d-plain": {
        **_TINY,
        **_LEVELS,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "class_embed_type": "identity",
        "add_attention": False,
        "time_embedding_dim": 12,
        "act_fn": "mish",
    },
    "unet2d-nomid": {
        **_TINY,
        **_LEVELS,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "mid_block_type": None,
        "act_fn": "relu",
    },
}
# Pipeline, scheduler with settings, arguments of the call.
PIPELINES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "ddpm-pipeline": ("DDPMPipeline", "DDPMScheduler", {}, {"num_inference_steps": 12}),
    "ddim-pipeline": (
        "DDIMPipeline",
        "DDIMScheduler",
        {"beta_schedule": "squaredcos_cap_v2"},
        {"num_inference_steps": 10, "eta": 0.3},
    ),
}
FULL = {
    "ddpm-cifar10-32": {
        **_CIFAR,
        "sample_size": 32,
        "block_out_channels": (128, 256, 256, 256),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 32,
        "layers_per_block": 2,
    },
    "ddpm-cat-256": {
        **_CIFAR,
        "sample_size": 256,
        "block_out_channels": (128, 128, 256, 256, 512, 512),
        "down_block_types": (*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4),
        "norm_num_groups": 32,
        "layers_per_block": 2,
    },
}


def unets() -> None:
    """A folder for each network, with outputs for times from 0 to 999."""
    meta = common.metadata("diffusers", script="unet2d.py")
    for seed, (name, settings) in enumerate(UNETS.items()):
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        model = common.randomise(diffusers.UNet2DModel(**settings), 90 + seed)
        model.save_pretrained(folder)
        size = settings["sample_size"]
        size = (size, size) if isinstance(size, int) else size
        channels = settings.get("in_channels", 3)
        arrays: dict[str, torch.Tensor] = {}
        for i, (h, w) in enumerate((size, (size[0] * 2, size[1]))):
            x = common.images(3, channels, h, w, seed=i)
            times = torch.tensor([0, 431, 999])
            labels = {
                None: torch.tensor([0, 4, 2]) if "num_class_embeds" in settings else None,
                "timestep": torch.tensor([0, 4, 2]),
                "identity": torch.linspace(-1, 1, 3 * 12).reshape(3, 12),
            }[settings.get("class_embed_type")]
            with torch.no_grad():
                output = model(x, times, class_labels=labels).sample
            arrays |= {f"{i}.sample": x, f"{i}.timestep": times, f"{i}.output": output}
            if labels is not None:
                arrays[f"{i}.labels"] = labels
        common.save(folder / "reference.safetensors", arrays, meta)


def pipelines() -> None:
    """Whole pipelines: pictures for given noise. One has its files in subfolders, one has not."""
    meta = common.metadata("diffusers", script="unet2d.py")
    for seed, (name, (kind, scheduler, options, call)) in enumerate(PIPELINES.items()):
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        unet = common.randomise(diffusers.UNet2DModel(**_CIFAR), 80 + seed)
        # Outputs of the size that noise has, so that pictures are no mere black and white.
        with torch.no_grad():
            unet.conv_out.weight.mul_(0.7)
        pipeline = getattr(diffusers, kind)(unet, getattr(diffusers, scheduler)(**options))
        pipeline.set_progress_bar_config(disable=True)
        pipeline.save_pretrained(folder)
        steps = call["num_inference_steps"]
        noises = torch.randn(steps + 1, 2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        drawn = iter(noises)
        for module in (
            diffusers.pipelines.ddpm.pipeline_ddpm,
            diffusers.pipelines.ddim.pipeline_ddim,
        ):
            module.randn_tensor = lambda *_, drawn=drawn, **__: next(drawn)
        for module in ("ddpm", "ddim"):
            path = getattr(diffusers.schedulers, f"scheduling_{module}")
            path.randn_tensor = lambda *_, drawn=drawn, **__: next(drawn)
        pictures = pipeline(batch_size=2, output_type="np", **call).images
        common.save(
            folder / "reference.safetensors",
            {"noises": noises, "pictures": pictures},
            {**meta, "call": json.dumps(call)},
        )
        if kind == "DDIMPipeline":  # as google/ddpm-* lie: all in one folder
            for part in ("unet", "scheduler"):
                for path in (folder / part).iterdir():
                    path.rename(folder / path.name)
                (folder / part).rmdir()


def names() -> None:
    """Names and shapes at full size, without weights, and the parameter counts."""
    found: dict[str, object] = {"made_with": common.metadata("diffusers")}
    for name, settings in FULL.items():
        with torch.device("meta"):
            model = diffusers.UNet2DModel(**settings)
        found[name] = {"diffusers": common.listing(model)}
        print(name, sum(p.numel() for p in model.parameters()))
    path = common.DATA / "unet2d_names.json.gz"
    text = json.dumps(found, separators=(",", ":")) + "\n"
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    unets()
    pipelines()
    names()

"""A LoRA adapter that peft trains in diffusers' UNet: the start, every loss, and its file.

The UNet is that of `stable-diffusion-tiny`. Run: python tests/references/diffusion_lora.py
"""

from __future__ import annotations

import shutil

import common
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import compute_snr
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

STEPS, BATCH, MIN_SNR = 8, 2, 5.0


def main() -> None:
    torch.manual_seed(0)
    folder = common.DATA / "diffusion-lora"
    shutil.rmtree(folder, ignore_errors=True)
    unet = UNet2DConditionModel.from_pretrained(common.DATA / "stable-diffusion-tiny" / "unet")
    unet.requires_grad_(False)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=3, lora_alpha=3, target_modules=targets))
    start = {k: v.clone() for k, v in get_peft_model_state_dict(unet).items()}
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    learnt = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=1e-2, weight_decay=0.01)
    arrays = {
        "clean": torch.randn(STEPS, BATCH, 4, 6, 8),
        "noise": torch.randn(STEPS, BATCH, 4, 6, 8),
        "times": torch.randint(0, 1000, (STEPS, BATCH)),
        "contexts": torch.randn(STEPS, BATCH, 7, 8),
    }
    losses = []
    for clean, noise, times, context in zip(*arrays.values(), strict=True):
        noisy = scheduler.add_noise(clean, noise, times)
        said = unet(noisy, times, context).sample
        snr = compute_snr(scheduler, times)
        weights = snr.clamp(max=MIN_SNR) / snr
        loss = (((said - noise) ** 2).mean(dim=(1, 2, 3)) * weights).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    arrays["losses"] = torch.tensor(losses)
    arrays |= {f"start.{k}": v for k, v in start.items()}
    with torch.no_grad():
        arrays["said"] = unet(arrays["clean"][0], arrays["times"][0], arrays["contexts"][0]).sample
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(folder, layers)
    meta = common.metadata("diffusers", "peft", script="diffusion_lora.py")
    common.save(folder / "reference.safetensors", arrays, meta)
    print([round(v, 4) for v in losses], sorted(p.name for p in folder.iterdir()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

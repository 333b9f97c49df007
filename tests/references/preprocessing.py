"""Pictures as the image processors of transformers and the transforms of timm prepare them.

Writes `preprocessing.json` (the configurations) and `preprocessing.safetensors` (the pictures,
small and of odd sizes, and the results).
Run: TORCHVISION=FOLDER python tests/references/preprocessing.py (see torchvision_stub.py)
"""

from __future__ import annotations

import json
import os

import common
import numpy as np
import torch
import torchvision_stub
from PIL import Image

torchvision_stub.install(transforms_from=os.environ["TORCHVISION"])
from timm.data import create_transform  # noqa: E402
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil  # noqa: E402
from transformers.models.convnext.image_processing_pil_convnext import (  # noqa: E402
    ConvNextImageProcessorPil,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil  # noqa: E402

SIZES = {"tall": (61, 47), "wide": (33, 90), "square": (40, 40), "small": (13, 18)}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

# As the files of published repositories say it, with small sizes.
TRANSFORMERS = {
    # microsoft/resnet-50: an old file, where "size" is a number
    "convnext-old": (
        ConvNextImageProcessorPil,
        {
            "crop_pct": 0.875,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "ConvNextFeatureExtractor",
            **IMAGENET,
            "resample": 3,
            "size": 21,
        },
    ),
    "convnext": (
        ConvNextImageProcessorPil,
        {
            "crop_pct": 0.95,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_processor_type": "ConvNextImageProcessor",
            **IMAGENET,
            "resample": 2,
            "rescale_factor": 1 / 255,
            "size": {"shortest_edge": 24},
        },
    ),
    "convnext-384": (
        ConvNextImageProcessorPil,
        {
            "crop_pct": None,
            "image_processor_type": "ConvNextImageProcessor",
            **IMAGENET,
            "resample": 3,
            "size": {"shortest_edge": 384},
        },
    ),
    "vit": (
        ViTImageProcessorPil,
        {
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_processor_type": "ViTImageProcessor",
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "resample": 2,
            "rescale_factor": 0.00392156862745098,
            "size": {"height": 20, "width": 28},
        },
    ),
    "clip": (
        CLIPImageProcessorPil,
        {
            "crop_size": {"height": 21, "width": 21},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_processor_type": "CLIPImageProcessor",
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"shortest_edge": 24},
        },
    ),
}
TIMM = {
    "timm-bicubic": {"input_size": [3, 21, 21], "interpolation": "bicubic", "crop_pct": 0.95},
    "timm-bilinear": {"input_size": [3, 24, 24], "interpolation": "bilinear", "crop_pct": 0.875},
    "timm-whole": {"input_size": [3, 20, 20], "interpolation": "bicubic", "crop_pct": 1.0},
    "timm-squash": {
        "input_size": [3, 22, 22],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "squash",
    },
    "timm-border": {
        "input_size": [3, 25, 25],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "border",
    },
    "timm-oblong": {"input_size": [3, 20, 33], "interpolation": "bilinear", "crop_pct": 0.9},
}
MEAN_STD = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def pictures() -> dict[str, Image.Image]:
    rng = np.random.default_rng(5)
    result = {}
    for name, (height, width) in SIZES.items():
        coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + rng.integers(-30, 31, smooth.shape)
        result[name] = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    return result


def main() -> None:
    arrays: dict[str, object] = {}
    cases = []
    for name, picture in pictures().items():
        arrays[f"picture.{name}"] = np.asarray(picture)
    for case, (processor_class, config) in TRANSFORMERS.items():
        given = {k: v for k, v in config.items() if v is not None and not k.endswith("_type")}
        processor = processor_class(**given)
        for name, picture in pictures().items():
            if case == "convnext-384" and name != "small":
                continue
            result = processor(picture, return_tensors="np")["pixel_values"]
            # 384 x 384 is large: every 16th pixel of it will do
            arrays[f"{case}.{name}"] = result[:, :, ::16, ::16] if "384" in case else result
        cases.append({"name": case, "layout": "transformers", "config": config})
    for case, config in TIMM.items():
        transform = create_transform(
            tuple(config["input_size"]),
            interpolation=config["interpolation"],
            crop_pct=config["crop_pct"],
            crop_mode=config.get("crop_mode"),
            mean=tuple(MEAN_STD["mean"]),
            std=tuple(MEAN_STD["std"]),
        )
        for name, picture in pictures().items():
            arrays[f"{case}.{name}"] = transform(picture)[None]
        cases.append({"name": case, "layout": "timm", "config": {**config, **MEAN_STD}})
    meta = common.metadata("timm", "transformers", "pillow", script="preprocessing.py")
    common.save(common.DATA / "preprocessing.safetensors", arrays, meta)
    (common.DATA / "preprocessing.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

"""Tiny Depth Anything networks with random weights, saved by transformers, with their outputs.

Also prepared pictures, depths at the size of a picture, and the names and shapes of every tensor of
the published sizes. Run: python tests/references/depth.py
"""

from __future__ import annotations

import gzip
import json
import shutil
from typing import Any

import common
import numpy as np
import torch
from segmentation import listing, picture
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

INPUTS = ((2, 3, 30, 43), (1, 3, 56, 35))
_TRUNK: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "mlp_ratio": 2,
    "image_size": 42,
    "patch_size": 7,
    "reshape_hidden_states": False,
}
_TINY: dict[str, Any] = {
    "patch_size": 7,
    "reassemble_hidden_size": 24,
    "neck_hidden_sizes": [6, 8, 10, 12],
    "fusion_hidden_size": 8,
    "head_hidden_size": 5,
}
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "depth-anything-transformers": ({"out_indices": [1, 2, 3, 4]}, {}, {"keep_aspect_ratio": True}),
    "depth-anything-transformers-metric": (
        {"out_indices": [2, 4]},
        {
            "depth_estimation_type": "metric",
            "max_depth": 20,
            "neck_hidden_sizes": [6, 9],
            "reassemble_factors": [2, 0.5],
        },
        {"keep_aspect_ratio": False},
    ),
}
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "small": ({"hidden_size": 384, "num_attention_heads": 6}, {}),
    "base": (
        {"hidden_size": 768, "num_attention_heads": 12},
        {
            "reassemble_hidden_size": 768,
            "neck_hidden_sizes": [96, 192, 384, 768],
            "fusion_hidden_size": 128,
        },
    ),
}


def outputs(model: torch.nn.Module, processor: Any) -> dict[str, Any]:
    def run(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return network(x).predicted_depth

    arrays: dict[str, Any] = {}
    for i, shape in enumerate(INPUTS):
        x = common.images(*shape, seed=i)
        with torch.no_grad():
            arrays |= {f"{i}.pixel_values": x, f"{i}.output": run(model, x)}
    arrays |= common.in_bfloat16(model, run, arrays)
    image = picture()
    pixels = np.asarray(image).transpose(2, 0, 1)
    given = processor(pixels, return_tensors="pt", input_data_format="channels_first")
    with torch.no_grad():
        output = model(given["pixel_values"])
    size = [(image.height, image.width)]
    depth = processor.post_process_depth_estimation(output, target_sizes=size)[0]
    arrays |= {"picture": np.asarray(image), "prepared": given["pixel_values"]}
    return {**arrays, "depth": depth["predicted_depth"]}


def main() -> None:
    meta = common.metadata("transformers", "pillow", script="depth.py")
    for seed, (name, (trunk, own, how)) in enumerate(MODELS.items()):
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        config = DepthAnythingConfig(
            backbone_config=Dinov2Config(**{**_TRUNK, **trunk}), **{**_TINY, **own}
        )
        model = common.randomise(DepthAnythingForDepthEstimation(config), seed)
        model.head.conv3.bias.data += 1  # most depths are above zero
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        size = {"height": 49, "width": 42}
        processor = DPTImageProcessorPil(size=size, ensure_multiple_of=7, **how)
        processor.save_pretrained(folder)
        common.save(folder / "reference.safetensors", outputs(model, processor), meta)
    found: dict[str, Any] = {"made_with": common.metadata("transformers", script="depth.py")}
    for name, (trunk, own) in SIZES.items():
        inner = {"image_size": 518, "reshape_hidden_states": False, "out_indices": [3, 6, 9, 12]}
        with torch.device("meta"):
            config = DepthAnythingConfig(backbone_config=Dinov2Config(**inner, **trunk), **own)
            model = DepthAnythingForDepthEstimation(config)
        found[f"depth-anything-v2-{name}"] = listing(model)
    path = common.DATA / "depth_names.json.gz"
    path.write_bytes(gzip.compress(json.dumps(found, separators=(",", ":")).encode(), 9, mtime=0))
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

"""Tiny SegFormers and DeepLabs with random weights, saved by transformers, with their outputs.

Also a prepared picture for each, class maps at the size of a picture, and the names and shapes of
every tensor of the published sizes. Run: python tests/references/segmentation.py
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from transformers import (
    MobileNetV2Config,
    MobileNetV2ForSemanticSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)
from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import (
    MobileNetV2ImageProcessorPil,
)
from transformers.models.segformer.image_processing_pil_segformer import (
    SegformerImageProcessorPil,
)

INPUTS = ((2, 3, 37, 53), (1, 3, 64, 35))
LABELS = {"id2label": {i: f"kind {i}" for i in range(5)}}
LABELS["label2id"] = {v: k for k, v in LABELS["id2label"].items()}

SEGFORMERS: dict[str, dict[str, Any]] = {
    "segformer-transformers": {
        "depths": [1, 2, 1, 1],
        "hidden_sizes": [8, 12, 20, 24],
        "num_attention_heads": [1, 2, 5, 3],
        "sr_ratios": [4, 2, 2, 1],
        "mlp_ratios": [2, 3, 2, 1],
        "decoder_hidden_size": 18,
    },
    "segformer-transformers-three": {
        "num_encoder_blocks": 3,
        "depths": [1, 1, 2],
        "hidden_sizes": [6, 8, 12],
        "num_attention_heads": [3, 1, 2],
        "patch_sizes": [5, 3, 3],
        "strides": [2, 2, 2],
        "sr_ratios": [3, 2, 1],
        "mlp_ratios": [2, 2, 2],
        "hidden_act": "relu",
        "decoder_hidden_size": 10,
        "num_channels": 1,
    },
}
# Their heads have a fixed width, so the trunks are narrow; both have the weights of the first.
DEEPLABS: dict[str, dict[str, Any]] = {
    "deeplab-transformers": {"output_stride": 8},
    "deeplab-transformers-16": {"output_stride": 16, "tf_padding": False, "hidden_act": "relu"},
}
SIZES: dict[str, dict[str, Any]] = {
    "b0": {},
    "b1": {"hidden_sizes": [64, 128, 320, 512]},
    "b2": {"depths": [3, 4, 6, 3]},
    "b3": {"depths": [3, 4, 18, 3]},
    "b4": {"depths": [3, 8, 27, 3]},
    "b5": {"depths": [3, 6, 40, 3]},
}


def processor(name: str) -> Any:
    if "segformer" in name:
        grey = {"image_mean": [0.4], "image_std": [0.3]} if "three" in name else {}
        return SegformerImageProcessorPil(
            size={"height": 40, "width": 56}, do_reduce_labels=True, **grey
        )
    if "16" in name:
        return MobileNetV2ImageProcessorPil(
            size={"shortest_edge": 41}, do_center_crop=True, crop_size={"height": 41, "width": 41}
        )
    return MobileNetV2ImageProcessorPil(size={"shortest_edge": 41}, do_center_crop=False)


def picture() -> Image.Image:
    """A small colourful picture, different in every direction."""
    coarse = np.random.default_rng(7).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((61, 47), Image.Resampling.BICUBIC)


def outputs(model: torch.nn.Module, name: str) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    channels = model.config.num_channels
    for i, (batch, _, height, width) in enumerate(INPUTS):
        x = common.images(batch, channels, height, width, seed=i)
        with torch.no_grad():
            arrays |= {f"{i}.pixel_values": x, f"{i}.output": model(x).logits}
    arrays |= common.in_bfloat16(model, lambda m, x: m(x).logits, arrays)
    own, image = processor(name), picture()
    shown = image.convert("L") if channels == 1 else image
    pixels = np.asarray(shown)[None] if channels == 1 else np.asarray(shown).transpose(2, 0, 1)
    prepared = own(pixels, return_tensors="pt", input_data_format="channels_first")["pixel_values"]
    with torch.no_grad():
        output = model(prepared)
    size = [(image.height, image.width)]
    found = own.post_process_semantic_segmentation(output, target_sizes=size)[0]
    arrays |= {"picture": np.asarray(image), "prepared": prepared, "classes": found.to(torch.uint8)}
    return arrays | common.training_step(model, arrays["0.pixel_values"])


def models() -> None:
    meta = common.metadata("transformers", "pillow", script="segmentation.py")
    for number, (name, settings) in enumerate({**SEGFORMERS, **DEEPLABS}.items()):
        seed = min(number, len(SEGFORMERS))
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        model: torch.nn.Module
        if name in SEGFORMERS:
            model = SegformerForSemanticSegmentation(
                SegformerConfig(**settings, **LABELS, classifier_dropout_prob=0, drop_path_rate=0)
            )
        else:
            config = MobileNetV2Config(
                **settings,
                **LABELS,
                depth_multiplier=0.1,
                expand_ratio=2.0,
                finegrained_output=False,
                classifier_dropout_prob=0.0,
            )
            model = MobileNetV2ForSemanticSegmentation(config)
        common.randomise(model, seed)
        # Stored in half the bytes; values that bfloat16 has, so that nothing is lost.
        model = model.to(torch.bfloat16).float()
        common.save(folder / "reference.safetensors", outputs(model, name), meta)
        common.randomise(model, seed)  # the step of training changed running statistics
        model.to(torch.bfloat16).save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        processor(name).save_pretrained(folder)
    (common.DATA / "deeplab-transformers-16" / "model.safetensors").unlink()


def listing(model: torch.nn.Module) -> dict[str, Any]:
    """Names and shapes as they are in a saved file, where transformers renames what it builds."""
    found: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model.to(torch.bfloat16).to_empty(device="cpu").save_pretrained(folder)
        for path in sorted(Path(folder).glob("*.safetensors")):
            with safe_open(path, "np") as file:
                found |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    return {"parameters": sum(p.numel() for p in model.parameters()), "tensors": found}


def names() -> None:
    found: dict[str, Any] = {"made_with": common.metadata("transformers", script="segmentation.py")}
    for size, settings in SIZES.items():
        large = {"hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768}
        settings = settings if size in ("b0", "b1") else {**large, **settings}
        with torch.device("meta"):
            config = SegformerConfig(**settings, num_labels=150)
            model: torch.nn.Module = SegformerForSemanticSegmentation(config)
        found[f"segformer-{size}"] = listing(model)
    with torch.device("meta"):
        config = MobileNetV2Config(num_labels=21, output_stride=8)
        model = MobileNetV2ForSemanticSegmentation(config)
    found["deeplabv3-mobilenet-v2"] = listing(model)
    path = common.DATA / "segmentation_names.json.gz"
    text = json.dumps(found, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    models()
    names()

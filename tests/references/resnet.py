"""Tiny ResNets with random weights, saved by timm and by transformers, with their outputs.

Also `resnet_names.json`: the names and shapes of every tensor of ResNet-18 to 152.
Run: python tests/references/resnet.py
"""

from __future__ import annotations

import json
import shutil

import common
import torch
import torchvision_stub

torchvision_stub.install()
import timm  # noqa: E402
from timm.models import save_for_hf  # noqa: E402
from transformers import ResNetConfig, ResNetForImageClassification  # noqa: E402

# Odd sizes, and one that is not square; the second has one image only.
INPUTS = ((2, 3, 37, 53), (1, 3, 64, 33))

TIMM = {
    "resnet-timm-basic": (
        "resnet18",
        {"layers": [2, 1, 1, 1], "channels": [8, 12, 16, 24], "num_classes": 7},
    ),
    "resnet-timm-bottleneck": (
        "resnet50",
        {"layers": [1, 2, 1, 1], "channels": [4, 6, 8, 10], "num_classes": 5},
    ),
}
TRANSFORMERS = {
    "resnet-transformers-basic": {
        "embedding_size": 12,
        "hidden_sizes": [12, 16, 24, 40],
        "depths": [2, 1, 1, 1],
        "layer_type": "basic",
    },
    "resnet-transformers-bottleneck": {
        "embedding_size": 12,
        "hidden_sizes": [24, 40, 48, 56],
        "depths": [1, 2, 1, 1],
        "layer_type": "bottleneck",
    },
    # The two switches that move a stride; no published ResNet sets them, their format has them.
    "resnet-transformers-strides": {
        "embedding_size": 8,
        "hidden_sizes": [16, 24],
        "depths": [1, 2],
        "layer_type": "bottleneck",
        "downsample_in_first_stage": True,
        "downsample_in_bottleneck": True,
    },
}
BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def outputs(model: torch.nn.Module, features: object) -> dict[str, torch.Tensor]:
    arrays = {}
    with torch.no_grad():
        for i, shape in enumerate(INPUTS):
            pixel_values = common.images(*shape, seed=i)
            output = model(pixel_values)
            arrays[f"{i}.pixel_values"] = pixel_values
            arrays[f"{i}.logits"] = getattr(output, "logits", output)
            arrays[f"{i}.features"] = features(pixel_values)
    arrays.update(common.training_step(model, common.images(*INPUTS[0], seed=0)))
    return arrays


def from_timm() -> None:
    meta = common.metadata("timm", script="resnet.py")
    for seed, (name, (architecture, args)) in enumerate(TIMM.items()):
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        model = common.randomise(timm.create_model(architecture, **args), seed)
        save_for_hf(model, folder, model_args=args, safe_serialization=True)
        common.save(folder / "reference.safetensors", outputs(model, model.forward_features), meta)


def from_transformers() -> None:
    meta = common.metadata("transformers", script="resnet.py")
    for seed, (name, settings) in enumerate(TRANSFORMERS.items()):
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        config = ResNetConfig(
            **settings,
            id2label={i: f"kind {i}" for i in range(6)},
            label2id={f"kind {i}": i for i in range(6)},
        )
        model = common.randomise(ResNetForImageClassification(config), 10 + seed)
        model.save_pretrained(folder)
        arrays = outputs(model, lambda x, m=model: m.resnet(x).last_hidden_state)
        common.save(folder / "reference.safetensors", arrays, meta)


def names() -> None:
    """Names and shapes at full size, without weights, and the parameter counts."""
    found: dict[str, dict[str, object]] = {}
    for depth in (*BASIC, *BOTTLENECK):
        with torch.device("meta"):
            theirs = timm.create_model(f"resnet{depth}")
            layer_type = "basic" if depth in BASIC else "bottleneck"
            wide = [64, 128, 256, 512] if depth in BASIC else [256, 512, 1024, 2048]
            config = ResNetConfig(
                layer_type=layer_type,
                hidden_sizes=wide,
                depths=list({**BASIC, **BOTTLENECK}[depth]),
                num_labels=1000,
            )
            other = ResNetForImageClassification(config)
        found[f"resnet{depth}"] = {
            "parameters": sum(p.numel() for p in theirs.parameters()),
            "timm": {k: list(v.shape) for k, v in theirs.state_dict().items()},
            "transformers": {k: list(v.shape) for k, v in other.state_dict().items()},
        }
    path = common.DATA / "resnet_names.json"
    made_with = common.metadata("timm", "transformers", script="resnet.py")
    path.write_text(json.dumps({"made_with": made_with, **found}, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    from_timm()
    from_transformers()
    names()

"""Tiny RT-DETRs with random weights, saved by transformers, with outputs, losses and gradients.

Also the names and shapes of every tensor of the published sizes.
Run: python tests/references/rtdetr.py
"""

from __future__ import annotations

import copy
import gzip
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import common
import numpy as np
import torch
import torchvision_stub
from scipy.optimize import linear_sum_assignment

torchvision_stub.install()
from transformers import (  # noqa: E402
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
)
from transformers.models.rt_detr.image_processing_pil_rt_detr import (  # noqa: E402
    RTDetrImageProcessorPil,
)

_SMALL: dict[str, Any] = {
    "encoder_hidden_dim": 12, "encoder_attention_heads": 3, "encoder_ffn_dim": 20, "d_model": 16,
    "decoder_attention_heads": 2, "decoder_ffn_dim": 18, "decoder_layers": 2, "num_queries": 6,
    "decoder_n_points": 3, "num_denoising": 9,
}  # fmt: skip
_TRUNK: dict[str, Any] = {
    "embedding_size": 6, "hidden_sizes": [6, 8, 10, 12], "depths": [1, 2, 1, 1],
    "layer_type": "basic", "out_indices": [2, 3, 4],
}  # fmt: skip
_DEEP: dict[str, Any] = {
    **_TRUNK, "hidden_sizes": [8, 8, 12, 16], "depths": [2, 1, 1, 1], "layer_type": "bottleneck",
}  # fmt: skip
LABELS: dict[str, Any] = {"id2label": {i: f"kind {i}" for i in range(5)}}
LABELS["label2id"] = {v: k for k, v in LABELS["id2label"].items()}

# Name: version, trunk, changes.
MODELS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "rtdetr-basic": (1, _TRUNK, {"hidden_expansion": 0.5}),
    "rtdetr-bottleneck": (
        1,
        {**_DEEP, "out_indices": [3, 4]},
        {
            "freeze_backbone_batch_norms": False, "activation_function": "relu",
            "encoder_activation_function": "relu", "decoder_activation_function": "gelu",
            "encode_proj_layers": [0, 1], "encoder_layers": 2, "num_feature_levels": 2,
            "batch_norm_eps": 1e-3, "layer_norm_eps": 1e-4, "auxiliary_loss": False,
            "positional_encoding_temperature": 100, "matcher_alpha": 0.4, "focal_loss_gamma": 1.5,
            "weight_loss_vfl": 1.7, "matcher_giou_cost": 3.0, "num_denoising": 0,
            "feat_strides": [16, 32],
        },
    ),
    "rtdetr-v2": (2, _TRUNK, {"decoder_offset_scale": 0.7, "hidden_expansion": 0.75}),
}  # fmt: skip
KINDS: dict[int, Any] = {
    1: (RTDetrConfig, RTDetrForObjectDetection),
    2: (RTDetrV2Config, RTDetrV2ForObjectDetection),
}
INPUTS = ((2, 3, 60, 31), (1, 3, 64, 64))


def model_of(name: str) -> torch.nn.Module:
    version, trunk, changes = MODELS[name]
    levels = len(trunk["out_indices"])
    config, kind = KINDS[version]
    settings = {**_SMALL, **changes, **LABELS, "backbone_config": RTDetrResNetConfig(**trunk)}
    settings["encoder_in_channels"] = trunk["hidden_sizes"][-levels:]
    settings["decoder_in_channels"] = [settings["encoder_hidden_dim"]] * levels
    if version == 2:
        settings["decoder_n_levels"] = levels
    return kind(config(**settings))


def targets(batch: int) -> list[dict[str, torch.Tensor]]:
    """Boxes (centre, size) and classes for each picture; the last one of several has one."""
    rng = np.random.default_rng(batch)
    found = []
    for i in range(batch):
        count = 1 if i and i == batch - 1 else 3
        boxes = np.concatenate(
            [rng.uniform(0.3, 0.7, (count, 2)), rng.uniform(0.1, 0.5, (count, 2))], axis=1
        )
        labels = torch.tensor(rng.integers(0, 5, count))
        found.append({"boxes": torch.tensor(boxes, dtype=torch.float32), "class_labels": labels})
    return found


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """Every random number that denoising asks for is 0.25, and every random whole number 1."""
    kept = torch.rand_like, torch.randint_like
    torch.rand_like = lambda x, **_: torch.full_like(x, 0.25, dtype=torch.float32)
    torch.randint_like = lambda x, *_, dtype=None: torch.ones_like(x, dtype=dtype)
    try:
        yield
    finally:
        torch.rand_like, torch.randint_like = kept


def everywhere(model: Any, x: torch.Tensor) -> dict[str, Any]:
    """Answers of queries at all places, and how far they move in bfloat16.

    Which places are the best is another question in bfloat16; where all of them are queries, only
    their order changes.
    """
    model = copy.deepcopy(model)
    model.config.num_queries = sum((x.shape[2] // s) ** 2 for s in model.config.feat_strides)
    with torch.no_grad():
        high = model(x)
        low = model.to(torch.bfloat16)(x.to(torch.bfloat16))
    one, other = (torch.cat([o.logits, o.pred_boxes], -1)[0].float() for o in (high, low))
    distance = (one[:, None] - other).abs().sum(2)
    rows, columns = linear_sum_assignment(distance)
    error = (one[rows] - other[columns]).abs().max()
    print(f"  bfloat16 is off by {error:.4f}")
    names = {"logits": high.logits, "pred_boxes": high.pred_boxes, "bfloat16.error": error}
    return {f"all.{name}": value for name, value in names.items()}


def outputs(model: Any) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for i, shape in enumerate(INPUTS):
        x = common.images(*shape, seed=i)
        wanted = targets(shape[0])
        with torch.no_grad():
            output = model(x, labels=wanted)
        arrays |= {f"{i}.pixel_values": x, f"{i}.logits": output.logits}
        arrays |= {f"{i}.pred_boxes": output.pred_boxes, f"{i}.loss": output.loss}
        for j, target in enumerate(wanted):
            arrays |= {f"{i}.{j}.{key}": value for key, value in target.items()}
    arrays |= everywhere(model, arrays["1.pixel_values"])
    # Losses and gradients of the first batch: as in evaluation, then as in training.
    wanted = targets(INPUTS[0][0])
    for mode in ("eval", "train"):
        trained = copy.deepcopy(model).train(mode == "train")
        with nothing_drawn():
            loss = trained(arrays["0.pixel_values"], labels=wanted).loss
        loss.backward()
        arrays[f"{mode}.loss"] = loss
        named = [(n, p) for n, p in trained.named_parameters() if p.grad is not None]
        for n, p in (named[0], *named[len(named) // 2 :: 17], named[-1]):
            arrays[f"{mode}.grad.{n}"] = p.grad
    return arrays


def from_picture_to_boxes(model: Any, processor: Any) -> dict[str, Any]:
    """A picture, what it is for the network, and everything found in it."""
    photo = np.random.default_rng(5).integers(0, 256, (35, 51, 3), dtype=np.uint8)
    prepared = processor(photo, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = model(prepared)
    (found,) = processor.post_process_object_detection(
        output, threshold=0.0, target_sizes=[photo.shape[:2]]
    )
    return {"photo": photo, "prepared": prepared, **{f"found.{k}": v for k, v in found.items()}}


def models() -> None:
    meta = common.metadata("transformers", script="rtdetr.py")
    for seed, name in enumerate(MODELS):
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        model = common.randomise(model_of(name), 80 + seed)
        for part in model.modules():
            if hasattr(part, "n_points_scale"):  # no weight
                part.n_points_scale.fill_(1 / part.n_points)
        model.save_pretrained(folder)
        processor = RTDetrImageProcessorPil(size={"height": 32, "width": 64})
        processor.save_pretrained(folder)
        arrays = {**outputs(model), **from_picture_to_boxes(model, processor)}
        common.save(folder / "reference.safetensors", arrays, meta)


def names() -> None:
    """Names and shapes at full size, without weights, and the parameter counts."""
    basic = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}
    fused = {"hidden_expansion": 0.5, "encoder_in_channels": [128, 256, 512]}
    large = {"encoder_ffn_dim": 2048, "encoder_hidden_dim": 384}
    large |= {"decoder_in_channels": [384] * 3}
    sizes: dict[str, Any] = {
        "r18vd": ({**basic, "depths": [2, 2, 2, 2]}, {**fused, "decoder_layers": 3}),
        "r34vd": ({**basic, "depths": [3, 4, 6, 3]}, {**fused, "decoder_layers": 4}),
        "r50vd": ({}, {}),
        "r101vd": ({"depths": [3, 4, 23, 3]}, large),
    }
    found: dict[str, Any] = {"made_with": common.metadata("transformers")}
    for version, prefix in ((1, "rtdetr-"), (2, "rtdetr-v2-")):
        config, kind = KINDS[version]
        for name, (trunk, changes) in sizes.items():
            inner = RTDetrResNetConfig(**trunk, out_indices=[2, 3, 4])
            with torch.device("meta"):
                model = kind(config(**changes, backbone_config=inner, num_labels=80))
            found[prefix + name] = common.listing(model)
    path = common.DATA / "rtdetr_names.json.gz"
    text = json.dumps(found, separators=(",", ":")) + "\n"
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    models()
    names()

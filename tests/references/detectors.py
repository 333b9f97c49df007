"""Tiny DETRs and YOLOS with random weights, saved by transformers, with outputs and losses.

Also prepared pictures, and the names and shapes of every tensor of the published sizes.
Run: python tests/references/detectors.py
"""

from __future__ import annotations

import copy
import json
import shutil
from typing import Any

import common
import numpy as np
import torch
import torchvision_stub

torchvision_stub.install()
import timm  # noqa: E402
import transformers.utils  # noqa: E402
from transformers import (  # noqa: E402
    DetrConfig,
    DetrForObjectDetection,
    ResNetConfig,
    YolosConfig,
    YolosForObjectDetection,
)
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil  # noqa: E402
from transformers.models.yolos.image_processing_pil_yolos import (  # noqa: E402
    YolosImageProcessorPil,
)

# transformers asks for torchvision where it needs timm alone.
for _module in (transformers.utils, transformers.utils.import_utils):
    _module.is_timm_available = lambda: True
transformers.utils.import_utils.BACKENDS_MAPPING["timm"] = (lambda: True, "")

_DETR: dict[str, Any] = {
    "d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 3,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 40, "decoder_ffn_dim": 36, "num_queries": 7,
}  # fmt: skip
_YOLOS: dict[str, Any] = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40,
    "image_size": [32, 48], "patch_size": 8, "num_detection_tokens": 6,
}  # fmt: skip
_RESNET: dict[str, Any] = {
    "embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 2, 1, 1],
    "out_features": ["stage4"],
}  # fmt: skip
LABELS = {"id2label": {i: f"kind {i}" for i in range(5)}}
LABELS["label2id"] = {v: k for k, v in LABELS["id2label"].items()}

# Name, and for the backbones of timm: the variant, and what is changed in it.
DETRS: dict[str, tuple[dict[str, Any], str | None, dict[str, Any]]] = {
    "detr-timm": ({}, "resnet50", {"layers": [1, 2, 1, 1], "channels": [4, 5, 6, 7]}),
    "detr-timm-dilated": (
        {"dilation": True, "activation_function": "gelu"},
        "resnet18",
        {"layers": [1, 1, 1, 2], "channels": [4, 6, 8, 10]},
    ),
    "detr-transformers-learned": (
        {"position_embedding_type": "learned", "bbox_cost": 3, "eos_coefficient": 0.3},
        None,
        {**_RESNET, "layer_type": "basic"},
    ),
}
YOLOSES: dict[str, dict[str, Any]] = {
    "yolos-transformers": {"qkv_bias": False},
    "yolos-transformers-first": {"use_mid_position_embeddings": False, "hidden_act": "gelu_new"},
}

INPUTS = ((2, 3, 40, 72), (1, 3, 51, 41))


def detr(name: str) -> tuple[DetrForObjectDetection, dict[str, Any]]:
    settings, variant, changes = DETRS[name]
    if variant is None:
        trunk = ResNetConfig(**changes)
        config = DetrConfig(**_DETR, **settings, **LABELS, backbone_config=trunk)
        return DetrForObjectDetection(config), {}
    make = timm.create_model

    def changed(*args: Any, **kwargs: Any) -> Any:
        return make(*args, **kwargs, **changes)

    timm.create_model = changed
    try:
        config = DetrConfig(**_DETR, **settings, **LABELS, backbone=variant)
        return DetrForObjectDetection(config), {"backbone": variant, "backbone_kwargs": changes}
    finally:
        timm.create_model = make


def targets(batch: int) -> list[dict[str, torch.Tensor]]:
    """Boxes (centre, size) and classes for each picture; the last one of several has none."""
    rng = np.random.default_rng(batch)
    found = []
    for i in range(batch):
        count = 0 if i and i == batch - 1 else 3
        boxes = np.concatenate(
            [rng.uniform(0.3, 0.7, (count, 2)), rng.uniform(0.1, 0.5, (count, 2))], axis=1
        )
        labels = torch.tensor(rng.integers(0, 5, count))
        found.append({"boxes": torch.tensor(boxes, dtype=torch.float32), "class_labels": labels})
    return found


def mask(shape: tuple[int, ...]) -> torch.Tensor:
    """The last picture of the batch is smaller than the others."""
    inside = torch.ones((shape[0], *shape[2:]), dtype=torch.long)
    inside[-1, shape[2] * 2 // 3 :] = 0
    inside[-1, :, shape[3] * 3 // 5 :] = 0
    return inside


def outputs(model: torch.nn.Module, name: str) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    half = copy.deepcopy(model).to(torch.bfloat16)
    error = torch.tensor(0.0)
    for i, shape in enumerate(INPUTS):
        x = common.images(*shape, seed=i)
        more = {"pixel_mask": mask(shape)} if "detr" in name else {}
        wanted = targets(shape[0])
        with torch.no_grad():
            output = model(x, **more, labels=wanted)
            low = half(x.to(torch.bfloat16), **more)
        arrays |= {f"{i}.pixel_values": x, f"{i}.logits": output.logits}
        arrays |= {f"{i}.{key}": value for key, value in more.items()}
        arrays |= {f"{i}.pred_boxes": output.pred_boxes, f"{i}.loss": output.loss}
        for part in ("logits", "pred_boxes"):
            difference = (getattr(low, part).float() - getattr(output, part)).abs().max()
            error = torch.maximum(error, difference)
        for j, target in enumerate(wanted):
            arrays |= {f"{i}.{j}.{key}": value for key, value in target.items()}
    arrays["bfloat16.error"] = error
    # Gradients of the loss of the first batch.
    shape = INPUTS[0]
    more = {"pixel_mask": mask(shape)} if "detr" in name else {}
    model(arrays["0.pixel_values"], **more, labels=targets(shape[0])).loss.backward()
    named = [(n, p) for n, p in model.named_parameters() if p.grad is not None]
    for n, p in (named[0], named[len(named) // 2], named[-1]):
        arrays[f"grad.{n}"] = p.grad
    return arrays


def models() -> None:
    meta = common.metadata("transformers", "timm", script="detectors.py")
    for seed, name in enumerate([*DETRS, *YOLOSES]):
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        extra: dict[str, Any] = {}
        if name in DETRS:
            model, extra = detr(name)
        else:
            model = YolosForObjectDetection(YolosConfig(**_YOLOS, **YOLOSES[name], **LABELS))
        common.randomise(model, 60 + seed)
        model.save_pretrained(folder)
        if extra:  # as transformers 4 wrote it, where a changed ResNet can be said
            config = json.loads((folder / "config.json").read_text())
            config |= {"backbone_config": None, "use_timm_backbone": True, **extra}
            (folder / "config.json").write_text(json.dumps(config, indent=2))
        processor = DetrImageProcessorPil if name in DETRS else YolosImageProcessorPil
        processor(size={"shortest_edge": 48, "longest_edge": 80}).save_pretrained(folder)
        common.save(folder / "reference.safetensors", outputs(model, name), meta)


def pictures() -> None:
    """Batches of pictures of unequal sizes, prepared."""
    rng = np.random.default_rng(3)
    arrays: dict[str, Any] = {}
    sizes = ((40, 60), (75, 33))
    photos = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    for i, photo in enumerate(photos):
        arrays[f"photo.{i}"] = photo
    settings: dict[str, dict[str, Any]] = {
        "default": {"size": {"shortest_edge": 32, "longest_edge": 56}},
        "exact": {"size": {"height": 30, "width": 44}, "resample": 3},
        "unscaled": {"do_normalize": False, "size": {"shortest_edge": 17, "longest_edge": 333}},
        "padded": {
            "size": {"shortest_edge": 33, "longest_edge": 59},
            "pad_size": {"height": 64, "width": 61},
        },
        "within": {"size": {"max_height": 33, "max_width": 40}},
    }
    configs = {}
    for kind in (DetrImageProcessorPil, YolosImageProcessorPil):
        for name, values in settings.items():
            if "Yolos" in kind.__name__ and name not in ("default", "exact"):
                continue
            processor = kind(**values)
            batch = processor(photos, return_tensors="np")
            key = f"{kind.__name__[:-17]}.{name}".lower()
            arrays |= {f"{key}.pixel_values": batch["pixel_values"]}
            arrays |= {f"{key}.pixel_mask": batch["pixel_mask"]}
            configs[key] = json.loads(processor.to_json_string())
    meta = common.metadata("transformers", "pillow", script="detectors.py")
    folder = common.DATA / "detection_pictures"
    common.save(folder / "pictures.safetensors", arrays, meta)
    (folder / "configs.json").write_text(json.dumps(configs, indent=1) + "\n")


def names() -> None:
    """Names and shapes at full size, without weights, and the parameter counts."""
    tiny = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3}
    tiny |= {"image_size": [800, 1333], "use_mid_position_embeddings": False}
    small = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6}
    wide = {"hidden_size": 330, "intermediate_size": 1320, "num_attention_heads": 6}
    yolos = {"yolos-tiny": tiny, "yolos-small": small}
    yolos["yolos-small-dwr"] = {**wide, "num_hidden_layers": 14}
    yolos["yolos-base"] = {"image_size": [800, 1344]}
    found: dict[str, Any] = {"made_with": common.metadata("transformers", "timm")}
    with torch.device("meta"):
        for name, settings in yolos.items():
            model = YolosForObjectDetection(YolosConfig(**settings, num_labels=91))
            found[name] = common.listing(model)
        for name in ("detr-resnet-50", "detr-resnet-101"):
            variant = name.removeprefix("detr-").replace("-", "")
            model = DetrForObjectDetection(DetrConfig(backbone=variant, num_labels=91))
            found[name] = common.listing(model)
    path = common.DATA / "detector_names.json"
    path.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    models()
    pictures()
    names()

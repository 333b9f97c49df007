"""Published architectures at full size with random weights, saved by timm and transformers.

    ../peer/bin/python tests/benchmarks/families.py MODELS [NAME...]  # in the peer's environment
    python tests/benchmarks/run.py --peer ../peer/bin/python --models MODELS --only family

    ../peer/bin/python tests/benchmarks/families.py MODELS --onnx [NAME...]    # for run.py --onnx

Both sides of run.py then load the same folders, ours by their path alone, and are compared before
they are timed: pictures of 224 pixels (512 for detection and segmentation), batches of 1 and 8.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# Family: its name in timm, or its class in transformers and settings that are not the default.
TIMM = {
    "resnet50": "resnet50",
    "mobilenet-v2": "mobilenetv2_100",
    "mobilenet-v3-small": "mobilenetv3_small_100",
    "mobilenet-v3-large": "mobilenetv3_large_100",
    "efficientnet-b0": "efficientnet_b0",
    "efficientnet-v2-s": "tf_efficientnetv2_s",
    "convnext-tiny": "convnext_tiny",
    "vit-base": "vit_base_patch16_224",
    "deit-small": "deit_small_patch16_224",
    "vgg16": "vgg16",
}
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dinov2-small": ("Dinov2Model", {"hidden_size": 384, "num_attention_heads": 6}),
    "clip-base-32": ("CLIPModel", {}),
    "swin-tiny": ("SwinForImageClassification", {"num_labels": 1000}),
    "detr-resnet-50": ("DetrForObjectDetection", {"num_labels": 91}),
    "rtdetr-r18vd": (
        "RTDetrForObjectDetection",
        {
            "num_labels": 80,
            "encoder_in_channels": [128, 256, 512],
            "hidden_expansion": 0.5,
            "decoder_layers": 3,
        },
    ),
    "depth-anything-small": ("DepthAnythingForDepthEstimation", {}),
    "yolos-tiny": (
        "YolosForObjectDetection",
        {
            "hidden_size": 192,
            "num_attention_heads": 3,
            "intermediate_size": 768,
            "image_size": [800, 1333],
            "use_mid_position_embeddings": False,
            "num_labels": 91,
        },
    ),
    "segformer-b0": ("SegformerForSemanticSegmentation", {"num_labels": 150}),
    "deeplab-mobilenet-v2": (
        "MobileNetV2ForSemanticSegmentation",
        {"output_stride": 16, "num_labels": 21},
    ),
}
PICTURES_ONLY = ("clip-base-32",)  # of two towers, the one for pictures is timed
# Random weights of this one make numbers that overflow what can be compared.
TAMED = ("efficientnet-v2-s",)
LARGE = ("yolos-tiny", "segformer-b0", "deeplab-mobilenet-v2", "detr-resnet-50", "rtdetr-r18vd")
#: Whose convolutions make numbers of thousands otherwise, in which equal scores change places.
SCALED = ("detr-resnet-50", "rtdetr-r18vd")


EAGER = ("swin-tiny",)  # whose fused attention cannot be written as ONNX
BATCHES = (1, 8)


def side_of(name: str) -> int:
    """Height and width of the pictures that a family is timed on."""
    if name == "rtdetr-r18vd":
        return 640  # its only size
    return 512 if name in LARGE else 224


def trunk_of(name: str, transformers: Any) -> dict[str, Any]:
    """The configuration of the network below, which is an argument of its own."""
    if name == "detr-resnet-50":
        return {"backbone_config": transformers.ResNetConfig(out_features=["stage4"])}
    if name == "rtdetr-r18vd":
        trunk = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2] * 4}
        return {"backbone_config": transformers.RTDetrResNetConfig(**trunk, out_indices=[2, 3, 4])}
    if name == "depth-anything-small":
        trunk = {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518}
        trunk |= {"reshape_hidden_states": False, "out_indices": [3, 6, 9, 12]}
        return {"backbone_config": transformers.Dinov2Config(**trunk)}
    return {}


def imported() -> tuple[Any, Any]:
    """timm and transformers, without a torchvision."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "references"))
    import torchvision_stub

    torchvision_stub.install()
    import timm
    import transformers

    return timm, transformers


def opened(folder: Path) -> Any:
    """The model in a folder, built by the library that saved it."""
    timm, transformers = imported()
    if folder.name in TIMM:
        from safetensors.torch import load_file

        model = timm.create_model(TIMM[folder.name])
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()
    kind = getattr(transformers, TRANSFORMERS[folder.name][0])
    return kind.from_pretrained(folder).eval()


def make(folder: Path, chosen: list[str]) -> None:
    """Save families with random weights, all unless some are named."""
    timm, transformers = imported()
    import common
    from timm.models import save_for_hf

    for name, architecture in TIMM.items():
        if chosen and name not in chosen:
            continue
        model = common.randomise(timm.create_model(architecture), seed=1)
        for parameter in model.parameters() if name in TAMED else ():
            parameter.data *= 0.6 if parameter.ndim > 1 else 1
        save_for_hf(model, folder / name, safe_serialization=True)
        print(name, flush=True)
    for name, (kind, settings) in TRANSFORMERS.items():
        if chosen and name not in chosen:
            continue
        model_class = getattr(transformers, kind)
        config = model_class.config_class(**settings, **trunk_of(name, transformers))
        model = common.randomise(model_class(config), seed=1)
        for parameter in model.parameters() if name in SCALED else ():
            parameter.data *= 0.6 if parameter.ndim == 4 else 1
        model.save_pretrained(folder / name)
        print(name, flush=True)
    (folder / "families.json").write_text(json.dumps([*TIMM, *TRANSFORMERS]), encoding="utf-8")


def export(folder: Path) -> None:
    """Write `1.onnx` and `8.onnx` beside a saved model: its first output, for these batches."""
    import torch

    class First(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            if folder.name in PICTURES_ONLY:
                out = self.model.get_image_features(pixels)
                return out if isinstance(out, torch.Tensor) else out.pooler_output
            out = self.model(pixels)
            return out if isinstance(out, torch.Tensor) else out[0]

    inner, side = opened(folder), side_of(folder.name)
    if folder.name in EAGER:
        inner.set_attn_implementation("eager")
    model = First(inner).eval()
    for batch in BATCHES:
        pixels = torch.zeros(batch, 3, side, side)
        path = folder / f"{batch}.onnx"
        torch.onnx.export(model, (pixels,), path, dynamo=True, external_data=False, verbose=False)
        print(path, flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if sys.argv[2:3] == ["--onnx"]:
        for chosen in sys.argv[3:] or [*TIMM, *TRANSFORMERS]:
            export(Path(sys.argv[1]) / chosen)
    else:
        make(Path(sys.argv[1]), sys.argv[2:])

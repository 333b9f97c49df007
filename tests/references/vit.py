"""Tiny ViTs, DeiTs and DINOv2s with random weights, saved by timm and transformers, with outputs.

Also `vit_names.json`: the names and shapes of every tensor of the published sizes.
Run: python tests/references/vit.py
"""

from __future__ import annotations

import json
import shutil
from typing import Any

import common
import torch
import torchvision_stub

torchvision_stub.install()
import timm  # noqa: E402
import transformers  # noqa: E402
from timm.models import save_for_hf  # noqa: E402

# The size that the table of positions is for, and a larger and a smaller one, not square.
TIMM_INPUTS = ((2, 3, 12, 20), (1, 3, 20, 24), (1, 3, 8, 12))
TRANSFORMERS_INPUTS = ((2, 3, 16, 16), (1, 3, 22, 12), (1, 3, 8, 12))

_TINY = {"img_size": [12, 20], "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}
_TINY |= {"mlp_ratio": 2.0}
_ANY = {**_TINY, "dynamic_img_size": True}
TIMM = {
    "vit-timm": ("vit_tiny_patch16_224", {**_ANY, "num_classes": 7}),
    "vit-timm-mean": (
        "vit_small_patch32_224",
        {**_ANY, "global_pool": "avg", "qkv_bias": False, "mlp_ratio": 1.5, "num_classes": 5},
    ),
    "vit-timm-nohead": ("vit_base_patch16_224", {**_ANY, "in_chans": 1, "num_classes": 0}),
    "vit-timm-distilled": ("deit_tiny_distilled_patch16_224", {**_ANY, "num_classes": 6}),
    "vit-timm-deit3": ("deit3_small_patch16_224", {**_ANY, "num_classes": 6}),
    "dinov2-timm": ("vit_small_patch14_dinov2", {**_ANY, "num_classes": 0}),
    "dinov2-timm-registers": ("vit_base_patch14_reg4_dinov2", {**_ANY, "num_classes": 4}),
    "dinov2-timm-swiglu": ("vit_giant_patch14_dinov2", {**_ANY, "num_classes": 0}),
}

_SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
_SMALL |= {"image_size": 16, "patch_size": 4}
_VIT = {**_SMALL, "intermediate_size": 40}
TRANSFORMERS = {
    "vit-transformers": ("ViTForImageClassification", {**_VIT, "qkv_bias": False}),
    "vit-transformers-pooler": ("ViTModel", {**_VIT, "layer_norm_eps": 1e-3}),
    "vit-transformers-deit": ("DeiTForImageClassification", _VIT),
    "vit-transformers-teacher": (
        "DeiTForImageClassificationWithTeacher",
        {**_VIT, "hidden_act": "gelu_new"},
    ),
    "dinov2-transformers": ("Dinov2Model", {**_SMALL, "mlp_ratio": 2}),
    "dinov2-transformers-classifier": ("Dinov2ForImageClassification", {**_SMALL, "mlp_ratio": 1}),
    "dinov2-transformers-registers": (
        "Dinov2WithRegistersForImageClassification",
        {**_SMALL, "mlp_ratio": 2, "num_register_tokens": 3},
    ),
    "dinov2-transformers-swiglu": (
        "Dinov2Model",
        {**_SMALL, "mlp_ratio": 3, "use_swiglu_ffn": True},
    ),
}

# Name here -> timm's name, the class of transformers, size, patch, pixels.
_HEADS = ("ViTForImageClassification", "DeiTForImageClassificationWithTeacher")
NAMES = {
    "vit-tiny-patch16-224": ("vit_tiny_patch16_224", _HEADS[0], "tiny", 16, 224),
    "vit-tiny-patch16-384": ("vit_tiny_patch16_384", _HEADS[0], "tiny", 16, 384),
    "vit-small-patch16-224": ("vit_small_patch16_224", _HEADS[0], "small", 16, 224),
    "vit-small-patch16-384": ("vit_small_patch16_384", _HEADS[0], "small", 16, 384),
    "vit-small-patch32-224": ("vit_small_patch32_224", _HEADS[0], "small", 32, 224),
    "vit-base-patch16-224": ("vit_base_patch16_224", _HEADS[0], "base", 16, 224),
    "vit-base-patch16-384": ("vit_base_patch16_384", _HEADS[0], "base", 16, 384),
    "vit-base-patch32-224": ("vit_base_patch32_224", _HEADS[0], "base", 32, 224),
    "vit-large-patch16-224": ("vit_large_patch16_224", _HEADS[0], "large", 16, 224),
    "deit-tiny-patch16-224": ("deit_tiny_patch16_224", _HEADS[0], "tiny", 16, 224),
    "deit-small-patch16-224": ("deit_small_patch16_224", _HEADS[0], "small", 16, 224),
    "deit-base-patch16-224": ("deit_base_patch16_224", _HEADS[0], "base", 16, 224),
    "dinov2-small": ("vit_small_patch14_dinov2", "Dinov2Model", "small", 14, 518),
    "dinov2-base": ("vit_base_patch14_dinov2", "Dinov2Model", "base", 14, 518),
    "dinov2-large": ("vit_large_patch14_dinov2", "Dinov2Model", "large", 14, 518),
    "dinov2-giant": ("vit_giant_patch14_dinov2", "Dinov2Model", "giant", 14, 518),
}
for _size in ("tiny", "small", "base"):
    _name = f"deit-{_size}-distilled-patch16-224"
    NAMES[_name] = (_name.replace("-", "_"), _HEADS[1], _size, 16, 224)
for _size in ("small", "base"):
    _timm = f"vit_{_size}_patch14_reg4_dinov2"
    _name = f"dinov2-with-registers-{_size}"
    NAMES[_name] = (_timm, "Dinov2WithRegistersModel", _size, 14, 518)
WIDTHS = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "giant": (1536, 40, 24),
}


def from_timm() -> None:
    meta = common.metadata("timm", script="vit.py")
    for seed, (name, (architecture, args)) in enumerate(TIMM.items()):
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        model = common.randomise(timm.create_model(architecture, **args), 20 + seed)
        save_for_hf(model, folder, model_args=args, safe_serialization=True)
        arrays = {}
        with torch.no_grad():
            for i, (b, _, h, w) in enumerate(TIMM_INPUTS):
                x = common.images(b, args.get("in_chans", 3), h, w, seed=i)
                arrays[f"{i}.pixel_values"] = x
                arrays[f"{i}.tokens"] = model.forward_features(x)
                arrays[f"{i}.output"] = model(x)
        maps = model.forward_intermediates(x, indices=[0, 1], norm=True, intermediates_only=True)
        for i, feature_map in enumerate(maps):
            arrays[f"map.{i}"] = feature_map
        arrays.update(common.in_bfloat16(model, lambda m, x: m(x), arrays))
        arrays.update(common.training_step(model, arrays["0.pixel_values"]))
        common.save(folder / "reference.safetensors", arrays, meta)


def from_transformers() -> None:
    meta = common.metadata("transformers", script="vit.py")
    for seed, (name, (kind, settings)) in enumerate(TRANSFORMERS.items()):
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        model_class = getattr(transformers, kind)
        config = model_class.config_class(
            **settings,
            id2label={i: f"kind {i}" for i in range(5)},
            label2id={f"kind {i}": i for i in range(5)},
        )
        model = common.randomise(model_class(config), 40 + seed)
        model.save_pretrained(folder)
        other = {} if "dinov2" in name else {"interpolate_pos_encoding": True}
        body = getattr(model, model.base_model_prefix, model)

        def run(model: torch.nn.Module, x: torch.Tensor, other: Any = other) -> torch.Tensor:
            output = model(x, **other)
            pooled = getattr(output, "pooler_output", None)
            return output.logits if pooled is None else pooled

        arrays = {}
        with torch.no_grad():
            for i, shape in enumerate(TRANSFORMERS_INPUTS):
                x = common.images(*shape, seed=i)
                arrays[f"{i}.pixel_values"] = x
                arrays[f"{i}.tokens"] = body(x, **other).last_hidden_state
                arrays[f"{i}.output"] = run(model, x)
        arrays.update(common.in_bfloat16(model, run, arrays))
        if kind.endswith("ImageClassification"):
            arrays.update(common.training_step(model, arrays["0.pixel_values"]))
        common.save(folder / "reference.safetensors", arrays, meta)


def names() -> None:
    """Names and shapes at full size, without weights, and the parameter counts."""
    found: dict[str, object] = {"made_with": common.metadata("timm", "transformers")}
    for name, (architecture, kind, size, patch, pixels) in NAMES.items():
        width, depth, heads = WIDTHS[size]
        settings = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
        settings |= {"patch_size": patch, "image_size": pixels, "num_labels": 1000}
        if "dinov2" not in name:
            settings["intermediate_size"] = 4 * width
        if size == "giant":
            settings["use_swiglu_ffn"] = True
        model_class = getattr(transformers, kind)
        with torch.device("meta"):
            theirs = timm.create_model(architecture)
            other = model_class(model_class.config_class(**settings))
        found[name] = {"timm": common.listing(theirs), "transformers": common.listing(other)}
    path = common.DATA / "vit_names.json"
    path.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    from_timm()
    from_transformers()
    names()

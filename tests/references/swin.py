"""Tiny Swin transformers with random weights, saved by timm and transformers, with their outputs.

Also `swin_names.json`: the names and shapes of every tensor of the published sizes.
Run: python tests/references/swin.py
"""

from __future__ import annotations

import json
import shutil

import common
import torch
import torchvision_stub

torchvision_stub.install()
import timm  # noqa: E402
import transformers  # noqa: E402
from timm.models import save_for_hf  # noqa: E402

_TINY = {"embed_dim": 12, "depths": [2, 2], "num_heads": [3, 2], "window_size": 3}
_TINY |= {"num_classes": 7, "drop_path_rate": 0.0, "patch_size": 2, "mlp_ratio": 2.0}
# timm takes pictures of one size: maps of 9 x 9 and 5 x 5 tokens, then some that windows do not
# fill, of which one is as high as a window.
TIMM = {
    "swin-timm": {**_TINY, "img_size": [18, 18], "mlp_ratio": 2.5},
    "swin-timm-odd": {**_TINY, "img_size": [12, 22]},
    "swin-timm-nohead": {**_TINY, "img_size": [16, 20], "qkv_bias": False, "num_classes": 0},
}
# transformers takes any: an odd one, one that fills no patch, and one as high as a window.
INPUTS = ((2, 3, 18, 18), (1, 3, 21, 15), (1, 3, 12, 20))
_SMALL = {"embed_dim": 12, "depths": [2, 2], "num_heads": [3, 2], "window_size": 3}
_SMALL |= {"image_size": 18, "patch_size": 2, "drop_path_rate": 0.0, "mlp_ratio": 2.0}
TRANSFORMERS = {
    "swin-transformers": ("SwinForImageClassification", {**_SMALL, "qkv_bias": False}),
    "swin-transformers-nohead": ("SwinModel", {**_SMALL, "layer_norm_eps": 1e-3}),
}
NAMES = {
    ("tiny", 7, 224): (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    ("small", 7, 224): (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    ("base", 7, 224): (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    ("base", 12, 384): (128, (2, 2, 18, 2), (4, 8, 16, 32)),
}


def from_timm() -> None:
    meta = common.metadata("timm", script="swin.py")
    for seed, (name, args) in enumerate(TIMM.items()):
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        model = timm.create_model("swin_tiny_patch4_window7_224", **args)
        model = common.randomise(model, 60 + seed)
        save_for_hf(model, folder, model_args=args, safe_serialization=True)
        arrays = {}
        with torch.no_grad():
            for i, batch in enumerate((2, 1)):
                x = common.images(batch, 3, *args["img_size"], seed=i)
                arrays[f"{i}.pixel_values"] = x
                arrays[f"{i}.tokens"] = model.forward_features(x).flatten(1, 2)
                head = model.num_classes > 0
                arrays[f"{i}.output"] = (
                    model(x)
                    if head
                    else model.forward_head(model.forward_features(x), pre_logits=True)
                )
            maps = model.forward_intermediates(x, norm=True, intermediates_only=True)
        for i, feature_map in enumerate(maps):
            arrays[f"map.{i}"] = feature_map
        arrays.update(common.in_bfloat16(model, lambda m, x: m(x), arrays))
        arrays.update(common.training_step(model, arrays["0.pixel_values"]))
        common.save(folder / "reference.safetensors", arrays, meta)


def from_transformers() -> None:
    meta = common.metadata("transformers", script="swin.py")
    for seed, (name, (kind, settings)) in enumerate(TRANSFORMERS.items()):
        folder = common.DATA / name
        shutil.rmtree(folder, ignore_errors=True)
        model_class = getattr(transformers, kind)
        config = model_class.config_class(**settings, num_labels=5)
        model = common.randomise(model_class(config), 70 + seed)
        model.save_pretrained(folder)

        def fresh(model: torch.nn.Module) -> torch.nn.Module:
            """A map that one window covers changes the layers for good: undo that."""
            for layers in model.modules():
                for i, layer in enumerate(getattr(layers, "blocks", ())):
                    layer.shift_size = 0 if i % 2 == 0 else _SMALL["window_size"] // 2
                    layer.window_size = _SMALL["window_size"]
            return model

        def run(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
            output = fresh(model)(x)
            return output.logits if hasattr(output, "logits") else output.pooler_output

        body = getattr(model, "swin", model)
        arrays = {}
        with torch.no_grad():
            for i, shape in enumerate(INPUTS):
                x = common.images(*shape, seed=i)
                arrays[f"{i}.pixel_values"] = x
                arrays[f"{i}.output"] = run(model, x)
                fresh(model)
                arrays[f"{i}.tokens"] = body(x).last_hidden_state
        arrays.update(common.in_bfloat16(model, run, arrays))
        if "SwinModel" not in kind:
            arrays.update(common.training_step(fresh(model), arrays["0.pixel_values"]))
        common.save(folder / "reference.safetensors", arrays, meta)


def names() -> None:
    """Names and shapes at full size, without weights, and the parameter counts."""
    found: dict[str, object] = {"made_with": common.metadata("timm", "transformers")}
    for (size, window, pixels), (width, depths, heads) in NAMES.items():
        name = f"swin-{size}-patch4-window{window}-{pixels}"
        config = transformers.SwinConfig(
            embed_dim=width,
            depths=depths,
            num_heads=heads,
            window_size=window,
            image_size=pixels,
            num_labels=1000,
        )
        with torch.device("meta"):
            theirs = timm.create_model(name.replace("-", "_"))
            other = transformers.SwinForImageClassification(config)
        found[name] = {"timm": common.listing(theirs), "transformers": common.listing(other)}
        print(name, found[name]["timm"]["parameters"], found[name]["transformers"]["parameters"])
    path = common.DATA / "swin_names.json"
    path.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    from_timm()
    from_transformers()
    names()

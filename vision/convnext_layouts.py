"""How timm and transformers publish ConvNeXt: names of tensors, configurations, sizes."""

from __future__ import annotations

from typing import Any

from ..hub.configuration import (
    TRANSFORMERS_COMMON,
    as_tuple,
    expect,
    number_of_labels,
    refuse_unknown,
)
from ..hub.rename import Transform
from . import timm
from .vit_layouts import class_of

NAME = "ConvNeXt"


def _matrix(name: str) -> Transform:
    """A 1x1 convolution as the linear map that it is; a linear map stays one."""
    return Transform(name, lambda array: array.reshape(array.shape[:2]))


def _vector(name: str) -> Transform:
    return Transform(name, lambda array: array.reshape(-1))


_MLP = "stages.{}.blocks.{}.mlp."
TIMM: dict[str, Any] = {
    f"{_MLP}fc1.weight": _matrix(f"{_MLP}fc1.weight"),
    f"{_MLP}fc2.weight": _matrix(f"{_MLP}fc2.weight"),
}
TRANSFORMERS: dict[str, Any] = {"classifier.{rest}": "head.fc.{rest}"}
for _prefix in ("convnext.", "convnextv2.", ""):  # models without a head have none
    _old, _new = f"{_prefix}encoder.stages.{{}}.", "stages.{}."
    _layer, _block = f"{_old}layers.{{}}.", f"{_new}blocks.{{}}."
    TRANSFORMERS |= {
        f"{_prefix}embeddings.patch_embeddings.{{rest}}": "stem.0.{rest}",
        f"{_prefix}embeddings.layernorm.{{rest}}": "stem.1.{rest}",
        f"{_prefix}layernorm.{{rest}}": "head.norm.{rest}",
        f"{_old}downsampling_layer.{{rest}}": f"{_new}downsample.{{rest}}",
        f"{_layer}layer_scale_parameter": f"{_block}gamma",
        f"{_layer}dwconv.{{rest}}": f"{_block}conv_dw.{{rest}}",
        f"{_layer}layernorm.{{rest}}": f"{_block}norm.{{rest}}",
        f"{_layer}pwconv1.{{rest}}": f"{_block}mlp.fc1.{{rest}}",
        f"{_layer}pwconv2.{{rest}}": f"{_block}mlp.fc2.{{rest}}",
        f"{_layer}grn.weight": _vector(f"{_block}mlp.grn.weight"),
        f"{_layer}grn.bias": _vector(f"{_block}mlp.grn.bias"),
    }


def from_transformers(published: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the configuration that a config.json of transformers says."""
    same = {"depths", "hidden_sizes", "patch_size", "hidden_act", "drop_path_rate"}
    read = {"num_channels", "num_stages", "image_size", "layer_norm_eps", "layer_scale_init_value"}
    refuse_unknown(published, TRANSFORMERS_COMMON | same | read, NAME)
    given: dict[str, Any] = {key: published[key] for key in same & set(published)}
    for key in {"depths", "hidden_sizes"} & set(given):
        given[key] = as_tuple(NAME, key, given[key])
    stages = len(given.get("depths", (3, 3, 9, 3)))
    expect(published, NAME, num_stages=(stages,))
    second = published.get("model_type") == "convnextv2"
    name = "ConvNextV2" if second else "ConvNext"
    known = (f"{name}ForImageClassification", f"{name}Model")
    head = class_of(published, known, known[0]) == known[0]
    return {
        **given,
        "kernel_sizes": (7,) * stages,
        "head_norm_eps": published.get("layer_norm_eps", 1e-12),
        "layer_scale": not second and published.get("layer_scale_init_value", 1e-6) > 0,
        "use_grn": second,
        "in_channels": published.get("num_channels", 3),
        "num_classes": number_of_labels(published) if head else 0,
    }


_WIDE = {"depths": (3, 3, 27, 3)}
SIZES: dict[str, dict[str, Any]] = {
    "atto": {"depths": (2, 2, 6, 2), "hidden_sizes": (40, 80, 160, 320)},
    "femto": {"depths": (2, 2, 6, 2), "hidden_sizes": (48, 96, 192, 384)},
    "pico": {"depths": (2, 2, 6, 2), "hidden_sizes": (64, 128, 256, 512)},
    "nano": {"depths": (2, 2, 8, 2), "hidden_sizes": (80, 160, 320, 640)},
    "tiny": {},
    "small": _WIDE,
    "base": {**_WIDE, "hidden_sizes": (128, 256, 512, 1024)},
    "large": {**_WIDE, "hidden_sizes": (192, 384, 768, 1536)},
    "xlarge": {**_WIDE, "hidden_sizes": (256, 512, 1024, 2048)},
    "huge": {**_WIDE, "hidden_sizes": (352, 704, 1408, 2816)},
}
_LARGE_EPS = {"layer_norm_eps": 1e-5, "head_norm_eps": 1e-5}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    **{f"convnext_{size}": config for size, config in SIZES.items() if size != "huge"},
    **{
        f"convnextv2_{size}": {**config, "use_grn": True, "layer_scale": False}
        for size, config in SIZES.items()
        if size != "xlarge"
    },
    **{f"convnext_{s}_ols": {**SIZES[s], "stem_type": "overlap_tiered"} for s in list(SIZES)[:3]},
    "convnext_nano_ols": {**SIZES["nano"], "stem_type": "overlap"},
    "convnext_tiny_hnf": {"head_norm_first": True},
    "convnext_large_mlp": {**SIZES["large"], "head_hidden_size": 1536},
    "convnext_xxlarge": {
        "depths": (3, 4, 30, 3),
        "hidden_sizes": (384, 768, 1536, 3072),
        **_LARGE_EPS,
    },
}
_ARGUMENTS = {
    "act_layer": "hidden_act",
    "conv_bias": "conv_bias",
    "depths": "depths",
    "dims": "hidden_sizes",
    "drop_path_rate": "drop_path_rate",
    "drop_rate": "dropout",
    "head_hidden_size": "head_hidden_size",
    "head_norm_first": "head_norm_first",
    "kernel_sizes": "kernel_sizes",
    "stem_type": "stem_type",
    "use_grn": "use_grn",
}


def from_timm(published: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the configuration that a config.json of timm says: a size, and changes."""
    passed = ("conv_mlp", "head_init_scale", "ls_init_value", "norm_eps")
    args, ends = timm.arguments(published, NAME, *_ARGUMENTS, *passed)
    values = dict(ARCHITECTURES[str(published["architecture"])])
    for key, own in _ARGUMENTS.items():
        if key in args:
            values[own] = tuple(args[key]) if isinstance(args[key], list) else args[key]
    if values.get("hidden_act") == "gelu_tanh":
        values["hidden_act"] = "gelu_pytorch_tanh"
    if isinstance(values.get("kernel_sizes"), int):
        values["kernel_sizes"] = (values["kernel_sizes"],) * 4
    if "ls_init_value" in args:
        values["layer_scale"] = args["ls_init_value"] is not None
    if "norm_eps" in args:
        values |= {"layer_norm_eps": args["norm_eps"], "head_norm_eps": args["norm_eps"]}
    return {**values, **ends}

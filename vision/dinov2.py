"""DINOv2. Oquab et al. 2023, "DINOv2: Learning Robust Visual Features without Supervision".

A ViT with layer scale, patches of 14 pixels and no head: it gives vectors, and maps for other
networks. With registers: Darcet et al. 2023, "Vision Transformers Need Registers".
Weights: facebook/dinov2-small, ..., timm/vit_small_patch14_dinov2.lvd142m, ... (Apache-2.0); any
repository in the layout of transformers or timm loads by its id.
Deviation from the paper: none; pictures of any size are taken, tables of positions are resized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..hub.configuration import (
    TRANSFORMERS_COMMON,
    expect,
    number_of_labels,
    positive,
    real,
    refuse_unknown,
)
from ..hub.registry import Entry, Hub, Layout, register
from . import vit
from .transformer import Size
from .vit_layouts import JOIN, PLAIN, SIZES, TIMM, TRANSFORMERS, class_of, from_timm, plain


@dataclass(frozen=True)
class Config(vit.Config):
    """The fields of `vit.Config`; the defaults are DINOv2-base without a head."""

    patch_size: Size = (14, 14)
    image_size: Size = (518, 518)
    layer_scale: bool = True
    antialias: bool = False
    num_classes: int = 0


def gated_width(hidden: int) -> int:
    """The width of a gated MLP with as many weights as a plain one of this width."""
    return (int(hidden * 2 / 3) + 7) // 8 * 8


_OTHER = {
    "apply_layernorm", "drop_path_rate", "layerscale_value", "mlp_ratio", "num_channels",
    "num_register_tokens", "reshape_hidden_states", "use_mask_token", "use_swiglu_ffn",
}  # fmt: skip
_CLASSES = (
    "Dinov2Model",
    "Dinov2ForImageClassification",
    "Dinov2WithRegistersModel",
    "Dinov2WithRegistersForImageClassification",
)


def from_transformers(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of transformers says."""
    refuse_unknown(published, PLAIN | _OTHER | TRANSFORMERS_COMMON, "DINOv2")
    expect(published, "DINOv2", use_swiglu_ffn=(False, True))
    wrote = class_of(published, _CLASSES, _CLASSES[0])
    registers = published["model_type"] == "dinov2_with_registers"
    width, ratio = published.get("hidden_size", 768), published.get("mlp_ratio", 4)
    positive("DINOv2", hidden_size=width)
    real("DINOv2", 0.01, 100, mlp_ratio=ratio)
    gated = published.get("use_swiglu_ffn", False)
    hidden = int(width * ratio)
    defaults: dict[str, Any] = {"patch_size": (16, 16) if registers else (14, 14)}
    values = {"image_size": (224, 224), **defaults, **plain(published)}
    values["antialias"] = registers
    head = wrote.endswith("Classification")
    return Config(
        **values,
        intermediate_size=gated_width(hidden) if gated else hidden,
        swiglu=gated,
        drop_path_rate=published.get("drop_path_rate", 0.0),
        registers=published.get("num_register_tokens", 4) if registers else 0,
        pooling="both" if head else "token",
        num_classes=number_of_labels(published) if head else 0,
    )


def from_timm_config(published: dict[str, Any]) -> Config:
    """The configuration that a config.json of timm says."""
    name = str(published["architecture"])
    defaults: dict[str, Any] = {"init_values": 1e-5}
    if "_reg4_" in name:
        defaults |= {"reg_tokens": 4, "no_embed_class": True}
    if "_giant_" in name:
        defaults["mlp_ratio"] = 2.66667 * 2
    values = from_timm(published, **defaults)
    if "_giant_" in name:  # timm counts gate and values together
        values |= {"intermediate_size": values["intermediate_size"] // 2, "swiglu": True}
    return Config(**values)


# Name, size, registers, parameters (counted).
_PUBLISHED = (
    ("dinov2-small", "small", 0, 22_056_192),
    ("dinov2-base", "base", 0, 86_579_712),
    ("dinov2-large", "large", 0, 304_367_616),
    ("dinov2-giant", "giant", 0, 1_136_479_232),
    ("dinov2-with-registers-small", "small", 4, 22_057_728),
    ("dinov2-with-registers-base", "base", 4, 86_582_784),
)


def _entry(name: str, size: str, registers: int, parameters: int) -> Entry:
    width, depth, heads = SIZES[size]
    giant = size == "giant"
    timm = f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2.lvd142m"
    return Entry(
        name=name,
        aliases=(timm,),
        sources=(Hub(f"facebook/{name}"), Hub(f"timm/{timm}")),
        config={
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "intermediate_size": gated_width(4 * width) if giant else 4 * width,
            "swiglu": giant,
            "registers": registers,
            "antialias": bool(registers),
        },
        layout="transformers",
        license="Apache-2.0",  # timm 1.0.31, default configurations of these weights
        commercial=True,
        parameters=parameters,
        paper="https://arxiv.org/abs/2304.07193",
        note="trained on 142 million pictures without labels",
    )


@register(
    "dinov2",
    config=Config,
    task="image-feature-extraction",
    layouts={
        "timm": Layout(rename=TIMM, config=from_timm_config),
        "transformers": Layout(rename=TRANSFORMERS, join=JOIN, config=from_transformers),
    },
    model_types=("dinov2", "dinov2_with_registers"),
    architectures=(r"vit_(small|base|large|giant)_patch14(_reg4)?_dinov2",),
    head=("head",),
    stem="patch_embed.proj.weight",
    fit=vit.fit_positions,
    entries=[_entry(*row) for row in _PUBLISHED],
)
def dinov2(config: Config) -> vit.ViT:
    """Vision transformer trained without labels, for vectors and feature maps."""
    return vit.ViT(config)

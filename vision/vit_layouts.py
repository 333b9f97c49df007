"""How timm and transformers name the tensors and write the configurations of plain ViTs.

Serves vit.py and dinov2.py: the first argument of a translation is the published configuration,
its result the keyword arguments of their Config.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from ..core.errors import ConfigError
from ..hub.configuration import (
    TIMM_COMMON,
    TRANSFORMERS_COMMON,
    as_pair,
    expect,
    natural,
    number_of_labels,
    positive,
    real,
    refuse_unknown,
)

# Width, blocks, heads.
SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "medium": (512, 12, 8),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
    "giant": (1536, 40, 24),
}

# -- timm --------------------------------------------------------------------------------------

TIMM = {
    "fc_norm.{rest}": "norm.{rest}",
    "head_dist.{rest}": "head.distillation.{rest}",
}
_TIMM_ARGS = {
    "depth", "dynamic_img_pad", "dynamic_img_size", "embed_dim", "global_pool", "img_size",
    "in_chans", "init_values", "mlp_ratio", "no_embed_class", "num_classes", "num_heads",
    "patch_size", "qkv_bias", "reg_tokens",
}  # fmt: skip


def from_timm(published: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """A config.json of timm: a size by name, with changes to it.

    Args:
        defaults: timm's arguments that belong to the name, as `from_timm` reads them.
    """
    refuse_unknown(published, TIMM_COMMON, "ViT")
    given = published.get("model_args") or {}
    refuse_unknown(given, _TIMM_ARGS, "ViT (model_args)")
    expect(given, "ViT (model_args)", dynamic_img_pad=(False,))
    name = str(published["architecture"])
    found = re.search(r"_(tiny|small|medium|base|large|huge|giant)_.*patch(\d+)", name)
    if found is None:
        raise ConfigError(f"ViT: the architecture {name!r} names no size", got=name)
    width, depth, heads = SIZES[found[1]]
    if name.startswith("deit3"):
        defaults = {"no_embed_class": True, "init_values": 1e-6, **defaults}
    input_size = published.get("pretrained_cfg", {}).get("input_size") or (3, 224, 224)
    common: dict[str, Any] = {
        "embed_dim": width,
        "depth": depth,
        "num_heads": heads,
        "patch_size": int(found[2]),
    }
    common |= {"img_size": input_size[1:], "in_chans": input_size[0], "mlp_ratio": 4.0}
    common |= {"global_pool": published.get("global_pool") or "token", "qkv_bias": True}
    args = {**common, "init_values": None, "reg_tokens": 0, **defaults, **given}
    for place in (published, args):
        expect(place, "ViT", global_pool=("token", "avg"))
    positive("ViT", embed_dim=args["embed_dim"])
    natural("ViT", reg_tokens=args["reg_tokens"])
    distilled = "_distilled_" in name
    real("ViT", 0.01, 100, mlp_ratio=args["mlp_ratio"])
    return {
        "hidden_size": args["embed_dim"],
        "num_hidden_layers": args["depth"],
        "num_attention_heads": args["num_heads"],
        "intermediate_size": int(args["embed_dim"] * args["mlp_ratio"]),
        "patch_size": as_pair("ViT", "patch_size", args["patch_size"]),
        "image_size": as_pair("ViT", "img_size", args["img_size"]),
        "qkv_bias": args["qkv_bias"],
        "pooling": {"token": "token", "avg": "mean"}[args["global_pool"]],
        "distillation": "head" if distilled else "none",
        "layer_scale": args["init_values"] is not None,
        "registers": args["reg_tokens"],
        "positioned": 0 if args.get("no_embed_class") else 1 + distilled + args["reg_tokens"],
        "antialias": True,
        "in_channels": args["in_chans"],
        "num_classes": published.get("num_classes", 1000),
    }


# -- transformers ------------------------------------------------------------------------------

# Files name tensors as transformers 4 did; those of transformers 5 differ while a model runs, and
# are understood as well. Models without a head have no prefix.
TRANSFORMERS: dict[str, str | None] = {
    "classifier.{rest}": "head.{rest}",
    "cls_classifier.{rest}": "head.{rest}",
    "distillation_classifier.{rest}": "head.distillation.{rest}",
}
for _prefix in ("", "vit.", "deit.", "dinov2.", "dinov2_with_registers."):
    for _old, _new in (
        ("cls_token", "cls_token"),
        ("distillation_token", "dist_token"),
        ("register_tokens", "reg_token"),
        ("mask_token", None),  # of the pretraining
        ("position_embeddings", "pos_embed"),
        ("patch_embeddings.projection.{rest}", "patch_embed.proj.{rest}"),
    ):
        TRANSFORMERS[f"{_prefix}embeddings.{_old}"] = _new
    for _old, _new in (
        ("attention.attention.query.{rest}", "attn.q.{rest}"),
        ("attention.attention.key.{rest}", "attn.k.{rest}"),
        ("attention.attention.value.{rest}", "attn.v.{rest}"),
        ("attention.output.dense.{rest}", "attn.proj.{rest}"),
        ("attention.q_proj.{rest}", "attn.q.{rest}"),
        ("attention.k_proj.{rest}", "attn.k.{rest}"),
        ("attention.v_proj.{rest}", "attn.v.{rest}"),
        ("attention.o_proj.{rest}", "attn.proj.{rest}"),
        ("intermediate.dense.{rest}", "mlp.fc1.{rest}"),
        ("output.dense.{rest}", "mlp.fc2.{rest}"),
        ("layernorm_before.{rest}", "norm1.{rest}"),
        ("layernorm_after.{rest}", "norm2.{rest}"),
        ("layer_scale1.lambda1", "ls1.gamma"),
        ("layer_scale2.lambda1", "ls2.gamma"),
        ("mlp.weights_in.{rest}", "mlp.fc1.{rest}"),
        ("mlp.weights_out.{rest}", "mlp.fc2.{rest}"),
        ("mlp.down_proj.{rest}", "mlp.fc2.{rest}"),
        ("{rest}", "{rest}"),  # the others are named alike
    ):
        for _layer in ("encoder.layer", "layers"):
            TRANSFORMERS[f"{_prefix}{_layer}.{{}}.{_old}"] = f"blocks.{{}}.{_new}"
    TRANSFORMERS[f"{_prefix}layernorm.{{rest}}"] = "norm.{rest}"
    if _prefix:
        TRANSFORMERS[f"{_prefix}pooler.{{rest}}"] = "pooler.{rest}"

JOIN = {
    "blocks.{}.attn.qkv.{rest}": tuple(f"blocks.{{}}.attn.{part}.{{rest}}" for part in "qkv"),
    "blocks.{}.mlp.fc1.{rest}": (
        "blocks.{}.mlp.gate_proj.{rest}",
        "blocks.{}.mlp.up_proj.{rest}",
    ),
}

# The class that wrote a file -> what its head sees and how its distillation token is used.
_CLASSES: dict[str, dict[str, Any]] = {
    "ViTForImageClassification": {},
    "ViTModel": {"num_classes": 0, "pooler": True},
    "DeiTForImageClassification": {"distillation": "token", "positioned": 2},
    "DeiTForImageClassificationWithTeacher": {"distillation": "head", "positioned": 2},
    "DeiTModel": {"num_classes": 0, "pooler": True, "distillation": "token", "positioned": 2},
}
_DEFAULT_CLASS = {"vit": "ViTForImageClassification", "deit": "DeiTForImageClassification"}
PLAIN = {
    "attention_probs_dropout_prob", "hidden_act", "hidden_dropout_prob", "hidden_size",
    "image_size", "layer_norm_eps", "num_attention_heads", "num_hidden_layers", "patch_size",
    "qkv_bias",
}  # fmt: skip
_OTHER = {"encoder_stride", "intermediate_size", "num_channels", "pooler_act", "pooler_output_size"}


def from_transformers(published: dict[str, Any]) -> dict[str, Any]:
    """A config.json of transformers' ViT or DeiT."""
    refuse_unknown(published, PLAIN | _OTHER | TRANSFORMERS_COMMON, "ViT")
    expect(published, "ViT", pooler_act=("tanh",))
    wrote = class_of(published, _CLASSES, _DEFAULT_CLASS[published["model_type"]])
    hidden = published.get("hidden_size", 768)
    expect(published, "ViT", pooler_output_size=(None, hidden))
    return {
        "layer_norm_eps": 1e-12,
        **plain(published),
        "intermediate_size": published.get("intermediate_size", 3072),
        "num_classes": number_of_labels(published),
        **_CLASSES[wrote],
    }


def plain(published: dict[str, Any]) -> dict[str, Any]:
    """The settings that transformers' ViT, DeiT and DINOv2 have in common."""
    values = {key: published[key] for key in PLAIN & set(published)}
    for key in ("image_size", "patch_size"):
        if key in values:
            values[key] = as_pair("ViT", key, values[key])
    return {**values, "in_channels": published.get("num_channels", 3), "antialias": False}


def class_of(published: dict[str, Any], known: Collection[str], default: str) -> str:
    """The class of transformers that wrote a file.

    Raises:
        ConfigError: it is none of `known`.
    """
    names = published.get("architectures") or [default]
    if not isinstance(names, list) or names[0] not in known:
        raise ConfigError(
            f"files of {names!r} are not supported.\nSupported: {', '.join(known)}", got=names
        )
    return str(names[0])


def with_pooler(config: Any, names: Collection[str]) -> Any:
    """A configuration does not say whether a model without a head was saved with its pooler."""
    return replace(config, pooler=config.pooler and "pooler.dense.weight" in names)

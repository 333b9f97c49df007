"""How transformers names the tensors and writes the configurations of DETR.

`from_transformers` gives the keyword arguments of `detr.Config`.
"""

from __future__ import annotations

from typing import Any

from ..core.errors import ConfigError
from ..hub.configuration import (
    TRANSFORMERS_COMMON,
    as_tuple,
    expect,
    number_of_labels,
    refuse_unknown,
)
from . import resnet

NAME = "DETR"
SIZES = (
    "d_model", "num_queries", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim",
    "decoder_layers", "decoder_attention_heads", "decoder_ffn_dim",
)  # fmt: skip
WEIGHTS = (
    "class_cost", "bbox_cost", "giou_cost", "bbox_loss_coefficient", "giou_loss_coefficient",
    "eos_coefficient",
)  # fmt: skip

_TRUNK = "model.backbone.conv_encoder.model."
RENAME: dict[str, str | None] = {
    f"{_TRUNK}{{rest}}.num_batches_tracked": None,
    # ResNets of transformers, then of timm
    **{
        old.replace("resnet.", _TRUNK, 1): f"backbone.{new}"
        for old, new in resnet.TRANSFORMERS.items()
        if old.startswith("resnet.")
    },
    f"{_TRUNK}{{rest}}": "backbone.{rest}",
    "model.{rest}": "{rest}",
}

_PLAIN = {
    *SIZES, *WEIGHTS, "activation_function", "position_embedding_type", "dropout",
    "attention_dropout", "activation_dropout", "auxiliary_loss", "dilation",
}  # fmt: skip
# Of training, of masks, or of earlier versions, and without effect on boxes.
_SILENT = {
    "classifier_dropout", "decoder_layerdrop", "dice_loss_coefficient", "encoder_layerdrop",
    "init_std", "init_xavier_std", "is_encoder_decoder", "mask_loss_coefficient",
    "max_position_embeddings", "num_hidden_layers", "use_pretrained_backbone",
}  # fmt: skip
_BACKBONE = {"backbone", "backbone_config", "backbone_kwargs", "use_timm_backbone"}


def from_transformers(published: dict[str, Any]) -> dict[str, Any]:
    """The configuration that a config.json of transformers says, of any version."""
    known = _PLAIN | _SILENT | _BACKBONE | TRANSFORMERS_COMMON | {"num_channels", "scale_embedding"}
    refuse_unknown(published, known, NAME)
    expect(published, NAME, scale_embedding=(False,), is_encoder_decoder=(True,))
    expect(published, NAME, architectures=(None, ["DetrForObjectDetection"]))
    # Versions without timm wrote null for what was timm's.
    given = {key: published[key] for key in _PLAIN if published.get(key) is not None}
    channels = published.get("num_channels") or 3
    classes = number_of_labels(published)
    return {**given, **_trunk(published), "in_channels": channels, "num_classes": classes}


def _trunk(published: dict[str, Any]) -> dict[str, Any]:
    """What is said of the ResNet: by transformers, or by timm in two places."""
    inner = published.get("backbone_config") or {}
    if inner.get("model_type") == "resnet":
        same = {"depths", "hidden_sizes", "layer_type", "embedding_size"}
        expect(
            inner,
            f"{NAME} (backbone)",
            hidden_act=("relu",),
            downsample_in_bottleneck=(False,),
            downsample_in_first_stage=(False,),
            out_features=(["stage4"], [f"stage{len(inner.get('depths') or [0] * 4)}"]),
        )
        return {
            key: as_tuple(NAME, key, inner[key]) if isinstance(inner[key], list) else inner[key]
            for key in same & set(inner)
        }
    expect(inner, f"{NAME} (backbone)", model_type=("timm_backbone",))
    name = str(inner.get("backbone") or published.get("backbone") or "resnet50")
    depth = name.removeprefix("resnet")
    if not depth.isdigit() or int(depth) not in resnet.SIZES:
        raise ConfigError(
            f"{NAME}: the backbone {name!r} is not supported.\n"
            f"Supported: {', '.join(f'resnet{n}' for n in resnet.SIZES)}; transformers' ResNets.",
            got=name,
        )
    changes = dict(published.get("backbone_kwargs") or {})
    changes.pop("out_indices", None)
    stride = changes.pop("output_stride", None) or inner.get("output_stride") or 32
    expect({"output_stride": stride}, NAME, output_stride=(16, 32))
    size = resnet.from_timm({"architecture": name, "model_args": changes, "num_classes": 1})
    sizes = ("depths", "hidden_sizes", "layer_type", "embedding_size")
    said: dict[str, Any] = {key: getattr(size, key) for key in sizes}
    return {**said, "dilation": True} if stride == 16 else said

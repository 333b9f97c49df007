"""How transformers names the tensors and writes the configurations of RT-DETR and RT-DETRv2.

`from_transformers` gives the keyword arguments of `rtdetr.Config`.
"""

from __future__ import annotations

from typing import Any

from ..core.errors import ConfigError
from ..hub.configuration import (
    TRANSFORMERS_COMMON,
    TRANSFORMERS_DUMPED,
    as_tuple,
    expect,
    number_of_labels,
    refuse_unknown,
)

NAME = "RT-DETR"
SIZES = (
    "encoder_hidden_dim", "encoder_attention_heads", "encoder_ffn_dim", "d_model", "num_queries",
    "decoder_layers", "decoder_attention_heads", "decoder_ffn_dim", "decoder_n_points",
)  # fmt: skip
WEIGHTS = (
    "matcher_class_cost", "matcher_bbox_cost", "matcher_giou_cost", "matcher_alpha",
    "matcher_gamma", "focal_loss_alpha", "focal_loss_gamma", "weight_loss_vfl", "weight_loss_bbox",
    "weight_loss_giou", "label_noise_ratio", "box_noise_scale", "decoder_offset_scale",
)  # fmt: skip
RATES = ("dropout", "activation_dropout", "attention_dropout", "layer_norm_eps", "batch_norm_eps")
ACTS = ("activation_function", "encoder_activation_function", "decoder_activation_function")

_TRUNK = "model.backbone.model."
RENAME: dict[str, str | None] = {
    f"{_TRUNK}embedder.embedder.{{}}.convolution.{{rest}}": "backbone.stem.{}.conv.{rest}",
    f"{_TRUNK}embedder.embedder.{{}}.normalization.{{rest}}": "backbone.stem.{}.norm.{rest}",
    f"{_TRUNK}encoder.stages.{{}}.layers.{{place}}.convolution.{{rest}}": (
        "backbone.stages.{}.{place}.conv.{rest}"
    ),
    f"{_TRUNK}encoder.stages.{{}}.layers.{{place}}.normalization.{{rest}}": (
        "backbone.stages.{}.{place}.norm.{rest}"
    ),
    "model.encoder.encoder.{}.layers.{rest}": "encoder.aifi.{}.layers.{rest}",
    # One divided by the number of points, for each: a constant of version 2.
    "model.decoder.layers.{}.encoder_attn.n_points_scale": None,
    # The same tensors a second time.
    "class_embed.{rest}": None,
    "bbox_embed.{rest}": None,
    "model.{rest}": "{rest}",
}

_PLAIN = {
    *SIZES, *WEIGHTS, *RATES, *ACTS, "encoder_layers", "num_denoising", "hidden_expansion",
    "positional_encoding_temperature", "freeze_backbone_batch_norms", "auxiliary_loss",
}  # fmt: skip
# Said twice, of training, or of other software.
_SILENT = {
    "disable_custom_kernels", "eos_coefficient", "feat_strides", "initializer_bias_prior_prob",
    "is_encoder_decoder", "tie_word_embeddings", "use_pretrained_backbone", "encoder_in_channels",
}  # fmt: skip
_CHECKED: dict[str, tuple[Any, ...]] = {
    "anchor_image_size": (None, []),
    "architectures": (None, ["RTDetrForObjectDetection"], ["RTDetrV2ForObjectDetection"]),
    "backbone": (None,),
    "backbone_kwargs": (None, {}),
    "decoder_method": ("default",),
    "eval_size": (None,),
    "learn_initial_query": (False,),
    "normalize_before": (False,),
    "use_focal_loss": (True,),
    "use_timm_backbone": (False, None),
    "with_box_refine": (True,),
}
_COUNTS = {"num_feature_levels", "decoder_n_levels"}
_BACKBONE = {"depths", "hidden_sizes", "layer_type", "embedding_size"}


def from_transformers(published: dict[str, Any]) -> dict[str, Any]:
    """The configuration that a config.json of transformers says."""
    known = _PLAIN | _SILENT | set(_CHECKED) | _COUNTS | TRANSFORMERS_COMMON
    known |= {"backbone_config", "decoder_in_channels", "encode_proj_layers"}
    refuse_unknown(published, known, NAME)
    expect(published, NAME, **_CHECKED)
    given = {key: published[key] for key in _PLAIN & set(published)}
    given |= _trunk(published)
    levels, width = given["levels"], given.get("encoder_hidden_dim", 256)
    wanted: dict[str, Any] = dict.fromkeys(_COUNTS, (levels,))
    wanted["decoder_in_channels"] = ([width] * levels, (width,) * levels)
    expect({"num_feature_levels": 3, "decoder_in_channels": [256] * 3, **published}, NAME, **wanted)
    if "encode_proj_layers" in published:
        chosen = as_tuple(NAME, "encode_proj_layers", published["encode_proj_layers"])
        given["encode_proj_layers"] = chosen
    return {**given, "num_classes": number_of_labels(published)}


def _trunk(published: dict[str, Any]) -> dict[str, Any]:
    """What is said of the ResNet, and how many of its maps are looked at."""
    what = f"{NAME} (backbone)"
    inner = published.get("backbone_config") or {}
    if not isinstance(inner, dict):
        raise ConfigError(f"{NAME}: backbone_config={inner!r} is no configuration", got=inner)
    expect({"model_type": None, **inner}, what, model_type=("rt_detr_resnet", None))
    known = _BACKBONE | TRANSFORMERS_COMMON | TRANSFORMERS_DUMPED | {"num_channels", "hidden_act"}
    known |= {"downsample_in_first_stage", "downsample_in_bottleneck", "add_cross_attention"}
    known |= {"is_decoder", "is_encoder_decoder", "cross_attention_hidden_size", "pruned_heads"}
    refuse_unknown(inner, known, what)
    expect(
        inner,
        what,
        hidden_act=("relu",),
        downsample_in_bottleneck=(False,),
        downsample_in_first_stage=(False,),
    )
    said = {
        key: as_tuple(what, key, inner[key]) if key in ("depths", "hidden_sizes") else inner[key]
        for key in _BACKBONE & set(inner)
    }
    stages = len(said.get("depths", (0,) * 4))
    looked_at = inner.get("out_features") or [f"stage{i}" for i in (2, 3, 4)]
    levels = len(looked_at) if isinstance(looked_at, list) else 0
    last = [f"stage{i}" for i in range(stages - levels + 1, stages + 1)]
    expect({"out_features": looked_at}, what, out_features=(last,))
    channels = inner.get("num_channels", 3)
    return {**said, "levels": levels, "in_channels": channels}

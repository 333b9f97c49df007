"""Stable Diffusion in one file, as its authors and many others publish it.

All networks are in one `.safetensors` (or `.ckpt`), under the names of the first release's code.
The tables below translate them; the configuration follows from the names and shapes, since the
file has none. Versions 1 and 2 load, and networks for painting into pictures.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import HubError, WeightsError
from ..hub.card import card_of
from ..hub.filling import Options, Report, filled
from ..hub.loading import Loaded
from ..hub.pipelines import Parts, PartsConfig
from ..hub.registry import Layout, architecture_by_name
from ..hub.rename import Transform
from ..text.clip_text import EncoderConfig
from .autoencoder_kl import Config as VaeConfig
from .unet2d_condition import Config as UNetConfig

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.text_model.", "cond_stage_model.model."
_XL = "conditioner."
FIRST = f"{UNET}input_blocks.0.0.weight"  # by which such a file is known

# Tables of noise, averages of the training and its losses: no weights of any network.
NOT_WEIGHTS: dict[str, Any] = dict.fromkeys(
    (
        "model_ema.{rest}",
        "betas",
        "alphas_cumprod{rest}",
        "alphas_cumprod",
        "sqrt_{rest}",
        "log_one_minus_alphas_cumprod",
        "posterior_{rest}",
        "lvlb_weights",
        "logvar",
        "scale_factor",
        f"{VAE}loss.{{rest}}",
        "cond_stage_model.logit_scale",
        "global_step",
    )
)
RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
OUTER = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
VAE_OUTER = {
    "conv_in": "conv_in",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
    "mid.attn_1.norm": "mid_block.attentions.0.group_norm",
}
VAE_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
#: What the training's noise was; files do not say.
SCHEDULER: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}

Shapes = Mapping[str, tuple[int, ...]]


# -- names -----------------------------------------------------------------------------------------


def unet_names(config: UNetConfig) -> dict[str, str]:
    """The UNet's names in a file -> ours."""
    table = {f"{old}.{{rest}}": f"{new}.{{rest}}" for old, new in OUTER.items()}
    levels = len(config.block_out_channels)

    def resnet(old: str, new: str) -> None:
        table.update({f"{old}.{a}.{{rest}}": f"{new}.{b}.{{rest}}" for a, b in RESNET.items()})

    number = 1
    for i in range(levels):
        for j in range(config.layers_per_block[i]):
            resnet(f"input_blocks.{number}.0", f"down_blocks.{i}.resnets.{j}")
            table[f"input_blocks.{number}.1.{{rest}}"] = f"down_blocks.{i}.attentions.{j}.{{rest}}"
            number += 1
        if i < levels - 1:
            place = f"down_blocks.{i}.downsamplers.0.conv"
            table[f"input_blocks.{number}.0.op.{{rest}}"] = f"{place}.{{rest}}"
            number += 1
    resnet("middle_block.0", "mid_block.resnets.0")
    table["middle_block.1.{rest}"] = "mid_block.attentions.0.{rest}"
    resnet("middle_block.2", "mid_block.resnets.1")
    number = 0
    for i in range(levels):
        layers = config.layers_per_block[levels - 1 - i] + 1
        for j in range(layers):
            resnet(f"output_blocks.{number}.0", f"up_blocks.{i}.resnets.{j}")
            if j == layers - 1 and i < levels - 1:  # behind the attention, if there is any
                behind = 2 if config.up_block_types[i].startswith("Cross") else 1
                conv = f"output_blocks.{number}.{behind}.conv.{{rest}}"
                table[conv] = f"up_blocks.{i}.upsamplers.0.conv.{{rest}}"
            table[f"output_blocks.{number}.1.{{rest}}"] = f"up_blocks.{i}.attentions.{j}.{{rest}}"
            number += 1
    return table


def vae_names(config: VaeConfig) -> dict[str, Any]:
    """The autoencoder's names in a file -> ours; its attention's maps are convolutions there."""
    table: dict[str, Any] = {
        f"{name}.{{rest}}": f"{name}.{{rest}}" for name in ("quant_conv", "post_quant_conv")
    }
    last = len(config.block_out_channels) - 1

    def resnet(old: str, new: str) -> None:
        table[f"{old}.nin_shortcut.{{rest}}"] = f"{new}.conv_shortcut.{{rest}}"
        table[f"{old}.{{rest}}"] = f"{new}.{{rest}}"

    for part in ("encoder", "decoder"):
        for old, new in VAE_OUTER.items():
            table[f"{part}.{old}.{{rest}}"] = f"{part}.{new}.{{rest}}"
        for old, new in VAE_ATTENTION.items():
            place = f"{part}.mid_block.attentions.0.{new}"
            table[f"{part}.mid.attn_1.{old}.weight"] = Transform(f"{place}.weight", _as_matrix)
            table[f"{part}.mid.attn_1.{old}.bias"] = f"{place}.bias"
        for j in (0, 1):
            resnet(f"{part}.mid.block_{j + 1}", f"{part}.mid_block.resnets.{j}")
    for i in range(last + 1):
        table[f"encoder.down.{i}.downsample.conv.{{rest}}"] = (
            f"encoder.down_blocks.{i}.downsamplers.0.conv.{{rest}}"
        )
        table[f"decoder.up.{last - i}.upsample.conv.{{rest}}"] = (
            f"decoder.up_blocks.{i}.upsamplers.0.conv.{{rest}}"
        )
        for j in range(config.layers_per_block + 1):
            resnet(f"encoder.down.{i}.block.{j}", f"encoder.down_blocks.{i}.resnets.{j}")
            resnet(f"decoder.up.{last - i}.block.{j}", f"decoder.up_blocks.{i}.resnets.{j}")
    return table


def open_clip_names(layers: int) -> dict[str, Any]:
    """The names of version 2's text encoder -> ours; its last layer is not used."""
    table: dict[str, Any] = {
        f"transformer.resblocks.{layers}.{{rest}}": None,
        "positional_embedding": "embeddings.position_embedding.weight",
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "ln_final.{rest}": "final_layer_norm.{rest}",
        "text_projection": None,
        "logit_scale": None,
        "attn_mask": None,
    }
    for old, new in OPEN_CLIP_LAYER.items():
        table[f"transformer.resblocks.{{}}.{old}.{{rest}}"] = f"encoder.layers.{{}}.{new}.{{rest}}"
    for kind in ("weight", "bias"):
        table[f"transformer.resblocks.{{}}.attn.in_proj_{kind}"] = (
            f"encoder.layers.{{}}.self_attn.in_proj.{kind}"
        )
    return table


def _as_matrix(array: Any) -> Any:
    return array.reshape(array.shape[0], -1)


def _split(state: dict[str, Any], config: Any) -> None:
    """Queries, keys and values are one matrix in OpenCLIP's files."""
    for name in [n for n in state if ".self_attn.in_proj." in n]:
        for part, array in zip("qkv", np.split(state.pop(name), 3), strict=True):
            state[name.replace("in_proj", f"{part}_proj")] = np.ascontiguousarray(array)


# -- configurations --------------------------------------------------------------------------------


def unet_config(shapes: Shapes) -> UNetConfig:
    """What the shapes of a UNet say, by its names in the file."""
    own = {n.removeprefix(UNET): shape for n, shape in shapes.items() if n.startswith(UNET)}
    widths: list[int] = []
    layers: list[int] = []
    attended: list[bool] = []
    depth: list[int] = []
    new = True
    for number in range(1, 1 + _count(own, r"input_blocks\.(\d+)\.")):
        start = f"input_blocks.{number}."
        if f"{start}0.op.weight" in own:
            new = True
            continue
        width = own[f"{start}0.out_layers.3.weight"][0]
        if new:
            widths.append(width)
            layers.append(0)
            attended.append(f"{start}1.norm.weight" in own)
            blocks = _count(own, rf"{re.escape(start)}1\.transformer_blocks\.(\d+)\.") + 1
            depth.append(max(blocks, 1))
        new = False
        layers[-1] += 1
    keys = [shape for n, shape in own.items() if n.endswith("attn2.to_k.weight")]
    linear = any(len(s) == 2 for n, s in own.items() if n.endswith("proj_in.weight"))
    return UNetConfig(
        sample_size=(96, 96) if linear else (64, 64),
        in_channels=own["input_blocks.0.0.weight"][1],
        out_channels=own["out.2.weight"][0],
        block_out_channels=tuple(widths),
        layers_per_block=tuple(layers),
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attended),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attended[::-1]),
        transformer_layers_per_block=tuple(depth),
        attention_head_dim=tuple(width // 64 if linear else 8 for width in widths),
        cross_attention_dim=keys[0][1],
        use_linear_projection=linear,
    )


def vae_config(shapes: Shapes) -> VaeConfig:
    """What the shapes of an autoencoder say."""
    own = {n.removeprefix(VAE): shape for n, shape in shapes.items() if n.startswith(VAE)}
    levels = _count(own, r"encoder\.down\.(\d+)\.") + 1
    widths = tuple(own[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels))
    return VaeConfig(
        in_channels=own["encoder.conv_in.weight"][1],
        out_channels=own["decoder.conv_out.weight"][0],
        latent_channels=own["decoder.conv_in.weight"][1],
        block_out_channels=widths,
        layers_per_block=_count(own, r"encoder\.down\.0\.block\.(\d+)\.") + 1,
    )


def text_config(shapes: Shapes) -> EncoderConfig:
    """What the shapes of a text encoder say."""
    old = any(name.startswith(CLIP) for name in shapes)
    start = CLIP if old else OPEN_CLIP
    own = {n.removeprefix(start): shape for n, shape in shapes.items() if n.startswith(start)}
    tokens = own["embeddings.token_embedding.weight" if old else "token_embedding.weight"]
    places = own["embeddings.position_embedding.weight" if old else "positional_embedding"]
    inner = "encoder.layers.0.mlp.fc1" if old else "transformer.resblocks.0.mlp.c_fc"
    pattern = r"encoder\.layers\.(\d+)\." if old else r"transformer\.resblocks\.(\d+)\."
    return EncoderConfig(
        hidden_size=tokens[1],
        intermediate_size=own[f"{inner}.weight"][0],
        num_hidden_layers=_count(own, pattern) + (1 if old else 0),
        num_attention_heads=max(tokens[1] // 64, 1),
        vocab_size=tokens[0],
        max_position_embeddings=places[0],
        hidden_act="quick_gelu" if old else "gelu",
        eos_token_id=tokens[0] - 1,
    )


def _count(names: Shapes, pattern: str) -> int:
    """The largest number that the names have in a place; -1 for none."""
    found = (re.match(pattern, name) for name in names)
    return max((int(match[1]) for match in found if match is not None), default=-1)


# -- loading ---------------------------------------------------------------------------------------


def is_single_file(path: Path) -> bool:
    """Whether a file holds a whole Stable Diffusion."""
    from ..core.weights import open_weights

    try:
        with open_weights(path) as file:
            return FIRST in file
    except WeightsError:  # whoever wants its tensors is told what it is
        return False


def from_single_file(path: Path, options: Options) -> Loaded:
    """The networks of a file; every tensor is used or known to be no weight.

    Raises:
        HubError: it is of a version that is not supported.
        WeightsError: tensors that are missing, or that nothing uses.
    """
    from ..core.weights import open_weights

    with open_weights(path) as file:
        infos, metadata = file.infos(), file.metadata
    shapes = {name: info.shape for name, info in infos.items()}
    if any(name.startswith(_XL) for name in shapes):
        raise HubError(
            f"{path} holds Stable Diffusion XL, which has two text encoders; versions 1 and 2 "
            "are read from single files.",
            path=str(path),
        )
    try:
        unet, vae, text = unet_config(shapes), vae_config(shapes), text_config(shapes)
    except (IndexError, KeyError) as error:
        raise HubError(
            f"{path} is no whole Stable Diffusion: {error} is missing.\n"
            "A file with the network alone, or the autoencoder alone, is not enough.",
            path=str(path),
        ) from None
    old = any(name.startswith(CLIP) for name in shapes)
    text_names: dict[str, Any] = {"{rest}": "{rest}"}
    if not old:
        text_names = open_clip_names(text.num_hidden_layers)
    names = {
        "unet": ("unet2d-condition", unet, UNET, unet_names(unet)),
        "vae": ("autoencoder-kl", vae, VAE, vae_names(vae)),
        "text_encoder": ("clip-text", text, CLIP if old else OPEN_CLIP, text_names),
    }
    others = {start: {f"{start}{{rest}}": None} for _, _, start, _ in names.values()}
    parts: dict[str, Loaded] = {}
    for part, (kind, config, start, table) in names.items():
        rename: dict[str, Any] = {f"{start}embeddings.position_ids": None}
        rename |= {f"{start}{a}": b for a, b in table.items()}
        for place, drop in others.items():
            rename |= drop if place != start else {}
        layout = Layout(rename=NOT_WEIGHTS | rename, settle=_split)
        architecture = architecture_by_name(kind)
        assert architecture is not None
        own = dataclasses.replace(architecture, layouts={"single": layout})
        module, report = filled(own, config, config, path, "single", options)
        card = card_of(architecture, None, part)
        parts[part] = Loaded(module, architecture, config, card, report)
    return _pipeline(path, parts, metadata)


def _pipeline(path: Path, parts: dict[str, Loaded], metadata: Mapping[str, Any]) -> Loaded:
    architecture = architecture_by_name("stable-diffusion")
    assert architecture is not None
    kind = metadata.get("modelspec.prediction_type")
    scheduler = dict(SCHEDULER)
    # Version 2 was published at 768 pixels with v-prediction, and at 512 without.
    linear = parts["unet"].config.use_linear_projection
    if kind in ("v", "v_prediction") or (kind is None and linear):
        scheduler["prediction_type"] = "v_prediction"
    config = PartsConfig(
        {
            part: {"architecture": one.architecture.name, "config": dataclasses.asdict(one.config)}
            for part, one in parts.items()
        },
        "StableDiffusionPipeline",
    )
    names = [f.name for f in dataclasses.fields(Report) if f.name != "source"]
    together: dict[str, Any] = {
        kind: tuple(
            f"{part}.{name}" for part, one in parts.items() for name in getattr(one.report, kind)
        )
        for kind in names
    }
    together["dropped"] = ()  # what each network leaves to the others
    return Loaded(
        Parts({part: one.module for part, one in parts.items()}),
        architecture,
        config,
        card_of(architecture, None, path.stem),
        Report(**together, source=str(path)),
        folder=path.parent,
        parts=parts,
        scheduler=scheduler,
    )

"""CLIP's text encoder. Radford et al. 2021, "Learning Transferable Visual Models".

A causal transformer; the token that ends a text stands for it. Its layers serve the image encoder
as well (vision/clip.py), and this encoder serves diffusion models: the `text_encoder` folder of
Stable Diffusion loads. Attributes are named as transformers names them. Deviation from the paper:
none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from ..core import nn
from ..core.errors import ConfigError, DtypeError, ShapeError
from ..core.nn import functional as F
from ..core.ops.logic import equal
from ..core.ops.searching import argmax
from ..core.ops.shape import permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import (
    TRANSFORMERS_COMMON,
    TRANSFORMERS_DUMPED,
    expect,
    refuse_unknown,
)
from ..hub.registry import Layout, register

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"quick_gelu": nn.QuickGELU, "gelu": nn.GELU}
#: Files written before 2023 say 2 where the end of a text is the largest number in it.
LEGACY_END = 2


@dataclass(frozen=True)
class TextConfig:
    """Field names as in transformers' config.json; the defaults are ViT-B/32's text encoder.

    Args:
        hidden_size, intermediate_size, num_hidden_layers, num_attention_heads: of the layers.
        vocab_size, max_position_embeddings: tokens there are, and the most of a text.
        hidden_act: "quick_gelu" in OpenAI's models, "gelu" in LAION's.
        eos_token_id: the token that ends a text; see `LEGACY_END`.
    """

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    vocab_size: int = 49_408
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.0
    eos_token_id: int = 49_407

    def __post_init__(self) -> None:
        counts = (self.vocab_size, self.max_position_embeddings)
        check_layers("CLIP's text encoder", self, *counts)
        if type(self.eos_token_id) is not int or self.eos_token_id < 0:
            raise ConfigError(
                f"CLIP: eos_token_id={self.eos_token_id!r} is no number of a token",
                got=self.eos_token_id,
            )


def check_layers(what: str, config: Any, *counts: Any) -> None:
    """Raise where the settings of the layers, or other counts, make no sense.

    Raises:
        ConfigError: names them.
    """
    sizes = (
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
        config.num_attention_heads,
    )
    if not all(type(n) is int and 1 <= n <= 1 << 20 for n in (*sizes, *counts)):
        raise ConfigError(f"{what}: sizes are whole numbers from 1, not {(*sizes, *counts)}")
    if config.hidden_size % config.num_attention_heads:
        raise ConfigError(
            f"{what}: hidden_size={config.hidden_size} must be a multiple of "
            f"num_attention_heads={config.num_attention_heads}"
        )
    rates = (config.layer_norm_eps, config.attention_dropout)
    if not all(type(rate) in (int, float) and 0 <= rate < 1 for rate in rates):
        raise ConfigError(f"{what}: layer_norm_eps, attention_dropout={rates} make no sense")
    if config.hidden_act not in ACTIVATIONS:
        raise ConfigError(
            f"{what}: hidden_act={config.hidden_act!r} is not supported.\n"
            f"Supported: {', '.join(ACTIVATIONS)}",
            got=config.hidden_act,
        )


# -- layers that both encoders have ------------------------------------------------------------


class Attention(nn.Module):
    """Self-attention. Shape: (B, T, D), kept."""

    def __init__(self, config: Any) -> None:
        width = config.hidden_size
        self.heads, self.dropout = config.num_attention_heads, config.attention_dropout
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        b, t, d = x.shape
        q, k, v = (
            permute_dims(reshape(part(x), (b, t, self.heads, d // self.heads)), (0, 2, 1, 3))
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, is_causal=causal)
        out: Tensor = self.out_proj(reshape(permute_dims(y, (0, 2, 1, 3)), (b, t, d)))
        return out


class Mlp(nn.Module):
    """Two linear maps with an activation between them."""

    def __init__(self, config: Any) -> None:
        self.act = ACTIVATIONS[config.hidden_act]()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class Layer(nn.Module):
    """Attention and an MLP, each after a layer norm and added to what comes in."""

    def __init__(self, config: Any) -> None:
        self.self_attn = Attention(config)
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Mlp(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x), mask, causal)
        x = x + self.mlp(self.layer_norm2(x))
        return x


class Encoder(nn.Module):
    """The layers, one after the other."""

    def __init__(self, config: Any) -> None:
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        for layer in self.layers:
            x = layer(x, mask, causal)
        return x


def initialise(module: nn.Module) -> None:
    """Initial values for training from scratch. Source: the published code of CLIP."""
    for part in module.modules():
        if isinstance(part, Attention):
            width = part.q_proj.in_features
            for linear in (part.q_proj, part.k_proj, part.v_proj, part.out_proj):
                nn.init.normal_(linear.weight, std=width**-0.5)
        elif isinstance(part, Mlp):
            nn.init.normal_(part.fc1.weight, std=(2 * part.fc1.in_features) ** -0.5)
            nn.init.normal_(part.fc2.weight, std=part.fc1.in_features**-0.5)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


# -- the encoder -------------------------------------------------------------------------------


class TextFeatures(NamedTuple):
    """Every token, and what stands for the whole text."""

    last_hidden_state: Tensor
    pooler_output: Tensor


class TextEmbeddings(nn.Module):
    """The vectors of tokens and of their places, added."""

    def __init__(self, config: TextConfig) -> None:
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        places = self.position_embedding.weight[: input_ids.shape[1]]
        vectors: Tensor = self.token_embedding(input_ids) + places
        return vectors


class ClipText(nn.Module):
    """Token and place vectors, causal layers, a layer norm."""

    def __init__(self, config: TextConfig) -> None:
        self.config = config
        self.embeddings = TextEmbeddings(config)
        self.encoder = Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        initialise(self)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> TextFeatures:
        """Every token after the last layer, and the one that ends the text.

        Args:
            attention_mask: which tokens are no padding. Padding after the end changes nothing.

        Shape:
            (B, T), whole numbers -> (B, T, hidden_size) and (B, hidden_size)
        Raises:
            ShapeError: not two axes, or more tokens than there are places.
            IndexRangeError: a token outside the vocabulary.
        """
        self._check(input_ids)
        mask = None
        if attention_mask is not None:
            mask = attention_mask.astype(bool)[:, None, None]
        x: Tensor = self.encoder(self.embeddings(input_ids), mask, True)
        x = self.final_layer_norm(x)
        return TextFeatures(x, self._ends(x, input_ids))

    def _ends(self, x: Tensor, input_ids: Tensor) -> Tensor:
        """The vector of the first token that ends each text."""
        number = self.config.eos_token_id
        scores = input_ids if number == LEGACY_END else equal(input_ids, number).astype(np.int32)
        rows = Tensor(np.arange(x.shape[0])).to(device=x.device)
        return x[rows, argmax(scores, axis=1)]

    def states(self, input_ids: Tensor) -> list[Tensor]:
        """What goes into the first layer, and what comes out of each; not normalised.

        Shape:
            (B, T), whole numbers -> (B, T, hidden_size) for each
        """
        self._check(input_ids)
        found: list[Tensor] = [self.embeddings(input_ids)]
        for layer in self.encoder.layers:
            found.append(layer(found[-1], None, True))
        return found

    def _check(self, input_ids: Tensor) -> None:
        most = self.config.max_position_embeddings
        if input_ids.ndim == 2 and input_ids.shape[1] > most:
            raise ShapeError(
                f"CLIP text: {input_ids.shape[1]} tokens are more than its table of positions has "
                f"({input_ids.shape[1]} > {most}).\nIts tokenizer cuts texts to that length: "
                "ids, mask = model.tokenizer(texts). Or split them and average the vectors.",
                expected=(None, most),
                got=tuple(input_ids.shape),
            )
        if input_ids.ndim != 2 or not input_ids.shape[1]:
            raise ShapeError(
                f"tokens of shape (B, T) with T from 1 to {most} are wanted, got "
                f"{tuple(input_ids.shape)}.\nOne text without the batch axis? ids[None]",
                expected=(None, most),
                got=tuple(input_ids.shape),
            )
        if input_ids.dtype.kind not in "iu":
            raise DtypeError(f"tokens are whole numbers, not {input_ids.dtype}")


# -- alone, as diffusion models have it ----------------------------------------------------------


@dataclass(frozen=True)
class EncoderConfig(TextConfig):
    """An encoder by itself; see `TextConfig`.

    Args:
        projection_dim: length of the vector that stands for a text; None for no map to it.
    """

    projection_dim: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.projection_dim is not None:
            check_layers("CLIP's text encoder", self, self.projection_dim)


class ProjectedFeatures(NamedTuple):
    """What stands for the text, mapped to the space of pictures, and every token."""

    text_embeds: Tensor
    last_hidden_state: Tensor


class ProjectedText(ClipText):
    """The encoder with a map of what stands for the text."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        assert config.projection_dim is not None
        self.text_projection = nn.Linear(config.hidden_size, config.projection_dim, bias=False)
        nn.init.normal_(self.text_projection.weight, std=config.hidden_size**-0.5)

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> ProjectedFeatures:
        """See `ClipText`. Shape: (B, T) -> (B, projection_dim) and (B, T, hidden_size)."""
        found = super().forward(input_ids, attention_mask)
        return ProjectedFeatures(self.text_projection(found.pooler_output), found.last_hidden_state)

    def whole(self, last: Tensor, input_ids: Tensor) -> Tensor:
        """What stands for texts, of the last of their `states`. Shape: (B, projection_dim)"""
        out: Tensor = self.text_projection(self._ends(self.final_layer_norm(last), input_ids))
        return out


_READ = {f.name for f in fields(TextConfig)}
# Of the training and of the tokenizer.
_IGNORED = {"bos_token_id", "initializer_factor", "pad_token_id", "projection_dim"}
_FIXED: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "dropout": (0.0,),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({},),
}
_CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection")
RENAME = {
    "text_model.embeddings.position_ids": None,
    "embeddings.position_ids": None,
    "text_model.{rest}": "{rest}",
}


def from_transformers(published: dict[str, Any]) -> EncoderConfig:
    """The configuration that a config.json of transformers says."""
    what = "CLIP's text encoder"
    known = _READ | _IGNORED | set(_FIXED) | TRANSFORMERS_COMMON | TRANSFORMERS_DUMPED
    refuse_unknown(published, known, what)
    expect(published, what, **_FIXED)
    names = published.get("architectures") or [_CLASSES[0]]
    given = {key: published[key] for key in _READ & set(published)}
    if names[0] == _CLASSES[1]:
        given["projection_dim"] = published.get("projection_dim", 512)
    return EncoderConfig(**given)


@register(
    "clip-text",
    config=EncoderConfig,
    task="pipeline-part",
    layouts={"transformers": Layout(rename=RENAME, config=from_transformers)},
    model_types=("clip_text_model",),
    classes=_CLASSES,
)
def clip_text(config: EncoderConfig) -> ClipText:
    """Text encoder of diffusion models."""
    return ClipText(config) if config.projection_dim is None else ProjectedText(config)

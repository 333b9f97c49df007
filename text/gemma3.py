"""Gemma 3, for text. Gemma team 2025, "Gemma 3 Technical Report".

Llama's parts with four norms a layer whose weights count from one, norms of queries and keys,
vectors of tokens scaled by the root of their width, and layers that see a window of tokens among
layers that see all, each kind with its own rotary positions. Weights: google/gemma-3-270m and -1b
(Gemma licence, gated). Attributes are named as transformers names them. Deviations: none; models
that see pictures and the two-way attention of EmbeddingGemma are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import nn
from ..core.dtypes import float32
from ..core.errors import ConfigError
from ..core.nn import functional as F
from ..core.ops.rotary import rotate_halves
from ..core.ops.shape import permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import expect, flags, real
from ..hub.registry import Entry, Hub, Layout, register
from .cache import KVCache
from .llama import Llama, Mlp
from .llama_config import TASKS
from .llama_published import TRANSFORMERS
from .masks import Masks
from .published import settings
from .rope import Rotary, frequencies
from .transformer import ACTIVATIONS, check_choice, check_classes, check_sizes

_KINDS = ("sliding_attention", "full_attention")


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are those of transformers.

    Args:
        vocab_size, max_position_embeddings: tokens there are, and of the longest text trained on.
        hidden_size, intermediate_size: features, also inside the MLPs.
        num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim: layers and heads.
        hidden_activation: in the MLPs.
        rms_norm_eps: of the norms.
        query_pre_attn_scalar: scores are divided by its root.
        sliding_window: how many tokens a token of a windowed layer sees, itself included.
        layer_types: "sliding_attention" or "full_attention" for each layer; every sixth is full if
            None.
        rope_theta, rope_scaling: rotary positions of full layers; see rope.py. Scaling is a tuple
            of (name, value) pairs.
        rope_local_base_freq: of windowed layers.
        attention_bias, attention_dropout: of attention.
        tie_word_embeddings: the head is the table of token vectors.
        pad_token_id: which token fills up texts, for the classifier.
        task: "text-generation", "text-classification" or "feature-extraction".
        num_classes: of the classifier.
    """

    vocab_size: int = 262_208
    max_position_embeddings: int = 131_072
    hidden_size: int = 2304
    intermediate_size: int = 9216
    num_hidden_layers: int = 26
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 256
    hidden_activation: str = "gelu_pytorch_tanh"
    rms_norm_eps: float = 1e-6
    query_pre_attn_scalar: float = 256
    sliding_window: int = 4096
    layer_types: tuple[str, ...] | None = None
    rope_theta: float = 1_000_000.0
    rope_scaling: tuple[tuple[str, Any], ...] | None = None
    rope_local_base_freq: float = 10_000.0
    attention_bias: bool = False
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 0
    task: str = "text-generation"
    num_classes: int = 0

    def __post_init__(self) -> None:
        if self.rope_scaling is not None:  # lists of lists, after a journey through JSON
            object.__setattr__(self, "rope_scaling", tuple(map(tuple, self.rope_scaling)))
        check_sizes("Gemma 3", **{n: getattr(self, n) for n in _SIZES})
        kinds = self.layer_types
        if kinds is None:
            count = self.num_hidden_layers
            kinds = tuple(_KINDS[(i + 1) % 6 == 0] for i in range(count))
        object.__setattr__(self, "layer_types", tuple(kinds))
        if len(kinds) != self.num_hidden_layers:
            raise ConfigError(
                f"Gemma 3: layer_types names {len(kinds)} layers of {self.num_hidden_layers}"
            )
        for kind in kinds:
            check_choice("Gemma 3", "layer_types", kind, _KINDS)
        rates = {n: getattr(self, n) for n in ("attention_dropout", "rms_norm_eps")}
        real("Gemma 3", 0.0, 0.99, **rates)
        bases = ("rope_theta", "rope_local_base_freq", "query_pre_attn_scalar")
        real("Gemma 3", 1.0, 1e12, **{n: getattr(self, n) for n in bases})
        check_choice("Gemma 3", "hidden_activation", self.hidden_activation, ACTIVATIONS)
        check_choice("Gemma 3", "task", self.task, TASKS)
        check_classes("Gemma 3", self.task, self.num_classes)
        names = ("attention_bias", "tie_word_embeddings")
        flags("Gemma 3", **{n: getattr(self, n) for n in names})
        expect(
            {"heads": self.num_attention_heads % self.num_key_value_heads, "half": self.width % 2},
            "Gemma 3 (heads must share keys equally, and have an even width)",
            heads=(0,),
            half=(0,),
        )
        frequencies(self.width, self.rope_theta, self.scaling, self.context)

    @property
    def width(self) -> int:
        """Features of a head."""
        return self.head_dim

    @property
    def scaling(self) -> dict[str, Any] | None:
        """`rope_scaling` as published."""
        return None if self.rope_scaling is None else dict(self.rope_scaling)

    @property
    def context(self) -> int:
        """The most tokens that it was trained on at once."""
        return self.max_position_embeddings

    def full(self, layer: int) -> bool:
        """Whether a layer sees all tokens, not a window of them."""
        assert self.layer_types is not None
        return self.layer_types[layer] == "full_attention"


_SIZES = (
    "vocab_size",
    "max_position_embeddings",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "sliding_window",
)
Turns = tuple[Tensor, Tensor]


class Norm(nn.Module):
    """An RMS norm whose weights count from one, worked out in float32."""

    def __init__(self, width: int, eps: float) -> None:
        self.eps = eps
        self.weight = nn.init.parameter(width)
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if x.dtype.itemsize >= 4:
            return F.rms_norm(x, weight.shape, 1 + weight, self.eps)
        wide = F.rms_norm(x.astype(float32), weight.shape, 1 + weight.astype(float32), self.eps)
        return wide.astype(x.dtype)


class Attention(nn.Module):
    """Causal self-attention with rotary positions. Shape: (B, T, D), kept."""

    def __init__(self, config: Config, layer: int) -> None:
        heads, shared, width = config.num_attention_heads, config.num_key_value_heads, config.width
        self.layer, self.heads, self.shared, self.width = layer, heads, shared, width
        self.window = None if config.full(layer) else config.sliding_window
        self.dropout, self.scale = config.attention_dropout, config.query_pre_attn_scalar**-0.5
        bias = config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, heads * width, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, shared * width, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, shared * width, bias=bias)
        self.o_proj = nn.Linear(heads * width, config.hidden_size, bias=bias)
        self.q_norm = Norm(width, config.rms_norm_eps)
        self.k_norm = Norm(width, config.rms_norm_eps)

    def forward(self, x: Tensor, turns: Turns, masks: Masks, cache: KVCache | None) -> Tensor:
        b, t, _ = x.shape
        q = self.q_norm(reshape(self.q_proj(x), (b, t, self.heads, self.width)))
        k = self.k_norm(reshape(self.k_proj(x), (b, t, self.shared, self.width)))
        v = reshape(self.v_proj(x), (b, t, self.shared, self.width))
        q, k, v = (permute_dims(part, (0, 2, 1, 3)) for part in (q, k, v))
        q, k = rotate_halves(q, *turns), rotate_halves(k, *turns)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        k, v, mask = masks.seen(self.window, k, v)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None,
            scale=self.scale,
            enable_gqa=self.heads != self.shared,
        )
        joined = reshape(permute_dims(y, (0, 2, 1, 3)), (b, t, self.heads * self.width))
        out: Tensor = self.o_proj(joined)
        return out


class Layer(nn.Module):
    """Attention and an MLP, each between two norms and added to what comes in."""

    def __init__(self, config: Config, layer: int) -> None:
        width, eps = config.hidden_size, config.rms_norm_eps
        self.self_attn = Attention(config, layer)
        self.mlp = Mlp(width, config.intermediate_size, config.hidden_activation)
        self.input_layernorm = Norm(width, eps)
        self.post_attention_layernorm = Norm(width, eps)
        self.pre_feedforward_layernorm = Norm(width, eps)
        self.post_feedforward_layernorm = Norm(width, eps)

    def forward(self, x: Tensor, turns: Turns, masks: Masks, cache: KVCache | None) -> Tensor:
        seen = self.self_attn(self.input_layernorm(x), turns, masks, cache)
        x = x + self.post_attention_layernorm(seen)
        out = self.mlp(self.pre_feedforward_layernorm(x))
        return x + self.post_feedforward_layernorm(out)  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Scaled vectors of tokens, the layers, a last norm."""

    def __init__(self, config: Config) -> None:
        width, longest = config.width, config.max_position_embeddings
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)
        self._full = Rotary(width, config.rope_theta, config.scaling, longest)
        self._local = Rotary(width, config.rope_local_base_freq, None, longest)

    def forward(
        self, input_ids: Tensor, places: Any, masks: Masks, cache: KVCache | None
    ) -> Tensor:
        x: Tensor = self.embed_tokens(input_ids)
        # The published models were trained with the factor rounded to the weights' type.
        x = x * float(np.asarray(x.shape[-1] ** 0.5, x.dtype))
        full, local = self._full.at(places, x), self._local.at(places, x)
        for layer in self.layers:
            x = layer(x, full if layer.self_attn.window is None else local, masks, cache)
        x = self.norm(x)
        return x


class Gemma3(Llama):
    """Llama's heads on Gemma's transformer."""

    body = Transformer


# -- published files -------------------------------------------------------------------------------


def from_transformers(published: dict[str, Any]) -> Config:
    """A config.json of transformers' Gemma 3 for text.

    Raises:
        ConfigError: keys that nobody reads, or a switch that is not implemented.
    """
    what, said = "Gemma 3", dict(published)
    rope = said.pop("rope_parameters", None) or {}  # where transformers 5 writes theta and scaling
    full, local = (dict(rope.get(kind) or {}) for kind in reversed(_KINDS))
    if "rope_theta" in full:
        said["rope_theta"] = full.pop("rope_theta")
    if "rope_theta" in local:
        said["rope_local_base_freq"] = local.pop("rope_theta")
    if full.get("rope_type", "default") != "default":
        said["rope_scaling"] = full
    expect(
        {"kind": local.get("rope_type", "default")}, what + " (windowed rope)", kind=("default",)
    )
    caps = {"attn_logit_softcapping": (None,), "final_logit_softcapping": (None,)}
    expect(said, what, use_bidirectional_attention=(False, None), **caps)
    also = {*caps, "use_bidirectional_attention", "cache_implementation"}
    also |= {"sliding_window_pattern", "_sliding_window_pattern"}
    found = settings(said, Config, what, task="text-generation", also=also)
    if found.get("layer_types") is None:
        every = said.get("sliding_window_pattern", said.get("_sliding_window_pattern", 6))
        count = found.get("num_hidden_layers", Config.num_hidden_layers)
        check_sizes(what, sliding_window_pattern=every, num_hidden_layers=count)
        found["layer_types"] = [_KINDS[(i + 1) % every == 0] for i in range(count)]
    found["layer_types"] = tuple(found["layer_types"])
    if found.get("rope_scaling") is not None:
        found["rope_scaling"] = tuple(dict(found["rope_scaling"]).items())
    return Config(**found)


def _entry(name: str, repo: str) -> Entry:
    return Entry(
        name=name,
        sources=(Hub(repo),),
        layout="transformers",
        license="Gemma",
        gated=True,
        config=None,
        paper="Gemma team 2025, Gemma 3 Technical Report",
    )


@register(
    "gemma3",
    config=Config,
    task="text-generation",
    layouts={"transformers": Layout(rename=TRANSFORMERS, config=from_transformers)},
    model_types=("gemma3_text",),
    head=("lm_head", "score"),
    entries=[
        _entry("gemma-3-270m", "google/gemma-3-270m"),
        _entry("gemma-3-1b", "google/gemma-3-1b-pt"),
    ],
)
def gemma3(config: Config) -> Gemma3:
    """A language model of Gemma 3's kind, which predicts the next token."""
    return Gemma3(config)

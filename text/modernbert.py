"""ModernBERT. Warner et al. 2024, "Smarter, Better, Faster, Longer".

An encoder with rotary positions, gated MLPs, norms before each part, and windows: two of three
layers see only the tokens nearby. Attributes are named as transformers names them. Weights:
answerdotai/ModernBERT-base (Apache-2.0). Deviations from the paper: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import nn
from ..core.errors import ConfigError
from ..core.ops.manipulation import split, unstack
from ..core.ops.rotary import rotate_halves
from ..core.ops.shape import permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import flags, real
from ..hub.registry import Entry, Hub, Layout, register
from .bert import TASKS, Features, initialise, spans_of
from .masks import Neighbours
from .published import headed, settings
from .rope import Rotary
from .transformer import (
    ACTIVATIONS,
    check_choice,
    check_classes,
    check_heads,
    check_ids,
    check_sizes,
    key_mask,
)

POOLINGS = ("cls", "mean")


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are ModernBERT-base's.

    Args:
        vocab_size, max_position_embeddings: tokens there are, and the most of a text.
        hidden_size, intermediate_size: features, also inside the MLPs.
        num_hidden_layers, num_attention_heads: layers, and heads of each.
        hidden_activation, classifier_activation: in the MLPs, and before the heads.
        norm_eps, norm_bias: of the norms.
        attention_bias, mlp_bias, decoder_bias, classifier_bias: whether linear maps have biases.
        attention_dropout, embedding_dropout, mlp_dropout, classifier_dropout: in training.
        global_attn_every_n_layers: every so many layers see the whole text, from the first on.
        local_attention: how many tokens the others see, half before and half behind.
        global_rope_theta, local_rope_theta: of the rotary positions of either.
        classifier_pooling: what a text classifier sees: its first token, "cls", or their "mean".
        tie_word_embeddings: the head of "fill-mask" is the table of token vectors.
        task: one of `TASKS`.
        num_classes: of the heads that have classes.
    """

    vocab_size: int = 50_368
    max_position_embeddings: int = 8192
    hidden_size: int = 768
    intermediate_size: int = 1152
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    hidden_activation: str = "gelu"
    classifier_activation: str = "gelu"
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    decoder_bias: bool = True
    classifier_bias: bool = False
    attention_dropout: float = 0.0
    embedding_dropout: float = 0.0
    mlp_dropout: float = 0.0
    classifier_dropout: float = 0.0
    global_attn_every_n_layers: int = 3
    local_attention: int = 128
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0
    classifier_pooling: str = "cls"
    tie_word_embeddings: bool = True
    task: str = "fill-mask"
    num_classes: int = 0

    def __post_init__(self) -> None:
        names = (
            "vocab_size",
            "max_position_embeddings",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "global_attn_every_n_layers",
            "local_attention",
        )
        check_sizes("ModernBERT", **{n: getattr(self, n) for n in names})
        check_heads("ModernBERT", self.hidden_size, self.num_attention_heads)
        rates = [f"{part}_dropout" for part in ("attention", "embedding", "mlp", "classifier")]
        real("ModernBERT", 0.0, 0.99, **{n: getattr(self, n) for n in (*rates, "norm_eps")})
        thetas = ("global_rope_theta", "local_rope_theta")
        real("ModernBERT", 1.0, 1e12, **{n: getattr(self, n) for n in thetas})
        biases = [f"{p}_bias" for p in ("norm", "attention", "mlp", "decoder", "classifier")]
        flags("ModernBERT", **{n: getattr(self, n) for n in (*biases, "tie_word_embeddings")})
        for name in ("hidden_activation", "classifier_activation"):
            check_choice("ModernBERT", name, getattr(self, name), ACTIVATIONS)
        check_choice("ModernBERT", "classifier_pooling", self.classifier_pooling, POOLINGS)
        check_choice("ModernBERT", "task", self.task, TASKS)
        check_classes("ModernBERT", self.task, self.num_classes)

    @property
    def context(self) -> int:
        """The most tokens that it can see."""
        return self.max_position_embeddings

    def is_global(self, layer: int) -> bool:
        """Whether a layer sees the whole text."""
        return layer % self.global_attn_every_n_layers == 0


def _norm(config: Config) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)


class Embeddings(nn.Module):
    """The vectors of tokens, normed."""

    def __init__(self, config: Config) -> None:
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.norm = _norm(config)
        self.drop = nn.Dropout(config.embedding_dropout)

    def forward(self, input_ids: Tensor) -> Tensor:
        out: Tensor = self.drop(self.norm(self.tok_embeddings(input_ids)))
        return out


class Attention(nn.Module):
    """Self-attention with rotary positions. Shape: (B, T, D), kept."""

    def __init__(self, config: Config) -> None:
        width, bias = config.hidden_size, config.attention_bias
        self.heads, self.rate = config.num_attention_heads, config.attention_dropout
        self.Wqkv = nn.Linear(width, 3 * width, bias=bias)
        self.Wo = nn.Linear(width, width, bias=bias)
        self.out_drop = nn.Dropout(config.attention_dropout)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], seen: Neighbours) -> Tensor:
        b, t, d = x.shape
        parts = reshape(self.Wqkv(x), (b, t, 3, self.heads, d // self.heads))
        q, k, v = unstack(permute_dims(parts, (2, 0, 3, 1, 4)))  # (B, N, T, W) each
        rate = self.rate if self.training else 0.0
        q, k = rotate_halves(q, *turns), rotate_halves(k, *turns)
        y = seen(q, k, v, rate)
        out: Tensor = self.Wo(reshape(permute_dims(y, (0, 2, 1, 3)), (b, t, d)))
        return self.out_drop(out)  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """A gated MLP; values and gate come from one linear map."""

    def __init__(self, config: Config) -> None:
        width, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.Wi = nn.Linear(width, 2 * inner, bias=bias)
        self.act = ACTIVATIONS[config.hidden_activation]()
        self.drop = nn.Dropout(config.mlp_dropout)
        self.Wo = nn.Linear(inner, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        values, gate = split(self.Wi(x), 2, axis=-1)
        out: Tensor = self.Wo(self.drop(self.act(values) * gate))
        return out


class Layer(nn.Module):
    """Attention and an MLP, each after a norm and added to what comes in."""

    def __init__(self, config: Config, layer: int) -> None:
        self.attn_norm = _norm(config) if layer else nn.Identity()
        self.attn = Attention(config)
        self.mlp_norm = _norm(config)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], seen: Neighbours) -> Tensor:
        x = x + self.attn(self.attn_norm(x), turns, seen)
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


class Trunk(nn.Module):
    """Vectors, layers, a last norm."""

    def __init__(self, config: Config) -> None:
        self.window = config.local_attention // 2
        self.wide = [config.is_global(i) for i in range(config.num_hidden_layers)]
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.final_norm = _norm(config)
        width = config.hidden_size // config.num_attention_heads
        thetas = (config.local_rope_theta, config.global_rope_theta)
        self._rotary = [
            Rotary(width, theta, None, config.max_position_embeddings) for theta in thetas
        ]

    def forward(self, input_ids: Tensor, places: Any, mask: Tensor | None) -> Tensor:
        x: Tensor = self.embeddings(input_ids)
        turns = [rotary.at(places, x) for rotary in self._rotary]
        tokens = x.shape[1]
        seen = [Neighbours(mask, tokens, n, x.device) for n in (self.window, None)]
        for layer, wide in zip(self.layers, self.wide, strict=True):
            x = layer(x, turns[wide], seen[wide])
        x = self.final_norm(x)
        return x


class Head(nn.Module):
    """What comes before the last linear map."""

    def __init__(self, config: Config) -> None:
        width = config.hidden_size
        self.dense = nn.Linear(width, width, bias=config.classifier_bias)
        self.act = ACTIVATIONS[config.classifier_activation]()
        self.norm = _norm(config)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.act(self.dense(x)))
        return out


class ModernBert(nn.Module):
    """The trunk, and the head of its task."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.model = Trunk(config)
        self.head = None if config.task == "feature-extraction" else Head(config)
        self.drop = nn.Dropout(config.classifier_dropout)
        self.decoder: nn.Linear | None = None
        self.classifier: nn.Linear | None = None
        if config.task == "fill-mask":
            self.decoder = nn.Linear(config.hidden_size, config.vocab_size, config.decoder_bias)
            if config.tie_word_embeddings:
                self.decoder.weight = self.model.embeddings.tok_embeddings.weight
        elif config.task == "question-answering":
            self.classifier = nn.Linear(config.hidden_size, 2)
        elif config.num_classes:
            self.classifier = nn.Linear(config.hidden_size, config.num_classes)
        initialise(self)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Any:
        """What the task asks for; arguments, shapes and errors are those of BERT.

        Args:
            token_type_ids: passed over: it has no segments.
        """
        config = self.config
        places = config.max_position_embeddings
        check_ids("ModernBERT", input_ids, attention_mask, config.vocab_size, places)
        at = np.arange(input_ids.shape[1]) if position_ids is None else position_ids.cpu().array
        x: Tensor = self.model(input_ids, at, key_mask(attention_mask))
        if self.head is None:
            return Features(x, None)
        if config.task == "text-classification":
            x = self._pooled(x, attention_mask)
        x = self.head(x)
        if self.decoder is not None:
            return self.decoder(x)
        assert self.classifier is not None
        scores = self.classifier(self.drop(x))
        return spans_of(scores) if config.task == "question-answering" else scores

    def _pooled(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        if self.config.classifier_pooling == "cls":
            return x[:, 0]
        if attention_mask is None:
            return x.mean(axis=1)
        real_ = attention_mask.astype(x.dtype)[..., None]
        return (x * real_).sum(axis=1) / real_.sum(axis=1)


# -- published files -------------------------------------------------------------------------------

TRANSFORMERS: dict[str, Any] = {}
for _name in ("embeddings", "layers", "final_norm"):  # models without a head have no prefix
    TRANSFORMERS[f"{_name}.{{rest}}"] = f"model.{_name}.{{rest}}"
_ALSO = {
    "cls_token_id",
    "deterministic_flash_attn",
    "initializer_cutoff_factor",
    "layer_types",
    "layer_norm_eps",  # in files of 2024, beside norm_eps, which is used
    "position_embedding_type",
    "reference_compile",
    "repad_logits_with_grad",
    "rope_parameters",
    "sep_token_id",
    "sparse_pred_ignore_index",
    "sparse_prediction",
}


def from_transformers(published: dict[str, Any]) -> Config:
    """A config.json of transformers' ModernBERT."""
    said = dict(published)
    rope = said.get("rope_parameters") or {}  # where transformers 5 writes thetas
    for kind, name in (("full_attention", "global"), ("sliding_attention", "local")):
        if isinstance(rope.get(kind), dict) and "rope_theta" in rope[kind]:
            said.setdefault(f"{name}_rope_theta", float(rope[kind]["rope_theta"]))
    kinds = said.get("layer_types")
    if isinstance(kinds, list) and "global_attn_every_n_layers" not in said:
        wide = [i for i, kind in enumerate(kinds) if kind == "full_attention"]
        every = said["global_attn_every_n_layers"] = wide[1] if len(wide) > 1 else len(kinds)
        if [i % every == 0 for i in range(len(kinds))] != [i in wide for i in range(len(kinds))]:
            raise ConfigError(
                "ModernBERT: layer_types without a period are not supported", got=kinds
            )
    return Config(**settings(said, Config, "ModernBERT", task="feature-extraction", also=_ALSO))


@register(
    "modernbert",
    config=Config,
    task="fill-mask",
    layouts={"transformers": Layout(rename=TRANSFORMERS, config=from_transformers, detect=headed)},
    model_types=("modernbert",),
    head=("head", "decoder", "classifier"),
    entries=[
        Entry(
            name="modernbert-base",
            sources=(Hub("answerdotai/ModernBERT-base"),),
            layout="transformers",
            license="Apache-2.0",
            commercial=True,
            paper="Warner et al. 2024, Smarter, Better, Faster, Longer",
        )
    ],
)
def modernbert(config: Config) -> ModernBert:
    """An encoder for long texts."""
    return ModernBert(config)

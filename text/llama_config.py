"""The configuration of Llama and its relatives, and its checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..hub.configuration import expect, flags, real
from .rope import frequencies
from .transformer import ACTIVATIONS, check_choice, check_classes, check_sizes

TASKS = ("text-generation", "text-classification", "feature-extraction")


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are Llama's.

    Args:
        vocab_size, max_position_embeddings: tokens there are, and of the longest text trained on.
        hidden_size, intermediate_size: features, also inside the MLPs.
        num_hidden_layers, num_attention_heads, num_key_value_heads: layers and heads.
        head_dim: features of a head; hidden_size / num_attention_heads if None.
        hidden_act: in the MLPs.
        rms_norm_eps: of the norms.
        rope_theta, rope_scaling: of the rotary positions; see rope.py. Scaling is a tuple of
            (name, value) pairs.
        attention_bias: of queries, keys and values; `output_bias` that of their result.
        mlp_bias: of the MLPs.
        qk_norm: norms of queries and keys (Qwen 3).
        sliding_window: how many tokens a token sees, itself included; None for all.
        windowed: which layers have the window; all of them if None.
        attention_dropout: of attention weights.
        tie_word_embeddings: the head is the table of token vectors.
        pad_token_id: which token fills up texts, for the classifier.
        task: "text-generation", "text-classification" or "feature-extraction".
        num_classes: of the classifier.
    """

    vocab_size: int = 32_000
    max_position_embeddings: int = 2048
    hidden_size: int = 4096
    intermediate_size: int = 11_008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    head_dim: int | None = None
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: tuple[tuple[str, Any], ...] | None = None
    attention_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    windowed: tuple[bool, ...] | None = None
    attention_dropout: float = 0.0
    tie_word_embeddings: bool = False
    pad_token_id: int | None = None
    task: str = "text-generation"
    num_classes: int = 0

    def __post_init__(self) -> None:
        if self.rope_scaling is not None:  # lists of lists, after a journey through JSON
            pairs = ((k, tuple(v) if type(v) is list else v) for k, v in self.rope_scaling)
            object.__setattr__(self, "rope_scaling", tuple(pairs))
        names = (
            "vocab_size",
            "max_position_embeddings",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
        )
        check_sizes("Llama", **{n: getattr(self, n) for n in names}, head_dim=self.width)
        if self.sliding_window is not None:
            check_sizes("Llama", sliding_window=self.sliding_window)
        real(
            "Llama",
            0.0,
            0.99,
            attention_dropout=self.attention_dropout,
            rms_norm_eps=self.rms_norm_eps,
        )
        real("Llama", 1.0, 1e12, rope_theta=self.rope_theta)
        check_choice("Llama", "hidden_act", self.hidden_act, ACTIVATIONS)
        check_choice("Llama", "task", self.task, TASKS)
        check_classes("Llama", self.task, self.num_classes)
        switches = ("attention_bias", "output_bias", "mlp_bias", "qk_norm", "tie_word_embeddings")
        flags("Llama", **{n: getattr(self, n) for n in switches})
        expect(
            {"heads": self.num_attention_heads % self.num_key_value_heads, "half": self.width % 2},
            "Llama (heads must share keys equally, and have an even width)",
            heads=(0,),
            half=(0,),
        )
        frequencies(self.width, self.rope_theta, self.scaling, self.max_position_embeddings)

    @property
    def width(self) -> int:
        """Features of a head."""
        if self.head_dim is not None:
            return self.head_dim
        return self.hidden_size // self.num_attention_heads

    @property
    def scaling(self) -> dict[str, Any] | None:
        """`rope_scaling` as published."""
        return None if self.rope_scaling is None else dict(self.rope_scaling)

    @property
    def context(self) -> int:
        """The most tokens that it was trained on at once."""
        return self.max_position_embeddings

    def window(self, layer: int) -> int | None:
        """How many tokens a token of a layer sees; None for all."""
        if self.windowed is not None and not self.windowed[layer]:
            return None
        return self.sliding_window

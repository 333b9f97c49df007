"""Llama and its relatives: Mistral, Qwen 2 and 3. One file, since they differ in a few switches.

Touvron et al. 2023, "LLaMA"; Jiang et al. 2023, "Mistral 7B"; Yang et al. 2024, "Qwen2";
Yang et al. 2025, "Qwen3". Pre-norm with RMS norms, rotary positions, gated MLPs, heads of queries
that share those of keys and values; Mistral's window, Qwen 2's biases, Qwen 3's norms of queries
and keys. Attributes are named as transformers names them. Deviations from the papers: none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from ..core import nn
from ..core.dtypes import HALVES, float32
from ..core.nn import functional as F
from ..core.notice import LengthWarning, warn_once
from ..core.ops.rotary import rotate_halves
from ..core.ops.shape import astype, permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.registry import Layout, register
from .cache import KVCache
from .gpt2 import last_tokens
from .llama_config import Config
from .llama_gguf import FACTORS, GGUF, from_metadata, halves_apart, tied
from .llama_published import ENTRIES, TRANSFORMERS, from_transformers
from .masks import Masks
from .one_token import LlamaToken
from .prepared import next_scores
from .rope import Rotary
from .transformer import ACTIVATIONS, check_ids, positions


class Attention(nn.Module):
    """Causal self-attention with rotary positions. Shape: (B, T, D), kept."""

    def __init__(self, config: Config, layer: int) -> None:
        width, heads, shared = config.width, config.num_attention_heads, config.num_key_value_heads
        self.layer, self.heads, self.shared, self.width = layer, heads, shared, width
        self.window, self.dropout = config.window(layer), config.attention_dropout
        bias = config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, heads * width, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, shared * width, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, shared * width, bias=bias)
        self.o_proj = nn.Linear(heads * width, config.hidden_size, bias=config.output_bias)
        self.q_norm = nn.RMSNorm(width, eps=config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = nn.RMSNorm(width, eps=config.rms_norm_eps) if config.qk_norm else None

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], masks: Masks, cache: Any) -> Tensor:
        b, t, _ = x.shape
        q = reshape(self.q_proj(x), (b, t, self.heads, self.width))
        k = reshape(self.k_proj(x), (b, t, self.shared, self.width))
        v = reshape(self.v_proj(x), (b, t, self.shared, self.width))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (permute_dims(part, (0, 2, 1, 3)) for part in (q, k, v))
        q, k = rotate_halves(q, *turns), rotate_halves(k, *turns)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
            q = q if q.dtype == k.dtype else astype(q, dtype=k.dtype)
        k, v, mask = masks.seen(self.window, k, v)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None,
            enable_gqa=self.heads != self.shared,
        )
        joined = reshape(permute_dims(y, (0, 2, 1, 3)), (b, t, self.heads * self.width))
        joined = joined if joined.dtype == x.dtype else astype(joined, dtype=x.dtype)
        out: Tensor = self.o_proj(joined)
        return out


class Mlp(nn.Module):
    """A gated MLP. Source: Shazeer 2020, "GLU variants improve transformer"."""

    def __init__(self, width: int, inner: int, act: str, bias: bool = False) -> None:
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)
        self.act_fn = ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """Attention and an MLP, each after an RMS norm and added to what comes in."""

    def __init__(self, config: Config, layer: int) -> None:
        width, eps = config.hidden_size, config.rms_norm_eps
        self.self_attn = Attention(config, layer)
        self.mlp = Mlp(width, config.intermediate_size, config.hidden_act, config.mlp_bias)
        self.input_layernorm = nn.RMSNorm(width, eps=eps)
        self.post_attention_layernorm = nn.RMSNorm(width, eps=eps)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], masks: Masks, cache: Any) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turns, masks, cache)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Vectors of tokens, the layers, a last norm."""

    def __init__(self, config: Config) -> None:
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        longest = config.max_position_embeddings
        self._rotary = Rotary(config.width, config.rope_theta, config.scaling, longest)

    def forward(
        self, input_ids: Tensor, places: Any, masks: Masks, cache: KVCache | None
    ) -> Tensor:
        x: Tensor = self.embed_tokens(input_ids)
        turns = self._rotary.at(places, x)
        for layer in self.layers:
            x = layer(x, turns, masks, cache)
        x = self.norm(x)
        return x


class Llama(nn.Module):
    """The transformer, and the head of its task.

    Attributes:
        lm_head: scores of the next token, for generation.
        score: scores of classes, at the last token, for classification.
    """

    body: ClassVar[Any] = Transformer  # Gemma has another
    _steps: Any = None  # of one_token.py
    _unfit = -1

    def __init__(self, config: Any) -> None:
        self.config = config
        self.model = self.body(config)
        self.lm_head: nn.Linear | None = None
        self.score: nn.Linear | None = None
        if config.task == "text-generation":
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
            if config.tie_word_embeddings:
                self.lm_head.weight = self.model.embed_tokens.weight
        elif config.task == "text-classification":
            self.score = nn.Linear(config.hidden_size, config.num_classes, bias=False)
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=0.02)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)

    def cache(self, batch: int, capacity: int) -> KVCache:
        """Room for the keys and values of `capacity` tokens of each text."""
        config, dtype, device = self.config, self.dtype, self.device
        if dtype in HALVES and device.type == "cpu":
            dtype = float32  # where halves are widened for every product, and this would be too
        heads, place = config.num_key_value_heads, {"dtype": dtype, "device": device}
        return KVCache(config.num_hidden_layers, batch, heads, capacity, config.width, **place)

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Every token after the last norm. Arguments and errors: see `forward`.

        Shape:
            (B, T), whole numbers -> (B, T, D)
        """
        past, tokens = (0 if cache is None else cache.length), input_ids.shape[-1]
        check_ids("Llama", input_ids, attention_mask, self.config.vocab_size, None, past)
        if position_ids is None:
            places = positions(attention_mask, tokens, past)
        else:
            places = position_ids.cpu().array
        self._check_length(places)
        masks = Masks(attention_mask, tokens, past, input_ids.device)
        x: Tensor = self.model(input_ids, places, masks, cache)
        if cache is not None:
            cache.advance(tokens)
        return x

    def _next(
        self, input_ids: Tensor, position_ids: Tensor | None, cache: KVCache
    ) -> Tensor | None:
        """Scores after a single token, the fast way; None where there is none."""
        if self.lm_head is None or position_ids is not None or type(self) is not Llama:
            return None
        check_ids("Llama", input_ids, None, self.config.vocab_size, None, cache.length)
        places = np.array([cache.length])
        self._check_length(places)
        return next_scores(self, LlamaToken, input_ids, cache, self.model.norm.weight.dtype)

    def _check_length(self, places: Any) -> None:
        """Warn once of places that were never trained: angles go on, quality does not."""
        most, scaling = self.config.context, self.config.scaling or {}
        stretched = scaling.get("rope_type", scaling.get("type")) in ("dynamic", "linear")
        if places.size and int(places.flat[-1]) >= most and not stretched:
            warn_once(
                f"text longer than {most}",
                f"{int(places.max()) + 1} tokens are more than the {most} that this model was "
                "trained on at once (max_position_embeddings): what it says of them is hardly of "
                f"use.\nCut the text (ids[:, -{most}:]) or split it into chunks.",
                LengthWarning,
            )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: KVCache | None = None,
        last: int | None = None,
    ) -> Tensor:
        """Scores of the next token after each; of classes, for a classifier; else the vectors.

        Args:
            attention_mask: (B, tokens in the cache + T), 1 for tokens and 0 for padding.
            position_ids: (T,) or (B, T); counted over what is no padding unless given.
            cache: of `module.cache`: then `input_ids` are the new tokens alone.
            last: scores of the last so many tokens only.

        Shape:
            (B, T), whole numbers -> (B, T, vocab_size), or (B, num_classes), or (B, T, hidden_size)
        Raises:
            ShapeError: other axes, a mask of another shape.
            IndexRangeError: an id outside the vocabulary.
        Warns:
            LengthWarning: more tokens than it was trained on, once.
        """
        if cache is not None and attention_mask is None and input_ids.shape == (1, 1):
            found = self._next(input_ids, position_ids, cache)
            if found is not None:
                return found
        x = self.hidden(input_ids, attention_mask, position_ids, cache)
        if self.score is not None:
            ends = last_tokens(input_ids, attention_mask, self.config.pad_token_id)
            rows = Tensor(np.arange(x.shape[0])).to(device=x.device)
            scores: Tensor = self.score(x[rows, ends])
            return scores
        if last is not None:
            x = x[:, -last:]
        return x if self.lm_head is None else self.lm_head(x)


_GGUF = Layout(
    rename={**GGUF, FACTORS: None},
    config=lambda said: Config(**from_metadata(said)),
    detect=tied,
    settings=(FACTORS,),
)


@register(
    "llama",
    config=Config,
    task="text-generation",
    layouts={
        "transformers": Layout(
            rename=TRANSFORMERS, config=lambda said: Config(**from_transformers(said, Config))
        ),
        "gguf": _GGUF,
        "gguf-llama": replace(_GGUF, settle=halves_apart),
    },
    model_types=("llama", "mistral", "qwen2", "qwen3"),
    head=("lm_head", "score"),
    entries=ENTRIES,
)
def llama(config: Config) -> Llama:
    """A language model of Llama's, Mistral's or Qwen's kind, which predicts the next token."""
    return Llama(config)

"""Whisper. Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision".

Weights: openai/whisper-tiny (Apache-2.0). Attributes are named as transformers names them; what
goes in is made by log_mel.py. Deviations from the paper: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import nn
from ..core.errors import ConfigError, DtypeError, ShapeError
from ..core.nn import functional as F
from ..core.ops.shape import permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import flags, real
from ..hub.registry import Entry, Hub, Layout, register
from .published import settings
from .seq2seq import DecoderCache
from .transformer import (
    ACTIVATIONS,
    causal_mask,
    check_choice,
    check_heads,
    check_ids,
    check_sizes,
    key_mask,
)

NAME = "Whisper"
TASK = "automatic-speech-recognition"


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are whisper-tiny's.

    Args:
        vocab_size: tokens there are.
        num_mel_bins: of the spectrogram.
        d_model: features.
        encoder_layers, encoder_attention_heads, encoder_ffn_dim: of the encoder, and
        decoder_layers, decoder_attention_heads, decoder_ffn_dim: of the decoder.
        activation_function: in the MLPs.
        dropout, attention_dropout, activation_dropout: of branches, of attention, in the MLPs.
        max_source_positions: places of the encoder: half the columns of a spectrogram.
        max_target_positions: the most tokens of the decoder.
        scale_embedding: never True in what is published.
        tie_word_embeddings: the head is the table of token vectors.
        decoder_start_token_id, pad_token_id, eos_token_id: what the decoder reads first; what
            fills up; what ends.
        task: "automatic-speech-recognition".
    """

    vocab_size: int = 51_865
    num_mel_bins: int = 80
    d_model: int = 384
    encoder_layers: int = 4
    encoder_attention_heads: int = 6
    encoder_ffn_dim: int = 1536
    decoder_layers: int = 4
    decoder_attention_heads: int = 6
    decoder_ffn_dim: int = 1536
    activation_function: str = "gelu"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    max_source_positions: int = 1500
    max_target_positions: int = 448
    scale_embedding: bool = False
    tie_word_embeddings: bool = True
    decoder_start_token_id: int = 50_258
    pad_token_id: int = 50_257
    eos_token_id: int = 50_257
    task: str = TASK

    def __post_init__(self) -> None:
        names = ["vocab_size", "num_mel_bins", "d_model"]
        names += ["max_source_positions", "max_target_positions"]
        for side in ("encoder", "decoder"):
            names += [f"{side}_layers", f"{side}_attention_heads", f"{side}_ffn_dim"]
        check_sizes(NAME, **{name: getattr(self, name) for name in names})
        check_heads(NAME, self.d_model, self.encoder_attention_heads)
        check_heads(NAME, self.d_model, self.decoder_attention_heads)
        if self.d_model % 2 or self.d_model < 4:
            raise ConfigError(f"{NAME}: d_model={self.d_model} must be even, and at least 4")
        rates = ("dropout", "attention_dropout", "activation_dropout")
        real(NAME, 0.0, 0.99, **{name: getattr(self, name) for name in rates})
        check_choice(NAME, "activation_function", self.activation_function, ACTIVATIONS)
        check_choice(NAME, "task", self.task, (TASK,))
        flags(
            NAME, scale_embedding=self.scale_embedding, tie_word_embeddings=self.tie_word_embeddings
        )
        for name in ("decoder_start_token_id", "eos_token_id"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value < self.vocab_size:
                raise ConfigError(f"{NAME}: {name}={value!r} is no token", name=name, got=value)

    @property
    def context(self) -> int:
        """The most tokens of the decoder."""
        return self.max_target_positions

    @property
    def columns(self) -> int:
        """How many columns a spectrogram has."""
        return 2 * self.max_source_positions


def sinusoids(count: int, width: int) -> Any:
    """Places as sines and cosines of frequencies from 1 to 1/10000.

    Shape: (count, width)
    Source: Vaswani et al. 2017, section 3.5, with all sines before the cosines.
    """
    steps = np.log(10_000) / (width // 2 - 1)
    angles = np.arange(count)[:, None] * np.exp(-steps * np.arange(width // 2))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


class Places(nn.Module):
    """The encoder's table of places, which is not trained."""

    def __init__(self, count: int, width: int) -> None:
        self.weight = nn.Buffer(sinusoids(count, width))


class Attention(nn.Module):
    """Attention among the tokens, or of these to the encoder's states.

    Shape:
        (B, T, d_model), kept
    """

    def __init__(self, config: Config, heads: int, layer: int) -> None:
        width = config.d_model
        self.heads, self.layer, self.dropout = heads, layer, config.attention_dropout
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        return permute_dims(reshape(x, (b, t, self.heads, d // self.heads)), (0, 2, 1, 3))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        cache: DecoderCache | None = None,
        states: Tensor | None = None,
    ) -> Tensor:
        source = x if states is None else states

        def pair() -> tuple[Tensor, Tensor]:
            return self._split(self.k_proj(source)), self._split(self.v_proj(source))

        if cache is None:
            k, v = pair()
        elif states is None:
            k, v = cache.append(self.layer, *pair())
        else:
            k, v = cache.cross(self.layer, pair)
        y = F.scaled_dot_product_attention(
            self._split(self.q_proj(x)),
            k,
            v,
            mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal and mask is None and x.shape[1] > 1,
        )
        out: Tensor = self.out_proj(reshape(permute_dims(y, (0, 2, 1, 3)), x.shape))
        return out


class Layer(nn.Module):
    """Attention, in the decoder also to the encoder's states, and an MLP; a norm before each."""

    def __init__(self, config: Config, layer: int, *, decoder: bool) -> None:
        width = config.d_model
        heads = config.decoder_attention_heads if decoder else config.encoder_attention_heads
        inner = config.decoder_ffn_dim if decoder else config.encoder_ffn_dim
        self.self_attn = Attention(config, heads, layer)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.encoder_attn: Attention | None = None
        self.encoder_attn_layer_norm: nn.LayerNorm | None = None
        if decoder:
            self.encoder_attn = Attention(config, heads, layer)
            self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.act = ACTIVATIONS[config.activation_function]()
        self.dropout = nn.Dropout(config.dropout)
        self.inner_dropout = nn.Dropout(config.activation_dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        cache: DecoderCache | None = None,
        states: Tensor | None = None,
        states_mask: Tensor | None = None,
    ) -> Tensor:
        causal = self.encoder_attn is not None
        y = self.self_attn(self.self_attn_layer_norm(x), mask, causal=causal, cache=cache)
        x = x + self.dropout(y)
        if self.encoder_attn is not None:
            assert self.encoder_attn_layer_norm is not None
            y = self.encoder_attn_layer_norm(x)
            x = x + self.dropout(self.encoder_attn(y, states_mask, cache=cache, states=states))
        y = self.inner_dropout(self.act(self.fc1(self.final_layer_norm(x))))
        return x + self.dropout(self.fc2(y))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Two convolutions over the spectrogram, the second of which halves it, and the layers."""

    def __init__(self, config: Config) -> None:
        self.config = config
        width = config.d_model
        self.conv1 = nn.Conv1d(config.num_mel_bins, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.embed_positions = Places(config.max_source_positions, width)
        self.layers = nn.ModuleList(
            Layer(config, i, decoder=False) for i in range(config.encoder_layers)
        )
        self.layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, input_features: Tensor) -> Tensor:
        x: Tensor = F.gelu(self.conv2(F.gelu(self.conv1(input_features))))
        x = self.dropout(permute_dims(x, (0, 2, 1)) + self.embed_positions.weight)
        for layer in self.layers:
            x = layer(x)
        x = self.layer_norm(x)
        return x


class Decoder(nn.Module):
    """Vectors of tokens and places, the layers, a last norm."""

    def __init__(self, config: Config) -> None:
        width = config.d_model
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.embed_positions = nn.Embedding(config.max_target_positions, width)
        self.layers = nn.ModuleList(
            Layer(config, i, decoder=True) for i in range(config.decoder_layers)
        )
        self.layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        input_ids: Tensor,
        mask: Tensor | None,
        cache: DecoderCache | None,
        states: Tensor,
        states_mask: Tensor | None,
    ) -> Tensor:
        past, tokens = (0 if cache is None else cache.length), input_ids.shape[1]
        places = self.embed_positions.weight[past : past + tokens]
        x: Tensor = self.dropout(self.embed_tokens(input_ids) + places)
        for layer in self.layers:
            x = layer(x, mask, cache, states, states_mask)
        if cache is not None:
            cache.advance(tokens)
        x = self.layer_norm(x)
        return x


class Pair(nn.Module):
    """Encoder and decoder."""

    def __init__(self, config: Config) -> None:
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)


class Whisper(nn.Module):
    """Encoder, decoder and the head that scores the next token."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.model = Pair(config)
        self.proj_out = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.proj_out.weight = self.model.decoder.embed_tokens.weight
        initialise(self)

    def encode(self, input_features: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The encoder's states of a spectrogram (see log_mel.py).

        Args:
            attention_mask: taken and not used: what is silent is part of the input.

        Shape:
            (B, num_mel_bins, 2 * max_source_positions) -> (B, max_source_positions, d_model)
        Raises:
            ShapeError: a spectrogram of another size.
        """
        config, shape = self.config, tuple(input_features.shape)
        wanted = (config.num_mel_bins, config.columns)
        if shape[1:] != wanted:
            raise ShapeError(
                f"{NAME}: a spectrogram of shape (B, bins, columns) = (B, {wanted[0]}, "
                f"{wanted[1]}) is wanted, got {shape}.\n"
                "Sound is padded with silence or cut first: bestiary.text.log_mel.LogMel does it.",
                expected=wanted,
                got=shape,
            )
        if input_features.dtype.kind in "iub":
            raise DtypeError(f"{NAME}: a spectrogram is floating, not {input_features.dtype}")
        states: Tensor = self.model.encoder(input_features)
        return states

    def cache(self, batch: int, capacity: int) -> DecoderCache:
        """Room for `capacity` tokens of the decoder, for each recording."""
        config = self.config
        heads = config.decoder_attention_heads
        shape = (config.decoder_layers, batch, heads, capacity, config.d_model // heads)
        return DecoderCache(*shape, dtype=self.dtype, device=self.device)

    def decode(
        self,
        decoder_input_ids: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        cache: DecoderCache | None = None,
        last: int | None = None,
    ) -> Tensor:
        """Scores of the next token after each.

        Args:
            encoder_hidden_states: what `encode` gave, (B, S, d_model).
            cache: of `module.cache`: then the ids are the new tokens alone.
            last: scores of the last so many tokens only.

        Shape:
            (B, T), whole numbers -> (B, T, vocab_size)
        Raises:
            ShapeError: other axes, no tokens, more than there are places.
            IndexRangeError: an id outside the vocabulary.
        """
        past, tokens = (0 if cache is None else cache.length), decoder_input_ids.shape[-1]
        check_ids(
            f"{NAME}'s decoder",
            decoder_input_ids,
            decoder_attention_mask,
            self.config.vocab_size,
            self.config.max_target_positions,
            past,
        )
        x = self.model.decoder(
            decoder_input_ids,
            causal_mask(decoder_attention_mask, tokens, past),
            cache,
            encoder_hidden_states,
            key_mask(encoder_attention_mask),
        )
        if last is not None:
            x = x[:, -last:]
        scores: Tensor = self.proj_out(x)
        return scores

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Scores of the next token after each of the decoder's, its start alone unless given.

        Shape:
            (B, num_mel_bins, 2 * max_source_positions) and (B, T) -> (B, T, vocab_size)
        """
        states = self.encode(input_features)
        if decoder_input_ids is None:
            start = np.full((states.shape[0], 1), self.config.decoder_start_token_id, np.int64)
            decoder_input_ids = Tensor(start).to(device=states.device)
        return self.decode(decoder_input_ids, states, None, decoder_attention_mask)


def initialise(module: nn.Module) -> None:
    """Initial values for training from scratch: narrow normal ones."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
            bias = getattr(part, "bias", None)
            if bias is not None:
                nn.init.zeros_(bias)


# -- published files -------------------------------------------------------------------------------

TRANSFORMERS: dict[str, Any] = {
    "encoder.{rest}": "model.encoder.{rest}",  # models without a head have no prefix
    "decoder.{rest}": "model.decoder.{rest}",
}
# What augments training data and what classifies, how tokens are aligned, layers left out.
_ALSO = frozenset(
    "apply_spec_augment mask_time_prob mask_time_length mask_time_min_masks mask_feature_prob "
    "mask_feature_length mask_feature_min_masks use_weighted_layer_sum classifier_proj_size "
    "median_filter_width encoder_layerdrop decoder_layerdrop init_std num_hidden_layers "
    "forced_decoder_ids is_multilingual".split()
)


def from_transformers(published: dict[str, Any]) -> Config:
    """A config.json of transformers' Whisper."""
    found = settings(published, Config, NAME, task=TASK, also=_ALSO)
    defaults = {"decoder_start_token_id": 50_257, "pad_token_id": 50_256, "eos_token_id": 50_256}
    found = {**defaults, **{k: v for k, v in found.items() if v is not None}, "task": TASK}
    if found.get("scale_embedding"):
        raise ConfigError(f"{NAME}: scale_embedding=True is not supported: no published model")
    wrote = str((published.get("architectures") or [""])[0])
    if wrote not in ("", "WhisperModel", "WhisperForConditionalGeneration"):
        raise ConfigError(
            f"{NAME}: {wrote} is not supported, which recognises no speech", got=wrote
        )
    return Config(**found)


@register(
    "whisper",
    config=Config,
    task=TASK,
    layouts={"transformers": Layout(rename=TRANSFORMERS, config=from_transformers)},
    model_types=("whisper",),
    entries=[
        Entry(
            name="whisper-tiny",
            sources=(Hub("openai/whisper-tiny"),),
            layout="transformers",
            license="Apache-2.0",
            commercial=True,
            paper="https://arxiv.org/abs/2212.04356",
        )
    ],
)
def whisper(config: Config) -> Whisper:
    """A network that writes down speech."""
    return Whisper(config)

"""T5. Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer"; also T5 1.1 and flan-T5, whose MLPs are gated, and mT5.

Weights: google-t5/t5-small, google/flan-t5-small (Apache-2.0). Attributes are named as transformers
names them. Deviations from the paper: none; as published, scores of attention are not divided by
the root of a head's features, which the initial values make up for.

Longer than other models, since it has an encoder and a decoder.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core import nn
from ..core.errors import ConfigError
from ..core.nn import functional as F
from ..core.ops.elementwise import where
from ..core.ops.shape import permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import flags, real
from ..hub.registry import Entry, Hub, Layout, register
from .masks import distances, looked_up
from .published import settings
from .seq2seq import DecoderCache, EncoderDecoderFeatures
from .transformer import ACTIVATIONS, causal_mask, check_choice, check_ids, check_sizes, key_mask

NAME = "T5"
TASKS = ("text2text-generation", "feature-extraction")
MLPS = ("relu", "gelu", "silu", "gated-gelu", "gated-relu", "gated-silu")
_LOWEST = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are t5-small's.

    Args:
        vocab_size: tokens there are.
        d_model, d_kv, d_ff: features; of a head; inside the MLPs.
        num_layers, num_decoder_layers: of the encoder, and of the decoder (None: as many).
        num_heads: attention heads; together they need not have `d_model` features.
        relative_attention_num_buckets, relative_attention_max_distance: how many distances are
            told apart, and from which on all are one.
        dropout_rate: of vectors, branches and attention.
        layer_norm_epsilon: of the norms, which neither centre nor shift.
        feed_forward_proj: the activation of the MLPs; "gated-" where a second linear map is
            multiplied by it.
        tie_word_embeddings: the head is the table of token vectors.
        scale_decoder_outputs: divide by the root of `d_model` before the head; None: where the
            head is tied.
        decoder_start_token_id: what the decoder reads first; None: `pad_token_id`.
        pad_token_id: fills up texts.
        with_decoder: False for an encoder alone.
        task: "text2text-generation" or "feature-extraction".
    """

    vocab_size: int = 32_128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool | None = None
    decoder_start_token_id: int | None = None
    pad_token_id: int = 0
    with_decoder: bool = True
    task: str = "text2text-generation"

    def __post_init__(self) -> None:
        names = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
        sizes = {name: getattr(self, name) for name in names}
        check_sizes(NAME, **sizes, num_decoder_layers=self.decoder_layers)
        buckets, furthest = (
            self.relative_attention_num_buckets,
            self.relative_attention_max_distance,
        )
        check_sizes(
            NAME, relative_attention_num_buckets=buckets, relative_attention_max_distance=furthest
        )
        if buckets < 4 or buckets % 2 or furthest <= buckets // 2:
            raise ConfigError(
                f"{NAME}: relative_attention_num_buckets={buckets} must be even and at least 4, "
                f"and relative_attention_max_distance={furthest} more than half of it.",
                num_buckets=buckets,
                max_distance=furthest,
            )
        real(NAME, 0.0, 0.99, dropout_rate=self.dropout_rate, epsilon=self.layer_norm_epsilon)
        check_choice(NAME, "feed_forward_proj", self.feed_forward_proj, MLPS)
        check_choice(NAME, "task", self.task, TASKS)
        flags(NAME, tie_word_embeddings=self.tie_word_embeddings, with_decoder=self.with_decoder)
        if self.task == "text2text-generation" and not self.with_decoder:
            raise ConfigError(
                f"{NAME}: these weights are of an encoder alone, which writes no text: "
                'task="feature-extraction"'
            )
        if not 0 <= self.start < self.vocab_size:
            raise ConfigError(f"{NAME}: decoder_start_token_id={self.start} is no token")

    @property
    def decoder_layers(self) -> int:
        """Layers of the decoder."""
        return self.num_layers if self.num_decoder_layers is None else self.num_decoder_layers

    @property
    def scaled(self) -> bool:
        """Whether states are divided before the head."""
        said = self.scale_decoder_outputs
        return self.tie_word_embeddings if said is None else said

    @property
    def start(self) -> int:
        """The token that the decoder reads first."""
        said = self.decoder_start_token_id
        return self.pad_token_id if said is None else said


def buckets(distance: Any, *, both: bool, count: int, furthest: int) -> Any:
    """Number distances of keys from queries: small ones one by one, larger ones by logarithm.

    Args:
        distance: the place of the key less that of the query.
        both: whether keys come after queries as well, which get the second half of the numbers.

    Source: Raffel et al. 2020, section 2.1.
    """
    number = np.zeros(distance.shape, np.int64)
    if both:
        count //= 2
        number += (distance > 0) * count
        distance = np.abs(distance)
    else:
        distance = np.maximum(-distance, 0)
    exact = count // 2
    far = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact))
    far = far / np.float32(math.log(furthest / exact)) * np.float32(count - exact)
    large = np.minimum(exact + far.astype(np.int64), count - 1)
    return number + np.where(distance < exact, distance, large)


class Attention(nn.Module):
    """Attention without scaling and biases.

    Attributes:
        relative_attention_bias: what each distance adds to the scores of each head; the first
            layer has it for all.

    Shape:
        (B, T, d_model), kept
    """

    def __init__(self, config: Config, layer: int, *, table: bool = False) -> None:
        inner = config.num_heads * config.d_kv
        self.heads, self.layer, self.dropout = config.num_heads, layer, config.dropout_rate
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        self.relative_attention_bias: nn.Embedding | None = None
        if table:
            count = config.relative_attention_num_buckets
            self.relative_attention_bias = nn.Embedding(count, config.num_heads)

    def _split(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        return permute_dims(reshape(x, (b, t, self.heads, d // self.heads)), (0, 2, 1, 3))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        cache: DecoderCache | None = None,
        states: Tensor | None = None,
    ) -> Tensor:
        q = self._split(self.q(x))
        source = x if states is None else states

        def pair() -> tuple[Tensor, Tensor]:
            return self._split(self.k(source)), self._split(self.v(source))

        if cache is None:
            k, v = pair()
        elif states is None:
            k, v = cache.append(self.layer, *pair())
        else:
            k, v = cache.cross(self.layer, pair)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, scale=1.0)
        b, n, t, w = y.shape
        out: Tensor = self.o(reshape(permute_dims(y, (0, 2, 1, 3)), (b, t, n * w)))
        return out


class Mlp(nn.Module):
    """Two linear maps with an activation between them, or three of which one is a gate."""

    def __init__(self, config: Config) -> None:
        kind = config.feed_forward_proj.removeprefix("gated-")
        gated = kind != config.feed_forward_proj
        self.wi: nn.Linear | None = None
        self.wi_0: nn.Linear | None = None
        self.wi_1: nn.Linear | None = None
        if gated:
            self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False)
            self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        else:
            self.wi = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.act = ACTIVATIONS["gelu_new" if gated and kind == "gelu" else kind]()
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor) -> Tensor:
        if self.wi is not None:
            x = self.act(self.wi(x))
        else:
            assert self.wi_0 is not None and self.wi_1 is not None
            x = self.act(self.wi_0(x)) * self.wi_1(x)
        out: Tensor = self.wo(self.dropout(x))
        return out


class Branch(nn.Module):
    """A part of a block, after its norm: what it gives is added to what comes in."""

    def __init__(self, config: Config, name: str, part: nn.Module) -> None:
        self.name = name
        setattr(self, name, part)
        self.layer_norm = nn.RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor, *given: Any) -> Tensor:
        out: Tensor = x + self.dropout(getattr(self, self.name)(self.layer_norm(x), *given))
        return out


class Block(nn.Module):
    """Attention among the tokens, in a decoder then to the encoder's states, and an MLP."""

    def __init__(self, config: Config, layer: int, *, decoder: bool) -> None:
        own = Attention(config, layer, table=layer == 0)
        branches = [Branch(config, "SelfAttention", own)]
        if decoder:
            branches.append(Branch(config, "EncDecAttention", Attention(config, layer)))
        branches.append(Branch(config, "DenseReluDense", Mlp(config)))
        self.layer = nn.ModuleList(branches)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        cache: DecoderCache | None,
        states: Tensor | None,
        states_mask: Tensor | None,
    ) -> Tensor:
        x = self.layer[0](x, mask, cache)
        if states is not None:
            x = self.layer[1](x, states_mask, cache, states)
        x = self.layer[-1](x)
        return x


class Stack(nn.Module):
    """The encoder or the decoder."""

    def __init__(self, config: Config, tokens: nn.Embedding, *, decoder: bool) -> None:
        self.config, self.decoder = config, decoder
        self.embed_tokens = tokens
        count = config.decoder_layers if decoder else config.num_layers
        self.block = nn.ModuleList(Block(config, i, decoder=decoder) for i in range(count))
        self.final_layer_norm = nn.RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)

    def bias(self, tokens: int, past: int) -> Tensor:
        """What distances add to the scores. Shape: (1, heads, tokens, past + tokens)."""
        config = self.config
        furthest = config.relative_attention_max_distance
        known = buckets(
            np.arange(-furthest, furthest + 1),
            both=not self.decoder,
            count=config.relative_attention_num_buckets,
            furthest=furthest,
        )
        table = self.block[0].layer[0].SelfAttention.relative_attention_bias
        apart = distances(tokens, past).to(device=table.weight.device)
        found: Tensor = table(looked_up(known, apart))
        return permute_dims(found, (2, 0, 1))[None]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        cache: DecoderCache | None = None,
        states: Tensor | None = None,
        states_mask: Tensor | None = None,
    ) -> Tensor:
        past, tokens = (0 if cache is None else cache.length), input_ids.shape[-1]
        what = f"{NAME}'s {'decoder' if self.decoder else 'encoder'}"
        check_ids(what, input_ids, attention_mask, self.config.vocab_size, None, past)
        mask = self.bias(tokens, past)
        seen = key_mask(attention_mask)
        if self.decoder:
            seen = causal_mask(attention_mask, tokens, past)
            if seen is None and tokens > 1:
                seen = Tensor(np.tril(np.ones((1, 1, tokens, tokens), bool)))
        if seen is not None:
            mask = where(seen.to(device=mask.device), mask, _LOWEST)
        x: Tensor = self.dropout(self.embed_tokens(input_ids))
        for block in self.block:
            x = block(x, mask, cache, states, key_mask(states_mask))
        if cache is not None:
            cache.advance(tokens)
        x = self.dropout(self.final_layer_norm(x))
        return x


class T5(nn.Module):
    """Encoder, decoder and the head that scores the next token."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Stack(config, self.shared, decoder=False)
        self.decoder = Stack(config, self.shared, decoder=True) if config.with_decoder else None
        self.lm_head: nn.Linear | None = None
        if config.task == "text2text-generation":
            self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
            if config.tie_word_embeddings:
                self.lm_head.weight = self.shared.weight
        initialise(self)

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The encoder's states of each token.

        Shape:
            (B, S), whole numbers; the mask (B, S), 1 for tokens -> (B, S, d_model)
        Raises:
            ShapeError: other axes, no tokens, a mask of another shape.
            IndexRangeError: an id outside the vocabulary.
        """
        states: Tensor = self.encoder(input_ids, attention_mask)
        return states

    def cache(self, batch: int, capacity: int) -> DecoderCache:
        """Room for `capacity` tokens of the decoder, for each text."""
        config = self.config
        shape = (config.decoder_layers, batch, config.num_heads, capacity, config.d_kv)
        return DecoderCache(*shape, dtype=self.dtype, device=self.device)

    def hidden(
        self,
        decoder_input_ids: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        cache: DecoderCache | None = None,
    ) -> Tensor:
        """The decoder's states. Arguments: see `decode`. Shape: (B, T) -> (B, T, d_model)."""
        if self.decoder is None:
            raise ConfigError(f"{NAME}: these weights are of an encoder alone")
        states: Tensor = self.decoder(
            decoder_input_ids,
            decoder_attention_mask,
            cache,
            encoder_hidden_states,
            encoder_attention_mask,
        )
        return states

    def decode(
        self,
        decoder_input_ids: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        cache: DecoderCache | None = None,
        last: int | None = None,
    ) -> Tensor:
        """Scores of the next token after each; the states where there is no head.

        Args:
            encoder_hidden_states: what `encode` gave, (B, S, d_model).
            encoder_attention_mask: (B, S), 1 for tokens.
            cache: of `module.cache`: then the ids are the new tokens alone.
            last: scores of the last so many tokens only.

        Shape:
            (B, T), whole numbers -> (B, T, vocab_size)
        """
        x = self.hidden(
            decoder_input_ids,
            encoder_hidden_states,
            encoder_attention_mask,
            decoder_attention_mask,
            cache,
        )
        if last is not None:
            x = x[:, -last:]
        if self.lm_head is None:
            return x
        if self.config.scaled:
            x = x * self.config.d_model**-0.5
        scores: Tensor = self.lm_head(x)
        return scores

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
    ) -> Tensor | EncoderDecoderFeatures:
        """Scores of the next token after each of the decoder's; without a head the states.

        Args:
            decoder_input_ids: what the decoder has read; its start token alone unless given. A
                model without a head gives the encoder's states then.

        Shape:
            (B, S) and (B, T), whole numbers -> (B, T, vocab_size)
        """
        states = self.encode(input_ids, attention_mask)
        if decoder_input_ids is None:
            if self.lm_head is None:
                return EncoderDecoderFeatures(states, None, states)
            start = np.full((input_ids.shape[0], 1), self.config.start, np.int64)
            decoder_input_ids = Tensor(start).to(device=input_ids.device)
        found = self.decode(decoder_input_ids, states, attention_mask, decoder_attention_mask)
        return found if self.lm_head is not None else EncoderDecoderFeatures(found, None, states)


def initialise(module: T5) -> None:
    """Initial values for training from scratch. Source: the published T5 code's, as in the paper.

    Queries are drawn smaller by the root of a head's features, since scores are not divided by it.
    """
    config = module.config
    width = config.d_model**-0.5
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=width if part is not module.shared else 1.0)
        elif isinstance(part, nn.Linear) and part is not module.lm_head:
            end = name.rsplit(".", 1)[-1]
            wide = {"q": width * config.d_kv**-0.5, "wo": config.d_ff**-0.5}
            wide["o"] = (config.num_heads * config.d_kv) ** -0.5
            nn.init.normal_(part.weight, std=wide.get(end, width))
    if module.lm_head is not None and not config.tie_word_embeddings:
        nn.init.normal_(module.lm_head.weight, std=width)


# -- published files -------------------------------------------------------------------------------

TRANSFORMERS: dict[str, Any] = {
    # in the oldest files, and never used
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": None,
}


def from_transformers(published: dict[str, Any]) -> Config:
    """A config.json of transformers' T5 or mT5."""
    also = {"n_positions", "initializer_factor", "is_gated_act", "dense_act_fn"}
    found = settings(published, Config, NAME, task="text2text-generation", also=also)
    if published.get("model_type") == "mt5":  # what its files may leave out
        mt5 = {"vocab_size": 250_112, "d_ff": 1024, "num_layers": 8, "num_heads": 6}
        found = {**mt5, "feed_forward_proj": "gated-gelu", **found}
    if published.get("model_type") == "mt5":
        found["scale_decoder_outputs"] = False
    elif found.get("scale_decoder_outputs") is None:
        found["scale_decoder_outputs"] = published.get("tie_word_embeddings") is not False
    wrote = published.get("architectures") or [""]
    found["with_decoder"] = not str(wrote[0]).endswith("EncoderModel")
    found["pad_token_id"] = published.get("pad_token_id") or 0
    return Config(**found)


def detect(config: Config, names: Collection[str]) -> Config:
    """Whether the head is a weight of its own: newer files say that it is tied where it is not."""
    own = "lm_head.weight" in names and not (config.tie_word_embeddings and config.scaled)
    return replace(config, tie_word_embeddings=not own)


def _entry(name: str, repo: str, parameters: int, **config: Any) -> Entry:
    return Entry(
        name=name,
        sources=(Hub(repo),),
        layout="transformers",
        commercial=True,
        license="Apache-2.0",
        parameters=parameters,
        config=config,
        paper="https://arxiv.org/abs/1910.10683",
    )


@register(
    "t5",
    config=Config,
    task="text2text-generation",
    layouts={"transformers": Layout(rename=TRANSFORMERS, config=from_transformers, detect=detect)},
    model_types=("t5", "mt5"),
    head=("lm_head",),
    entries=[
        _entry("t5-small", "google-t5/t5-small", 60_506_624),
        _entry(
            "flan-t5-small",
            "google/flan-t5-small",
            76_961_152,
            d_ff=1024,
            num_layers=8,
            num_heads=6,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        ),
    ],
)
def t5(config: Config) -> T5:
    """A network that turns one text into another."""
    return T5(config)

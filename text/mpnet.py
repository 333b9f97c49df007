"""MPNet. Song et al. 2020, "MPNet: Masked and Permuted Pre-training".

BERT with RoBERTa's places and heads, without segments, and with a trained bias for the distance of
two tokens, in buckets as T5 has them. Attributes are named as transformers names them. Weights:
sentence-transformers/all-mpnet-base-v2 (Apache-2.0). Deviations from the paper: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.elementwise import where
from ..core.ops.shape import permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.registry import Entry, Hub, Layout, register
from .bert import (
    TASKS,
    Features,
    Intermediate,
    Output,
    Pooler,
    check_config,
    detect,
    initialise,
    spans_of,
)
from .masks import distances, looked_up
from .published import settings
from .roberta import ClassificationHead, LanguageHead, places_of
from .t5 import buckets
from .transformer import check_ids, check_sizes, key_mask

_FARTHEST = 128  # tokens: farther ones share the last bucket


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are mpnet-base's.

    Args:
        max_position_embeddings: places there are, of which the first `pad_token_id` + 1 are unused.
        relative_attention_num_buckets: of distances.
        pad_token_id: the token that fills up texts.
        pooler: whether there is the layer that makes one vector of the first token.
        task: one of `TASKS`.
        The others: as BERT's.
    """

    vocab_size: int = 30_527
    max_position_embeddings: int = 512
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    relative_attention_num_buckets: int = 32
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    tie_word_embeddings: bool = True
    pad_token_id: int = 1
    pooler: bool = True
    task: str = "fill-mask"
    num_classes: int = 0

    def __post_init__(self) -> None:
        check_config("MPNet", self, TASKS)
        check_sizes("MPNet", pad_token_id=self.pad_token_id + 1, context=self.context)
        check_sizes("MPNet", relative_attention_num_buckets=self.relative_attention_num_buckets)

    @property
    def context(self) -> int:
        """The most tokens that it can see."""
        return self.max_position_embeddings - self.pad_token_id - 1


class Embeddings(nn.Module):
    """The vectors of tokens and places, added and normed."""

    def __init__(self, config: Config) -> None:
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, places: Tensor) -> Tensor:
        x = self.word_embeddings(input_ids) + self.position_embeddings(places)
        out: Tensor = self.dropout(self.LayerNorm(x))
        return out


class SelfAttention(nn.Module):
    """Attention with a bias for each distance. Shape: (B, T, D), kept."""

    def __init__(self, config: Config) -> None:
        width = config.hidden_size
        self.heads, self.rate = config.num_attention_heads, config.attention_probs_dropout_prob
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.o = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (
            permute_dims(reshape(part(x), (b, t, self.heads, d // self.heads)), (0, 2, 1, 3))
            for part in (self.q, self.k, self.v)
        )
        rate = self.rate if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, bias, dropout_p=rate)
        out: Tensor = self.o(reshape(permute_dims(y, (0, 2, 1, 3)), (b, t, d)))
        return out


class Attention(nn.Module):
    """Self-attention, added to what comes in, then normed."""

    def __init__(self, config: Config) -> None:
        self.attn = SelfAttention(config)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dropout(self.attn(x, bias)) + x)
        return out


class Layer(nn.Module):
    """Attention and an MLP, each added to what comes in, then normed."""

    def __init__(self, config: Config) -> None:
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Output(config, config.intermediate_size)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.attention(x, bias)
        out: Tensor = self.output(self.intermediate(x), x)
        return out


class Encoder(nn.Module):
    """The layers, which share one table of biases."""

    def __init__(self, config: Config) -> None:
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        count = config.relative_attention_num_buckets
        self.relative_attention_bias = nn.Embedding(count, config.num_attention_heads)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        table = self.relative_attention_bias
        near = np.arange(-_FARTHEST, _FARTHEST + 1)
        known = buckets(near, both=True, count=table.num_embeddings, furthest=_FARTHEST)
        numbers = looked_up(known, distances(x.shape[1]).to(device=x.device))
        bias = permute_dims(table(numbers), (2, 0, 1))[None]  # (1, N, T, T)
        if mask is not None:
            bias = where(mask, bias, float("-inf"))
        for layer in self.layer:
            x = layer(x, bias)
        return x


class Trunk(nn.Module):
    """Vectors, layers and, for features, the pooler."""

    def __init__(self, config: Config) -> None:
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        wanted = config.pooler and config.task == "feature-extraction"
        self.pooler = Pooler(config) if wanted else None

    def forward(self, input_ids: Tensor, places: Tensor, mask: Tensor | None) -> Tensor:
        x: Tensor = self.encoder(self.embeddings(input_ids, places), mask)
        return x


class MPNet(nn.Module):
    """The trunk, and the head of its task."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.mpnet = Trunk(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.lm_head: LanguageHead | None = None
        self.classifier: nn.Module | None = None
        self.qa_outputs: nn.Linear | None = None
        if config.task == "fill-mask":
            self.lm_head = LanguageHead(config, self.mpnet.embeddings.word_embeddings)
        elif config.task == "question-answering":
            self.qa_outputs = nn.Linear(config.hidden_size, 2)
        elif config.task == "text-classification":
            self.classifier = ClassificationHead(config)
        elif config.task == "token-classification":
            self.classifier = nn.Linear(config.hidden_size, config.num_classes)
        initialise(self)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Any:
        """What the task asks for; arguments, shapes and errors are those of RoBERTa.

        Args:
            token_type_ids: passed over: it has no segments.
        """
        config = self.config
        check_ids("MPNet", input_ids, attention_mask, config.vocab_size, config.context)
        if position_ids is None:
            position_ids = places_of(input_ids, config.pad_token_id)
        x: Tensor = self.mpnet(input_ids, position_ids, key_mask(attention_mask))
        if config.task == "feature-extraction":
            pooler = self.mpnet.pooler
            return Features(x, None if pooler is None else pooler(x))
        if self.lm_head is not None:
            return self.lm_head(x)
        if self.qa_outputs is not None:
            return spans_of(self.qa_outputs(x))
        assert self.classifier is not None
        return self.classifier(self.dropout(x) if config.task == "token-classification" else x)


# -- published files -------------------------------------------------------------------------------

TRANSFORMERS: dict[str, Any] = {"{any}position_ids": None}
for _name in ("embeddings", "encoder", "pooler"):  # models without a head have no prefix
    TRANSFORMERS[f"{_name}.{{rest}}"] = f"mpnet.{_name}.{{rest}}"


def from_transformers(published: dict[str, Any]) -> Config:
    """A config.json of transformers' MPNet."""
    return Config(**settings(published, Config, "MPNet", task="feature-extraction"))


@register(
    "mpnet",
    config=Config,
    task="fill-mask",
    layouts={"transformers": Layout(rename=TRANSFORMERS, config=from_transformers, detect=detect)},
    model_types=("mpnet",),
    head=("lm_head", "classifier", "qa_outputs"),
    fresh=("mpnet.pooler",),
    entries=[
        Entry(
            name="all-mpnet-base-v2",
            sources=(Hub("sentence-transformers/all-mpnet-base-v2"),),
            config={"max_position_embeddings": 514, "task": "feature-extraction"},
            layout="transformers",
            license="Apache-2.0",
            commercial=True,
            task="feature-extraction",
            note="vectors of 768 numbers for sentences and short paragraphs in English",
        )
    ],
)
def mpnet(config: Config) -> MPNet:
    """An encoder that knows how far apart two tokens are."""
    return MPNet(config)

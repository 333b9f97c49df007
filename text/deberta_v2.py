"""DeBERTa v2 and v3. He et al. 2021, "DeBERTa"; He et al. 2023, "DeBERTaV3".

BERT whose attention adds what tokens say of distances, and distances of tokens; distances come in
buckets that grow with the logarithm. Attributes are named as transformers names them. Weights:
microsoft/deberta-v3-small (MIT). Deviations from the papers: none; the convolution of the largest
models of v2 is not there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.elementwise import where
from ..core.ops.indexing import take_along_axis
from ..core.ops.linalg import matmul
from ..core.ops.shape import broadcast_to, matrix_transpose, permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import expect, flags
from ..hub.registry import Entry, Hub, Layout, register
from .bert import (
    TASKS,
    Features,
    Intermediate,
    LanguageHead,
    Output,
    check_config,
    initialise,
    spans_of,
)
from .masks import distances, looked_up
from .published import settings
from .transformer import ACTIVATIONS, check_choice, check_ids, check_sizes, key_mask


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are deberta-v3-small's.

    Args:
        position_buckets: buckets of distances in one direction.
        max_relative_positions: the farthest distance that is told apart; -1 for
            `max_position_embeddings`.
        share_att_key: distances go through the projections of tokens, not through their own.
        pos_att_type: "c2p", what tokens say of distances; "p2c", the other way round.
        position_biased_input: whether places are added to the vectors of tokens as well.
        type_vocab_size: kinds of segments; 0 for none.
        norm_rel_ebd: whether the vectors of distances are normed: "layer_norm" or "none".
        pooler_hidden_act: before the classifier of texts.
        task: one of `TASKS`.
        The others: as BERT's.
    """

    vocab_size: int = 128_100
    type_vocab_size: int = 0
    max_position_embeddings: int = 512
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-7
    position_buckets: int = 256
    max_relative_positions: int = -1
    share_att_key: bool = True
    pos_att_type: tuple[str, ...] = ("p2c", "c2p")
    position_biased_input: bool = False
    norm_rel_ebd: str = "layer_norm"
    pooler_hidden_act: str = "gelu"
    tie_word_embeddings: bool = True
    task: str = "fill-mask"
    num_classes: int = 0

    def __post_init__(self) -> None:
        check_config("DeBERTa", self, TASKS)
        check_sizes("DeBERTa", position_buckets=self.position_buckets, farthest=self.farthest)
        for kind in self.pos_att_type:
            check_choice("DeBERTa", "pos_att_type", kind, ("c2p", "p2c"))
        check_choice("DeBERTa", "norm_rel_ebd", self.norm_rel_ebd, ("layer_norm", "none"))
        check_choice("DeBERTa", "pooler_hidden_act", self.pooler_hidden_act, ACTIVATIONS)
        names = ("share_att_key", "position_biased_input")
        flags("DeBERTa", **{n: getattr(self, n) for n in names})
        if self.type_vocab_size:
            check_sizes("DeBERTa", type_vocab_size=self.type_vocab_size)

    @property
    def farthest(self) -> int:
        """The farthest distance that is told apart."""
        told = self.max_relative_positions
        return self.max_position_embeddings if told < 1 else told

    @property
    def context(self) -> int:
        """The most tokens that it can see."""
        return self.max_position_embeddings


class Embeddings(nn.Module):
    """The vectors of tokens, and of places and segments where there are any, normed."""

    def __init__(self, config: Config) -> None:
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.position_embeddings: nn.Embedding | None = None
        self.token_type_embeddings: nn.Embedding | None = None
        if config.position_biased_input:
            self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        if config.type_vocab_size:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, segments: Tensor | None, places: Tensor | None) -> Tensor:
        x: Tensor = self.word_embeddings(input_ids)
        if self.position_embeddings is not None:
            table = self.position_embeddings
            x = x + (table.weight[: x.shape[1]] if places is None else table(places))
        if self.token_type_embeddings is not None:
            table = self.token_type_embeddings
            x = x + (table.weight[0] if segments is None else table(segments))
        out: Tensor = self.dropout(self.LayerNorm(x))
        return out


class SelfAttention(nn.Module):
    """Attention between tokens, and between tokens and distances. Shape: (B, T, D), kept."""

    def __init__(self, config: Config) -> None:
        width = config.hidden_size
        self.heads, self.rate = config.num_attention_heads, config.attention_probs_dropout_prob
        self.kinds, self.span = config.pos_att_type, config.position_buckets
        self.scale = (width // self.heads * (1 + len(self.kinds))) ** -0.5
        self.query_proj = nn.Linear(width, width)
        self.key_proj = nn.Linear(width, width)
        self.value_proj = nn.Linear(width, width)
        own = not config.share_att_key
        self.pos_key_proj = nn.Linear(width, width) if own and "c2p" in self.kinds else None
        self.pos_query_proj = nn.Linear(width, width) if own and "p2c" in self.kinds else None
        self.pos_dropout = nn.Dropout(config.hidden_dropout_prob)

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, D) as (B, N, T, W)."""
        b, t, d = x.shape
        return permute_dims(reshape(x, (b, t, self.heads, d // self.heads)), (0, 2, 1, 3))

    def forward(self, x: Tensor, mask: Tensor | None, distances: Tensor, table: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k = self._split(self.query_proj(x)), self._split(self.key_proj(x))
        v = self._split(self.value_proj(x))
        bias = self._of_distances(q, k, distances, self.pos_dropout(table)[None])
        if bias is not None and mask is not None:
            bias = where(mask, bias, float("-inf"))
        rate = self.rate if self.training else 0.0
        y = F.scaled_dot_product_attention(
            q, k, v, mask if bias is None else bias, dropout_p=rate, scale=self.scale
        )
        return reshape(permute_dims(y, (0, 2, 1, 3)), (b, t, d))

    def _of_distances(
        self, q: Tensor, k: Tensor, distances: Tensor, table: Tensor
    ) -> Tensor | None:
        """What is added to the scores (B, N, T, T).

        Args:
            distances: the row (T, T) of the table for a query and a key.
        """
        total: Tensor | None = None
        if "c2p" in self.kinds:
            keys = self._split((self.pos_key_proj or self.key_proj)(table))
            total = _gathered(matmul(q, matrix_transpose(keys)), distances)
        if "p2c" in self.kinds:
            queries = self._split((self.pos_query_proj or self.query_proj)(table))
            found = _gathered(matmul(k, matrix_transpose(queries)), matrix_transpose(distances))
            found = matrix_transpose(found)
            total = found if total is None else total + found
        return None if total is None else total * self.scale


def _gathered(scores: Tensor, rows: Tensor) -> Tensor:
    """(B, N, T, rows of the table) -> (B, N, T, T)."""
    where_ = broadcast_to(rows, (*scores.shape[:-1], rows.shape[-1]))
    return take_along_axis(scores, where_, axis=-1)


class Attention(nn.Module):
    """Self-attention and its linear map."""

    def __init__(self, config: Config) -> None:
        self.self = SelfAttention(config)
        self.output = Output(config, config.hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None, distances: Tensor, table: Tensor) -> Tensor:
        out: Tensor = self.output(self.self(x, mask, distances, table), x)
        return out


class Layer(nn.Module):
    """Attention and an MLP, each added to what comes in, then normed."""

    def __init__(self, config: Config) -> None:
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Output(config, config.intermediate_size)

    def forward(self, x: Tensor, mask: Tensor | None, distances: Tensor, table: Tensor) -> Tensor:
        x = self.attention(x, mask, distances, table)
        out: Tensor = self.output(self.intermediate(x), x)
        return out


class Encoder(nn.Module):
    """The layers, which share the vectors of distances."""

    def __init__(self, config: Config) -> None:
        self.buckets, self.farthest = config.position_buckets, config.farthest
        self.longest = config.max_position_embeddings
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.rel_embeddings = nn.Embedding(2 * config.position_buckets, config.hidden_size)
        self.LayerNorm: nn.LayerNorm | None = None
        if config.norm_rel_ebd == "layer_norm":
            self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        table: Tensor = self.rel_embeddings.weight
        if self.LayerNorm is not None:
            table = self.LayerNorm(table)
        # Of keys from queries: the published networks count the other way round.
        apart = -np.arange(1 - self.longest, self.longest)
        rows = bucketed(apart, self.buckets, self.farthest) + self.buckets
        known = np.clip(rows, 0, 2 * self.buckets - 1)
        numbers = looked_up(known, distances(x.shape[1]).to(device=x.device))
        for layer in self.layer:
            x = layer(x, mask, numbers, table)
        return x


def bucketed(distance: Any, buckets: int, farthest: int) -> Any:
    """Distances of a query from a key; farther ones in steps of the logarithm."""
    middle = buckets // 2
    near = np.abs(distance) < middle
    far = np.where(near, middle - 1, np.abs(distance)).astype(np.float32)
    steps = np.log(far / np.float32(middle)) / np.float32(math.log((farthest - 1) / middle))
    large = np.ceil(steps * np.float32(middle - 1)) + middle
    found = np.where(far <= middle, distance, large * np.sign(distance))
    return found.astype(np.int64)


class Trunk(nn.Module):
    """Vectors and layers."""

    def __init__(self, config: Config) -> None:
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)

    def forward(
        self,
        input_ids: Tensor,
        segments: Tensor | None,
        places: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:
        x: Tensor = self.encoder(self.embeddings(input_ids, segments, places), mask)
        return x


class Pooler(nn.Module):
    """One vector for a text, from its first token."""

    def __init__(self, config: Config) -> None:
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.act = ACTIVATIONS[config.pooler_hidden_act]()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.dense(x[:, 0]))
        return out


class Deberta(nn.Module):
    """The trunk, and the head of its task."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.deberta = Trunk(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.cls: LanguageHead | None = None
        self.pooler: Pooler | None = None
        self.classifier: nn.Linear | None = None
        self.qa_outputs: nn.Linear | None = None
        if config.task == "fill-mask":
            self.cls = LanguageHead(config, self.deberta.embeddings.word_embeddings)
        elif config.task == "question-answering":
            self.qa_outputs = nn.Linear(config.hidden_size, 2)
        elif config.num_classes:
            self.pooler = Pooler(config) if config.task == "text-classification" else None
            self.classifier = nn.Linear(config.hidden_size, config.num_classes)
        initialise(self)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> Any:
        """What the task asks for; arguments, shapes and errors are those of BERT."""
        config = self.config
        places = config.max_position_embeddings
        sizes = config.vocab_size, places
        check_ids("DeBERTa", input_ids, attention_mask, *sizes, token_type_ids=token_type_ids)
        mask = key_mask(attention_mask)
        x: Tensor = self.deberta(input_ids, token_type_ids, position_ids, mask)
        if config.task == "feature-extraction":
            return Features(x, None)
        if self.cls is not None:
            return self.cls(x)
        if self.qa_outputs is not None:
            return spans_of(self.qa_outputs(x))
        assert self.classifier is not None
        return self.classifier(self.dropout(x if self.pooler is None else self.pooler(x)))


# -- published files -------------------------------------------------------------------------------

TRANSFORMERS: dict[str, Any] = {
    "{any}position_ids": None,
    "mask_predictions.{rest}": None,  # of the pretraining
    "lm_predictions.{rest}": None,
}
for _name in ("embeddings", "encoder"):  # models without a head have no prefix
    TRANSFORMERS[f"{_name}.{{rest}}"] = f"deberta.{_name}.{{rest}}"
_ALSO = {"cls_dropout", "legacy", "pooler_dropout", "pooler_hidden_size", "relative_attention"}


def from_transformers(published: dict[str, Any]) -> Config:
    """A config.json of transformers' DeBERTa v2 or v3."""
    said = dict(published)
    kinds = said.get("pos_att_type")
    if isinstance(kinds, str):
        said["pos_att_type"] = tuple(kinds.split("|"))
    elif isinstance(kinds, list):
        said["pos_att_type"] = tuple(kinds)
    expect(said, "DeBERTa", relative_attention=(True,), conv_kernel_size=(0,))
    width = said.get("hidden_size", 768)
    expect(said, "DeBERTa", embedding_size=(width,), pooler_hidden_size=(width,))
    also = _ALSO | {"conv_kernel_size", "embedding_size"}
    # The files of the pretraining name no class, and have no head that is of use.
    return Config(**settings(said, Config, "DeBERTa", task="feature-extraction", also=also))


@register(
    "deberta-v2",
    config=Config,
    task="fill-mask",
    layouts={"transformers": Layout(rename=TRANSFORMERS, config=from_transformers)},
    model_types=("deberta-v2",),
    head=("cls", "pooler", "classifier", "qa_outputs"),
    entries=[
        Entry(
            name="deberta-v3-small",
            sources=(Hub("microsoft/deberta-v3-small"),),
            config={"task": "feature-extraction"},
            layout="transformers",
            license="MIT",
            commercial=True,
            task="feature-extraction",
            note="to be fine-tuned: bt.load('deberta-v3-small', num_classes=2)",
            paper="He et al. 2023, DeBERTaV3",
        )
    ],
)
def deberta_v2(config: Config) -> Deberta:
    """An encoder whose attention knows tokens and distances apart."""
    return Deberta(config)

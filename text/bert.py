"""BERT. Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers".

Also what MiniLM, BGE, E5 and the cross-encoders are. Attributes are named as transformers names
them. Weights: google-bert/bert-base-uncased (Apache-2.0). Deviations from the paper: none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.shape import permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import expect, flags, real
from ..hub.registry import Layout, register
from .bert_entries import ENTRIES
from .published import headed, settings
from .transformer import (
    ACTIVATIONS,
    check_choice,
    check_classes,
    check_heads,
    check_ids,
    check_sizes,
    key_mask,
)

TASKS = (
    "feature-extraction",
    "fill-mask",
    "text-classification",
    "token-classification",
    "question-answering",
)


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are bert-base-uncased's.

    Args:
        vocab_size, type_vocab_size: tokens there are, and kinds of segments.
        max_position_embeddings: the most tokens of a text.
        hidden_size, intermediate_size: features, also inside the MLPs.
        num_hidden_layers, num_attention_heads: layers, and heads of each.
        hidden_act: in the MLPs.
        hidden_dropout_prob, attention_probs_dropout_prob: dropout of branches, of attention.
        layer_norm_eps: of the norms.
        tie_word_embeddings: the head of "fill-mask" is the table of token vectors.
        pooler: whether there is the layer that makes one vector of the first token.
        task: one of `TASKS`.
        num_classes: of the heads that have classes.
    """

    vocab_size: int = 30_522
    type_vocab_size: int = 2
    max_position_embeddings: int = 512
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    tie_word_embeddings: bool = True
    pooler: bool = True
    task: str = "fill-mask"
    num_classes: int = 0

    def __post_init__(self) -> None:
        check_config("BERT", self, TASKS)

    @property
    def context(self) -> int:
        """The most tokens that it can see."""
        return self.max_position_embeddings


def check_config(what: str, config: Any, tasks: tuple[str, ...]) -> None:
    """Raise where settings that encoders share make no sense.

    Raises:
        ConfigError: names the setting.
    """
    names = (
        "vocab_size",
        "max_position_embeddings",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
    )
    check_sizes(what, **{n: getattr(config, n) for n in names})
    check_heads(what, config.hidden_size, config.num_attention_heads)
    rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps")
    real(what, 0.0, 0.99, **{n: getattr(config, n) for n in rates})
    check_choice(what, "hidden_act", config.hidden_act, ACTIVATIONS)
    check_choice(what, "task", config.task, tasks)
    check_classes(what, config.task, config.num_classes)
    flags(what, tie_word_embeddings=config.tie_word_embeddings)


class Features(NamedTuple):
    """Every token, and what stands for the whole text; None without a pooler."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None


class Spans(NamedTuple):
    """Scores of each token as the first and the last one of the answer."""

    start_logits: Tensor
    end_logits: Tensor


class Embeddings(nn.Module):
    """The vectors of tokens, places and segments, added and normed."""

    def __init__(self, config: Any, width: int) -> None:
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor | None, position_ids: Tensor | None
    ) -> Tensor:
        x: Tensor = self.word_embeddings(input_ids)
        if token_type_ids is None:
            x = x + self.token_type_embeddings.weight[0]
        else:
            x = x + self.token_type_embeddings(token_type_ids)
        if position_ids is None:
            x = x + self.position_embeddings.weight[: input_ids.shape[1]]
        else:
            x = x + self.position_embeddings(position_ids)
        out: Tensor = self.dropout(self.LayerNorm(x))
        return out


class SelfAttention(nn.Module):
    """Queries, keys and values, and what they attend to. Shape: (B, T, D), kept."""

    def __init__(self, config: Any) -> None:
        width = config.hidden_size
        self.heads, self.rate = config.num_attention_heads, config.attention_probs_dropout_prob
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, t, d = x.shape
        q, k, v = (
            permute_dims(reshape(part(x), (b, t, self.heads, d // self.heads)), (0, 2, 1, 3))
            for part in (self.query, self.key, self.value)
        )
        rate = self.rate if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=rate)
        return reshape(permute_dims(y, (0, 2, 1, 3)), (b, t, d))


class Output(nn.Module):
    """A linear map back, added to what came in, and normed."""

    def __init__(self, config: Any, features: int) -> None:
        self.dense = nn.Linear(features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dropout(self.dense(x)) + residual)
        return out


class Attention(nn.Module):
    """Self-attention and its linear map."""

    def __init__(self, config: Any) -> None:
        self.self = SelfAttention(config)
        self.output = Output(config, config.hidden_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        out: Tensor = self.output(self.self(x, mask), x)
        return out


class Intermediate(nn.Module):
    """The first half of an MLP."""

    def __init__(self, config: Any) -> None:
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.intermediate_act_fn = ACTIVATIONS[config.hidden_act]()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.intermediate_act_fn(self.dense(x))
        return out


class Layer(nn.Module):
    """Attention and an MLP, each added to what comes in, then normed."""

    def __init__(self, config: Any) -> None:
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = Output(config, config.intermediate_size)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention(x, mask)
        out: Tensor = self.output(self.intermediate(x), x)
        return out


class Encoder(nn.Module):
    """The layers, one after the other."""

    def __init__(self, config: Any) -> None:
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for layer in self.layer:
            x = layer(x, mask)
        return x


class Pooler(nn.Module):
    """One vector for a text, from its first token."""

    def __init__(self, config: Any) -> None:
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.tanh(self.dense(x[:, 0]))
        return out


class Trunk(nn.Module):
    """Vectors, layers and, where the task needs it, the pooler."""

    def __init__(self, config: Config) -> None:
        self.embeddings = Embeddings(config, config.hidden_size)
        self.encoder = Encoder(config)
        wanted = config.task in ("feature-extraction", "text-classification")
        self.pooler = Pooler(config) if config.pooler and wanted else None

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:
        x: Tensor = self.encoder(self.embeddings(input_ids, token_type_ids, position_ids), mask)
        return x


class Transform(nn.Module):
    """What the head of "fill-mask" does before it scores tokens."""

    def __init__(self, config: Any) -> None:
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.transform_act_fn = ACTIVATIONS[config.hidden_act]()
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.transform_act_fn(self.dense(x)))
        return out


class Predictions(nn.Module):
    """Scores of every token of the vocabulary."""

    def __init__(self, config: Any, table: nn.Embedding) -> None:
        self.transform = Transform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        if config.tie_word_embeddings:
            self.decoder.weight = table.weight
        self.bias = self.decoder.bias  # under both names in published files

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.transform(x))
        return out


class LanguageHead(nn.Module):
    """The head of "fill-mask"."""

    def __init__(self, config: Any, table: nn.Embedding) -> None:
        self.predictions = Predictions(config, table)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.predictions(x)
        return out


class Bert(nn.Module):
    """The trunk, and the head of its task."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.bert = Trunk(config)
        self.cls: LanguageHead | None = None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier: nn.Linear | None = None
        self.qa_outputs: nn.Linear | None = None
        if config.task == "fill-mask":
            self.cls = LanguageHead(config, self.bert.embeddings.word_embeddings)
        elif config.task == "question-answering":
            self.qa_outputs = nn.Linear(config.hidden_size, 2)
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
        """What the task asks for.

        Args:
            attention_mask: (B, T), 1 for tokens and 0 for padding.
            token_type_ids: (B, T), which segment each token belongs to; 0 unless given.
            position_ids: (T,) or (B, T), 0, 1, ... unless given.

        Shape:
            (B, T), whole numbers -> `Features` for "feature-extraction"; (B, T, vocab_size) for
            "fill-mask"; (B, num_classes) for "text-classification"; (B, T, num_classes) for
            "token-classification"; `Spans`, (B, T) each, for "question-answering".
        Raises:
            ShapeError: other axes, more tokens than places, a mask of another shape.
            IndexRangeError: an id outside the vocabulary.
        """
        config = self.config
        places = config.max_position_embeddings
        sizes = config.vocab_size, places
        check_ids("BERT", input_ids, attention_mask, *sizes, token_type_ids=token_type_ids)
        mask = key_mask(attention_mask)
        x: Tensor = self.bert(input_ids, token_type_ids, position_ids, mask)
        if config.task == "feature-extraction":
            return Features(x, None if self.bert.pooler is None else self.bert.pooler(x))
        if config.task == "text-classification":
            x = x[:, 0] if self.bert.pooler is None else self.bert.pooler(x)
        return self._scores(x)

    def _scores(self, x: Tensor) -> Any:
        if self.cls is not None:
            return self.cls(x)
        if self.qa_outputs is not None:
            return spans_of(self.qa_outputs(x))
        assert self.classifier is not None
        return self.classifier(self.dropout(x))


def spans_of(scores: Tensor) -> Spans:
    """(B, T, 2) as two of (B, T)."""
    return Spans(scores[..., 0], scores[..., 1])


def initialise(module: nn.Module) -> None:
    """Initial values for training from scratch. Source: Devlin et al. 2019, published code."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


# -- published files -------------------------------------------------------------------------------


def norms(table: dict[str, Any], pattern: str, ours: str) -> None:
    """Add what files of 2018 call a norm's gamma and beta, under the pattern of its name."""
    table[f"{pattern}LayerNorm.gamma"] = f"{ours}LayerNorm.weight"
    table[f"{pattern}LayerNorm.beta"] = f"{ours}LayerNorm.bias"


TRANSFORMERS: dict[str, Any] = {
    "cls.seq_relationship.{rest}": None,  # which sentence comes next: of the pretraining
    "{any}position_ids": None,
    "cls.predictions.transform.LayerNorm.gamma": "cls.predictions.transform.LayerNorm.weight",
    "cls.predictions.transform.LayerNorm.beta": "cls.predictions.transform.LayerNorm.bias",
}
for _name in ("embeddings", "encoder"):  # models without a head have no prefix
    for _prefix in ("bert.", ""):
        for _inner in ("{rest}.", ""):
            norms(TRANSFORMERS, f"{_prefix}{_name}.{_inner}", f"bert.{_name}.{_inner}")
    TRANSFORMERS[f"{_name}.{{rest}}"] = f"bert.{_name}.{{rest}}"
TRANSFORMERS["pooler.{rest}"] = "bert.pooler.{rest}"


def from_transformers(published: dict[str, Any]) -> Config:
    """A config.json of transformers' BERT."""
    also = {"position_embedding_type"}
    expect(published, "BERT", position_embedding_type=("absolute",), is_decoder=(False,))
    return Config(**settings(published, Config, "BERT", task="feature-extraction", also=also))


def detect(config: Any, names: Collection[str]) -> Any:
    """The Config with whether a file has the pooler, which config.json does not say."""
    config = headed(config, names)
    if config.task == "feature-extraction":
        return replace(config, pooler=any("pooler." in name for name in names))
    return config


@register(
    "bert",
    config=Config,
    task="fill-mask",
    layouts={"transformers": Layout(rename=TRANSFORMERS, config=from_transformers, detect=detect)},
    model_types=("bert",),
    head=("cls", "classifier", "qa_outputs"),
    fresh=("bert.pooler",),
    entries=ENTRIES,
)
def bert(config: Config) -> Bert:
    """An encoder that sees each token with all the others."""
    return Bert(config)

"""RoBERTa and XLM-RoBERTa. Liu et al. 2019, "RoBERTa"; Conneau et al. 2020, "XLM-R".

BERT's layers with other heads; places are counted from behind the padding token, and only over what
is no padding. Attributes are named as transformers names them. Weights: FacebookAI/roberta-base
(MIT). Deviations from the papers: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core import nn
from ..core.dtypes import int64
from ..core.nn import functional as F
from ..core.ops.cumulative import cumulative_sum
from ..core.ops.logic import not_equal
from ..core.ops.shape import astype
from ..core.tensor import Tensor
from ..hub.configuration import expect
from ..hub.registry import Entry, Hub, Layout, register
from .bert import (
    TASKS,
    Embeddings,
    Encoder,
    Features,
    Pooler,
    check_config,
    detect,
    initialise,
    spans_of,
)
from .published import settings
from .transformer import check_ids, check_sizes, key_mask


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are roberta-base's.

    Args:
        max_position_embeddings: places there are, of which the first `pad_token_id` + 1 are unused.
        pad_token_id: the token that fills up texts.
        pooler: whether there is the layer that makes one vector of the first token.
        task: one of `TASKS`.
        The others: as BERT's.
    """

    vocab_size: int = 50_265
    type_vocab_size: int = 1
    max_position_embeddings: int = 514
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    pad_token_id: int = 1
    pooler: bool = True
    task: str = "fill-mask"
    num_classes: int = 0

    def __post_init__(self) -> None:
        check_config("RoBERTa", self, TASKS)
        check_sizes("RoBERTa", pad_token_id=self.pad_token_id + 1, context=self.context)

    @property
    def context(self) -> int:
        """The most tokens that it can see."""
        return self.max_position_embeddings - self.pad_token_id - 1


class Trunk(nn.Module):
    """Vectors, layers and, for features, the pooler."""

    def __init__(self, config: Config) -> None:
        self.embeddings = Embeddings(config, config.hidden_size)
        self.encoder = Encoder(config)
        wanted = config.pooler and config.task == "feature-extraction"
        self.pooler = Pooler(config) if wanted else None

    def forward(
        self, input_ids: Tensor, segments: Tensor | None, places: Tensor, mask: Tensor | None
    ) -> Tensor:
        x: Tensor = self.encoder(self.embeddings(input_ids, segments, places), mask)
        return x


class LanguageHead(nn.Module):
    """Scores of every token of the vocabulary."""

    def __init__(self, config: Any, table: nn.Embedding) -> None:
        width = config.hidden_size
        self.dense = nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(width, config.vocab_size)
        if config.tie_word_embeddings:
            self.decoder.weight = table.weight
        self.bias = self.decoder.bias  # under both names in published files

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.layer_norm(F.gelu(self.dense(x))))
        return out


class ClassificationHead(nn.Module):
    """Scores of classes, from the first token."""

    def __init__(self, config: Any) -> None:
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.out_proj = nn.Linear(config.hidden_size, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.tanh(self.dense(self.dropout(x[:, 0])))
        out: Tensor = self.out_proj(self.dropout(x))
        return out


class Roberta(nn.Module):
    """The trunk, and the head of its task."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.roberta = Trunk(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.lm_head: LanguageHead | None = None
        self.classifier: nn.Module | None = None
        self.qa_outputs: nn.Linear | None = None
        if config.task == "fill-mask":
            self.lm_head = LanguageHead(config, self.roberta.embeddings.word_embeddings)
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
        """What the task asks for; arguments, shapes and errors are those of BERT.

        Args:
            position_ids: counted from `pad_token_id` + 1 on, over what is no padding token, unless
                given.
        """
        config = self.config
        sizes = config.vocab_size, config.context
        check_ids("RoBERTa", input_ids, attention_mask, *sizes, token_type_ids=token_type_ids)
        if position_ids is None:
            position_ids = places_of(input_ids, config.pad_token_id)
        mask = key_mask(attention_mask)
        x: Tensor = self.roberta(input_ids, token_type_ids, position_ids, mask)
        if config.task == "feature-extraction":
            pooler = self.roberta.pooler
            return Features(x, None if pooler is None else pooler(x))
        if self.lm_head is not None:
            return self.lm_head(x)
        if self.qa_outputs is not None:
            return spans_of(self.qa_outputs(x))
        assert self.classifier is not None
        return self.classifier(self.dropout(x) if config.task == "token-classification" else x)


def places_of(input_ids: Tensor, pad: int) -> Tensor:
    """The place (B, T) of each token: padding tokens have `pad`, the others what follows it."""
    real = astype(not_equal(input_ids, pad), dtype=int64)
    return real * cumulative_sum(real, axis=1) + pad


# -- published files -------------------------------------------------------------------------------

TRANSFORMERS: dict[str, Any] = {"{any}position_ids": None}
for _name in ("embeddings", "encoder", "pooler"):  # models without a head have no prefix
    TRANSFORMERS[f"{_name}.{{rest}}"] = f"roberta.{_name}.{{rest}}"


def from_transformers(published: dict[str, Any]) -> Config:
    """A config.json of transformers' RoBERTa or XLM-RoBERTa."""
    also = {"position_embedding_type"}
    expect(published, "RoBERTa", position_embedding_type=("absolute",), is_decoder=(False,))
    return Config(**settings(published, Config, "RoBERTa", task="feature-extraction", also=also))


@register(
    "roberta",
    config=Config,
    task="fill-mask",
    layouts={"transformers": Layout(rename=TRANSFORMERS, config=from_transformers, detect=detect)},
    model_types=("roberta", "xlm-roberta"),
    head=("lm_head", "classifier", "qa_outputs"),
    fresh=("roberta.pooler",),
    entries=[
        Entry(
            name="roberta-base",
            sources=(Hub("FacebookAI/roberta-base"),),
            layout="transformers",
            license="MIT",
            commercial=True,
            paper="Liu et al. 2019, RoBERTa: A Robustly Optimized BERT Pretraining Approach",
        ),
        Entry(
            name="xlm-roberta-base",
            sources=(Hub("FacebookAI/xlm-roberta-base"),),
            config=None,
            layout="transformers",
            license="MIT",
            commercial=True,
            paper="Conneau et al. 2020, Unsupervised Cross-lingual Representation Learning",
        ),
    ],
)
def roberta(config: Config) -> Roberta:
    """BERT, trained longer and on more, with places that skip the padding."""
    return Roberta(config)

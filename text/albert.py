"""ALBERT. Lan et al. 2020, "ALBERT: A Lite BERT".

One layer's weights serve all layers, and token vectors are smaller than the layers are wide.
Attributes are named as transformers names them. Weights: albert/albert-base-v2 (Apache-2.0).
Deviations from the paper: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.shape import permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import expect, real
from ..hub.registry import Entry, Hub, Layout, register
from .bert import TASKS, Embeddings, Features, check_config, detect, initialise, spans_of
from .published import settings
from .transformer import ACTIVATIONS, check_ids, check_sizes, key_mask


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are albert-base-v2's.

    Args:
        embedding_size: features of the token vectors.
        num_hidden_groups: groups of layers that share their weights.
        inner_group_num: layers inside a group, each with weights of its own.
        classifier_dropout_prob: before the classifiers.
        pooler: whether there is the layer that makes one vector of the first token.
        task: one of `TASKS`.
        The others: as BERT's.
    """

    vocab_size: int = 30_000
    type_vocab_size: int = 2
    max_position_embeddings: int = 512
    embedding_size: int = 128
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_hidden_groups: int = 1
    inner_group_num: int = 1
    num_attention_heads: int = 12
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    tie_word_embeddings: bool = True
    pooler: bool = True
    task: str = "fill-mask"
    num_classes: int = 0

    def __post_init__(self) -> None:
        check_config("ALBERT", self, TASKS)
        names = ("embedding_size", "num_hidden_groups", "inner_group_num")
        check_sizes("ALBERT", **{n: getattr(self, n) for n in names})
        real("ALBERT", 0.0, 0.99, classifier_dropout_prob=self.classifier_dropout_prob)

    @property
    def context(self) -> int:
        """The most tokens that it can see."""
        return self.max_position_embeddings


class Attention(nn.Module):
    """Self-attention, added to what comes in, then normed. Shape: (B, T, D), kept."""

    def __init__(self, config: Config) -> None:
        width = config.hidden_size
        self.heads, self.rate = config.num_attention_heads, config.attention_probs_dropout_prob
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.dense = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.output_dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, t, d = x.shape
        q, k, v = (
            permute_dims(reshape(part(x), (b, t, self.heads, d // self.heads)), (0, 2, 1, 3))
            for part in (self.query, self.key, self.value)
        )
        rate = self.rate if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=rate)
        y = self.dense(reshape(permute_dims(y, (0, 2, 1, 3)), (b, t, d)))
        out: Tensor = self.LayerNorm(x + self.output_dropout(y))
        return out


class Layer(nn.Module):
    """Attention and an MLP, each added to what comes in, then normed."""

    def __init__(self, config: Config) -> None:
        width = config.hidden_size
        self.full_layer_layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attention = Attention(config)
        self.ffn = nn.Linear(width, config.intermediate_size)
        self.ffn_output = nn.Linear(config.intermediate_size, width)
        self.activation = ACTIVATIONS[config.hidden_act]()

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention(x, mask)
        y = self.ffn_output(self.activation(self.ffn(x)))
        out: Tensor = self.full_layer_layer_norm(y + x)
        return out


class Group(nn.Module):
    """Layers that are used one after the other, again and again."""

    def __init__(self, config: Config) -> None:
        self.albert_layers = nn.ModuleList(Layer(config) for _ in range(config.inner_group_num))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for layer in self.albert_layers:
            x = layer(x, mask)
        return x


class Encoder(nn.Module):
    """From small vectors to the width of the layers, then the groups."""

    def __init__(self, config: Config) -> None:
        self.count = config.num_hidden_layers
        self.embedding_hidden_mapping_in = nn.Linear(config.embedding_size, config.hidden_size)
        groups = (Group(config) for _ in range(config.num_hidden_groups))
        self.albert_layer_groups = nn.ModuleList(groups)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.embedding_hidden_mapping_in(x)
        groups = len(self.albert_layer_groups)
        for i in range(self.count):
            x = self.albert_layer_groups[i * groups // self.count](x, mask)
        return x


class Trunk(nn.Module):
    """Vectors, layers and, where the task needs it, the pooler."""

    def __init__(self, config: Config) -> None:
        self.embeddings = Embeddings(config, config.embedding_size)
        self.encoder = Encoder(config)
        wanted = config.task in ("feature-extraction", "text-classification")
        self.pooler: nn.Linear | None = None
        if config.pooler and wanted:
            self.pooler = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        input_ids: Tensor,
        segments: Tensor | None,
        places: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:
        x: Tensor = self.encoder(self.embeddings(input_ids, segments, places), mask)
        return x

    def pooled(self, x: Tensor) -> Tensor | None:
        """One vector for a text, from its first token; None without a pooler."""
        return None if self.pooler is None else F.tanh(self.pooler(x[:, 0]))


class LanguageHead(nn.Module):
    """Scores of every token of the vocabulary."""

    def __init__(self, config: Config, table: nn.Embedding) -> None:
        self.LayerNorm = nn.LayerNorm(config.embedding_size, eps=config.layer_norm_eps)
        self.dense = nn.Linear(config.hidden_size, config.embedding_size)
        self.decoder = nn.Linear(config.embedding_size, config.vocab_size)
        self.activation = ACTIVATIONS[config.hidden_act]()
        if config.tie_word_embeddings:
            self.decoder.weight = table.weight
        self.bias = self.decoder.bias  # under both names in published files

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.LayerNorm(self.activation(self.dense(x))))
        return out


class Albert(nn.Module):
    """The trunk, and the head of its task."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.albert = Trunk(config)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.predictions: LanguageHead | None = None
        self.classifier: nn.Linear | None = None
        self.qa_outputs: nn.Linear | None = None
        if config.task == "fill-mask":
            self.predictions = LanguageHead(config, self.albert.embeddings.word_embeddings)
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
        """What the task asks for; arguments, shapes and errors are those of BERT."""
        config = self.config
        places = config.max_position_embeddings
        sizes = config.vocab_size, places
        check_ids("ALBERT", input_ids, attention_mask, *sizes, token_type_ids=token_type_ids)
        mask = key_mask(attention_mask)
        x: Tensor = self.albert(input_ids, token_type_ids, position_ids, mask)
        if config.task == "feature-extraction":
            return Features(x, self.albert.pooled(x))
        if self.predictions is not None:
            return self.predictions(x)
        if self.qa_outputs is not None:
            return spans_of(self.qa_outputs(x))
        if config.task == "text-classification":
            pooled = self.albert.pooled(x)
            x = x[:, 0] if pooled is None else pooled
        assert self.classifier is not None
        return self.classifier(self.dropout(x))


# -- published files -------------------------------------------------------------------------------

TRANSFORMERS: dict[str, Any] = {
    "sop_classifier.{rest}": None,  # which sentence comes first: of the pretraining
    "{any}position_ids": None,
    "{start}albert_layers.{}.attention.output_dense.{rest}": (
        "{start}albert_layers.{}.attention.dense.{rest}"
    ),
}
for _name in ("embeddings", "encoder", "pooler"):  # models without a head have no prefix
    TRANSFORMERS[f"{_name}.{{rest}}"] = f"albert.{_name}.{{rest}}"


def from_transformers(published: dict[str, Any]) -> Config:
    """A config.json of transformers' ALBERT."""
    also = {"down_scale_factor", "gap_size", "net_structure_type", "num_memory_blocks"}
    also |= {"position_embedding_type", "layers_to_keep"}
    expect(published, "ALBERT", position_embedding_type=("absolute",))
    return Config(**settings(published, Config, "ALBERT", task="feature-extraction", also=also))


@register(
    "albert",
    config=Config,
    task="fill-mask",
    layouts={"transformers": Layout(rename=TRANSFORMERS, config=from_transformers, detect=detect)},
    model_types=("albert",),
    head=("predictions", "classifier", "qa_outputs"),
    fresh=("albert.pooler",),
    entries=[
        Entry(
            name="albert-base-v2",
            sources=(Hub("albert/albert-base-v2"),),
            layout="transformers",
            license="Apache-2.0",
            commercial=True,
            paper="Lan et al. 2020, ALBERT: A Lite BERT for Self-supervised Learning",
        )
    ],
)
def albert(config: Config) -> Albert:
    """BERT with one layer's weights for all layers."""
    return Albert(config)

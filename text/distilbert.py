"""DistilBERT. Sanh et al. 2019, "DistilBERT, a distilled version of BERT".

BERT with half of the layers, without segments and pooler. Attributes are named as transformers
names them. Weights: distilbert/distilbert-base-uncased (Apache-2.0). Deviations from the paper:
none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core import nn
from ..core.nn import functional as F
from ..core.ops.shape import permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import real
from ..hub.registry import Entry, Hub, Layout, register
from .bert import TASKS, Features, initialise, spans_of
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


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are distilbert-base-uncased's.

    Args:
        vocab_size, max_position_embeddings: tokens there are, and the most of a text.
        dim, hidden_dim: features, also inside the MLPs.
        n_layers, n_heads: layers, and heads of each.
        activation: in the MLPs.
        dropout, attention_dropout: of branches, of attention.
        seq_classif_dropout, qa_dropout: before the heads.
        tie_word_embeddings: the head of "fill-mask" is the table of token vectors.
        task: one of `TASKS`.
        num_classes: of the heads that have classes.
    """

    vocab_size: int = 30_522
    max_position_embeddings: int = 512
    dim: int = 768
    hidden_dim: int = 3072
    n_layers: int = 6
    n_heads: int = 12
    activation: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    seq_classif_dropout: float = 0.2
    qa_dropout: float = 0.1
    tie_word_embeddings: bool = True
    task: str = "fill-mask"
    num_classes: int = 0

    def __post_init__(self) -> None:
        names = (
            "vocab_size",
            "max_position_embeddings",
            "dim",
            "hidden_dim",
            "n_layers",
            "n_heads",
        )
        check_sizes("DistilBERT", **{n: getattr(self, n) for n in names})
        check_heads("DistilBERT", self.dim, self.n_heads)
        rates = ("dropout", "attention_dropout", "seq_classif_dropout", "qa_dropout")
        real("DistilBERT", 0.0, 0.99, **{n: getattr(self, n) for n in rates})
        check_choice("DistilBERT", "activation", self.activation, ACTIVATIONS)
        check_choice("DistilBERT", "task", self.task, TASKS)
        check_classes("DistilBERT", self.task, self.num_classes)

    @property
    def context(self) -> int:
        """The most tokens that it can see."""
        return self.max_position_embeddings


class Embeddings(nn.Module):
    """The vectors of tokens and places, added and normed."""

    def __init__(self, config: Config) -> None:
        self.word_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.dim)
        self.LayerNorm = nn.LayerNorm(config.dim, eps=1e-12)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, input_ids: Tensor, position_ids: Tensor | None) -> Tensor:
        places = self.position_embeddings.weight[: input_ids.shape[1]]
        if position_ids is not None:
            places = self.position_embeddings(position_ids)
        out: Tensor = self.dropout(self.LayerNorm(self.word_embeddings(input_ids) + places))
        return out


class Attention(nn.Module):
    """Self-attention. Shape: (B, T, D), kept."""

    def __init__(self, config: Config) -> None:
        self.heads, self.rate = config.n_heads, config.attention_dropout
        self.q_lin = nn.Linear(config.dim, config.dim)
        self.k_lin = nn.Linear(config.dim, config.dim)
        self.v_lin = nn.Linear(config.dim, config.dim)
        self.out_lin = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, t, d = x.shape
        q, k, v = (
            permute_dims(reshape(part(x), (b, t, self.heads, d // self.heads)), (0, 2, 1, 3))
            for part in (self.q_lin, self.k_lin, self.v_lin)
        )
        rate = self.rate if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=rate)
        out: Tensor = self.out_lin(reshape(permute_dims(y, (0, 2, 1, 3)), (b, t, d)))
        return out


class Mlp(nn.Module):
    """Two linear maps with an activation between them."""

    def __init__(self, config: Config) -> None:
        self.lin1 = nn.Linear(config.dim, config.hidden_dim)
        self.lin2 = nn.Linear(config.hidden_dim, config.dim)
        self.act = ACTIVATIONS[config.activation]()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.lin2(self.act(self.lin1(x))))
        return out


class Layer(nn.Module):
    """Attention and an MLP, each added to what comes in, then normed."""

    def __init__(self, config: Config) -> None:
        self.attention = Attention(config)
        self.sa_layer_norm = nn.LayerNorm(config.dim, eps=1e-12)
        self.ffn = Mlp(config)
        self.output_layer_norm = nn.LayerNorm(config.dim, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.sa_layer_norm(self.attention(x, mask) + x)
        out: Tensor = self.output_layer_norm(self.ffn(x) + x)
        return out


class Layers(nn.Module):
    """The layers, one after the other."""

    def __init__(self, config: Config) -> None:
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.n_layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for layer in self.layer:
            x = layer(x, mask)
        return x


class Trunk(nn.Module):
    """Vectors and layers."""

    def __init__(self, config: Config) -> None:
        self.embeddings = Embeddings(config)
        self.transformer = Layers(config)

    def forward(self, input_ids: Tensor, places: Tensor | None, mask: Tensor | None) -> Tensor:
        x: Tensor = self.transformer(self.embeddings(input_ids, places), mask)
        return x


class DistilBert(nn.Module):
    """The trunk, and the head of its task."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.distilbert = Trunk(config)
        self.act = ACTIVATIONS[config.activation]()
        self.vocab_transform: nn.Linear | None = None
        self.pre_classifier: nn.Linear | None = None
        self.classifier: nn.Linear | None = None
        self.qa_outputs: nn.Linear | None = None
        if config.task == "fill-mask":
            self.vocab_transform = nn.Linear(config.dim, config.dim)
            self.vocab_layer_norm = nn.LayerNorm(config.dim, eps=1e-12)
            self.vocab_projector = nn.Linear(config.dim, config.vocab_size)
            if config.tie_word_embeddings:
                self.vocab_projector.weight = self.distilbert.embeddings.word_embeddings.weight
        elif config.task == "question-answering":
            self.qa_outputs = nn.Linear(config.dim, 2)
        elif config.num_classes:
            if config.task == "text-classification":
                self.pre_classifier = nn.Linear(config.dim, config.dim)
            self.classifier = nn.Linear(config.dim, config.num_classes)
        whole = config.task == "text-classification"
        rate = config.seq_classif_dropout if whole else config.dropout
        spans = config.task == "question-answering"
        self.dropout = nn.Dropout(config.qa_dropout if spans else rate)
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
        check_ids("DistilBERT", input_ids, attention_mask, config.vocab_size, places)
        x: Tensor = self.distilbert(input_ids, position_ids, key_mask(attention_mask))
        if config.task == "feature-extraction":
            return Features(x, None)
        if self.vocab_transform is not None:
            return self.vocab_projector(self.vocab_layer_norm(self.act(self.vocab_transform(x))))
        if self.qa_outputs is not None:
            return spans_of(self.qa_outputs(self.dropout(x)))
        if self.pre_classifier is not None:
            x = F.relu(self.pre_classifier(x[:, 0]))
        assert self.classifier is not None
        return self.classifier(self.dropout(x))


# -- published files -------------------------------------------------------------------------------

TRANSFORMERS: dict[str, Any] = {"{any}position_ids": None}
for _name in ("embeddings", "transformer"):  # models without a head have no prefix
    TRANSFORMERS[f"{_name}.{{rest}}"] = f"distilbert.{_name}.{{rest}}"


def from_transformers(published: dict[str, Any]) -> Config:
    """A config.json of transformers' DistilBERT."""
    also = {"sinusoidal_pos_embds"}  # initial values of the table of places, which is trained
    return Config(**settings(published, Config, "DistilBERT", task="feature-extraction", also=also))


@register(
    "distilbert",
    config=Config,
    task="fill-mask",
    layouts={"transformers": Layout(rename=TRANSFORMERS, config=from_transformers, detect=headed)},
    model_types=("distilbert",),
    head=(
        "vocab_transform",
        "vocab_layer_norm",
        "vocab_projector",
        "pre_classifier",
        "classifier",
        "qa_outputs",
    ),
    entries=[
        Entry(
            name="distilbert-base-uncased",
            sources=(Hub("distilbert/distilbert-base-uncased"),),
            layout="transformers",
            license="Apache-2.0",
            commercial=True,
            paper="Sanh et al. 2019, DistilBERT, a distilled version of BERT",
        ),
        Entry(
            name="distilbert-sst2",
            sources=(Hub("distilbert/distilbert-base-uncased-finetuned-sst-2-english"),),
            config={"task": "text-classification", "num_classes": 2},
            layout="transformers",
            license="Apache-2.0",
            commercial=True,
            task="text-classification",
            note="whether an English sentence speaks well or ill of something",
        ),
    ],
)
def distilbert(config: Config) -> DistilBert:
    """Half of BERT's layers, taught by BERT."""
    return DistilBert(config)

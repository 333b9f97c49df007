"""GPT-2. Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".

Weights: openai-community/gpt2 (MIT). Attributes are named as transformers names them; published
linear weights are (in, out) and are transposed when they are loaded. Deviations from the paper:
none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import nn
from ..core.dtypes import HALVES, float32
from ..core.errors import ConfigError
from ..core.nn import functional as F
from ..core.ops.manipulation import split
from ..core.ops.shape import astype, permute_dims, reshape
from ..core.tensor import Tensor
from ..hub.configuration import expect, flags, real
from ..hub.registry import Bundled, Entry, Hub, Layout, register
from ..hub.rename import transposed
from .cache import KVCache
from .gpt2_token import GPT2Token
from .prepared import next_scores
from .published import settings
from .transformer import (
    ACTIVATIONS,
    causal_mask,
    check_choice,
    check_classes,
    check_heads,
    check_ids,
    check_sizes,
    positions,
)

TASKS = ("text-generation", "text-classification", "feature-extraction")


@dataclass(frozen=True)
class Config:
    """Field names as in transformers' config.json; the defaults are GPT-2's.

    Args:
        vocab_size, n_positions: tokens there are, and the most of a text.
        n_embd, n_layer, n_head: features, layers, attention heads.
        n_inner: features inside the MLPs; 4 n_embd if None.
        activation_function: in the MLPs.
        resid_pdrop, embd_pdrop, attn_pdrop: dropout of branches, of vectors, of attention.
        layer_norm_epsilon: of the norms.
        scale_attn_weights: divide scores by the root of a head's features.
        scale_attn_by_inverse_layer_idx: and by the number of the layer, from 1.
        tie_word_embeddings: the head is the table of token vectors.
        pad_token_id: which token fills up texts, for the classifier.
        task: "text-generation", "text-classification" or "feature-extraction".
        num_classes: of the classifier.
    """

    vocab_size: int = 50_257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True
    pad_token_id: int | None = None
    task: str = "text-generation"
    num_classes: int = 0

    def __post_init__(self) -> None:
        sizes = {n: getattr(self, n) for n in ("vocab_size", "n_positions", "n_embd", "n_layer")}
        check_sizes("GPT-2", **sizes, n_head=self.n_head, n_inner=self.inner)
        check_heads("GPT-2", self.n_embd, self.n_head)
        rates = {n: getattr(self, n) for n in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
        real("GPT-2", 0.0, 0.99, **rates, layer_norm_epsilon=self.layer_norm_epsilon)
        check_choice("GPT-2", "activation_function", self.activation_function, ACTIVATIONS)
        check_choice("GPT-2", "task", self.task, TASKS)
        check_classes("GPT-2", self.task, self.num_classes)
        names = ("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "tie_word_embeddings")
        flags("GPT-2", **{n: getattr(self, n) for n in names})

    @property
    def inner(self) -> int:
        """Features inside the MLPs."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @property
    def context(self) -> int:
        """The most tokens that it can see."""
        return self.n_positions


class Attention(nn.Module):
    """Causal self-attention; queries, keys and values come from one linear map.

    Shape:
        (B, T, D), kept
    """

    def __init__(self, config: Config, layer: int) -> None:
        width = config.n_embd
        self.heads, self.layer, self.dropout = config.n_head, layer, config.attn_pdrop
        self.scale = (width // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= layer + 1
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        b, t, d = x.shape
        q, k, v = (
            permute_dims(reshape(part, (b, t, self.heads, d // self.heads)), (0, 2, 1, 3))
            for part in split(self.c_attn(x), 3, axis=-1)
        )
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
            q = q if q.dtype == k.dtype else astype(q, dtype=k.dtype)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None,
            scale=self.scale,
        )
        joined = reshape(permute_dims(y, (0, 2, 1, 3)), (b, t, d))
        joined = joined if joined.dtype == x.dtype else astype(joined, dtype=x.dtype)
        out: Tensor = self.c_proj(joined)
        return self.resid_dropout(out)  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear maps with an activation between them."""

    def __init__(self, config: Config) -> None:
        self.c_fc = nn.Linear(config.n_embd, config.inner)
        self.c_proj = nn.Linear(config.inner, config.n_embd)
        self.act = ACTIVATIONS[config.activation_function]()
        self.dropout = nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.c_proj(self.act(self.c_fc(x))))
        return out


class Block(nn.Module):
    """Attention and an MLP, each after a layer norm and added to what comes in."""

    def __init__(self, config: Config, layer: int) -> None:
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask, cache)
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Vectors of tokens and places, the blocks, a last norm."""

    def __init__(self, config: Config) -> None:
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.drop = nn.Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(Block(config, i) for i in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)

    def forward(
        self, input_ids: Tensor, places: Tensor, mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        x: Tensor = self.drop(self.wte(input_ids) + self.wpe(places))
        for block in self.h:
            x = block(x, mask, cache)
        x = self.ln_f(x)
        return x


class GPT2(nn.Module):
    """The transformer, and the head of its task.

    Attributes:
        lm_head: scores of the next token, for generation.
        score: scores of classes, at the last token, for classification.
    """

    _steps: Any = None  # of gpt2_token.py
    _unfit = -1

    def __init__(self, config: Config) -> None:
        self.config = config
        self.transformer = Transformer(config)
        self.lm_head: nn.Linear | None = None
        self.score: nn.Linear | None = None
        if config.task == "text-generation":
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
            if config.tie_word_embeddings:
                self.lm_head.weight = self.transformer.wte.weight
        elif config.task == "text-classification":
            self.score = nn.Linear(config.n_embd, config.num_classes, bias=False)
        initialise(self)

    def cache(self, batch: int, capacity: int) -> KVCache:
        """Room for the keys and values of `capacity` tokens of each text."""
        config = self.config
        width = config.n_embd // config.n_head
        dtype, device = self.dtype, self.device
        if dtype in HALVES and device.type == "cpu":
            dtype = float32  # where halves are widened for every product, and this would be too
        place: dict[str, Any] = {"dtype": dtype, "device": device}
        return KVCache(config.n_layer, batch, config.n_head, capacity, width, **place)

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
        config = self.config
        check_ids("GPT-2", input_ids, attention_mask, config.vocab_size, config.n_positions, past)
        if position_ids is None:
            found = positions(attention_mask, tokens, past)
            position_ids = Tensor(np.ascontiguousarray(found)).to(device=input_ids.device)
        mask = causal_mask(attention_mask, tokens, past)
        x: Tensor = self.transformer(input_ids, position_ids, mask, cache)
        if cache is not None:
            cache.advance(tokens)
        return x

    def _next(
        self, input_ids: Tensor, position_ids: Tensor | None, cache: KVCache
    ) -> Tensor | None:
        """Scores after a single token, the fast way; None where there is none."""
        if self.lm_head is None or position_ids is not None or type(self) is not GPT2:
            return None
        limits = self.config.vocab_size, self.config.n_positions
        check_ids("GPT-2", input_ids, None, *limits, cache.length)
        dtype = self.transformer.wpe.weight.dtype
        return next_scores(self, GPT2Token, input_ids, cache, dtype)

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
            (B, T), whole numbers -> (B, T, vocab_size), or (B, num_classes), or (B, T, n_embd)
        Raises:
            ShapeError: other axes, more tokens than places, a mask of another shape.
            IndexRangeError: an id outside the vocabulary.
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


def last_tokens(input_ids: Tensor, attention_mask: Tensor | None, pad: int | None) -> Tensor:
    """The place (B,) of each text's last token: by the mask, or by what is no padding token.

    Raises:
        ConfigError: there are several texts and neither.
    """
    ids = input_ids.cpu().array
    if attention_mask is not None:
        real_ = attention_mask.cpu().array.astype(bool)
    elif pad is not None:
        real_ = ids != pad
    elif len(ids) == 1:
        real_ = np.ones(ids.shape, bool)
    else:
        raise ConfigError(
            "a classifier reads the last token of each text, and there is no padding token to find "
            "it by: give attention_mask, or one text at a time."
        )
    ends = np.where(real_, np.arange(ids.shape[1]), 0).max(axis=1)
    return Tensor(ends).to(device=input_ids.device)


def initialise(module: nn.Module) -> None:
    """Initial values for training from scratch. Source: Radford et al. 2019, section 2.3."""
    depth = len(module.transformer.h)
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear):
            deep = (2 * depth) ** -0.5 if name.endswith("c_proj") else 1.0
            nn.init.normal_(part.weight, std=0.02 * deep)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)


# -- published files -------------------------------------------------------------------------------

TRANSFORMERS: dict[str, Any] = {
    "transformer.h.{}.attn.bias": None,  # the causal mask
    "transformer.h.{}.attn.masked_bias": None,
    "h.{}.attn.bias": None,
    "h.{}.attn.masked_bias": None,
}
for _prefix in ("transformer.", ""):
    for _name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        _theirs = f"{_prefix}h.{{}}.{_name}.weight"
        TRANSFORMERS[_theirs] = transposed(f"transformer.h.{{}}.{_name}.weight")
for _name in ("h", "wte", "wpe", "ln_f"):  # models without a head have no prefix
    TRANSFORMERS[f"{_name}.{{rest}}"] = f"transformer.{_name}.{{rest}}"


def from_transformers(published: dict[str, Any]) -> Config:
    """A config.json of transformers' GPT-2."""
    also = {"n_ctx", "reorder_and_upcast_attn"}
    expect(published, "GPT-2", add_cross_attention=(False,))
    return Config(**settings(published, Config, "GPT-2", task="text-generation", also=also))


def _entry(name: str, repo: str, parameters: int, **more: Any) -> Entry:
    return Entry(
        name=name,
        sources=(Hub(repo),),
        layout="transformers",
        commercial=True,
        parameters=parameters,
        **more,
    )


_PAPER = "Radford et al. 2019, Language Models are Unsupervised Multitask Learners"


@register(
    "gpt2",
    config=Config,
    task="text-generation",
    layouts={"transformers": Layout(rename=TRANSFORMERS, config=from_transformers)},
    model_types=("gpt2",),
    head=("lm_head", "score"),
    entries=[
        _entry("gpt2", "openai-community/gpt2", 124_439_808, license="MIT", paper=_PAPER),
        _entry(
            "distilgpt2",
            "distilbert/distilgpt2",
            81_912_576,
            license="Apache-2.0",
            config={"n_layer": 6},
        ),
        Entry(
            name="shakespeare",
            sources=(Bundled("text/assets/shakespeare"),),
            config={
                "vocab_size": 1024,
                "n_positions": 256,
                "n_embd": 192,
                "n_layer": 6,
                "n_head": 6,
            },
            license="Apache-2.0",
            commercial=True,
            parameters=2_915_328,
            note="writes plays; trained by this library (docs/examples/shakespeare.py); 1.381 nats "
            "a character on a play that it never saw",
        ),
    ],
)
def gpt2(config: Config) -> GPT2:
    """A language model that predicts the next token."""
    return GPT2(config)

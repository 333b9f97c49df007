"""What text models share: activations, checks of configurations and of token ids, masks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from ..core import nn
from ..core.errors import ConfigError, DtypeError, IndexRangeError, ShapeError
from ..core.tensor import Tensor

#: Activations by the names that published configurations have for them.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_fast": lambda: nn.GELU("tanh"),
    "gelu_new": lambda: nn.GELU("tanh"),
    "gelu_pytorch_tanh": lambda: nn.GELU("tanh"),
    "quick_gelu": nn.QuickGELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}
_LARGEST = 1 << 24  # of sizes that make sense: vocabularies go up to some 300,000


def check_sizes(what: str, **sizes: Any) -> None:
    """Raise unless every size is a whole number from 1 to 16 million.

    Raises:
        ConfigError: names the setting.
    """
    for name, value in sizes.items():
        if type(value) is not int or not 1 <= value <= _LARGEST:
            raise ConfigError(
                f"{what}: {name}={value!r} makes no sense: a whole number from 1 wanted.",
                name=name,
                got=value,
            )


def check_heads(what: str, width: int, heads: int) -> None:
    """Raise unless heads share the features equally."""
    if width % heads:
        raise ConfigError(
            f"{what}: {heads} attention heads cannot share {width} features equally.",
            expected=heads,
            got=width,
        )


def check_choice(what: str, name: str, value: Any, known: Collection[str]) -> None:
    """Raise unless a setting has one of the values that are implemented."""
    if value not in known:
        raise ConfigError(
            f"{what}: {name}={value!r} is not supported.\nSupported: {', '.join(known)}",
            name=name,
            got=value,
        )


def check_classes(what: str, task: str, num_classes: int) -> None:
    """Raise unless a head with classes has some, and no other head has."""
    wanted = task.endswith("classification")
    if type(num_classes) is not int or (num_classes < 1 if wanted else num_classes != 0):
        raise ConfigError(
            f"{what}: num_classes={num_classes!r} for {task}", name="num_classes", got=num_classes
        )


def check_ids(
    what: str,
    input_ids: Any,
    attention_mask: Any,
    vocabulary: int,
    places: int | None,
    past: int = 0,
    token_type_ids: Any = None,
) -> None:
    """Raise unless these are ids (B, T) that a model has vectors and places for.

    Args:
        what: the model, for errors.
        vocabulary: how many ids there are.
        places: how many tokens its table of positions has room for; None if it has none.
        past: tokens that are in a cache already.
        token_type_ids: the segment of each token.

    Raises:
        ShapeError: other axes, no tokens, more than there are places, a mask or segments of another
            shape.
        DtypeError: ids that are no whole numbers.
        IndexRangeError: an id outside the vocabulary.
    """
    shape = tuple(input_ids.shape)
    if input_ids.ndim != 2 or not shape[1]:
        hint = "\nOne text without the batch axis? ids[None]" if input_ids.ndim == 1 else ""
        raise ShapeError(
            f"{what}: token ids of shape (B, T) are wanted, got {shape}.{hint}", got=shape
        )
    if input_ids.dtype.kind not in "iu":
        raise DtypeError(f"{what}: token ids are whole numbers, not {input_ids.dtype}")
    total = past + shape[1]
    if places is not None and total > places:
        raise ShapeError(
            f"{what}: {total} tokens are more than its table of positions has "
            f"({total} > {places}).\nCut the text (ids[:, :{places}]; tokenizers do it: "
            f"tok(texts, max_length={places})), or split it into chunks.",
            expected=places,
            got=total,
        )
    if attention_mask is not None and tuple(attention_mask.shape) != (shape[0], total):
        raise ShapeError(
            f"{what}: the attention mask says which of (B, T) = {(shape[0], total)} tokens are no "
            f"padding, got {tuple(attention_mask.shape)}"
            + (f" ({past} of the tokens are in the cache)." if past else "."),
            expected=(shape[0], total),
            got=tuple(attention_mask.shape),
        )
    if token_type_ids is not None and tuple(token_type_ids.shape) != shape:
        raise ShapeError(
            f"{what}: token_type_ids says of each of (B, T) = {shape} tokens which segment it "
            f"belongs to, got {tuple(token_type_ids.shape)}.",
            expected=shape,
            got=tuple(token_type_ids.shape),
        )
    array = input_ids.array
    if type(array) is np.ndarray and array.size:
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= vocabulary:
            bad = low if low < 0 else high
            raise IndexRangeError(
                f"{what}: token id {bad} is outside its vocabulary of {vocabulary} "
                f"(0 to {vocabulary - 1}).\nThe ids are of another model's tokenizer, or tokens "
                "were added to it: load the tokenizer of this model.",
                got=bad,
                size=vocabulary,
            )


def key_mask(attention_mask: Tensor | None) -> Tensor | None:
    """(B, T), 1 for tokens, as a mask of keys (B, 1, 1, T); None where nothing is padding."""
    if attention_mask is None:
        return None
    array = attention_mask.array
    if type(array) is np.ndarray and array.all():
        return None
    return attention_mask.astype(bool)[:, None, None]


def causal_mask(attention_mask: Tensor | None, tokens: int, past: int) -> Tensor | None:
    """Which keys (B or 1, 1, T, past + T) each new token may see; None: all before it."""
    keys = key_mask(attention_mask)
    if keys is None and (tokens == 1 or not past):
        return None
    seen = np.tril(np.ones((tokens, past + tokens), bool), past)
    mask = Tensor(seen[None, None])
    if keys is None:
        return mask
    return mask.to(device=keys.device) & keys


def positions(attention_mask: Tensor | None, tokens: int, past: int) -> Any:
    """Places (T,) or (B, T) of new tokens: how many tokens, not padding, are before each."""
    if attention_mask is None or attention_mask.array.all():
        return np.arange(past, past + tokens)
    array = attention_mask.cpu().array
    counted = np.cumsum(array.astype(np.int64), axis=1) - 1
    return np.maximum(counted, 0)[:, past:]

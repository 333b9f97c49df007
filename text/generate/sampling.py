"""Which token comes next: the best one, or one drawn from the best.

A draw takes one uniform number, so that a text depends on its own seed and not on what else is in
its batch. A vocabulary is never sorted where its best part is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.random import numpy_rng
from .settings import Settings

Array = np.ndarray[Any, Any]

_CHUNK = 64  # tokens whose maximum stands for them in the search for the best


def best(logits: Array) -> int:
    """The most probable token. Shape: (V,)."""
    return int(logits.argmax())


def highest(values: Array, k: int) -> Array:
    """The places of the k largest values, ties with the last of them included, in no order.

    The k-th largest of the maxima of many chunks bounds the k-th largest value from below, and
    few values reach it.
    """
    n = len(values)
    if k >= n:
        return np.arange(n)
    whole = n // _CHUNK * _CHUNK
    if k * 4 <= whole // _CHUNK:
        maxima = values[:whole].reshape(-1, _CHUNK).max(axis=1)
        bound = np.partition(maxima, -k)[-k]
        places = np.flatnonzero(values >= bound)
        part = values[places]
        return np.asarray(places[part >= np.partition(part, -k)[-k]])
    return np.flatnonzero(values >= np.partition(values, -k)[-k])


def distribution(logits: Array, settings: Settings) -> tuple[Array, Array]:
    """The tokens that can be drawn, in ascending order, and the probability of each, float64.

    Shape:
        (V,) -> (K,), int64, and (K,)
    """
    top = float(logits.max())
    if settings.temperature in (None, 1):
        x = logits - np.float32(top)
    else:
        x = (logits - np.float32(top)) / np.float32(settings.temperature)
    places = None
    if settings.top_k:
        places = highest(x, settings.top_k)
        x = x[places]
    if settings.top_p is not None and settings.top_p < 1:
        kept = _nucleus(x, settings.top_p)
        places = kept if places is None else places[kept]
        x = x[kept]
    if settings.min_p:
        kept = np.flatnonzero(x >= np.log(settings.min_p))
        places = kept if places is None else places[kept]
        x = x[kept]
    weights = np.exp(x, dtype=np.float64)
    tokens = np.arange(len(x)) if places is None else places
    return tokens, weights / weights.sum()


def _nucleus(x: Array, share: float) -> Array:
    """The places of the fewest values whose probability together reaches a share."""
    weights = np.exp(x)
    wanted = share * float(weights.sum(dtype=np.float64))
    k = 64
    while True:
        places = highest(x, k)
        order = places[np.argsort(-x[places], kind="stable")]
        sums = np.cumsum(weights[order], dtype=np.float64)
        if sums[-1] >= wanted or len(order) == len(x):
            count = int(np.searchsorted(sums, wanted)) + 1
            return np.sort(order[:count])
        k *= 8


def draw(logits: Array, settings: Settings, uniform: float) -> int:
    """A token drawn by a uniform number from [0, 1). Shape: (V,)."""
    return drawn(*distribution(logits, settings), uniform)


def drawn(tokens: Array, probabilities: Array, uniform: float) -> int:
    """The token at a share of the summed probabilities."""
    sums = probabilities.cumsum()
    place = int(np.searchsorted(sums, uniform * sums[-1], side="right"))
    return int(tokens[min(place, len(tokens) - 1)])


def streams(settings: Settings, prompts: int) -> list[np.random.Generator]:
    """A source of uniform numbers for each answer of each prompt.

    The j-th answer of a prompt has the stream (seed, j): the same alone and in a batch. Without a
    seed they come from the generator that `bt.manual_seed` sets.
    """
    from ...core.errors import ConfigError

    seeds: Sequence[int]
    if settings.seed is None:
        seeds = [int(n) for n in numpy_rng().integers(1 << 62, size=prompts)]
    elif isinstance(settings.seed, int):
        seeds = [settings.seed] * prompts
    else:
        seeds = settings.seed
        if len(seeds) != prompts:
            raise ConfigError(f"{len(seeds)} seeds for {prompts} prompts", got=len(seeds))
    each = settings.num_return_sequences
    return [
        np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, j])))
        for seed in seeds
        for j in range(each)
    ]

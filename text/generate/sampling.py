"""Which token comes next: the best one, or one drawn from the best.

A draw takes one uniform number, so that a text depends on its own seed and not on what else is in
its batch. A vocabulary is never sorted where its best part is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from ...core.random import numpy_rng
from .settings import Settings

Array = np.ndarray[Any, Any]

_CHUNK = 64  # tokens whose maximum stands for them in the search for the best
_BLOCK = 256  # values that are summed first
_LARGE = 1024  # more values than this are summed in parts
_SOME = 4096  # of the best values are looked at before all are sorted


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
    top = np.float32(logits.max())
    x = logits - top
    if settings.temperature not in (None, 1):
        x = x / np.float32(settings.temperature)
    tokens, x = _filtered(x, settings)
    weights = np.exp(x, dtype=np.float64)
    return tokens, weights / weights.sum()


def warped(scores: Array, settings: Settings, least: int) -> Array:
    """Log-probabilities by the temperature, -inf where a token cannot be drawn.

    Args:
        least: so many of the best tokens can be drawn, whatever top_k and the others say.

    Shape:
        (V,) -> (V,)
    """
    x = scores if settings.temperature in (None, 1) else scores / np.float32(settings.temperature)
    top = x.max()
    if not np.isfinite(top):
        return x
    tokens, _ = _filtered(x - top, settings)
    if len(tokens) < least:
        tokens = highest(x, least)
    found = np.full_like(x, -np.inf)
    found[tokens] = x[tokens]
    return found


def _filtered(x: Array, settings: Settings) -> tuple[Array, Array]:
    """The tokens that top_k, top_p and min_p leave, of logits whose largest is 0; and theirs."""
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
    return np.arange(len(x)) if places is None else places, x


def _nucleus(x: Array, share: float) -> Array:
    """The places of the fewest values whose probability together reaches a share, with ties."""
    weights = np.exp(x)
    wanted = share * float(weights.sum(dtype=np.float64))
    part = weights
    if len(weights) > 4 * _SOME:  # the best are enough, most often, and are found without sorting
        best_ones = np.partition(weights, -_SOME)[-_SOME:]
        if best_ones.sum(dtype=np.float64) >= wanted:
            part = best_ones
    falling = np.sort(part)[::-1]
    return np.flatnonzero(weights >= falling[_reach(falling, wanted)])


def _reach(values: Array, wanted: float) -> int:
    """The first place at which the sum of the values up to it reaches what is wanted.

    Sums of chunks come first: a running sum over a whole vocabulary is slow.
    """
    start = 0
    if len(values) > _LARGE:
        starts = np.arange(0, len(values), _BLOCK)
        sums = np.add.reduceat(values.astype(np.float64), starts).cumsum()
        chunk = min(int(np.searchsorted(sums, wanted, side="right")), len(starts) - 1)
        start = int(starts[chunk])
        wanted -= float(sums[chunk - 1]) if chunk else 0.0
        values = values[start : start + _BLOCK]
    within = values.cumsum(dtype=np.float64)
    return start + min(int(np.searchsorted(within, wanted, side="right")), len(values) - 1)


def draw(logits: Array, settings: Settings, uniform: float) -> int:
    """A token drawn by a uniform number from [0, 1). Shape: (V,)."""
    return drawn(*distribution(logits, settings), uniform)


def drawn(tokens: Array, probabilities: Array, uniform: float) -> int:
    """The token at a share of the summed probabilities."""
    place = _reach(probabilities, uniform * float(probabilities.sum()))
    while not probabilities[place]:  # rounding at the end of a chunk
        place -= 1
    return int(tokens[place])


def seeds_of(settings: Settings, prompts: int) -> Sequence[int] | None:
    """The seed of each prompt; without one given it comes from the generator that
    `bt.manual_seed` sets. None where nothing is drawn.

    Raises:
        ConfigError: seeds are given, and not one for each prompt.
    """
    if not settings.sampling:
        return None
    if settings.seed is None:
        return [int(n) for n in numpy_rng().integers(1 << 62, size=prompts)]
    if isinstance(settings.seed, int):
        return [settings.seed] * prompts
    if len(settings.seed) != prompts:
        raise ConfigError(
            f"{len(settings.seed)} seeds for {prompts} prompts", got=len(settings.seed)
        )
    return settings.seed


def streams(settings: Settings, prompts: int, each: int | None = None) -> list[np.random.Generator]:
    """A source of uniform numbers for each answer of each prompt, or so many for each prompt.

    The j-th answer of a prompt has the stream (seed, j): the same alone and in a batch.
    """
    seeds = seeds_of(settings, prompts) or ()
    each = settings.num_return_sequences if each is None else each
    return [
        np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, j])))
        for seed in seeds
        for j in range(each)
    ]

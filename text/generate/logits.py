"""What is done to logits before a token is chosen from them.

The order is that of transformers, so that the same settings give the same text: repetition, runs
that come twice, the end before its time, forced and forbidden tokens. Frequencies follow
repetition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .history import History
from .settings import Settings

Array = np.ndarray[Any, Any]

# A rule of a model of its own (Whisper's time stamps): changes the logits in place.
Rule = Callable[[History, Array], None]


def processed(
    logits: Array, history: History, settings: Settings, room: int, rules: Sequence[Rule] = ()
) -> Array:
    """The logits of the next token as the settings change them; the array itself if they do not.

    Args:
        room: how many tokens the answer may have in all.

    Shape:
        (V,) -> (V,)
    """
    if not rules and not settings.changes_logits:
        return logits
    x = logits.copy()
    if settings.repetition_penalty != 1:
        seen = history.seen()
        there = x[seen]
        penalty = np.float32(settings.repetition_penalty)
        x[seen] = np.where(there < 0, there * penalty, there / penalty)
    if settings.frequency_penalty or settings.presence_penalty:
        tokens, counts = history.counts()
        x[tokens] -= settings.frequency_penalty * counts + np.float32(settings.presence_penalty)
    if settings.no_repeat_ngram_size:
        x[history.repeats(settings.no_repeat_ngram_size)] = -np.inf
    if settings.eos_token_id and history.length < settings.min_new_tokens:
        x[list(settings.eos_token_id)] = -np.inf
    if settings.forced_bos_token_id is not None and history.length == 0:
        x = _only(x, (settings.forced_bos_token_id,))
    if settings.forced_eos_token_id is not None and history.length == room - 1:
        x = _only(x, (settings.forced_eos_token_id,))
    if settings.suppress_tokens:
        x[list(settings.suppress_tokens)] = -np.inf
    if settings.begin_suppress_tokens and history.length == 0:
        x[list(settings.begin_suppress_tokens)] = -np.inf
    for rule in rules:
        rule(history, x)
    return x


def _only(logits: Array, tokens: Sequence[int]) -> Array:
    found = np.full_like(logits, -np.inf)
    found[list(tokens)] = 0
    return found


def log_softmax(logits: Array) -> Array:
    """Log-probabilities over the last axis, float32."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    total = np.exp(shifted).sum(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(total), np.float32)


def log_probability(logits: Array, token: int) -> float:
    """The log-probability of one token. Shape: (V,)."""
    top = logits.max()
    return float(logits[token] - top - np.log(np.exp(logits - top).sum()))

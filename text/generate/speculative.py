"""Speculative decoding: a small network proposes several tokens, the large one checks them at once.

Without drawing, the text is that of the large network alone. With drawing, a proposal is accepted
with probability min(1, p / q), and else replaced by a draw from max(p - q, 0), which leaves the
large network's distribution p as it is (q is the small one's).

Source: Leviathan, Kalman & Matias 2023, "Fast Inference from Transformers via Speculative
Decoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from .answer import Answer, check_logits
from .history import History
from .logits import processed
from .sampling import best, drawn
from .steps import Step

Array = np.ndarray[Any, Any]

FEWEST, MOST, FIRST = 1, 8, 4  # proposals at a time


def speculate(step: Step, draft: Step, answer: Answer) -> Iterator[None]:
    """Let one answer grow to its end; yields after each token.

    Raises:
        ConfigError: the networks have different vocabularies.
    """
    prompt = list(answer.history.ids)
    logits = step.start([prompt])[0]
    ahead = draft.start([prompt])[0]
    if len(logits) != len(ahead):
        raise ConfigError(
            f"the draft has a vocabulary of {len(ahead)} tokens and the model one of {len(logits)}:"
            " they must share it",
            expected=len(logits),
            got=len(ahead),
        )
    check_logits(logits)
    answer.take(answer.choose(logits), logits)
    yield
    read = len(prompt)  # how many tokens the draft has read
    count = FIRST
    while not answer.over():
        count = min(count, answer.room - answer.history.length)
        known = len(answer.history.ids)
        proposals, chances = _propose(draft, answer, read, count)
        read = known + len(proposals) - 1
        last = answer.history.ids[-1]
        several = step(np.array([[last, *proposals]], np.int64))[0]
        accepted = 0
        for i, logits in enumerate(several):
            proposal = proposals[i] if i < len(proposals) else None
            token = _choose(answer, logits, proposal, chances[i] if chances else None)
            answer.take(token, logits)
            yield
            if answer.over():
                return
            if token != proposal:
                break
            accepted += 1
        step.keep(known + accepted)
        read = min(read, known + accepted)
        draft.keep(read)
        count = min(count + 1, MOST) if accepted == len(proposals) else max(count - 1, FEWEST)


def _propose(draft: Step, answer: Answer, read: int, count: int) -> tuple[list[int], list[Array]]:
    """The draft's next tokens, and where tokens are drawn the chances of all at each place."""
    history: History = answer.history.copy()
    proposals: list[int] = []
    chances: list[Array] = []
    tokens = history.ids[read:]
    for _ in range(count):
        logits = draft(np.array([tokens], np.int64))[0, -1]
        if answer.random is None:
            x = processed(logits, history, answer.settings, answer.room, answer.rules)
            token = best(x)
        else:
            chances.append(answer.chances(logits, history))
            token = _draw(chances[-1], answer.random.random())
        proposals.append(token)
        history.append(token)
        tokens = [token]
    return proposals, chances


def _choose(answer: Answer, logits: Array, proposal: int | None, chances: Array | None) -> int:
    """The proposal if the network could have drawn it, else what it would draw itself."""
    if answer.random is None or proposal is None or chances is None:
        return answer.choose(logits)
    own = answer.chances(logits)
    if answer.random.random() * chances[proposal] < own[proposal]:
        return proposal
    rest = np.maximum(own - chances, 0)
    return _draw(rest if rest.any() else own, answer.random.random())


def _draw(chances: Array, uniform: float) -> int:
    places = np.flatnonzero(chances)
    return drawn(places, chances[places], uniform)

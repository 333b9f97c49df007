"""Decoding: tokens one after the other, for all answers of a batch at once.

    answers = decode(step, [[1, 5, 7], [1, 9]], settings, rooms=[50, 50], stream=tokenizer.stream)
    answers[0].ids, answers[0].text, answers[0].finish

serves causal networks and decoders alike: `step` is a `CausalStep` or `Seq2SeqStep` (steps.py), the
rows are prompts, or the decoder's first tokens. With `settings.num_beams` above 1 it searches
(beams.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .answer import Answer, check_logits
from .guide import Guide
from .logits import Rule
from .sampling import streams
from .settings import Settings
from .steps import Step
from .stopping import Stream, Text

Array = np.ndarray[Any, Any]


def decode(
    step: Step,
    prompts: Sequence[Sequence[int]],
    settings: Settings,
    *,
    rooms: Sequence[int],
    stream: Stream | None = None,
    guide: Guide | None = None,
    rules: Sequence[Rule] = (),
    details: bool = False,
) -> list[Answer]:
    """Answers to prompts: `settings.num_return_sequences` for each, one prompt after the other.

    Args:
        step: the network.
        prompts: the tokens of each text so far, without padding.
        rooms: the most tokens that may follow each (`Settings.room`).
        stream: makes what turns tokens into text: `tokenizer.stream`; None gives only tokens,
            and then `settings.stop` cannot be looked for.
        guide: the form that answers must have.
        rules: change the logits in place before a token is chosen, as a model of its own needs.
        details: keep log-probabilities.
    """
    if settings.num_beams > 1:
        from .beams import search

        return search(
            step,
            prompts,
            settings,
            rooms=rooms,
            stream=stream,
            guide=guide,
            rules=rules,
            details=details,
        )
    answers = begin(
        prompts, settings, rooms, stream=stream, guide=guide, rules=rules, details=details
    )
    for _ in loop(step, answers, settings.num_return_sequences):
        pass
    return answers


def begin(
    prompts: Sequence[Sequence[int]],
    settings: Settings,
    rooms: Sequence[int],
    *,
    stream: Stream | None = None,
    guide: Guide | None = None,
    rules: Sequence[Rule] = (),
    details: bool = False,
) -> list[Answer]:
    """The answers before their first token."""
    each = settings.num_return_sequences if settings.num_beams == 1 else 1
    sources: list[Any] = [None] * (len(prompts) * each)
    if settings.sampling:
        sources = list(streams(settings, len(prompts)))
    return [
        Answer(
            prompt,
            settings,
            rooms[i],
            random=sources[i * each + j],
            text=None if stream is None else Text(stream(), settings.stop),
            guide=guide,
            rules=rules,
            details=details,
        )
        for i, prompt in enumerate(prompts)
        for j in range(each)
    ]


def loop(step: Step, answers: Sequence[Answer], each: int = 1) -> Iterator[None]:
    """Let answers grow to their ends; yields after each token.

    Args:
        each: so many answers, one behind the other, are to one prompt, which is read once.
    """
    logits = step.start([answer.history.ids for answer in answers[::each]])
    check_logits(logits)
    if each > 1:
        rows = np.repeat(np.arange(len(logits)), each)
        step.select(rows)
        logits = logits[rows]
    live = list(answers)
    while True:
        tokens = np.zeros((len(live), 1), np.int64)
        for i, answer in enumerate(live):
            if not answer.over():
                token = answer.choose(logits[i])
                answer.take(token, logits[i])
                tokens[i, 0] = token
        yield
        running = [i for i, answer in enumerate(live) if not answer.over()]
        if not running:
            return
        if 2 * len(running) <= len(live):  # less work is worth a copy of the cache
            chosen = np.array(running)
            step.select(chosen)
            live, tokens = [live[i] for i in running], tokens[chosen]
        logits = step(tokens)[:, -1]

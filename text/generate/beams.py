"""Beam search: the most probable answers, several candidates at a time.

Rules and scores are those of transformers: a candidate that ends counts only among the best
`num_beams`; a score is the sum of the log-probabilities, divided by length ** length_penalty.
Source: `early_stopping` and `length_penalty` as its documentation describes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .answer import Answer, Finish, check_logits
from .history import History
from .logits import Rule, log_softmax, processed
from .sampling import highest
from .settings import Settings
from .steps import Step
from .stopping import Stream, Text

Array = np.ndarray[Any, Any]


@dataclass
class _Beam:
    """A candidate: its tokens, their log-probabilities, and the sum that ranks it."""

    history: History
    total: float
    logprobs: list[float]
    finish: Finish | None = None
    score: float = 0.0


class _Search:
    """The candidates of one prompt."""

    def __init__(
        self, prompt: Sequence[int], settings: Settings, room: int, stream: Stream | None
    ) -> None:
        self.settings, self.room, self.stream = settings, room, stream
        self.running = [_Beam(History(prompt), 0.0, [])]
        self.finished: list[_Beam] = []
        self.open = True
        # So many cannot all end at once.
        self.kept = max(2, 1 + len(settings.eos_token_id)) * settings.num_beams

    def extend(self, scores: Array, raw: Array) -> list[int]:
        """One token more; returns which candidate each running one goes on from.

        Shape:
            both (running candidates, V): log-probabilities as the settings change them, and as the
            network gives them
        """
        totals = np.array([beam.total for beam in self.running], np.float32)
        vocabulary = scores.shape[1]
        flat = (scores + totals[:, None]).reshape(-1)
        places = highest(flat, self.kept)
        places = places[np.lexsort((places, -flat[places]))][: self.kept]
        running: list[_Beam] = []
        origins: list[int] = []
        ended: list[_Beam] = []
        for rank, place in enumerate(places):
            origin, token = divmod(int(place), vocabulary)
            finish = self._finish(self.running[origin], token)
            good = np.isfinite(flat[place])
            if finish is None and good and len(running) < self.settings.num_beams:
                running.append(self._grown(origin, token, float(flat[place]), raw))
                origins.append(origin)
            elif finish is not None and good and rank < self.settings.num_beams:
                ended.append(self._grown(origin, token, float(flat[place]), raw))
                ended[-1].finish = finish
        self._keep(ended)
        if running:
            self.running = running
        self._close(bool(running))
        return origins

    def _grown(self, origin: int, token: int, total: float, raw: Array) -> _Beam:
        old = self.running[origin]
        history = old.history.copy()
        history.append(token)
        return _Beam(history, total, [*old.logprobs, float(raw[origin, token])])

    def _finish(self, beam: _Beam, token: int) -> Finish | None:
        """Why a candidate would end with a token."""
        if token in self.settings.eos_token_id:
            return "end"
        if self.settings.stop and self.stream is not None:
            text = Text(self.stream(), self.settings.stop)
            for number in [*beam.history.new, token]:
                text.push(number)
            if text.stopped:
                return "stop"
        return "length" if beam.history.length + 1 >= self.room else None

    def _keep(self, ended: list[_Beam]) -> None:
        full = len(self.finished) >= self.settings.num_beams
        if full and self.settings.early_stopping is True:
            return
        for beam in ended:
            beam.score = beam.total / beam.history.length**self.settings.length_penalty
        best = sorted(self.finished + ended, key=lambda beam: -beam.score)
        self.finished = best[: self.settings.num_beams]

    def _close(self, goes_on: bool) -> None:
        """Decide whether a better answer may still come."""
        if not goes_on:
            self.open = False
        if not self.open or len(self.finished) < self.settings.num_beams:
            return
        penalty, length = self.settings.length_penalty, self.running[0].history.length
        if self.settings.early_stopping == "never" and penalty > 0:
            length = self.room
        possible = self.running[0].total / length**penalty
        best = possible > self.finished[-1].score
        self.open = best and self.settings.early_stopping is not True

    def best(self) -> list[_Beam]:
        """The answers, the best first."""
        found = self.finished or self.running
        return found[: self.settings.num_return_sequences]


def search(
    step: Step,
    prompts: Sequence[Sequence[int]],
    settings: Settings,
    *,
    rooms: Sequence[int],
    stream: Stream | None = None,
    rules: Sequence[Rule] = (),
    details: bool = False,
) -> list[Answer]:
    """The best answers to each prompt, `settings.num_return_sequences` of each. See `decode`."""
    searches = [
        _Search(prompt, settings, room, stream) for prompt, room in zip(prompts, rooms, strict=True)
    ]
    logits = step.start(prompts)
    check_logits(logits)
    active = list(searches)
    while True:
        rows: list[int] = []
        row = 0
        for one in active:
            count = len(one.running)
            raw = log_softmax(logits[row : row + count])
            scores = np.stack(
                [
                    processed(raw[i], beam.history, settings, one.room, rules)
                    for i, beam in enumerate(one.running)
                ]
            )
            origins = one.extend(scores, raw)
            if one.open:
                rows += [row + origin for origin in origins]
            row += count
        active = [one for one in active if one.open]
        if not active:
            break
        step.select(np.array(rows))
        tokens = [beam.history.ids[-1] for one in active for beam in one.running]
        logits = step(np.array(tokens, np.int64)[:, None])[:, -1]
    return [_answer(one, beam, stream, details) for one in searches for beam in one.best()]


def _answer(one: _Search, beam: _Beam, stream: Stream | None, details: bool) -> Answer:
    text = None if stream is None else Text(stream(), one.settings.stop)
    answer = Answer(beam.history.ids[: beam.history.prompt], one.settings, one.room, text=text)
    answer.adopt(beam.history, beam.logprobs if details else None, beam.score)
    answer.end(beam.finish or "length")
    return answer

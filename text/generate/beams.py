"""Beam search: the most probable answers, several candidates at a time.

Rules and scores are those of transformers: a candidate that ends counts only among the best
`num_beams`; a score is the sum of the log-probabilities, divided by length ** length_penalty.
Source: `early_stopping` and `length_penalty` as its documentation describes them.

Where tokens are drawn, the candidates of a step are drawn without replacement, which is to take the
best after noise of Gumbel's distribution was added to their log-probabilities.
Source: Kool et al. 2019, "Stochastic Beams and Where to Find Them", section 2.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .answer import Answer, Finish, check_logits
from .guide import TRIES, Guide
from .history import History
from .logits import Rule, log_softmax, processed
from .sampling import highest, streams, warped
from .settings import Settings
from .steps import Step
from .stopping import Stream, Text

Array = np.ndarray[Any, Any]


@dataclass
class _Beam:
    """A candidate: its tokens, their log-probabilities, the sum that ranks it, and where it is in
    the form that was asked for."""

    history: History
    total: float
    logprobs: list[float]
    state: Any = None
    finish: Finish | None = None
    score: float = 0.0


class _Search:
    """The candidates of one prompt."""

    def __init__(
        self,
        prompt: Sequence[int],
        settings: Settings,
        room: int,
        stream: Stream | None,
        guide: Guide | None = None,
        random: np.random.Generator | None = None,
    ) -> None:
        self.settings, self.room, self.stream = settings, room, stream
        self.guide, self.random = guide, random
        self.running = [_Beam(History(prompt), 0.0, [], None if guide is None else guide.start())]
        self.finished: list[_Beam] = []
        self.open = True
        # So many cannot all end at once.
        self.kept = max(2, 1 + len(settings.eos_token_id)) * settings.num_beams

    def scores(self, raw: Array, rules: Sequence[Rule]) -> Array:
        """The log-probabilities of the network as the settings and the form change them.

        Shape:
            (running candidates, V) -> the same
        """
        found = []
        for beam, row in zip(self.running, raw, strict=True):
            x = processed(row, beam.history, self.settings, self.room, rules)
            if self.guide is not None:
                x = self.guide.masked(x, beam.state)
            if self.random is not None:
                x = warped(x, self.settings, least=max(2, 1 + len(self.settings.eos_token_id)))
            found.append(x)
        return np.stack(found)

    def extend(self, scores: Array, raw: Array) -> list[int]:
        """One token more; returns which candidate each running one goes on from.

        Shape:
            both (running candidates, V): log-probabilities as the settings change them, and as the
            network gives them
        """
        totals = np.array([beam.total for beam in self.running], np.float32)
        vocabulary = scores.shape[1]
        flat = (scores + totals[:, None]).reshape(-1)
        running: list[tuple[_Beam, int]] = []
        ended: list[_Beam] = []
        for rank, place in enumerate(self._candidates(flat, raw)):
            origin, token = divmod(place, vocabulary)
            beam = self._grown(origin, token, float(flat[place]), raw)
            beam.finish = self._finish(beam, token)
            if beam.finish is None:
                running.append((beam, origin))
            elif rank < self.settings.num_beams:
                ended.append(beam)
        self._keep(ended)
        if self.random is not None:  # drawn in any order
            running.sort(key=lambda pair: -pair[0].total)
        running = running[: self.settings.num_beams]
        if running:
            self.running = [beam for beam, _ in running]
        self._close(bool(running))
        return [origin for _, origin in running]

    def _candidates(self, flat: Array, raw: Array) -> list[int]:
        """Places of the best candidates, or of drawn ones, the first first; none of them leaves too
        little room to complete the form."""
        keys = flat
        if self.random is not None:
            keys = flat + self.random.gumbel(size=len(flat)).astype(np.float32)
        elif self.guide is not None:
            keys = flat.copy()
        found: list[int] = []
        for _ in range(TRIES):
            places = highest(keys, self.kept)
            places = places[np.lexsort((places, -keys[places]))][: self.kept]
            places = places[np.isfinite(keys[places])]
            found = [place for place in places.tolist() if self._fits(place, raw.shape[1])]
            if len(found) == len(places):
                break
            keys[np.setdiff1d(places, found)] = -np.inf
        return found or self._shortest(flat, raw)

    def _fits(self, place: int, vocabulary: int) -> bool:
        if self.guide is None:
            return True
        origin, token = divmod(place, vocabulary)
        beam = self.running[origin]
        return self.guide.leaves_room(beam.state, token, self.room - beam.history.length)

    def _shortest(self, flat: Array, raw: Array) -> list[int]:
        """The tokens with which each candidate completes its form soonest."""
        found = []
        for origin, beam in enumerate(self.running if self.guide is not None else ()):
            assert self.guide is not None
            token = self.guide.shortest(beam.state)
            place = origin * raw.shape[1] + token
            flat[place] = beam.total + raw[origin, token]
            found.append(place)
        return sorted(found, key=lambda place: -flat[place])

    def _grown(self, origin: int, token: int, total: float, raw: Array) -> _Beam:
        old = self.running[origin]
        history = old.history.copy()
        history.append(token)
        state = old.state
        if self.guide is not None and token not in self.settings.eos_token_id:
            state = self.guide.advance(state, token)
        return _Beam(history, total, [*old.logprobs, float(raw[origin, token])], state)

    def _finish(self, beam: _Beam, token: int) -> Finish | None:
        """Why a candidate ends with its last token."""
        if token in self.settings.eos_token_id:
            return "end"
        if self.guide is not None:
            if self.guide.complete(beam.state):
                return "complete"
        elif self.settings.stop and self.stream is not None:
            text = Text(self.stream(), self.settings.stop)
            for number in beam.history.new:
                text.push(number)
            if text.stopped:
                return "stop"
        return "length" if beam.history.length >= self.room else None

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
    guide: Guide | None = None,
    rules: Sequence[Rule] = (),
    details: bool = False,
) -> list[Answer]:
    """The best answers to each prompt, `settings.num_return_sequences` of each. See `decode`."""
    sources: Sequence[Any] = [None] * len(prompts)
    if settings.sampling:
        sources = streams(settings, len(prompts), 1)
    searches = [
        _Search(prompt, settings, room, stream, guide, random)
        for prompt, room, random in zip(prompts, rooms, sources, strict=True)
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
            origins = one.extend(one.scores(raw, rules), raw)
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

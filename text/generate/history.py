"""What a text consists of so far, and what the penalties want to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class History:
    """The tokens of a prompt and of its answer.

    Args:
        prompt: without padding.

    Attributes:
        ids: all tokens.
        prompt: how many of them are the prompt's.
    """

    __slots__ = ("_answered", "_counts", "_distinct", "_places", "_seen", "ids", "prompt")

    def __init__(self, prompt: Sequence[int]) -> None:
        self.ids = list(prompt)
        self.prompt = len(self.ids)
        self._distinct: dict[int, None] = dict.fromkeys(self.ids)
        self._seen = np.fromiter(self._distinct, np.int64, len(self._distinct))
        self._answered: dict[int, int] = {}  # token -> its place in the next two
        self._places = np.empty(16, np.int64)
        self._counts = np.empty(16, np.float32)

    @property
    def new(self) -> list[int]:
        """The tokens of the answer."""
        return self.ids[self.prompt :]

    @property
    def length(self) -> int:
        """How many tokens the answer has."""
        return len(self.ids) - self.prompt

    def copy(self) -> History:
        """One that goes its own way."""
        new = History.__new__(History)
        new.ids, new.prompt = list(self.ids), self.prompt
        new._distinct, new._seen = dict(self._distinct), self._seen
        new._answered = dict(self._answered)
        new._places, new._counts = self._places.copy(), self._counts.copy()
        return new

    def append(self, token: int) -> None:
        """One more token of the answer."""
        self.ids.append(token)
        self._distinct[token] = None
        place = self._answered.get(token)
        if place is None:
            place = self._answered[token] = len(self._answered)
            if place == len(self._places):
                self._places = np.concatenate([self._places, np.empty_like(self._places)])
                self._counts = np.concatenate([self._counts, np.empty_like(self._counts)])
            self._places[place], self._counts[place] = token, 0
        self._counts[place] += 1

    def seen(self) -> Array:
        """Every token that is there, once."""
        if len(self._seen) != len(self._distinct):
            self._seen = np.fromiter(self._distinct, np.int64, len(self._distinct))
        return self._seen

    def counts(self) -> tuple[Array, Array]:
        """Every token of the answer, once, and how often it came."""
        n = len(self._answered)
        return self._places[:n], self._counts[:n]

    def repeats(self, size: int) -> list[int]:
        """The tokens that would make a run of `size` tokens come a second time."""
        ids = self.ids
        if len(ids) < size:
            return []
        if size == 1:
            return list(self._distinct)
        tail = ids[len(ids) - size + 1 :]
        last = tail[-1]
        found = []
        for i in range(size - 2, len(ids) - 1):
            if ids[i] == last and ids[i - size + 2 : i + 1] == tail:
                found.append(ids[i + 1])
        return found

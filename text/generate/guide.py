"""Answers of a given form: at each place only the tokens with which it can still be kept.

A guide also sees to it that the form is complete when the tokens are used up: a token after which
the shortest completion would not fit is not taken.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from .machine import Machine, State
from .vocabulary import Vocabulary, fitting

Array = np.ndarray[Any, Any]

_REMEMBERED = 2048  # states whose tokens are kept
TRIES = 8  # tokens looked at before the shortest way is taken


class Guide:
    """A form over a vocabulary.

    Args:
        machine: the form, over bytes.
        vocabulary: the bytes of the tokens.
        ends: the tokens that end an answer; they are allowed where the form is complete.

    Raises:
        ConfigError: a character of the form is no token.
    """

    def __init__(self, machine: Machine, vocabulary: Vocabulary, ends: Sequence[int] = ()) -> None:
        self.machine, self.vocabulary = machine, vocabulary
        self.ends = list(ends)
        # A token that ends the answer is no text, even where a vocabulary shows it as one.
        self._entries = [entry for entry in vocabulary.entries if entry[1] not in self.ends]
        self._others = [entry for entry in vocabulary.others if entry[1] not in self.ends]
        self._characters = vocabulary.characters.copy()
        self._characters[[end for end in self.ends if end < len(self._characters)]] = 0
        self._allowed: OrderedDict[State, tuple[Array, int | None]] = OrderedDict()
        missing = self._missing(machine.rest(machine.start))
        if missing:
            raise ConfigError(
                f"the tokenizer has no token for {missing!r}, which answers of this form need"
            )

    def _missing(self, text: bytes) -> str | None:
        for character in text.decode():
            whole = character.encode()
            if self.vocabulary.number(whole) is None and any(
                self.vocabulary.number(whole[i : i + 1]) is None for i in range(len(whole))
            ):
                return character
        return None

    def start(self) -> State:
        """Before the first token."""
        return self.machine.start

    def least(self, state: State) -> int:
        """So many tokens certainly complete the form."""
        return len(self.machine.rest(state))

    def check(self, room: int) -> None:
        """Raise where an answer has too little room.

        Raises:
            ConfigError: names the number of tokens to ask for.
        """
        least = self.least(self.machine.start)
        if room < least:
            raise ConfigError(
                f"answers of this form need up to {least} tokens, and there is room for {room}.\n"
                f"Give max_new_tokens={max(2 * least, 64)} or more.",
                expected=least,
                got=room,
            )

    def advance(self, state: State, token: int) -> State:
        """The state after a token that was allowed."""
        found = self.machine.walk(state, self.vocabulary.contents[token])
        assert found is not None
        return found

    def complete(self, state: State) -> bool:
        """Whether the answer ends here."""
        if not state:
            return True
        return not self.ends and self.machine.accepts(state)

    def choose(self, logits: Array, state: State, left: int, pick: Callable[[Array], int]) -> int:
        """The token that `pick` takes from those allowed, with room for the rest of the form.

        Args:
            left: how many tokens there may still be, this one included.
        """
        x = self.masked(logits, state)
        for _ in range(TRIES):
            if not np.isfinite(x.max()):
                break
            token = pick(x)
            if self.leaves_room(state, token, left):
                return token
            x[token] = -np.inf
        return self.shortest(state)

    def leaves_room(self, state: State, token: int, left: int) -> bool:
        """Whether the form can be completed after a token that is allowed, one of `left`."""
        return token in self.ends or self.least(self.advance(state, token)) < left

    def shortest(self, state: State) -> int:
        """The token with which a short completion begins.

        Raises:
            ConfigError: there is none.
        """
        token = self.vocabulary.prefix(self.machine.rest(state))
        if token is None:
            raise ConfigError("the tokenizer has no tokens for answers of this form")
        return token

    def masked(self, logits: Array, state: State) -> Array:
        """The logits of the tokens that are allowed, and -inf. Shape: (V,) -> (V,)."""
        places, free = self._tokens(state)
        x = np.full_like(logits, -np.inf)
        x[places] = logits[places]
        if free is not None:
            characters = self._characters
            fit = (characters > 0) & (characters <= free)
            np.copyto(x[: len(fit)], logits[: len(fit)], where=fit)
        if self.ends and self.machine.accepts(state):
            x[self.ends] = logits[self.ends]
        return x

    def _tokens(self, state: State) -> tuple[Array, int | None]:
        found = self._allowed.get(state)
        if found is None:
            free = self.machine.free(state)
            entries = self._entries if free is None else self._others
            places = np.array(fitting(entries, state, self.machine.step), np.int64)
            found = self._allowed[state] = places, free
            if len(self._allowed) > _REMEMBERED:
                self._allowed.popitem(last=False)
        else:
            self._allowed.move_to_end(state)
        return found

"""The text of an answer as its tokens come, up to a string that ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class Characters(Protocol):
    """Turns tokens into text, only complete characters: `Tokenizer.stream()`."""

    def push(self, token: int, /) -> str:
        """What a token adds; "" while a character is incomplete."""

    def finish(self) -> str:
        """What is still held back."""


Stream = Callable[[], Characters]


class Text:
    """Tokens to text, which holds back what may become a stop string.

    Attributes:
        text: what was given out so far.
        stopped: whether a stop string came; it is not part of the text.
    """

    __slots__ = ("_characters", "_held", "_stop", "stopped", "text")

    def __init__(self, characters: Characters, stop: Sequence[str] = ()) -> None:
        self._characters = characters
        self._stop = tuple(stop)
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that a token makes certain."""
        return self._take(self._characters.push(token))

    def finish(self) -> str:
        """The rest: nothing more comes that could complete a stop string."""
        if self.stopped:
            return ""
        piece = self._take(self._characters.finish())
        if not self.stopped:
            piece += self._held
            self.text += self._held
            self._held = ""
        return piece

    def _take(self, piece: str) -> str:
        if self._stop:
            held = self._held + piece
            places = [place for stop in self._stop if (place := held.find(stop)) >= 0]
            if places:
                self.stopped = True
                piece, self._held = held[: min(places)], ""
            else:
                keep = max(_overlap(held, stop) for stop in self._stop)
                piece, self._held = held[: len(held) - keep], held[len(held) - keep :]
        self.text += piece
        return piece


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of a text with which a stop string begins."""
    for n in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:n]):
            return n
    return 0

"""Decoding token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_UNFINISHED = "\ufffd"
# The longest text that a clean-up of spaces can still change, such as " n ' t".
_CHANGING = 8


class Stream:
    """Texts of tokens as they come: only complete characters, which together are the whole text.

    Args:
        decode: the text of tokens.
        held: whether the text of a token depends on the next.
        skipped: tokens that are not shown.
        cleans: whether `decode` changes spaces that were written before.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        held: Callable[[int], bool],
        *,
        skipped: frozenset[int] = frozenset(),
        cleans: bool = False,
    ) -> None:
        self._decode, self._held = decode, held
        self._skipped, self._cleans = skipped, cleans
        # Tokens from the last one that gave a text on: what stands before a token decides about
        # the space at its beginning. `_shown` is what was given of their text.
        self._ids: list[int] = []
        self._shown = ""
        self._last = 0  # how many of them are shown

    def push(self, number: int) -> str:
        """The text that this token makes certain; often that of the token, sometimes none."""
        number = int(number)
        if number in self._skipped:
            return ""
        self._ids.append(number)
        if self._held(number):
            return ""
        text = self._decode(self._ids)
        if text.endswith(_UNFINISHED):
            return ""
        if self._cleans:
            return self._show_but_last(text)
        new = text[len(self._shown) :]
        if not new:
            return ""
        window = self._ids[self._last :]
        alone = self._decode(window)
        # Some tokens mean something else at a beginning: then those before them are kept too.
        if alone and text.endswith(alone):
            self._ids, self._shown = window, alone
        else:
            self._shown = text
        self._last = len(self._ids)
        return new

    def _show_but_last(self, text: str) -> str:
        new = text[len(self._shown) : max(len(self._shown), len(text) - _CHANGING)]
        self._shown += new
        return new

    def finish(self) -> str:
        """The rest: characters that were never completed are replacement characters."""
        rest = self._decode(self._ids)[len(self._shown) :] if self._ids else ""
        self._ids, self._shown, self._last = [], "", 0
        return rest

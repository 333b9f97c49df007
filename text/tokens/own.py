"""What our own tokenizers share: tokens that are found whole, around any way to cut the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from .bpe import ByteLevelBPE, byte_alphabet
from .parts import Added, Pieces


class Model(Protocol):
    """Cuts a text that holds no added token."""

    @property
    def vocab(self) -> dict[str, int]:
        """token -> id."""

    @property
    def byte_pairs(self) -> bool:
        """Whether clean-up of spaces would spoil a decoded text."""

    def pieces(self, text: str) -> Pieces:
        """Its tokens; offsets and words from 0."""

    def decode(self, tokens: Sequence[str], added: Iterable[str]) -> str:
        """The text of tokens, some of which were added."""

    def held(self, token: str) -> bool:
        """Whether the text of this token depends on the one after it."""


class Own:
    """An engine around a way to cut texts.

    Args:
        model: cuts and joins.
        added: tokens that are one wherever a text holds them; those without an id that the
            vocabulary lacks get the next ones.
    """

    def __init__(self, model: Model, added: Sequence[Added] = ()) -> None:
        self.model = model
        self.byte_pairs = model.byte_pairs
        self.base = 1 + max(model.vocab.values(), default=-1)
        self._numbers = dict(model.vocab)
        following = self.base
        for token in sorted(added, key=lambda t: (t.number is None, t.number or 0)):
            if token.content not in self._numbers:
                number = following if token.number is None else token.number
                self._numbers[token.content] = number
                following = max(following, number + 1)
        self._tokens = {number: token for token, number in self._numbers.items()}
        self.size = 1 + max(self._tokens, default=-1)
        self._added = {token.content: token for token in added}
        longest_first = sorted(self._added, key=len, reverse=True)
        self._found = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, without those around it."""
        return [self.pieces(text).ids for text in texts]

    def pieces(self, text: str) -> Pieces:
        """The tokens of a text with their places."""
        whole = Pieces([], [], [])
        place = 0
        for found in self._found.finditer(text):
            start, end = found.span()
            token = self._added[found[0]]
            if start < place or (token.word and _inside_word(text, start, end)):
                continue
            number = self._numbers[token.content]
            if token.left:
                start = place + len(text[place:start].rstrip())
            if token.right:
                end = len(text) - len(text[end:].lstrip())
            self._plain(whole, text, place, start)
            _append(whole, Pieces([number], [(0, end - start)], [0]), start)
            place = end
        self._plain(whole, text, place, len(text))
        return whole

    def _plain(self, whole: Pieces, text: str, start: int, end: int) -> None:
        if start < end:
            _append(whole, self.model.pieces(text[start:end]), start)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these tokens; ids that there are not are passed over."""
        tokens = [self._tokens[number] for number in ids if number in self._tokens]
        return self.model.decode(tokens, self._added)

    def token(self, number: int) -> str | None:
        """The token of an id."""
        return self._tokens.get(number)

    def number(self, token: str) -> int | None:
        """The id of a token."""
        return self._numbers.get(token)

    def held(self, number: int) -> bool:
        """Whether the text of this token depends on the one after it."""
        return number in self._tokens and self.model.held(self._tokens[number])


def _append(whole: Pieces, part: Pieces, start: int) -> None:
    word = 1 + max((w for w in whole.words if w is not None), default=-1) if whole.words else 0
    whole.ids.extend(part.ids)
    whole.offsets.extend((a + start, b + start) for a, b in part.offsets)
    whole.words.extend(None if w is None else w + word for w in part.words)


def _inside_word(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start], text[end : end + 1]
    return any(c.isalnum() or c == "_" for c in (before, after) if c)


class BytePairs:
    """Byte-level byte pairs as a model of `Own`.

    Args:
        bpe: the encoding.
        prefix_space: a text begins with a blank even where it does not.
        trim: places of tokens leave out blanks.
    """

    byte_pairs = True

    def __init__(
        self, bpe: ByteLevelBPE, *, prefix_space: bool = False, trim: bool = False
    ) -> None:
        self.bpe, self.prefix_space, self.trim = bpe, prefix_space, trim
        self.vocab = bpe.vocab

    def pieces(self, text: str) -> Pieces:
        """Its tokens; offsets and words from 0."""
        added = int(self.prefix_space and not text.startswith(" "))
        pieces = Pieces([], [], [])
        place = -added
        text = self.bpe.prepare(" " * added + text)
        for number, word in enumerate(self.bpe.words(text)):
            ids = self.bpe.word(word)
            lengths = [len(self.bpe.tokens[i]) for i in ids]
            pieces.ids.extend(ids)
            pieces.words.extend([number] * len(ids))
            pieces.offsets.extend(self._places(word, place, lengths))
            place += len(word)
        return pieces

    def _places(self, word: str, place: int, lengths: list[int]) -> list[tuple[int, int]]:
        valid = word.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        owners = [i for i, c in enumerate(valid) for _ in c.encode()]
        found, byte = [], 0
        for length in lengths:
            if byte + length > len(owners):  # the token for unknown ones
                return [(place, place + len(word))] * len(lengths)
            first, last = owners[byte], owners[byte + length - 1] + 1
            if self.trim:
                part = valid[first:last]
                blanks = len(part) - len(part.lstrip(" "))
                if blanks == 1 and place + first <= 0 and self.prefix_space:
                    blanks = 0  # as the reference does, whether that one was added or not
                first = min(first + blanks, last)
                last = max(last - len(part) + len(part.rstrip(" ")), first)
            found.append((max(place + first, 0), max(place + last, 0)))
            byte += length
        return found

    def decode(self, tokens: Sequence[str], added: Iterable[str]) -> str:
        """The text of tokens, some of which were added."""
        values = _byte_values()
        known = set(added)
        whole = bytearray()
        for token in tokens:
            if token in known or any(c not in values for c in token):
                whole += token.encode()
            else:
                whole += bytes(values[c] for c in token)
        return whole.decode("utf-8", "replace")

    def held(self, token: str) -> bool:
        """Never: incomplete characters are seen in the text."""
        return False


def _byte_values() -> dict[str, int]:
    return {character: value for value, character in enumerate(byte_alphabet())}

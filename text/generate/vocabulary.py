"""The bytes that each token of a vocabulary stands for."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]

_MISSING = "\ufffd"  # what decoding writes where a token is no whole character
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # SentencePiece's tokens of one byte


class Tokens(Protocol):
    """What is needed of a tokenizer."""

    @property
    def size(self) -> int:
        """How many tokens there are."""

    def token(self, number: int, /) -> str | None:
        """A token as the vocabulary writes it."""

    def decode(self, ids: Sequence[int], /) -> str:
        """The text of tokens, special ones left out."""


class Vocabulary:
    """Tokens by their bytes, sorted.

    Args:
        contents: of each token, b"" for one that is no text (special ones).

    Attributes:
        entries: (bytes, token), sorted; without those that are no text.
        characters: of each token the number of its characters if it can stand anywhere in a JSON
            string (whole characters; no quotation mark, backslash or control character), else 0.
        others: the entries that cannot.
    """

    def __init__(self, contents: Sequence[bytes]) -> None:
        self.contents = list(contents)
        self.entries = sorted((text, i) for i, text in enumerate(self.contents) if text)
        self.characters = np.array([_plain(text) for text in self.contents], np.int64)
        self.others = [(t, i) for t, i in self.entries if not self.characters[i]]
        self.longest = max(map(len, self.contents), default=0)
        self._number = dict(reversed(self.entries))

    def number(self, text: bytes) -> int | None:
        """The token that is exactly this text."""
        return self._number.get(text)

    def prefix(self, text: bytes) -> int | None:
        """The longest token with which a text begins."""
        for end in range(min(len(text), self.longest), 0, -1):
            if text[:end] in self._number:
                return self._number[text[:end]]
        return None

    @classmethod
    def of(cls, tokenizer: Tokens) -> Vocabulary:
        """The vocabulary of a tokenizer."""
        return cls(list(_contents(tokenizer)))


def fitting(
    entries: Sequence[tuple[bytes, int]], state: Any, step: Callable[[Any, int], Any]
) -> list[int]:
    """The tokens whose bytes can all follow a state, of sorted entries.

    Entries that begin alike are looked at together: what does not fit is skipped as a whole.
    """
    found: list[int] = []
    waiting = [(0, len(entries), 0, state)]
    while waiting:
        low, high, depth, now = waiting.pop()
        while low < high and len(entries[low][0]) == depth:
            found.append(entries[low][1])
            low += 1
        while low < high:
            text = entries[low][0]
            after = text[: depth + 1]
            end = high
            if entries[high - 1][0][: depth + 1] != after:
                end = bisect_left(entries, (_behind(after),), low, high)
            following = step(now, text[depth])
            if following is not None:
                waiting.append((low, end, depth + 1, following))
            low = end
    return found


def _behind(text: bytes) -> bytes:
    """The first text that sorts behind all that begin with this one."""
    return text[:-1] + bytes([text[-1] + 1]) if text[-1] < 255 else _behind(text[:-1])


def _plain(text: bytes) -> int:
    try:
        found = text.decode()
    except UnicodeDecodeError:
        return 0
    return 0 if re.search(r'["\\\x00-\x1f]', found) else len(found)


def _contents(tokenizer: Tokens) -> Iterator[bytes]:
    """Each token's bytes: as decoding writes it behind another token, which keeps its space."""
    alphabet = _byte_alphabet()
    special = getattr(tokenizer, "special", ())
    anchor = next(
        (i for i in range(tokenizer.size) if tokenizer.decode([i]).strip().isalnum()), None
    )
    before = [] if anchor is None else [anchor]
    lead = tokenizer.decode(before)
    for i in range(tokenizer.size):
        if i in special:
            yield b""
            continue
        text = tokenizer.decode([*before, i])
        alone = tokenizer.decode([i])
        if not alone and text == lead:  # not shown, or no token at all
            yield b""
            continue
        if text.startswith(lead) and _MISSING not in text:
            yield text[len(lead) :].encode(errors="ignore")
            continue
        raw = tokenizer.token(i) or ""
        byte = _BYTE.fullmatch(raw)
        if byte is not None:
            yield bytes([int(byte[1], 16)])
        elif all(character in alphabet for character in raw):
            yield bytes(alphabet[character] for character in raw)
        else:
            yield b""


def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level vocabularies write for bytes. Source: GPT-2."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in visible]
    table = {chr(byte): byte for byte in visible}
    table.update({chr(256 + i): byte for i, byte in enumerate(rest)})
    return table
